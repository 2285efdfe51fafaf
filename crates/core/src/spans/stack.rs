//! A stack of rows with their times: its top in memory, what is below it in pages where memory is short.

use crate::{
    aggregate::{Layout, RowRun, put_varint, take_varint, unzigzag, zigzag},
    block::{put_bytes, take_bytes},
    scratch::{Page, Pages, ScratchError, damaged},
    time::EventTime,
};

/// Rows, the last one on top.
#[derive(Debug, Default)]
pub(super) struct Stack {
    /// What lies below the rows in memory, the lowest first, each with the time of its lowest row.
    below: Vec<(EventTime, Page)>,
    pub(super) times: Vec<EventTime>,
    pub(super) rows: RowRun,
}

impl Stack {
    /// Whether all of it is in memory.
    pub(super) const fn is_here(&self) -> bool {
        self.below.is_empty()
    }

    /// The time of the lowest row.
    pub(super) fn lowest(&self) -> Option<EventTime> {
        self.below.first().map(|(time, _)| *time).or_else(|| self.times.first().copied())
    }

    /// Bytes of the rows in memory, without room for more.
    pub(super) fn row_bytes(&self, layout: &Layout) -> usize {
        self.times.len() * (size_of::<EventTime>() + layout.row_bytes()) + self.rows.heap_bytes()
    }

    /// Gives room back that is not used.
    pub(super) fn shrink(&mut self, layout: &Layout) {
        self.times.shrink_to_fit();
        self.rows.drop_first(layout, 0);
    }

    /// Bytes of memory in use, about.
    pub(super) fn bytes(&self) -> usize {
        self.times.capacity() * size_of::<EventTime>()
            + self.rows.bytes()
            + self.below.capacity() * size_of::<(EventTime, Page)>()
    }

    /// Writes the lower rows into pages of about `page` bytes and leaves the upper `keep` in memory.
    pub(super) fn put_down(
        &mut self,
        keep: usize,
        page: usize,
        layout: &Layout,
        pages: &mut Pages,
    ) -> Result<(), ScratchError> {
        let lower = self.times.len().saturating_sub(keep);
        let (mut bytes, mut value, mut first) = (Vec::new(), Vec::new(), None);
        for (at, time) in self.times.drain(..lower).enumerate() {
            let lowest = *first.get_or_insert(time);
            put_row(time, self.rows.row(layout, at), layout, &mut value, &mut bytes);
            if bytes.len() >= page || at + 1 == lower {
                self.below.push((lowest, pages.write(&bytes)?));
                (bytes, first) = (Vec::new(), None);
            }
        }
        self.rows.drop_first(layout, lower);
        self.times.shrink_to_fit();
        Ok(())
    }

    /// Brings the uppermost page into memory, where no row is; false when there is none.
    pub(super) fn pick_up(&mut self, layout: &Layout, pages: &mut Pages) -> Result<bool, ScratchError> {
        debug_assert!(self.times.is_empty(), "what is in memory lies above");
        let Some((_, page)) = self.below.pop() else { return Ok(false) };
        let bytes = pages.take(page)?;
        self.take_rows(&bytes, layout).ok_or_else(damaged)?;
        Ok(true)
    }

    /// Puts `other` on top.
    pub(super) fn append(
        &mut self,
        mut other: Self,
        page: usize,
        layout: &Layout,
        pages: &mut Pages,
    ) -> Result<(), ScratchError> {
        if !other.is_here() {
            self.put_down(0, page, layout, pages)?;
            self.below.append(&mut other.below);
        }
        for (at, time) in other.times.iter().enumerate() {
            self.times.push(*time);
            self.rows.push(layout);
            let last = self.times.len() - 1;
            self.rows.row_mut(layout, last).set(other.rows.row(layout, at));
        }
        Ok(())
    }

    pub(super) fn encode(&self, layout: &Layout, out: &mut Vec<u8>) {
        put_varint(out, self.below.len() as u128);
        for (time, page) in &self.below {
            put_time(*time, out);
            page.encode(out);
        }
        let (mut rows, mut value) = (Vec::new(), Vec::new());
        for (at, time) in self.times.iter().enumerate() {
            put_row(*time, self.rows.row(layout, at), layout, &mut value, &mut rows);
        }
        put_bytes(out, &rows);
    }

    pub(super) fn decode(bytes: &mut &[u8], layout: &Layout) -> Option<Self> {
        let mut stack = Self::default();
        for _ in 0..take_varint(bytes)? {
            stack.below.push((take_time(bytes)?, Page::take(bytes)?));
        }
        stack.take_rows(take_bytes(bytes)?, layout)?;
        Some(stack)
    }

    fn take_rows(&mut self, mut bytes: &[u8], layout: &Layout) -> Option<()> {
        while !bytes.is_empty() {
            self.times.push(take_time(&mut bytes)?);
            self.rows.push(layout);
            let last = self.times.len() - 1;
            layout.decode(take_bytes(&mut bytes)?, &mut self.rows.row_mut(layout, last))?;
        }
        Some(())
    }

    /// Forgets its pages.
    pub(super) fn free(self, pages: &mut Pages) {
        self.below.into_iter().for_each(|(_, page)| pages.free(page));
    }
}

fn put_row(
    time: EventTime,
    row: crate::aggregate::Row<'_>,
    layout: &Layout,
    value: &mut Vec<u8>,
    out: &mut Vec<u8>,
) {
    value.clear();
    layout.encode(row, value);
    put_time(time, out);
    put_bytes(out, value);
}

fn put_time(time: EventTime, out: &mut Vec<u8>) {
    put_varint(out, zigzag(i128::from(time.0)));
}

fn take_time(bytes: &mut &[u8]) -> Option<EventTime> {
    i64::try_from(unzigzag(take_varint(bytes)?)).ok().map(EventTime)
}
