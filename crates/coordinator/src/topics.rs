//! The job's topics: found, made, verified.

use std::time::Duration;

use tidegate_core::time::{Offset, Partition};
use tidegate_job::{Job, StartFrom};
use tidegate_kafka::{
    Admin, ChangelogReader, Created, Entry, KafkaConfig, NewTopic, TopicDescription, TopicRole,
};

use crate::error::{Error, Result};

/// How the topics that the coordinator makes are kept; `None`: as the cluster does by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Durability {
    /// Copies of each partition.
    pub replication: Option<u16>,
    /// Copies that must have a record before it is acknowledged.
    pub min_insync: Option<u16>,
}

/// Makes and verifies topics.
pub(crate) struct Topics<'a> {
    pub(crate) admin: &'a Admin,
    pub(crate) kafka: &'a KafkaConfig,
    pub(crate) job: &'a Job,
    pub(crate) durability: Durability,
}

impl Topics<'_> {
    /// The source, made where the job says with how many partitions.
    pub(crate) async fn source(&self) -> Result<TopicDescription> {
        let name = &self.job.source.topic;
        if let Some(found) = self.admin.topic(name).await? {
            return Ok(found);
        }
        let missing = || Error::SourceMissing { topic: name.clone() };
        let partitions = self.job.source.partitions.ok_or_else(missing)?;
        self.create(NewTopic {
            name: name.clone(),
            partitions,
            replication: self.durability.replication,
            configs: self.kept(),
        })
        .await?;
        self.admin.topic(name).await?.ok_or_else(missing)
    }

    /// Where a new job begins to read.
    pub(crate) async fn starts(&self) -> Result<Vec<Offset>> {
        let ends = self.admin.ends(&self.job.source.topic).await?;
        Ok(ends
            .into_iter()
            .map(|ends| match self.job.source.start_from {
                StartFrom::Earliest => ends.log_start,
                StartFrom::Latest => ends.high_watermark,
            })
            .collect())
    }

    /// The control topic, made if it is missing.
    pub(crate) async fn control(&self) -> Result<()> {
        self.internal(self.job.control_topic(), 1, TopicRole::Control).await
    }

    /// Results and dead letters, made if they are missing: partition = shard.
    pub(crate) async fn outputs(&self) -> Result<()> {
        let (sink, dead_letter) = (&self.job.sink.topic, &self.job.dead_letter.topic);
        tokio::try_join!(self.output(sink), self.output(dead_letter)).map(drop)
    }

    async fn output(&self, name: &str) -> Result<()> {
        if self.admin.topic(name).await?.is_some() {
            return Ok(());
        }
        let mut configs = self.kept();
        configs.insert(MAX_MESSAGE.to_owned(), self.dead_letter_bytes().await?.to_string());
        self.create(NewTopic {
            name: name.to_owned(),
            partitions: self.job.core.shards,
            replication: self.durability.replication,
            configs,
        })
        .await
    }

    /// The changelog of a job that has no record: made if it is missing.
    pub(crate) async fn changelog(&self) -> Result<()> {
        self.internal(self.job.changelog_topic(), self.job.core.shards, TopicRole::Changelog).await
    }

    /// The changelog of a job that begins: made if it is missing, and empty.
    pub(crate) async fn empty_changelog(&self) -> Result<()> {
        let topic = self.job.changelog_topic();
        self.changelog().await?;
        let holds_something: Vec<Partition> = self
            .admin
            .ends(&topic)
            .await?
            .into_iter()
            .filter(|ends| ends.high_watermark > ends.log_start)
            .map(|ends| ends.partition)
            .collect();
        if holds_something.is_empty() {
            return Ok(());
        }
        // Perhaps only what a first start that did not get through has left behind, aborted.
        let (kafka, control, job) = (self.kafka.clone(), self.job.control_topic(), self.job.name.clone());
        blocking("read the changelog", move || {
            let reader = ChangelogReader::open(&kafka, &topic)?;
            for partition in holds_something {
                let foreign = |_: Entry<'_>| {
                    Err(Error::ChangelogForeign {
                        topic: topic.clone(),
                        partition: partition.0,
                        control: control.clone(),
                        job: job.clone(),
                    })
                };
                reader.read(partition, None, PATIENCE, foreign)?;
            }
            Ok(())
        })
        .await
    }

    /// The changelog of a job that goes on.
    pub(crate) async fn whole_changelog(&self) -> Result<()> {
        let (topic, shards) = (self.job.changelog_topic(), self.job.core.shards);
        let lost =
            |found| Error::ChangelogLost { topic: topic.clone(), job: self.job.name.clone(), shards, found };
        match self.admin.topic(&topic).await? {
            None => Err(lost("does not exist".to_owned())),
            Some(found) if found.partitions != shards => {
                Err(lost(format!("has {} partitions", found.partitions)))
            }
            Some(_) => Ok(self.admin.verify(&topic, TopicRole::Changelog).await?),
        }
    }

    async fn internal(&self, name: String, partitions: u32, role: TopicRole) -> Result<()> {
        match self.admin.topic(&name).await? {
            Some(found) if found.partitions != partitions => {
                return Err(Error::Partitions { topic: name, found: found.partitions, wanted: partitions });
            }
            Some(_) => {}
            None => {
                let mut topic = NewTopic::of_role(name.clone(), partitions, role);
                topic.replication = self.durability.replication;
                topic.configs.extend(self.min_insync());
                topic.configs.insert(MAX_MESSAGE.to_owned(), self.dead_letter_bytes().await?.to_string());
                self.create(topic).await?;
            }
        }
        match self.admin.verify(&name, role).await {
            // Brokers learn of a topic that another coordinator makes at different times.
            Err(tidegate_kafka::Error::UnknownTopic { topic }) => Err(Error::Settling { topic }),
            verified => Ok(verified?),
        }
    }

    async fn create(&self, topic: NewTopic) -> Result<()> {
        if self.admin.create(&topic).await? == Created::Created {
            tracing::info!(topic = topic.name, partitions = topic.partitions, "created a topic");
        }
        Ok(())
    }

    /// The largest source record and its `tidegate-*` headers: a dead letter is whole. A producer has one limit for all its topics,
    /// so sink and changelog take as much.
    async fn dead_letter_bytes(&self) -> Result<u64> {
        let configs = self.admin.configs(&self.job.source.topic).await?;
        let source =
            configs.get(MAX_MESSAGE).and_then(|bytes| bytes.parse().ok()).unwrap_or(DEFAULT_MAX_MESSAGE);
        Ok(source + HEADERS)
    }

    /// Settings of topics with event times: Kafka counts retention from the record's timestamp, so that by default the results of
    /// old windows would be deleted within minutes. Who wants another retention makes the topic, or alters it.
    fn kept(&self) -> std::collections::BTreeMap<String, String> {
        let mut configs = self.min_insync();
        configs.insert("retention.ms".to_owned(), "-1".to_owned());
        configs
    }

    fn min_insync(&self) -> std::collections::BTreeMap<String, String> {
        let setting = |copies: u16| ("min.insync.replicas".to_owned(), copies.to_string());
        self.durability.min_insync.map(setting).into_iter().collect()
    }
}

const MAX_MESSAGE: &str = "max.message.bytes";
/// Kafka's own default.
const DEFAULT_MAX_MESSAGE: u64 = 1_048_588;
/// Room for the headers of a dead letter.
const HEADERS: u64 = 64 << 10;

/// How long an open transaction may hide the end of a topic of ours.
pub(crate) const PATIENCE: Duration = Duration::from_secs(15);

/// Runs calls that block.
pub(crate) async fn blocking<T: Send + 'static>(
    task: &'static str,
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(|_| Error::Task(task))?
}
