//! The local store as a follower of the changelog: committed blocks go to it in batches, about once a second, and never hold a
//! commit up.
//!
//! ```text
//! actor ── committed block ──► ShardCache ── once the writer is free ──► writer thread ── one apply ──► sled
//! ```
//! What is in it may lag by seconds or be lost: the changelog has it. After an error the shard goes on without it, and gets a
//! new one when it is next taken over. The writer rests for [`REST`] times as long as it has worked: sled costs 8–16 µs a key, so
//! that more of the keys are overwritten or purged before they are ever written.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tidegate_core::{
    block::{Block, Change, Entries, JobId},
    entry::purged_ranges,
    time::{Offset, Shard, Tick},
    window::Grid,
};
use tidegate_runtime::clock::Clock;
use tidegate_store::{Changes, Identity, ShardStore, SledShard, Stores};
use tokio::sync::oneshot;

/// A shard's changes are written at most this often, in ms.
const INTERVAL: u64 = 1_000;
/// The writer rests this many times as long as it has worked: at most 1/20 of a core, over all shards.
const REST: u64 = 19;
/// Pending blocks beyond this are merged: a key's value counts once.
const MERGE_BYTES: usize = 8 << 20;

/// The thread that writes.
#[derive(Clone, Debug)]
pub(crate) struct CacheWriter {
    work: SyncSender<Work>,
    rests_until: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Work {
    store: SledShard,
    pending: Pending,
    done: oneshot::Sender<Option<SledShard>>,
}

impl CacheWriter {
    /// Starts the thread; it ends with the last handle.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(clock: Clock) -> std::io::Result<Self> {
        let (work, queue) = sync_channel(1);
        let rests_until = Arc::new(AtomicU64::new(0));
        let rests = Arc::clone(&rests_until);
        thread::Builder::new().name("cache".to_owned()).spawn(move || write_all(&queue, &rests, &clock))?;
        Ok(Self { work, rests_until })
    }
}

fn write_all(queue: &Receiver<Work>, rests_until: &AtomicU64, clock: &Clock) {
    while let Ok(Work { mut store, pending, done }) = queue.recv() {
        let begun = clock.tick();
        let written = pending.write(&mut store);
        let now = clock.tick();
        rests_until.store(now + (now - begun) * REST, Ordering::Relaxed);
        let store = match written {
            Ok(()) => Some(store),
            Err(error) => {
                tracing::warn!(%error, "cannot write to the local store; a shard goes on without it");
                None
            }
        };
        // An actor that has ended leaves its store to the next.
        let _ = done.send(store);
    }
}

/// The local store of one shard, as its actor sees it.
#[derive(Debug)]
pub(crate) struct ShardCache {
    shard: Shard,
    stores: Stores,
    state: State,
    pending: Pending,
    written: Tick,
}

#[derive(Debug)]
enum State {
    /// Not opened yet, or failed.
    Off,
    Ready(SledShard),
    Writing(oneshot::Receiver<Option<SledShard>>),
}

impl ShardCache {
    /// The cache of `shard`; opened when the shard is restored.
    pub(crate) fn new(stores: Stores, shard: Shard, job: JobId, grid: Grid) -> Self {
        let pending = Pending { job, grid, blocks: Vec::new(), bytes: 0, merged: None };
        Self { shard, stores, state: State::Off, pending, written: Tick(0) }
    }

    /// The store, for a restore: waits for a write under way, opens it anew after an error. Blocks.
    pub(crate) fn reclaim(&mut self) -> Option<&mut SledShard> {
        self.pending.clear();
        self.await_writer();
        if matches!(self.state, State::Off) {
            match self.stores.shard(self.shard.0) {
                Ok(store) => self.state = State::Ready(store),
                Err(error) => self.fail(&error),
            }
        }
        self.store()
    }

    /// The store, while nothing is being written to it.
    pub(crate) fn store(&mut self) -> Option<&mut SledShard> {
        match &mut self.state {
            State::Ready(store) => Some(store),
            State::Off | State::Writing(_) => None,
        }
    }

    /// The shard goes on without a local store.
    pub(crate) fn fail(&mut self, error: &tidegate_store::Error) {
        tracing::warn!(shard = self.shard.0, %error, "no local store for this shard until it is next taken over");
        self.state = State::Off;
        self.pending.clear();
    }

    /// Takes a block that is known to be in the log; `offset` is that of its first chunk, where known.
    pub(crate) fn committed(&mut self, block: Block, offset: Option<Offset>) {
        self.poll();
        if !matches!(self.state, State::Off) {
            self.pending.push(block, offset);
        }
    }

    /// Writes pending blocks here and now if they have become many: for a restore, which may read more than memory should hold.
    pub(crate) fn write_if_many(&mut self) {
        if self.pending.bytes < MERGE_BYTES {
            return;
        }
        let State::Ready(store) = &mut self.state else { return };
        if let Err(error) = self.pending.take().write(store) {
            self.fail(&error);
        }
    }

    /// Hands pending blocks to the writer if it is time and the writer is free; merges them if they have become many.
    pub(crate) fn follow(&mut self, writer: &CacheWriter, now: Tick) {
        self.poll();
        let rests = writer.rests_until.load(Ordering::Relaxed) > now.0;
        let due = !rests && now.since(self.written) >= INTERVAL && self.pending.is_placed();
        if due && let State::Ready(store) = std::mem::replace(&mut self.state, State::Off) {
            let (done, reply) = oneshot::channel();
            match writer.work.try_send(Work { store, pending: self.pending.take(), done }) {
                Ok(()) => {
                    self.written = now;
                    self.state = State::Writing(reply);
                }
                Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => {
                    self.pending = work.pending;
                    self.state = State::Ready(work.store);
                }
            }
        } else if self.pending.bytes >= MERGE_BYTES {
            self.pending.merge();
        }
    }

    /// Lets go of the store; where the shard is to be found again, writes what is pending, at 8–16 µs a key. Blocks.
    pub(crate) fn close(mut self, write: bool) {
        self.await_writer();
        let State::Ready(store) = &mut self.state else { return };
        if !write {
            return;
        }
        if let Err(error) = self.pending.take().write(store) {
            self.fail(&error);
        }
    }

    fn await_writer(&mut self) {
        self.state = match std::mem::replace(&mut self.state, State::Off) {
            State::Writing(done) => done.blocking_recv().ok().flatten().map_or(State::Off, State::Ready),
            state => state,
        };
    }

    fn poll(&mut self) {
        let State::Writing(done) = &mut self.state else { return };
        match done.try_recv() {
            Ok(Some(store)) => self.state = State::Ready(store),
            Err(oneshot::error::TryRecvError::Empty) => {}
            Ok(None) | Err(oneshot::error::TryRecvError::Closed) => {
                self.state = State::Off;
                self.pending.clear();
            }
        }
    }
}

/// Committed blocks that are not in the store yet, in order behind what has been merged of them.
#[derive(Debug)]
struct Pending {
    job: JobId,
    grid: Grid,
    merged: Option<Changes>,
    blocks: Vec<(Block, Option<Offset>)>,
    bytes: usize,
}

impl Pending {
    fn push(&mut self, block: Block, offset: Option<Offset>) {
        self.bytes += block.entries.len() + 256;
        self.blocks.push((block, offset));
    }

    fn clear(&mut self) {
        drop(self.take());
    }

    fn take(&mut self) -> Self {
        Self {
            job: self.job,
            grid: self.grid,
            merged: self.merged.take(),
            blocks: std::mem::take(&mut self.blocks),
            bytes: std::mem::take(&mut self.bytes),
        }
    }

    /// Whether there is something to write, and the place of the last block is known.
    fn is_placed(&self) -> bool {
        self.blocks.last().map_or(self.merged.is_some(), |(_, offset)| offset.is_some())
    }

    fn write(mut self, store: &mut SledShard) -> Result<(), tidegate_store::Error> {
        self.merge();
        self.merged.map_or(Ok(()), |changes| store.apply(&changes))
    }

    /// Merges the blocks up to the last whose place is known.
    fn merge(&mut self) {
        let Some(last) = self.blocks.iter().rposition(|(_, offset)| offset.is_some()) else { return };
        let blocks: Vec<_> = self.blocks.drain(..=last).collect();
        self.bytes = self.blocks.iter().map(|(block, _)| block.entries.len() + 256).sum();
        let Some(newer) = changes_of(&blocks, self.job, &self.grid) else { return };
        self.merged = Some(match self.merged.take() {
            None => newer,
            Some(older) => join(older, newer),
        });
    }
}

/// What the blocks change, each key once; `None` for no block.
fn changes_of(blocks: &[(Block, Option<Offset>)], job: JobId, grid: &Grid) -> Option<Changes> {
    let (last, offset) = blocks.last()?;
    let identity = Identity {
        job: job.0,
        incarnation: last.incarnation,
        sequence: last.sequence,
        changelog_offset: (*offset)?.0,
    };
    let mut changes = Changes::at(identity);
    if let Some(purged) = last.scalars.purged {
        changes.purge_below = purged_ranges(grid, purged).to_vec();
    }
    changes.meta = head_of(last).chunks(usize::MAX).into_iter().next();
    let mut seen = HashSet::new();
    for (block, _) in blocks.iter().rev() {
        let entries: Vec<_> = block.entries.iter().filter_map(Result::ok).collect();
        for change in entries.into_iter().rev() {
            let (Change::Upsert(key, _) | Change::Delete(key)) = change;
            if is_within(key, &changes.purge_below) || !seen.insert(key) {
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

/// `older`, then `newer`.
fn join(older: Changes, mut newer: Changes) -> Changes {
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
fn head_of(block: &Block) -> Block {
    Block {
        incarnation: block.incarnation,
        sequence: block.sequence,
        assignment: block.assignment,
        begins: None,
        scalars: block.scalars.clone(),
        entries: Entries::default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::{
        block::Scalars,
        entry::EntryKey,
        job::WindowSpec,
        time::{EventTime, Span},
    };

    const GRID: WindowSpec = WindowSpec { size: Span(10), step: Span(10), offset: Span(0) };

    fn key(slice: i64, key: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        EntryKey::Row(EventTime(slice), key.as_bytes()).encode(&mut bytes);
        bytes
    }

    fn revision(end: i64) -> Vec<u8> {
        let mut bytes = Vec::new();
        EntryKey::Revision(EventTime(end), b"k").encode(&mut bytes);
        bytes
    }

    fn block(sequence: u64, purged: Option<i64>, rows: &[(i64, &str, &[u8])]) -> (Block, Option<Offset>) {
        let mut block = Block { incarnation: 7, sequence, ..Block::default() };
        block.scalars = Scalars { purged: purged.map(EventTime), ..Scalars::default() };
        for (slice, name, value) in rows {
            block.entries.upsert(&key(*slice, name), value);
        }
        (block, Some(Offset(100 + sequence)))
    }

    fn pending(blocks: Vec<(Block, Option<Offset>)>) -> Pending {
        let grid = Grid::new(&GRID);
        let mut pending = Pending { job: JobId([1; 16]), grid, merged: None, blocks: Vec::new(), bytes: 0 };
        for (block, offset) in blocks {
            pending.push(block, offset);
        }
        pending
    }

    #[test]
    fn blocks_are_written_as_one_change_in_which_the_last_value_counts() {
        let mut deletes = block(2, None, &[(20, "b", b"2")]);
        deletes.0.entries.delete(&revision(40));
        let mut first = block(1, None, &[(0, "gone", b"1"), (20, "a", b"1"), (20, "b", b"1")]);
        first.0.entries.upsert(&revision(40), b"1");
        let blocks = vec![first, deletes, block(3, Some(10), &[(20, "a", b"3")])];

        let mut at_once = pending(blocks.clone());
        at_once.merge();
        let merged = at_once.merged.unwrap();
        let upserts: Vec<_> = merged.upserts.clone().into_iter().collect();
        assert_eq!(upserts, [(key(20, "a"), b"3".to_vec()), (key(20, "b"), b"2".to_vec())]);
        assert_eq!(merged.deletes.iter().collect::<Vec<_>>(), [&revision(40)]);
        assert_eq!(merged.identity.changelog_offset, 103);
        let meta =
            tidegate_core::block::Assembler::default().push(merged.meta.as_ref().unwrap()).unwrap().unwrap();
        assert_eq!((meta.sequence, meta.scalars.purged), (3, Some(EventTime(10))));

        let mut one_by_one = pending(vec![]);
        for (block, offset) in blocks {
            one_by_one.push(block, offset);
            one_by_one.merge();
        }
        assert_eq!(one_by_one.merged.unwrap(), merged);
    }

    #[test]
    fn a_block_whose_place_is_not_known_waits_for_one_whose_place_is() {
        let (unplaced, _) = block(2, None, &[(20, "a", b"2")]);
        let mut pending = pending(vec![block(1, None, &[(20, "a", b"1")]), (unplaced, None)]);
        assert!(!pending.is_placed());
        pending.merge();
        assert_eq!(pending.merged.as_ref().unwrap().identity.sequence, 1);
        assert_eq!(pending.blocks.len(), 1);
        let (placed, offset) = block(3, None, &[]);
        pending.push(placed, offset);
        assert!(pending.is_placed());
        pending.merge();
        let merged = pending.merged.unwrap();
        assert_eq!((merged.identity.sequence, &merged.upserts[&key(20, "a")]), (3, &b"2".to_vec()));
    }

    #[test]
    fn a_cache_follows_the_log_and_is_found_where_it_was_left() {
        let directory = tempfile::tempdir().unwrap();
        let stores = Stores::open(directory.path(), [1; 16]).unwrap();
        let clock = Clock::start();
        let writer = CacheWriter::start(clock).unwrap();
        let mut cache = ShardCache::new(stores, Shard(3), JobId([1; 16]), Grid::new(&GRID));
        assert_eq!(cache.reclaim().unwrap().identity().unwrap(), None);
        let (first, offset) = block(1, None, &[(20, "a", b"1")]);
        cache.committed(first, offset);
        cache.follow(&writer, Tick(INTERVAL));
        let (second, offset) = block(2, None, &[(20, "a", b"2")]);
        cache.committed(second, offset);
        cache.follow(&writer, Tick(INTERVAL + 1));
        let identity = cache.reclaim().unwrap().identity().unwrap().unwrap();
        assert_eq!((identity.sequence, identity.changelog_offset), (1, 101), "the second is not due yet");
        let (second, offset) = block(2, None, &[(20, "a", b"2")]);
        cache.committed(second, offset);
        let stores = cache.stores.clone();
        cache.close(true);
        let identity = stores.shard(3).unwrap().identity().unwrap().unwrap();
        assert_eq!((identity.sequence, identity.changelog_offset), (2, 102));
    }
}
