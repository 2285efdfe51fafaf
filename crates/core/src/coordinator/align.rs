//! Alignment (spec T9): a partition far ahead of W waits for the rest, so that state stays bounded while a backlog is
//! read.
//!
//! No deadlock: drift is measured from W, and W stands still only because of a partition that is unknown, has no reader,
//! has no watermark yet, or has one at or below W. None of these is more than `max_drift` above W, so what W waits for
//! is never paused; and once only paused partitions count, W rises to the lowest of them, which resumes it.
//!
//! Drift is that of the watermark several records agree on: a partition that is paused for the word of one record would not be
//! read on, W would pass what lies in it unread, and all of that would be late.

use super::source::{Owner, Pause, Source};
use super::{WatermarkEffect, WatermarkMachine};
use crate::time::{EventTime, Partition, Span};

impl WatermarkMachine {
    pub(super) fn align(&mut self, effects: &mut Vec<WatermarkEffect>) {
        let Some(max_drift) = self.config.max_drift else { return };
        let base = self.watermark.or_else(|| least_known(&self.sources));
        let lift = std::mem::take(&mut self.lift_pauses);
        for (partition, source) in (0..).map(Partition).zip(&mut self.sources) {
            let Some(Owner { reader, .. }) = source.owner else { continue };
            let ahead = if lift { None } else { ahead_of(base, source) };
            let too_far = |bound: Span| ahead.is_some_and(|ahead| ahead > bound);
            let next = match source.pause {
                Pause::Lifted | Pause::Unknown if too_far(max_drift) => Pause::Paused,
                Pause::Paused if too_far(resume_at(max_drift)) => Pause::Paused,
                Pause::Lifted | Pause::Paused | Pause::Unknown => Pause::Lifted,
            };
            if next != source.pause {
                source.pause = next;
                effects.push(match next {
                    Pause::Paused => WatermarkEffect::Pause { reader, partition },
                    Pause::Lifted | Pause::Unknown => WatermarkEffect::Resume { reader, partition },
                });
            }
        }
    }
}

/// How far a counting partition is above `base`; `None` for one that pausing does not concern.
fn ahead_of(base: Option<EventTime>, source: &Source) -> Option<Span> {
    source.state.counting()?;
    Some(source.agreed?.since(base?))
}

fn least_known(sources: &[Source]) -> Option<EventTime> {
    sources.iter().filter_map(|source| source.state.counting()?.watermark).min()
}

/// Three quarters of the bound, so that a partition at the bound does not flap.
const fn resume_at(max_drift: Span) -> Span {
    Span(max_drift.0 / 4 * 3)
}
