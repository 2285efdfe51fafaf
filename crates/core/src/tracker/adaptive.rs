//! The delay that keeps the share of late records at a target, from a sketch of how late they have been.
//!
//! A record's lateness is its distance behind the candidate when it arrives. The delay is the smallest that at most the target
//! share of the recent records exceeded, with a standard deviation to spare, within `[min_delay, max_delay]`; looked at every 256
//! records. When 64 of those counted may be late all counts are halved: a record counts half as much after some 32/target others.
//! Eight that may be late are a sample; until then the delay is `max_delay`.

use crate::{job::PerMillion, sketch::Sketch, time::Span};

const LOOK_EVERY: u32 = 256;
const MILLION: u64 = 1_000_000;
/// So many records for each that may be late are a sample.
const SAMPLE: u64 = 8;
/// So many are the most that are counted.
const MOST: u64 = 64;

#[derive(Clone, Debug)]
pub(super) struct Adaptive {
    target: PerMillion,
    min_delay: Span,
    max_delay: Span,
    delay: Span,
    learning: bool,
    sketch: Sketch,
    /// Records later than `max_delay`, which no delay helps.
    beyond: u64,
    look_in: u32,
}

impl Adaptive {
    pub(super) fn new(target: PerMillion, min_delay: Span, max_delay: Span) -> Self {
        Self {
            target,
            min_delay,
            max_delay,
            delay: max_delay,
            learning: true,
            sketch: Sketch::default(),
            beyond: 0,
            look_in: LOOK_EVERY,
        }
    }

    #[inline]
    pub(super) fn observe(&mut self, lateness: Span) {
        if lateness > self.max_delay {
            self.beyond += 1;
        } else {
            self.sketch.add(lateness);
        }
        self.look_in -= 1;
        if self.look_in == 0 {
            self.look();
        }
    }

    /// The last `count` records were not late: it was the candidate that was wrong.
    pub(super) fn take_back(&mut self, count: u32) {
        self.beyond = self.beyond.saturating_sub(count.into());
    }

    fn look(&mut self) {
        self.look_in = LOOK_EVERY;
        if self.total() >= self.records(MOST) {
            self.sketch.halve();
            self.beyond /= 2;
        }
        self.learning &= self.total() < self.records(SAMPLE);
        if !self.learning {
            let expected = self.total().saturating_mul(self.target.0.into()) / MILLION;
            let may_be_late = expected - expected.isqrt();
            let delay = match may_be_late.checked_sub(self.beyond) {
                Some(above) => self.sketch.bound(above),
                None => self.max_delay,
            };
            self.delay = delay.clamp(self.min_delay, self.max_delay);
        }
    }

    /// So many records among which `late` may be late.
    fn records(&self, late: u64) -> u64 {
        (late * MILLION / u64::from(self.target.0.max(1))).max(LOOK_EVERY.into())
    }

    fn total(&self) -> u64 {
        self.sketch.total() + self.beyond
    }

    #[inline]
    pub(super) const fn delay(&self) -> Span {
        self.delay
    }

    pub(super) const fn is_learning(&self) -> bool {
        self.learning
    }

    /// The share of the records counted that were later than the delay in force now.
    pub(super) fn late(&self) -> PerMillion {
        let late = self.sketch.above(self.delay) + self.beyond;
        let share = late.saturating_mul(MILLION).checked_div(self.total()).unwrap_or(0);
        PerMillion(u32::try_from(share).unwrap_or(u32::MAX))
    }
}
