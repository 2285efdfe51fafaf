//! The records of a key in its window, as two stacks.

use super::stack::Stack;
use crate::{
    aggregate::{Layout, RowBuf},
    block::{put_bytes, take_bytes},
    scratch::{Pages, ScratchError, damaged},
    time::EventTime,
};

/// The records of a key in its window.
#[derive(Debug)]
pub(crate) struct KeySpan {
    key: Box<[u8]>,
    /// The oldest on top.
    older: Stack,
    /// The newest on top.
    newer: Stack,
    all_newer: RowBuf,
    /// A record came since memory was short last.
    pub(super) is_used: bool,
}

/// How much of a stack stays in memory where that is short: beyond this many pages, one.
const MOST_PAGES: usize = 4;

impl KeySpan {
    pub(super) fn new(key: &[u8], layout: &Layout) -> Self {
        let (older, newer) = (Stack::default(), Stack::default());
        Self { key: key.into(), older, newer, all_newer: RowBuf::new(layout), is_used: true }
    }

    /// The group key.
    pub(crate) fn key(&self) -> &[u8] {
        &self.key
    }

    /// Takes a record, not older than those before; `None` when its row does not read.
    pub(super) fn push(&mut self, time: EventTime, row: &[u8], layout: &Layout) -> Option<()> {
        self.is_used = true;
        self.newer.times.push(time);
        self.newer.rows.push(layout);
        let last = self.newer.times.len() - 1;
        layout.decode(row, &mut self.newer.rows.row_mut(layout, last))?;
        layout.merge(&mut self.all_newer.row_mut(), self.newer.rows.row(layout, last));
        Some(())
    }

    pub(super) fn newest(&self) -> Option<EventTime> {
        self.newer.times.last().copied().max(self.older.lowest())
    }

    /// Bytes of memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        // With its place in the table.
        size_of::<Self>()
            + 16
            + self.key.len()
            + self.older.bytes()
            + self.newer.bytes()
            + self.all_newer.bytes()
    }

    /// Forgets the records before `from`; its pages, where it has some, are in `room`.
    pub(super) fn drop_before(
        &mut self,
        from: EventTime,
        layout: &Layout,
        room: Option<(&mut Pages, usize)>,
    ) -> Result<(), ScratchError> {
        let mut room = room;
        loop {
            while self.older.times.pop_if(|time| *time < from).is_some() {
                self.older.rows.pop(layout);
            }
            if !self.older.times.is_empty() {
                return Ok(());
            }
            if !self.older.is_here()
                && let Some((pages, _)) = &mut room
                && self.older.pick_up(layout, pages)?
            {
                continue;
            }
            if self.newer.lowest().is_none_or(|time| from <= time) {
                return Ok(());
            }
            self.turn_over(layout, &mut room)?;
        }
    }

    /// Makes the newer records the older ones, of which there are none. What is in `all_newer` is no longer needed: there the rows
    /// are merged, the newest first.
    fn turn_over(
        &mut self,
        layout: &Layout,
        room: &mut Option<(&mut Pages, usize)>,
    ) -> Result<(), ScratchError> {
        self.all_newer.clear();
        loop {
            for (at, time) in self.newer.times.iter().enumerate().rev() {
                layout.merge(&mut self.all_newer.row_mut(), self.newer.rows.row(layout, at));
                self.older.times.push(*time);
                self.older.rows.push(layout);
                let last = self.older.times.len() - 1;
                self.older.rows.row_mut(layout, last).set(self.all_newer.row());
            }
            self.newer.times.clear();
            self.newer.rows.clear();
            let Some((pages, page)) = room.as_mut().filter(|_| !self.newer.is_here()) else { break };
            put_down_most(&mut self.older, *page, layout, pages)?;
            self.newer.pick_up(layout, pages)?;
        }
        self.all_newer.clear();
        Ok(())
    }

    /// Makes `window` the aggregates of all that is here.
    pub(super) fn merge_into(&self, window: &mut RowBuf, layout: &Layout) {
        window.row_mut().set(self.all_newer.row());
        if let Some(last) = self.older.times.len().checked_sub(1) {
            layout.merge(&mut window.row_mut(), self.older.rows.row(layout, last));
        }
    }

    /// Writes what is low in its stacks into pages, where they are many pages long, and gives room back that is not used.
    pub(super) fn put_down(
        &mut self,
        page: usize,
        layout: &Layout,
        pages: &mut Pages,
    ) -> Result<(), ScratchError> {
        self.older.shrink(layout);
        self.newer.shrink(layout);
        put_down_most(&mut self.older, page, layout, pages)?;
        put_down_most(&mut self.newer, page, layout, pages)
    }

    /// Takes the records of the same key that came after those here, of which none has left its window.
    pub(super) fn append(
        &mut self,
        later: Self,
        page: usize,
        layout: &Layout,
        pages: &mut Pages,
    ) -> Result<(), ScratchError> {
        debug_assert!(later.older.lowest().is_none(), "nothing was turned over since");
        layout.merge(&mut self.all_newer.row_mut(), later.all_newer.row());
        self.newer.append(later.newer, page, layout, pages)?;
        put_down_most(&mut self.newer, page, layout, pages)
    }

    /// Whether some of it is in pages of its own.
    pub(super) const fn has_pages(&self) -> bool {
        !(self.older.is_here() && self.newer.is_here())
    }

    /// Appends it to `out`, its pages by name.
    pub(super) fn encode(&self, layout: &Layout, out: &mut Vec<u8>) {
        put_bytes(out, &self.key);
        let mut row = Vec::new();
        layout.encode(self.all_newer.row(), &mut row);
        put_bytes(out, &row);
        self.older.encode(layout, out);
        self.newer.encode(layout, out);
    }

    /// Takes what [`KeySpan::encode`] wrote.
    pub(super) fn decode(mut bytes: &[u8], layout: &Layout) -> Result<Self, ScratchError> {
        let mut take = || {
            let mut span = Self::new(take_bytes(&mut bytes)?, layout);
            layout.decode(take_bytes(&mut bytes)?, &mut span.all_newer.row_mut())?;
            span.older = Stack::decode(&mut bytes, layout)?;
            span.newer = Stack::decode(&mut bytes, layout)?;
            Some(span)
        };
        take().ok_or_else(damaged)
    }

    /// Forgets its pages.
    pub(super) fn free(self, pages: &mut Pages) {
        self.older.free(pages);
        self.newer.free(pages);
    }
}

fn put_down_most(
    stack: &mut Stack,
    page: usize,
    layout: &Layout,
    pages: &mut Pages,
) -> Result<(), ScratchError> {
    let (rows, bytes) = (stack.times.len(), stack.row_bytes(layout));
    if bytes <= MOST_PAGES * page || rows < 2 {
        return Ok(());
    }
    let keep = (rows * page / bytes).max(1);
    stack.put_down(keep, page, layout, pages)
}
