//! Alignment of what catches up (design §4): where the shards that a catch-up lane feeds wait for other partitions, reading it on
//! would only open more windows there, so it waits while it is more than `max_drift` above the least W_s of them
//! (docs/decisions/0017).
//!
//! No deadlock. Of all shards that catch-up lanes feed, take one whose W_s is the least. What its W_s waits for is read on:
//! - W itself: it waits for a main lane, which this does not concern, and which [`crate::coordinator`] does not pause;
//! - the watermark of a partition: the lane that feeds the shard from there is at that watermark, and so above no W_s.
//!
//! A lane counts as no further than the main lane of its partition has come: with that alone W may be waiting at its end.

use std::collections::BTreeMap;

use super::SourcePartition;
use crate::{
    drift::DriftBound,
    lane::Lane,
    time::{Shard, Span, Watermark},
};

/// What the shards have reached, and whether the catch-up lane waits for it.
#[derive(Debug, Default)]
pub(super) struct Alignment {
    shards: BTreeMap<Shard, Watermark>,
    waits: bool,
}

impl Alignment {
    /// The shard begins anew with this watermark, as its owner says.
    pub(super) fn begins(&mut self, shard: Shard, watermark: Watermark) {
        self.shards.insert(shard, watermark);
    }

    /// The shard has committed this watermark.
    pub(super) fn reached(&mut self, shard: Shard, watermark: Watermark) {
        let known = self.shards.entry(shard).or_default();
        *known = watermark.max(*known);
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

    /// How far a catch-up lane is above the least W_s of the shards that it feeds; `None` where one of them has none yet.
    fn ahead_of_shards(&self, lane: &Lane) -> Option<Span> {
        let reached = lane.shards().map(|shard| self.alignment.shards.get(&shard).copied().flatten());
        let reached = reached.min()??;
        let read = lane.tracker().agreed().min(self.main.as_ref()?.tracker().watermark())?;
        Some(read.since(reached))
    }
}
