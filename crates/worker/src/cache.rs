//! The local store as a follower of the changelog: committed blocks go to it in batches, about once a second, and never hold a
//! commit up. Rows that a shard spills are written at once, as chunks.
//!
//! ```text
//! actor ── committed block ──► ShardCache ── once the writer has rested ──► writer thread ── one apply ──► sled
//!       ── a run's chunks ────────┴───────── at once ────────────────────────────┘
//! ```
//! What is in it may lag by seconds or be lost: the changelog has it. After an error the shard goes on without it, and gets a
//! new one when it is next taken over. Rows that wait are bounded by the shard's share of `state.memory`: beyond it they are let go of,
//! and the store stays *behind* until the next run, which holds them all.

mod pending;
mod writer;

use std::{collections::BTreeMap, sync::Arc};

use tidegate_core::{
    block::{Block, Change, JobId},
    entry::{EntryKey, all_rows},
    job::OperatorSpec,
    runs::{ChunkId, Chunks, Compacted, Compaction, Part},
    shard::{ShardState, Spilled},
    time::{Offset, Shard, Tick},
};
use tidegate_store::{Changes, SledChunks, SledShard, Stores};
use tokio::sync::oneshot;

pub(crate) use self::writer::CacheWriter;
use self::{
    pending::{Pending, changes_at, join},
    writer::{Done, Task, Work, Write},
};

/// A shard's rows are written at most this often, in ms.
const INTERVAL: u64 = 1_000;
/// Pending blocks beyond this are merged: a key's value counts once.
const MERGE_BYTES: usize = 8 << 20;
const MIN_MERGE_BYTES: usize = 256 << 10;
/// Rows up to this are still written when a shard is closed.
const CLOSE_BYTES: usize = 1 << 20;
/// A store that is behind for so long, in ms, asks for a run.
const BEHIND: u64 = 30_000;

/// The local store of one shard, as its actor sees it.
#[derive(Debug)]
pub(crate) struct ShardCache {
    shard: Shard,
    stores: Stores,
    job: JobId,
    operator: OperatorSpec,
    state: State,
    /// Bytes of rows that may wait.
    share: usize,
    rows: Pending,
    written: Tick,
    /// Since when rows are not followed any more.
    behind: Option<Tick>,
    run: Option<Write>,
    /// Index entries that go with the next write.
    index: BTreeMap<Vec<u8>, Option<Vec<u8>>>,
    obsolete: Vec<ChunkId>,
    /// In the store, the parts that stand for rows in memory.
    image: Vec<Arc<Part>>,
    distrusted: bool,
}

#[derive(Debug)]
enum State {
    /// Not opened yet, or failed.
    Off,
    Ready(SledShard),
    Writing(oneshot::Receiver<Done>),
}

/// What the writer has done for a shard.
#[derive(Debug, Default)]
pub(crate) struct Written {
    pub(crate) stored: Vec<ChunkId>,
    pub(crate) compacted: Option<Compacted>,
}

/// The chunks of a shard in its local store.
#[derive(Debug)]
struct StoredChunks(SledChunks);

impl Chunks for StoredChunks {
    fn read(&self, id: ChunkId) -> Result<Arc<[u8]>, String> {
        let found = self.0.get(&id.to_bytes()).map_err(|error| error.to_string())?;
        found.ok_or_else(|| "it is not in the local store".to_owned())
    }
}

impl ShardCache {
    /// The cache of `shard`; opened when the shard is restored.
    pub(crate) fn new(stores: Stores, shard: Shard, job: JobId, operator: OperatorSpec) -> Self {
        Self {
            shard,
            stores,
            job,
            operator,
            state: State::Off,
            share: usize::MAX,
            rows: Pending::new(job, operator),
            written: Tick(0),
            behind: None,
            run: None,
            index: BTreeMap::new(),
            obsolete: Vec::new(),
            image: Vec::new(),
            distrusted: false,
        }
    }

    /// The store, for a restore: waits for a write under way, opens it anew after an error. Blocks.
    pub(crate) fn reclaim(&mut self) -> Option<&mut SledShard> {
        self.clear();
        self.await_writer();
        if matches!(self.state, State::Off) {
            match self.stores.shard(self.shard.0) {
                Ok(store) => self.state = State::Ready(store),
                Err(error) => self.fail(&error),
            }
        }
        if std::mem::take(&mut self.distrusted) {
            tracing::warn!(
                shard = self.shard.0,
                "the local store does not give what it was given, rebuilding it"
            );
            self.wipe();
        }
        self.store()
    }

    /// Empties the store.
    pub(crate) fn wipe(&mut self) {
        self.image.clear();
        if let Some(store) = self.store()
            && let Err(error) = tidegate_store::ShardStore::wipe(store)
        {
            self.fail(&error);
        }
    }

    /// The store holds what cannot be read: the next restore does without it.
    pub(crate) const fn distrust(&mut self) {
        self.distrusted = true;
    }

    /// Lets go of what has not been written.
    fn clear(&mut self) {
        self.rows.clear();
        self.run = None;
        self.index.clear();
        self.obsolete.clear();
        self.behind = None;
    }

    /// The store, while nothing is being written to it.
    pub(crate) fn store(&mut self) -> Option<&mut SledShard> {
        match &mut self.state {
            State::Ready(store) => Some(store),
            State::Off | State::Writing(_) => None,
        }
    }

    /// Where a state reads its chunks.
    pub(crate) fn chunks(&mut self) -> Option<Arc<dyn Chunks>> {
        let store = self.store()?;
        Some(Arc::new(StoredChunks(store.chunks().clone())))
    }

    /// The shard goes on without a local store.
    pub(crate) fn fail(&mut self, error: &tidegate_store::Error) {
        tracing::warn!(shard = self.shard.0, %error, "no local store for this shard until it is next taken over");
        self.state = State::Off;
        self.clear();
    }

    /// Whether there is a store to spill to.
    pub(crate) const fn takes_runs(&self) -> bool {
        !matches!(self.state, State::Off)
    }

    /// Whether the store is behind for so long that a run should bring it up.
    pub(crate) fn wants_run(&self, now: Tick) -> bool {
        self.takes_runs() && self.behind.is_some_and(|since| now.since(since) >= BEHIND)
    }

    /// How many bytes of rows may wait.
    pub(crate) const fn set_share(&mut self, bytes: usize) {
        self.share = bytes;
    }

    /// Takes a block that is known to be in the log; `offset` is that of its first chunk, where known.
    pub(crate) fn committed(&mut self, block: Block, offset: Option<Offset>, now: Tick) {
        // Records that wait go to the store with their run only: one by one they would cost more than they are worth.
        let single = !self.operator.buffers_records();
        if matches!(self.state, State::Off) || self.behind.is_some() || !single {
            return;
        }
        self.rows.push(block, offset);
        if self.rows.bytes >= MERGE_BYTES.min(self.share / 4).max(MIN_MERGE_BYTES) {
            self.rows.merge();
        }
        if self.rows.memory() > self.share.max(2 * MIN_MERGE_BYTES) {
            self.rows.clear();
            self.behind = Some(now);
        }
    }

    /// Takes a block with which the rows in memory became a run.
    pub(crate) fn spilled(&mut self, block: &Block, offset: Option<Offset>, spilled: &Spilled, now: Tick) {
        if matches!(self.state, State::Off) {
            return;
        }
        // All rows that waited are in the run.
        self.rows.clear();
        let run = self.run.get_or_insert_default();
        run.chunks.extend(spilled.parts.iter().flat_map(|part| part.held()));
        for part in &spilled.parts {
            self.index.insert(index_key(part), Some(part.to_index()));
        }
        let Some(offset) = offset else {
            self.behind = Some(now);
            return;
        };
        self.behind = None;
        for part in self.image.drain(..) {
            self.index.insert(index_key(&part), None);
            self.obsolete.extend(part.ids());
        }
        let mut changes = changes_at(block, offset, self.job, &self.operator);
        changes.purge_below.extend(all_rows());
        add_small(&mut changes, &spilled.small);
        run.changes = Some(match run.changes.take() {
            None => changes,
            Some(older) => join(older, changes),
        });
        run.purged = block.scalars.purged.map(|purged| (self.operator, purged));
    }

    /// Hands over what is due: a run at once, rows when the writer has rested.
    pub(crate) fn follow(&mut self, writer: &CacheWriter, now: Tick) {
        if !matches!(self.state, State::Ready(_)) {
            return;
        }
        let task = if self.run.is_some() {
            self.take_run().map(Task::Run)
        } else if now.since(self.written) >= INTERVAL && self.rows.is_placed() && writer.takes_rows(now) {
            self.written = now;
            self.take_rows().map(Task::Rows)
        } else {
            None
        };
        if let Some(task) = task {
            self.give(writer, task);
        }
    }

    /// Has parts merged where nothing else is to be done.
    pub(crate) fn compact(&mut self, writer: &CacheWriter, compaction: Compaction) {
        self.give(writer, Task::Compact(compaction));
    }

    /// Whether the store has nothing to do.
    pub(crate) const fn is_free(&self) -> bool {
        matches!(self.state, State::Ready(_)) && self.run.is_none()
    }

    /// The output of a compaction has come in the place of its inputs.
    pub(crate) fn replaced(&mut self, inputs: &[Arc<Part>], output: &Part) {
        for part in inputs {
            self.index.insert(index_key(part), None);
            self.obsolete.extend(part.ids());
        }
        self.index.insert(index_key(output), Some(output.to_index()));
    }

    fn give(&mut self, writer: &CacheWriter, task: Task) {
        let State::Ready(store) = std::mem::replace(&mut self.state, State::Off) else { return };
        let (done, reply) = oneshot::channel();
        match writer.give(Work { store, task, done }) {
            Ok(()) => self.state = State::Writing(reply),
            Err(_) => {
                tracing::warn!(
                    shard = self.shard.0,
                    "the writer of local stores has ended; a shard goes on without"
                );
                self.clear();
            }
        }
    }

    fn take_run(&mut self) -> Option<Write> {
        let mut run = self.run.take()?;
        if let Some(changes) = &mut run.changes {
            self.add_index(changes);
            run.obsolete = std::mem::take(&mut self.obsolete);
        }
        Some(run)
    }

    fn take_rows(&mut self) -> Option<Write> {
        let purged = self.rows.purged();
        let mut changes = self.rows.take().into_changes()?;
        self.add_index(&mut changes);
        let obsolete = std::mem::take(&mut self.obsolete);
        let purged = purged.map(|purged| (self.operator, purged));
        Some(Write { chunks: Vec::new(), changes: Some(changes), obsolete, purged })
    }

    fn add_index(&mut self, changes: &mut Changes) {
        for (key, value) in std::mem::take(&mut self.index) {
            match value {
                Some(value) => drop(changes.upserts.insert(key, value)),
                None => {
                    changes.upserts.remove(&key);
                    changes.deletes.insert(key);
                }
            }
        }
    }

    /// Waits until the writer has done what it was given; never ready without that.
    pub(crate) async fn written(&mut self) -> Written {
        let State::Writing(done) = &mut self.state else { return std::future::pending().await };
        let done = done.await.ok();
        self.done(done)
    }

    fn done(&mut self, done: Option<Done>) -> Written {
        let Some(Done { store, stored, compacted }) = done else {
            self.state = State::Off;
            self.clear();
            return Written::default();
        };
        match store {
            Some(store) => self.state = State::Ready(store),
            None => {
                self.state = State::Off;
                self.clear();
            }
        }
        Written { stored, compacted }
    }

    // ---- for a restore, which may block ----

    /// Notes the parts that stand for rows in memory, as they were loaded.
    pub(crate) fn loaded(&mut self, image: Vec<Arc<Part>>) {
        self.image = image;
    }

    /// Writes the chunks that are only in memory.
    pub(crate) fn keep_chunks(&mut self, state: &mut ShardState) {
        let chunks = state.runs().held();
        if chunks.is_empty() {
            return;
        }
        let Some(store) = self.store() else { return };
        match (Write { chunks, ..Write::default() }).run(store) {
            Ok(stored) => state.stored(&stored),
            Err(error) => self.fail(&error),
        }
    }

    /// Writes a run that was found in the log, and all that waits.
    pub(crate) fn write_run(&mut self, state: &mut ShardState) {
        let Some(run) = self.take_run() else { return };
        let Some(store) = self.store() else { return };
        match run.run(store) {
            Ok(stored) => state.stored(&stored),
            Err(error) => self.fail(&error),
        }
    }

    /// Writes the whole state, as of the block `last` in the log at `offset`; the rows in memory as chunks.
    pub(crate) fn write_whole(&mut self, state: &mut ShardState, last: &Block, offset: Offset) {
        self.keep_chunks(state);
        if self.store().is_none() {
            return;
        }
        self.rows.clear();
        let mut changes = changes_at(last, offset, self.job, &self.operator);
        changes.purge_below.extend(all_rows());
        add_small(&mut changes, &state.small_entries());
        let mut obsolete = Vec::new();
        for part in self.image.drain(..) {
            changes.deletes.insert(index_key(&part));
            obsolete.extend(part.ids());
        }
        self.image = state.image().into_iter().map(Arc::new).collect();
        for part in self.image.iter().chain(state.runs().parts()) {
            changes.upserts.insert(index_key(part), part.to_index());
        }
        let chunks = self.image.iter().flat_map(|part| part.held()).collect();
        // What stays in memory of the image is its names.
        self.image.iter_mut().for_each(|part| Arc::make_mut(part).forget_held());
        let write = Write { chunks, changes: Some(changes), obsolete, purged: None };
        self.behind = None;
        if let Some(store) = self.store()
            && let Err(error) = write.run(store)
        {
            self.fail(&error);
        }
    }

    /// Whether rows of the log have been let go of.
    pub(crate) const fn is_behind(&self) -> bool {
        self.behind.is_some()
    }

    /// Lets go of the store; where the shard is to be found again, writes what is pending, unless that is much: rows cost 8–16 µs each
    /// to write here, and about one to read from the log, where the next owner finds them. Blocks.
    pub(crate) fn close(mut self, write: bool) {
        self.await_writer();
        let run = self.take_run();
        let rows = if self.rows.memory() <= CLOSE_BYTES { self.take_rows() } else { None };
        let writes = [run, rows];
        let State::Ready(store) = &mut self.state else { return };
        if !write {
            return;
        }
        for write in writes.into_iter().flatten() {
            if let Err(error) = write.run(store) {
                return self.fail(&error);
            }
        }
    }

    fn await_writer(&mut self) {
        match std::mem::replace(&mut self.state, State::Off) {
            State::Writing(done) => drop(self.done(done.blocking_recv().ok())),
            state => self.state = state,
        }
    }
}

fn index_key(part: &Part) -> Vec<u8> {
    let mut key = Vec::new();
    EntryKey::Index(part.slice, part.file).encode(&mut key);
    key
}

/// Adds entries that are whole values.
fn add_small(changes: &mut Changes, small: &Block) {
    for change in small.entries.iter().filter_map(Result::ok) {
        if let Change::Upsert(key, value) = change {
            changes.upserts.insert(key.to_vec(), value.to_vec());
        }
    }
}

#[cfg(test)]
mod tests;
