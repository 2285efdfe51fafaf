//! What a reader has seen of reordered records: each once, whole, and never one before another that comes earlier.

use std::collections::BTreeMap;

use tidegate_core::{
    aggregate::Value,
    job::JobSpec,
    ordered::Place,
    shard::{self, Pane, ResultRow, ShardState},
    time::{Span, Watermark},
};

use crate::{
    oracle,
    topic::{Record, Topic},
    violation::{ensure, violated},
};

/// The records of a shard that are out, or have their result; the latter with its values.
#[derive(Debug, Default)]
pub struct Reordered(BTreeMap<Place, Vec<Value>>);

impl Reordered {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The next record of the shard's results, in a commit that leads to the state `after`.
    pub fn take(
        &mut self,
        topic: &Topic,
        is_good: &impl Fn(&Record) -> bool,
        after: &ShardState,
        out: &shard::Reordered,
    ) {
        let seen = || format!("{out:?}");
        let place = out.place;
        let record = topic.log(place.partition).record(place.offset);
        let record = record.filter(|record| is_good(record));
        let Some(record) = record else { violated("I4: a reordered record is one of the shard", seen()) };
        ensure(*out.payload == record.payload(), "I4: a reordered record is whole", seen);
        let same = (record.time, record.key.as_slice()) == (place.time, &*out.key);
        ensure(same, "I4: a reordered record has its time and key", seen);
        ensure(Some(place.time) < after.watermark(), "I4: a record leaves when W has passed it", seen);
        self.insert(place, Vec::new());
    }

    /// The next result of a sliding window, in a commit that leads to the state `after`.
    pub fn take_result(
        &mut self,
        topic: &Topic,
        is_good: &impl Fn(&Record) -> bool,
        after: &ShardState,
        row: &ResultRow,
    ) {
        let seen = || format!("{row:?}");
        let Some((partition, offset)) = row.record else { violated("I4: a result is of a record", seen()) };
        let record = topic.log(partition).record(offset);
        let record = record.filter(|record| is_good(record));
        let Some(record) = record else { violated("I4: a result is of a record of the shard", seen()) };
        let same = (record.time, &record.key) == (row.end, &row.key);
        ensure(
            same && (row.pane, row.revision) == (Pane::Final, 0),
            "I4: a window ends with its record",
            seen,
        );
        ensure(Some(row.end) < after.watermark(), "I4: a result comes when W has passed its record", seen);
        self.insert(Place { time: row.end, partition, offset }, row.values.clone());
    }

    fn insert(&mut self, place: Place, values: Vec<Value>) {
        let last = self.0.last_key_value().map(|(place, _)| *place);
        ensure(last < Some(place), "I4: records come in order, each once", || {
            format!("{place:?} after {last:?}")
        });
        self.0.insert(place, values);
    }

    /// At the end: the result of a record is over what its key has in (t − size, t], of the records that are no dead letters.
    pub fn check_window(&self, job: &JobSpec, size: Span, record: &Record, kept: &[&Record]) {
        let place = Place { time: record.time, partition: record.partition, offset: record.offset };
        let Some(values) = self.0.get(&place) else { return };
        let from = record.time.minus(size);
        let inside =
            |other: &&&Record| other.key == record.key && from < other.time && other.time <= record.time;
        let records: Vec<_> = kept.iter().filter(inside).copied().collect();
        let expected = oracle::values(job, &records);
        ensure(oracle::same(job, values, &expected), "I4: a sliding window is that of the batch", || {
            format!("{record:?}: {values:?}, batch {expected:?}")
        });
    }

    /// At the end: a record that is no dead letter is out if the shard's watermark has passed it, and only then.
    pub fn check(&self, record: &Record, watermark: Watermark) {
        let place = Place { time: record.time, partition: record.partition, offset: record.offset };
        let due = Some(record.time) < watermark;
        ensure(self.0.contains_key(&place) == due, "I4: what W has passed is out", || {
            format!("{record:?} at {watermark:?}")
        });
    }
}
