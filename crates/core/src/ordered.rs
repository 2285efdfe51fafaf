//! Records of a shard in order of (event time, partition, offset): what reordering and sliding windows keep.
//!
//! ```text
//! records, about in order ──► insert ──► [ gone | out, still spanned | waiting … ] ──► first behind a place, until W_s
//!                                        buckets of up to 256, each with its own range; in a bucket sorted once it is read
//! ```
//! Order within the shard is order within each key, so that there is one order and no heap for each key. A record has one place
//! and never changes. Memory is counted by bytes (I7).

use std::{
    collections::{BTreeMap, VecDeque},
    ops::Bound::{Included, Unbounded},
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
pub enum Buffered {
    /// The record as it was.
    Whole {
        /// Its group key.
        key: Box<[u8]>,
        /// Itself.
        payload: Arc<Payload>,
    },
    /// A row of accumulators of it alone.
    Row(KeyedRow),
}

/// A group key and a row, in their written form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedRow(Box<[u8]>);

impl KeyedRow {
    /// Both, `encode` appending the row; `bytes` is room for that, and what is in it is of no matter.
    pub fn new(key: &[u8], bytes: &mut Vec<u8>, encode: impl FnOnce(&mut Vec<u8>)) -> Self {
        bytes.clear();
        put_bytes(bytes, key);
        encode(bytes);
        Self(bytes.as_slice().into())
    }

    /// The group key, and the row as it was encoded.
    #[must_use]
    pub fn parts(&self) -> (&[u8], &[u8]) {
        let mut bytes = &*self.0;
        let key = take_bytes(&mut bytes).unwrap_or_default();
        (key, bytes)
    }
}

impl Buffered {
    /// The group key.
    #[must_use]
    pub fn key(&self) -> &[u8] {
        match self {
            Self::Whole { key, .. } => key,
            Self::Row(row) => row.parts().0,
        }
    }

    /// Bytes of memory, about, beside the place.
    #[must_use]
    pub fn bytes(&self) -> usize {
        match self {
            Self::Whole { key, payload } => key.len() + payload.bytes(),
            Self::Row(row) => row.0.len(),
        }
    }

    /// What it takes in a log, about.
    fn written_bytes(&self) -> usize {
        let around = if let Self::Whole { .. } = self { PAYLOAD_OVERHEAD } else { 0 };
        (self.bytes() + ENTRY_OVERHEAD).saturating_sub(around)
    }

    /// Appends it to `out`. Frozen by `tests/golden`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Whole { key, payload } => {
                put_bytes(out, key);
                payload.encode(out);
            }
            Self::Row(row) => out.extend_from_slice(&row.0),
        }
    }

    /// Reads what [`Buffered::encode`] wrote of a record that is kept `whole`, or as a row; `None` when the bytes are not that.
    #[must_use]
    pub fn decode(mut bytes: &[u8], whole: bool) -> Option<Self> {
        let all = bytes;
        let key = take_bytes(&mut bytes)?;
        if !whole {
            return Some(Self::Row(KeyedRow(all.into())));
        }
        let payload = Payload::take(&mut bytes)?;
        bytes.is_empty().then(|| Self::Whole { key: key.into(), payload: Arc::new(payload) })
    }
}

/// Records in memory, in order.
#[derive(Clone, Debug, Default)]
pub struct Ordered {
    /// Each holds the records from its key on to the next key. None is empty.
    buckets: BTreeMap<Place, Bucket>,
    sums: Sums,
}

/// What there is of records.
#[derive(Clone, Copy, Debug, Default)]
struct Sums {
    records: usize,
    bytes: usize,
    written_bytes: usize,
}

#[derive(Clone, Debug, Default)]
struct Bucket {
    entries: VecDeque<Entry>,
    is_unsorted: bool,
    has_new: bool,
}

/// The fields of a place lie here one by one, so that the mark takes no room.
#[derive(Clone, Debug)]
struct Entry {
    time: EventTime,
    offset: Offset,
    partition: Partition,
    /// Came since the new ones were last asked for.
    is_new: bool,
    record: Buffered,
}

/// What [`Payload::bytes`] adds for what is around a record, and what an entry of a log has around one, about.
const PAYLOAD_OVERHEAD: usize = 64;
const ENTRY_OVERHEAD: usize = 40;
/// What an entry takes beside what is kept, its share of the room that a bucket has left included, about.
const RECORD_OVERHEAD: usize = size_of::<Entry>() * 3 / 2;
/// A bucket has at most as many records.
const FULL: usize = 256;

impl Sums {
    fn add(&mut self, record: &Buffered) {
        self.records += 1;
        self.bytes += record.bytes() + RECORD_OVERHEAD;
        self.written_bytes += record.written_bytes();
    }

    fn take(&mut self, record: &Buffered) {
        self.records -= 1;
        self.bytes -= record.bytes() + RECORD_OVERHEAD;
        self.written_bytes -= record.written_bytes();
    }
}

impl Entry {
    const fn new(Place { time, partition, offset }: Place, is_new: bool, record: Buffered) -> Self {
        Self { time, offset, partition, is_new, record }
    }

    const fn place(&self) -> Place {
        Place { time: self.time, partition: self.partition, offset: self.offset }
    }
}

impl Bucket {
    fn push(&mut self, entry: Entry) {
        self.is_unsorted |= self.entries.back().is_some_and(|last| entry.place() < last.place());
        self.has_new |= entry.is_new;
        self.entries.push_back(entry);
    }

    fn sort(&mut self) {
        if std::mem::take(&mut self.is_unsorted) {
            // A stable sort takes what was sorted before as one run.
            self.entries.make_contiguous().sort_by_key(Entry::place);
        }
    }

    /// The entries behind `after`, in order.
    fn behind(&self, after: Option<Place>) -> impl Iterator<Item = &Entry> {
        let is_before = |entry: &Entry| Some(entry.place()) <= after;
        let mut sorted = Vec::new();
        if self.is_unsorted {
            sorted.extend(self.entries.iter().filter(|entry| !is_before(entry)));
            sorted.sort_by_key(|entry| entry.place());
        }
        let as_they_lie =
            (!self.is_unsorted).then(|| self.entries.range(self.entries.partition_point(is_before)..));
        as_they_lie.into_iter().flatten().chain(sorted)
    }
}

impl Ordered {
    /// Takes a new record: none is at its place.
    pub fn insert(&mut self, place: Place, record: Buffered) {
        self.push(Entry::new(place, true, record));
    }

    /// Takes a record that has been committed already, for the one at its place where there is one.
    pub fn restore(&mut self, place: Place, record: Buffered) {
        let entry = Entry::new(place, false, record);
        let key = self.bucket_of(place).filter(|key| *key <= place);
        let Some(bucket) = key.and_then(|key| self.buckets.get_mut(&key)) else {
            return self.push(entry);
        };
        bucket.sort();
        match bucket.entries.binary_search_by_key(&place, Entry::place) {
            Ok(at) => {
                let Some(there) = bucket.entries.get_mut(at) else { return };
                self.sums.take(&there.record);
                self.sums.add(&entry.record);
                there.record = entry.record;
            }
            Err(at) if bucket.entries.len() < FULL => {
                self.sums.add(&entry.record);
                bucket.entries.insert(at, entry);
            }
            Err(_) => self.push(entry),
        }
    }

    fn push(&mut self, entry: Entry) {
        self.sums.add(&entry.record);
        let place = entry.place();
        match self.buckets.range_mut(..=place).next_back() {
            Some((_, bucket)) if bucket.entries.len() < FULL => bucket.push(entry),
            _ => self.bucket_with_room(place).push(entry),
        }
    }

    /// The bucket for `place`: where that is full, its upper half becomes a new one, or a new one begins behind it.
    fn bucket_with_room(&mut self, place: Place) -> &mut Bucket {
        let key = self.bucket_of(place).unwrap_or(place);
        let mut bucket = self.buckets.remove(&key).unwrap_or_default();
        // It is the first where `place` is before its key.
        let mut key = key.min(place);
        if bucket.entries.len() >= FULL {
            bucket.sort();
            let is_behind = bucket.entries.back().is_some_and(|last| last.place() < place);
            let (at, has_new) = (if is_behind { FULL } else { FULL / 2 }, bucket.has_new);
            let mut other = Bucket { entries: bucket.entries.split_off(at), is_unsorted: false, has_new };
            let mut other_key = other.entries.front().map_or(place, Entry::place);
            if other_key <= place {
                std::mem::swap(&mut bucket, &mut other);
                std::mem::swap(&mut key, &mut other_key);
            }
            self.buckets.insert(other_key, other);
        }
        let there = self.buckets.entry(key).or_default();
        *there = bucket;
        there
    }

    /// Whether there is a record at `place`.
    #[must_use]
    pub fn holds(&mut self, place: Place) -> bool {
        let bucket = self.bucket_of(place).and_then(|key| self.buckets.get_mut(&key));
        bucket.is_some_and(|bucket| {
            bucket.sort();
            bucket.entries.binary_search_by_key(&place, Entry::place).is_ok()
        })
    }

    /// The key of the bucket that `place` belongs to: the last that begins there or before, or the first of all.
    fn bucket_of(&self, place: Place) -> Option<Place> {
        let before = self.buckets.range(..=place).next_back();
        before.or_else(|| self.buckets.first_key_value()).map(|(key, _)| *key)
    }

    /// The place of the first record.
    #[must_use]
    pub fn first(&mut self) -> Option<Place> {
        let bucket = self.buckets.first_entry()?.into_mut();
        bucket.sort();
        bucket.entries.front().map(Entry::place)
    }

    /// Sorts what [`behind`](Self::behind) gives of records before `until`, so that it has them at hand.
    pub fn sort(&mut self, after: Option<Place>, until: EventTime) {
        let first = after.and_then(|after| self.bucket_of(after));
        let buckets = self.buckets.range_mut((first.map_or(Unbounded, Included), Unbounded));
        buckets.take_while(|(key, _)| key.time < until).for_each(|(_, bucket)| bucket.sort());
    }

    /// The records behind `after`, in order.
    pub fn behind(&self, after: Option<Place>) -> impl Iterator<Item = (Place, &Buffered)> {
        let first = after.and_then(|after| self.bucket_of(after));
        let buckets = self.buckets.range((first.map_or(Unbounded, Included), Unbounded));
        buckets.flat_map(move |(_, bucket)| bucket.behind(after)).map(|entry| (entry.place(), &entry.record))
    }

    /// Takes the first record out.
    pub fn pop_first(&mut self) -> Option<(Place, Buffered)> {
        let mut first = self.buckets.first_entry()?;
        first.get_mut().sort();
        let entry = first.get_mut().entries.pop_front()?;
        if first.get().entries.is_empty() {
            first.remove();
        }
        self.sums.take(&entry.record);
        Some((entry.place(), entry.record))
    }

    /// Drops the records for which `is_gone`, from the first on to the first for which it is not.
    pub fn drop_while(&mut self, is_gone: impl Fn(Place) -> bool) {
        while self.first().is_some_and(&is_gone) {
            self.pop_first();
        }
    }

    /// Calls `write` for the records that came since this was last done and are still there.
    pub fn take_new(&mut self, mut write: impl FnMut(Place, &Buffered)) {
        for bucket in self.buckets.values_mut().filter(|bucket| bucket.has_new) {
            bucket.has_new = false;
            for entry in bucket.entries.iter_mut().filter(|entry| entry.is_new) {
                entry.is_new = false;
                write(entry.place(), &entry.record);
            }
        }
    }

    /// Number of records.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.sums.records
    }

    /// Whether there is none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.sums.records == 0
    }

    /// What the records take in a log, about.
    #[must_use]
    pub const fn written_bytes(&self) -> usize {
        self.sums.written_bytes
    }

    /// Bytes of memory in use, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.sums.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn buffered(key: &[u8], value: Option<Vec<u8>>) -> Buffered {
        let headers = vec![("h".to_owned(), None), ("h".to_owned(), value.clone())];
        let payload = Payload { key: None, value, headers, timestamp: Some(-7) };
        Buffered::Whole { key: key.into(), payload: Arc::new(payload) }
    }

    fn place(time: i64, partition: u32, offset: u64) -> Place {
        Place { time: EventTime(time), partition: Partition(partition), offset: Offset(offset) }
    }

    #[test]
    fn what_arrives_and_leaves_between_two_commits_is_not_new() {
        let mut buffer = Ordered::default();
        buffer.insert(place(5, 0, 0), buffered(b"a", None));
        buffer.insert(place(3, 0, 1), buffered(b"a", None));
        assert_eq!(buffer.pop_first().unwrap().0, place(3, 0, 1));
        let mut new = Vec::new();
        buffer.take_new(|place, _| new.push(place));
        buffer.take_new(|place, _| panic!("{place:?} is not new"));
        assert_eq!(new, [place(5, 0, 0)]);
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
            let record = Buffered::Whole { key: group.into(), payload: Arc::new(payload) };
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Buffered::decode(&bytes, true), Some(record));
            prop_assert_eq!(Buffered::decode(&bytes[..bytes.len() - 1 - cut % bytes.len()], true), None);
        }

        #[test]
        fn a_row_reads_back_with_its_key(key in any::<Vec<u8>>(), row in any::<Vec<u8>>()) {
            let record = Buffered::Row(KeyedRow::new(&key, &mut vec![1], |out| out.extend_from_slice(&row)));
            let mut bytes = Vec::new();
            record.encode(&mut bytes);
            prop_assert_eq!(Buffered::decode(&bytes, false), Some(record.clone()));
            prop_assert_eq!(record.key(), &*key);
            let Buffered::Row(record) = record else { panic!() };
            prop_assert_eq!(record.parts(), (&*key, &*row));
        }

        #[test]
        fn records_are_as_in_one_sorted_map(steps in prop::collection::vec((0u8..10, -9_000i64..9_000), 1..3_000)) {
            let (mut buffer, mut model) = (Ordered::default(), BTreeMap::new());
            let mut new = Vec::new();
            for (offset, (step, time)) in (0_u64..).zip(steps) {
                // Most come about in order.
                let place = place(if step < 7 { offset.cast_signed() + time % 100 } else { time }, 0, offset);
                let record = buffered(b"a", Some(vec![7; usize::from(step)]));
                match step {
                    0 => prop_assert_eq!(buffer.pop_first(), model.pop_first()),
                    1 => {
                        let again = model.keys().next_back().copied().unwrap_or(place);
                        buffer.restore(again, record.clone());
                        model.insert(again, record);
                    }
                    2 => {
                        let after = model.keys().nth(usize::from(step) * 31 % model.len().max(1)).copied();
                        buffer.sort(after, EventTime(time));
                        let behind = model.iter().filter(|(place, _)| Some(**place) > after).take(300);
                        prop_assert!(buffer.behind(after).take(300).eq(behind.map(|(place, record)| (*place, record))));
                        prop_assert_eq!(after.is_some_and(|after| !buffer.holds(after)), false);
                    }
                    3 => {
                        buffer.restore(place, record.clone());
                        model.insert(place, record);
                    }
                    _ => {
                        buffer.insert(place, record.clone());
                        model.insert(place, record);
                        new.push(place);
                    }
                }
                prop_assert_eq!((buffer.len(), buffer.first()), (model.len(), model.keys().next().copied()));
            }
            let mut told = Vec::new();
            buffer.take_new(|place, _| told.push(place));
            told.sort_unstable();
            new.retain(|place| model.contains_key(place));
            new.sort_unstable();
            prop_assert_eq!(told, new);
            let bytes: usize = model.values().map(|record| record.bytes() + RECORD_OVERHEAD).sum();
            prop_assert_eq!(buffer.bytes(), bytes);
            prop_assert!(buffer.behind(None).eq(model.iter().map(|(place, record)| (*place, record))));
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Buffered::decode(&bytes, true);
            let _ = Buffered::decode(&bytes, false);
        }
    }
}
