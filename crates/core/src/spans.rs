//! What each key has in its sliding window now, as two stacks of rows: the older records, each merged with all behind it, and the
//! newer ones as they came, with one row that merges them.
//!
//! ```text
//! older   [a+b+c] [b+c] [c] ◄── turned over when the older are used up ── newer  d  e  f    all newer  d+e+f
//! window from b on = (b+c) + (d+e+f)
//! ```
//! Each record is merged twice and each window is one merge; nothing is ever taken out of an aggregate, so that any will do
//! (Tangwongsan et al., "General Incremental Sliding-Window Aggregation", 2015). Rows of a stack lie in one run of memory.
#![allow(clippy::indexing_slicing, reason = "places come from the table, which names only taken slots")]

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    aggregate::{Layout, RowBuf, RowRun},
    time::EventTime,
};

/// The spans of a shard's keys.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    table: HashTable<usize>,
    slots: Vec<Option<KeySpan>>,
    free: Vec<usize>,
}

/// The records of a key in its window.
#[derive(Debug)]
pub(crate) struct KeySpan {
    key: Box<[u8]>,
    /// The oldest last.
    older: Stack,
    newer: Stack,
    all_newer: RowBuf,
}

#[derive(Debug, Default)]
struct Stack {
    times: Vec<EventTime>,
    rows: RowRun,
}

impl Spans {
    /// The place of the span of `key`, made if there is none.
    pub(crate) fn of_key(&mut self, key: &[u8], layout: &Layout) -> usize {
        let Self { table, slots, free } = self;
        let hash = xxh3_64(key);
        if let Some(at) = table.find(hash, |at| key_at(slots, *at) == key) {
            return *at;
        }
        let at = free.pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        slots[at] = Some(KeySpan::new(key, layout));
        table.insert_unique(hash, at, |at| xxh3_64(key_at(slots, *at)));
        at
    }

    /// The span at a place.
    pub(crate) fn at_mut(&mut self, at: usize) -> Option<&mut KeySpan> {
        self.slots.get_mut(at)?.as_mut()
    }

    /// Number of keys.
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Forgets the keys whose records are all before `from`.
    pub(crate) fn drop_before(&mut self, from: EventTime) {
        let Self { table, slots, free } = self;
        table.retain(|at| {
            let stays = slots[*at].as_ref().is_some_and(|span| span.newest() >= Some(from));
            if !stays {
                slots[*at] = None;
                free.push(*at);
            }
            stays
        });
    }
}

fn key_at(slots: &[Option<KeySpan>], at: usize) -> &[u8] {
    slots[at].as_ref().map_or(&[], KeySpan::key)
}

impl KeySpan {
    fn new(key: &[u8], layout: &Layout) -> Self {
        let (older, newer) = (Stack::default(), Stack::default());
        Self { key: key.into(), older, newer, all_newer: RowBuf::new(layout) }
    }

    /// The group key.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Takes a record, not older than those before; `None` when its row does not read.
    pub(crate) fn push(&mut self, time: EventTime, row: &[u8], layout: &Layout) -> Option<()> {
        self.newer.times.push(time);
        self.newer.rows.push(layout);
        let last = self.newer.times.len() - 1;
        layout.decode(row, &mut self.newer.rows.row_mut(layout, last))?;
        layout.merge(&mut self.all_newer.row_mut(), self.newer.rows.row(layout, last));
        Some(())
    }

    fn newest(&self) -> Option<EventTime> {
        let older = self.older.times.first().copied();
        self.newer.times.last().copied().max(older)
    }

    /// Forgets the records before `from`.
    pub(crate) fn drop_before(&mut self, from: EventTime, layout: &Layout) {
        loop {
            while self.older.times.pop_if(|time| *time < from).is_some() {
                self.older.rows.pop(layout);
            }
            let stale = self.newer.times.first().is_some_and(|time| *time < from);
            if !self.older.times.is_empty() || !stale {
                return;
            }
            // What is in `all_newer` is no longer needed: there the rows are merged, the newest first.
            self.all_newer.clear();
            for (at, time) in self.newer.times.iter().enumerate().rev() {
                layout.merge(&mut self.all_newer.row_mut(), self.newer.rows.row(layout, at));
                self.older.times.push(*time);
                self.older.rows.push(layout);
                let last = self.older.times.len() - 1;
                self.older.rows.row_mut(layout, last).set(self.all_newer.row());
            }
            self.all_newer.clear();
            self.newer.times.clear();
            self.newer.rows.clear();
        }
    }

    /// Makes `window` the aggregates of all that is here.
    pub(crate) fn merge_into(&self, window: &mut RowBuf, layout: &Layout) {
        window.row_mut().set(self.all_newer.row());
        if let Some(last) = self.older.times.len().checked_sub(1) {
            layout.merge(&mut window.row_mut(), self.older.rows.row(layout, last));
        }
    }
}
