//! Rows of parts one by one, in order of their keys, those of one key the newest first.
//!
//! A part is opened when the walk comes to its first key, so that as many chunks are in memory as parts overlap there.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, binary_heap::PeekMut},
    sync::Arc,
};

use super::{Part, Runs, Unreadable, merge::PartCursor};

/// A walk under way. It holds no borrow: parts may go that are wholly behind it.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    /// Parts that are not open yet; the one with the smallest first key last.
    closed: Vec<Arc<Part>>,
    open: BinaryHeap<Reverse<ByKey>>,
}

/// An open part, which orders by its key.
#[derive(Debug)]
struct ByKey(PartCursor);

impl Walk {
    /// A walk over all rows of `parts`.
    pub(crate) fn from_start<'a>(
        parts: impl Iterator<Item = &'a Arc<Part>>,
        runs: &Runs,
    ) -> Result<Self, Unreadable> {
        let mut walk = Self::over(parts);
        walk.open_due(runs)?;
        Ok(walk)
    }

    fn over<'a>(parts: impl Iterator<Item = &'a Arc<Part>>) -> Self {
        let mut closed: Vec<_> = parts.map(Arc::clone).collect();
        closed.sort_by(|one, other| other.first_key().cmp(&one.first_key()));
        Self { closed, ..Self::default() }
    }

    /// A walk over the rows of `parts` behind `after`.
    pub(crate) fn new<'a>(
        parts: impl Iterator<Item = &'a Arc<Part>>,
        after: &[u8],
        runs: &Runs,
    ) -> Result<Self, Unreadable> {
        let mut walk = Self::over(parts);
        while let Some(part) = walk.closed.pop_if(|part| part.first_key() <= Some(after)) {
            walk.open.extend(PartCursor::open(part, Some(after), runs)?.map(|cursor| Reverse(ByKey(cursor))));
        }
        walk.open_due(runs)?;
        Ok(walk)
    }

    /// The row that the walk is at; `None` at the end.
    pub(crate) fn row(&self) -> Option<(&[u8], &[u8])> {
        self.open.peek().map(|Reverse(ByKey(cursor))| (cursor.key(), cursor.value()))
    }

    /// Goes on to the next row.
    pub(crate) fn advance(&mut self, runs: &Runs) -> Result<(), Unreadable> {
        if let Some(mut first) = self.open.peek_mut()
            && !first.0.0.advance(runs)?
        {
            PeekMut::pop(first);
        }
        self.open_due(runs)
    }

    /// Opens the parts whose first key is not behind the row that the walk is at.
    fn open_due(&mut self, runs: &Runs) -> Result<(), Unreadable> {
        loop {
            let at = self.open.peek().map(|Reverse(ByKey(cursor))| cursor.key());
            let Some(part) = self.closed.pop_if(|part| at.is_none() || part.first_key() <= at) else {
                return Ok(());
            };
            self.open.extend(PartCursor::open(part, None, runs)?.map(|cursor| Reverse(ByKey(cursor))));
        }
    }
}

impl PartialEq for ByKey {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for ByKey {}

impl PartialOrd for ByKey {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ByKey {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.key().cmp(other.0.key()).then_with(|| other.0.age().cmp(&self.0.age()))
    }
}
