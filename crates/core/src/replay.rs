//! Dead letters that come back: what is asked of a shard, what becomes of it, and what it has answered for already.
//!
//! ```text
//! dead-letter topic, partition 3:  … 100 101 102 103 104 105 106 …
//! a frame for one shard:               ▲───────▲   ▲───────▲       covers: what needs no further answer of this shard
//!                                      row     other shard's       rows: its own entries among them
//! ```
//! Each entry counts once however often it is asked for: a shard keeps, in its state, the set of offsets it has answered for
//! (design §7, docs/decisions/0026). Whole replays make it one interval for each 65,536 offsets.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
};

use crate::{
    aggregate::put_varint,
    dead_letter::Reason,
    entry::take_u64,
    frame::Rows,
    time::{EventTime, Offset, Partition},
};

/// Entries of a partition of the dead-letter topic, for one shard.
#[derive(Clone, Debug, PartialEq)]
pub struct ReplayFrame {
    /// The partition of the dead-letter topic.
    pub partition: Partition,
    /// What the offsets of the rows are relative to.
    pub from: Offset,
    /// Offsets that need no further answer of this shard: those of its rows, of entries of other shards, of what is no entry. Not those of
    /// entries that could not be read, or that a filter leaves out: these may be asked for again.
    pub covers: Vec<Range<Offset>>,
    /// The entries as the job reads them now. Each has its payload where records are the results.
    pub rows: Rows,
    /// Where each row comes from.
    pub origins: Vec<Origin>,
}

/// The record that an entry is about, as its headers say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// Where it is in the source topic.
    pub partition: Partition,
    /// Where it is in the partition.
    pub offset: Offset,
    /// Why it became a dead letter.
    pub reason: Reason,
    /// Start of the first and end of the last window that it missed.
    pub missed: Option<(EventTime, EventTime)>,
}

/// What became of the rows of a frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Replayed {
    /// Counted in what is kept of their windows.
    pub applied: u64,
    /// Nothing is kept any more of what they belong to.
    pub expired: u64,
    /// Answered for before.
    pub known: u64,
}

/// What became of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It counts in what was kept of its windows.
    Applied,
    /// Nothing was kept any more of what it belongs to.
    Expired,
}

/// Offsets of one block are in one entry of the state.
const BLOCK_BITS: u32 = 16;

/// The entries of the dead-letter topic that a shard has answered for.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    blocks: BTreeMap<(Partition, u64), AnsweredBlock>,
    dirty: BTreeSet<(Partition, u64)>,
    ranges: usize,
}

/// What a shard has answered for of 65,536 successive offsets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnsweredBlock {
    /// Entries applied.
    applied: u64,
    answered: Ranges,
    /// Among these.
    expired: Ranges,
}

/// Offsets within a block: ascending, none touches the next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Ranges(Vec<Range<u32>>);

impl Answered {
    /// Whether the entry there has been answered for.
    #[must_use]
    pub fn contains(&self, partition: Partition, offset: Offset) -> bool {
        let (block, within) = place_of(offset);
        self.blocks.get(&(partition, block)).is_some_and(|block| block.answered.contains(within))
    }

    /// What became of the shard's entry there; `None`: it has not been answered for.
    #[must_use]
    pub fn outcome(&self, partition: Partition, offset: Offset) -> Option<Outcome> {
        let (block, within) = place_of(offset);
        let block = self.blocks.get(&(partition, block)).filter(|block| block.answered.contains(within))?;
        Some(if block.expired.contains(within) { Outcome::Expired } else { Outcome::Applied })
    }

    /// Answers for an entry, once.
    pub(crate) fn answer(&mut self, partition: Partition, offset: Offset, outcome: Outcome) {
        let (block, within) = place_of(offset);
        self.change(partition, block, |block| {
            match outcome {
                Outcome::Applied => block.applied += 1,
                Outcome::Expired => drop(block.expired.insert(within..within + 1)),
            }
            block.answered.insert(within..within + 1)
        });
    }

    /// Marks offsets that need no answer any more.
    pub fn cover(&mut self, partition: Partition, offsets: &Range<Offset>) {
        let mut from = offsets.start.0;
        while from < offsets.end.0 {
            let (block, first) = place_of(Offset(from));
            let length = u64::from((1 << BLOCK_BITS) - first).min(offsets.end.0 - from);
            let past = first + u32::try_from(length).unwrap_or(1 << BLOCK_BITS);
            self.change(partition, block, |block| block.answered.insert(first..past));
            from += length;
        }
    }

    fn change(&mut self, partition: Partition, at: u64, change: impl FnOnce(&mut AnsweredBlock) -> bool) {
        let block = self.blocks.entry((partition, at)).or_default();
        let before = block.ranges();
        if change(block) {
            self.dirty.insert((partition, at));
        }
        self.ranges = self.ranges + block.ranges() - before;
    }

    /// Takes over a block as it is in the log.
    pub fn restore(&mut self, partition: Partition, at: u64, block: AnsweredBlock) {
        self.ranges += block.ranges();
        let replaced = self.blocks.insert((partition, at), block);
        self.ranges -= replaced.map_or(0, |block| block.ranges());
    }

    /// Whether anything changed since [`Answered::take_dirty`].
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Takes the blocks that changed.
    pub(crate) fn take_dirty(&mut self) -> BTreeSet<(Partition, u64)> {
        std::mem::take(&mut self.dirty)
    }

    /// A block, if anything of it has been answered for.
    #[must_use]
    pub fn block(&self, partition: Partition, at: u64) -> Option<&AnsweredBlock> {
        self.blocks.get(&(partition, at))
    }

    /// All blocks, with their partition and number.
    pub fn blocks(&self) -> impl Iterator<Item = (Partition, u64, &AnsweredBlock)> {
        self.blocks.iter().map(|((partition, at), block)| (*partition, *at, block))
    }

    /// Entries applied and entries expired, in all.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        self.blocks.values().fold((0, 0), |(applied, expired), block| {
            (applied + block.applied, expired + block.expired.len())
        })
    }

    /// Bytes that all of it takes in a log, about.
    #[must_use]
    pub fn written_bytes(&self) -> usize {
        /// Kind, lengths, key and counts of an entry.
        const BLOCK: usize = 24;
        /// Two numbers below 65,536.
        const RANGE: usize = 4;
        self.blocks.len() * BLOCK + self.ranges * RANGE
    }
}

impl AnsweredBlock {
    const fn ranges(&self) -> usize {
        self.answered.0.len() + self.expired.0.len()
    }

    /// Appends the value's bytes to `out`: entries applied; how many ranges are answered for; these, then those expired, of each its
    /// distance from the one before and its length. Frozen by `tests/golden`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u128::from(self.applied));
        put_varint(out, self.answered.0.len() as u128);
        self.answered.encode(out);
        self.expired.encode(out);
    }

    /// Reads a value; `None` when the bytes are not one.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let (applied, answered) = (take_u64(bytes)?, take_u64(bytes)?);
        Some(Self {
            applied,
            answered: Ranges::take(bytes, answered)?,
            expired: Ranges::take(bytes, u64::MAX)?,
        })
    }
}

impl Ranges {
    fn contains(&self, offset: u32) -> bool {
        let after = self.0.partition_point(|range| range.end <= offset);
        self.0.get(after).is_some_and(|range| range.start <= offset)
    }

    /// Whether any of `offsets` was not in it before.
    fn insert(&mut self, offsets: Range<u32>) -> bool {
        // Those that touch it become one with it.
        let first = self.0.partition_point(|range| range.end < offsets.start);
        let past = self.0.partition_point(|range| range.start <= offsets.end);
        let touched = self.0.get(first..past).unwrap_or_default();
        if let [one] = touched
            && one.start <= offsets.start
            && offsets.end <= one.end
        {
            return false;
        }
        let start = touched.first().map_or(offsets.start, |range| range.start.min(offsets.start));
        let end = touched.last().map_or(offsets.end, |range| range.end.max(offsets.end));
        self.0.splice(first..past, std::iter::once(start..end));
        true
    }

    /// Number of offsets.
    fn len(&self) -> u64 {
        self.0.iter().map(|range| u64::from(range.end - range.start)).sum()
    }

    fn encode(&self, out: &mut Vec<u8>) {
        let mut behind = 0;
        for range in &self.0 {
            put_varint(out, u128::from(range.start - behind));
            put_varint(out, u128::from(range.end - range.start));
            behind = range.end;
        }
    }

    /// Takes as many ranges, or what is left.
    fn take(bytes: &mut &[u8], most: u64) -> Option<Self> {
        let (mut ranges, mut behind) = (Vec::new(), 0u64);
        while !bytes.is_empty() && (ranges.len() as u64) < most {
            let start = behind.checked_add(take_u64(bytes)?)?;
            let end = start.checked_add(take_u64(bytes)?)?;
            if end <= start || end > 1 << BLOCK_BITS || (start == behind && !ranges.is_empty()) {
                return None;
            }
            ranges.push(u32::try_from(start).ok()?..u32::try_from(end).ok()?);
            behind = end;
        }
        Some(Self(ranges))
    }
}

fn place_of(offset: Offset) -> (u64, u32) {
    let within = offset.0 & ((1 << BLOCK_BITS) - 1);
    (offset.0 >> BLOCK_BITS, u32::try_from(within).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const P: Partition = Partition(3);

    #[test]
    fn a_whole_replay_is_one_interval_a_block() {
        let mut answered = Answered::default();
        for from in (0..200_000).step_by(1_000) {
            answered.answer(P, Offset(from + 7), Outcome::Applied);
            answered.cover(P, &(Offset(from)..Offset(from + 1_000)));
        }
        let ranges = |block: &AnsweredBlock| -> Vec<_> {
            block.answered.0.iter().map(|range| (range.start, range.end)).collect()
        };
        let blocks: Vec<_> = answered.blocks().map(|(_, at, block)| (at, ranges(block))).collect();
        let whole = || vec![(0, 65_536)];
        assert_eq!(blocks, [(0, whole()), (1, whole()), (2, whole()), (3, vec![(0, 3_392)])]);
        assert_eq!(answered.counts(), (200, 0));
        assert!(answered.contains(P, Offset(199_999)));
        assert!(!answered.contains(P, Offset(200_000)));
        assert!(!answered.contains(Partition(4), Offset(0)));
    }

    #[test]
    fn what_is_covered_already_changes_nothing() {
        let mut answered = Answered::default();
        answered.cover(P, &(Offset(10)..Offset(20)));
        assert_eq!(answered.take_dirty().len(), 1);
        answered.cover(P, &(Offset(12)..Offset(20)));
        assert!(!answered.is_dirty());
        answered.cover(P, &(Offset(20)..Offset(21)));
        assert!(answered.is_dirty());
    }

    proptest! {
        #[test]
        fn it_is_the_set_of_what_was_put_in(
            covers in prop::collection::vec((0u64..400, 0u64..40), 0..40),
            entries in prop::collection::btree_map(0u64..440, any::<bool>(), 0..60)
        ) {
            let base = (1 << BLOCK_BITS) - 200;
            let mut answered = Answered::default();
            let mut expected = BTreeSet::new();
            for (entry, expired) in &entries {
                let outcome = if *expired { Outcome::Expired } else { Outcome::Applied };
                answered.answer(P, Offset(base + entry), outcome);
                expected.insert(*entry);
            }
            for (from, length) in covers {
                answered.cover(P, &(Offset(base + from)..Offset(base + from + length)));
                expected.extend(from..from + length);
            }
            for offset in 0..440 {
                let outcome = answered.outcome(P, Offset(base + offset));
                prop_assert_eq!(outcome.is_some(), expected.contains(&offset));
                prop_assert_eq!(answered.contains(P, Offset(base + offset)), outcome.is_some());
                prop_assert_eq!(outcome == Some(Outcome::Expired), entries.get(&offset) == Some(&true));
            }
            let expired = entries.values().filter(|expired| **expired).count() as u64;
            prop_assert_eq!(answered.counts(), (entries.len() as u64 - expired, expired));
            let mut restored = Answered::default();
            for (partition, at, block) in answered.blocks() {
                prop_assert!(block.answered.0.windows(2).all(|pair| pair[0].end < pair[1].start));
                let mut bytes = Vec::new();
                block.encode(&mut bytes);
                restored.restore(partition, at, AnsweredBlock::decode(&bytes).unwrap());
            }
            prop_assert_eq!(&restored.blocks, &answered.blocks);
            prop_assert_eq!(restored.ranges, answered.ranges);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..40)) {
            if let Some(block) = AnsweredBlock::decode(&bytes) {
                let mut again = Vec::new();
                block.encode(&mut again);
                prop_assert_eq!(AnsweredBlock::decode(&again), Some(block));
            }
        }
    }
}
