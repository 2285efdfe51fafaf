//! What the cluster is, and what it would allow: looked at, never changed.

use std::collections::BTreeMap;

use rdkafka::admin::{NewTopic as RawNewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{Offset as RawOffset, TopicPartitionList};
use tidegate_core::time::Partition;

use super::{Admin, TIMEOUT, options};
use crate::client::raw_partition;
use crate::error::{Error, Result};
use crate::topic::{Copies, NewTopic};

impl Admin {
    /// The ids of all brokers that are up.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when none answers.
    pub async fn brokers(&self) -> Result<Vec<i32>> {
        self.blocking(|admin| match admin.client.inner().fetch_metadata(None, TIMEOUT) {
            Ok(metadata) => {
                Ok(metadata.brokers().iter().map(rdkafka::metadata::MetadataBroker::id).collect())
            }
            Err(error) => Err(super::why_unreachable(&admin.config, error.to_string())),
        })
        .await
    }

    /// The names of all topics that this client may see.
    ///
    /// # Errors
    ///
    /// [`Error::Unreachable`] when no broker answers.
    pub async fn topics(&self) -> Result<Vec<String>> {
        self.blocking(|admin| match admin.client.inner().fetch_metadata(None, TIMEOUT) {
            Ok(metadata) => Ok(metadata.topics().iter().map(|topic| topic.name().to_owned()).collect()),
            Err(error) => Err(super::why_unreachable(&admin.config, error.to_string())),
        })
        .await
    }

    /// The configuration of a broker: every key with its value.
    ///
    /// # Errors
    ///
    /// When it may not be read or the broker does not answer.
    pub async fn broker_configs(&self, broker: i32) -> Result<BTreeMap<String, String>> {
        let what = format!("read the configuration of broker {broker}");
        let results = self
            .client
            .describe_configs([&ResourceSpecifier::Broker(broker)], &options())
            .await
            .map_err(|error| Error::client(&what, &error))?;
        match results.into_iter().next() {
            Some(Ok(resource)) => Ok(resource
                .entries
                .into_iter()
                .map(|entry| (entry.name, entry.value.unwrap_or_default()))
                .collect()),
            Some(Err(code)) => Err(Error::code(what, code)),
            None => Err(Error::code(what, RDKafkaErrorCode::Fail)),
        }
    }

    /// How many copies each partition of a topic has.
    ///
    /// # Errors
    ///
    /// When there is no such topic or the cluster does not answer.
    pub async fn copies(&self, topic: &str) -> Result<Vec<Copies>> {
        let topic = topic.to_owned();
        self.blocking(move |admin| {
            admin.partition_count(&topic)?;
            let what = format!("read the metadata of topic `{topic}`");
            let metadata = admin
                .client
                .inner()
                .fetch_metadata(Some(&topic), TIMEOUT)
                .map_err(|error| Error::client(&what, &error))?;
            let partitions = metadata.topics().iter().flat_map(rdkafka::metadata::MetadataTopic::partitions);
            Ok(partitions
                .map(|partition| Copies {
                    partition: Partition(u32::try_from(partition.id()).unwrap_or_default()),
                    replicas: partition.replicas().len(),
                    in_sync: partition.isr().len(),
                })
                .collect())
        })
        .await
    }

    /// Whether the cluster would create a topic; it does not.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn would_create(&self, topic: &NewTopic) -> Result<()> {
        let what = format!("create topic `{}`", topic.name);
        let replication = topic.replication.map_or(-1, i32::from);
        let partitions = i32::try_from(topic.partitions).unwrap_or(i32::MAX);
        let mut raw = RawNewTopic::new(&topic.name, partitions, TopicReplication::Fixed(replication));
        for (key, value) in &topic.configs {
            raw = raw.set(key, value);
        }
        let results = self
            .client
            .create_topics([&raw], &options().validate_only(true))
            .await
            .map_err(|error| Error::client(&what, &error))?;
        match results.into_iter().next() {
            Some(Ok(_)) => Ok(()),
            Some(Err((_, code))) => Err(Error::code(what, code)),
            None => Err(Error::code(what, RDKafkaErrorCode::Fail)),
        }
    }

    /// Whether the offsets of a group may be read. The group is not joined.
    ///
    /// # Errors
    ///
    /// Why not.
    pub async fn group_readable(&self, group: &str, topic: &str) -> Result<()> {
        let (group, topic) = (group.to_owned(), topic.to_owned());
        self.blocking(move |admin| {
            let what = format!("read the offsets of group `{group}`");
            let client = |error| Error::client(&what, &error);
            let consumer: BaseConsumer = admin.config.consumer(&group).create().map_err(client)?;
            let mut asked = TopicPartitionList::new();
            asked
                .add_partition_offset(&topic, raw_partition(Partition(0)), RawOffset::Invalid)
                .map_err(client)?;
            let found = consumer.committed_offsets(asked, TIMEOUT).map_err(client)?;
            match found.elements().first().map(|element| element.error()) {
                Some(Err(error)) => Err(client(error)),
                _ => Ok(()),
            }
        })
        .await
    }
}
