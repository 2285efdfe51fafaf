//! Early results: what windows hold that are still open, every so often.
//!
//! ```text
//! rows that a commit changes ──► changed ── due ──► round ──► results with pane `early`, over as many commits as it takes
//! ```
//! Each is as of the commit that it comes with, and none comes once W_s has passed the window's end: so a reader who keeps the
//! highest revision, the later of equal ones, has it only until the final result. Which come depends on time; nothing else does.
//! A shard that is taken over begins anew.

use std::collections::BTreeSet;

use super::{Pane, ShardMachine, state::Operator};
use crate::{
    aggregate::RowBuf,
    block::Closing,
    runs::Unreadable,
    slices::Slices,
    time::{EventTime, Span, Tick, Watermark},
    window::Grid,
};

/// Start of a slice or session, and group key.
type Places = BTreeSet<(EventTime, Box<[u8]>)>;

/// What changed of windows that are open, and when to say so.
#[derive(Debug)]
pub(super) struct Early {
    every: Span,
    next: Tick,
    is_due: bool,
    changed: Places,
    changed_bytes: usize,
    /// What is being put out.
    round: Places,
    /// Where the round has come to.
    at: Closing,
}

impl Early {
    fn new(every: Span, now: Tick) -> Self {
        Self {
            every,
            next: after(now, every),
            is_due: false,
            changed: Places::new(),
            changed_bytes: 0,
            round: Places::new(),
            at: Closing::default(),
        }
    }

    /// Whether there is something to put out now.
    pub(super) fn has_output(&self) -> bool {
        !self.round.is_empty() || (self.is_due && !self.changed.is_empty())
    }

    fn add(&mut self, start: EventTime, key: &[u8]) {
        if self.changed.insert((start, key.into())) {
            self.changed_bytes += key.len() + super::ENTRY_OVERHEAD;
        }
    }

    fn begin_round(&mut self, watermark: Watermark) {
        if self.round.is_empty() && self.is_due {
            (self.is_due, self.changed_bytes) = (false, 0);
            self.round = std::mem::take(&mut self.changed);
            self.at = Closing { done: watermark, key: None };
        }
    }
}

impl ShardMachine {
    /// Puts out early results this often, from `now` on; `None`: none.
    pub fn set_early(&mut self, every: Option<Span>, now: Tick) {
        self.early = every.map(|every| Box::new(Early::new(every, now)));
    }

    /// When the next early results are due; `None` while there are none to come.
    #[must_use]
    pub fn early_due(&self) -> Option<Tick> {
        self.early
            .as_ref()
            .filter(|early| !(early.is_due || early.changed.is_empty()))
            .map(|early| early.next)
    }

    /// Has the commit that is planned next begin with early results, if they are due.
    pub fn begin_early(&mut self, now: Tick) {
        let Some(early) = &mut self.early else { return };
        // What has changed is remembered in memory: as much of it as one commit may hold (I7).
        if now >= early.next || early.changed_bytes >= self.limits.commit_bytes {
            early.is_due = true;
            early.next = after(now, early.every);
        }
    }

    /// Notes what this commit changes, and puts out what is due; before the changes are written.
    pub(super) fn emit_early(&mut self) {
        let Some(mut early) = self.early.take() else { return };
        match &self.state.operator {
            Operator::Windows(_) => note_rows(&self.state.slices, &mut early),
            Operator::Sessions(sessions) => sessions.dirty().for_each(|(start, key)| early.add(start, key)),
            Operator::Reorder | Operator::Sliding(_) => {}
        }
        early.begin_round(self.state.watermark);
        if !early.round.is_empty() {
            let emitted = match self.state.operator {
                Operator::Windows(grid) => self.emit_early_windows(grid, &mut early),
                Operator::Sessions(_) => self.emit_early_sessions(&mut early),
                Operator::Reorder | Operator::Sliding(_) => Ok(true),
            };
            match emitted {
                Ok(true) => early.round.clear(),
                Ok(false) => {}
                Err(unreadable) => self.failed = Some(unreadable.into()),
            }
        }
        self.early = Some(early);
    }

    /// True when the round is over.
    fn emit_early_windows(&mut self, grid: Grid, early: &mut Early) -> Result<bool, Unreadable> {
        loop {
            if early.at.done < self.state.watermark {
                early.at = Closing { done: self.state.watermark, key: None };
            }
            let Some(end) = next_end(grid, early) else { return Ok(true) };
            let start = grid.start_of(end);
            let rows = early.round.range((start, Box::default())..(end, Box::default()));
            let keys: BTreeSet<&[u8]> = rows.map(|(_, key)| &**key).collect();
            let mut last = early.at.key.take();
            for key in keys {
                if last.as_deref().is_some_and(|last| key <= last) {
                    continue;
                }
                if self.is_full() {
                    early.at.key = last;
                    return Ok(false);
                }
                let mut row = RowBuf::new(&self.state.layout);
                self.state.find_in_window(grid, end, key, &mut row.row_mut())?;
                let values = self.state.layout.results(row.row());
                self.push_result((start, end), key.to_vec(), values, Pane::Early, 0);
                last = Some(key.to_vec());
            }
            early.at = Closing { done: Some(end), key: None };
        }
    }

    /// True when the round is over.
    fn emit_early_sessions(&mut self, early: &mut Early) -> Result<bool, Unreadable> {
        // What comes back from runs needs room, and results up to W_s to be out.
        if self.state.closing.is_some() || self.memory.full {
            return Ok(false);
        }
        let before = self.dirty.bytes;
        while self.out.bytes + self.dirty.bytes - before < self.limits.commit_bytes / 2 {
            let Some((start, key)) = early.round.pop_first() else { return Ok(true) };
            self.settle(&key)?;
            self.emit_all_retracted();
            let Operator::Sessions(sessions) = &mut self.state.operator else { return Ok(true) };
            // One that has ended has its result.
            if let Some(place) = sessions.count_early(start, &key, self.state.watermark) {
                self.emit_session(place, Pane::Early, 0);
            }
        }
        Ok(early.round.is_empty())
    }
}

/// The end of the first window behind those that are out which holds a place of the round.
fn next_end(grid: Grid, early: &Early) -> Option<EventTime> {
    let (first, done) = match early.at.done {
        None => (EventTime(i64::MIN), None),
        Some(done) => (grid.first_live_slice(done), Some(done)),
    };
    let (slice, _) = early.round.range((first, Box::default())..).next()?;
    let end = grid.first_end(*slice);
    Some(done.map_or(end, |done| end.max(grid.next_end(done))))
}

fn note_rows(slices: &Slices, early: &mut Early) {
    for slice in slices.iter() {
        slice.dirty().for_each(|key| early.add(slice.start, key));
    }
}

fn after(now: Tick, every: Span) -> Tick {
    Tick(now.0.saturating_add(u64::try_from(every.millis()).unwrap_or(0)))
}
