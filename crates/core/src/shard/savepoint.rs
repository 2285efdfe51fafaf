//! A shard's whole state apart from its log: cut anew into other shards, and as the blocks that begin a log.
//!
//! ```text
//! log of each shard ──fold──► canonical state ──► the same shards, or others ──► blocks of a log that begins
//! ```

use std::collections::BTreeMap;

use thiserror::Error;

use super::{
    CanonicalState, ShardState,
    commit::{RowWriter, write_record},
};
use crate::{
    aggregate::Layout,
    block::{Block, JobId, Scalars},
    entry::{EntryKey, Input},
    fragments::{BY_KEY, Fragment, KeyRow, Outdated},
    time::Shard,
};

/// Why states cannot be cut into other shards: a key's new shard would have to be at two places at once.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum Unaligned {
    /// Two shards have covered a partition up to different offsets.
    #[error("shard {shard} has covered partition {partition} up to offset {next}, shard 0 up to {first}")]
    Position {
        /// A shard that differs from shard 0.
        shard: u32,
        /// The partition.
        partition: u32,
        /// How far that shard is.
        next: u64,
        /// How far shard 0 is.
        first: u64,
    },
    /// Two shards have closed windows up to different watermarks.
    #[error("the watermark of shard {0} is not that of shard 0")]
    Watermark(u32),
    /// A shard is in the middle of putting results out.
    #[error("shard {0} has windows to put out that its watermark has passed")]
    Closing(u32),
}

/// The same state in `shards` other shards, each with the keys that are its own.
///
/// What is known of the source, and not of keys, is in each; counts are in the first. Which dead letters have come back is in none: it is
/// not known whose they were.
///
/// # Errors
/// [`Unaligned`] where the shards are not all at the same place.
pub fn resharded(states: &[CanonicalState], shards: u32) -> Result<Vec<CanonicalState>, Unaligned> {
    let Some(first) = states.first() else { return Ok(Vec::new()) };
    aligned(states)?;
    let mut common =
        CanonicalState { purged: first.purged, watermark: first.watermark, ..Default::default() };
    for (at, input) in first.inputs.iter().enumerate() {
        // Each is a promise about the partition, whichever shard was told.
        let watermark = states.iter().filter_map(|state| state.inputs.get(at)?.watermark).max();
        common.inputs.push(Input { next: input.next, watermark, ..Input::default() });
    }
    let mut cut = vec![common; shards as usize];
    if let Some(counting) = cut.first_mut() {
        for (at, input) in counting.inputs.iter_mut().enumerate() {
            let counted = || states.iter().filter_map(|state| state.inputs.get(at));
            input.applied = counted().map(|input| input.applied).sum();
            input.dead = counted().map(|input| input.dead).sum();
        }
    }
    for (into, shard) in cut.iter_mut().zip((0..).map(Shard)) {
        let own = |key: &[u8]| Shard::of(key, shards) == shard;
        for state in states {
            let rows = state.rows.iter().filter(|((_, key), _)| own(key));
            into.rows.extend(rows.map(|(place, row)| (place.clone(), row.clone())));
            let sessions = state.sessions.iter().filter(|((_, key), _)| own(key));
            into.sessions.extend(sessions.map(|(place, session)| (place.clone(), session.clone())));
            let outdated = state.outdated.iter().filter(|((_, _, key), _)| own(key));
            into.outdated.extend(outdated.map(|(place, emitted)| (place.clone(), *emitted)));
            let revisions = state.revisions.iter().filter(|((_, key), _)| own(key));
            into.revisions.extend(revisions.map(|(place, emitted)| (place.clone(), *emitted)));
            let buffered = state.buffered.iter().filter(|(_, record)| own(record.key()));
            into.buffered.extend(buffered.map(|(place, record)| (*place, record.clone())));
        }
    }
    Ok(cut)
}

fn aligned(states: &[CanonicalState]) -> Result<(), Unaligned> {
    let Some(first) = states.first() else { return Ok(()) };
    for (state, shard) in states.iter().zip(0u32..) {
        if state.closing.is_some() {
            return Err(Unaligned::Closing(shard));
        }
        for at in 0..state.inputs.len().max(first.inputs.len()) {
            let next = |state: &CanonicalState| state.inputs.get(at).map_or(0, |input| input.next.0);
            if next(state) != next(first) {
                let partition = u32::try_from(at).unwrap_or(u32::MAX);
                return Err(Unaligned::Position { shard, partition, next: next(state), first: next(first) });
            }
        }
        if (state.watermark, state.purged) != (first.watermark, first.purged) {
            return Err(Unaligned::Watermark(shard));
        }
    }
    Ok(())
}

impl CanonicalState {
    /// The blocks of a log that begins with this state, each with at most about `bytes` of entries.
    ///
    /// Who folds them has a run for each block but for the first: so its memory is bounded.
    #[must_use]
    pub fn blocks(&self, job: JobId, layout: &Layout, bytes: usize) -> Vec<Block> {
        // Sessions are those of a run, so that what is outdated has a place beside them.
        let first = Block { begins: Some(job), base: !self.sessions.is_empty(), ..Block::default() };
        let mut log = Log { bytes, block: first, done: Vec::new() };
        for (at, input) in self.inputs.iter().enumerate() {
            ShardState::encode_input(at, input, log.block());
        }
        for ((end, key), emitted) in &self.revisions {
            ShardState::encode_revision(*end, key, *emitted, log.block());
        }
        for ((partition, at), answered) in &self.answered {
            ShardState::encode_answered(*partition, *at, answered, log.block());
        }
        let mut writer = RowWriter::default();
        for ((start, key), row) in &self.rows {
            writer.upsert(EntryKey::Row(*start, key), row.row(), layout, log.block());
        }
        let (mut entry, mut value) = (Vec::new(), Vec::new());
        for (key, row) in self.sessions_by_key(layout) {
            entry.clear();
            value.clear();
            EntryKey::Base(BY_KEY, key).encode(&mut entry);
            row.encode(layout, &mut value);
            log.block().entries.upsert(&entry, &value);
        }
        let mut bytes = Default::default();
        for (place, record) in &self.buffered {
            write_record(*place, record, &mut bytes, log.block());
        }
        let blocks = log.finish();
        self.with_scalars(blocks)
    }

    fn sessions_by_key(&self, layout: &Layout) -> BTreeMap<&[u8], KeyRow> {
        let mut by_key: BTreeMap<&[u8], KeyRow> = BTreeMap::new();
        for ((start, key), (end, emitted, row)) in &self.sessions {
            let session = Fragment { start: *start, end: *end, emitted: *emitted, row: row.clone() };
            by_key.entry(key).or_default().fragments.push(session);
        }
        for ((start, end, key), emitted) in &self.outdated {
            let outdated = Outdated { start: *start, end: *end, emitted: *emitted };
            by_key.entry(key).or_default().fragments.push(outdated.without_records(layout));
        }
        by_key
    }

    /// The heads of the blocks: what is purged and closed holds from the first one on.
    fn with_scalars(&self, mut blocks: Vec<Block>) -> Vec<Block> {
        let mut log_bytes = 0;
        for (block, number) in blocks.iter_mut().zip(0u64..) {
            log_bytes += block.entries.len() as u64;
            block.sequence = number;
            block.scalars = Scalars {
                watermark: self.watermark,
                purged: self.purged,
                closing: self.closing.clone(),
                log_bytes,
                // The run of what the first block is the base of stands before.
                run: number + 1,
            };
        }
        blocks
    }
}

/// Blocks that are being filled.
struct Log {
    bytes: usize,
    block: Block,
    done: Vec<Block>,
}

impl Log {
    /// The block for the next entry.
    fn block(&mut self) -> &mut Block {
        if self.block.entries.len() >= self.bytes {
            self.done.push(std::mem::take(&mut self.block));
        }
        &mut self.block
    }

    fn finish(mut self) -> Vec<Block> {
        self.done.push(self.block);
        self.done
    }
}
