//! The shard machine: frames in, windows closed, commits out (design §3.3–3.5).
//!
//! ```text
//! frame ──► apply ──► rows, dead letters ─┐
//! announcement ──► advance ──► W_s rises ─┼─► plan ──► Commit {results, dead letters, block} ──► the log
//!                   windows ≤ W_s close ──┘                          committed ◄── known outcome
//! ```
//!
//! Promises: offsets of each partition are covered once, in order, without a gap (I2); W_s never falls and is reached only when
//! every partition that counts has come that far in band (I1, I3); records covered = applied + dead-lettered (I5). The owner
//! drops the whole machine when a commit's outcome is anything but known committed, and restores ([`ShardState`]).

mod closing;
mod commit;
mod early;
mod inspect;
mod reorder;
mod replay;
mod revisions;
pub mod savepoint;
mod sessions;
mod sliding;
mod spilled_sessions;
mod state;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use thiserror::Error;

pub use commit::{Commit, Committed, Pane, Reordered, ResultRow, Spilled};
pub use inspect::{InputView, ShardView, WindowView};
use state::Operator;
pub use state::{CanonicalState, RestoreError, ShardState};

pub use crate::spans::Traffic;

use crate::{
    aggregate::At,
    announcement::{Announcement, AssignmentId},
    block::JobId,
    dead_letter::{DeadLetter, Payload, Reason},
    entry::Input,
    frame::{RowReader, Rows, SessionId, ShardFrame},
    job::JobSpec,
    runs::{CHUNK_BYTES, ChunkId, Compacted, Compaction, Looks, Merge, Unreadable, Walk},
    scratch::{Scratch, ScratchError},
    time::{EventTime, Offset, Partition, Shard, Span, Watermark},
    window::Grid,
};

/// Bounds on what a commit may hold.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// About how many bytes of results, dead letters and changes one commit holds.
    pub commit_bytes: usize,
    /// A rolling snapshot begins when the log exceeds 1 3/4 times the live state and this.
    pub snapshot_log_bytes: u64,
    /// Bytes of state that each commit of a snapshot rewrites beyond its own changes, so that the snapshot ends.
    pub snapshot_step: usize,
    /// About how many bytes of rows a chunk of a run holds.
    pub chunk_bytes: usize,
    /// How many keys are looked up in runs at a time while sessions close; then others have their turn, until the next commit is known.
    pub looks: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            commit_bytes: 8 << 20,
            snapshot_log_bytes: 4 << 20,
            snapshot_step: 64 << 10,
            chunk_bytes: CHUNK_BYTES,
            looks: 4_096,
        }
    }
}

/// The owner's side of one shard.
#[derive(Debug)]
pub struct ShardMachine {
    shard: Shard,
    job: JobId,
    lateness: Span,
    /// How long after its end a window is kept.
    retention: Span,
    delay: Span,
    limits: Limits,
    state: ShardState,
    announced: Option<Announcement>,
    /// Records at or after this event time are in no closed window.
    on_time_from: EventTime,
    dirty: Dirty,
    out: Pending,
    /// Closed windows with results to be corrected, and as which pane.
    late_touched: BTreeMap<(EventTime, Vec<u8>), Pane>,
    /// Where the job asks for early results.
    early: Option<Box<early::Early>>,
    refused: Vec<Option<(u64, SessionId)>>,
    /// Where a payload was lacking that the shard still waits for.
    lacking: BTreeMap<Partition, Offset>,
    in_flight: Option<commit::InFlight>,
    cycle: Option<commit::Cycle>,
    /// The window that is being closed: where its results have come to.
    window: Option<(EventTime, Merge)>,
    /// Over the records in runs, at the first that is not out.
    walk: Option<Walk>,
    /// Where the looks for sessions in runs have come to, while they close.
    looks: Looks,
    /// How many more there may be before the next commit.
    looks_left: usize,
    /// What the keys have in their sliding windows, once a result was due.
    sliding: Option<sliding::Sliding>,
    /// For these, until then.
    scratch: Option<Box<dyn Scratch>>,
    alone: sliding::Alone,
    memory: Memory,
    /// When memory was last empty, with runs of which half is of sessions that are gone: the newest run then, and X.
    purging: Option<(u64, Watermark)>,
    /// Sessions that were put together of parts in memory and runs.
    joined: u64,
    /// About how many bytes the value of a row takes in the log.
    value_bytes: usize,
    /// The state is not whole, and nothing is committed any more.
    failed: Option<Failure>,
}

/// Why a shard has to be restored from its log.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// A chunk of its local store did not read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// What had left memory for scratch is lost, or there is no more room in it.
    #[error(transparent)]
    Scratch(#[from] ScratchError),
}

/// How much memory the rows may take (I7).
#[derive(Debug, Default)]
struct Memory {
    /// Beyond this they become a run; `None` where there is no store for it.
    share: Option<usize>,
    /// They are to become a run with the next commit, however few.
    wanted: bool,
    /// The store is behind: frames wait.
    full: bool,
}

/// What changed since the last commit was planned.
#[derive(Debug, Default)]
struct Dirty {
    bytes: usize,
    inputs: BTreeSet<usize>,
    rows: bool,
    watermark: bool,
    revisions: BTreeSet<(EventTime, Vec<u8>)>,
}

/// Output waiting for the next commit.
#[derive(Debug, Default)]
struct Pending {
    results: Vec<ResultRow>,
    reordered: Vec<Reordered>,
    dead_letters: Vec<DeadLetter>,
    bytes: usize,
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// Covered up to its `to`.
    Covered,
    /// All of it had been covered before.
    Known,
    /// Not (wholly) covered: a session has to be opened as the nack says.
    Refused(Nack),
    /// Part of a session that has been refused already.
    Stale,
}

/// Asks for a new session of one shard (design §3.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nack {
    /// The partition.
    pub partition: Partition,
    /// The smallest offset not covered: where the session starts.
    pub next: Offset,
    /// Whether every record has to bring its payload.
    pub payloads: bool,
}

impl ShardMachine {
    /// Takes over a restored shard as `incarnation`. `None` when the log holds a newer assignment: stand down.
    #[must_use]
    pub fn take_over(
        shard: Shard,
        spec: &JobSpec,
        limits: Limits,
        mut state: ShardState,
        incarnation: u64,
        assignment: AssignmentId,
    ) -> Option<Self> {
        let job = state.job.filter(|_| state.assignment <= assignment)?;
        (state.incarnation, state.assignment) = (incarnation, assignment);
        let value_bytes = 2 * state.layout.stride();
        let alone = sliding::Alone::new(&state.layout);
        let mut machine = Self {
            shard,
            job,
            lateness: spec.allowed_lateness,
            retention: spec.retention(),
            delay: spec.watermark.strategy.most_delay(),
            limits,
            state,
            announced: None,
            on_time_from: EventTime(i64::MIN),
            dirty: Dirty::default(),
            out: Pending::default(),
            late_touched: BTreeMap::new(),
            early: None,
            refused: Vec::new(),
            lacking: BTreeMap::new(),
            in_flight: None,
            cycle: None,
            window: None,
            walk: None,
            looks: Looks::default(),
            looks_left: limits.looks,
            sliding: None,
            scratch: None,
            alone,
            memory: Memory::default(),
            purging: None,
            joined: 0,
            value_bytes,
            failed: None,
        };
        machine.state.runs.set_chunk_bytes(limits.chunk_bytes);
        machine.set_on_time();
        if !matches!(machine.state.operator, Operator::Sliding(_)) {
            machine.close();
        }
        Some(machine)
    }

    /// The shard.
    #[must_use]
    pub const fn shard(&self) -> Shard {
        self.shard
    }

    /// The state as it is now, uncommitted changes included.
    #[must_use]
    pub const fn state(&self) -> &ShardState {
        &self.state
    }

    /// Whether frames may be applied: not while a closing is under way or a commit's worth of changes waits (I7).
    #[must_use]
    pub fn takes_frames(&self) -> bool {
        self.state.closing.is_none()
            && !self.memory.full
            && self.dirty.bytes + self.out.bytes < self.limits.commit_bytes
    }

    /// Sets how much memory the rows may take before they become a run; `None` where no local store takes runs: they stay.
    pub fn set_memory(&mut self, share: Option<usize>) {
        self.memory.share = share;
        self.memory.wanted |= share.is_some() && self.purging.is_none() && self.state.are_sessions_gone();
        if share.is_none() {
            self.memory.full = false;
        }
    }

    /// Asks for the rows in memory to become a run with the next commit: so a store that has missed some is whole again.
    pub const fn want_run(&mut self) {
        self.memory.wanted = true;
    }

    /// The store has these chunks: memory lets go of them, and frames may go on.
    pub fn stored(&mut self, chunks: &[ChunkId]) {
        self.state.stored(chunks);
        // It holds what memory is to let go of.
        self.walk = None;
        self.memory.full = false;
    }

    /// A compaction that is due; only one at a time is under way.
    pub fn compaction(&mut self) -> Option<Compaction> {
        let boundary = self.cycle.as_ref().and_then(commit::Cycle::boundary);
        self.purge_of_sessions(boundary).or_else(|| self.state.compaction(boundary))
    }

    /// Takes the output of a compaction for its inputs, once the store has its chunks; false when the slice is gone.
    pub fn compacted(&mut self, done: Compacted) -> bool {
        self.window = None;
        if let Some(cycle) = &mut self.cycle {
            cycle.reopen();
        }
        self.state.compacted(done)
    }

    /// How many sessions were put together of parts in memory and runs since it was taken over.
    #[must_use]
    pub const fn joined_sessions(&self) -> u64 {
        self.joined
    }

    /// Set once something did not read: the shard has to be restored from its log.
    #[must_use]
    pub const fn failed(&self) -> Option<&Failure> {
        self.failed.as_ref()
    }

    /// The shard's input from `partition`.
    #[must_use]
    pub fn input(&self, partition: Partition) -> Input {
        self.state.inputs.get(partition.0 as usize).copied().unwrap_or_default()
    }

    /// Whether the next session from `partition` has to bring every payload: the one that was asked to may never have come, where its
    /// ingest had no credit left, or broke off.
    #[must_use]
    pub fn needs_payloads(&self, partition: Partition) -> bool {
        self.lacking.get(&partition) == Some(&self.input(partition).next)
    }

    /// Applies a frame; call only while [`ShardMachine::takes_frames`].
    pub fn apply(&mut self, frame: &ShardFrame) -> Applied {
        debug_assert!(self.state.closing.is_none(), "frames wait while windows close");
        let partition = frame.partition;
        let next = self.state.input_mut(partition).next;
        if frame.from > next {
            let payloads = self.needs_payloads(partition);
            return self.refuse(frame, Nack { partition, next, payloads });
        }
        if frame.to <= next {
            // In-band watermarks are a maximum: everything below `to` is covered, so the promise holds at `next` too.
            self.raise_input(partition, next, frame.watermark);
            self.advance();
            return Applied::Known;
        }
        let skip = u32::try_from(next.0 - frame.from.0).unwrap_or(u32::MAX);
        match self.apply_rows(frame, skip) {
            Ok(()) => {
                self.apply_rejects(frame, skip, u32::MAX);
                self.raise_input(partition, frame.to, frame.watermark);
                self.advance();
                Applied::Covered
            }
            Err(lacking) => {
                self.apply_rejects(frame, skip, lacking);
                let next = Offset(frame.from.0 + u64::from(lacking));
                // The session that follows starts behind what is covered now, perhaps as the partition's only reading.
                let covered =
                    frame.rows.times.iter().take(frame.rows.offsets.partition_point(|at| *at < lacking));
                let watermark = covered.max().map(|largest| EventTime(*largest).minus(self.delay));
                self.raise_input(partition, next, watermark);
                self.lacking.insert(partition, next);
                self.refuse(frame, Nack { partition, next, payloads: true })
            }
        }
    }

    fn refuse(&mut self, frame: &ShardFrame, nack: Nack) -> Applied {
        let at = nack.partition.0 as usize;
        if self.refused.len() <= at {
            self.refused.resize(at + 1, None);
        }
        match self.refused.get_mut(at) {
            Some(refused) if *refused == Some(frame.session) => Applied::Stale,
            Some(refused) => {
                *refused = Some(frame.session);
                Applied::Refused(nack)
            }
            None => Applied::Stale,
        }
    }

    fn raise_input(&mut self, partition: Partition, next: Offset, watermark: Watermark) {
        let input = self.state.input_mut(partition);
        if next > input.next || watermark > input.watermark {
            input.next = input.next.max(next);
            input.watermark = input.watermark.max(watermark);
            self.dirty.inputs.insert(partition.0 as usize);
        }
    }

    /// Applies the rows from offset delta `skip` on; the offset delta of the first row that lacks the payload it needs is the error.
    fn apply_rows(&mut self, frame: &ShardFrame, skip: u32) -> Result<(), u32> {
        match self.state.operator {
            Operator::Windows(grid) => self.apply_to_windows(grid, frame, skip),
            Operator::Sessions(_) => self.apply_to_sessions(frame, skip),
            Operator::Reorder => self.apply_to_buffer(frame, skip),
            Operator::Sliding(_) => self.apply_to_spans(frame, skip),
        }
    }

    fn apply_to_windows(&mut self, grid: Grid, frame: &ShardFrame, skip: u32) -> Result<(), u32> {
        let mut reader = RowReader::new(&frame.rows, skip);
        let mut applied = 0;
        let mut lacking = None;
        // The slice of the record before: most are in it too.
        let mut around = (EventTime(i64::MAX), EventTime(i64::MIN));
        while let Some((row, time, key)) = reader.next_row() {
            if time < self.on_time_from {
                match self.judge_late(grid, frame, row, time, key) {
                    Late::Applies => {}
                    Late::DeadLettered => continue,
                    Late::LacksPayload => {
                        lacking = frame.rows.offsets.get(row).copied();
                        break;
                    }
                }
            }
            if time < around.0 || around.1 <= time {
                around = grid.slice_around(time);
            }
            let at = At { time, partition: frame.partition, offset: offset_of(frame, row) };
            self.add_to_slice(around.0, key, &mut reader, &at);
            applied += 1;
        }
        self.dirty.rows |= applied > 0;
        self.state.input_mut(frame.partition).applied += applied;
        lacking.map_or(Ok(()), Err)
    }

    /// Adds the row that `reader` is at to its slice.
    #[inline]
    fn add_to_slice(&mut self, start: EventTime, key: &[u8], reader: &mut RowReader<'_>, at: &At) {
        let layout = &self.state.layout;
        let slice = self.state.slices.slice_mut(start);
        let summaries = slice.summary_bytes();
        let (mut accumulators, newly_dirty) = slice.row_mut(layout, key);
        layout.add_record(&mut accumulators);
        if newly_dirty {
            self.dirty.bytes += key.len() + ENTRY_OVERHEAD + accumulators.summary_bytes();
        }
        reader.values(|column, value| layout.add(&mut accumulators, column, value, at));
        self.dirty.bytes += slice.summary_bytes().saturating_sub(summaries);
    }

    /// Live records are too late for windows that ended by then; longer kept ones are for replays.
    fn missed_by(&self) -> Option<EventTime> {
        let closed = self.state.closing.as_ref().map_or(self.state.watermark, |closing| closing.done);
        self.state.purged.max(closed.map(|closed| closed.minus(self.lateness)))
    }

    /// A record older than some closed window: which of its windows still take it?
    fn judge_late(
        &mut self,
        grid: Grid,
        frame: &ShardFrame,
        row: usize,
        time: EventTime,
        key: &[u8],
    ) -> Late {
        let missed_by = self.missed_by();
        let gone = |end: EventTime| Some(end) <= missed_by;
        let mut missed = grid.ends_of(time).take_while(|end| gone(*end));
        if let Some(first_missed) = missed.next() {
            let last_missed = missed.last().unwrap_or(first_missed);
            let reason = if gone(grid.last_end(time)) { Reason::Late } else { Reason::LatePartial };
            let Some(payload) = payload_of(&frame.rows, row) else { return Late::LacksPayload };
            let missed = Some((grid.start_of(first_missed), last_missed));
            self.push_late(frame, row, (reason, missed), payload);
            if reason == Reason::Late {
                return Late::DeadLettered;
            }
        }
        let closed: Vec<_> = grid
            .ends_of(time)
            .filter(|end| Some(*end) <= self.state.watermark && missed_by < Some(*end))
            .collect();
        for end in closed {
            self.touch_late(grid, end, key, Pane::Late);
        }
        Late::Applies
    }

    /// Puts out a record that came too late, with why, and start and end of what it missed.
    fn push_late(
        &mut self,
        frame: &ShardFrame,
        row: usize,
        (reason, missed): (Reason, Option<(EventTime, EventTime)>),
        payload: Arc<Payload>,
    ) {
        self.push_dead_letter(DeadLetter {
            partition: frame.partition,
            offset: offset_of(frame, row),
            reason,
            detail: String::new(),
            event_time: frame.rows.times.get(row).map(|time| EventTime(*time)),
            watermark: self.state.watermark,
            missed,
            payload,
        });
    }

    fn push_dead_letter(&mut self, letter: DeadLetter) {
        if letter.reason != Reason::LatePartial {
            self.state.input_mut(letter.partition).dead += 1;
        }
        self.out.bytes += letter.payload.bytes() + ENTRY_OVERHEAD;
        self.out.dead_letters.push(letter);
    }

    fn apply_rejects(&mut self, frame: &ShardFrame, from: u32, to: u32) {
        for reject in frame.rows.rejects.iter().filter(|r| (from..to).contains(&r.offset_delta)) {
            let letter = DeadLetter {
                partition: frame.partition,
                offset: Offset(frame.from.0 + u64::from(reject.offset_delta)),
                reason: reject.reason,
                detail: reject.detail.clone(),
                event_time: reject.event_time,
                watermark: self.state.watermark,
                missed: None,
                payload: Arc::clone(&reject.payload),
            };
            self.push_dead_letter(letter);
        }
    }

    /// Takes a newer announcement; an older one is ignored.
    pub fn announce(&mut self, announcement: &Announcement) {
        if self.announced.as_ref().is_none_or(|known| announcement.newer_than(known)) {
            self.announced = Some(announcement.clone());
            self.advance();
        }
    }

    /// Raises W_s as far as §4 allows, and closes what ended.
    fn advance(&mut self) {
        if self.state.closing.is_some() {
            return;
        }
        let reached = self.reachable_watermark();
        if reached > self.state.watermark {
            self.emit_late();
            self.begin_closing(reached);
        }
    }

    /// min(W announced, min over the partitions that count of the in-band watermark at `next[s][p]`).
    fn reachable_watermark(&self) -> Watermark {
        let announced = self.announced.as_ref()?;
        let mut reached = announced.watermark?;
        let mut excluded = announced.excluded.iter().peekable();
        for partition in 0..announced.partitions {
            let input = self.input(Partition(partition));
            while excluded.next_if(|(other, _)| other.0 < partition).is_some() {}
            let idle_at = excluded.peek().filter(|(other, _)| other.0 == partition).map(|(_, at)| *at);
            if idle_at.is_some_and(|at| input.next >= at) {
                continue;
            }
            reached = reached.min(input.watermark?);
        }
        Some(reached)
    }

    fn set_on_time(&mut self) {
        if let Some(watermark) = self.state.watermark {
            self.on_time_from = match self.state.operator {
                Operator::Windows(grid) => grid.last_closed_end(watermark),
                Operator::Sessions(_) | Operator::Reorder | Operator::Sliding(_) => watermark,
            };
        }
    }
}

/// Bytes an entry or a dead letter takes beside its key or payload, about.
const ENTRY_OVERHEAD: usize = 48;

enum Late {
    Applies,
    DeadLettered,
    LacksPayload,
}

fn payload_of(rows: &Rows, row: usize) -> Option<Arc<Payload>> {
    let at = rows.payloads.binary_search_by_key(&row, |(row, _)| *row as usize).ok()?;
    rows.payloads.get(at).map(|(_, payload)| Arc::clone(payload))
}

fn offset_of(frame: &ShardFrame, row: usize) -> Offset {
    Offset(frame.from.0 + frame.rows.offsets.get(row).copied().map_or(0, u64::from))
}

#[cfg(test)]
mod tests;
