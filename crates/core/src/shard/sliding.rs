//! Sliding windows: for each record the aggregates over (t − size, t] of its key, in order of event time once W_s has passed it.
//!
//! ```text
//! frame ──► buffer: each record as a row, in order ──► those of one event time, of all keys ──► spans ──► a result for each
//! ```
//! All records of one event time go into their keys' spans before any of them leaves: they see each other. A record stays in the
//! buffer, for a restore, until no later window can hold it; X is W_s − size.
//!
//! Half of the shard's memory is for the spans: beyond it they leave for scratch ([`Spans`]), between two event times.

use std::{collections::VecDeque, sync::Arc};

use super::{
    ENTRY_OVERHEAD, Failure, Pane, ResultRow, ShardMachine, offset_of, payload_of, reorder::take_record,
    state::Operator,
};
use crate::{
    aggregate::{At, Layout, Row, RowBuf},
    block::Closing,
    dead_letter::Reason,
    frame::{RowReader, ShardFrame},
    ordered::{Buffered, KeyedRow, Place},
    scratch::{Scratch, ScratchError},
    spans::{Spans, Traffic},
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
    /// As many bytes may the spans take.
    most: Option<usize>,
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
        if self.state.closing.is_none() || self.failed.is_some() {
            return;
        }
        let mut last = None;
        match self.slide_due(size, &mut last) {
            Err(failure) => self.failed = Some(failure),
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
    fn slide_due(&mut self, size: Span, last: &mut Option<Place>) -> Result<bool, Failure> {
        let mut sliding = match self.sliding.take() {
            Some(sliding) => sliding,
            None => self.spans_so_far(size)?,
        };
        if let Some(watermark) = self.state.watermark {
            self.state.buffer.sort(sliding.taken, watermark);
        }
        sliding.most = self.memory.share.map(|share| share / 2);
        let done = loop {
            if sliding.group.is_empty() {
                sliding.make_room()?;
                if !self.take_group(&mut sliding)? {
                    break true;
                }
            }
            if self.is_full() {
                break false;
            }
            let Some((place, span)) = sliding.group.pop_front() else { break true };
            let Some((key, row)) = sliding.window(span, place.time)? else { break true };
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
        sliding.sweep()?;
        self.sliding = Some(sliding);
        Ok(done)
    }

    /// Takes the records of the next event time into their spans; false where W_s has not passed it.
    fn take_group(&mut self, sliding: &mut Sliding) -> Result<bool, Failure> {
        let after = sliding.taken;
        let in_run = self.first_in_runs(after)?.map(|place| place.time);
        let in_memory = self.state.buffer.behind(after).next().map(|(place, _)| place.time);
        let first = [in_run, in_memory].into_iter().flatten().min();
        let Some(time) = first.filter(|time| Some(*time) < self.state.watermark) else { return Ok(false) };
        let in_memory = self.state.buffer.behind(after).take_while(|(place, _)| place.time == time);
        if in_run != Some(time) {
            for (place, record) in in_memory {
                sliding.take_due(place, record)?.ok_or_else(|| self.state.runs.damaged(time))?;
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
            sliding.take_due(*place, record)?.ok_or_else(|| self.state.runs.damaged(time))?;
        }
        Ok(true)
    }

    /// The spans as the records in the buffer say, up to where results are out.
    fn spans_so_far(&mut self, size: Span) -> Result<Sliding, Failure> {
        let mut sliding = Sliding::new(size, Arc::clone(&self.state.layout));
        sliding.most = self.memory.share.map(|share| share / 2);
        if let Some(scratch) = self.scratch.take() {
            sliding.spans.set_scratch(scratch, self.limits.chunk_bytes);
        }
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
        let mut due = Vec::new();
        sliding.spans.begin_building();
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
            let Some((place, record)) = next.filter(|(place, _)| is_taken(*place)) else { break };
            sliding.take(place, &record)?.ok_or_else(|| self.state.runs.damaged(place.time))?;
            sliding.make_room()?;
            if last.is_some_and(|last| place > last) {
                due.push((place, record));
            }
        }
        sliding.spans.end_building(&sliding.layout)?;
        for (place, record) in due {
            let span = sliding.spans.of_key(record.key(), &sliding.layout)?;
            sliding.group.push_back((place, span));
        }
        Ok(sliding)
    }

    /// Where the spans of sliding windows have room beside memory; before the first commit.
    pub fn set_scratch(&mut self, scratch: Box<dyn Scratch>) {
        self.scratch = Some(scratch);
    }

    /// Takes up a release that a restore has found half-way; only now it is known how much memory there is.
    pub(super) fn resume_sliding(&mut self) {
        if let Operator::Sliding(size) = self.state.operator
            && self.sliding.is_none()
        {
            self.slide(size);
        }
    }

    /// Bytes of memory that the spans of sliding windows take, and bytes of them in scratch.
    #[must_use]
    pub fn span_bytes(&self) -> (usize, usize) {
        self.sliding.as_ref().map_or((0, 0), |sliding| (sliding.spans.bytes(), sliding.spans.bytes_away()))
    }

    /// How many spans of sliding windows have left memory and come back since this was last asked for.
    pub fn take_span_traffic(&mut self) -> Traffic {
        self.sliding.as_mut().map_or_else(Traffic::default, |sliding| sliding.spans.take_traffic())
    }
}

impl Sliding {
    fn new(size: Span, layout: Arc<Layout>) -> Self {
        let window = RowBuf::new(&layout);
        let (spans, group) = (Spans::default(), VecDeque::new());
        Self { size, layout, spans, taken: None, group, since_swept: 0, window, most: None }
    }

    /// Takes the next record into the span of its key, and gives the place of that; nothing when it does not read.
    fn take(&mut self, place: Place, record: &Buffered) -> Result<Option<usize>, ScratchError> {
        let Buffered::Row(record) = record else { return Ok(None) };
        let (key, row) = record.parts();
        let at = self.spans.of_key(key, &self.layout)?;
        self.taken = Some(place);
        Ok(self.spans.push(at, place.time, row, &self.layout).map(|()| at))
    }

    /// Takes the next record, which is to have a result.
    fn take_due(&mut self, place: Place, record: &Buffered) -> Result<Option<()>, ScratchError> {
        let span = self.take(place, record)?;
        Ok(span.map(|span| self.group.push_back((place, span))))
    }

    /// Key and window of the span at a place: the window that ends with `end`, which is that of its newest record.
    fn window(&mut self, at: usize, end: EventTime) -> Result<Option<(&[u8], Row<'_>)>, ScratchError> {
        self.since_swept += 1;
        let from = spanned_from(end, self.size);
        let key = self.spans.window(at, from, &mut self.window, &self.layout)?;
        Ok(key.map(|key| (key, self.window.row())))
    }

    /// Has spans leave memory where they take more than they may; not while records of their keys wait for results.
    fn make_room(&mut self) -> Result<(), ScratchError> {
        let Some(most) = self.most.filter(|most| self.spans.bytes() > *most) else { return Ok(()) };
        // Not for each record anew.
        self.spans.make_room(most / 4 * 3, &self.layout)
    }

    /// Forgets keys whose records are all too old for any window to come; at most one look at a key for each result.
    fn sweep(&mut self) -> Result<(), ScratchError> {
        let Some(taken) = self.taken.filter(|_| self.since_swept > self.spans.looks()) else { return Ok(()) };
        self.since_swept = 0;
        self.spans.drop_before(spanned_from(taken.time, self.size), &self.layout)
    }
}

/// Records before this are in no window that ends at or after `end`.
const fn spanned_from(end: EventTime, size: Span) -> EventTime {
    EventTime(end.0.saturating_sub(size.0).saturating_add(1))
}
