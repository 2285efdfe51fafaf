//! Alignment of what catches up (design §4): where the shards that a catch-up lane feeds wait for other partitions, reading it on
//! would only open more windows there, so it waits while it is more than `max_drift` above the least W_s of them
//! (docs/decisions/0017).
//!
//! No deadlock. Of all shards that catch-up lanes feed, take one whose W_s is the least. What its W_s waits for is read on:
//! - W itself: it waits for a main lane, which this does not concern, and which [`crate::coordinator`] does not pause;
//! - the watermark of a partition: the lane that feeds the shard from there is at that watermark, and so above no W_s. Or it goes over
//!   what the shard has covered, for the sake of others, and is read on until it comes to where the shard goes on.
//!
//! A lane counts as no further than the main lane of its partition has come: with that alone W may be waiting at its end.

use std::{cmp::Reverse, collections::BTreeMap};

use super::SourcePartition;
use crate::{
    drift::DriftBound,
    lane::Lane,
    time::{Offset, Shard, Span, Watermark},
};

/// What the shards have reached, and whether the catch-up lane waits for it.
#[derive(Debug, Default)]
pub(super) struct Alignment {
    shards: BTreeMap<Shard, Reached>,
    waits: bool,
}

/// What a shard has reached.
#[derive(Clone, Copy, Debug, Default)]
struct Reached {
    watermark: Watermark,
    /// Where it goes on in the partition, as its owner said at the beginning.
    next: Offset,
}

impl Alignment {
    /// The shard begins anew with this watermark, and goes on there, as its owner says.
    pub(super) fn begins(&mut self, shard: Shard, watermark: Watermark, next: Offset) {
        self.shards.insert(shard, Reached { watermark, next });
    }

    /// The shard has committed this watermark.
    pub(super) fn reached(&mut self, shard: Shard, watermark: Watermark) {
        let known = self.shards.entry(shard).or_default();
        known.watermark = watermark.max(known.watermark);
    }

    /// The lane's reader has been started, or stopped: neither leaves it waiting.
    pub(super) const fn restarted(&mut self) {
        self.waits = false;
    }
}

impl SourcePartition {
    /// Whether the catch-up lane has to begin or to end waiting; `None` where it goes on as it does.
    pub(super) fn align(&mut self) -> Option<bool> {
        let bound = DriftBound(self.timing.max_drift?);
        let ahead = self.catch_up.as_ref().and_then(|lane| self.ahead_of_shards(lane));
        let waits = bound.holds(self.alignment.waits, ahead);
        (std::mem::replace(&mut self.alignment.waits, waits) != waits).then_some(waits)
    }

    /// How far a catch-up lane is above the least W_s of the shards that it feeds; `None` where one of them has none yet, and where that
    /// of the least goes on further up.
    fn ahead_of_shards(&self, lane: &Lane) -> Option<Span> {
        let reached =
            lane.shards().map(|shard| self.alignment.shards.get(&shard).copied().unwrap_or_default());
        let least = reached.min_by_key(|shard| (shard.watermark, Reverse(shard.next)))?;
        let reached = least.watermark.filter(|_| least.next <= lane.position())?;
        let read = lane.tracker().agreed().min(self.main.as_ref()?.tracker().watermark())?;
        Some(read.since(reached))
    }
}
