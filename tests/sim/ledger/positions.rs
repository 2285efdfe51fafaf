//! Positions and watermarks of a shard: I2, I3, I5.

use tidegate_core::{
    announcement::Announcement,
    shard::ShardState,
    time::{Offset, Partition, Shard, Watermark},
};

use super::{Ledger, next};
use crate::violation::ensure;

impl Ledger {
    /// I2 and I5: every record below the position is accounted for once.
    pub(super) fn check_positions(&self, shard: Shard, before: &ShardState, after: &ShardState) {
        for (at, input) in after.inputs().iter().enumerate() {
            let p = Partition(at as u32);
            let seen = || format!("shard {shard}, partition {p}: {input:?}");
            ensure(input.next >= next(before, p), "I2: positions only rise", seen);
            ensure(input.next <= self.topic.log(p).end(), "I2: a position is not beyond the log", seen);
            let covered = self.topic.log(p).covered(shard, input.next);
            ensure(input.applied + input.dead == covered, "I5: covered = applied + dead-lettered", || {
                format!("{}, {covered} records below it", seen())
            });
            let letters = self.shards[shard.0 as usize].dead.get(&p).copied().unwrap_or(0);
            ensure(input.dead == letters, "I5: every dead-lettered record has its letter", || {
                format!("{}, {letters} letters", seen())
            });
        }
    }

    /// I3: time has been reached in every partition that counts.
    pub(super) fn check_reached(&self, shard: Shard, after: &ShardState) {
        let Some(watermark) = after.watermark() else { return };
        if self.scenario.exact {
            for (at, log) in self.topic.partitions.iter().enumerate() {
                let p = Partition(at as u32);
                let least = log.least_from(shard, next(after, p));
                ensure(
                    least.is_none_or(|least| least >= watermark),
                    "I3: every record below W has arrived",
                    || {
                        format!(
                            "shard {shard} at {watermark} and {} of partition {p}: {least:?} is to come",
                            next(after, p)
                        )
                    },
                );
            }
        }
        let holds = |announcement: &Announcement| {
            announcement.watermark >= Some(watermark)
                && (0..announcement.partitions).map(Partition).all(|p| {
                    let excluded = announcement.excluded.iter().find(|(other, _)| *other == p);
                    excluded.is_some_and(|(_, at)| next(after, p) >= *at)
                        || self.watermark_at(p, next(after, p)) >= Some(watermark)
                })
        };
        ensure(
            self.announced.iter().rev().any(holds),
            "I3: every partition that counts has reached W",
            || {
                let positions: Vec<_> = after.inputs().iter().map(|input| input.next).collect();
                format!("shard {shard} at {watermark}, positions {positions:?}")
            },
        );
    }

    /// The watermark that the partition can have at a position.
    fn watermark_at(&self, partition: Partition, next: Offset) -> Watermark {
        let delay = self.scenario.job.watermark.strategy.least_delay();
        let records = self.topic.log(partition).largest_below(next).map(|largest| largest.minus(delay));
        let raised = self.raised.get(&partition).into_iter().flatten();
        raised.filter(|(at, _)| *at <= next).map(|(_, to)| Some(*to)).max().flatten().max(records)
    }
}
