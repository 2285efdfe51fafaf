//! All that the broker knows, in one place behind one lock, and the steps that touch more than one part of it.

use kafka_protocol::ResponseError;
use tokio::time::Instant;

use crate::Config;
use crate::groups::Groups;
use crate::topics::Topics;
use crate::transactions::{Ended, Transactions};

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) topics: Topics,
    pub(crate) groups: Groups,
    pub(crate) transactions: Transactions,
}

impl State {
    pub(crate) fn new(config: &Config) -> Self {
        Self {
            topics: Topics::default(),
            groups: Groups::new(config.group_initial_rebalance_delay),
            transactions: Transactions::new(config.transaction_max_timeout),
        }
    }

    /// Writes the markers of a transaction and settles its offsets: one step for every reader.
    pub(crate) fn settle(&mut self, ended: &Ended, now_ms: i64) {
        let producer = ended.producer;
        for (topic, index) in &ended.partitions {
            // A topic deleted in between has nothing left to settle.
            if let Ok(partition) = self.topics.partition_mut(topic, *index) {
                let log = &mut partition.log;
                log.end_transaction(producer.id, producer.epoch, ended.commit, now_ms);
                partition.wake();
            }
        }
        for group in &ended.groups {
            if let Some(group) = self.groups.get_mut(group) {
                group.offsets.end_transaction(producer.id, ended.commit);
            }
        }
    }

    /// Removes a topic and what the groups have committed on it.
    pub(crate) fn delete_topic(&mut self, name: &str) -> Result<(), ResponseError> {
        self.topics.delete(name)?;
        for group in self.groups.iter_mut() {
            group.offsets.forget_topic(name);
        }
        Ok(())
    }

    /// Does what became due: sessions, rebalances, transaction timeouts.
    pub(crate) fn tick(&mut self, now: Instant, now_ms: i64) {
        for group in self.groups.iter_mut() {
            group.tick(now);
        }
        for ended in self.transactions.expire(now) {
            self.settle(&ended, now_ms);
        }
    }
}
