//! The open slices of a shard: for each slice of event time, a row of accumulators for each group key seen in it.
//!
//! A slice keeps its keys in one byte run and its rows in one run of words (and one of summaries, where the job has some), with a hash table of row numbers beside them: no
//! allocation per key. Rows leave only with their whole slice (I7; ≤ 150 bytes a row at 1 M rows, see
//! `cargo run --release -p tidegate-core --example slices_memory`).
#![allow(clippy::indexing_slicing, reason = "row numbers come from the slice that holds the rows")]

use std::collections::VecDeque;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    aggregate::{Layout, Row, RowMut, RowRun},
    time::EventTime,
};

/// Slices in order of their start.
#[derive(Clone, Debug, Default)]
pub struct Slices {
    open: VecDeque<Slice>,
    hot: usize,
}

/// The rows of one slice.
#[derive(Clone, Debug)]
pub struct Slice {
    /// Start of the slice.
    pub start: EventTime,
    table: HashTable<u32>,
    keys: Vec<u8>,
    key_ends: Vec<usize>,
    rows: RowRun,
    dirty: Vec<u32>,
    is_dirty: Vec<bool>,
}

impl Slices {
    /// The slice that starts at `start`, made if there is none.
    #[inline]
    pub fn slice_mut(&mut self, start: EventTime) -> &mut Slice {
        if self.open.get(self.hot).is_none_or(|slice| slice.start != start) {
            self.hot = match self.open.binary_search_by_key(&start, |slice| slice.start) {
                Ok(at) => at,
                Err(at) => {
                    self.open.insert(at, Slice::new(start));
                    at
                }
            };
        }
        &mut self.open[self.hot]
    }

    /// The slices whose start lies in `[from, to)`, ascending.
    pub fn range(&self, from: EventTime, to: EventTime) -> impl Iterator<Item = &Slice> {
        let first = self.open.partition_point(|slice| slice.start < from);
        self.open.range(first..).take_while(move |slice| slice.start < to)
    }

    /// The slice at a place in the order of starts.
    #[must_use]
    pub fn at(&self, place: usize) -> Option<&Slice> {
        self.open.get(place)
    }

    /// The places of the slices whose start lies in `[from, to)`.
    #[must_use]
    pub fn places(&self, from: EventTime, to: EventTime) -> std::ops::Range<usize> {
        let place = |time: EventTime| self.open.partition_point(|slice| slice.start < time);
        place(from)..place(to)
    }

    /// All slices, ascending.
    pub fn iter(&self) -> impl Iterator<Item = &Slice> {
        self.open.iter()
    }

    /// All slices, ascending.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slice> {
        self.open.iter_mut()
    }

    /// The first slice that starts at or after `from`.
    #[must_use]
    pub fn first_from(&self, from: EventTime) -> Option<&Slice> {
        self.open.get(self.open.partition_point(|slice| slice.start < from))
    }

    /// Drops the slices that start before `live`.
    pub fn drop_before(&mut self, live: EventTime) {
        while self.open.front().is_some_and(|slice| slice.start < live) {
            self.open.pop_front();
        }
        self.hot = usize::MAX;
    }

    /// Number of rows in all slices.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.open.iter().map(Slice::len).sum()
    }

    /// Bytes of memory in use, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.open.iter().map(Slice::bytes).sum()
    }
}

impl Slice {
    fn new(start: EventTime) -> Self {
        Self {
            start,
            table: HashTable::new(),
            keys: Vec::new(),
            key_ends: Vec::new(),
            rows: RowRun::default(),
            dirty: Vec::new(),
            is_dirty: Vec::new(),
        }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.key_ends.len()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.key_ends.is_empty()
    }

    /// The group key of a row.
    #[must_use]
    #[inline]
    pub fn key(&self, row: usize) -> &[u8] {
        key_at(&self.keys, &self.key_ends, row)
    }

    /// A row.
    #[must_use]
    #[inline]
    pub fn row(&self, layout: &Layout, row: usize) -> Row<'_> {
        self.rows.row(layout, row)
    }

    /// The row of `key`, if it has one.
    #[must_use]
    pub fn find(&self, key: &[u8]) -> Option<usize> {
        self.table.find(xxh3_64(key), |row| self.key(*row as usize) == key).map(|row| *row as usize)
    }

    /// The row of `key` for writing, marked dirty; the second value says whether it was clean before.
    #[inline]
    pub fn row_mut(&mut self, layout: &Layout, key: &[u8]) -> (RowMut<'_>, bool) {
        let row = self.find_or_insert(layout, key);
        let newly_dirty = !self.is_dirty[row];
        if newly_dirty {
            self.is_dirty[row] = true;
            self.dirty.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
        (self.rows.row_mut(layout, row), newly_dirty)
    }

    /// The row of `key` for writing what has been committed already.
    pub fn restored_row_mut(&mut self, layout: &Layout, key: &[u8]) -> RowMut<'_> {
        let row = self.find_or_insert(layout, key);
        self.rows.row_mut(layout, row)
    }

    #[inline]
    fn find_or_insert(&mut self, layout: &Layout, key: &[u8]) -> usize {
        let hash = xxh3_64(key);
        let Self { table, keys, key_ends, .. } = self;
        if let Some(row) = table.find(hash, |row| key_at(keys, key_ends, *row as usize) == key) {
            return *row as usize;
        }
        let row = key_ends.len();
        keys.extend_from_slice(key);
        key_ends.push(keys.len());
        table.insert_unique(hash, u32::try_from(row).unwrap_or(u32::MAX), |row| {
            xxh3_64(key_at(keys, key_ends, *row as usize))
        });
        self.rows.push(layout);
        self.is_dirty.push(false);
        row
    }

    /// Keys of the rows written since they were last taken.
    pub fn dirty(&self) -> impl Iterator<Item = &[u8]> {
        self.dirty.iter().map(|row| self.key(*row as usize))
    }

    /// Takes the list of rows written since it was last taken.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let dirty = std::mem::take(&mut self.dirty);
        for row in &dirty {
            self.is_dirty[*row as usize] = false;
        }
        dirty
    }

    /// Row numbers in order of their keys.
    #[must_use]
    pub fn sorted_rows(&self) -> Vec<u32> {
        let mut rows: Vec<u32> = (0..self.len()).map(|row| u32::try_from(row).unwrap_or(u32::MAX)).collect();
        rows.sort_unstable_by(|a, b| self.key(*a as usize).cmp(self.key(*b as usize)));
        rows
    }

    /// Bytes of all keys.
    #[must_use]
    pub fn key_bytes(&self) -> usize {
        self.keys.len()
    }

    /// Bytes that the summaries of its rows take beside them.
    #[must_use]
    pub const fn summary_bytes(&self) -> usize {
        self.rows.heap_bytes()
    }

    fn bytes(&self) -> usize {
        self.keys.capacity()
            + self.key_ends.capacity() * 8
            + self.rows.bytes()
            + self.dirty.capacity() * 4
            + self.is_dirty.capacity()
            + self.table.allocation_size()
    }
}

#[inline]
fn key_at<'a>(keys: &'a [u8], key_ends: &[usize], row: usize) -> &'a [u8] {
    let start = if row == 0 { 0 } else { key_ends[row - 1] };
    &keys[start..key_ends[row]]
}
