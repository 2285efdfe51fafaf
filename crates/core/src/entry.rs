//! The entries of a shard's state, as ordered keys and values: what the changelog and the local store hold.
//!
//! ```text
//! 00 partition                 → next, watermark, applied, dead-lettered
//! 01 slice start  group key    → the row of accumulators
//! 02 window end   group key    → how often the window's result has been emitted
//! 03 slice start  group key    → the row that all runs before a snapshot merge to: only in a changelog
//! 04 slice start  file         → the index of a part of a run: only in a local store
//! 05 start        group key    → a session: its length, how often its result has been emitted, the row of accumulators
//! 06 partition    block        → which dead letters of that block have come back ([`crate::replay`])
//! 07 group key                 → nothing: what runs have of its sessions does not count, those in memory stand for them
//! 10 event time  partition  offset → a record that waits, with its group key
//! 11 event time  partition  offset → such a record in a run before a snapshot: only in a changelog
//! ```
//! Numbers are big-endian with the sign bit flipped, so that byte order is number order and "windows that ended before X"
//! is a range. Frozen by `tests/golden`.

use crate::{
    aggregate::{put_varint, take_varint},
    job::OperatorSpec,
    ordered::Place,
    time::{EventTime, Offset, Partition, Watermark},
};

const POSITION: u8 = 0;
const ROW: u8 = 1;
const REVISION: u8 = 2;
const BASE: u8 = 3;
const INDEX: u8 = 4;
const SESSION: u8 = 5;
const ANSWERED: u8 = 6;
const PULLED: u8 = 7;
const BUFFERED: u8 = 16;
const BUFFERED_BASE: u8 = 17;

/// A key of the state, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EntryKey<'a> {
    /// The shard's input from a partition.
    Position(Partition),
    /// The accumulators of a group key in the slice that starts there.
    Row(EventTime, &'a [u8]),
    /// The revisions of a group key's result in the window that ends there.
    Revision(EventTime, &'a [u8]),
    /// The accumulators of a group key in the slice that starts there, of all runs before a snapshot ([`crate::runs`]).
    Base(EventTime, &'a [u8]),
    /// The part of a run with this file number, in the slice that starts there.
    Index(EventTime, u64),
    /// The session of a group key that starts there.
    Session(EventTime, &'a [u8]),
    /// Of a partition of the dead-letter topic, the block of offsets with this number.
    Answered(Partition, u64),
    /// The sessions of a group key have been taken out of runs, into memory.
    Pulled(&'a [u8]),
    /// A record that waits ([`crate::ordered`]).
    Buffered(Place),
    /// A record that waits in a run before a snapshot.
    BufferedBase(Place),
}

impl<'a> EntryKey<'a> {
    /// Appends the key's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Position(partition) => {
                out.push(POSITION);
                out.extend_from_slice(&partition.0.to_be_bytes());
            }
            Self::Answered(partition, block) => {
                out.push(ANSWERED);
                out.extend_from_slice(&partition.0.to_be_bytes());
                out.extend_from_slice(&block.to_be_bytes());
            }
            Self::Row(time, key) => encode_timed(ROW, *time, key, out),
            Self::Revision(time, key) => encode_timed(REVISION, *time, key, out),
            Self::Base(time, key) => encode_timed(BASE, *time, key, out),
            Self::Session(time, key) => encode_timed(SESSION, *time, key, out),
            Self::Pulled(key) => {
                out.push(PULLED);
                out.extend_from_slice(key);
            }
            Self::Index(time, file) => encode_timed(INDEX, *time, &file.to_be_bytes(), out),
            Self::Buffered(place) => encode_placed(BUFFERED, *place, out),
            Self::BufferedBase(place) => encode_placed(BUFFERED_BASE, *place, out),
        }
    }

    /// Whether this is of a snapshot of runs, which a local store has.
    #[must_use]
    pub const fn is_base(&self) -> bool {
        matches!(self, Self::Base(..) | Self::BufferedBase(..))
    }

    /// Reads a key; `None` when the bytes are not one.
    #[must_use]
    pub fn decode(bytes: &'a [u8]) -> Option<Self> {
        let (kind, rest) = bytes.split_first()?;
        if *kind == POSITION {
            return Some(Self::Position(Partition(u32::from_be_bytes(rest.try_into().ok()?))));
        }
        if *kind == ANSWERED {
            let (partition, block) = rest.split_first_chunk::<4>()?;
            let block = u64::from_be_bytes(block.try_into().ok()?);
            return Some(Self::Answered(Partition(u32::from_be_bytes(*partition)), block));
        }
        if *kind == PULLED {
            return Some(Self::Pulled(rest));
        }
        if matches!(*kind, BUFFERED | BUFFERED_BASE) {
            let mut rest = rest;
            let place = Place::take(&mut rest).filter(|_| rest.is_empty())?;
            return Some(if *kind == BUFFERED { Self::Buffered(place) } else { Self::BufferedBase(place) });
        }
        let (time, key) = rest.split_first_chunk::<8>()?;
        let time = unordered(*time);
        match *kind {
            ROW => Some(Self::Row(time, key)),
            REVISION => Some(Self::Revision(time, key)),
            BASE => Some(Self::Base(time, key)),
            SESSION => Some(Self::Session(time, key)),
            INDEX => Some(Self::Index(time, u64::from_be_bytes(key.try_into().ok()?))),
            _ => None,
        }
    }
}

fn encode_timed(kind: u8, time: EventTime, key: &[u8], out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&ordered(time));
    out.extend_from_slice(key);
}

fn encode_placed(kind: u8, place: Place, out: &mut Vec<u8>) {
    out.push(kind);
    out.extend_from_slice(&place.to_bytes());
}

const SIGN: u64 = 1 << 63;

pub(crate) fn ordered(time: EventTime) -> [u8; 8] {
    (time.0.cast_unsigned() ^ SIGN).to_be_bytes()
}

pub(crate) fn unordered(bytes: [u8; 8]) -> EventTime {
    EventTime((u64::from_be_bytes(bytes) ^ SIGN).cast_signed())
}

/// The key ranges, start inclusive and end exclusive, that hold only windows that ended at or before `purged`.
#[must_use]
pub fn purged_ranges(operator: &OperatorSpec, purged: EventTime) -> [(Vec<u8>, Vec<u8>); 4] {
    let live = operator.first_live_slice(purged);
    let bound = |kind: u8, time: EventTime| {
        let mut key = vec![kind];
        key.extend_from_slice(&ordered(time));
        key
    };
    [
        (vec![ROW], bound(ROW, live)),
        (vec![REVISION], bound(REVISION, EventTime(purged.0.saturating_add(1)))),
        (vec![INDEX], bound(INDEX, live)),
        (vec![BUFFERED], bound(BUFFERED, live)),
    ]
}

/// The keys of all rows and records that wait, start inclusive and end exclusive.
#[must_use]
pub fn all_rows() -> [(Vec<u8>, Vec<u8>); 4] {
    [ROW, SESSION, PULLED, BUFFERED].map(|kind| (vec![kind], vec![kind + 1]))
}

/// Chunks whose names are below this are of windows that ended at or before `purged` ([`crate::runs::ChunkId::to_bytes`]).
#[must_use]
pub fn purged_chunks(operator: &OperatorSpec, purged: EventTime) -> [u8; 8] {
    ordered(operator.first_live_slice(purged))
}

/// What a shard has covered of one partition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Input {
    /// `next[s][p]`: the smallest offset not covered.
    pub next: Offset,
    /// The partition's watermark in band at `next`.
    pub watermark: Watermark,
    /// Records applied so far.
    pub applied: u64,
    /// Records dead-lettered so far (a partly late one counts as applied).
    pub dead: u64,
}

impl Input {
    /// Appends the value's bytes to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, u128::from(self.next.0));
        put_watermark(out, self.watermark);
        put_varint(out, u128::from(self.applied));
        put_varint(out, u128::from(self.dead));
    }

    /// Reads a value; `None` when the bytes are not one.
    #[must_use]
    pub fn decode(mut bytes: &[u8]) -> Option<Self> {
        let bytes = &mut bytes;
        let input = Self {
            next: Offset(take_u64(bytes)?),
            watermark: take_watermark(bytes)?,
            applied: take_u64(bytes)?,
            dead: take_u64(bytes)?,
        };
        bytes.is_empty().then_some(input)
    }
}

pub(crate) fn take_u64(bytes: &mut &[u8]) -> Option<u64> {
    u64::try_from(take_varint(bytes)?).ok()
}

pub(crate) fn put_watermark(out: &mut Vec<u8>, watermark: Watermark) {
    match watermark {
        None => out.push(0),
        Some(time) => {
            out.push(1);
            out.extend_from_slice(&time.0.to_be_bytes());
        }
    }
}

pub(crate) fn take_watermark(bytes: &mut &[u8]) -> Option<Watermark> {
    let (flag, rest) = bytes.split_first()?;
    match *flag {
        0 => {
            *bytes = rest;
            Some(None)
        }
        1 => {
            let (time, rest) = rest.split_first_chunk::<8>()?;
            *bytes = rest;
            Some(Some(EventTime(i64::from_be_bytes(*time))))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{job::WindowSpec, time::Span, window::Grid};
    use proptest::prelude::*;

    fn bytes(key: EntryKey<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        key.encode(&mut out);
        out
    }

    proptest! {
        #[test]
        fn byte_order_is_time_then_key_order(
            a in any::<(i64, Vec<u8>)>(), b in any::<(i64, Vec<u8>)>()
        ) {
            let row = |(time, key): &(i64, Vec<u8>)| bytes(EntryKey::Row(EventTime(*time), key));
            prop_assert_eq!(row(&a).cmp(&row(&b)), a.cmp(&b));
        }

        #[test]
        fn keys_and_values_read_back(time in any::<i64>(), key in any::<Vec<u8>>(), input in any::<(u64, Option<i64>, u64, u64)>()) {
            let place = Place { time: EventTime(time), partition: Partition(3), offset: Offset(input.0) };
            for entry in [EntryKey::Row(EventTime(time), &key), EntryKey::Revision(EventTime(time), &key), EntryKey::Base(EventTime(time), &key), EntryKey::Index(EventTime(time), 9), EntryKey::Session(EventTime(time), &key), EntryKey::Buffered(place), EntryKey::BufferedBase(place), EntryKey::Pulled(&key), EntryKey::Answered(Partition(7), input.0), EntryKey::Position(Partition(7))] {
                let encoded = bytes(entry);
                prop_assert_eq!(EntryKey::decode(&encoded), Some(entry));
            }
            let input = Input { next: Offset(input.0), watermark: input.1.map(EventTime), applied: input.2, dead: input.3 };
            let mut out = Vec::new();
            input.encode(&mut out);
            prop_assert_eq!(Input::decode(&out), Some(input));
        }

        #[test]
        fn purged_ranges_hold_exactly_the_windows_that_ended(
            time in -1_000i64..1_000, purged in -1_000i64..1_000, step in 1i64..30, extra in 0i64..60
        ) {
            let spec = WindowSpec { size: Span(step + extra), step: Span(step), offset: Span(3), zone: None };
            let grid = Grid::new(&spec);
            let slice = grid.slice_of(EventTime(time));
            let [rows, revisions, parts, _] = purged_ranges(&OperatorSpec::Windows(spec), EventTime(purged));
            let inside = |range: &(Vec<u8>, Vec<u8>), key: &[u8]| range.0.as_slice() <= key && key < range.1.as_slice();
            prop_assert_eq!(inside(&rows, &bytes(EntryKey::Row(slice, b"k"))), grid.last_end(slice) <= EventTime(purged));
            prop_assert_eq!(inside(&parts, &bytes(EntryKey::Index(slice, 1))), grid.last_end(slice) <= EventTime(purged));
            prop_assert_eq!(inside(&revisions, &bytes(EntryKey::Revision(EventTime(time), b"k"))), time <= purged);
        }
    }
}
