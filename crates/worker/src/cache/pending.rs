//! Committed blocks on their way to the local store, merged so that each key is written once.

use std::collections::HashSet;

use tidegate_core::{
    block::{Block, Change, Entries, JobId},
    entry::{EntryKey, purged_ranges},
    job::OperatorSpec,
    time::{EventTime, Offset},
};
use tidegate_store::{Changes, Identity};

/// What a key and its value take in memory beside their bytes, about.
const KEY_OVERHEAD: usize = 100;

/// Committed blocks that are not in the store yet, in order behind what has been merged of them.
#[derive(Debug)]
pub(super) struct Pending {
    job: JobId,
    operator: OperatorSpec,
    merged: Option<Changes>,
    blocks: Vec<(Block, Option<Offset>)>,
    purged: Option<EventTime>,
    /// Of the blocks.
    pub(super) bytes: usize,
    merged_bytes: usize,
}

impl Pending {
    pub(super) const fn new(job: JobId, operator: OperatorSpec) -> Self {
        Self { job, operator, merged: None, blocks: Vec::new(), purged: None, bytes: 0, merged_bytes: 0 }
    }

    /// Bytes of memory, about.
    pub(super) const fn memory(&self) -> usize {
        self.bytes + self.merged_bytes
    }

    /// Windows that ended by then are gone.
    pub(super) const fn purged(&self) -> Option<EventTime> {
        self.purged
    }

    pub(super) fn push(&mut self, block: Block, offset: Option<Offset>) {
        self.bytes += block.entries.len() + 256;
        self.purged = self.purged.max(block.scalars.purged);
        self.blocks.push((block, offset));
    }

    pub(super) fn clear(&mut self) {
        drop(self.take());
    }

    pub(super) fn take(&mut self) -> Self {
        Self {
            job: self.job,
            operator: self.operator,
            merged: self.merged.take(),
            blocks: std::mem::take(&mut self.blocks),
            purged: self.purged.take(),
            bytes: std::mem::take(&mut self.bytes),
            merged_bytes: std::mem::take(&mut self.merged_bytes),
        }
    }

    /// Whether there is something to write, and the place of the last block is known.
    pub(super) fn is_placed(&self) -> bool {
        self.blocks.last().map_or(self.merged.is_some(), |(_, offset)| offset.is_some())
    }

    /// All of it as one change; `None` for nothing.
    pub(super) fn into_changes(mut self) -> Option<Changes> {
        self.merge();
        self.merged
    }

    /// Merges the blocks up to the last whose place is known.
    pub(super) fn merge(&mut self) {
        let Some(last) = self.blocks.iter().rposition(|(_, offset)| offset.is_some()) else { return };
        let blocks: Vec<_> = self.blocks.drain(..=last).collect();
        self.bytes = self.blocks.iter().map(|(block, _)| block.entries.len() + 256).sum();
        let Some(newer) = changes_of(&blocks, self.job, &self.operator) else { return };
        let merged = match self.merged.take() {
            None => newer,
            Some(older) => join(older, newer),
        };
        let upserts = merged.upserts.iter();
        self.merged_bytes = upserts.map(|(key, value)| key.len() + value.len() + KEY_OVERHEAD).sum();
        self.merged = Some(merged);
    }
}

/// What the blocks change, each key once; `None` for no block.
fn changes_of(blocks: &[(Block, Option<Offset>)], job: JobId, operator: &OperatorSpec) -> Option<Changes> {
    let (last, offset) = blocks.last()?;
    let mut changes = changes_at(last, (*offset)?, job, operator);
    let mut seen = HashSet::new();
    for (block, _) in blocks.iter().rev() {
        let entries: Vec<_> = block.entries.iter().filter_map(Result::ok).collect();
        for change in entries.into_iter().rev() {
            let (Change::Upsert(key, _) | Change::Delete(key)) = change;
            // The store has the runs that a snapshot repeats.
            let is_base = EntryKey::decode(key).is_some_and(|key| key.is_base());
            if is_base || is_within(key, &changes.purge_below) || !seen.insert(key) {
                continue;
            }
            match change {
                Change::Upsert(key, value) => {
                    changes.upserts.insert(key.to_vec(), value.to_vec());
                }
                Change::Delete(key) => {
                    changes.deletes.insert(key.to_vec());
                }
            }
        }
    }
    Some(changes)
}

/// What a block, in the log at `offset`, changes beside entries.
pub(super) fn changes_at(block: &Block, offset: Offset, job: JobId, operator: &OperatorSpec) -> Changes {
    let mut changes = Changes::at(Identity {
        job: job.0,
        incarnation: block.incarnation,
        sequence: block.sequence,
        changelog_offset: offset.0,
    });
    if let Some(purged) = block.scalars.purged {
        changes.purge_below = purged_ranges(operator, purged).to_vec();
    }
    changes.meta = head_of(block).chunks(usize::MAX).into_iter().next();
    changes
}

/// `older`, then `newer`.
pub(super) fn join(older: Changes, mut newer: Changes) -> Changes {
    for (key, value) in older.upserts {
        if !newer.deletes.contains(&key) && !is_within(&key, &newer.purge_below) {
            newer.upserts.entry(key).or_insert(value);
        }
    }
    for key in older.deletes {
        if !newer.upserts.contains_key(&key) {
            newer.deletes.insert(key);
        }
    }
    newer
}

fn is_within(key: &[u8], ranges: &[(Vec<u8>, Vec<u8>)]) -> bool {
    ranges.iter().any(|(from, to)| from.as_slice() <= key && key < to.as_slice())
}

/// A block without its entries.
pub(super) fn head_of(block: &Block) -> Block {
    Block {
        incarnation: block.incarnation,
        sequence: block.sequence,
        assignment: block.assignment,
        begins: None,
        base: false,
        scalars: block.scalars.clone(),
        entries: Entries::default(),
    }
}
