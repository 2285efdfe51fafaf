//! Topics: whether they are there, what they hold, how they are configured; making and trimming them.

mod cluster;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rdkafka::admin::{
    AdminClient, AdminOptions, NewTopic as RawNewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::BaseProducer;
use rdkafka::{Offset as RawOffset, TopicPartitionList};
use tidegate_core::time::{Offset, Partition};

use crate::client::{
    Deadline, LogContext, is_connection, is_denial, partition_count, raw_offset, raw_partition,
};
use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::requests::{Mark, list_offsets, topic_id};
use crate::producer::QuietContext;
use crate::topic::{Created, NewTopic, PartitionEnds, TopicDescription, TopicId, TopicRole};

/// How long a request may take.
const TIMEOUT: Duration = Duration::from_secs(15);
/// How long to look for the reason why no broker answers.
const PROBE: Duration = Duration::from_secs(2);

/// Looks after topics. Cheap to clone.
#[derive(Clone)]
pub struct Admin {
    config: KafkaConfig,
    client: Arc<AdminClient<LogContext>>,
}

impl Admin {
    /// Opens a client; connects when first used.
    ///
    /// # Errors
    ///
    /// When the client refuses its configuration.
    pub fn open(config: &KafkaConfig) -> Result<Self> {
        let mut settings = config.client(&[], &[]);
        // rdkafka's admin client never hands out its log lines; they would only pile up.
        settings.set_log_level(RDKafkaLogLevel::Emerg);
        let client = settings
            .create_with_context(LogContext)
            .map_err(|error| Error::client("open an admin client", &error))?;
        Ok(Self { config: config.clone(), client: Arc::new(client) })
    }

    /// Whether the cluster answers.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] with the reason, after `timeout`.
    pub async fn reachable(&self, timeout: Duration) -> Result<()> {
        self.blocking(move |admin| match admin.client.inner().fetch_metadata(None, timeout) {
            Ok(metadata) if !metadata.brokers().is_empty() => Ok(()),
            Ok(_) => Err(why_unreachable(&admin.config, "the answer names no broker".to_owned())),
            Err(error) => Err(why_unreachable(&admin.config, error.to_string())),
        })
        .await
    }

    /// A topic; `None` if there is none of that name.
    ///
    /// # Errors
    ///
    /// When the cluster does not answer.
    pub async fn topic(&self, name: &str) -> Result<Option<TopicDescription>> {
        let name = name.to_owned();
        self.blocking(move |admin| {
            let partitions = match admin.partition_count(&name) {
                Ok(partitions) => partitions,
                Err(Error::UnknownTopic { .. }) => return Ok(None),
                Err(error) => return Err(error),
            };
            let id = match topic_id(admin.client.inner(), &name, TIMEOUT) {
                Ok(id) => id.map(TopicId),
                Err(Error::UnknownTopic { .. }) => return Ok(None),
                Err(Error::Client {
                    code: RDKafkaErrorCode::UnsupportedFeature | RDKafkaErrorCode::UnsupportedVersion,
                    ..
                }) => None,
                Err(error) => return Err(error),
            };
            Ok(Some(TopicDescription { name, partitions, id }))
        })
        .await
    }

    /// Makes a topic and waits until the cluster shows it. One that is there already, or that another makes just now, is left as
    /// it is.
    ///
    /// # Errors
    ///
    /// When the cluster refuses it or does not answer.
    pub async fn create(&self, topic: &NewTopic) -> Result<Created> {
        let what = format!("create topic `{}`", topic.name);
        let replication = topic.replication.map_or(-1, i32::from);
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        let mut raw = RawNewTopic::new(&topic.name, partitions, TopicReplication::Fixed(replication));
        for (key, value) in &topic.configs {
            raw = raw.set(key, value);
        }
        let results = self
            .client
            .create_topics([&raw], &options())
            .await
            .map_err(|error| Error::client(&what, &error))?;
        let created = match results.into_iter().next() {
            Some(Ok(_)) => Created::Created,
            // The one that has made it may not have been answered yet, and brokers learn of it at different times.
            Some(Err((_, RDKafkaErrorCode::TopicAlreadyExists))) => Created::Exists,
            Some(Err((_, code))) => return Err(Error::code(what, code)),
            None => return Err(Error::code(what, RDKafkaErrorCode::Fail)),
        };
        let deadline = Deadline::after(TIMEOUT);
        loop {
            match self.shown(topic, created, deadline.left()).await {
                Ok(()) => return Ok(created),
                Err(error) if deadline.has_passed() => return Err(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }

    /// Every partition of a topic has a leader that answers, and its settings can be read.
    async fn shown(&self, topic: &NewTopic, created: Created, patience: Duration) -> Result<()> {
        let (name, wanted) = (topic.name.clone(), topic.partitions);
        self.blocking(move |admin| {
            let found = admin.partition_count(&name)?;
            let partitions = if created == Created::Created { wanted } else { found };
            let all: Vec<_> = (0..partitions).map(Partition).collect();
            list_offsets(admin.client.inner(), &name, &all, [Mark::LogStart], patience).map(drop)
        })
        .await?;
        self.configs(&topic.name).await.map(drop)
    }

    /// Deletes a topic. One that is not there is fine.
    ///
    /// # Errors
    ///
    /// When the cluster refuses it or does not answer.
    pub async fn delete(&self, topic: &str) -> Result<()> {
        let what = format!("delete topic `{topic}`");
        let results = self
            .client
            .delete_topics(&[topic], &options())
            .await
            .map_err(|error| Error::client(&what, &error))?;
        match results.into_iter().next() {
            Some(Ok(_) | Err((_, RDKafkaErrorCode::UnknownTopicOrPartition))) => Ok(()),
            Some(Err((_, code))) => Err(Error::code(what, code)),
            None => Err(Error::code(what, RDKafkaErrorCode::Fail)),
        }
    }

    /// The configuration of a topic: every key with its value, defaults included.
    ///
    /// # Errors
    ///
    /// When there is no such topic or the cluster does not answer.
    pub async fn configs(&self, topic: &str) -> Result<BTreeMap<String, String>> {
        let what = format!("read the configuration of topic `{topic}`");
        let results = self
            .client
            .describe_configs([&ResourceSpecifier::Topic(topic)], &options())
            .await
            .map_err(|error| Error::client(&what, &error))?;
        match results.into_iter().next() {
            // A topic that is not there comes back without settings and without an error.
            Some(Ok(resource)) if resource.entries.is_empty() => {
                Err(Error::UnknownTopic { topic: topic.to_owned() })
            }
            Some(Ok(resource)) => Ok(resource
                .entries
                .into_iter()
                .map(|entry| (entry.name, entry.value.unwrap_or_default()))
                .collect()),
            Some(Err(code)) => Err(Error::code(what, code)),
            None => Err(Error::code(what, RDKafkaErrorCode::Fail)),
        }
    }

    /// Whether a topic is configured as `role` needs it.
    ///
    /// # Errors
    ///
    /// [`Error::TopicConfig`] names the first setting that is not; otherwise as [`configs`](Self::configs).
    pub async fn verify(&self, topic: &str, role: TopicRole) -> Result<()> {
        let found = self.configs(topic).await?;
        for (key, wanted) in role.required() {
            let value = found.get(*key).map_or("", String::as_str);
            if value != *wanted {
                return Err(Error::TopicConfig {
                    topic: topic.to_owned(),
                    key,
                    found: value.to_owned(),
                    wanted,
                });
            }
        }
        Ok(())
    }

    /// Deletes what lies below `before` in a partition; returns the new log start.
    ///
    /// # Errors
    ///
    /// When there is no such partition, `before` lies above its end, or the cluster does not answer.
    pub async fn delete_records(&self, topic: &str, partition: Partition, before: Offset) -> Result<Offset> {
        let what = format!("delete records of topic `{topic}` partition {partition} below {before}");
        let client = |error: KafkaError| Error::client(&what, &error);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(topic, raw_partition(partition), RawOffset::Offset(raw_offset(before)))
            .map_err(client)?;
        let results = self.client.delete_records(&list, &options()).await.map_err(client)?;
        let results = results.elements();
        let Some(element) = results.first() else {
            return Err(Error::code(&what, RDKafkaErrorCode::Fail));
        };
        if let Err(error) = element.error() {
            return Err(match error.rdkafka_error_code() {
                Some(RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownPartition) => {
                    Error::UnknownPartition { topic: topic.to_owned(), partition }
                }
                Some(RDKafkaErrorCode::OffsetOutOfRange) => Error::OffsetOutOfRange {
                    topic: topic.to_owned(),
                    partition,
                    offset: before,
                    log_start: None,
                    end: None,
                },
                _ => client(error),
            });
        }
        match element.offset() {
            RawOffset::Offset(start) => Ok(Offset(u64::try_from(start).unwrap_or_default())),
            _ => Ok(before),
        }
    }

    /// Where every partition of a topic begins and ends, by fresh round trips.
    ///
    /// # Errors
    ///
    /// When there is no such topic or the cluster does not answer.
    pub async fn ends(&self, topic: &str) -> Result<Vec<PartitionEnds>> {
        let topic = topic.to_owned();
        self.blocking(move |admin| {
            let partitions: Vec<_> = (0..admin.partition_count(&topic)?).map(Partition).collect();
            let marks = [Mark::LogStart, Mark::LastStable, Mark::HighWatermark];
            let ends = list_offsets(admin.client.inner(), &topic, &partitions, marks, TIMEOUT)?;
            let ends = partitions.into_iter().zip(ends);
            Ok(ends
                .map(|(partition, [log_start, last_stable, high_watermark])| PartitionEnds {
                    partition,
                    log_start,
                    last_stable,
                    high_watermark,
                })
                .collect())
        })
        .await
    }

    fn partition_count(&self, topic: &str) -> Result<u32> {
        partition_count(self.client.inner(), topic, TIMEOUT).map_err(|error| explained(&self.config, error))
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let admin = self.clone();
        match tokio::task::spawn_blocking(move || work(&admin)).await {
            Ok(done) => done,
            Err(_) => Err(Error::code("run an admin request", RDKafkaErrorCode::Fail)),
        }
    }
}

/// The error, or the reason for it where it only says that the client did not come through to a broker.
///
/// What the client itself has complained of is no reason: a token that had run out is refused as a wrong one is, and the next one
/// may be taken. A new client shows a new token.
pub(crate) fn explained(config: &KafkaConfig, error: Error) -> Error {
    match error {
        Error::Client { reason, code, .. } if is_connection(code) || is_denial(code) => {
            why_unreachable(config, reason)
        }
        other => other,
    }
}

/// Finds out why no broker answers: a producer, unlike other clients, hands out at once what went wrong.
pub(crate) fn why_unreachable(config: &KafkaConfig, otherwise: String) -> Error {
    let context = QuietContext::default();
    let complaint = context.complaint.clone();
    let probe: Result<BaseProducer<QuietContext>, _> = config.client(&[], &[]).create_with_context(context);
    if let Ok(probe) = probe {
        let deadline = Deadline::after(PROBE);
        while complaint.is_none() && !deadline.has_passed() {
            probe.poll(Duration::from_millis(20));
        }
    }
    complaint
        .error(&config.brokers)
        .unwrap_or_else(|| Error::Unreachable { brokers: config.brokers.clone(), reason: otherwise })
}

fn options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(TIMEOUT)).operation_timeout(Some(TIMEOUT))
}
