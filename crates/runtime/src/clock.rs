//! The time of the process: a monotonic reading slewed towards the system clock, so that no step of that clock moves
//! watermarks, timers or judgements about the future.
//!
//! - It never goes back.
//! - It follows the system clock's drift: each reading takes up 0.3 of the difference.
//! - A *step* of the system clock (more than a second, beyond drift) is left out for the life of the process, and reported.
//!
//! This is the only place that reads the clocks of the machine.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

/// How much of the difference to the system clock one reading takes up.
const SLEW: f64 = 0.3;

/// A larger difference than this, plus a thousandth of the time since the last reading, is a step.
const STEP_MICROS: i64 = 1_000_000;

/// What the two clocks of the machine say at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Since some fixed moment.
    pub monotonic_micros: i64,
    /// Since the Unix epoch.
    pub system_micros: i64,
}

/// A step of the system clock that was left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step {
    /// How far the system clock jumped, forward or back.
    pub by_micros: i64,
    /// How far the system clock is now ahead of ours.
    pub offset_micros: i64,
}

/// The calibrated clock, given the readings.
#[derive(Clone, Copy, Debug)]
pub struct Calibrated {
    monotonic_micros: i64,
    now_micros: i64,
    /// The sum of the steps left out.
    offset_micros: i64,
}

impl Calibrated {
    /// A clock that starts at the system time of `reading`.
    #[must_use]
    pub const fn new(reading: Reading) -> Self {
        Self {
            monotonic_micros: reading.monotonic_micros,
            now_micros: reading.system_micros,
            offset_micros: 0,
        }
    }

    /// Goes on to `reading`; reports a step of the system clock.
    pub fn advance(&mut self, reading: Reading) -> Option<Step> {
        let elapsed = reading.monotonic_micros.saturating_sub(self.monotonic_micros).max(0);
        self.monotonic_micros = self.monotonic_micros.max(reading.monotonic_micros);
        let expected = self.now_micros.saturating_add(elapsed);
        let error = reading.system_micros.saturating_sub(self.offset_micros).saturating_sub(expected);
        let tolerated = STEP_MICROS.saturating_add(elapsed / 1000);
        if !(-tolerated..=tolerated).contains(&error) {
            self.now_micros = expected;
            self.offset_micros = self.offset_micros.saturating_add(error);
            return Some(Step { by_micros: error, offset_micros: self.offset_micros });
        }
        self.now_micros = expected.saturating_add(slewed(error)).max(self.now_micros);
        None
    }

    /// The calibrated time since the Unix epoch at the last reading.
    #[must_use]
    pub const fn now_micros(&self) -> i64 {
        self.now_micros
    }
}

#[allow(clippy::cast_possible_truncation, reason = "0.3 of a bounded error is within i64")]
fn slewed(error: i64) -> i64 {
    (error as f64 * SLEW) as i64
}

/// The clock of this process; clones are the same clock.
#[derive(Clone, Debug)]
pub struct Clock {
    shared: Arc<Shared>,
}

struct Shared {
    clocks: Box<dyn Fn() -> Reading + Send + Sync>,
    /// The monotonic clock at the start, in microseconds.
    started: i64,
    calibrated: Mutex<Calibrated>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock").field("calibrated", &self.calibrated).finish_non_exhaustive()
    }
}

impl Clock {
    /// Starts the clock at the system time; one for each process.
    #[must_use]
    pub fn start() -> Self {
        #[allow(clippy::disallowed_methods, reason = "the clock of the process is read here")]
        let started = Instant::now();
        Self::of(move || reading(started))
    }

    /// A clock over other clocks than those of the machine.
    #[must_use]
    pub fn of(clocks: impl Fn() -> Reading + Send + Sync + 'static) -> Self {
        let first = clocks();
        let calibrated = Mutex::new(Calibrated::new(first));
        let started = first.monotonic_micros;
        Self { shared: Arc::new(Shared { clocks: Box::new(clocks), started, calibrated }) }
    }

    /// Milliseconds since the clock started, monotonic: for timers.
    #[must_use]
    pub fn tick(&self) -> u64 {
        let elapsed = (self.shared.clocks)().monotonic_micros.saturating_sub(self.shared.started);
        u64::try_from(elapsed / 1_000).unwrap_or(0)
    }

    /// Calibrated milliseconds since the Unix epoch, never going back. Some 100 ns: ask once per batch, not per record.
    #[must_use]
    pub fn now_millis(&self) -> i64 {
        let mut calibrated = self.shared.calibrated.lock().unwrap_or_else(PoisonError::into_inner);
        let step = calibrated.advance((self.shared.clocks)());
        let now = calibrated.now_micros();
        drop(calibrated);
        if let Some(step) = step {
            tracing::warn!(
                step_ms = step.by_micros / 1000,
                ahead_ms = step.offset_micros / 1000,
                "the system clock jumped; this process goes on without the jump until it is restarted"
            );
        }
        now.div_euclid(1000)
    }
}

#[allow(clippy::disallowed_methods, reason = "the clock of the process is read here")]
fn reading(started: Instant) -> Reading {
    let micros = |duration: Duration| i64::try_from(duration.as_micros()).unwrap_or(i64::MAX);
    let system_micros = match SystemTime::now().duration_since(SystemTime::UNIX_EPOCH) {
        Ok(after) => micros(after),
        Err(before) => micros(before.duration()).saturating_neg(),
    };
    Reading { monotonic_micros: micros(started.elapsed()), system_micros }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000;
    const HOUR: i64 = 3600 * SECOND;
    const EPOCH: i64 = 1_700_000_000 * SECOND;

    const fn at(monotonic_micros: i64, system_micros: i64) -> Reading {
        Reading { monotonic_micros, system_micros }
    }

    #[test]
    fn an_hours_step_of_the_system_clock_changes_nothing_and_is_reported_once() {
        for step in [HOUR, -HOUR] {
            let mut clock = Calibrated::new(at(0, EPOCH));
            let mut steps = Vec::new();
            for second in 1..100 {
                let stepped = if (30..60).contains(&second) { step } else { 0 };
                steps.extend(clock.advance(at(second * SECOND, EPOCH + second * SECOND + stepped)));
                assert_eq!(clock.now_micros(), EPOCH + second * SECOND);
            }
            let expected = [(step, step), (-step, 0)];
            let steps: Vec<_> = steps.iter().map(|step| (step.by_micros, step.offset_micros)).collect();
            assert_eq!(steps, expected);
        }
    }

    #[test]
    fn a_small_difference_is_taken_up_by_three_tenths_a_reading() {
        let mut clock = Calibrated::new(at(0, EPOCH));
        clock.advance(at(SECOND, EPOCH + SECOND + 1000));
        assert_eq!(clock.now_micros(), EPOCH + SECOND + 300);
        clock.advance(at(2 * SECOND, EPOCH + 2 * SECOND + 1000));
        assert_eq!(clock.now_micros(), EPOCH + 2 * SECOND + 510);
    }

    #[test]
    fn a_system_clock_behind_slows_the_clock_and_never_turns_it_back() {
        let mut clock = Calibrated::new(at(0, EPOCH));
        clock.advance(at(1, EPOCH - SECOND / 2));
        assert_eq!(clock.now_micros(), EPOCH);
        for tenth in 1..100 {
            clock.advance(at(tenth * SECOND / 10, EPOCH - SECOND / 2 + tenth * SECOND / 10));
        }
        let behind = EPOCH - SECOND / 2 + 99 * SECOND / 10 - clock.now_micros();
        assert!(behind.abs() < 1000, "{behind}");
    }

    /// The clock of a process whose machine has its system clock stepped by an hour and back: what it gives goes on evenly, and
    /// each step is a warning.
    #[test]
    fn a_process_goes_on_evenly_over_steps_of_its_machines_clock() {
        use std::sync::atomic::{AtomicI64, Ordering};
        let (elapsed, stepped) = (Arc::new(AtomicI64::new(0)), Arc::new(AtomicI64::new(0)));
        let clock = Clock::of({
            let (elapsed, stepped) = (Arc::clone(&elapsed), Arc::clone(&stepped));
            move || {
                let monotonic = elapsed.load(Ordering::Relaxed);
                at(7 * SECOND + monotonic, EPOCH + monotonic + stepped.load(Ordering::Relaxed))
            }
        });
        let warnings = Arc::new(Mutex::new(String::new()));
        let said = Arc::clone(&warnings);
        let subscriber =
            tracing_subscriber::fmt().with_ansi(false).with_writer(move || Lines(Arc::clone(&said))).finish();
        tracing::subscriber::with_default(subscriber, || {
            for second in 1..=120 {
                elapsed.store(second * SECOND, Ordering::Relaxed);
                stepped.store(
                    match second {
                        30..60 => HOUR,
                        60..90 => -HOUR,
                        _ => 0,
                    },
                    Ordering::Relaxed,
                );
                assert_eq!(clock.now_millis(), (EPOCH + second * SECOND) / 1_000);
                assert_eq!(clock.tick(), u64::try_from(second).unwrap() * 1_000);
            }
        });
        let warnings = warnings.lock().unwrap().clone();
        let steps: Vec<_> =
            warnings.lines().filter_map(|line| line.split("step_ms=").nth(1)?.split(' ').next()).collect();
        assert_eq!(steps, ["3600000", "-7200000", "3600000"], "{warnings}");
        assert!(warnings.lines().all(|line| line.contains("WARN")), "{warnings}");
    }

    /// Where a test's log lines go.
    struct Lines(Arc<Mutex<String>>);

    impl std::io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    proptest! {
        #[test]
        fn it_never_goes_back_and_stays_near_true_time(
            readings in proptest::collection::vec((0..10 * SECOND, -SECOND / 10..SECOND / 10, prop_oneof![
                8 => Just(0), 1 => Just(HOUR), 1 => Just(-HOUR)
            ]), 1..200)
        ) {
            let mut clock = Calibrated::new(at(0, EPOCH));
            let (mut monotonic, mut stepped, mut last) = (0, 0, EPOCH);
            for (elapsed, noise, step) in readings {
                monotonic += elapsed;
                stepped += step;
                let reported = clock.advance(at(monotonic, EPOCH + monotonic + noise + stepped));
                prop_assert_eq!(reported.is_some(), step != 0);
                prop_assert!(clock.now_micros() >= last);
                last = clock.now_micros();
                // A step is known only up to the noise of its reading: the errors of 200 steps may add up to 40 s.
                prop_assert!((clock.now_micros() - EPOCH - monotonic).abs() < 40 * SECOND);
            }
        }
    }

    #[test]
    fn the_process_clock_agrees_with_the_system_clock() {
        let clock = Clock::start();
        let system = (clock.shared.clocks)().system_micros / 1000;
        assert!((clock.now_millis() - system).abs() < 500);
        let (tick, now) = (clock.tick(), clock.now_millis());
        assert!(clock.clone().tick() >= tick && clock.now_millis() >= now);
    }
}
