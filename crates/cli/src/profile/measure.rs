//! What is measured of a topic's records: how far out of order, how far from their timestamps, how far apart. Pure.
//!
//! Records that run far ahead of the clock do not count: in a job they move no watermark (`max_future_skew`). Where nobody says how far
//! that is, it is taken from the records: of a topic whose records are made as things happen, beyond twice what 99 % of them keep.
//!
//! A record's *lateness* is how far its event time lies behind the largest one before it in its partition; zero where it is
//! not behind. With `bounded_out_of_orderness` and a delay δ, exactly the records with a lateness above δ come behind their
//! partition's watermark.

use std::collections::BTreeMap;

use tidegate_core::dead_letter::Reason;
use tidegate_core::record::Timestamp;
use tidegate_core::time::{EventTime, Offset, Partition, Span};

use super::words::nice;

/// What is seen of a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    pub(crate) offset: Offset,
    pub(crate) timestamp: Timestamp,
    pub(crate) time: Option<EventTime>,
    /// Why it would be a dead letter.
    pub(crate) reject: Option<Reason>,
}

/// The records of one partition.
#[derive(Clone, Debug, Default)]
pub(crate) struct PartitionMeasure {
    pub(crate) records: u64,
    pub(crate) offsets: Option<(Offset, Offset)>,
    pub(crate) rejects: BTreeMap<&'static str, u64>,
    pub(crate) create: u64,
    pub(crate) append: u64,
    pub(crate) untimed: u64,
    /// Records with an event time that counts.
    pub(crate) timed: u64,
    /// Records so far ahead that they do not count.
    pub(crate) future: u64,
    pub(crate) first: Option<EventTime>,
    pub(crate) newest: Option<EventTime>,
    /// The largest step of the newest event time.
    pub(crate) jump: Span,
    /// Above zero, sorted once all is seen.
    lateness: Vec<i64>,
    /// Timestamp, and event time − timestamp.
    pub(crate) skews: Vec<(i64, i64)>,
    /// Between one timestamp and the next, sorted once all is seen.
    silences: Vec<i64>,
    latest_timestamp: Option<i64>,
    /// Event times in order, each with the record's timestamp.
    times: Vec<(EventTime, Option<i64>)>,
}

/// The records of a topic, as they are read.
#[derive(Clone, Debug)]
pub(crate) struct Measure {
    partitions: BTreeMap<Partition, PartitionMeasure>,
}

/// The records of a topic.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) partitions: BTreeMap<Partition, PartitionMeasure>,
    /// Records further ahead of their timestamps do not count; `None` where timestamps do not tell.
    pub(crate) bound: Option<Span>,
}

/// What is known of the future.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    pub(crate) now: EventTime,
    /// Records further ahead do not count; `None`: by what the records say.
    pub(crate) bound: Option<Span>,
}

/// Half of the event times are no further than this from their timestamps: records are made as things happen.
const LIVE: Span = Span(24 * 3_600_000);
/// What clocks that are looked after may be apart.
const LEAST_BOUND: Span = Span(60_000);
/// As in a job that does not say.
const DEFAULT_BOUND: Span = Span(600_000);

impl Measure {
    /// Of a topic with these partitions.
    pub(crate) fn new(partitions: impl Iterator<Item = Partition>) -> Self {
        let partitions = partitions.map(|partition| (partition, PartitionMeasure::default()));
        Self { partitions: partitions.collect() }
    }

    /// The next record of a partition.
    pub(crate) fn see(&mut self, partition: Partition, seen: &Seen) {
        self.partitions.entry(partition).or_default().see(seen);
    }

    /// All is seen.
    pub(crate) fn finish(mut self, clock: Clock) -> Measured {
        let bound = self.bound(clock.bound);
        let latest = clock.now.plus(clock.bound.unwrap_or(DEFAULT_BOUND));
        for partition in self.partitions.values_mut() {
            for (time, timestamp) in std::mem::take(&mut partition.times) {
                let ahead = timestamp.map(|timestamp| time.millis().saturating_sub(timestamp));
                if time > latest || bound.zip(ahead).is_some_and(|(bound, ahead)| ahead > bound.millis()) {
                    partition.future += 1;
                } else {
                    partition.count(time, timestamp);
                }
            }
            partition.lateness.sort_unstable();
            partition.silences.sort_unstable();
        }
        Measured { partitions: self.partitions, bound }
    }

    /// How far ahead of their timestamps records may be, where these are of the time when things happened.
    fn bound(&self, wanted: Option<Span>) -> Option<Span> {
        let times = self.partitions.values().flat_map(|partition| &partition.times);
        let mut skews: Vec<_> =
            times.filter_map(|(time, timestamp)| Some(time.millis().saturating_sub((*timestamp)?))).collect();
        skews.sort_unstable();
        let median = quantile(&skews, 0.5)?;
        if median.saturating_abs() > LIVE.millis() {
            return None;
        }
        let most = Span(quantile(&skews, 0.99)?.max(0).saturating_mul(2));
        Some(wanted.unwrap_or_else(|| nice(most).max(LEAST_BOUND)))
    }
}

impl PartitionMeasure {
    fn see(&mut self, seen: &Seen) {
        self.records += 1;
        let first = self.offsets.map_or(seen.offset, |(first, _)| first);
        self.offsets = Some((first, seen.offset));
        if let Some(reason) = seen.reject {
            *self.rejects.entry(reason.as_str()).or_default() += 1;
        }
        let timestamp = match seen.timestamp {
            Timestamp::CreateTime(EventTime(millis)) => {
                self.create += 1;
                Some(millis)
            }
            Timestamp::LogAppendTime(EventTime(millis)) => {
                self.append += 1;
                Some(millis)
            }
            Timestamp::NotAvailable => {
                self.untimed += 1;
                None
            }
        };
        if let Some(millis) = timestamp {
            if let Some(before) = self.latest_timestamp {
                self.silences.push(millis.saturating_sub(before).max(0));
            }
            self.latest_timestamp = self.latest_timestamp.max(Some(millis));
        }
        if let Some(time) = seen.time {
            self.times.push((time, timestamp));
        }
    }

    /// The next event time that counts.
    fn count(&mut self, time: EventTime, timestamp: Option<i64>) {
        self.timed += 1;
        if let Some(millis) = timestamp {
            self.skews.push((millis, time.millis().saturating_sub(millis)));
        }
        self.first = Some(self.first.map_or(time, |first| first.min(time)));
        match self.newest {
            Some(newest) if time < newest => self.lateness.push(newest.since(time).millis()),
            Some(newest) => {
                self.jump = self.jump.max(time.since(newest));
                self.newest = Some(time);
            }
            None => self.newest = Some(time),
        }
    }

    /// Records that come behind a larger event time.
    pub(crate) fn out_of_order(&self) -> u64 {
        count(self.lateness.len())
    }

    /// Records that are late with that delay.
    pub(crate) fn late(&self, delay: Span) -> u64 {
        let on_time = self.lateness.partition_point(|lateness| *lateness <= delay.millis());
        count(self.lateness.len().saturating_sub(on_time))
    }

    /// The smallest delay with which at most that share of the records is late.
    pub(crate) fn delay_for(&self, share: f64) -> Span {
        let may_be_late = whole(as_float(self.timed) * share);
        let rank = self.out_of_order().saturating_sub(may_be_late);
        let index = usize::try_from(rank).unwrap_or(usize::MAX).checked_sub(1);
        Span(index.and_then(|index| self.lateness.get(index)).copied().unwrap_or(0))
    }

    /// A number of records as a share of those that have an event time.
    pub(crate) fn share(&self, records: u64) -> f64 {
        if self.timed == 0 { 0.0 } else { as_float(records) / as_float(self.timed) }
    }

    /// The least lateness of a record that comes behind another.
    pub(crate) fn least_lateness(&self) -> Option<Span> {
        self.lateness.first().copied().map(Span)
    }

    /// The lateness that this share of the records does not exceed (nearest rank, records in order included).
    pub(crate) fn lateness_at(&self, share: f64) -> Span {
        let behind = self.timed.saturating_sub(self.out_of_order());
        let rank = rank(self.timed, share).saturating_sub(behind);
        Span(nth(&self.lateness, rank).unwrap_or(0))
    }

    /// The silence that this share of them does not exceed; `None` where there is no second timestamp.
    pub(crate) fn silence_at(&self, share: f64) -> Option<Span> {
        nth(&self.silences, rank(count(self.silences.len()), share)).map(Span)
    }

    /// The offsets of event times from timestamps, sorted.
    pub(crate) fn sorted_skews(&self) -> Vec<i64> {
        let mut skews: Vec<_> = self.skews.iter().map(|(_, skew)| *skew).collect();
        skews.sort_unstable();
        skews
    }
}

/// The value that this share of sorted values does not exceed.
pub(crate) fn quantile(sorted: &[i64], share: f64) -> Option<i64> {
    nth(sorted, rank(count(sorted.len()), share).max(1))
}

/// The rank of a quantile among `count` values, from 1; nearest rank.
fn rank(count: u64, share: f64) -> u64 {
    whole((as_float(count) * share).ceil()).min(count)
}

fn nth(sorted: &[i64], rank: u64) -> Option<i64> {
    sorted.get(usize::try_from(rank).ok()?.checked_sub(1)?).copied()
}

fn count(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// The whole part of a number that is not negative.
#[allow(clippy::cast_possible_truncation, reason = "the whole part is what is wanted, and counts fit")]
fn whole(value: f64) -> u64 {
    value as u64
}

pub(crate) fn as_float(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// When everything has happened.
    const AFTER: Clock = Clock { now: EventTime(i64::MAX), bound: Some(Span(i64::MAX)) };

    fn measured(times: &[i64]) -> PartitionMeasure {
        let mut measure = Measure::new(std::iter::empty());
        for (offset, time) in times.iter().enumerate() {
            let seen = Seen {
                offset: Offset(offset as u64),
                timestamp: Timestamp::CreateTime(EventTime(1000)),
                time: Some(EventTime(*time)),
                reject: None,
            };
            measure.see(Partition(0), &seen);
        }
        measure.finish(AFTER).partitions.remove(&Partition(0)).unwrap_or_default()
    }

    fn lateness(times: &[i64]) -> Vec<i64> {
        let before = |index: usize| times[..index].iter().max().copied();
        (0..times.len()).map(|i| before(i).map_or(0, |max| (max - times[i]).max(0))).collect()
    }

    fn seen(offset: u64, timestamp: i64, time: Option<i64>) -> Seen {
        Seen {
            offset: Offset(offset),
            timestamp: Timestamp::LogAppendTime(EventTime(timestamp)),
            time: time.map(EventTime),
            reject: time.is_none().then_some(Reason::NoEventTime),
        }
    }

    #[test]
    fn what_is_too_far_ahead_of_the_clock_does_not_count() {
        let mut measure = Measure::new([Partition(0), Partition(7)].into_iter());
        for (offset, time) in [(5, Some(50)), (6, Some(101)), (7, None), (9, Some(40))] {
            measure.see(Partition(0), &seen(offset, 60 + offset as i64, time));
        }
        let measured = measure.finish(Clock { now: EventTime(70), bound: Some(Span(30)) });
        assert_eq!(measured.partitions[&Partition(7)].records, 0, "a partition without records is there too");
        let it = &measured.partitions[&Partition(0)];
        assert_eq!((it.records, it.timed, it.future, it.append), (4, 2, 1, 4));
        assert_eq!(it.offsets, Some((Offset(5), Offset(9))));
        assert_eq!(it.rejects, [("no_event_time", 1)].into());
        assert_eq!((it.out_of_order(), it.late(Span(9)), it.late(Span(10))), (1, 1, 0));
        assert_eq!(it.sorted_skews(), [-29, -15]);
        assert_eq!((it.silence_at(0.5), it.silence_at(1.0)), (Some(Span(1)), Some(Span(2))));
    }

    /// One record in two hundred is ten minutes ahead, and nobody has said how far ahead is too far.
    #[test]
    fn a_few_clocks_far_ahead_do_not_make_the_others_late() {
        let base = 1_700_000_000_000_i64;
        let records = |timestamp: &dyn Fn(i64) -> i64| {
            let mut measure = Measure::new(std::iter::empty());
            for at in 0..1000_i64 {
                let time = base + at + if at % 200 == 7 { 600_000 } else { 0 };
                measure.see(Partition(0), &seen(at.unsigned_abs(), timestamp(at), Some(time)));
            }
            measure.finish(Clock { now: EventTime(base + 10_000_000), bound: None })
        };
        let live = records(&|at| base + at);
        let it = &live.partitions[&Partition(0)];
        assert_eq!((live.bound, it.future, it.out_of_order()), (Some(LEAST_BOUND), 5, 0));
        // Read long after, with timestamps that say nothing of when it happened.
        let old = records(&|_| base + 400 * 86_400_000);
        let it = &old.partitions[&Partition(0)];
        assert_eq!((old.bound, it.future), (None, 0));
        assert!(it.out_of_order() > 900);
    }

    proptest! {
        #[test]
        fn late_records_are_those_further_behind_than_the_delay(
            times in prop::collection::vec(0_i64..500, 1..100), delay in 0_i64..500
        ) {
            let it = measured(&times);
            let naive = lateness(&times).into_iter().filter(|lateness| *lateness > delay).count();
            prop_assert_eq!(it.late(Span(delay)), naive as u64);
            prop_assert!(it.late(Span(delay + 1)) <= it.late(Span(delay)));
        }

        /// The tracker itself, without re-anchoring, says the same.
        #[test]
        fn a_record_is_late_where_the_tracker_has_passed_it(
            times in prop::collection::vec(0_i64..500, 1..100), delay in 0_i64..500
        ) {
            let mut watermark = i64::MIN;
            let mut late = 0;
            for time in &times {
                late += u64::from(*time < watermark);
                watermark = watermark.max(time - delay);
            }
            prop_assert_eq!(measured(&times).late(Span(delay)), late);
        }

        #[test]
        fn the_delay_for_a_share_is_the_smallest_that_keeps_it(
            times in prop::collection::vec(0_i64..500, 1..100), share in 0.0..1.0
        ) {
            let it = measured(&times);
            let delay = it.delay_for(share);
            prop_assert!(it.share(it.late(delay)) <= share);
            if delay > Span::ZERO {
                prop_assert!(it.share(it.late(Span(delay.millis() - 1))) > share);
            }
        }

        #[test]
        fn quantiles_are_of_all_records(times in prop::collection::vec(0_i64..500, 1..100), share in 0.01..1.0) {
            let mut all = lateness(&times);
            all.sort_unstable();
            prop_assert_eq!(Some(measured(&times).lateness_at(share).millis()), quantile(&all, share));
        }
    }
}
