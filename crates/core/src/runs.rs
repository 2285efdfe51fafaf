//! Runs: rows of a shard that have left memory for the local store, sorted and in chunks.
//!
//! ```text
//! rows in memory ── full ──► a run: per slice one part ──► chunks of about 4 KiB, by key ──► the local store
//!        ▲                                                                                        │
//!   the next record of a key begins a new row        window, snapshot: merge by key ◄── read ─────┘
//! ```
//! A run is immutable, and holds *partial* aggregates: the row of a key is what memory and all parts of its slice merge to. So no
//! record ever waits for a read. Parts of a slice that have become many are compacted to one ([`Compaction`]). Memory keeps of each
//! chunk its first key; and its bytes until the store has them.

mod compaction;
mod looks;
mod merge;
mod walk;

use std::{collections::BTreeMap, fmt::Debug, sync::Arc};

use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

pub use compaction::{Compacted, Compaction};
pub(crate) use looks::Looks;
pub(crate) use merge::{Merge, MergedRow};
pub(crate) use walk::Walk;

use crate::{
    aggregate::{Layout, RowBuf, RowMut, put_varint},
    block::{put_bytes, take_bytes},
    entry::{ordered, take_u64},
    slices::Slice,
    time::EventTime,
};

/// Bytes of a chunk, about. With values of this size sled keeps to the memory it is given; with 15 KiB or more it does not.
pub const CHUNK_BYTES: usize = 4_000;
const CHECKSUM: usize = 8;

/// Names a chunk within a shard's store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ChunkId {
    /// Start of the slice.
    pub slice: EventTime,
    /// Number of the part, unique in the shard's store.
    pub file: u64,
    /// Number of the chunk within the part.
    pub index: u32,
}

impl ChunkId {
    /// The bytes under which a store keeps the chunk; their order is that of slices. Frozen by `tests/golden`.
    #[must_use]
    pub fn to_bytes(self) -> [u8; 20] {
        let mut bytes = [0; 20];
        let (slice, rest) = bytes.split_at_mut(8);
        let (file, index) = rest.split_at_mut(8);
        slice.copy_from_slice(&ordered(self.slice));
        file.copy_from_slice(&self.file.to_be_bytes());
        index.copy_from_slice(&self.index.to_be_bytes());
        bytes
    }
}

/// Where chunks are read that are no longer in memory: the local store, or memory in a simulation.
pub trait Chunks: Debug + Send + Sync {
    /// The bytes of a chunk.
    ///
    /// # Errors
    /// Why it is not to be had: the shard has to be restored from its log.
    fn read(&self, id: ChunkId) -> Result<Arc<[u8]>, String>;
}

/// A chunk that is not there, or damaged: what the shard holds in memory is no longer its state.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("cannot read the spilled rows of the slice at {} ms (part {}, chunk {}): {reason}", .id.slice, .id.file, .id.index)]
pub struct Unreadable {
    /// The chunk.
    pub id: ChunkId,
    /// What was wrong.
    pub reason: String,
}

/// The runs of a shard, by slice.
#[derive(Clone, Debug)]
pub struct Runs {
    slices: BTreeMap<EventTime, Vec<Arc<Part>>>,
    next_file: u64,
    chunk_bytes: usize,
    store: Option<Arc<dyn Chunks>>,
}

/// The rows of one slice in a run.
#[derive(Clone, Debug)]
pub struct Part {
    /// Start of the slice.
    pub slice: EventTime,
    /// The run, or the newest of those that were compacted.
    pub run: u64,
    /// Number of the part, unique in the shard's store.
    pub file: u64,
    rows: u64,
    bytes: u64,
    chunks: Vec<Chunk>,
}

#[derive(Clone, Debug)]
struct Chunk {
    first: Box<[u8]>,
    /// Until the store has it.
    held: Option<Arc<[u8]>>,
}

impl Default for Runs {
    fn default() -> Self {
        Self { slices: BTreeMap::new(), next_file: 1, chunk_bytes: CHUNK_BYTES, store: None }
    }
}

impl Runs {
    /// Whether there is no part.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slices.is_empty()
    }

    /// All parts, by slice and then by age.
    pub fn parts(&self) -> impl Iterator<Item = &Arc<Part>> {
        self.slices.values().flatten()
    }

    /// Rows in all parts; a key counts once in each.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.parts().map(|part| part.rows).sum()
    }

    /// Bytes of all chunks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.parts().map(|part| part.bytes).sum()
    }

    /// Bytes of memory in use, about: chunks that the store does not have yet, and the first keys of the others.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.parts().flat_map(|part| &part.chunks).map(Chunk::memory_bytes).sum()
    }

    /// Bytes of the chunks that the store does not have yet.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let chunks = self.parts().flat_map(|part| &part.chunks);
        chunks.filter_map(|chunk| chunk.held.as_ref()).map(|held| held.len()).sum()
    }

    /// Chunks that the store does not have yet.
    #[must_use]
    pub fn held(&self) -> Vec<(ChunkId, Arc<[u8]>)> {
        self.parts().flat_map(|part| part.held()).collect()
    }

    pub(crate) fn set_store(&mut self, store: Arc<dyn Chunks>) {
        self.store = Some(store);
    }

    pub(crate) const fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// Something at that event time does not read.
    pub(crate) fn damaged(&self, slice: EventTime) -> Unreadable {
        let id = ChunkId { slice, file: 0, index: 0 };
        Unreadable { id, reason: "a record does not read".to_owned() }
    }

    pub(crate) const fn set_chunk_bytes(&mut self, bytes: usize) {
        self.chunk_bytes = bytes;
    }

    /// The store has these chunks.
    pub(crate) fn stored(&mut self, ids: &[ChunkId]) {
        for id in ids {
            let parts = self.slices.get_mut(&id.slice).into_iter().flatten();
            let Some(part) = parts.into_iter().find(|part| part.file == id.file) else { continue };
            if let Some(chunk) = Arc::make_mut(part).chunks.get_mut(id.index as usize) {
                chunk.held = None;
            }
        }
    }

    /// Parts of one slice, in order of age.
    pub(crate) fn of_slice(&self, slice: EventTime) -> &[Arc<Part>] {
        self.slices.get(&slice).map_or(&[], Vec::as_slice)
    }

    /// Slices that start in `[from, to)` and have parts.
    pub(crate) fn range(
        &self,
        from: EventTime,
        to: EventTime,
    ) -> impl Iterator<Item = (EventTime, &[Arc<Part>])> {
        let slices = (from < to).then(|| self.slices.range(from..to)).into_iter().flatten();
        slices.map(|(start, parts)| (*start, parts.as_slice()))
    }

    /// Start of the first slice at or after `from` that has a part.
    pub(crate) fn first_from(&self, from: EventTime) -> Option<EventTime> {
        self.slices.range(from..).next().map(|(start, _)| *start)
    }

    pub(crate) fn drop_before(&mut self, live: EventTime) {
        while self.slices.first_key_value().is_some_and(|(start, _)| *start < live) {
            self.slices.pop_first();
        }
    }

    /// A writer of the next part.
    pub(crate) const fn writer(&mut self, slice: EventTime, run: u64) -> PartWriter {
        let file = self.next_file;
        self.next_file += 1;
        PartWriter::new(slice, run, file, self.chunk_bytes)
    }

    pub(crate) fn insert(&mut self, part: Part) {
        self.next_file = self.next_file.max(part.file + 1);
        let parts = self.slices.entry(part.slice).or_default();
        let at = parts.partition_point(|other| (other.run, other.file) < (part.run, part.file));
        parts.insert(at, Arc::new(part));
    }

    /// Adds rows behind those of the slice's part of `run`, begun if there is none: rows come by key.
    pub(crate) fn append(&mut self, slice: EventTime, run: u64, rows: &[(&[u8], &[u8])]) {
        let parts = self.slices.entry(slice).or_default();
        let known = parts.iter().position(|part| part.run == run).map(|at| parts.remove(at));
        let mut writer = self.writer(slice, run);
        if let Some(known) = known {
            writer.part = Arc::unwrap_or_clone(known);
        }
        for (key, value) in rows {
            writer.push(key, value);
        }
        self.insert(writer.finish());
    }

    /// Takes the parts of `run` and later out.
    pub(crate) fn take_from(&mut self, run: u64) -> Vec<Arc<Part>> {
        let mut taken = Vec::new();
        for parts in self.slices.values_mut() {
            taken.extend(parts.extract_if(.., |part| part.run >= run));
        }
        self.slices.retain(|_, parts| !parts.is_empty());
        taken
    }

    /// Puts the output of a compaction in the place of its inputs; false when a purge has taken these.
    pub(crate) fn replace(&mut self, inputs: &[u64], output: Part) -> bool {
        let Some(parts) = self.slices.get_mut(&output.slice) else { return false };
        let before = parts.len();
        parts.retain(|part| !inputs.contains(&part.file));
        let all_there = before - parts.len() == inputs.len();
        debug_assert!(all_there, "parts leave with their slice or by the one compaction under way");
        if output.rows > 0 {
            self.insert(output);
        } else if parts.is_empty() {
            self.slices.remove(&output.slice);
        }
        all_there
    }

    /// The bytes of a chunk, proved by their sum.
    fn read(&self, part: &Part, index: usize) -> Result<Arc<[u8]>, Unreadable> {
        let id = part.id(index);
        let unreadable = |reason: String| Unreadable { id, reason };
        if let Some(held) = part.chunks.get(index).and_then(|chunk| chunk.held.as_ref()) {
            return Ok(Arc::clone(held));
        }
        let store = self.store.as_ref().ok_or_else(|| unreadable("there is no local store".to_owned()))?;
        let bytes = store.read(id).map_err(unreadable)?;
        let sum = bytes.first_chunk::<CHECKSUM>().map(|sum| u64::from_be_bytes(*sum));
        let body = bytes.get(CHECKSUM..).unwrap_or_default();
        if sum != Some(checksum(id, body)) {
            return Err(unreadable("its checksum does not fit".to_owned()));
        }
        Ok(bytes)
    }

    /// Merges the rows that `key` has in the parts of `slice` into `row`; whether there is one.
    pub(crate) fn find(
        &self,
        slice: EventTime,
        key: &[u8],
        layout: &Layout,
        row: &mut RowMut<'_>,
    ) -> Result<bool, Unreadable> {
        let mut found = false;
        let mut read = RowBuf::new(layout);
        let mut looks = Looks::default();
        for part in self.of_slice(slice) {
            let of_part = looks.with_row(self, part, key, |value| {
                layout.decode(value, &mut read.row_mut())?;
                layout.merge(row, read.row());
                Some(())
            })?;
            found |= of_part.is_some();
        }
        Ok(found)
    }
}

impl Part {
    /// Number of rows.
    #[must_use]
    pub const fn rows(&self) -> u64 {
        self.rows
    }

    /// Bytes of its chunks.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Names of its chunks.
    pub fn ids(&self) -> impl Iterator<Item = ChunkId> + '_ {
        (0..self.chunks.len()).map(|index| self.id(index))
    }

    /// Its chunks that the store does not have yet.
    pub fn held(&self) -> impl Iterator<Item = (ChunkId, Arc<[u8]>)> + '_ {
        let chunks = self.chunks.iter().enumerate();
        chunks.filter_map(|(index, chunk)| Some((self.id(index), Arc::clone(chunk.held.as_ref()?))))
    }

    /// Lets go of the bytes of its chunks.
    pub fn forget_held(&mut self) {
        self.chunks.iter_mut().for_each(|chunk| chunk.held = None);
    }

    /// The part as a store keeps it beside its chunks: run, rows, bytes, then the first key of each chunk. Frozen by `tests/golden`.
    #[must_use]
    pub fn to_index(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for number in [self.run, self.rows, self.bytes] {
            put_varint(&mut out, u128::from(number));
        }
        for chunk in &self.chunks {
            put_bytes(&mut out, &chunk.first);
        }
        out
    }

    /// Reads [`Part::to_index`]; `None` when the bytes are not one.
    #[must_use]
    pub fn from_index(slice: EventTime, file: u64, mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let (run, rows, size) = (take_u64(bytes)?, take_u64(bytes)?, take_u64(bytes)?);
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            chunks.push(Chunk { first: take_bytes(bytes)?.into(), held: None });
        }
        Some(Self { slice, run, file, rows, bytes: size, chunks })
    }

    fn id(&self, index: usize) -> ChunkId {
        ChunkId { slice: self.slice, file: self.file, index: u32::try_from(index).unwrap_or(u32::MAX) }
    }

    /// The key of its first row.
    fn first_key(&self) -> Option<&[u8]> {
        self.chunks.first().map(|chunk| &*chunk.first)
    }

    /// The chunk that holds `key` if any does.
    fn chunk_of(&self, key: &[u8]) -> Option<usize> {
        self.chunks.partition_point(|chunk| *chunk.first <= *key).checked_sub(1)
    }

    fn damaged(&self, index: usize) -> Unreadable {
        Unreadable { id: self.id(index), reason: "a row does not read".to_owned() }
    }
}

impl Chunk {
    fn memory_bytes(&self) -> usize {
        size_of::<Self>() + self.first.len() + self.held.as_ref().map_or(0, |held| held.len())
    }
}

/// Writes a part, row by row in order of their keys.
#[derive(Debug)]
pub(crate) struct PartWriter {
    part: Part,
    chunk_bytes: usize,
    first: Option<Box<[u8]>>,
    body: Vec<u8>,
    /// Chunks before this have been released.
    released: usize,
}

impl PartWriter {
    pub(crate) const fn new(slice: EventTime, run: u64, file: u64, chunk_bytes: usize) -> Self {
        let part = Part { slice, run, file, rows: 0, bytes: 0, chunks: Vec::new() };
        Self { part, chunk_bytes, first: None, body: Vec::new(), released: 0 }
    }

    pub(crate) fn push(&mut self, key: &[u8], value: &[u8]) {
        if self.first.is_none() {
            self.first = Some(key.into());
            self.body.extend_from_slice(&[0; CHECKSUM]);
        }
        put_bytes(&mut self.body, key);
        put_bytes(&mut self.body, value);
        self.part.rows += 1;
        if self.body.len() >= self.chunk_bytes {
            self.end_chunk();
        }
    }

    /// Takes the bytes of the chunks that have become full since this was last called, for a store.
    pub(crate) fn release(&mut self) -> Vec<(ChunkId, Arc<[u8]>)> {
        let full = self.part.chunks.iter_mut().enumerate().skip(self.released);
        let held: Vec<_> = full.filter_map(|(index, chunk)| Some((index, chunk.held.take()?))).collect();
        self.released = self.part.chunks.len();
        held.into_iter().map(|(index, bytes)| (self.part.id(index), bytes)).collect()
    }

    pub(crate) fn finish(mut self) -> Part {
        self.end_chunk();
        self.part
    }

    fn end_chunk(&mut self) {
        let Some(first) = self.first.take() else { return };
        let id = self.part.id(self.part.chunks.len());
        let mut bytes = std::mem::take(&mut self.body);
        let sum = checksum(id, bytes.get(CHECKSUM..).unwrap_or_default());
        if let Some(place) = bytes.first_chunk_mut::<CHECKSUM>() {
            *place = sum.to_be_bytes();
        }
        self.part.bytes += bytes.len() as u64;
        self.part.chunks.push(Chunk { first, held: Some(bytes.into()) });
    }
}

/// Writes the rows of a slice in memory as a part.
pub(crate) fn write_slice(mut writer: PartWriter, slice: &Slice, layout: &Layout) -> Part {
    let mut value = Vec::new();
    for row in slice.sorted_rows() {
        value.clear();
        layout.encode(slice.row(layout, row as usize), &mut value);
        writer.push(slice.key(row as usize), &value);
    }
    writer.finish()
}

fn checksum(id: ChunkId, body: &[u8]) -> u64 {
    xxh3_64_with_seed(body, xxh3_64(&id.to_bytes()))
}

/// Takes the next row of a chunk's body; `None` at its end.
fn take_row<'a>(rest: &mut &'a [u8]) -> Option<(&'a [u8], &'a [u8])> {
    Some((take_bytes(rest)?, take_bytes(rest)?))
}

#[cfg(test)]
mod tests;
