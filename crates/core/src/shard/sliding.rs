//! Sliding windows: for each record the aggregates over (t − size, t] of its key, in order of event time once W_s has passed it.
//!
//! ```text
//! frame ──► buffer: each record as a row, in order ──► those of one event time, of all keys ──► spans ──► a result for each
//! ```
//! All records of one event time go into their keys' spans before any of them leaves: they see each other. A record stays in the
//! buffer, for a restore, until no later window can hold it; X is W_s − size.

use std::{collections::VecDeque, sync::Arc};

use super::{ENTRY_OVERHEAD, Pane, ResultRow, ShardMachine, offset_of, payload_of, reorder::take_record};
use crate::{
    aggregate::{At, Layout, Row, RowBuf},
    block::Closing,
    dead_letter::Reason,
    frame::{RowReader, ShardFrame},
    ordered::{Buffered, KeyedRow, Place},
    runs::Unreadable,
    spans::Spans,
    time::{EventTime, Span},
};

/// Room for a record's own row, and for that as it is written.
#[derive(Debug)]
pub(super) struct Alone {
    row: RowBuf,
    bytes: Vec<u8>,
}

impl Alone {
    pub(super) fn new(layout: &Layout) -> Self {
        Self { row: RowBuf::new(layout), bytes: Vec::new() }
    }
}

/// The spans of all keys, and the records of the event time that they have come to. They follow from the buffer.
#[derive(Debug)]
pub(super) struct Sliding {
    size: Span,
    layout: Arc<Layout>,
    spans: Spans,
    /// Records up to this one are in their spans.
    taken: Option<Place>,
    /// Of these, the ones without a result, in order, with the span that each is in.
    group: VecDeque<(Place, usize)>,
    /// Results since spans without records were looked for.
    since_swept: usize,
    /// The window that was asked for last.
    window: RowBuf,
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
            let record = self.row_of_record(key, &mut reader, &place);
            self.buffer_record(place, record);
            applied += 1;
        }
        self.dirty.rows |= applied > 0;
        self.state.input_mut(frame.partition).applied += applied;
        lacking.map_or(Ok(()), Err)
    }

    /// The accumulators of the record that `reader` is at, alone.
    pub(super) fn row_of_record(
        &mut self,
        key: &[u8],
        reader: &mut RowReader<'_>,
        place: &Place,
    ) -> Buffered {
        let (layout, alone) = (&self.state.layout, &mut self.alone);
        let at = At { time: place.time, partition: place.partition, offset: place.offset };
        alone.row.clear();
        layout.add_record(&mut alone.row.row_mut());
        reader.values(|column, value| layout.add(&mut alone.row.row_mut(), column, value, &at));
        let encode = |out: &mut Vec<u8>| layout.encode(alone.row.row(), out);
        Buffered::Row(KeyedRow::new(key, &mut alone.bytes, encode))
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
        if let Some(watermark) = self.state.watermark {
            self.state.buffer.sort(sliding.taken, watermark);
        }
        let done = loop {
            if sliding.group.is_empty() && !self.take_group(&mut sliding)? {
                break true;
            }
            if self.is_full() {
                break false;
            }
            let Some((place, span)) = sliding.group.pop_front() else { break true };
            let Some((key, row)) = sliding.window(span, place.time) else { break true };
            let values = self.state.layout.results(row);
            self.out.bytes += key.len() + ENTRY_OVERHEAD + 24 * values.len();
            self.out.results.push(ResultRow {
                key: key.to_vec(),
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
        let in_memory = self.state.buffer.behind(after).take_while(|(place, _)| place.time == time);
        if in_run != Some(time) {
            for (place, record) in in_memory {
                sliding.take_due(place, record).ok_or_else(|| self.state.runs.damaged(time))?;
            }
            return Ok(true);
        }
        let mut group: Vec<_> = in_memory.map(|(place, record)| (place, record.clone())).collect();
        while self.first_in_runs(after)?.is_some_and(|place| place.time == time) {
            let walk = self.walk.as_mut().map(|walk| take_record(walk, &self.state.runs, false));
            let Some(record) = walk.transpose()?.flatten() else { break };
            group.push(record);
        }
        group.sort_unstable_by_key(|(place, _)| *place);
        for (place, record) in &group {
            sliding.take_due(*place, record).ok_or_else(|| self.state.runs.damaged(time))?;
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
            let is_due = last.is_some_and(|last| place > last);
            let taken = if is_due {
                sliding.take_due(place, &record)
            } else {
                sliding.take(place, &record).map(drop)
            };
            taken.ok_or_else(|| self.state.runs.damaged(place.time))?;
        }
    }
}

impl Sliding {
    fn new(size: Span, layout: Arc<Layout>) -> Self {
        let window = RowBuf::new(&layout);
        let (spans, group) = (Spans::default(), VecDeque::new());
        Self { size, layout, spans, taken: None, group, since_swept: 0, window }
    }

    /// Takes the next record into the span of its key, and gives the place of that.
    fn take(&mut self, place: Place, record: &Buffered) -> Option<usize> {
        let Buffered::Row(record) = record else { return None };
        let (key, row) = record.parts();
        let at = self.spans.of_key(key, &self.layout);
        self.spans.at_mut(at)?.push(place.time, row, &self.layout)?;
        self.taken = Some(place);
        Some(at)
    }

    /// Takes the next record, which is to have a result.
    fn take_due(&mut self, place: Place, record: &Buffered) -> Option<()> {
        let span = self.take(place, record)?;
        self.group.push_back((place, span));
        Some(())
    }

    /// Key and window of the span at a place: the window that ends with `end`, which is that of its newest record.
    fn window(&mut self, at: usize, end: EventTime) -> Option<(&[u8], Row<'_>)> {
        self.since_swept += 1;
        let from = spanned_from(end, self.size);
        let span = self.spans.at_mut(at)?;
        span.drop_before(from, &self.layout);
        span.merge_into(&mut self.window, &self.layout);
        Some((span.key(), self.window.row()))
    }

    /// Forgets keys whose records are all too old for any window to come; at most one look at a key for each result.
    fn sweep(&mut self) {
        let Some(taken) = self.taken.filter(|_| self.since_swept > self.spans.len()) else { return };
        self.since_swept = 0;
        self.spans.drop_before(spanned_from(taken.time, self.size));
    }
}

/// Records before this are in no window that ends at or after `end`.
const fn spanned_from(end: EventTime, size: Span) -> EventTime {
    EventTime(end.0.saturating_sub(size.0).saturating_add(1))
}
