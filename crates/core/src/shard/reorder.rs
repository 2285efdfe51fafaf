//! Reordering: records wait in order of (event time, partition, offset) and leave as they are once W_s has passed them.
//!
//! ```text
//! frame ──► memory ── full ──► a run: parts of about 1 MiB, each under its last event time ──► the local store
//!              └───── the first of both, below W_s ──► results, in order; resumed behind the last one that is out
//! ```
//! A record that is out is gone: from memory at once, from the runs with the part that it is in. So what arrives and leaves between
//! two commits is never logged, and nothing is ever deleted by name (design §7).

use std::sync::Arc;

use super::{ENTRY_OVERHEAD, Reordered, ShardMachine, ShardState, offset_of};
use crate::{
    block::Closing,
    dead_letter::Reason,
    frame::ShardFrame,
    ordered::{Buffered, PLACE_BYTES, Place},
    runs::{Part, Unreadable, Walk},
    time::EventTime,
};

/// Chunks of a part, about.
const PART_CHUNKS: usize = 256;

impl ShardMachine {
    /// Takes the records from offset delta `skip` on; the offset delta of the first that lacks its payload is the error.
    pub(super) fn apply_to_buffer(&mut self, frame: &ShardFrame, skip: u32) -> Result<(), u32> {
        let rows = &frame.rows;
        let first = rows.offsets.partition_point(|delta| *delta < skip);
        let mut payloads = rows.payloads.iter().skip_while(|(row, _)| (*row as usize) < first).peekable();
        let (mut applied, mut lacking) = (0, None);
        for row in first..rows.len() {
            let Some(payload) = payloads.next_if(|(at, _)| *at as usize == row) else {
                lacking = rows.offsets.get(row).copied();
                break;
            };
            let (payload, offset) = (Arc::clone(&payload.1), offset_of(frame, row));
            let time = rows.times.get(row).map_or(EventTime(0), |time| EventTime(*time));
            if time < self.on_time_from {
                self.push_late(frame, row, (Reason::Late, None), payload);
                continue;
            }
            let record = Buffered::Whole { key: rows.key(row).into(), payload };
            self.buffer_record(Place { time, partition: frame.partition, offset }, record);
            applied += 1;
        }
        self.dirty.rows |= applied > 0;
        self.state.input_mut(frame.partition).applied += applied;
        lacking.map_or(Ok(()), Err)
    }

    pub(super) fn buffer_record(&mut self, place: Place, record: Buffered) {
        self.dirty.bytes += record.bytes() + ENTRY_OVERHEAD;
        self.state.buffer.insert(place, record);
    }

    /// Puts out the records below W_s until all are out or the next commit is full.
    pub(super) fn release(&mut self) {
        if self.state.closing.is_none() {
            return;
        }
        let mut last = None;
        let released = self.release_due(&mut last);
        if let Err(unreadable) = released {
            self.failed = Some(unreadable.into());
        } else if released == Ok(true) {
            self.end_closing();
        } else if let (Some(place), Some(closing)) = (last, &self.state.closing) {
            let done = closing.done;
            self.state.closing = Some(Closing { done, key: Some(place.to_bytes().to_vec()) });
            self.state.purge(place.time);
        }
    }

    /// Notes the last record that it put out; true when none is left.
    fn release_due(&mut self, last: &mut Option<Place>) -> Result<bool, Unreadable> {
        loop {
            let in_run = self.first_in_runs(None)?;
            let in_memory = self.state.buffer.first();
            let first = [in_run, in_memory].into_iter().flatten().min();
            let Some(first) = first.filter(|first| Some(first.time) < self.state.watermark) else {
                return Ok(true);
            };
            if self.is_full() {
                return Ok(false);
            }
            let record = if in_run == Some(first) {
                let walk = self.walk.as_mut().map(|walk| take_record(walk, &self.state.runs, true));
                walk.transpose()?.flatten()
            } else {
                self.state.buffer.pop_first()
            };
            let Some((place, record)) = record else { return Ok(true) };
            *last = Some(place);
            self.out.bytes += record.bytes() + ENTRY_OVERHEAD;
            let Buffered::Whole { key, payload } = record else { continue };
            self.out.reordered.push(Reordered { place, key, payload });
        }
    }

    /// The place of the first record in the runs that is not out, or the first behind `after`, where the walk is there already.
    pub(super) fn first_in_runs(&mut self, after: Option<Place>) -> Result<Option<Place>, Unreadable> {
        if self.state.runs.is_empty() {
            self.walk = None;
            return Ok(None);
        }
        let walk = match &mut self.walk {
            Some(walk) => walk,
            closed => closed.insert(self.state.walk(after, u64::MAX)?),
        };
        Ok(walk.row().and_then(|(mut key, _)| Place::take(&mut key)))
    }
}

impl ShardState {
    /// A walk over the records in runs up to `run` that are behind `after`, and not out.
    pub(super) fn walk(&self, after: Option<Place>, run: u64) -> Result<Walk, Unreadable> {
        let parts = self.runs.parts().filter(|part| part.run <= run);
        let after = after.map(behind).max(self.gone_to()).unwrap_or_default();
        Walk::new(parts, &after, &self.runs)
    }

    /// Bytes behind the keys of all records that are gone.
    fn gone_to(&self) -> Option<Vec<u8>> {
        let last = self.last_out().and_then(|mut key| Place::take(&mut key)).map(behind);
        last.max(self.purged.map(|purged| crate::entry::ordered(purged).to_vec()))
    }

    /// Where the last record stands that a release under way has put out, and that is gone with that.
    fn last_out(&self) -> Option<&[u8]> {
        self.closing.as_ref().filter(|_| self.keeps_records()).and_then(|closing| closing.key.as_deref())
    }

    /// Whether the record there is gone.
    pub(super) fn is_gone(&self, place: Place) -> bool {
        let last = self.last_out();
        self.purged.is_some_and(|purged| place.time < purged) || last >= Some(place.to_bytes().as_slice())
    }

    /// Drops from memory what is out.
    pub(super) fn forget_gone(&mut self) {
        while self.buffer.first().is_some_and(|first| self.is_gone(first)) {
            self.buffer.pop_first();
        }
    }

    /// The records in memory as parts of the run that they are to become.
    pub(super) fn buffer_parts(&mut self) -> Vec<Part> {
        let buffer = std::mem::take(&mut self.buffer);
        let records = buffer.behind(None).map(|(place, record)| {
            let mut value = Vec::new();
            record.encode(&mut value);
            (place, value)
        });
        let parts = self.write_parts(self.run, records);
        self.buffer = buffer;
        parts
    }

    /// Writes records, which come in order, as parts of `run`.
    pub(super) fn write_parts<V: AsRef<[u8]>>(
        &mut self,
        run: u64,
        records: impl Iterator<Item = (Place, V)>,
    ) -> Vec<Part> {
        let piece = self.runs.chunk_bytes();
        let mut records = records.peekable();
        let (mut parts, mut taken, mut bytes) = (Vec::new(), Vec::new(), 0);
        while let Some((place, value)) = records.next() {
            bytes += PLACE_BYTES + value.as_ref().len();
            taken.push((place, value));
            if bytes < PART_CHUNKS * piece && records.peek().is_some() {
                continue;
            }
            let mut writer = self.runs.writer(place.time, run);
            for (place, value) in taken.drain(..) {
                for (at, piece) in pieces(value.as_ref(), piece) {
                    writer.push(&piece_key(place, at), piece);
                }
            }
            parts.push(writer.finish());
            bytes = 0;
        }
        parts
    }

    /// Takes the records of `parts`, which stand for memory.
    pub(super) fn load_parts(&mut self, parts: &[Arc<Part>]) -> Result<(), Unreadable> {
        let mut walk = Walk::new(parts.iter(), &[], &self.runs)?;
        let whole = self.keeps_records();
        while let Some((place, record)) = take_record(&mut walk, &self.runs, whole)? {
            if !self.is_gone(place) && !self.buffer.holds(place) {
                self.buffer.restore(place, record);
            }
        }
        Ok(())
    }
}

/// Takes the record that the walk is at: it may lie in several rows.
pub(super) fn take_record(
    walk: &mut Walk,
    runs: &crate::runs::Runs,
    whole: bool,
) -> Result<Option<(Place, Buffered)>, Unreadable> {
    let Some((place, value)) = take_value(walk, runs)? else { return Ok(None) };
    let record = Buffered::decode(&value, whole).ok_or_else(|| runs.damaged(place.time))?;
    Ok(Some((place, record)))
}

/// Takes the record that the walk is at in its written form.
pub(super) fn take_value(
    walk: &mut Walk,
    runs: &crate::runs::Runs,
) -> Result<Option<(Place, Vec<u8>)>, Unreadable> {
    let Some((mut key, value)) = walk.row() else { return Ok(None) };
    let Some(place) = Place::take(&mut key) else { return Ok(None) };
    let mut value = value.to_vec();
    walk.advance(runs)?;
    while let Some((key, more)) = walk.row()
        && key.len() > PLACE_BYTES
        && key.starts_with(&place.to_bytes())
    {
        value.extend_from_slice(more);
        walk.advance(runs)?;
    }
    Ok(Some((place, value)))
}

/// A value as rows of at most `bytes`: large chunks are more than a local store takes well.
fn pieces(value: &[u8], bytes: usize) -> impl Iterator<Item = (u32, &[u8])> {
    let first = value.split_at_checked(bytes.max(64)).map_or(value, |(first, _)| first);
    let rest = value.get(first.len()..).unwrap_or_default();
    std::iter::once((0, first)).chain((1..).zip(rest.chunks(bytes.max(64))))
}

/// The key of a row: the place, and behind it the number of the piece, but not for the first.
fn piece_key(place: Place, at: u32) -> Vec<u8> {
    let mut key = place.to_bytes().to_vec();
    if at > 0 {
        key.extend_from_slice(&at.to_be_bytes());
    }
    key
}

/// Bytes behind all rows of the record there.
fn behind(place: Place) -> Vec<u8> {
    let mut bytes = place.to_bytes().to_vec();
    bytes.extend_from_slice(&[0xff; 4]);
    bytes
}
