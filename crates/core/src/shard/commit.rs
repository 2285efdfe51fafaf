//! What a commit holds, and the rolling snapshot that bounds the log (design §3.4, §3.5).

use super::{Dirty, ShardMachine, ShardState};
use crate::{
    aggregate::Value,
    block::{Block, Scalars},
    dead_letter::DeadLetter,
    entry::EntryKey,
    time::{EventTime, Offset, Partition},
};

/// Which result of a window this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pane {
    /// The first, emitted when W_s passed the end.
    Final,
    /// A correction after late records.
    Late,
}

impl Pane {
    /// The pane's name in a result record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Final => "final",
            Self::Late => "late",
        }
    }
}

/// One result of a group key in a window.
#[derive(Clone, Debug, PartialEq)]
pub struct ResultRow {
    /// The group key.
    pub key: Vec<u8>,
    /// Start of the window, inclusive.
    pub start: EventTime,
    /// End of the window, exclusive.
    pub end: EventTime,
    /// Which result this is.
    pub pane: Pane,
    /// 0 for the first result of a (key, window), then one more with each; the highest is the one that counts.
    pub revision: u32,
    /// The aggregates, in the job's order.
    pub values: Vec<Value>,
}

/// The content of one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Results, in (end, key) order within a closing.
    pub results: Vec<ResultRow>,
    /// Dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The changelog block.
    pub block: Block,
}

/// What follows from a commit that is known to be in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Positions that moved: all below is durable.
    pub positions: Vec<(Partition, Offset)>,
    /// Changelog records before this offset are no longer needed.
    pub truncate_before: Option<Offset>,
}

#[derive(Debug)]
pub(super) struct InFlight {
    sequence: u64,
    positions: Vec<(Partition, Offset)>,
}

/// A rolling snapshot under way: the log may begin at its first block once its last is committed.
#[derive(Debug)]
pub(super) struct Cycle {
    first_sequence: u64,
    first_offset: Option<Offset>,
    last_sequence: Option<u64>,
    cursor: (EventTime, usize),
    bytes: u64,
}

impl ShardMachine {
    /// Whether output waits for a commit: a window closed, or a dead letter.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.out.bytes > 0 || self.state.closing.is_some() || !self.late_touched.is_empty()
    }

    /// Whether anything but positions changed since the last commit.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.has_output() || self.dirty.rows
    }

    /// Whether positions, in-band watermarks or W_s moved since the last commit.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.dirty.watermark || !self.dirty.inputs.is_empty()
    }

    /// Whether a commit is on its way.
    #[must_use]
    pub const fn is_committing(&self) -> bool {
        self.in_flight.is_some()
    }

    /// Takes what has changed as the content of the next transaction; `None` while one is in flight or nothing changed.
    pub fn plan(&mut self) -> Option<Commit> {
        if self.in_flight.is_some() || !(self.is_dirty() || self.has_moved() || self.cycle.is_some()) {
            return None;
        }
        self.emit_late();
        self.state.sequence += 1;
        let mut block = Block {
            incarnation: self.state.incarnation,
            sequence: self.state.sequence,
            assignment: self.state.assignment,
            ..Block::default()
        };
        let dirty = std::mem::take(&mut self.dirty);
        let positions = self.write_changes(&dirty, &mut block);
        self.write_snapshot(&mut block);
        block.scalars = Scalars {
            watermark: self.state.watermark,
            purged: self.state.purged,
            closing: self.state.closing.clone(),
            log_bytes: self.state.log_bytes,
        };
        self.in_flight = Some(InFlight { sequence: self.state.sequence, positions });
        let out = std::mem::take(&mut self.out);
        Some(Commit { results: out.results, dead_letters: out.dead_letters, block })
    }

    fn write_changes(&mut self, dirty: &Dirty, block: &mut Block) -> Vec<(Partition, Offset)> {
        let mut positions = Vec::with_capacity(dirty.inputs.len());
        for at in &dirty.inputs {
            if let Some(input) = self.state.inputs.get(*at) {
                ShardState::encode_input(*at, input, block);
                positions.push((Partition(u32::try_from(*at).unwrap_or(u32::MAX)), input.next));
            }
        }
        for (end, key) in &dirty.revisions {
            if let Some(emitted) = self.state.revisions.get(end).and_then(|keys| keys.get(key)) {
                ShardState::encode_revision(*end, key, *emitted, block);
            }
        }
        let mut writer = RowWriter::default();
        for slice in self.state.slices.iter_mut() {
            for row in slice.take_dirty() {
                writer.write(slice, &self.state.layout, row as usize, block);
            }
        }
        positions
    }

    /// Begins, continues or ends a snapshot cycle within this block.
    fn write_snapshot(&mut self, block: &mut Block) {
        let changes = block.entries.len();
        if self.cycle.is_none() && self.log_is_long() {
            block.begins = Some(self.job);
            self.cycle = Some(Cycle {
                first_sequence: self.state.sequence,
                first_offset: None,
                last_sequence: None,
                cursor: (EventTime(i64::MIN), 0),
                bytes: 0,
            });
            for (at, input) in self.state.inputs.iter().enumerate() {
                ShardState::encode_input(at, input, block);
            }
            for (end, keys) in &self.state.revisions {
                for (key, emitted) in keys {
                    ShardState::encode_revision(*end, key, *emitted, block);
                }
            }
        }
        if let Some(cycle) = self.cycle.as_mut().filter(|cycle| cycle.last_sequence.is_none()) {
            let budget = block.entries.len() + changes + self.limits.snapshot_step;
            let ended = walk(&self.state, cycle, block, budget);
            cycle.bytes += block.entries.len() as u64;
            if ended {
                cycle.last_sequence = Some(self.state.sequence);
                self.state.log_bytes = cycle.bytes;
                return;
            }
        }
        self.state.log_bytes += block.entries.len() as u64 + 64;
    }

    fn log_is_long(&self) -> bool {
        let keys: usize = self.state.slices.iter().map(crate::slices::Slice::key_bytes).sum();
        let per_row = 16 + 3 * self.state.layout.stride();
        let live = keys + self.state.slices.rows() * per_row + self.state.inputs.len() * 32;
        self.state.log_bytes > self.limits.snapshot_log_bytes.max(4 * live as u64)
    }

    /// The commit of `sequence` is known to be in the log, its first chunk at `offset`.
    pub fn committed(&mut self, sequence: u64, offset: Offset) -> Committed {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.sequence == sequence) else {
            return Committed::default();
        };
        self.close();
        self.advance();
        Committed { positions: in_flight.positions, truncate_before: self.end_of_cycle(sequence, offset) }
    }

    fn end_of_cycle(&mut self, sequence: u64, offset: Offset) -> Option<Offset> {
        let cycle = self.cycle.as_mut()?;
        if cycle.first_sequence == sequence {
            cycle.first_offset = Some(offset);
        }
        let ended = self.cycle.take_if(|cycle| cycle.last_sequence == Some(sequence))?;
        ended.first_offset
    }
}

/// Writes rows from the cycle's cursor on until the block reaches `budget` bytes; true when none is left.
fn walk(state: &ShardState, cycle: &mut Cycle, block: &mut Block, budget: usize) -> bool {
    let mut writer = RowWriter::default();
    for slice in state.slices.range(cycle.cursor.0, EventTime(i64::MAX)) {
        let first = if slice.start == cycle.cursor.0 { cycle.cursor.1 } else { 0 };
        for row in first..slice.len() {
            if block.entries.len() >= budget {
                cycle.cursor = (slice.start, row);
                return false;
            }
            writer.write(slice, &state.layout, row, block);
        }
    }
    true
}

#[derive(Default)]
struct RowWriter {
    key: Vec<u8>,
    value: Vec<u8>,
}

impl RowWriter {
    fn write(
        &mut self,
        slice: &crate::slices::Slice,
        layout: &crate::aggregate::Layout,
        row: usize,
        block: &mut Block,
    ) {
        self.key.clear();
        self.value.clear();
        EntryKey::Row(slice.start, slice.key(row)).encode(&mut self.key);
        layout.encode(slice.words(layout, row), &mut self.value);
        block.entries.upsert(&self.key, &self.value);
    }
}
