//! Topics by name and by id, their partitions, and who waits for a partition to move.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kafka_protocol::ResponseError;
use tokio::sync::Notify;
use uuid::Uuid;

use crate::log::Log;
use crate::topic_config::TopicConfig;

/// The longest topic name that Kafka allows.
const MAX_NAME: usize = 249;

#[derive(Debug, Default)]
pub(crate) struct Topics {
    by_name: BTreeMap<String, Topic>,
    names: HashMap<Uuid, String>,
}

#[derive(Debug)]
pub(crate) struct Topic {
    pub(crate) id: Uuid,
    pub(crate) config: TopicConfig,
    partitions: Vec<Partition>,
}

#[derive(Debug, Default)]
pub(crate) struct Partition {
    pub(crate) log: Log,
    /// One waiter per connection, so that fetches that time out leave nothing behind.
    waiters: HashMap<u64, Arc<Notify>>,
}

impl Topics {
    /// Adds a topic with this many partitions.
    pub(crate) fn create(
        &mut self,
        name: &str,
        partitions: usize,
        config: TopicConfig,
    ) -> Result<Uuid, ResponseError> {
        self.check_new(name)?;
        let id = Uuid::new_v4();
        self.names.insert(id, name.to_owned());
        let mut topic = Topic { id, config, partitions: Vec::new() };
        topic.grow(partitions);
        self.by_name.insert(name.to_owned(), topic);
        Ok(id)
    }

    /// Whether a topic of this name could be created.
    pub(crate) fn check_new(&self, name: &str) -> Result<(), ResponseError> {
        if self.by_name.contains_key(name) {
            return Err(ResponseError::TopicAlreadyExists);
        }
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if name.is_empty() || name == "." || name == ".." || name.len() > MAX_NAME || !name.bytes().all(legal)
        {
            return Err(ResponseError::InvalidTopicException);
        }
        Ok(())
    }

    /// Removes a topic; fetches that wait on it wake up to an error.
    pub(crate) fn delete(&mut self, name: &str) -> Result<(), ResponseError> {
        let topic = self.by_name.remove(name).ok_or(ResponseError::UnknownTopicOrPartition)?;
        self.names.remove(&topic.id);
        for mut partition in topic.partitions {
            partition.wake();
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Result<&Topic, ResponseError> {
        self.by_name.get(name).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    pub(crate) fn get_mut(&mut self, name: &str) -> Result<&mut Topic, ResponseError> {
        self.by_name.get_mut(name).ok_or(ResponseError::UnknownTopicOrPartition)
    }

    /// The name of a topic id.
    pub(crate) fn name_of(&self, id: &Uuid) -> Result<&str, ResponseError> {
        self.names.get(id).map(String::as_str).ok_or(ResponseError::UnknownTopicId)
    }

    pub(crate) fn partition(&self, topic: &str, index: i32) -> Result<&Partition, ResponseError> {
        self.get(topic)?.partition(index)
    }

    pub(crate) fn partition_mut(&mut self, topic: &str, index: i32) -> Result<&mut Partition, ResponseError> {
        self.get_mut(topic)?.partition_mut(index)
    }

    /// All topics, in order of name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Topic)> {
        self.by_name.iter().map(|(name, topic)| (name.as_str(), topic))
    }
}

impl Topic {
    /// Adds partitions until there are `count`.
    pub(crate) fn grow(&mut self, count: usize) {
        if count > self.partitions.len() {
            self.partitions.resize_with(count, Partition::default);
        }
    }

    pub(crate) fn partition_count(&self) -> usize {
        self.partitions.len()
    }

    pub(crate) fn partition(&self, index: i32) -> Result<&Partition, ResponseError> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.partitions.get(index))
            .ok_or(ResponseError::UnknownTopicOrPartition)
    }

    pub(crate) fn partition_mut(&mut self, index: i32) -> Result<&mut Partition, ResponseError> {
        usize::try_from(index)
            .ok()
            .and_then(|index| self.partitions.get_mut(index))
            .ok_or(ResponseError::UnknownTopicOrPartition)
    }
}

impl Partition {
    /// Has `waiter` told when the partition next moves.
    pub(crate) fn wait(&mut self, connection: u64, waiter: &Arc<Notify>) {
        self.waiters.entry(connection).or_insert_with(|| Arc::clone(waiter));
    }

    /// Tells whoever waits that there may be something to read.
    pub(crate) fn wake(&mut self) {
        for (_, waiter) in self.waiters.drain() {
            waiter.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_checked_and_ids_follow_the_topic() {
        let mut topics = Topics::default();
        let config = TopicConfig::new(BTreeMap::new()).unwrap();
        for name in ["", ".", "a b", "ä", &"x".repeat(250)] {
            assert_eq!(
                topics.create(name, 1, config.clone()),
                Err(ResponseError::InvalidTopicException),
                "{name}"
            );
        }
        let id = topics.create("orders", 2, config.clone()).unwrap();
        assert_eq!(topics.create("orders", 2, config.clone()), Err(ResponseError::TopicAlreadyExists));
        assert_eq!(topics.name_of(&id), Ok("orders"));
        assert!(topics.partition("orders", 1).is_ok());
        for missing in [2, -1] {
            assert_eq!(
                topics.partition("orders", missing).unwrap_err(),
                ResponseError::UnknownTopicOrPartition
            );
        }
        topics.delete("orders").unwrap();
        assert_eq!(topics.name_of(&id), Err(ResponseError::UnknownTopicId));
        assert_ne!(topics.create("orders", 2, config), Ok(id), "a recreated topic is another one");
    }
}
