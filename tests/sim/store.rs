//! A worker's local store and the restore from it and the changelog (design §5).

use std::collections::BTreeMap;

use tidegate_core::{
    block::{Block, Change, Entries},
    entry::purged_ranges,
    job::JobSpec,
    shard::ShardState,
    time::Offset,
    window::Grid,
};

use crate::changelog::JOB;

/// One shard's part of a worker's store: entries, and the head of the last block included.
#[derive(Clone, Debug)]
pub struct LocalStore {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    pub head: Block,
}

/// What a restore found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing of use in the store.
    LogAlone,
    /// The store lay on the chain.
    Store,
    /// The store is ahead of the log: committed data was lost.
    Ahead,
}

impl LocalStore {
    /// A store that holds what `blocks`, from one that begins a log, fold to.
    pub fn new(job: &JobSpec, blocks: &[Block]) -> Self {
        let mut store = Self { entries: BTreeMap::new(), head: Block::default() };
        blocks.iter().for_each(|block| store.apply(job, block));
        store
    }

    /// Takes in the next block of the chain.
    pub fn apply(&mut self, job: &JobSpec, block: &Block) {
        for change in block.entries.iter() {
            match change.expect("a committed entry reads") {
                Change::Upsert(key, value) => {
                    self.entries.insert(key.to_vec(), value.to_vec());
                }
                Change::Delete(key) => {
                    self.entries.remove(key);
                }
            }
        }
        if let Some(purged) = block.scalars.purged {
            for (from, to) in purged_ranges(&Grid::new(&job.window), purged) {
                let gone: Vec<_> = self.entries.range(from..to).map(|(key, _)| key.clone()).collect();
                gone.iter().for_each(|key| drop(self.entries.remove(key)));
            }
        }
        self.head = Block { entries: Entries::default(), ..block.clone() };
    }

    /// Makes it the store of another chain, with other contents; `ahead` of anything the log has come to.
    pub fn damage(&mut self, incarnation: u64, ahead: bool) {
        self.head.incarnation = incarnation;
        self.head.sequence += if ahead { 1_000 } else { 0 };
        self.entries.pop_last();
    }

    fn state(&self, job: &JobSpec) -> ShardState {
        let mut state = ShardState::empty(job);
        state.set_job(JOB);
        for (key, value) in &self.entries {
            state.restore_entry(Change::Upsert(key, value)).expect("a stored entry reads");
        }
        state.restore_scalars(&self.head);
        state
    }
}

/// The state at the end of the log, and whether the store helped.
pub fn restore(
    job: &JobSpec,
    store: Option<&LocalStore>,
    log: &[(Offset, Block)],
    believes: bool,
) -> (ShardState, Found) {
    let last = log.last().map_or(0, |(_, block)| block.sequence);
    let place = store.and_then(|store| {
        let same = |block: &Block| {
            block.sequence == store.head.sequence && (believes || block.incarnation == store.head.incarnation)
        };
        log.iter().position(|(_, block)| same(block))
    });
    let (mut state, rest, found) = match (store, place) {
        (Some(store), Some(at)) => (store.state(job), &log[at + 1..], Found::Store),
        (Some(store), None) if store.head.sequence > last => (ShardState::empty(job), log, Found::Ahead),
        _ => (ShardState::empty(job), log, Found::LogAlone),
    };
    for (_, block) in rest {
        state
            .fold(block)
            .unwrap_or_else(|error| crate::violation::violated("restore: the log folds", error.to_string()));
    }
    (state, found)
}
