//! The durable state of a shard: what its changelog folds to.
//!
//! The owner changes it record by record and writes the differences as [`Block`]s; a successor folds the committed blocks (onto what
//! its local store holds, if that lies on the chain) and has the same state. *Rebuild = owner at every step.*

use std::{collections::BTreeMap, sync::Arc};

use thiserror::Error;

use crate::{
    aggregate::{Layout, put_varint},
    announcement::AssignmentId,
    block::{Block, BlockError, Change, Closing, JobId, Scalars},
    entry::{EntryKey, Input, take_u64},
    job::JobSpec,
    slices::Slices,
    time::{EventTime, Offset, Partition, Watermark},
    window::Grid,
};

/// How often the result of each group key has been emitted, by window end: only windows that late records touched.
pub type Revisions = BTreeMap<EventTime, BTreeMap<Vec<u8>, u32>>;

/// A shard's state as of a commit.
#[derive(Clone, Debug)]
pub struct ShardState {
    pub(super) grid: Grid,
    pub(super) layout: Arc<Layout>,
    pub(super) inputs: Vec<Input>,
    pub(super) slices: Slices,
    pub(super) revisions: Revisions,
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
#[derive(Debug, Error, PartialEq, Eq)]
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
        Self {
            grid: Grid::new(&spec.window),
            layout: Arc::new(Layout::new(spec)),
            inputs: Vec::new(),
            slices: Slices::default(),
            revisions: Revisions::new(),
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
        for change in block.entries.iter() {
            self.restore_entry(change?)?;
        }
        self.restore_scalars(block);
        Ok(())
    }

    /// Takes the head of a block as it is: how a state continues from what a local store holds.
    pub fn restore_scalars(&mut self, head: &Block) {
        self.job = self.job.or(head.begins);
        self.incarnation = head.incarnation;
        self.sequence = head.sequence;
        self.assignment = head.assignment;
        let Scalars { watermark, purged, closing, log_bytes } = head.scalars.clone();
        (self.watermark, self.closing, self.log_bytes) = (watermark, closing, log_bytes);
        if let Some(purged) = purged {
            self.purge(purged);
        }
    }

    /// The job the log belongs to, for a state that continues from a local store.
    pub fn set_job(&mut self, job: JobId) {
        self.job = Some(job);
    }

    /// Takes one entry of a block or of a local store.
    ///
    /// # Errors
    /// [`RestoreError::Block`] when key or value do not read.
    pub fn restore_entry(&mut self, change: Change<'_>) -> Result<(), RestoreError> {
        let unreadable = RestoreError::Block(BlockError::Body("an entry does not read"));
        match change {
            Change::Upsert(key, value) => {
                let key = EntryKey::decode(key).ok_or(unreadable)?;
                self.upsert(key, value).ok_or(RestoreError::Block(BlockError::Body("a value does not read")))
            }
            Change::Delete(key) => match EntryKey::decode(key).ok_or(unreadable)? {
                EntryKey::Revision(end, key) => {
                    if let Some(keys) = self.revisions.get_mut(&end) {
                        keys.remove(key);
                    }
                    Ok(())
                }
                EntryKey::Position(_) | EntryKey::Row(..) => {
                    Err(RestoreError::Block(BlockError::Body("a delete of an entry that is never deleted")))
                }
            },
        }
    }

    fn upsert(&mut self, key: EntryKey<'_>, mut value: &[u8]) -> Option<()> {
        match key {
            EntryKey::Position(partition) => {
                let input = Input::decode(value)?;
                *self.input_mut(partition) = input;
            }
            EntryKey::Row(slice, key) => {
                let row = self.slices.slice_mut(slice).restored_row_mut(&self.layout, key);
                self.layout.decode(value, row)?;
            }
            EntryKey::Revision(end, key) => {
                let emitted = u32::try_from(take_u64(&mut value)?).ok()?;
                self.revisions.entry(end).or_default().insert(key.to_vec(), emitted);
            }
        }
        Some(())
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
        self.slices.drop_before(self.grid.first_live_slice(purged));
        while self.revisions.first_key_value().is_some_and(|(end, _)| *end <= purged) {
            self.revisions.pop_first();
        }
    }

    pub(super) fn encode_input(partition: usize, input: &Input, block: &mut Block) {
        let (mut key, mut value) = (Vec::new(), Vec::new());
        EntryKey::Position(Partition(u32::try_from(partition).unwrap_or(u32::MAX))).encode(&mut key);
        input.encode(&mut value);
        block.entries.upsert(&key, &value);
    }

    pub(super) fn encode_revision(end: EventTime, key: &[u8], emitted: u32, block: &mut Block) {
        let (mut entry, mut value) = (Vec::new(), Vec::new());
        EntryKey::Revision(end, key).encode(&mut entry);
        put_varint(&mut value, u128::from(emitted));
        block.entries.upsert(&entry, &value);
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

    /// Number of open (slice, group key) rows.
    #[must_use]
    pub fn open_rows(&self) -> usize {
        self.slices.rows()
    }

    /// Memory that the open rows take, about.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.slices.bytes()
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

    /// Everything but the counters of the log, in a canonical form: two states are the same when these are.
    #[must_use]
    pub fn canonical(&self) -> CanonicalState {
        let mut rows = BTreeMap::new();
        for slice in self.slices.iter() {
            for row in 0..slice.len() {
                rows.insert((slice.start, slice.key(row).to_vec()), slice.words(&self.layout, row).to_vec());
            }
        }
        let revisions = self
            .revisions
            .iter()
            .flat_map(|(end, keys)| keys.iter().map(|(key, emitted)| ((*end, key.clone()), *emitted)))
            .collect();
        // A partition of which nothing is known is the same as one never heard of.
        let known =
            self.inputs.iter().rposition(|input| *input != Input::default()).map_or(0, |last| last + 1);
        CanonicalState {
            inputs: self.inputs.iter().take(known).copied().collect(),
            rows,
            revisions,
            watermark: self.watermark,
            purged: self.purged,
            closing: self.closing.clone(),
            sequence: self.sequence,
        }
    }
}

/// A state that can be compared.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the state")]
pub struct CanonicalState {
    pub inputs: Vec<Input>,
    pub rows: BTreeMap<(EventTime, Vec<u8>), Vec<u64>>,
    pub revisions: BTreeMap<(EventTime, Vec<u8>), u32>,
    pub watermark: Watermark,
    pub purged: Option<EventTime>,
    pub closing: Option<Closing>,
    pub sequence: u64,
}
