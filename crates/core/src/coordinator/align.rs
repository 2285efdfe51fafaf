//! Alignment (spec T9): a partition far ahead of W waits for the rest, so that state stays bounded while a backlog is
//! read.
//!
//! No deadlock: drift is measured from W, and W stands still only because of a partition that is unknown, has no reader,
//! has no watermark yet, or has one at or below W. None of these is more than `max_drift` above W, so what W waits for
//! is never paused; and once only paused partitions count, W rises to the lowest of them, which resumes it.
//! Until W is defined, drift is measured from the least watermark that was ever reported: where one partition takes long to be read, the
//! others wait near their beginning.
//!
//! Drift is that of the watermark several records agree on: a partition that is paused for the word of one record would not be
//! read on, W would pass what lies in it unread, and all of that would be late.

use super::source::{Owner, Pause, Source};
use super::{WatermarkEffect, WatermarkMachine};
use crate::drift::DriftBound;
use crate::time::{EventTime, Partition, Span, Watermark};

impl WatermarkMachine {
    pub(super) fn align(&mut self, effects: &mut Vec<WatermarkEffect>) {
        let Some(bound) = self.config.max_drift.map(DriftBound) else { return };
        let base = self.watermark.or_else(|| self.begin());
        let lift = std::mem::take(&mut self.lift_pauses);
        for (partition, source) in (0..).map(Partition).zip(&mut self.sources) {
            let Some(Owner { reader, .. }) = source.owner else { continue };
            let ahead = if lift { None } else { ahead_of(base, source) };
            let waits = source.pause == Pause::Paused;
            let next = if bound.holds(waits, ahead) { Pause::Paused } else { Pause::Lifted };
            if next != source.pause {
                source.pause = next;
                effects.push(match next {
                    Pause::Paused => WatermarkEffect::Pause { reader, partition },
                    Pause::Lifted | Pause::Unknown => WatermarkEffect::Resume { reader, partition },
                });
            }
        }
    }

    /// What drift is measured from while some partition has no watermark yet. That partition is not ahead of it.
    fn begin(&mut self) -> Watermark {
        let known = self.sources.iter().filter_map(|source| source.state.counting()?.watermark);
        self.beginning = known.chain(self.beginning).min();
        self.beginning
    }
}

/// How far a counting partition is above `base`; `None` for one that pausing does not concern.
fn ahead_of(base: Option<EventTime>, source: &Source) -> Option<Span> {
    source.state.counting()?;
    Some(source.agreed?.since(base?))
}
