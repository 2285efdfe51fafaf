//! Records from the future (spec T8): what is further ahead of the clock than the job allows moves no watermark.

use crate::{
    job::{OnFuture, WatermarkSpec},
    time::{EventTime, Span},
};

/// The bound on event times, as of a reading of the clock.
#[derive(Clone, Copy, Debug)]
pub struct Future {
    clock: EventTime,
    /// The largest event time that is believed; `None`: all are.
    latest: Option<EventTime>,
    then: OnFuture,
}

/// What is to be done with a record, by its event time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It counts, and the watermark follows it.
    Believed,
    /// It counts with this event time, that of its arrival, and the watermark does not follow it.
    Clamped(EventTime),
    /// It is a dead letter, so far beyond the bound.
    Rejected {
        /// Distance from the bound.
        beyond: Span,
    },
}

impl Future {
    /// The job's bound, when the calibrated clock says `clock`.
    #[must_use]
    pub fn of(job: &WatermarkSpec, clock: EventTime) -> Self {
        Self { clock, latest: job.max_future_skew.map(|skew| clock.plus(skew)), then: job.on_future }
    }

    /// What the clock says.
    #[must_use]
    #[inline]
    pub const fn clock(&self) -> EventTime {
        self.clock
    }

    /// Judges a record that arrives now.
    #[must_use]
    #[inline]
    pub fn judge(&self, time: EventTime) -> Judgement {
        match self.latest {
            Some(latest) if time > latest => match self.then {
                OnFuture::DeadLetter => Judgement::Rejected { beyond: time.since(latest) },
                OnFuture::Clamp => Judgement::Clamped(self.clock),
            },
            _ => Judgement::Believed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::{OnQuiet, WatermarkStrategy};

    fn future(max_future_skew: Option<Span>, on_future: OnFuture) -> Future {
        let strategy = WatermarkStrategy::Bounded { delay: Span(10) };
        let (idle_timeout, on_quiet) = (Span(1_000), OnQuiet::Hold);
        let spec = WatermarkSpec {
            strategy,
            idle_timeout,
            on_quiet,
            max_future_skew,
            on_future,
            reanchor_after: None,
        };
        Future::of(&spec, EventTime(1_000))
    }

    #[test]
    fn up_to_the_bound_a_record_is_believed() {
        for then in [OnFuture::DeadLetter, OnFuture::Clamp] {
            assert_eq!(future(Some(Span(50)), then).judge(EventTime(1_050)), Judgement::Believed);
            assert_eq!(future(Some(Span(50)), then).judge(EventTime(-9_000)), Judgement::Believed);
            assert_eq!(future(None, then).judge(EventTime(i64::MAX)), Judgement::Believed);
        }
    }

    #[test]
    fn beyond_it_is_a_dead_letter_or_counts_as_of_its_arrival() {
        let rejected = future(Some(Span(50)), OnFuture::DeadLetter).judge(EventTime(1_053));
        assert_eq!(rejected, Judgement::Rejected { beyond: Span(3) });
        let clamped = future(Some(Span(50)), OnFuture::Clamp).judge(EventTime(i64::MAX));
        assert_eq!(clamped, Judgement::Clamped(EventTime(1_000)));
    }
}
