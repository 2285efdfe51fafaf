//! The watermark of one partition, as its records arrive.
//!
//! `bounded_out_of_orderness`: the largest event time seen minus the delay δ; `ascending` is the same with δ = 0.
//! The *candidate* is the largest event time the tracker believes in; after N consecutive records older than
//! candidate − δ it is re-anchored to the largest of those (spec T5). The *published* watermark never falls (I1).
//!
//! ```
//! use tidegate_core::{job::{OnQuiet, WatermarkSpec}, time::{EventTime, Span}, tracker::Tracker};
//! let spec = WatermarkSpec { delay: Span(2_000), idle_timeout: Span(5_000), on_quiet: OnQuiet::Hold,
//!                            max_future_skew: None, reanchor_after: Some(3) };
//! let mut tracker = Tracker::new(&spec, None);
//! tracker.observe(EventTime(10_000));
//! assert_eq!(tracker.watermark(), Some(EventTime(8_000)));
//! ```
//! Cost per record: `cargo run --release -p tidegate-core --example tracker_rate`.

use crate::{
    job::WatermarkSpec,
    time::{EventTime, Span, Watermark},
};

/// Follows the event times of one partition. One owner, no lock.
#[derive(Clone, Debug)]
pub struct Tracker {
    delay: Span,
    reanchor_after: u32,
    candidate: Option<EventTime>,
    published: Watermark,
    max_seen: Option<EventTime>,
    older_run: u32,
    older_max: EventTime,
}

impl Tracker {
    /// A tracker whose watermark starts at `seed`: the one held by the shard at whose position reading starts.
    #[must_use]
    pub fn new(spec: &WatermarkSpec, seed: Watermark) -> Self {
        Self {
            delay: spec.delay,
            reanchor_after: spec.reanchor_after.unwrap_or(u32::MAX),
            candidate: None,
            published: seed,
            max_seen: None,
            older_run: 0,
            older_max: EventTime(i64::MIN),
        }
    }

    /// Takes the event time of the next record into account.
    #[inline]
    pub fn observe(&mut self, time: EventTime) {
        if self.max_seen < Some(time) {
            self.max_seen = Some(time);
        }
        match self.candidate {
            Some(candidate) if time <= candidate => self.observe_older(time, candidate),
            _ => {
                self.older_run = 0;
                self.believe(time);
            }
        }
    }

    #[inline]
    fn observe_older(&mut self, time: EventTime, candidate: EventTime) {
        if time >= candidate.minus(self.delay) {
            self.older_run = 0;
            return;
        }
        self.older_max = if self.older_run == 0 { time } else { self.older_max.max(time) };
        self.older_run = self.older_run.saturating_add(1);
        if self.older_run >= self.reanchor_after {
            self.older_run = 0;
            self.believe(self.older_max);
        }
    }

    #[inline]
    fn believe(&mut self, candidate: EventTime) {
        self.candidate = Some(candidate);
        let reached = Some(candidate.minus(self.delay));
        if self.published < reached {
            self.published = reached;
        }
    }

    /// Lifts the published watermark to at least `to`: a quiet topic moves on by time, or is finished.
    pub fn raise(&mut self, to: EventTime) {
        self.published = self.published.max(Some(to));
    }

    /// The published watermark.
    #[must_use]
    #[inline]
    pub const fn watermark(&self) -> Watermark {
        self.published
    }

    /// The largest event time believed in; falls when re-anchored.
    #[must_use]
    pub const fn candidate(&self) -> Option<EventTime> {
        self.candidate
    }

    /// The largest event time observed at all.
    #[must_use]
    pub const fn max_seen(&self) -> Option<EventTime> {
        self.max_seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::OnQuiet;
    use proptest::prelude::*;

    fn spec(delay: i64, reanchor_after: Option<u32>) -> WatermarkSpec {
        WatermarkSpec {
            delay: Span(delay),
            idle_timeout: Span(1_000),
            on_quiet: OnQuiet::Hold,
            max_future_skew: None,
            reanchor_after,
        }
    }

    #[test]
    fn starts_undefined_and_follows_the_maximum() {
        let mut tracker = Tracker::new(&spec(10, None), None);
        assert_eq!(tracker.watermark(), None);
        for (time, expected) in [(100, 90), (95, 90), (120, 110), (0, 110)] {
            tracker.observe(EventTime(time));
            assert_eq!(tracker.watermark(), Some(EventTime(expected)));
        }
    }

    #[test]
    fn three_older_records_reanchor_the_candidate_but_not_the_watermark() {
        let mut tracker = Tracker::new(&spec(10, Some(3)), None);
        for time in [100, 9_000, 101, 102] {
            tracker.observe(EventTime(time));
        }
        assert_eq!(tracker.candidate(), Some(EventTime(9_000)));
        tracker.observe(EventTime(99));
        assert_eq!(tracker.candidate(), Some(EventTime(102)), "the largest of the three that agree");
        assert_eq!(tracker.watermark(), Some(EventTime(8_990)), "I1: the published one never falls");
    }

    #[test]
    fn a_record_within_the_delay_ends_the_run_of_older_ones() {
        let mut tracker = Tracker::new(&spec(10, Some(2)), None);
        for time in [1_000, 5, 995, 5, 995] {
            tracker.observe(EventTime(time));
        }
        assert_eq!(tracker.candidate(), Some(EventTime(1_000)));
    }

    #[test]
    fn a_seed_holds_until_the_records_pass_it() {
        let mut tracker = Tracker::new(&spec(10, None), Some(EventTime(500)));
        tracker.observe(EventTime(300));
        assert_eq!(tracker.watermark(), Some(EventTime(500)));
        tracker.observe(EventTime(600));
        assert_eq!(tracker.watermark(), Some(EventTime(590)));
    }

    proptest! {
        #[test]
        fn never_falls_and_never_passes_the_maximum_minus_delay(
            times in prop::collection::vec(any::<i64>(), 1..200), delay in 0i64..1_000_000, reanchor in prop::option::of(1u32..5)
        ) {
            let mut tracker = Tracker::new(&spec(delay, reanchor), None);
            let mut before = None;
            let mut largest = i64::MIN;
            for time in times {
                tracker.observe(EventTime(time));
                largest = largest.max(time);
                prop_assert!(tracker.watermark() >= before);
                prop_assert_eq!(tracker.watermark(), Some(EventTime(largest.saturating_sub(delay))));
                before = tracker.watermark();
            }
        }
    }
}
