//! A worker's local store and the restore from it and the changelog (design §5).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_core::{
    block::{Block, Change, Entries},
    entry::{EntryKey, all_rows, purged_chunks, purged_ranges},
    job::JobSpec,
    runs::{ChunkId, Chunks, Compacted, Compaction, Part, Unreadable},
    shard::{ShardState, Spilled},
    time::Offset,
};

use crate::changelog::JOB;

/// One shard's part of a worker's store: entries, chunks of runs, and the head of the last block included.
#[derive(Clone, Debug)]
pub struct LocalStore {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    chunks: Arc<StoredChunks>,
    /// Index entries of the parts that stand for rows in memory.
    image: Vec<Vec<u8>>,
    pub head: Block,
}

/// Chunks by name.
#[derive(Debug, Default)]
pub struct StoredChunks(Mutex<BTreeMap<ChunkId, Arc<[u8]>>>);

impl StoredChunks {
    fn all(&self) -> MutexGuard<'_, BTreeMap<ChunkId, Arc<[u8]>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Chunks for StoredChunks {
    fn read(&self, id: ChunkId) -> Result<Arc<[u8]>, String> {
        self.all().get(&id).map(Arc::clone).ok_or_else(|| "it is not there".to_owned())
    }
}

/// What a restore found.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing of use in the store.
    LogAlone,
    /// The store lay on the chain.
    Store,
    /// The store is ahead of the log: committed data was lost.
    Ahead,
}

impl LocalStore {
    /// A store that holds a state as of the block `last`, the rows in memory as parts.
    fn whole(state: &mut ShardState, last: &Block) -> Self {
        let chunks = Arc::new(StoredChunks::default());
        let mut store = Self { entries: BTreeMap::new(), chunks, image: Vec::new(), head: head_of(last) };
        store.take(&state.small_entries().entries);
        let parts: Vec<_> = state.runs().parts().cloned().collect();
        for part in parts {
            let stored = store.put(&part);
            state.stored(&stored);
        }
        for part in state.image() {
            store.put(&part);
            store.image.push(index_key(&part));
        }
        state.set_store(store.chunks.clone());
        store
    }

    /// Takes in the next block of the chain; gives the chunks that it has now.
    pub fn apply(&mut self, job: &JobSpec, block: &Block, spilled: Option<&Spilled>) -> Vec<ChunkId> {
        let mut stored = Vec::new();
        match spilled {
            None => self.take(&block.entries),
            Some(spilled) => {
                all_rows().iter().for_each(|range| self.purge(range));
                for key in std::mem::take(&mut self.image) {
                    self.entries.remove(&key);
                }
                self.take(&spilled.small.entries);
                stored = spilled.parts.iter().flat_map(|part| self.put(part)).collect();
            }
        }
        if let Some(purged) = block.scalars.purged {
            purged_ranges(&job.operator, purged).iter().for_each(|range| self.purge(range));
            let bound = purged_chunks(&job.operator, purged);
            self.chunks.all().retain(|id, _| id.to_bytes().as_slice() >= bound.as_slice());
        }
        self.head = head_of(block);
        stored
    }

    /// Takes the output of a compaction for its inputs.
    pub fn compact(&mut self, compaction: Compaction) -> Compacted {
        let chunks = Arc::clone(&self.chunks);
        let store = |id, bytes| -> Result<(), Unreadable> {
            chunks.all().insert(id, bytes);
            Ok(())
        };
        let done = compaction.run(store).expect("a chunk reads");
        for input in &done.inputs {
            self.entries.remove(&index_key(input));
            input.ids().for_each(|id| drop(chunks.all().remove(&id)));
        }
        self.put(&done.output);
        done
    }

    fn put(&mut self, part: &Part) -> Vec<ChunkId> {
        self.entries.insert(index_key(part), part.to_index());
        part.held().map(|(id, bytes)| (self.chunks.all().insert(id, bytes), id).1).collect()
    }

    fn take(&mut self, entries: &Entries) {
        for change in entries.iter() {
            match change.expect("a committed entry reads") {
                Change::Upsert(key, _) if EntryKey::decode(key).is_some_and(|key| key.is_base()) => {}
                Change::Upsert(key, value) => {
                    self.entries.insert(key.to_vec(), value.to_vec());
                }
                Change::Delete(key) => {
                    self.entries.remove(key);
                }
            }
        }
    }

    fn purge(&mut self, (from, to): &(Vec<u8>, Vec<u8>)) {
        self.entries.retain(|key, _| !(from <= key && key < to));
    }

    /// Makes it the store of another chain, with other contents; `ahead` of anything the log has come to.
    pub fn damage(&mut self, incarnation: u64, ahead: bool) {
        self.head.incarnation = incarnation;
        self.head.sequence += if ahead { 1_000 } else { 0 };
        self.entries.pop_last();
    }

    /// Loses a chunk, as a loss of power may: the rest is as it was.
    pub fn lose_chunk(&mut self) {
        self.chunks.all().pop_last();
    }

    fn state(&self, job: &JobSpec) -> Result<ShardState, Unreadable> {
        let mut state = ShardState::empty(job);
        state.set_job(JOB);
        state.set_store(self.chunks.clone());
        for (key, value) in &self.entries {
            state.restore_entry(Change::Upsert(key, value)).expect("a stored entry reads");
        }
        state.restore_scalars(&self.head);
        state.load_image()?;
        Ok(state)
    }
}

fn head_of(block: &Block) -> Block {
    Block { entries: Entries::default(), ..block.clone() }
}

fn index_key(part: &Part) -> Vec<u8> {
    let mut key = Vec::new();
    EntryKey::Index(part.slice, part.file).encode(&mut key);
    key
}

/// The state at the end of the log, and whether the store helped; the store is brought to the end of the log.
pub fn restore(
    job: &JobSpec,
    store: &mut Option<LocalStore>,
    log: &[(Offset, Block)],
    believes: bool,
) -> (ShardState, Found) {
    let last = log.last().map_or(0, |(_, block)| block.sequence);
    let head = store.as_ref().map(|store| (store.head.sequence, store.head.incarnation));
    let place = head.and_then(|(sequence, incarnation)| {
        let same =
            |block: &Block| block.sequence == sequence && (believes || block.incarnation == incarnation);
        log.iter().position(|(_, block)| same(block))
    });
    if let (Some(store), Some(at)) = (store.as_mut(), place)
        && let Ok(mut state) = store.state(job)
    {
        for (_, block) in &log[at + 1..] {
            let run = state.run();
            fold(&mut state, block);
            let spilled = (state.run() > run).then(|| {
                let parts = state.runs().parts().filter(|part| part.run == run).cloned().collect();
                Spilled { parts, small: state.small_entries() }
            });
            let stored = store.apply(job, block, spilled.as_ref());
            state.stored(&stored);
        }
        return (state, Found::Store);
    }
    let mut state = ShardState::empty(job);
    log.iter().for_each(|(_, block)| fold(&mut state, block));
    *store = log.last().map(|(_, block)| LocalStore::whole(&mut state, block));
    let ahead = place.is_none() && head.is_some_and(|(sequence, _)| sequence > last);
    (state, if ahead { Found::Ahead } else { Found::LogAlone })
}

fn fold(state: &mut ShardState, block: &Block) {
    if let Err(error) = state.fold(block) {
        crate::violation::violated("restore: the log folds", error.to_string());
    }
}
