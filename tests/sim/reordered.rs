//! What a reader has seen of reordered records: each once, whole, and never one before another that comes earlier.

use std::collections::BTreeSet;

use tidegate_core::{
    ordered::Place,
    shard::{self, ShardState},
    time::{Shard, Watermark},
};

use crate::{
    topic::{Record, Topic},
    violation::{ensure, violated},
};

/// The places of a shard's records that are out.
#[derive(Debug, Default)]
pub struct Reordered(BTreeSet<Place>);

impl Reordered {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// The next record of the shard's results, in a commit that leads to the state `after`.
    pub fn take(&mut self, topic: &Topic, shard: Shard, after: &ShardState, out: &shard::Reordered) {
        let seen = || format!("shard {shard}: {out:?}");
        let place = out.place;
        let record = topic.log(place.partition).record(place.offset);
        let record = record.filter(|record| record.shard == shard && record.rejected.is_none());
        let Some(record) = record else { violated("I4: a reordered record is one of the shard", seen()) };
        ensure(*out.payload == record.payload(), "I4: a reordered record is whole", seen);
        let same = (record.time, record.key.as_slice()) == (place.time, &*out.key);
        ensure(same, "I4: a reordered record has its time and key", seen);
        ensure(Some(place.time) < after.watermark(), "I4: a record leaves when W has passed it", seen);
        let last = self.0.last().copied();
        ensure(last < Some(place), "I4: reordered records come in order, each once", || {
            format!("{} after {last:?}", seen())
        });
        self.0.insert(place);
    }

    /// At the end: a record that is no dead letter is out if the shard's watermark has passed it, and only then.
    pub fn check(&self, record: &Record, watermark: Watermark) {
        let place = Place { time: record.time, partition: record.partition, offset: record.offset };
        let due = Some(record.time) < watermark;
        ensure(self.0.contains(&place) == due, "I4: what W has passed is out", || {
            format!("{record:?} at {watermark:?}")
        });
    }
}
