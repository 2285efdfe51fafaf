//! The durable state of a shard: what its changelog folds to.
//!
//! The owner changes it record by record and writes the differences as [`Block`]s; a successor folds the committed blocks (onto what
//! its local store holds, if that lies on the chain) and has the same state. *Rebuild = owner at every step.*

mod canonical;
mod entries;

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use super::{commit::RowWriter, revisions::Revisions};
use crate::{
    aggregate::{Layout, RowBuf, RowMut},
    announcement::AssignmentId,
    block::{Block, BlockError, Change, Closing, JobId},
    entry::{EntryKey, Input},
    fragments::BY_KEY,
    job::{JobSpec, OperatorSpec},
    ordered::Ordered,
    replay::Answered,
    runs::{ChunkId, Chunks, Compacted, Compaction, Merge, MergedRow, Part, Runs, Unreadable, write_slice},
    sessions::Sessions,
    slices::{Slice, Slices},
    time::{EventTime, Offset, Partition, Span, Watermark},
    window::Grid,
};

pub use canonical::CanonicalState;

/// End, results counted and accumulators of sessions, by start and key.
pub(super) type AllSessions = BTreeMap<(EventTime, Vec<u8>), (EventTime, u32, RowBuf)>;

/// How many results are out of intervals that are no sessions any more, by start, end and key.
pub(super) type AllOutdated = BTreeMap<(EventTime, EventTime, Vec<u8>), u32>;

/// What a shard does with its records.
#[derive(Clone, Debug)]
pub(super) enum Operator {
    /// Windows of fixed size over [`Slices`] and [`Runs`].
    Windows(Grid),
    /// Sessions.
    Sessions(Box<Sessions>),
    /// Records in [`Ordered`] and [`Runs`] until W_s has passed them.
    Reorder,
    /// Records likewise, until no later one has them in its window.
    Sliding(Span),
}

impl Operator {
    fn new(spec: &OperatorSpec) -> Self {
        match spec {
            OperatorSpec::Windows(windows) => Self::Windows(Grid::new(windows)),
            OperatorSpec::Sessions(sessions) => Self::Sessions(Box::new(Sessions::new(*sessions))),
            OperatorSpec::Reorder => Self::Reorder,
            OperatorSpec::Sliding(sliding) => Self::Sliding(sliding.size),
        }
    }
}

/// A shard's state as of a commit.
#[derive(Clone, Debug)]
pub struct ShardState {
    pub(super) operator: Operator,
    pub(super) layout: Arc<Layout>,
    pub(super) inputs: Vec<Input>,
    /// The rows since the last run.
    pub(super) slices: Slices,
    /// The records that wait, since the last run.
    pub(super) buffer: Ordered,
    pub(super) runs: Runs,
    /// Number of the run that `slices` are to become.
    pub(super) run: u64,
    /// The run that the base entries of the log's first snapshot are of, until another snapshot begins.
    base: Option<u64>,
    pub(super) revisions: Revisions,
    /// The dead letters that it has been asked for.
    pub(super) answered: Answered,
    pub(super) watermark: Watermark,
    pub(super) purged: Option<EventTime>,
    pub(super) closing: Option<Closing>,
    pub(super) log_bytes: u64,
    pub(super) incarnation: u64,
    pub(super) sequence: u64,
    pub(super) assignment: AssignmentId,
    pub(super) job: Option<JobId>,
}

/// Why a log or a store cannot be folded. Each is a stop with its place, never a guess.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum RestoreError {
    /// The log does not begin with a block that may begin one: the genesis block was lost.
    #[error(
        "the log begins with block {found} and not with a block that may begin a log: its beginning was lost"
    )]
    NoBeginning {
        /// Sequence of the first block.
        found: u64,
    },
    /// A block of the chain is missing.
    #[error("block {found} follows block {before}: committed blocks between them are missing")]
    Gap {
        /// Sequence of the last block folded.
        before: u64,
        /// Sequence of the block that came.
        found: u64,
    },
    /// The log belongs to another job.
    #[error("the log belongs to another job")]
    OtherJob,
    /// A block or entry that does not read.
    #[error(transparent)]
    Block(#[from] BlockError),
}

impl ShardState {
    /// The state before any block: only the genesis block can be folded onto it.
    #[must_use]
    pub fn empty(spec: &JobSpec) -> Self {
        Self::empty_with(spec, Arc::new(Layout::new(spec)))
    }

    /// The same, of a job whose rows are laid out so: aggregates may have been added to it.
    #[must_use]
    pub fn empty_with(spec: &JobSpec, layout: Arc<Layout>) -> Self {
        Self {
            operator: Operator::new(&spec.operator),
            layout,
            inputs: Vec::new(),
            slices: Slices::default(),
            buffer: Ordered::default(),
            runs: Runs::default(),
            run: 0,
            base: None,
            revisions: Revisions::default(),
            answered: Answered::default(),
            watermark: None,
            purged: None,
            closing: None,
            log_bytes: 0,
            incarnation: 0,
            sequence: 0,
            assignment: AssignmentId::default(),
            job: None,
        }
    }

    /// The block that begins a shard's log, written together with the job record: the job's start offsets.
    #[must_use]
    pub fn genesis(job: JobId, starts: &[(Partition, Offset)]) -> Block {
        let mut block = Block { begins: Some(job), ..Block::default() };
        for (partition, next) in starts {
            let (mut key, mut value) = (Vec::new(), Vec::new());
            EntryKey::Position(*partition).encode(&mut key);
            Input { next: *next, ..Input::default() }.encode(&mut value);
            block.entries.upsert(&key, &value);
        }
        block
    }

    /// Folds the next committed block of the log.
    ///
    /// # Errors
    /// [`RestoreError`] when the block does not continue the chain or does not read.
    pub fn fold(&mut self, block: &Block) -> Result<(), RestoreError> {
        match (self.job, block.begins) {
            (None, None) => return Err(RestoreError::NoBeginning { found: block.sequence }),
            (Some(job), Some(other)) if job != other => return Err(RestoreError::OtherJob),
            (None, Some(_)) => {}
            (Some(_), _) if block.sequence == self.sequence + 1 => {}
            (Some(_), _) => {
                return Err(RestoreError::Gap { before: self.sequence, found: block.sequence });
            }
        }
        let starts = self.job.is_none();
        if block.begins.is_some() {
            // What a later snapshot repeats is here already.
            self.base = (starts && block.base).then(|| block.scalars.run.saturating_sub(1));
        }
        let (mut base, mut records) = (Vec::new(), Vec::new());
        for change in block.entries.iter() {
            let change = change?;
            let Change::Upsert(key, value) = change else {
                self.restore_entry(change)?;
                continue;
            };
            match EntryKey::decode(key) {
                Some(EntryKey::Base(slice, key)) => base.push((slice, key, value)),
                // Among the rows of the runs that follow as base entries.
                Some(
                    EntryKey::Row(..) | EntryKey::Buffered(..) | EntryKey::Session(..) | EntryKey::Pulled(_),
                ) if starts && block.base => {}
                Some(EntryKey::BufferedBase(place)) => records.push((place, value)),
                Some(EntryKey::Index(..)) => {
                    return Err(BlockError::Body("an entry of a local store in a log").into());
                }
                _ => self.restore_entry(change)?,
            }
        }
        if let Some(run) = self.base {
            for rows in base.chunk_by(|a, b| a.0 == b.0) {
                let Some((slice, ..)) = rows.first() else { continue };
                let rows: Vec<_> = rows.iter().map(|(_, key, value)| (*key, *value)).collect();
                self.runs.append(*slice, run, &rows);
            }
            if matches!(self.operator, Operator::Sessions(_)) {
                let values = base.iter().map(|(_, key, value)| (*key, *value));
                self.index_ends(run, values).ok_or(BlockError::Body("a session does not read"))?;
            }
            let parts = self.write_parts(run, records.into_iter());
            parts.into_iter().for_each(|part| self.runs.insert(part));
        }
        if !starts && block.scalars.run > self.run {
            self.spill();
        }
        self.restore_scalars(block);
        Ok(())
    }

    /// Makes the rows in memory a run, and memory empty.
    pub(super) fn spill(&mut self) {
        let parts = self.buffer_parts();
        parts.into_iter().for_each(|part| self.runs.insert(part));
        self.buffer = Ordered::default();
        self.spill_sessions();
        let slices = std::mem::take(&mut self.slices);
        for slice in slices.iter().filter(|slice| !slice.is_empty()) {
            let part = write_slice(self.runs.writer(slice.start, self.run), slice, &self.layout);
            self.runs.insert(part);
        }
    }

    /// The rows in memory as parts of the run that they are to become, for a store that is to hold them too.
    #[must_use]
    pub fn image(&mut self) -> Vec<Part> {
        let mut parts = self.buffer_parts();
        let slices = self.slices.iter().filter(|slice| !slice.is_empty());
        parts.extend(
            slices.map(|slice| write_slice(self.runs.writer(slice.start, self.run), slice, &self.layout)),
        );
        parts
    }

    /// After the entries and the head of a store: takes the rows in memory from the parts that [`ShardState::image`] gave; rows that
    /// were stored by themselves are newer. Gives the files of these parts.
    ///
    /// # Errors
    /// A chunk that does not read.
    pub fn load_image(&mut self) -> Result<Vec<Arc<Part>>, Unreadable> {
        let parts = self.runs.take_from(self.run);
        if self.buffers_records() {
            self.load_parts(&parts)?;
            return Ok(parts);
        }
        for part in &parts {
            let mut merge = Merge::default();
            merge.add_part(Arc::clone(part), None, &self.runs)?;
            let mut row = MergedRow::new(&self.layout);
            while merge.next(&Slices::default(), &self.runs, &self.layout, &mut row)? {
                let slice = self.slices.slice_mut(part.slice);
                if slice.find(&row.key).is_none() {
                    slice.restored_row_mut(&self.layout, &row.key).set(row.row.row());
                }
            }
        }
        Ok(parts)
    }

    /// Where chunks are read that are not held in memory.
    pub fn set_store(&mut self, store: Arc<dyn Chunks>) {
        self.runs.set_store(store);
    }

    /// The runs.
    #[must_use]
    pub const fn runs(&self) -> &Runs {
        &self.runs
    }

    /// Number of the run that the rows in memory are to become.
    #[must_use]
    pub const fn run(&self) -> u64 {
        self.run
    }

    /// The store has these chunks: memory lets go of them.
    pub fn stored(&mut self, chunks: &[ChunkId]) {
        self.runs.stored(chunks);
    }

    /// All but rows and scalars, as the entries of a store.
    #[must_use]
    pub fn small_entries(&self) -> Block {
        let mut block = Block::default();
        self.encode_small(&mut block);
        if let Some(sessions) = self.sessions() {
            sessions.pulled().for_each(|key| super::sessions::write_pulled(key, &mut block));
            let (mut place, mut writer) = (0, RowWriter::default());
            super::sessions::walk(sessions, &self.layout, &mut place, &mut writer, &mut block, usize::MAX);
        }
        block
    }

    pub(super) fn encode_small(&self, block: &mut Block) {
        for (at, input) in self.inputs.iter().enumerate() {
            Self::encode_input(at, input, block);
        }
        for (end, key, emitted) in self.revisions.iter() {
            Self::encode_revision(end, key, emitted, block);
        }
        for (partition, at, answered) in self.answered.blocks() {
            Self::encode_answered(partition, at, answered, block);
        }
    }

    pub(super) fn compaction(&mut self, boundary: Option<u64>) -> Option<Compaction> {
        match self.operator {
            Operator::Windows(_) => self.runs.compaction(boundary, &self.layout),
            Operator::Sessions(_) => self.runs.compaction_of_sessions(boundary, &self.layout),
            // Records never merge.
            Operator::Reorder | Operator::Sliding(_) => None,
        }
    }

    pub(super) fn compacted(&mut self, done: Compacted) -> bool {
        let inputs: Vec<u64> = done.inputs.iter().map(|part| part.file).collect();
        self.runs.replace(&inputs, done.output)
    }

    /// The rows of the window that ends at `end`, behind `after`, by key.
    pub(super) fn window(
        &self,
        grid: Grid,
        end: EventTime,
        after: Option<&[u8]>,
    ) -> Result<Merge, Unreadable> {
        let start = grid.start_of(end);
        let mut merge = Merge::default();
        for place in self.slices.places(start, end) {
            merge.add_memory(place, after, &self.slices);
        }
        for (_, parts) in self.runs.range(start, end) {
            for part in parts {
                merge.add_part(Arc::clone(part), after, &self.runs)?;
            }
        }
        Ok(merge)
    }

    /// Whether `key` has a row in the window that ends at `end`.
    pub(super) fn is_in_window(&self, grid: Grid, end: EventTime, key: &[u8]) -> Result<bool, Unreadable> {
        let start = grid.start_of(end);
        if self.slices.range(start, end).any(|slice| slice.find(key).is_some()) {
            return Ok(true);
        }
        let mut row = RowBuf::new(&self.layout);
        for (slice, _) in self.runs.range(start, end) {
            if self.runs.find(slice, key, &self.layout, &mut row.row_mut())? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Merges the rows of `key` in the window that ends at `end` into `into`.
    pub(super) fn find_in_window(
        &self,
        grid: Grid,
        end: EventTime,
        key: &[u8],
        into: &mut RowMut<'_>,
    ) -> Result<(), Unreadable> {
        let start = grid.start_of(end);
        for slice in self.slices.range(start, end) {
            if let Some(row) = slice.find(key) {
                self.layout.merge(into, slice.row(&self.layout, row));
            }
        }
        for (slice, _) in self.runs.range(start, end) {
            self.runs.find(slice, key, &self.layout, into)?;
        }
        Ok(())
    }

    /// The start of the first slice at or after `from` that holds anything.
    pub(super) fn first_slice(&self, from: EventTime) -> Option<EventTime> {
        let memory = self.slices.first_from(from).map(|slice| slice.start);
        [memory, self.runs.first_from(from)].into_iter().flatten().min()
    }

    /// The job the log belongs to, for a state that continues from a local store.
    pub fn set_job(&mut self, job: JobId) {
        self.job = Some(job);
    }

    /// The shard's input from `partition`; one never seen before starts at its beginning.
    pub(super) fn input_mut(&mut self, partition: Partition) -> &mut Input {
        let at = partition.0 as usize;
        if self.inputs.len() <= at {
            self.inputs.resize(at + 1, Input::default());
        }
        #[allow(clippy::indexing_slicing, reason = "resized above")]
        &mut self.inputs[at]
    }

    /// Forgets what ended at or before `purged`.
    pub(super) fn purge(&mut self, purged: EventTime) {
        self.purged = self.purged.max(Some(purged));
        match &mut self.operator {
            Operator::Windows(grid) => {
                self.slices.drop_before(grid.first_live_slice(purged));
                self.runs.drop_before(grid.first_live_slice(purged));
            }
            Operator::Sessions(sessions) => {
                sessions.purge(purged, !self.runs.of_slice(BY_KEY).is_empty());
                self.runs.drop_before(purged);
            }
            Operator::Reorder | Operator::Sliding(_) => {
                self.runs.drop_before(purged);
                self.forget_gone();
            }
        }
        self.revisions.purge(purged);
    }

    /// How far a closing that spans several commits has come.
    #[must_use]
    pub const fn closing(&self) -> Option<&Closing> {
        self.closing.as_ref()
    }

    /// The dead letters that it has been asked for.
    #[must_use]
    pub const fn answered(&self) -> &Answered {
        &self.answered
    }

    /// W_s.
    #[must_use]
    pub const fn watermark(&self) -> Watermark {
        self.watermark
    }

    /// The shard's input from each partition.
    #[must_use]
    pub fn inputs(&self) -> &[Input] {
        &self.inputs
    }

    /// Number of open sessions, or of open (slice, group key) rows; one that is in memory and in runs counts in each.
    #[must_use]
    pub fn open_rows(&self) -> u64 {
        let in_runs = match self.operator {
            Operator::Sessions(_) => self.sessions_in_runs().0,
            Operator::Windows(_) | Operator::Reorder | Operator::Sliding(_) => self.runs.rows(),
        };
        self.slices.rows() as u64
            + self.buffer.len() as u64
            + in_runs
            + self.sessions().map_or(0, |sessions| sessions.len() as u64)
    }

    pub(super) const fn keeps_records(&self) -> bool {
        matches!(self.operator, Operator::Reorder)
    }

    pub(super) const fn buffers_records(&self) -> bool {
        matches!(self.operator, Operator::Reorder | Operator::Sliding(_))
    }

    /// Memory that rows and records take which may become a run, about.
    pub(super) fn row_bytes(&self) -> usize {
        self.slices.bytes() + self.buffer.bytes() + self.sessions().map_or(0, Sessions::bytes)
    }

    /// Whether no row and no record is in memory.
    pub(super) fn is_memory_empty(&self) -> bool {
        self.slices.iter().all(Slice::is_empty)
            && self.buffer.is_empty()
            && self
                .sessions()
                .is_none_or(|sessions| sessions.is_empty() && sessions.pulled().next().is_none())
    }

    /// Memory that the open rows take, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.row_bytes() + self.runs.memory_bytes()
    }

    pub(super) const fn sessions(&self) -> Option<&Sessions> {
        match &self.operator {
            Operator::Sessions(sessions) => Some(sessions),
            Operator::Windows(_) | Operator::Reorder | Operator::Sliding(_) => None,
        }
    }

    /// Incarnation and sequence of the last block.
    #[must_use]
    pub const fn identity(&self) -> (u64, u64) {
        (self.incarnation, self.sequence)
    }

    /// The assignment under which the last block was written.
    #[must_use]
    pub const fn assignment(&self) -> AssignmentId {
        self.assignment
    }

    /// The job whose log this is; `None` before the first block.
    #[must_use]
    pub const fn job(&self) -> Option<JobId> {
        self.job
    }
}
