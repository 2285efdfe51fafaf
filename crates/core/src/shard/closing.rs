//! Closing windows: results in (end, key) order, bounded by the commit, resumed where it stopped.

use std::collections::btree_map::Entry;

use super::{ENTRY_OVERHEAD, Pane, ResultRow, ShardMachine, state::Operator};
use crate::{
    aggregate::{RowBuf, Value},
    block::Closing,
    runs::Looks,
    runs::{MergedRow, Unreadable},
    time::{EventTime, Watermark},
    window::Grid,
};

impl ShardMachine {
    pub(super) fn begin_closing(&mut self, reached: Watermark) {
        debug_assert!(reached > self.state.watermark, "I1: a watermark never falls");
        self.state.closing = Some(Closing { done: self.state.watermark, key: None });
        self.state.watermark = reached;
        self.dirty.watermark = true;
        self.set_on_time();
        self.close();
    }

    /// Emits the windows that ended by W_s until all are out, the next commit is full, or enough has been looked up for now.
    pub(super) fn close(&mut self) {
        self.looks_left = self.limits.looks.max(1);
        match self.state.operator {
            Operator::Windows(grid) => self.close_windows(grid),
            Operator::Sessions(_) => self.close_sessions(),
            Operator::Reorder => self.release(),
            Operator::Sliding(size) => self.slide(size),
        }
    }

    fn close_windows(&mut self, grid: Grid) {
        while let Some(closing) = self.state.closing.clone() {
            let next = self.next_closing_end(grid, closing.done);
            match next.filter(|end| Some(*end) <= self.state.watermark) {
                None => self.end_closing(),
                Some(end) => match self.emit_window(grid, end, closing.key.as_deref()) {
                    Err(unreadable) => {
                        self.failed = Some(unreadable.into());
                        return;
                    }
                    Ok(Emitted::All) => self.state.closing = Some(Closing { done: Some(end), key: None }),
                    Ok(Emitted::UpTo(key)) => {
                        self.state.closing = Some(Closing { done: closing.done, key: Some(key) });
                        return;
                    }
                    Ok(Emitted::Nothing) => return,
                },
            }
        }
    }

    /// The first window end after `done` of a window that holds anything.
    fn next_closing_end(&self, grid: Grid, done: Option<EventTime>) -> Option<EventTime> {
        match done {
            None => self.state.first_slice(EventTime(i64::MIN)).map(|start| grid.first_end(start)),
            Some(done) => self
                .state
                .first_slice(grid.first_live_slice(done))
                .map(|start| grid.first_end(start).max(grid.next_end(done))),
        }
    }

    pub(super) fn end_closing(&mut self) {
        self.state.closing = None;
        // The last commit may have said that it goes on, and nothing more come of it.
        self.dirty.watermark = true;
        self.looks = Looks::default();
        if let Some(watermark) = self.state.watermark {
            self.state.purge(watermark.minus(self.retention));
        }
    }

    pub(super) fn is_full(&self) -> bool {
        self.out.bytes >= self.limits.commit_bytes / 2
    }

    /// Emits the final results of the window that ends at `end`, of group keys after `after`.
    fn emit_window(
        &mut self,
        grid: Grid,
        end: EventTime,
        after: Option<&[u8]>,
    ) -> Result<Emitted, Unreadable> {
        if self.is_full() {
            return Ok(Emitted::Nothing);
        }
        let mut merge = match self.window.take().filter(|(open, _)| *open == end) {
            Some((_, merge)) => merge,
            None => self.state.window(grid, end, after)?,
        };
        let mut row = MergedRow::new(&self.state.layout);
        loop {
            let state = &self.state;
            if !merge.next(&state.slices, &state.runs, &state.layout, &mut row)? {
                return Ok(Emitted::All);
            }
            let values = state.layout.results(row.row.row());
            self.push_result((grid.start_of(end), end), row.key.clone(), values, Pane::Final, 0);
            if !merge.has_more() {
                return Ok(Emitted::All);
            }
            if self.is_full() {
                self.window = Some((end, merge));
                return Ok(Emitted::UpTo(row.key));
            }
        }
    }

    pub(super) fn push_result(
        &mut self,
        (start, end): (EventTime, EventTime),
        key: Vec<u8>,
        values: Vec<Value>,
        pane: Pane,
        revision: u32,
    ) {
        self.out.bytes += key.len() + ENTRY_OVERHEAD + values.iter().map(Value::bytes).sum::<usize>();
        self.out.results.push(ResultRow { key, start, end, pane, revision, values, record: None });
    }

    /// Notes that a record changes the result of a closed window; call before it is applied.
    pub(super) fn touch_late(&mut self, grid: Grid, end: EventTime, key: &[u8], pane: Pane) {
        if self.state.revisions.get(end, key).is_none() {
            let emitted = match self.state.is_in_window(grid, end, key) {
                Ok(emitted) => emitted,
                Err(unreadable) => {
                    self.failed = Some(unreadable.into());
                    return;
                }
            };
            self.state.revisions.set(end, key, u32::from(emitted));
        }
        match self.late_touched.entry((end, key.to_vec())) {
            Entry::Occupied(mut touched) => {
                let pane = pane.max(*touched.get());
                touched.insert(pane);
            }
            Entry::Vacant(untouched) => {
                untouched.insert(pane);
                self.dirty.bytes += key.len() + ENTRY_OVERHEAD;
            }
        }
    }

    /// Emits the corrected results of what late and replayed records changed, one revision for all changes since the last.
    pub(super) fn emit_late(&mut self) {
        match self.state.operator {
            Operator::Windows(grid) => self.emit_late_windows(grid),
            Operator::Sessions(_) => self.emit_late_sessions(),
            Operator::Reorder | Operator::Sliding(_) => {}
        }
    }

    fn emit_late_windows(&mut self, grid: Grid) {
        for ((end, key), pane) in std::mem::take(&mut self.late_touched) {
            let mut row = RowBuf::new(&self.state.layout);
            if let Err(unreadable) = self.state.find_in_window(grid, end, &key, &mut row.row_mut()) {
                self.failed = Some(unreadable.into());
                return;
            }
            // An entry that is not of this job may name a window without its key.
            let Some(revision) = self.state.revisions.get(end, &key) else { continue };
            if self.state.layout.records(row.row()) == 0 {
                continue;
            }
            self.state.revisions.set(end, &key, revision.saturating_add(1));
            self.dirty.revisions.insert((end, key.clone()));
            let values = self.state.layout.results(row.row());
            self.push_result((grid.start_of(end), end), key, values, pane, revision);
        }
    }
}

pub(super) enum Emitted {
    All,
    UpTo(Vec<u8>),
    Nothing,
}
