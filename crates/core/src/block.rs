//! Delta blocks: what one commit of a shard writes to its changelog partition.
//!
//! A block is the difference that a commit makes to the shard's state. Folding the committed blocks of a log, in order, from one
//! that *begins* the log gives the state at its end (design §3.4). Entries are applied as upserts and deletes in their order,
//! then everything purged by X is gone.
//!
//! A block is cut into chunks below the broker's message limit. A chunk:
//!
//! ```text
//! "TG" version │ incarnation 8 │ sequence 8 │ index 4 │ count 4 │ xxh3 of all else 8 │ part of the body …
//! ```
//! Frozen by `tests/golden`.

use thiserror::Error;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use crate::{
    aggregate::{put_varint, take_varint},
    announcement::{AssignmentId, Term},
    entry::{put_watermark, take_u64, take_watermark},
    time::{EventTime, Watermark},
};

const MAGIC: [u8; 2] = *b"TG";
/// Written; 1 is read too: it knew no runs.
const VERSION: u8 = 2;
const VERSION_WITHOUT_RUNS: u8 = 1;
const CHECKSUM_AT: usize = 27;
const HEADER: usize = 35;
const UPSERT: u8 = 1;
const DELETE: u8 = 2;

/// The identity of a job, drawn when its job record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JobId(pub [u8; 16]);

/// One commit's difference to a shard's state.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Block {
    /// Drawn by the owner when it took the shard; 0 for the genesis block.
    pub incarnation: u64,
    /// One more than the block before, whoever wrote it.
    pub sequence: u64,
    /// The assignment under which the owner wrote.
    pub assignment: AssignmentId,
    /// Set where a log may begin: everything that is not an entry is in each block, and all entries follow from here on.
    pub begins: Option<JobId>,
    /// Set where a log may begin while the shard has runs: their rows follow as [`Base`](crate::entry::EntryKey::Base) entries,
    /// this block's own rows among them.
    pub base: bool,
    /// What is not an entry, as of this commit.
    pub scalars: Scalars,
    /// Upserts and deletes.
    pub entries: Entries,
}

/// The part of a shard's state that is written whole with each commit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scalars {
    /// W_s.
    pub watermark: Watermark,
    /// X: windows that ended at or before it are gone.
    pub purged: Option<EventTime>,
    /// Set while windows ≤ W_s are still being emitted.
    pub closing: Option<Closing>,
    /// Bytes of changelog since the block at which the log begins.
    pub log_bytes: u64,
    /// Number of the run that the rows in memory are to become. One that is higher than in the block before says that, after
    /// this block's entries, the rows so far are a run ([`crate::runs`]).
    pub run: u64,
}

/// How far a closing that spans several commits has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Closing {
    /// Windows that end at or before this are out; `None`: none is.
    pub done: Option<EventTime>,
    /// Of the next window, group keys up to this one are out.
    pub key: Option<Vec<u8>>,
}

/// Upserts and deletes in their written form.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries(Vec<u8>);

/// One entry of a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// The key has this value now.
    Upsert(&'a [u8], &'a [u8]),
    /// The key is gone.
    Delete(&'a [u8]),
}

/// Why bytes from a changelog are not a block. None of these is ever passed over.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum BlockError {
    /// Not a chunk at all, or of another format version.
    #[error(
        "not a changelog chunk of format {VERSION}: it was written by another program or a newer tidegate"
    )]
    Foreign,
    /// The checksum of a chunk does not fit.
    #[error("the checksum of a changelog chunk does not fit: the log is damaged")]
    Checksum,
    /// A chunk is missing or out of order.
    #[error("changelog chunk {found} where {expected} was due: a part of a commit is missing")]
    Chunk {
        /// The index that was due.
        expected: u32,
        /// The index that came.
        found: u32,
    },
    /// The body does not read.
    #[error("the body of a changelog block does not read: {0}")]
    Body(&'static str),
}

impl Entries {
    /// Adds an upsert.
    pub fn upsert(&mut self, key: &[u8], value: &[u8]) {
        self.0.push(UPSERT);
        put_bytes(&mut self.0, key);
        put_bytes(&mut self.0, value);
    }

    /// Adds a delete.
    pub fn delete(&mut self, key: &[u8]) {
        self.0.push(DELETE);
        put_bytes(&mut self.0, key);
    }

    /// Size in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries in order; one error, then nothing more, when the bytes do not read.
    pub fn iter(&self) -> impl Iterator<Item = Result<Change<'_>, BlockError>> {
        let mut rest = self.0.as_slice();
        std::iter::from_fn(move || {
            if rest.is_empty() {
                return None;
            }
            let change = take_change(&mut rest);
            if change.is_none() {
                rest = &[];
            }
            Some(change.ok_or(BlockError::Body("an entry is cut off")))
        })
    }
}

fn take_change<'a>(bytes: &mut &'a [u8]) -> Option<Change<'a>> {
    let (kind, rest) = bytes.split_first()?;
    *bytes = rest;
    match *kind {
        UPSERT => Some(Change::Upsert(take_bytes(bytes)?, take_bytes(bytes)?)),
        DELETE => Some(Change::Delete(take_bytes(bytes)?)),
        _ => None,
    }
}

impl Block {
    /// The block as chunks, each at most `limit` bytes.
    #[must_use]
    pub fn chunks(&self, limit: usize) -> Vec<Vec<u8>> {
        let body = self.body();
        let part_size = limit.saturating_sub(HEADER).max(1);
        let parts: Vec<&[u8]> = body.chunks(part_size).collect();
        let count = u32::try_from(parts.len()).unwrap_or(u32::MAX);
        parts
            .into_iter()
            .zip(0u32..)
            .map(|(part, index)| {
                let mut chunk = Vec::with_capacity(HEADER + part.len());
                chunk.extend_from_slice(&MAGIC);
                chunk.push(VERSION);
                chunk.extend_from_slice(&self.incarnation.to_be_bytes());
                chunk.extend_from_slice(&self.sequence.to_be_bytes());
                chunk.extend_from_slice(&index.to_be_bytes());
                chunk.extend_from_slice(&count.to_be_bytes());
                chunk.extend_from_slice(&checksum(&chunk, part).to_be_bytes());
                chunk.extend_from_slice(part);
                chunk
            })
            .collect()
    }

    fn body(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(self.entries.len() + 96);
        put_varint(&mut out, u128::from(self.assignment.term.0));
        put_varint(&mut out, u128::from(self.assignment.number));
        match self.begins {
            None => out.push(0),
            Some(job) => {
                out.push(if self.base { 2 } else { 1 });
                out.extend_from_slice(&job.0);
            }
        }
        put_watermark(&mut out, self.scalars.watermark);
        put_watermark(&mut out, self.scalars.purged);
        match &self.scalars.closing {
            None => out.push(0),
            Some(closing) => {
                out.push(if closing.key.is_some() { 2 } else { 1 });
                put_watermark(&mut out, closing.done);
                if let Some(key) = &closing.key {
                    put_bytes(&mut out, key);
                }
            }
        }
        put_varint(&mut out, u128::from(self.scalars.log_bytes));
        put_varint(&mut out, u128::from(self.scalars.run));
        out.extend_from_slice(&self.entries.0);
        out
    }

    fn from_body(
        version: u8,
        (incarnation, sequence): (u64, u64),
        mut bytes: &[u8],
    ) -> Result<Self, BlockError> {
        let head = take_head(version, &mut bytes).ok_or(BlockError::Body("its head is cut off"))?;
        Ok(Self { incarnation, sequence, entries: Entries(bytes.to_vec()), ..head })
    }
}

fn take_head(version: u8, bytes: &mut &[u8]) -> Option<Block> {
    let assignment = AssignmentId { term: Term(take_u64(bytes)?), number: take_u64(bytes)? };
    let (begins, base) = match take_byte(bytes)? {
        0 => (None, false),
        kind @ (1 | 2) => {
            let (job, rest) = bytes.split_first_chunk::<16>()?;
            *bytes = rest;
            (Some(JobId(*job)), kind == 2)
        }
        _ => return None,
    };
    let watermark = take_watermark(bytes)?;
    let purged = take_watermark(bytes)?;
    let closing = match take_byte(bytes)? {
        0 => None,
        1 => Some(Closing { done: take_watermark(bytes)?, key: None }),
        2 => Some(Closing { done: take_watermark(bytes)?, key: Some(take_bytes(bytes)?.to_vec()) }),
        _ => return None,
    };
    let log_bytes = take_u64(bytes)?;
    let run = if version == VERSION_WITHOUT_RUNS { 0 } else { take_u64(bytes)? };
    let scalars = Scalars { watermark, purged, closing, log_bytes, run };
    Some(Block { assignment, begins, base, scalars, ..Block::default() })
}

fn take_byte(bytes: &mut &[u8]) -> Option<u8> {
    let (byte, rest) = bytes.split_first()?;
    *bytes = rest;
    Some(*byte)
}

pub(crate) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u128);
    out.extend_from_slice(bytes);
}

pub(crate) fn take_bytes<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(bytes)?).ok()?;
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// Puts blocks together from the chunks of a log.
#[derive(Debug, Default)]
pub struct Assembler {
    parts: Vec<u8>,
    expected: u32,
    of: (u64, u64),
}

impl Assembler {
    /// Takes the next committed chunk of the log; gives the block that it completes.
    ///
    /// # Errors
    /// [`BlockError`] when the bytes are not the chunk that is due.
    pub fn push(&mut self, chunk: &[u8]) -> Result<Option<Block>, BlockError> {
        let header = read_header(chunk).ok_or(BlockError::Foreign)?;
        let part = chunk.get(HEADER..).unwrap_or_default();
        if checksum(chunk.get(..CHECKSUM_AT).unwrap_or_default(), part) != header.checksum {
            return Err(BlockError::Checksum);
        }
        let same = self.expected == 0 || self.of == (header.incarnation, header.sequence);
        if header.index != self.expected || !same {
            return Err(BlockError::Chunk { expected: self.expected, found: header.index });
        }
        self.of = (header.incarnation, header.sequence);
        self.parts.extend_from_slice(part);
        self.expected += 1;
        if self.expected < header.count {
            return Ok(None);
        }
        self.expected = 0;
        let body = std::mem::take(&mut self.parts);
        Block::from_body(header.version, (header.incarnation, header.sequence), &body).map(Some)
    }
}

fn checksum(header: &[u8], part: &[u8]) -> u64 {
    xxh3_64_with_seed(part, xxh3_64(header))
}

struct Header {
    version: u8,
    incarnation: u64,
    sequence: u64,
    index: u32,
    count: u32,
    checksum: u64,
}

fn read_header(bytes: &[u8]) -> Option<Header> {
    let (version, rest) = bytes.strip_prefix(&MAGIC)?.split_first()?;
    if ![VERSION_WITHOUT_RUNS, VERSION].contains(version) {
        return None;
    }
    let (incarnation, rest) = rest.split_first_chunk::<8>()?;
    let (sequence, rest) = rest.split_first_chunk::<8>()?;
    let (index, rest) = rest.split_first_chunk::<4>()?;
    let (count, rest) = rest.split_first_chunk::<4>()?;
    let (checksum, _) = rest.split_first_chunk::<8>()?;
    Some(Header {
        version: *version,
        incarnation: u64::from_be_bytes(*incarnation),
        sequence: u64::from_be_bytes(*sequence),
        index: u32::from_be_bytes(*index),
        count: u32::from_be_bytes(*count),
        checksum: u64::from_be_bytes(*checksum),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn block(entries: usize) -> Block {
        let mut block = Block {
            incarnation: 0xfeed,
            sequence: 9,
            assignment: AssignmentId { term: Term(3), number: 4 },
            begins: Some(JobId([7; 16])),
            scalars: Scalars {
                watermark: Some(EventTime(-5)),
                purged: None,
                closing: Some(Closing { done: Some(EventTime(10)), key: Some(b"k".to_vec()) }),
                log_bytes: 1_000,
                run: 3,
            },
            base: true,
            entries: Entries::default(),
        };
        for entry in 0..entries {
            block.entries.upsert(format!("key-{entry}").as_bytes(), &[1, 2, 3]);
            block.entries.delete(b"gone");
        }
        block
    }

    #[test]
    fn a_block_in_many_chunks_reads_back() {
        let block = block(500);
        let chunks = block.chunks(200);
        assert!(chunks.len() > 10 && chunks.iter().all(|chunk| chunk.len() <= 200));
        let mut assembler = Assembler::default();
        let mut read = None;
        for chunk in &chunks {
            assert_eq!(read, None, "complete only with the last chunk");
            read = assembler.push(chunk).unwrap();
        }
        assert_eq!(read.as_ref(), Some(&block));
        assert_eq!(read.unwrap().entries.iter().filter(|entry| entry.is_ok()).count(), 1_000);
    }

    #[test]
    fn a_missing_chunk_is_an_error() {
        let chunks = block(500).chunks(200);
        let mut assembler = Assembler::default();
        assembler.push(&chunks[0]).unwrap();
        assert_eq!(assembler.push(&chunks[2]), Err(BlockError::Chunk { expected: 1, found: 2 }));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_never_reads_as_another_block(byte in 0usize..400, bit in 0u8..8) {
            let original = block(20);
            let mut chunks = original.chunks(100_000);
            let at = byte % chunks[0].len();
            chunks[0][at] ^= 1 << bit;
            prop_assert!(Assembler::default().push(&chunks[0]).is_err());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Assembler::default().push(&bytes);
            for version in [VERSION_WITHOUT_RUNS, VERSION] {
                let _ = Block::from_body(version, (1, 1), &bytes).map(|block| block.entries.iter().count());
            }
        }
    }
}
