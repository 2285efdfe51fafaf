//! Records of a shard in order of (event time, partition, offset): what reordering and sliding windows keep.
//!
//! ```text
//! records, about in order ──► insert ──► [ gone | out, still spanned | waiting … ] ──► first behind a place, until W_s
//! ```
//! Order within the shard is order within each key, so that there is one order and no heap for each key. A record has one place
//! and never changes: the same record inserted twice is there once. Memory is counted by bytes (I7).

use std::{
    collections::BTreeMap,
    ops::Bound::{Excluded, Unbounded},
    sync::Arc,
};

use crate::{
    block::{put_bytes, take_bytes},
    dead_letter::Payload,
    entry::{ordered, unordered},
    time::{EventTime, Offset, Partition},
};

/// Where a record stands: by event time, ties by partition, then offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Place {
    /// Its event time.
    pub time: EventTime,
    /// Where it is in the source topic.
    pub partition: Partition,
    /// Where it is in the partition.
    pub offset: Offset,
}

/// Bytes of a [`Place`].
pub const PLACE_BYTES: usize = 20;

impl Place {
    /// The place as bytes whose order is that of places. Frozen by `tests/golden`.
    #[must_use]
    pub fn to_bytes(self) -> [u8; PLACE_BYTES] {
        let mut bytes = [0; PLACE_BYTES];
        let (time, rest) = bytes.split_at_mut(8);
        let (partition, offset) = rest.split_at_mut(4);
        time.copy_from_slice(&ordered(self.time));
        partition.copy_from_slice(&self.partition.0.to_be_bytes());
        offset.copy_from_slice(&self.offset.0.to_be_bytes());
        bytes
    }

    /// Takes a place from the front of `bytes`; `None` when there is none.
    #[must_use]
    pub fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (time, rest) = bytes.split_first_chunk::<8>()?;
        let (partition, rest) = rest.split_first_chunk::<4>()?;
        let (offset, rest) = rest.split_first_chunk::<8>()?;
        *bytes = rest;
        Some(Self {
            time: unordered(*time),
            partition: Partition(u32::from_be_bytes(*partition)),
            offset: Offset(u64::from_be_bytes(*offset)),
        })
    }
}

/// A record that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Buffered {
    /// The group key.
    pub key: Box<[u8]>,
    /// What is kept of it.
    pub kept: Kept,
}

/// What is kept of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kept {
    /// Itself, as it was.
    Whole(Arc<Payload>),
    /// A row of accumulators of it alone, in its written form.
    Row(Box<[u8]>),
}

impl Buffered {
    /// Bytes of memory, about, beside the place.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.key.len()
            + match &self.kept {
                Kept::Whole(payload) => payload.bytes(),
                Kept::Row(row) => row.len(),
            }
    }

    /// What it takes in a log, about.
    fn written_bytes(&self) -> usize {
        let around = if let Kept::Whole(_) = self.kept { PAYLOAD_OVERHEAD } else { 0 };
        (self.bytes() + ENTRY_OVERHEAD).saturating_sub(around)
    }

    /// Appends it to `out`. Frozen by `tests/golden`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, &self.key);
        match &self.kept {
            Kept::Whole(payload) => payload.encode(out),
            Kept::Row(row) => out.extend_from_slice(row),
        }
    }

    /// Reads what [`Buffered::encode`] wrote of a record that is kept `whole`, or as a row; `None` when the bytes are not that.
    #[must_use]
    pub fn decode(mut bytes: &[u8], whole: bool) -> Option<Self> {
        let key = take_bytes(&mut bytes)?.into();
        if !whole {
            return Some(Self { key, kept: Kept::Row(bytes.into()) });
        }
        let payload = Payload::take(&mut bytes)?;
        bytes.is_empty().then(|| Self { key, kept: Kept::Whole(Arc::new(payload)) })
    }
}

/// Records in memory, in order.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    records: BTreeMap<Place, Buffered>,
    bytes: usize,
    written_bytes: usize,
    dirty: Vec<Place>,
}

/// What [`Payload::bytes`] adds for what is around a record, and what an entry of a log has around one, about.
const PAYLOAD_OVERHEAD: usize = 64;
const ENTRY_OVERHEAD: usize = 40;
/// What an entry of the map takes beside what is kept, about.
const RECORD_OVERHEAD: usize = size_of::<Place>() + 48;
/// As many places of new records are kept room for.
const DIRTY_KEPT: usize = 1_024;

impl Ordered {
    /// Takes a new record.
    pub fn insert(&mut self, place: Place, record: Buffered) {
        self.dirty.push(place);
        self.restore(place, record);
    }

    /// Takes a record that has been committed already.
    pub fn restore(&mut self, place: Place, record: Buffered) {
        self.bytes += record.bytes() + RECORD_OVERHEAD;
        self.written_bytes += record.written_bytes();
        if let Some(before) = self.records.insert(place, record) {
            self.count_out(&before);
        }
    }

    /// The place of the first record.
    #[must_use]
    pub fn first(&self) -> Option<Place> {
        self.records.first_key_value().map(|(place, _)| *place)
    }

    /// The records behind `after`, in order.
    pub fn behind(&self, after: Option<Place>) -> impl Iterator<Item = (Place, &Buffered)> {
        let bounds = (after.map_or(Unbounded, Excluded), Unbounded);
        self.records.range(bounds).map(|(place, record)| (*place, record))
    }

    /// Takes the first record out.
    pub fn pop_first(&mut self) -> Option<(Place, Buffered)> {
        let (place, record) = self.records.pop_first()?;
        self.count_out(&record);
        Some((place, record))
    }

    fn count_out(&mut self, record: &Buffered) {
        self.bytes = self.bytes.saturating_sub(record.bytes() + RECORD_OVERHEAD);
        self.written_bytes = self.written_bytes.saturating_sub(record.written_bytes());
    }

    /// Drops the records for which `is_gone`, from the first on to the first for which it is not.
    pub fn drop_while(&mut self, is_gone: impl Fn(Place) -> bool) {
        while self.records.first_key_value().is_some_and(|(place, _)| is_gone(*place)) {
            self.pop_first();
        }
    }

    /// Calls `write` for the records that came since this was last done and are still there.
    pub fn take_dirty(&mut self, mut write: impl FnMut(Place, &Buffered)) {
        for place in self.dirty.drain(..) {
            if let Some(record) = self.records.get(&place) {
                write(place, record);
            }
        }
        // What many records have left is not kept for few.
        self.dirty.shrink_to(DIRTY_KEPT);
    }

    /// The record at `place`.
    #[must_use]
    pub fn get(&self, place: Place) -> Option<&Buffered> {
        self.records.get(&place)
    }

    /// Number of records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// What the records take in a log, about.
    #[must_use]
    pub const fn written_bytes(&self) -> usize {
        self.written_bytes
    }

    /// Bytes of memory in use, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes + self.dirty.capacity() * size_of::<Place>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buffered(key: &[u8], value: Option<Vec<u8>>) -> Buffered {
        let headers = vec![("h".to_owned(), None), ("h".to_owned(), value.clone())];
        let payload = Payload { key: None, value, headers, timestamp: Some(-7) };
        Buffered { key: key.into(), kept: Kept::Whole(Arc::new(payload)) }
    }

    fn place(time: i64, partition: u32, offset: u64) -> Place {
        Place { time: EventTime(time), partition: Partition(partition), offset: Offset(offset) }
    }

    #[test]
    fn what_arrives_and_leaves_between_two_commits_is_not_dirty() {
        let mut buffer = Ordered::default();
        buffer.insert(place(5, 0, 0), buffered(b"a", None));
        buffer.insert(place(3, 0, 1), buffered(b"a", None));
        assert_eq!(buffer.pop_first().unwrap().0, place(3, 0, 1));
        let mut dirty = Vec::new();
        buffer.take_dirty(|place, _| dirty.push(place));
        buffer.take_dirty(|place, _| panic!("{place:?} is not new"));
        assert_eq!(dirty, [place(5, 0, 0)]);
    }

    #[test]
    fn a_record_that_comes_twice_counts_once() {
        let mut buffer = Ordered::default();
        buffer.restore(place(5, 0, 0), buffered(b"a", Some(vec![1; 100])));
        let once = buffer.bytes();
        buffer.restore(place(5, 0, 0), buffered(b"a", Some(vec![1; 100])));
        assert_eq!((buffer.len(), buffer.bytes()), (1, once));
        buffer.drop_while(|place| place.time < EventTime(6));
        assert_eq!((buffer.len(), buffer.bytes()), (0, 0));
    }

    proptest! {
        #[test]
        fn byte_order_is_the_order_of_places(
            a in any::<(i64, u32, u64)>(), b in any::<(i64, u32, u64)>()
        ) {
            let (a, b) = (place(a.0, a.1, a.2), place(b.0, b.1, b.2));
            prop_assert_eq!(a.to_bytes().cmp(&b.to_bytes()), a.cmp(&b));
            prop_assert_eq!(Place::take(&mut a.to_bytes().as_slice()), Some(a));
        }

        #[test]
        fn a_record_reads_back_whole(
            group in any::<Vec<u8>>(), key in any::<Option<Vec<u8>>>(), value in any::<Option<Vec<u8>>>(),
            headers in prop::collection::vec(any::<(String, Option<Vec<u8>>)>(), 0..4), timestamp in any::<Option<i64>>(),
            cut in 0usize..100
        ) {
            let payload = Payload { key, value, headers, timestamp };
            let record = Buffered { key: group.into(), kept: Kept::Whole(Arc::new(payload)) };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Buffered::decode(&bytes, true), Some(record));
            prop_assert_eq!(Buffered::decode(&bytes[..bytes.len() - 1 - cut % bytes.len()], true), None);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Buffered::decode(&bytes, true);
            let _ = Buffered::decode(&bytes, false);
        }
    }
}
