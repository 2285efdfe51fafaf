//! What a commit holds, and the rolling snapshot that bounds the log (design §3.4, §3.5).

use std::sync::Arc;

use super::{Dirty, ShardMachine, ShardState, reorder::take_value, state::Operator};
use crate::{
    aggregate::{Layout, Row, Value, put_varint},
    block::{Block, Scalars},
    dead_letter::{DeadLetter, Payload},
    entry::EntryKey,
    ordered::{Buffered, Place},
    runs::{Merge, MergedRow, Part, Unreadable, Walk as RunWalk},
    sessions::{Session, Sessions},
    time::{EventTime, Offset, Partition, Watermark},
};

/// Which result of a window this is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Pane {
    /// A provisional one, while the window is open.
    Early,
    /// The first that counts, emitted when W_s passed the end.
    Final,
    /// A correction after late records.
    Late,
    /// A correction after dead letters were replayed.
    Replay,
    /// Not a result: the window has become part of a larger one, and what was emitted for it counts no more.
    Retracted,
}

impl Pane {
    /// The pane's name in a result record.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Early => "early",
            Self::Final => "final",
            Self::Late => "late",
            Self::Replay => "replay",
            Self::Retracted => "retracted",
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
    /// 0 for early results and the first of a (key, window) that counts, then one more with each; the highest is the one that
    /// counts, of equal ones the last.
    pub revision: u32,
    /// The aggregates, in the job's order.
    pub values: Vec<Value>,
    /// The record that it is for, where windows are one for each record.
    pub record: Option<(Partition, Offset)>,
}

/// A record that leaves as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reordered {
    /// Where it stood.
    pub place: Place,
    /// The group key.
    pub key: Box<[u8]>,
    /// The record.
    pub payload: Arc<Payload>,
}

/// The content of one transaction.
#[derive(Clone, Debug)]
pub struct Commit {
    /// Results, in (end, key) order within a closing.
    pub results: Vec<ResultRow>,
    /// Results that are records of the source, in order.
    pub reordered: Vec<Reordered>,
    /// Dead letters.
    pub dead_letters: Vec<DeadLetter>,
    /// The changelog block.
    pub block: Block,
    /// With this commit the rows in memory have become a run: what the local store needs to follow.
    pub spilled: Option<Box<Spilled>>,
}

/// A run that was made with a commit.
#[derive(Clone, Debug)]
pub struct Spilled {
    /// Its parts, with their chunks.
    pub parts: Vec<Arc<Part>>,
    /// All entries but rows, as of the commit.
    pub small: Block,
}

/// What follows from a commit that is known to be in the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Committed {
    /// Positions that moved: all below is durable.
    pub positions: Vec<(Partition, Offset)>,
    /// W_s as of the commit.
    pub watermark: Watermark,
    /// Changelog records before this offset are no longer needed.
    pub truncate_before: Option<Offset>,
}

#[derive(Debug)]
pub(super) struct InFlight {
    sequence: u64,
    positions: Vec<(Partition, Offset)>,
    watermark: Watermark,
}

/// A rolling snapshot under way: the log may begin at its first block once its last is committed.
#[derive(Debug)]
pub(super) struct Cycle {
    first_sequence: u64,
    first_offset: Option<Offset>,
    last_sequence: Option<u64>,
    walk: Walk,
    bytes: u64,
}

/// Where a snapshot has come to.
#[derive(Debug)]
enum Walk {
    /// Over the rows in memory: nothing has become a run yet. The next one is this row of the slice that starts there.
    Memory(EventTime, usize),
    /// Over the sessions, from this place on.
    Sessions(u32),
    /// Over the rows of all runs up to this one.
    Runs { up_to: u64, slice: EventTime, after: Option<Vec<u8>>, merge: Option<Merge> },
    /// Over the records that wait: those of all runs up to this one, without it those in memory; behind the one at `after`.
    Records { up_to: Option<u64>, after: Option<Place>, walk: Option<RunWalk> },
    /// Over the sessions of all runs up to this one, behind a key, without those that had ended by X as it was when the walk began.
    RunSessions { up_to: u64, purged: Watermark, after: Option<Vec<u8>>, walk: Option<RunWalk> },
}

impl Cycle {
    /// Runs up to this one are walked over.
    pub(super) const fn boundary(&self) -> Option<u64> {
        match self.walk {
            Walk::Runs { up_to, .. } | Walk::RunSessions { up_to, .. } => Some(up_to),
            Walk::Records { up_to, .. } => up_to,
            Walk::Memory(..) | Walk::Sessions(_) => None,
        }
    }

    /// Parts have come in the place of others: the merge under way is begun anew behind its last key.
    pub(super) fn reopen(&mut self) {
        match &mut self.walk {
            Walk::Memory(..) | Walk::Sessions(_) => {}
            Walk::Runs { merge, .. } => *merge = None,
            Walk::Records { walk, .. } | Walk::RunSessions { walk, .. } => *walk = None,
        }
    }
}

/// What an entry, a chunk and a transaction take in the log beside the entries, about.
const COMMIT_OVERHEAD: u64 = 192;
/// While a snapshot is under way, a commit rewrites this many times its own changes: those of all its commits are at most a
/// quarter of the live state.
const REWRITTEN: usize = 4;
/// Of changes beyond this, once only.
const MOST_REWRITTEN: usize = 1 << 20;

impl ShardMachine {
    /// Whether output waits for a commit: a window closed, or a dead letter.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.out.bytes > 0
            || self.state.closing.is_some()
            || !self.late_touched.is_empty()
            || self.state.sessions().is_some_and(Sessions::has_late)
            || (!self.memory.full && self.early.as_ref().is_some_and(|early| early.has_output()))
    }

    /// Whether anything but positions changed since the last commit.
    #[must_use]
    pub fn is_dirty(&self) -> bool {
        self.has_output() || self.dirty.rows || self.state.answered.is_dirty()
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
        let idle = !(self.is_dirty() || self.has_moved() || self.cycle.is_some());
        if self.in_flight.is_some() || self.failed.is_some() || idle {
            return None;
        }
        self.resume_sliding();
        self.emit_late();
        self.emit_early();
        self.state.sequence += 1;
        let mut block = Block {
            incarnation: self.state.incarnation,
            sequence: self.state.sequence,
            assignment: self.state.assignment,
            ..Block::default()
        };
        let dirty = std::mem::take(&mut self.dirty);
        let positions = self.write_changes(&dirty, &mut block);
        let run = self.state.run;
        if let Err(unreadable) = self.write_snapshot(&mut block) {
            self.failed = Some(unreadable.into());
        }
        if self.failed.is_some() {
            return None;
        }
        block.scalars = Scalars {
            watermark: self.state.watermark,
            purged: self.state.purged,
            closing: self.state.closing.clone(),
            log_bytes: self.state.log_bytes,
            run: self.state.run,
        };
        let spilled = (self.state.run > run).then(|| {
            let parts = self.state.runs.parts().filter(|part| part.run == run).map(Arc::clone);
            Box::new(Spilled { parts: parts.collect(), small: self.state.small_entries() })
        });
        let (sequence, watermark) = (self.state.sequence, self.state.watermark);
        self.in_flight = Some(InFlight { sequence, positions, watermark });
        let out = std::mem::take(&mut self.out);
        Some(Commit {
            results: out.results,
            reordered: out.reordered,
            dead_letters: out.dead_letters,
            block,
            spilled,
        })
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
            if let Some(emitted) = self.state.revisions.get(*end, key) {
                ShardState::encode_revision(*end, key, emitted, block);
            }
        }
        for (partition, at) in self.state.answered.take_dirty() {
            if let Some(answered) = self.state.answered.block(partition, at) {
                ShardState::encode_answered(partition, at, answered, block);
            }
        }
        let mut writer = RowWriter::default();
        for slice in self.state.slices.iter_mut() {
            for row in slice.take_dirty() {
                writer.write(slice, &self.state.layout, row as usize, block);
            }
        }
        if let Operator::Sessions(sessions) = &mut self.state.operator {
            super::sessions::write_changes(sessions, &self.state.layout, &mut writer, block);
        }
        self.value_bytes = writer.mean().unwrap_or(self.value_bytes);
        let mut bytes = (Vec::new(), Vec::new());
        self.state.buffer.take_new(|place, record| write_record(place, record, &mut bytes, block));
        positions
    }

    /// Makes the rows in memory a run where that is due; begins, continues or ends a snapshot cycle within this block.
    fn write_snapshot(&mut self, block: &mut Block) -> Result<(), Unreadable> {
        let changes = block.entries.len();
        let mut spills = self.has_to_spill();
        if spills && self.cycle.as_ref().is_some_and(|cycle| cycle.boundary().is_none()) {
            // It would have to go on over rows that are in memory no more. The next one begins at once.
            self.cycle = None;
        }
        if self.cycle.is_none() && self.log_is_long() {
            block.begins = Some(self.job);
            block.base = spills || !self.state.runs.is_empty();
            spills |= block.base;
            let walk = if self.state.buffers_records() {
                let up_to = block.base.then_some(self.state.run);
                Walk::Records { up_to, after: None, walk: None }
            } else if block.base && self.state.sessions().is_some() {
                let (up_to, purged) = (self.state.run, self.state.purged);
                Walk::RunSessions { up_to, purged, after: None, walk: None }
            } else if block.base {
                let slice = EventTime(i64::MIN);
                Walk::Runs { up_to: self.state.run, slice, after: None, merge: None }
            } else if self.state.sessions().is_some() {
                Walk::Sessions(0)
            } else {
                Walk::Memory(EventTime(i64::MIN), 0)
            };
            let first_sequence = self.state.sequence;
            self.cycle =
                Some(Cycle { first_sequence, first_offset: None, last_sequence: None, walk, bytes: 0 });
            self.state.encode_small(block);
        }
        if spills {
            self.state.spill();
            self.state.run += 1;
            self.memory.wanted = false;
            self.note_purge_of_sessions();
            self.window = None;
            self.walk = None;
        }
        if let Some(cycle) = self.cycle.as_mut().filter(|cycle| cycle.last_sequence.is_none()) {
            // Whole records are large: a commit stays one that the transaction timeout allows.
            let rewritten = changes + (REWRITTEN - 1) * changes.min(MOST_REWRITTEN);
            let budget = block.entries.len() + rewritten + self.limits.snapshot_step;
            let mut writer = RowWriter::default();
            let ended = match &mut cycle.walk {
                Walk::Memory(slice, row) => {
                    walk_memory(&self.state, (slice, row), &mut writer, block, budget)
                }
                Walk::Sessions(place) => self.state.sessions().is_none_or(|sessions| {
                    super::sessions::walk(sessions, &self.state.layout, place, &mut writer, block, budget)
                }),
                runs @ Walk::Runs { .. } => walk_runs(&self.state, runs, &mut writer, block, budget)?,
                Walk::RunSessions { up_to, purged, after, walk } => super::spilled_sessions::walk(
                    &self.state,
                    (*up_to, *purged),
                    (after, walk),
                    block,
                    budget,
                )?,
                Walk::Records { up_to, after, walk } => match *up_to {
                    None => walk_records(&self.state, after, block, budget),
                    Some(up_to) => walk_run_records(&self.state, (up_to, after, walk), block, budget)?,
                },
            };
            self.value_bytes = writer.mean().unwrap_or(self.value_bytes);
            cycle.bytes += block.entries.len() as u64 + COMMIT_OVERHEAD;
            if ended {
                cycle.last_sequence = Some(self.state.sequence);
                self.state.log_bytes = cycle.bytes;
                return Ok(());
            }
        }
        self.state.log_bytes += block.entries.len() as u64 + COMMIT_OVERHEAD;
        Ok(())
    }

    /// Whether the rows in memory have to become a run; where the store has not taken the last ones yet, frames wait instead.
    fn has_to_spill(&mut self) -> bool {
        let Some(share) = self.memory.share else { return false };
        // What leaves with a run is only the records: spans have half of the room at most.
        let over = self.state.row_bytes() + self.span_bytes().0.min(share / 2) > share;
        if self.state.is_memory_empty() {
            self.note_purge_of_sessions();
            return false;
        }
        if !(over || self.memory.wanted) {
            return false;
        }
        self.memory.full = over && self.state.runs.held_bytes() > share / 2;
        !self.memory.full
    }

    fn log_is_long(&self) -> bool {
        let mut keys: usize = self.state.slices.iter().map(crate::slices::Slice::key_bytes).sum();
        let mut rows = self.state.slices.rows();
        if let Some(sessions) = self.state.sessions() {
            (keys, rows) = (keys + sessions.key_bytes(), rows + sessions.len());
        }
        let per_row = ROW_OVERHEAD + self.value_bytes;
        let (run_rows, run_bytes) = match self.state.operator {
            Operator::Sessions(_) => self.state.sessions_in_runs(),
            Operator::Windows(_) | Operator::Reorder | Operator::Sliding(_) => {
                (self.state.runs.rows(), self.state.runs.bytes())
            }
        };
        let runs = usize::try_from(run_bytes + 10 * run_rows).unwrap_or(usize::MAX);
        let waiting = self.state.buffer.written_bytes();
        let small = self.state.answered.written_bytes()
            + self.state.revisions.written_bytes()
            + self.state.inputs.len() * 32;
        let live = keys + waiting + rows * per_row + runs + small;
        self.state.log_bytes > self.limits.snapshot_log_bytes.max(live as u64 / 4 * 7)
    }

    /// The commit of `sequence` is known to be in the log, its first chunk at `offset`.
    pub fn committed(&mut self, sequence: u64, offset: Offset) -> Committed {
        let Some(in_flight) = self.in_flight.take_if(|in_flight| in_flight.sequence == sequence) else {
            return Committed::default();
        };
        self.close();
        self.advance();
        let InFlight { positions, watermark, .. } = in_flight;
        Committed { positions, watermark, truncate_before: self.end_of_cycle(sequence, offset) }
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

/// Writes rows in memory from the cursor on until the block reaches `budget` bytes; true when none is left.
fn walk_memory(
    state: &ShardState,
    cursor: (&mut EventTime, &mut usize),
    writer: &mut RowWriter,
    block: &mut Block,
    budget: usize,
) -> bool {
    for slice in state.slices.range(*cursor.0, EventTime(i64::MAX)) {
        let first = if slice.start == *cursor.0 { *cursor.1 } else { 0 };
        for row in first..slice.len() {
            if block.entries.len() >= budget {
                (*cursor.0, *cursor.1) = (slice.start, row);
                return false;
            }
            writer.write(slice, &state.layout, row, block);
        }
    }
    true
}

/// Writes what the runs merge to, as base entries, from the cursor on until the block reaches `budget` bytes; true when none is left.
fn walk_runs(
    state: &ShardState,
    walk: &mut Walk,
    writer: &mut RowWriter,
    block: &mut Block,
    budget: usize,
) -> Result<bool, Unreadable> {
    let Walk::Runs { up_to, slice, after, merge } = walk else { return Ok(true) };
    let mut row = MergedRow::new(&state.layout);
    while let Some(start) = state.runs.first_from(*slice) {
        if start > *slice {
            (*slice, *after, *merge) = (start, None, None);
        }
        let mut open = match merge.take() {
            Some(open) => open,
            None => {
                let mut open = Merge::default();
                for part in state.runs.of_slice(start).iter().filter(|part| part.run <= *up_to) {
                    open.add_part(Arc::clone(part), after.as_deref(), &state.runs)?;
                }
                open
            }
        };
        while block.entries.len() < budget {
            if !open.next(&state.slices, &state.runs, &state.layout, &mut row)? {
                let Some(next) = start.0.checked_add(1) else { return Ok(true) };
                (*slice, *after) = (EventTime(next), None);
                break;
            }
            writer.write_base(start, &row, &state.layout, block);
            after.get_or_insert_default().clone_from(&row.key);
        }
        if block.entries.len() >= budget && *slice == start {
            *merge = Some(open);
            return Ok(false);
        }
    }
    Ok(true)
}

/// Writes a record; what is in `bytes` is of no matter.
pub(super) fn write_record(
    place: Place,
    record: &Buffered,
    (key, value): &mut (Vec<u8>, Vec<u8>),
    block: &mut Block,
) {
    key.clear();
    value.clear();
    EntryKey::Buffered(place).encode(key);
    record.encode(value);
    block.entries.upsert(key, value);
}

/// Writes the records in memory behind `after` until the block reaches `budget` bytes; true when none is left.
fn walk_records(state: &ShardState, after: &mut Option<Place>, block: &mut Block, budget: usize) -> bool {
    let mut bytes = (Vec::new(), Vec::new());
    for (place, record) in state.buffer.behind(*after) {
        if block.entries.len() >= budget {
            return false;
        }
        write_record(place, record, &mut bytes, block);
        *after = Some(place);
    }
    true
}

/// Writes the records of the runs, as base entries, until the block reaches `budget` bytes; true when none is left.
fn walk_run_records(
    state: &ShardState,
    (up_to, after, walk): (u64, &mut Option<Place>, &mut Option<RunWalk>),
    block: &mut Block,
    budget: usize,
) -> Result<bool, Unreadable> {
    // What is out by now is passed over: its parts may be gone.
    let is_behind = after.is_some_and(|after| !state.is_gone(after));
    let mut open = match walk.take().filter(|_| is_behind) {
        Some(open) => open,
        None => state.walk(*after, up_to)?,
    };
    while block.entries.len() < budget {
        let Some((place, value)) = take_value(&mut open, &state.runs)? else { return Ok(true) };
        let mut key = Vec::new();
        EntryKey::BufferedBase(place).encode(&mut key);
        block.entries.upsert(&key, &value);
        *after = Some(place);
    }
    *walk = Some(open);
    Ok(false)
}

/// What a row takes in a block beside its key and its value: kind, lengths, start of its slice.
const ROW_OVERHEAD: usize = 12;

#[derive(Default)]
pub(super) struct RowWriter {
    key: Vec<u8>,
    value: Vec<u8>,
    rows: usize,
    bytes: usize,
}

impl RowWriter {
    fn write(&mut self, slice: &crate::slices::Slice, layout: &Layout, row: usize, block: &mut Block) {
        self.upsert(EntryKey::Row(slice.start, slice.key(row)), slice.row(layout, row), layout, block);
    }

    fn write_base(&mut self, slice: EventTime, row: &MergedRow, layout: &Layout, block: &mut Block) {
        self.upsert(EntryKey::Base(slice, &row.key), row.row.row(), layout, block);
    }

    pub(super) fn write_session(&mut self, session: &Session<'_>, layout: &Layout, block: &mut Block) {
        self.value.clear();
        put_varint(&mut self.value, u128::from(session.end.0.abs_diff(session.start.0)));
        put_varint(&mut self.value, u128::from(session.emitted));
        self.finish(EntryKey::Session(session.start, session.key), session.row, layout, block);
    }

    pub(super) fn upsert(&mut self, key: EntryKey<'_>, row: Row<'_>, layout: &Layout, block: &mut Block) {
        self.value.clear();
        self.finish(key, row, layout, block);
    }

    /// Writes the row behind what is in `value` already.
    fn finish(&mut self, key: EntryKey<'_>, row: Row<'_>, layout: &Layout, block: &mut Block) {
        self.key.clear();
        key.encode(&mut self.key);
        layout.encode(row, &mut self.value);
        block.entries.upsert(&self.key, &self.value);
        self.rows += 1;
        self.bytes += self.value.len();
    }

    /// Bytes of a value, on the average.
    const fn mean(&self) -> Option<usize> {
        self.bytes.checked_div(self.rows)
    }
}
