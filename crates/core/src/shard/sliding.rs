//! Sliding windows: for each record the aggregates over (t − size, t] of its key, in order of event time once W_s has passed it.
//!
//! ```text
//! frame ──► buffer: each record as a row, in order ──► those of one event time, of all keys ──► spans ──► a result for each
//! ```
//! All records of one event time go into their keys' spans before any of them leaves: they see each other. A record stays in the
//! buffer, for a restore, until no later window can hold it; X is W_s − size.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use super::{ENTRY_OVERHEAD, Pane, ResultRow, ShardMachine, offset_of, payload_of, reorder::take_record};
use crate::{
    aggregate::{At, Layout, RowBuf},
    block::Closing,
    dead_letter::Reason,
    frame::{RowReader, ShardFrame},
    ordered::{Buffered, Kept, Place},
    runs::Unreadable,
    time::{EventTime, Span},
};

/// The spans of all keys, and the records of the event time that they have come to. They follow from the buffer.
#[derive(Debug)]
pub(super) struct Sliding {
    size: Span,
    layout: Arc<Layout>,
    spans: HashMap<Box<[u8]>, KeySpan>,
    /// Records up to this one are in their spans.
    taken: Option<Place>,
    /// Of these, the ones without a result, in order.
    group: VecDeque<(Place, Box<[u8]>)>,
    /// Results since spans without records were looked for.
    since_swept: usize,
}

/// The records of a key in its window, as two stacks: the older ones merged with all behind them, the newer ones as they came
/// and merged as a whole. Each record is merged twice and each window is one merge, for any aggregate.
#[derive(Debug)]
struct KeySpan {
    /// The oldest last.
    older: Vec<(EventTime, RowBuf)>,
    newer: Vec<(EventTime, RowBuf)>,
    all_newer: RowBuf,
}

impl ShardMachine {
    /// Takes the records from offset delta `skip` on; the offset delta of the first late one that lacks its payload is the error.
    pub(super) fn apply_to_spans(&mut self, frame: &ShardFrame, skip: u32) -> Result<(), u32> {
        let mut reader = RowReader::new(&frame.rows, skip);
        let (mut applied, mut lacking) = (0, None);
        while let Some((row, time, key)) = reader.next_row() {
            if time < self.on_time_from {
                let Some(payload) = payload_of(&frame.rows, row) else {
                    lacking = frame.rows.offsets.get(row).copied();
                    break;
                };
                self.push_late(frame, row, (Reason::Late, None), payload);
                continue;
            }
            let place = Place { time, partition: frame.partition, offset: offset_of(frame, row) };
            let kept = self.row_of_record(&mut reader, &place);
            self.buffer_record(place, Buffered { key: key.into(), kept });
            applied += 1;
        }
        self.dirty.rows |= applied > 0;
        self.state.input_mut(frame.partition).applied += applied;
        lacking.map_or(Ok(()), Err)
    }

    /// The accumulators of the record that `reader` is at, alone.
    pub(super) fn row_of_record(&self, reader: &mut RowReader<'_>, place: &Place) -> Kept {
        let layout = &self.state.layout;
        let mut alone = RowBuf::new(layout);
        let at = At { time: place.time, partition: place.partition, offset: place.offset };
        layout.add_record(&mut alone.row_mut());
        reader.values(|column, value| layout.add(&mut alone.row_mut(), column, value, &at));
        let mut bytes = Vec::new();
        layout.encode(alone.row(), &mut bytes);
        Kept::Row(bytes.into())
    }

    /// Puts out the results of the records below W_s until all are out or the next commit is full.
    pub(super) fn slide(&mut self, size: Span) {
        if self.state.closing.is_none() {
            return;
        }
        let mut last = None;
        match self.slide_due(size, &mut last) {
            Err(unreadable) => self.failed = Some(unreadable),
            Ok(true) => {
                self.state.closing = None;
                if let Some(watermark) = self.state.watermark {
                    self.state.purge(spanned_from(watermark, size));
                }
            }
            Ok(false) => {
                if let (Some(place), Some(closing)) = (last, &self.state.closing) {
                    let done = closing.done;
                    self.state.closing = Some(Closing { done, key: Some(Place::to_bytes(place).to_vec()) });
                    self.state.purge(spanned_from(place.time, size));
                }
            }
        }
    }

    /// Notes the last record that has its result; true when none is left.
    fn slide_due(&mut self, size: Span, last: &mut Option<Place>) -> Result<bool, Unreadable> {
        let mut sliding = match self.sliding.take() {
            Some(sliding) => sliding,
            None => self.spans_so_far(size)?,
        };
        let done = loop {
            if sliding.group.is_empty() && !self.take_group(&mut sliding)? {
                break true;
            }
            if self.is_full() {
                break false;
            }
            let Some((place, key)) = sliding.group.pop_front() else { break true };
            let row = sliding.window(&key, place.time);
            let values = row.map(|row| self.state.layout.results(row.row())).unwrap_or_default();
            self.out.bytes += key.len() + ENTRY_OVERHEAD + 24 * values.len();
            self.out.results.push(ResultRow {
                key: key.into(),
                start: place.time.minus(size),
                end: place.time,
                pane: Pane::Final,
                revision: 0,
                values,
                record: Some((place.partition, place.offset)),
            });
            *last = Some(place);
        };
        sliding.sweep();
        self.sliding = Some(sliding);
        Ok(done)
    }

    /// Takes the records of the next event time into their spans; false where W_s has not passed it.
    fn take_group(&mut self, sliding: &mut Sliding) -> Result<bool, Unreadable> {
        let after = sliding.taken;
        let in_run = self.first_in_runs(after)?.map(|place| place.time);
        let in_memory = self.state.buffer.behind(after).next().map(|(place, _)| place.time);
        let first = [in_run, in_memory].into_iter().flatten().min();
        let Some(time) = first.filter(|time| Some(*time) < self.state.watermark) else { return Ok(false) };
        let mut group: Vec<(Place, Buffered)> = self
            .state
            .buffer
            .behind(after)
            .take_while(|(place, _)| place.time == time)
            .map(|(place, record)| (place, record.clone()))
            .collect();
        while in_run.is_some() && self.first_in_runs(after)?.is_some_and(|place| place.time == time) {
            let walk = self.walk.as_mut().map(|walk| take_record(walk, &self.state.runs, false));
            let Some(record) = walk.transpose()?.flatten() else { break };
            group.push(record);
        }
        group.sort_unstable_by_key(|(place, _)| *place);
        for (place, record) in group {
            sliding.take(place, &record).ok_or_else(|| self.state.runs.damaged(place.time))?;
            sliding.group.push_back((place, record.key));
        }
        Ok(true)
    }

    /// The spans as the records in the buffer say, up to where results are out.
    fn spans_so_far(&self, size: Span) -> Result<Sliding, Unreadable> {
        let mut sliding = Sliding::new(size, Arc::clone(&self.state.layout));
        let Some(closing) = &self.state.closing else { return Ok(sliding) };
        let last = closing.key.as_deref().and_then(|mut key| Place::take(&mut key));
        // With a record of an event time all others of that time are in their spans.
        let is_taken = |place: Place| match last {
            Some(last) => place.time <= last.time,
            None => Some(place.time) < closing.done,
        };
        let mut walk = self.state.walk(None, u64::MAX)?;
        let mut in_run = take_record(&mut walk, &self.state.runs, false)?;
        let mut in_memory = self.state.buffer.behind(None).peekable();
        loop {
            let from_run = match (&in_run, in_memory.peek()) {
                (Some((place, _)), Some((other, _))) => place < other,
                (in_run, _) => in_run.is_some(),
            };
            let next = if from_run {
                std::mem::replace(&mut in_run, take_record(&mut walk, &self.state.runs, false)?)
            } else {
                in_memory.next().map(|(place, record)| (place, record.clone()))
            };
            let Some((place, record)) = next.filter(|(place, _)| is_taken(*place)) else {
                return Ok(sliding);
            };
            sliding.take(place, &record).ok_or_else(|| self.state.runs.damaged(place.time))?;
            if last.is_some_and(|last| place > last) {
                sliding.group.push_back((place, record.key));
            }
        }
    }
}

impl Sliding {
    fn new(size: Span, layout: Arc<Layout>) -> Self {
        let (spans, group) = (HashMap::new(), VecDeque::new());
        Self { size, layout, spans, taken: None, group, since_swept: 0 }
    }

    /// Takes the next record into the span of its key.
    fn take(&mut self, place: Place, record: &Buffered) -> Option<()> {
        let Kept::Row(bytes) = &record.kept else { return None };
        let mut row = RowBuf::new(&self.layout);
        self.layout.decode(bytes, &mut row.row_mut())?;
        if !self.spans.contains_key(&record.key) {
            self.spans.insert(record.key.clone(), KeySpan::new(&self.layout));
        }
        let span = self.spans.get_mut(&record.key)?;
        self.layout.merge(&mut span.all_newer.row_mut(), row.row());
        span.newer.push((place.time, row));
        self.taken = Some(place);
        Some(())
    }

    /// The window of `key` that ends with `end`, which is that of its newest record.
    fn window(&mut self, key: &[u8], end: EventTime) -> Option<RowBuf> {
        self.since_swept += 1;
        let from = spanned_from(end, self.size);
        let span = self.spans.get_mut(key)?;
        span.drop_before(from, &self.layout);
        let mut window = span.all_newer.clone();
        if let Some((_, older)) = span.older.last() {
            self.layout.merge(&mut window.row_mut(), older.row());
        }
        Some(window)
    }

    /// Forgets keys whose records are all too old for any window to come; at most one look at a key for each result.
    fn sweep(&mut self) {
        let Some(taken) = self.taken.filter(|_| self.since_swept > self.spans.len()) else { return };
        self.since_swept = 0;
        let from = spanned_from(taken.time, self.size);
        self.spans.retain(|_, span| span.newest() >= Some(from));
    }
}

impl KeySpan {
    fn new(layout: &Layout) -> Self {
        Self { older: Vec::new(), newer: Vec::new(), all_newer: RowBuf::new(layout) }
    }

    fn newest(&self) -> Option<EventTime> {
        let older = self.older.first().map(|(time, _)| *time);
        self.newer.last().map(|(time, _)| *time).max(older)
    }

    fn drop_before(&mut self, from: EventTime, layout: &Layout) {
        loop {
            while self.older.pop_if(|(time, _)| *time < from).is_some() {}
            let stale = self.newer.first().is_some_and(|(time, _)| *time < from);
            if !self.older.is_empty() || !stale {
                return;
            }
            self.all_newer.clear();
            for (time, mut row) in std::mem::take(&mut self.newer).into_iter().rev() {
                if let Some((_, behind)) = self.older.last() {
                    layout.merge(&mut row.row_mut(), behind.row());
                }
                self.older.push((time, row));
            }
        }
    }
}

/// Records before this are in no window that ends at or after `end`.
const fn spanned_from(end: EventTime, size: Span) -> EventTime {
    EventTime(end.0.saturating_sub(size.0).saturating_add(1))
}
