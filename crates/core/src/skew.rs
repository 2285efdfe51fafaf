//! How event times compare with the clock when their records arrive (spec T8): *skew* is the clock minus the event time, positive
//! for what lies behind, negative for what is ahead.
//!
//! Two generations of half a minute each tell what is usual now; totals since the start are there for a metric. A record costs one
//! count; memory is constant. `cargo run --release -p tidegate-core --example tracker_rate` measures it too.

use crate::{
    sketch::Sketch,
    time::{EventTime, Span, Tick},
};

/// A generation lasts this long, in ms.
const GENERATION: u64 = 30_000;

/// Upper ends of the buckets of [`Totals`], in ms; a last bucket has no end. What is ahead is below zero.
pub const ENDS: [i64; 11] =
    [-3_600_000, -60_000, -1_000, 0, 100, 1_000, 10_000, 60_000, 600_000, 3_600_000, 86_400_000];

/// The skew of one partition.
#[derive(Clone, Debug, Default)]
pub struct Skew {
    current: Generation,
    before: Generation,
    began: Option<Tick>,
    /// Of the generations that have ended.
    totals: Totals,
}

/// What is usual now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SkewSummary {
    /// Half of the records are less behind than this; negative where it is ahead.
    pub p50: Span,
    /// All but a hundredth are.
    pub p99: Span,
    /// How far ahead of the clock the furthest was; zero if none was.
    pub most_ahead: Span,
}

/// Counts since the start, by [`ENDS`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Records in each bucket, not cumulated; a skew is known to an eighth.
    pub counts: [u64; ENDS.len() + 1],
    /// The sum of all skews, in ms.
    pub sum: i64,
}

#[derive(Clone, Debug, Default)]
struct Generation {
    behind: Sketch,
    ahead: Sketch,
    most_ahead: Span,
    sum: i64,
}

impl Skew {
    /// A record with event time `time` arrives when the calibrated clock says `clock`.
    #[inline]
    pub fn add(&mut self, clock: EventTime, time: EventTime) {
        let skew = clock.since(time);
        self.current.sum = self.current.sum.saturating_add(skew.0);
        if skew < Span::ZERO {
            let ahead = Span(skew.0.saturating_neg());
            self.current.most_ahead = self.current.most_ahead.max(ahead);
            self.current.ahead.add(ahead);
        } else {
            self.current.behind.add(skew);
        }
    }

    /// Time passes: what is old is forgotten.
    pub fn turn(&mut self, now: Tick) {
        let began = *self.began.get_or_insert(now);
        if now.since(began) >= GENERATION {
            self.began = Some(now);
            self.totals = self.totals();
            self.before = std::mem::take(&mut self.current);
        }
    }

    /// What is usual now; `None` while no record has come for a while.
    #[must_use]
    pub fn summary(&self) -> Option<SkewSummary> {
        let (mut behind, mut ahead) = (self.current.behind.clone(), self.current.ahead.clone());
        behind.merge(&self.before.behind);
        ahead.merge(&self.before.ahead);
        let total = behind.total() + ahead.total();
        if total == 0 {
            return None;
        }
        let exceeded_by = |above: u64| match above.checked_sub(behind.total()) {
            None => behind.bound(above),
            Some(above) => Span(-ahead.bound(ahead.total().saturating_sub(above + 1)).0),
        };
        Some(SkewSummary {
            p50: exceeded_by(total / 2),
            p99: exceeded_by(total / 100),
            most_ahead: self.current.most_ahead.max(self.before.most_ahead),
        })
    }

    /// Counts since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let mut totals = self.totals;
        totals.sum = totals.sum.saturating_add(self.current.sum);
        let behind = self.current.behind.counts();
        let ahead = self.current.ahead.counts().map(|(end, count)| (Span(-end.0), count));
        for (skew, count) in behind.chain(ahead) {
            let at = ENDS.iter().position(|end| skew.0 <= *end).unwrap_or(ENDS.len());
            if let Some(bucket) = totals.counts.get_mut(at) {
                *bucket += count;
            }
        }
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: EventTime = EventTime(1_000_000_000);

    fn skew(skews: impl IntoIterator<Item = i64>) -> Skew {
        let mut skew = Skew::default();
        skews.into_iter().for_each(|by| skew.add(NOW, NOW.minus(Span(by))));
        skew
    }

    fn summary(p50: i64, p99: i64, most_ahead: i64) -> Option<SkewSummary> {
        Some(SkewSummary { p50: Span(p50), p99: Span(p99), most_ahead: Span(most_ahead) })
    }

    #[test]
    fn quantiles_run_from_the_furthest_ahead_to_the_furthest_behind() {
        assert_eq!(skew([]).summary(), None);
        assert_eq!(skew(0..=10).summary(), summary(5, 10, 0));
        assert_eq!(skew(-10..=0).summary(), summary(-5, 0, 10));
        assert_eq!(skew(-5..=5).summary(), summary(0, 5, 5));
        assert_eq!(skew((0..198).map(|at| if at < 2 { -9 } else { 3 })).summary(), summary(3, 3, 9));
    }

    #[test]
    fn totals_stay_when_generations_go() {
        let mut skew = skew([-7_200_000, -1, 0, 50, 5_000, i64::MAX]);
        let totals = skew.totals();
        assert_eq!(totals.counts, [1, 0, 0, 2, 1, 0, 1, 0, 0, 0, 0, 1]);
        skew.turn(Tick(5));
        skew.turn(Tick(30_004));
        assert!(skew.summary().is_some());
        skew.turn(Tick(30_005));
        assert!(skew.summary().is_some(), "the generation before counts too");
        skew.turn(Tick(60_005));
        assert_eq!(skew.summary(), None);
        assert_eq!(skew.totals(), totals);
        skew.add(NOW, NOW);
        assert_eq!(skew.totals().counts[3], 3);
    }

    #[test]
    fn the_furthest_ahead_is_forgotten_after_two_generations() {
        let mut skew = skew([-500, 3]);
        skew.turn(Tick(0));
        skew.turn(Tick(30_000));
        skew.add(NOW, NOW);
        assert_eq!(skew.summary().map(|summary| summary.most_ahead), Some(Span(500)));
        skew.turn(Tick(60_000));
        assert_eq!(skew.summary().map(|summary| summary.most_ahead), Some(Span::ZERO));
    }
}
