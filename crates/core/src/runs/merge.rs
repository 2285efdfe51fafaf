//! Rows of slices in memory and of parts, merged by key: streaming, a chunk of each part in memory at a time.

use std::{ops::Range, sync::Arc};

use super::{CHECKSUM, Part, Runs, Unreadable, take_row};
use crate::{
    aggregate::{Layout, RowBuf},
    slices::Slices,
};

/// A merge under way. It holds no borrow: as long as no row is added to a slice in memory and no slice comes or goes, it goes on
/// where it was.
#[derive(Debug, Default)]
pub(crate) struct Merge {
    sources: Vec<Source>,
    /// Sources that have a row, as a binary heap by key: the smallest first.
    heap: Vec<usize>,
}

/// The row that a merge is at.
#[derive(Debug, Default)]
pub(crate) struct MergedRow {
    pub(crate) key: Vec<u8>,
    pub(crate) row: RowBuf,
    scratch: RowBuf,
}

#[derive(Debug)]
enum Source {
    /// Rows of the slice at this place in memory, by key.
    Memory {
        at: usize,
        rows: Vec<u32>,
        next: usize,
    },
    Part(PartCursor),
}

#[derive(Debug)]
pub(super) struct PartCursor {
    part: Arc<Part>,
    chunk: usize,
    bytes: Arc<[u8]>,
    /// Where the rest of the chunk begins.
    rest: usize,
    key: Range<usize>,
    value: Range<usize>,
}

impl MergedRow {
    pub(crate) fn new(layout: &Layout) -> Self {
        Self { key: Vec::new(), row: RowBuf::new(layout), scratch: RowBuf::new(layout) }
    }
}

impl Merge {
    /// Adds the rows behind `after` of the slice at place `at` in memory.
    pub(crate) fn add_memory(&mut self, at: usize, after: Option<&[u8]>, memory: &Slices) {
        let Some(slice) = memory.at(at) else { return };
        let rows = slice.sorted_rows();
        let next = after.map_or(0, |after| rows.partition_point(|row| slice.key(*row as usize) <= after));
        self.sources.push(Source::Memory { at, rows, next });
        self.heap.clear();
    }

    /// Adds the rows of `part` behind `after`.
    pub(crate) fn add_part(
        &mut self,
        part: Arc<Part>,
        after: Option<&[u8]>,
        runs: &Runs,
    ) -> Result<(), Unreadable> {
        if let Some(cursor) = PartCursor::open(part, after, runs)? {
            self.sources.push(Source::Part(cursor));
        }
        Ok(())
    }

    /// The next row, merged; false at the end.
    pub(crate) fn next(
        &mut self,
        memory: &Slices,
        runs: &Runs,
        layout: &Layout,
        row: &mut MergedRow,
    ) -> Result<bool, Unreadable> {
        if self.heap.is_empty() {
            self.build(memory);
        }
        let Some(first) = self.smallest(memory) else { return Ok(false) };
        row.key.clear();
        row.key.extend_from_slice(first);
        row.row.clear();
        while self.smallest(memory).is_some_and(|key| key == row.key) {
            let Some(source) = self.heap.first().and_then(|at| self.sources.get_mut(*at)) else { break };
            source.merge_into(memory, layout, row)?;
            if !source.advance(runs)? {
                self.heap.swap_remove(0);
            }
            self.sift_down(0, memory);
        }
        Ok(true)
    }

    /// Whether there is a row behind the one that was given last.
    pub(crate) const fn has_more(&self) -> bool {
        !self.heap.is_empty()
    }

    fn smallest<'a>(&'a self, memory: &'a Slices) -> Option<&'a [u8]> {
        self.sources.get(*self.heap.first()?)?.key(memory)
    }

    fn build(&mut self, memory: &Slices) {
        self.sources.retain(|source| source.key(memory).is_some());
        self.heap = (0..self.sources.len()).collect();
        for at in (0..self.heap.len() / 2).rev() {
            self.sift_down(at, memory);
        }
    }

    fn sift_down(&mut self, mut at: usize, memory: &Slices) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut smallest = at;
            for child in [left, right] {
                if child < self.heap.len() && self.key_at(child, memory) < self.key_at(smallest, memory) {
                    smallest = child;
                }
            }
            if smallest == at {
                return;
            }
            self.heap.swap(at, smallest);
            at = smallest;
        }
    }

    fn key_at<'a>(&'a self, at: usize, memory: &'a Slices) -> Option<&'a [u8]> {
        self.heap.get(at).and_then(|source| self.sources.get(*source)).and_then(|source| source.key(memory))
    }
}

impl Source {
    fn key<'a>(&'a self, memory: &'a Slices) -> Option<&'a [u8]> {
        match self {
            Self::Memory { at, rows, next } => {
                let row = rows.get(*next)?;
                memory.at(*at).map(|slice| slice.key(*row as usize))
            }
            Self::Part(cursor) => cursor.bytes.get(cursor.key.clone()),
        }
    }

    fn merge_into(&self, memory: &Slices, layout: &Layout, row: &mut MergedRow) -> Result<(), Unreadable> {
        match self {
            Self::Memory { at, rows, next } => {
                if let (Some(slice), Some(from)) = (memory.at(*at), rows.get(*next)) {
                    layout.merge(&mut row.row.row_mut(), slice.row(layout, *from as usize));
                }
            }
            Self::Part(cursor) => {
                let value = cursor.bytes.get(cursor.value.clone()).unwrap_or_default();
                let read = layout.decode(value, &mut row.scratch.row_mut());
                read.ok_or_else(|| cursor.part.damaged(cursor.chunk))?;
                layout.merge(&mut row.row.row_mut(), row.scratch.row());
            }
        }
        Ok(())
    }

    /// Goes on to the next row; false when there is none.
    fn advance(&mut self, runs: &Runs) -> Result<bool, Unreadable> {
        match self {
            Self::Memory { rows, next, .. } => {
                *next += 1;
                Ok(*next < rows.len())
            }
            Self::Part(cursor) => cursor.advance(runs),
        }
    }
}

impl PartCursor {
    /// A cursor at the first row behind `after`; `None` when there is none.
    pub(super) fn open(
        part: Arc<Part>,
        after: Option<&[u8]>,
        runs: &Runs,
    ) -> Result<Option<Self>, Unreadable> {
        let chunk = after.and_then(|after| part.chunk_of(after)).unwrap_or(0);
        if part.chunks.is_empty() {
            return Ok(None);
        }
        let bytes = runs.read(&part, chunk)?;
        let mut cursor = Self { part, chunk, bytes, rest: CHECKSUM, key: 0..0, value: 0..0 };
        loop {
            if !cursor.advance(runs)? {
                return Ok(None);
            }
            if cursor.bytes.get(cursor.key.clone()) > after {
                return Ok(Some(cursor));
            }
        }
    }

    /// The larger, the newer.
    pub(super) fn age(&self) -> (u64, u64) {
        (self.part.run, self.part.file)
    }

    pub(super) fn key(&self) -> &[u8] {
        self.bytes.get(self.key.clone()).unwrap_or_default()
    }

    pub(super) fn value(&self) -> &[u8] {
        self.bytes.get(self.value.clone()).unwrap_or_default()
    }

    pub(super) fn advance(&mut self, runs: &Runs) -> Result<bool, Unreadable> {
        if self.rest >= self.bytes.len() {
            if self.chunk + 1 >= self.part.chunks.len() {
                (self.key, self.value) = (usize::MAX..usize::MAX, 0..0);
                return Ok(false);
            }
            self.chunk += 1;
            self.bytes = runs.read(&self.part, self.chunk)?;
            self.rest = CHECKSUM;
        }
        let mut rest = self.bytes.get(self.rest..).unwrap_or_default();
        let (key, value) = take_row(&mut rest).ok_or_else(|| self.part.damaged(self.chunk))?;
        let end = self.bytes.len() - rest.len();
        self.value = end - value.len()..end;
        // Between key and value stands the value's length.
        let key_end = self.rest + varint_bytes(key.len()) + key.len();
        self.key = key_end - key.len()..key_end;
        self.rest = end;
        Ok(true)
    }
}

const fn varint_bytes(length: usize) -> usize {
    let bits = usize::BITS - length.leading_zeros();
    if bits == 0 { 1 } else { bits.div_ceil(7) as usize }
}
