//! Closing windows: results in (end, key) order, bounded by the commit, resumed where it stopped.

use super::{ENTRY_OVERHEAD, Pane, ResultRow, ShardMachine};
use crate::{
    block::Closing,
    time::{EventTime, Watermark},
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

    /// Emits the windows that ended by W_s until all are out or the next commit is full.
    pub(super) fn close(&mut self) {
        while let Some(closing) = self.state.closing.clone() {
            let next = self.next_closing_end(closing.done);
            match next.filter(|end| Some(*end) <= self.state.watermark) {
                None => self.end_closing(),
                Some(end) => match self.emit_window(end, closing.key.as_deref()) {
                    Emitted::All => self.state.closing = Some(Closing { done: Some(end), key: None }),
                    Emitted::UpTo(key) => {
                        self.state.closing = Some(Closing { done: closing.done, key: Some(key) });
                        return;
                    }
                    Emitted::Nothing => return,
                },
            }
        }
    }

    /// The first window end after `done` of a window that holds anything.
    fn next_closing_end(&self, done: Option<EventTime>) -> Option<EventTime> {
        let (grid, slices) = (self.state.grid, &self.state.slices);
        match done {
            None => slices.iter().next().map(|slice| grid.first_end(slice.start)),
            Some(done) => slices
                .first_from(grid.first_live_slice(done))
                .map(|slice| grid.first_end(slice.start).max(grid.next_end(done))),
        }
    }

    fn end_closing(&mut self) {
        self.state.closing = None;
        if let Some(watermark) = self.state.watermark {
            self.state.purge(watermark.minus(self.lateness));
        }
    }

    fn is_full(&self) -> bool {
        self.out.bytes >= self.limits.commit_bytes / 2
    }

    /// Emits the final results of the window that ends at `end`, of group keys after `after`.
    fn emit_window(&mut self, end: EventTime, after: Option<&[u8]>) -> Emitted {
        if self.is_full() {
            return Emitted::Nothing;
        }
        let rows = self.window_rows(end);
        let first = after.map_or(0, |after| rows.partition_point(|(key, _)| key.as_slice() <= after));
        let mut last = None;
        for (key, words) in rows.into_iter().skip(first) {
            if self.is_full() {
                return last.map_or(Emitted::Nothing, Emitted::UpTo);
            }
            self.push_result(end, key.clone(), &words, Pane::Final, 0);
            last = Some(key);
        }
        Emitted::All
    }

    /// The merged rows of a window, by key.
    fn window_rows(&self, end: EventTime) -> Vec<(Vec<u8>, Vec<u64>)> {
        let layout = &self.state.layout;
        let mut slices = self.state.slices.range(self.state.grid.start_of(end), end);
        let Some(first) = slices.next() else { return Vec::new() };
        let row = |slice: &crate::slices::Slice, row: u32| {
            (slice.key(row as usize).to_vec(), slice.words(layout, row as usize).to_vec())
        };
        let mut merged: Vec<_> = first.sorted_rows().into_iter().map(|at| row(first, at)).collect();
        for slice in slices {
            let right = slice.sorted_rows().into_iter().map(|at| row(slice, at));
            merged = merge_sorted(merged, right, |into, from| layout.merge(into, from));
        }
        merged
    }

    pub(super) fn push_result(
        &mut self,
        end: EventTime,
        key: Vec<u8>,
        words: &[u64],
        pane: Pane,
        revision: u32,
    ) {
        let values = self.state.layout.results(words);
        self.out.bytes += key.len() + ENTRY_OVERHEAD + 24 * values.len();
        let start = self.state.grid.start_of(end);
        self.out.results.push(ResultRow { key, start, end, pane, revision, values });
    }

    /// Notes that a late record changes the result of a closed window; call before the record is applied.
    pub(super) fn touch_late(&mut self, end: EventTime, key: &[u8]) {
        let known = self.state.revisions.get(&end).is_some_and(|keys| keys.contains_key(key));
        if !known {
            let start = self.state.grid.start_of(end);
            let emitted = self.state.slices.range(start, end).any(|slice| slice.find(key).is_some());
            self.state.revisions.entry(end).or_default().insert(key.to_vec(), u32::from(emitted));
        }
        if self.late_touched.insert((end, key.to_vec())) {
            self.dirty.bytes += key.len() + ENTRY_OVERHEAD;
        }
    }

    /// Emits the corrected results of the windows that late records changed, one revision for all changes since the last.
    pub(super) fn emit_late(&mut self) {
        for (end, key) in std::mem::take(&mut self.late_touched) {
            let mut words = vec![0; self.state.layout.stride()];
            for slice in self.state.slices.range(self.state.grid.start_of(end), end) {
                if let Some(row) = slice.find(&key) {
                    self.state.layout.merge(&mut words, slice.words(&self.state.layout, row));
                }
            }
            let Some(emitted) = self.state.revisions.get_mut(&end).and_then(|keys| keys.get_mut(&key)) else {
                continue;
            };
            let revision = *emitted;
            *emitted += 1;
            self.dirty.revisions.insert((end, key.clone()));
            self.push_result(end, key, &words, Pane::Late, revision);
        }
    }
}

enum Emitted {
    All,
    UpTo(Vec<u8>),
    Nothing,
}

type KeyedRow = (Vec<u8>, Vec<u64>);

fn merge_sorted(
    left: Vec<KeyedRow>,
    right: impl Iterator<Item = KeyedRow>,
    merge: impl Fn(&mut [u64], &[u64]),
) -> Vec<KeyedRow> {
    let mut out = Vec::with_capacity(left.len());
    let mut left = left.into_iter().peekable();
    for mut row in right {
        while let Some(smaller) = left.next_if(|other| other.0 < row.0) {
            out.push(smaller);
        }
        if let Some(same) = left.next_if(|other| other.0 == row.0) {
            merge(&mut row.1, &same.1);
        }
        out.push(row);
    }
    out.extend(left);
    out
}
