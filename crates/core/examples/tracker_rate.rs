//! Cost of the tracker per record: event times that rise, with disorder within δ and now and then a straggler beyond it.
//! `cargo run --release -p tidegate-core --example tracker_rate`
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement reads the clock and prints"
)]

use std::hint::black_box;
use std::time::Instant;

use tidegate_core::{
    job::{OnQuiet, WatermarkSpec},
    time::{EventTime, Span},
    tracker::Tracker,
};

const TIMES: i64 = 1 << 14;
const ROUNDS: i64 = 1 << 14;
const DELAY: i64 = 2_000;

fn main() {
    let spec = WatermarkSpec {
        delay: Span(DELAY),
        idle_timeout: Span(5_000),
        on_quiet: OnQuiet::Hold,
        max_future_skew: None,
        reanchor_after: Some(1_000),
    };
    let times = times();
    let mut tracker = Tracker::new(&spec, None);
    let started = Instant::now();
    for round in 0..ROUNDS {
        // Each round lies behind the one before; the times are read from memory, as those of a batch are.
        let base = round * TIMES;
        for time in black_box(&times) {
            tracker.observe(EventTime(base + time));
        }
    }
    let seconds = started.elapsed().as_secs_f64();
    #[expect(clippy::cast_precision_loss, reason = "a count for people")]
    let rate = (TIMES * ROUNDS) as f64 / seconds / 1e6;
    println!(
        "tracker_rate: observations={} seconds={seconds:.2} million_per_s={rate:.0} watermark_ms={}",
        TIMES * ROUNDS,
        black_box(tracker.watermark()).map_or(0, EventTime::millis)
    );
}

/// One event a millisecond, up to δ late, every hundredth up to 2 δ late; by a fixed linear congruential generator.
fn times() -> Vec<i64> {
    let mut state = 7u64;
    let mut below = |bound: i64| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(state >> 33).unwrap_or_default() % bound
    };
    (0..TIMES).map(|at| at - below(if at % 100 == 0 { 2 * DELAY } else { DELAY })).collect()
}
