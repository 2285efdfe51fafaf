//! What each strategy promises, by example and against its definition.

use std::{cmp::Reverse, collections::BinaryHeap};

use super::*;
use proptest::prelude::*;

fn bounded(delay: i64, reanchor_after: Option<u32>) -> Tracker {
    Tracker::new(WatermarkStrategy::Bounded { delay: Span(delay) }, reanchor_after, None)
}

fn sliding_min(span: i64, delay: i64, seed: Watermark) -> Tracker {
    Tracker::new(WatermarkStrategy::SlidingMin { span: Span(span), delay: Span(delay) }, None, seed)
}

fn adaptive(late: u32, min_delay: i64, max_delay: i64) -> Tracker {
    let (min_delay, max_delay) = (Span(min_delay), Span(max_delay));
    Tracker::new(WatermarkStrategy::Adaptive { late: PerMillion(late), min_delay, max_delay }, Some(3), None)
}

fn after(tracker: &mut Tracker, times: impl IntoIterator<Item = i64>) -> Option<i64> {
    times.into_iter().for_each(|time| tracker.observe(EventTime(time)));
    tracker.watermark().map(EventTime::millis)
}

#[test]
fn starts_undefined_and_follows_the_maximum() {
    let mut tracker = bounded(10, None);
    assert_eq!(tracker.watermark(), None);
    for (time, expected) in [(100, 90), (95, 90), (120, 110), (0, 110)] {
        assert_eq!(after(&mut tracker, [time]), Some(expected));
    }
}

#[test]
fn three_older_records_reanchor_the_candidate_but_not_the_watermark() {
    let mut tracker = bounded(10, Some(3));
    after(&mut tracker, [100, 9_000, 101, 102]);
    assert_eq!(tracker.candidate(), Some(EventTime(9_000)));
    after(&mut tracker, [99]);
    assert_eq!(tracker.candidate(), Some(EventTime(102)), "the largest of the three that agree");
    assert_eq!(tracker.watermark(), Some(EventTime(8_990)), "I1: the published one never falls");
}

#[test]
fn a_record_within_the_delay_ends_the_run_of_older_ones() {
    let mut tracker = bounded(10, Some(2));
    after(&mut tracker, [1_000, 5, 995, 5, 995]);
    assert_eq!(tracker.candidate(), Some(EventTime(1_000)));
}

#[test]
fn a_seed_holds_until_the_records_pass_it() {
    let mut tracker =
        Tracker::new(WatermarkStrategy::Bounded { delay: Span(10) }, None, Some(EventTime(500)));
    assert_eq!(after(&mut tracker, [300]), Some(500));
    assert_eq!(after(&mut tracker, [600]), Some(590));
}

#[test]
fn a_record_that_is_only_seen_moves_no_watermark() {
    let mut tracker = bounded(10, None);
    after(&mut tracker, [100]);
    tracker.saw(EventTime(5_000));
    assert_eq!((tracker.watermark(), tracker.max_seen()), (Some(EventTime(90)), Some(EventTime(5_000))));
}

#[test]
fn the_smallest_within_the_span_counts_and_what_is_older_does_not() {
    let mut tracker = sliding_min(100, 5, None);
    // A full span: 0 to 100. The smallest within it is 0.
    assert_eq!(after(&mut tracker, [0, 40, 100]), Some(-5));
    assert_eq!(after(&mut tracker, [141]), Some(95), "0 and 40 have left, 100 is the smallest");
    assert_eq!(after(&mut tracker, [60, 150]), Some(95), "60 is the smallest, but a watermark never falls");
    assert_eq!(after(&mut tracker, [161]), Some(95));
    assert_eq!(after(&mut tracker, [10, 201]), Some(136), "10 was older than the span; 141 is the smallest");
}

#[test]
fn until_a_full_span_was_seen_it_is_behind_by_the_most() {
    let mut tracker = sliding_min(100, 5, Some(EventTime(1_000)));
    assert_eq!(after(&mut tracker, [900, 1_050]), Some(1_000), "900 is late: the span begins at 1050");
    assert!(tracker.delay().learning);
    assert_eq!(after(&mut tracker, [1_149]), Some(1_044), "by the span and the delay, whatever was seen");
    assert_eq!(after(&mut tracker, [1_151]), Some(1_144), "1149 is the smallest in [1051, 1151]");
    assert!(!tracker.delay().learning);
}

#[test]
fn a_poisoned_window_begins_anew_when_re_anchored() {
    let strategy = WatermarkStrategy::SlidingMin { span: Span(100), delay: Span(0) };
    let mut tracker = Tracker::new(strategy, Some(3), None);
    after(&mut tracker, [0, 100, 200, 1_000_000, 201, 203, 202]);
    assert_eq!(tracker.candidate(), Some(EventTime(203)));
    assert_eq!(tracker.delay(), Delay { in_force: Span(100), learning: true, late: None });
    assert_eq!(
        after(&mut tracker, [303, 1_000_200]),
        Some(1_000_100),
        "it learns anew from what is not late"
    );
}

#[test]
fn the_delay_adapts_to_the_lateness_and_back() {
    // One in a hundred may be late. First a tenth of all is 40 behind, a thousandth 900; then a tenth 700.
    let mut tracker = adaptive(10_000, 5, 60_000);
    let stream = |from: i64, behind: i64| {
        (from..from + 20_000).map(move |at| match at {
            _ if at % 1_000 == 7 => at - 900,
            _ if at % 10 == 3 => at - behind,
            _ => at,
        })
    };
    assert_eq!(tracker.delay(), Delay { in_force: Span(60_000), learning: true, late: Some(PerMillion(0)) });
    after(&mut tracker, stream(0, 40));
    let delay = tracker.delay();
    assert!((39..=45).contains(&delay.in_force.0) && !delay.learning, "{delay:?}");
    assert!(delay.late.is_some_and(|late| (500..2_000).contains(&late.0)), "{delay:?}");
    after(&mut tracker, stream(20_000, 700));
    assert!((699..=788).contains(&tracker.delay().in_force.0), "{:?}", tracker.delay());
    after(&mut tracker, stream(40_000, 40).chain(stream(60_000, 40)));
    assert!((39..=45).contains(&tracker.delay().in_force.0), "{:?}", tracker.delay());
}

#[test]
fn the_delay_stays_within_its_bounds() {
    let mut tracker = adaptive(1_000, 20, 100);
    after(&mut tracker, 0..20_000);
    assert_eq!(tracker.delay().in_force, Span(20), "in order");
    after(&mut tracker, (20_000..40_000).map(|at| if at % 2 == 0 { at } else { at - 95 }));
    assert!((95..=100).contains(&tracker.delay().in_force.0), "{:?}", tracker.delay());
    after(&mut tracker, (40_000..60_000).map(|at| if at % 2 == 0 { at } else { at - 5_000 }));
    assert_eq!(tracker.delay().in_force, Span(100), "no delay helps these");
    assert!(tracker.delay().late.is_some_and(|late| late.0 > 100_000));
}

#[test]
fn a_poisoned_record_teaches_adaptive_nothing() {
    let mut tracker = adaptive(10_000, 0, 1_000);
    after(&mut tracker, 0..2_000);
    for at in 2_000..4_000 {
        // Every twentieth record is from a clock that is days ahead.
        after(&mut tracker, [if at % 20 == 0 { at + 1_000_000_000 } else { at }]);
    }
    assert_eq!(tracker.delay().in_force, Span(0));
}

proptest! {
    #[test]
    fn bounded_never_falls_and_never_passes_the_maximum_minus_delay(
        times in prop::collection::vec(any::<i64>(), 1..200), delay in 0i64..1_000_000, reanchor in prop::option::of(1u32..5)
    ) {
        let mut tracker = bounded(delay, reanchor);
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

    /// Spec T4: the min-heap of the event times within the span, clamped. Exact for spans below 4.1 s.
    #[test]
    fn sliding_min_is_the_top_of_a_min_heap(
        span in prop_oneof![0i64..20, 0i64..4_095], delay in 0i64..100,
        steps in prop::collection::vec(prop_oneof![4 => -200i64..60, 2 => 0i64..5, 1 => -5_000i64..9_000], 1..400),
        start in prop_oneof![Just(0), any::<i64>()]
    ) {
        let mut tracker = sliding_min(span, delay, None);
        let mut heap = BinaryHeap::new();
        let (mut largest, mut published, mut first, mut full) = (None, i64::MIN, None, false);
        for step in steps {
            let time = largest.unwrap_or(start).saturating_add(step);
            tracker.observe(EventTime(time));
            if time >= largest.unwrap_or(i64::MIN).saturating_sub(span) {
                heap.push(Reverse(time));
            }
            if largest.is_none_or(|largest| time > largest) {
                largest = Some(time);
                let oldest = time.saturating_sub(span);
                while heap.peek().is_some_and(|Reverse(top)| *top < oldest) {
                    heap.pop();
                }
                full |= time.saturating_sub(*first.get_or_insert(time)) >= span;
                // Before the first full span it is as if a record had come at its beginning.
                let smallest = heap.peek().filter(|_| full).map_or(oldest, |Reverse(top)| *top);
                // As of a saturating distance, which differs from the heap's only next to the ends of time.
                let behind = time.saturating_sub(smallest).saturating_add(delay);
                published = published.max(time.saturating_sub(behind));
            }
            prop_assert_eq!(tracker.watermark(), Some(EventTime(published)));
        }
    }

    #[test]
    fn a_longer_span_is_rounded_down_by_less_than_a_two_thousandth(
        span in 4_095i64..100_000_000,
        steps in prop::collection::vec((-1.0f64..0.3, any::<bool>()), 1..300),
    ) {
        let mut tracker = sliding_min(span, 0, None);
        let (mut times, mut exact) = (Vec::new(), i64::MIN);
        let mut largest = 0i64;
        for (step, far) in steps {
            #[expect(clippy::cast_possible_truncation, reason = "a share of the span")]
            let step = (step * span as f64 * if far { 1.0 } else { 0.05 }) as i64;
            let time = largest + step;
            times.push(time);
            tracker.observe(EventTime(time));
            if time > largest || times.len() == 1 {
                largest = time;
                let smallest = times.iter().filter(|time| **time >= largest - span).min().copied();
                exact = exact.max(smallest.unwrap_or(largest));
                let got = tracker.watermark().map(EventTime::millis).unwrap_or_default();
                prop_assert!(got <= exact, "{got} promises more than {exact}");
                prop_assert!(got >= largest - span, "{got} is behind by more than the span");
                let resolution = span / 2_047 + 1;
                let kept = times.iter().filter(|time| **time >= largest - span - resolution).min();
                let lowest = kept.copied().unwrap_or(largest) - resolution;
                prop_assert!(tracker.delay().learning || got >= lowest.min(exact), "{got} below {lowest}");
            }
        }
    }

    #[test]
    fn no_strategy_falls_passes_its_least_delay_or_is_behind_by_more_than_its_most(
        times in prop::collection::vec(prop_oneof![4 => 0i64..5_000, 1 => any::<i64>()], 1..600),
        span in 0i64..1_000_000, delay in 0i64..1_000, late in 1u32..500_000, which in 0..2,
        reanchor in prop::option::of(1u32..5), seed in prop::option::of(any::<i64>())
    ) {
        let strategy = match which {
            0 => WatermarkStrategy::SlidingMin { span: Span(span), delay: Span(delay) },
            _ => WatermarkStrategy::Adaptive { late: PerMillion(late), min_delay: Span(delay), max_delay: Span(delay + span) },
        };
        let mut tracker = Tracker::new(strategy, reanchor, seed.map(EventTime));
        let mut before = seed.map(EventTime);
        let mut largest = EventTime(i64::MIN);
        for time in times {
            tracker.observe(EventTime(time));
            largest = largest.max(EventTime(time));
            let watermark = tracker.watermark();
            prop_assert!(watermark >= before, "I1");
            prop_assert!(watermark <= before.max(Some(largest.minus(strategy.least_delay()))));
            prop_assert!(watermark >= Some(largest.minus(strategy.most_delay())));
            before = watermark;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the lateness is distributed like, no more are late than wanted, as soon as a sample was seen.
    #[test]
    fn adaptive_keeps_the_share_of_late_records(
        late in prop_oneof![Just(1_000u32), Just(10_000), Just(50_000)],
        scale in 1.0f64..2_000.0, heavy in any::<bool>(), seed in any::<u64>()
    ) {
        let mut state = seed;
        let mut uniform = move || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            ((state >> 11) as f64 + 1.0) / (1u64 << 53) as f64
        };
        let mut tracker = adaptive(late, 0, 10_000_000);
        let (mut seen, mut missed) = (0u32, 0u32);
        for at in 0..60_000i64 {
            // Exponential, or Pareto with a tail index of 2.
            let lateness = if heavy { scale * (uniform().powf(-0.5) - 1.0) } else { -scale * uniform().ln() };
            #[expect(clippy::cast_possible_truncation, reason = "at most 10^9")]
            let time = EventTime(at - lateness as i64);
            if !tracker.delay().learning {
                seen += 1;
                missed += u32::from(Some(time) < tracker.watermark());
            }
            tracker.observe(time);
        }
        let share = f64::from(missed) / f64::from(seen.max(1)) * 1e6;
        prop_assert!(seen > 40_000 && share < f64::from(late) * 1.25 + 100.0, "{share} of {late} in {seen}");
    }
}

#[test]
fn what_one_record_says_is_not_agreed_on() {
    let mut tracker = bounded(10, Some(3));
    after(&mut tracker, [100]);
    assert_eq!(tracker.agreed(), None);
    after(&mut tracker, [105, 98]);
    assert_eq!(tracker.agreed(), Some(EventTime(95)), "three have reached 100, but for the delay");
    after(&mut tracker, [9_000, 110]);
    assert_eq!((tracker.watermark(), tracker.agreed()), (Some(EventTime(8_990)), Some(EventTime(100))));
    after(&mut tracker, [111, 112]);
    assert_eq!(tracker.candidate(), Some(EventTime(112)), "re-anchored");
    assert_eq!(tracker.agreed(), Some(EventTime(112)), "nobody agreed on 9000");
}

#[test]
fn in_order_the_records_agree_with_those_before() {
    let mut tracker = bounded(0, Some(3));
    after(&mut tracker, 0..100);
    assert!(tracker.agreed() >= Some(EventTime(96)), "{:?}", tracker.agreed());
    let mut alone = bounded(0, Some(1));
    assert_eq!(after(&mut alone, [7]), alone.agreed().map(EventTime::millis));
}
