//! The offsets that one group has committed, and those that open transactions would commit.

use std::collections::{BTreeMap, HashMap};

use crate::transactions::TopicPartition;

/// A committed position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Committed {
    pub(crate) offset: i64,
    pub(crate) leader_epoch: i32,
    pub(crate) metadata: String,
}

#[derive(Debug, Default)]
pub(crate) struct Offsets {
    committed: BTreeMap<TopicPartition, Committed>,
    /// By producer id.
    pending: HashMap<i64, BTreeMap<TopicPartition, Committed>>,
}

impl Offsets {
    pub(crate) fn commit(&mut self, partition: TopicPartition, committed: Committed) {
        self.committed.insert(partition, committed);
    }

    /// Keeps a commit back until the producer's transaction ends.
    pub(crate) fn commit_in_transaction(
        &mut self,
        producer_id: i64,
        partition: TopicPartition,
        committed: Committed,
    ) {
        self.pending.entry(producer_id).or_default().insert(partition, committed);
    }

    /// Applies or forgets what the producer's transaction would commit.
    pub(crate) fn end_transaction(&mut self, producer_id: i64, commit: bool) {
        let pending = self.pending.remove(&producer_id).unwrap_or_default();
        if commit {
            self.committed.extend(pending);
        }
    }

    pub(crate) fn get(&self, partition: &TopicPartition) -> Option<&Committed> {
        self.committed.get(partition)
    }

    /// Whether an open transaction would change this partition's offset.
    pub(crate) fn is_pending(&self, partition: &TopicPartition) -> bool {
        self.pending.values().any(|pending| pending.contains_key(partition))
    }

    /// All committed positions, in order of topic and partition.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&TopicPartition, &Committed)> {
        self.committed.iter()
    }

    /// Forgets a deleted topic.
    pub(crate) fn forget_topic(&mut self, topic: &str) {
        self.committed.retain(|(name, _), _| name != topic);
        for pending in self.pending.values_mut() {
            pending.retain(|(name, _), _| name != topic);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(offset: i64) -> Committed {
        Committed { offset, leader_epoch: -1, metadata: String::new() }
    }

    #[test]
    fn offsets_of_a_transaction_show_when_it_commits_and_vanish_when_it_aborts() {
        let mut offsets = Offsets::default();
        let partition = ("topic".to_owned(), 0);
        offsets.commit(partition.clone(), at(1));
        offsets.commit_in_transaction(7, partition.clone(), at(2));
        assert!(offsets.is_pending(&partition));
        assert_eq!(offsets.get(&partition), Some(&at(1)));
        offsets.end_transaction(7, false);
        assert!(!offsets.is_pending(&partition));
        assert_eq!(offsets.get(&partition), Some(&at(1)));
        offsets.commit_in_transaction(7, partition.clone(), at(3));
        offsets.end_transaction(7, true);
        assert_eq!(offsets.get(&partition), Some(&at(3)));
    }
}
