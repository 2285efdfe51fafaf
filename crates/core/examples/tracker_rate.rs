//! Cost of the tracker per record, by strategy: event times that rise, with disorder within δ and now and then a straggler beyond
//! it; and the same with the stragglers far behind, and a disorder that changes.
//! `cargo run --release -p tidegate-core --example tracker_rate`
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement reads the clock and prints"
)]

use std::hint::black_box;
use std::time::Instant;

use tidegate_core::{
    job::{PerMillion, WatermarkStrategy},
    skew::Skew,
    time::{EventTime, Span},
    tracker::Tracker,
};

const TIMES: i64 = 1 << 14;
const ROUNDS: i64 = 1 << 11;
const DELAY: i64 = 2_000;

fn main() {
    let strategies = [
        ("bounded", WatermarkStrategy::Bounded { delay: Span(DELAY) }),
        ("sliding_min", WatermarkStrategy::SlidingMin { span: Span(DELAY), delay: Span(0) }),
        ("sliding_min", WatermarkStrategy::SlidingMin { span: Span(60 * DELAY), delay: Span(0) }),
        (
            "adaptive",
            WatermarkStrategy::Adaptive {
                late: PerMillion(1_000),
                min_delay: Span(0),
                max_delay: Span(60 * DELAY),
            },
        ),
    ];
    for (name, strategy) in strategies {
        for (shape, step) in [("a record a ms", 1), ("16 records a ms", 16), ("a record each 64 ms", -64)] {
            measure(name, strategy, shape, step);
        }
    }
    skew();
}

/// One count a record, at a clock that is read once a batch.
fn skew() {
    let times = times(1);
    let mut skew = Skew::default();
    let started = Instant::now();
    for round in 0..ROUNDS {
        let base = round * TIMES;
        for time in black_box(&times) {
            skew.add(EventTime(base + TIMES), EventTime(base + time));
        }
    }
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    let nanos = started.elapsed().as_secs_f64() * 1e9 / (TIMES * ROUNDS) as f64;
    println!("tracker_rate: skew ns_per_record={nanos:.2} {:?}", black_box(skew.summary()));
}

fn measure(name: &str, strategy: WatermarkStrategy, shape: &str, step: i64) {
    let times = times(step);
    let pace = |at: i64| if step > 0 { at / step } else { at * -step };
    let mut tracker = Tracker::new(strategy, Some(1_000), None);
    let started = Instant::now();
    for round in 0..ROUNDS {
        // Each round lies behind the one before; the times are read from memory, as those of a batch are.
        let base = pace(round * TIMES);
        for time in black_box(&times) {
            tracker.observe(EventTime(base + time));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    let nanos = seconds * 1e9 / (TIMES * ROUNDS) as f64;
    println!(
        "tracker_rate: {name:11} {shape:19} most_delay_ms={:<6} ns_per_record={nanos:5.2} watermark_ms={} {:?}",
        strategy.most_delay().millis(),
        black_box(tracker.watermark()).map_or(0, EventTime::millis),
        tracker.delay(),
    );
}

/// Up to δ late, every hundredth up to 2 δ; by a fixed linear congruential generator.
fn times(step: i64) -> Vec<i64> {
    let mut state = 7u64;
    let mut below = |bound: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(state >> 33).unwrap_or_default() % bound
    };
    let pace = |at: i64| if step > 0 { at / step } else { at * -step };
    (0..TIMES).map(|at| pace(at) - below(if at % 100 == 0 { 2 * DELAY } else { DELAY })).collect()
}
