//! What the coordinator is told of the partition.

use super::{Effect, LaneKind, SourcePartition};
use crate::{
    announcement::{Observed, Report},
    skew::Skew,
    time::{EventTime, Tick},
};

impl SourcePartition {
    /// A record with a usable event time comes to a lane when the calibrated clock says `clock`. What catches up has been seen.
    #[inline]
    pub fn arrives(&mut self, kind: LaneKind, clock: EventTime, time: EventTime) {
        if kind == LaneKind::Main {
            self.skew.add(clock, time);
        }
    }

    /// The delay in force and the skew as of the last report interval.
    #[must_use]
    pub const fn observed(&self) -> Observed {
        self.observed.0
    }

    /// How event times compare with the clock.
    #[must_use]
    pub const fn skew(&self) -> &Skew {
        &self.skew
    }

    pub(super) fn report(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(main) = self.main.as_ref() else { return };
        let (observed, looked) = &mut self.observed;
        if observed.delay.is_none() || now.since(*looked) >= self.timing.report_interval {
            self.skew.turn(now);
            *looked = now;
            *observed = Observed { delay: Some(main.tracker().delay()), skew: self.skew.summary() };
        }
        let report = Report {
            partition: self.partition,
            epoch: self.epoch,
            watermark: main.tracker().watermark(),
            agreed: main.tracker().agreed(),
            position: main.position(),
            state: self.activity.state,
            max_event_time: main.tracker().max_seen(),
            lag: self.end.0.saturating_sub(main.position().0),
            observed: *observed,
        };
        let due = self
            .reported
            .as_ref()
            .is_none_or(|(last, at)| *last != report || now.since(*at) >= self.timing.report_interval);
        if due {
            self.reported = Some((report, now));
            effects.push(Effect::Report(report));
        }
    }
}
