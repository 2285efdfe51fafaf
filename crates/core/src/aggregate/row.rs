//! A row of accumulators: words of fixed number, and beside them the summaries that grow, in jobs that have some.

use super::{Layout, summary::Summary};
use crate::time::{EventTime, Offset, Partition};

/// When a record happened and where it is: the order in which `first`, `last` and `collect` see records, whichever way they came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct At {
    /// Its event time.
    pub time: EventTime,
    /// Its partition.
    pub partition: Partition,
    /// Its offset.
    pub offset: Offset,
}

/// A row to read.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub(super) words: &'a [u64],
    pub(super) summaries: &'a [Summary],
}

/// A row to write.
#[derive(Debug)]
pub struct RowMut<'a> {
    pub(super) words: &'a mut [u64],
    pub(super) summaries: &'a mut [Summary],
    /// Bytes that summaries take beside the rows, of all rows that share this: it follows what is written.
    pub(super) heap: &'a mut usize,
}

/// A row by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RowBuf {
    words: Vec<u64>,
    summaries: Vec<Summary>,
    heap: usize,
}

/// Rows one after another, in two runs of memory.
#[derive(Clone, Debug, Default)]
pub(crate) struct RowRun {
    words: Vec<u64>,
    summaries: Vec<Summary>,
    heap: usize,
}

impl Row<'_> {
    /// The same row by itself.
    #[must_use]
    pub fn to_owned(self) -> RowBuf {
        let heap = self.summaries.iter().map(Summary::heap_bytes).sum();
        RowBuf { words: self.words.to_vec(), summaries: self.summaries.to_vec(), heap }
    }
}

impl RowMut<'_> {
    /// Makes it the same as `from`.
    pub fn set(&mut self, from: Row<'_>) {
        self.words.copy_from_slice(from.words);
        for (into, from) in self.summaries.iter_mut().zip(from.summaries) {
            *self.heap = *self.heap + from.heap_bytes() - into.heap_bytes();
            into.clone_from(from);
        }
    }

    /// Makes it the empty row again.
    pub fn clear(&mut self) {
        self.words.fill(0);
        for summary in &mut *self.summaries {
            *self.heap -= summary.heap_bytes();
            summary.clear();
            *self.heap += summary.heap_bytes();
        }
    }

    /// Bytes that its summaries take beside it, about.
    #[must_use]
    pub fn summary_bytes(&self) -> usize {
        self.summaries.iter().map(Summary::heap_bytes).sum()
    }

    /// Changes the summary at a place.
    #[inline]
    pub(super) fn summary(&mut self, at: usize, change: impl FnOnce(&mut Summary)) {
        if let Some(summary) = self.summaries.get_mut(at) {
            let before = summary.heap_bytes();
            change(summary);
            *self.heap = *self.heap + summary.heap_bytes() - before;
        }
    }
}

impl RowBuf {
    /// The empty row.
    #[must_use]
    pub fn new(layout: &Layout) -> Self {
        Self { words: vec![0; layout.stride()], summaries: layout.empty_summaries().collect(), heap: 0 }
    }

    /// The row, to read.
    #[must_use]
    pub fn row(&self) -> Row<'_> {
        Row { words: &self.words, summaries: &self.summaries }
    }

    /// The row, to write.
    pub fn row_mut(&mut self) -> RowMut<'_> {
        RowMut { words: &mut self.words, summaries: &mut self.summaries, heap: &mut self.heap }
    }

    /// Makes it the empty row again.
    pub fn clear(&mut self) {
        self.words.fill(0);
        self.summaries.iter_mut().for_each(Summary::clear);
        self.heap = 0;
    }

    /// Bytes of memory in use, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.words.len() * 8 + self.summaries.len() * size_of::<Summary>() + self.heap
    }
}

impl RowRun {
    /// Makes room for exactly as many more rows.
    pub(crate) fn reserve(&mut self, layout: &Layout, more: usize) {
        self.words.reserve_exact(more * layout.stride());
        self.summaries.reserve_exact(more * layout.summaries());
    }

    /// Adds an empty row behind the others.
    #[inline]
    pub(crate) fn push(&mut self, layout: &Layout) {
        self.words.resize(self.words.len() + layout.stride(), 0);
        if layout.has_summaries() {
            self.summaries.extend(layout.empty_summaries());
        }
    }

    /// Takes the last row away.
    pub(crate) fn pop(&mut self, layout: &Layout) {
        self.words.truncate(self.words.len().saturating_sub(layout.stride()));
        let summaries = self.summaries.len().saturating_sub(layout.summaries());
        for summary in self.summaries.drain(summaries..) {
            self.heap -= summary.heap_bytes();
        }
    }

    /// Takes the first `count` rows away, and gives the room back.
    pub(crate) fn drop_first(&mut self, layout: &Layout, count: usize) {
        self.words.drain(..(count * layout.stride()).min(self.words.len()));
        let summaries = (count * layout.summaries()).min(self.summaries.len());
        self.heap -= self.summaries.drain(..summaries).map(|summary| summary.heap_bytes()).sum::<usize>();
        self.words.shrink_to_fit();
        self.summaries.shrink_to_fit();
    }

    /// Takes all rows away.
    pub(crate) fn clear(&mut self) {
        self.words.clear();
        self.summaries.clear();
        self.heap = 0;
    }

    #[inline]
    #[allow(clippy::indexing_slicing, reason = "row numbers come from the slice that holds the rows")]
    pub(crate) fn row(&self, layout: &Layout, row: usize) -> Row<'_> {
        let (words, summaries) = (layout.stride(), layout.summaries());
        Row {
            words: &self.words[row * words..(row + 1) * words],
            summaries: &self.summaries[row * summaries..(row + 1) * summaries],
        }
    }

    #[inline]
    #[allow(clippy::indexing_slicing, reason = "row numbers come from the slice that holds the rows")]
    pub(crate) fn row_mut(&mut self, layout: &Layout, row: usize) -> RowMut<'_> {
        let (words, summaries) = (layout.stride(), layout.summaries());
        RowMut {
            words: &mut self.words[row * words..(row + 1) * words],
            summaries: &mut self.summaries[row * summaries..(row + 1) * summaries],
            heap: &mut self.heap,
        }
    }

    /// Bytes of memory in use, about.
    pub(crate) fn bytes(&self) -> usize {
        self.words.capacity() * 8 + self.summaries.capacity() * size_of::<Summary>() + self.heap
    }

    /// Bytes that summaries take beside the rows.
    pub(crate) const fn heap_bytes(&self) -> usize {
        self.heap
    }
}
