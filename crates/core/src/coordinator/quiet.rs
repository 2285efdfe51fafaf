//! Quiet: every partition is idle (spec T6). Time moves on through the readers, behind each partition's records: the
//! machine asks for a raise, the reader raises its in-band watermark and reports, and W follows by the ordinary rule.

use super::source::{Ground, Source, SourceState};
use super::{WatermarkEffect, WatermarkMachine};
use crate::job::OnQuiet;
use crate::time::{EventTime, Partition, Span, Tick};

/// Steps of `advance`.
const ADVANCE_STEP: Span = Span(100);

/// A quiet spell under `advance`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    since: Tick,
    /// W when it began.
    from: EventTime,
    /// How far the readers have been asked to go.
    reached: EventTime,
}

impl WatermarkMachine {
    pub(super) fn raise_quiet(&mut self, now: Tick, clock: EventTime, effects: &mut Vec<WatermarkEffect>) {
        let Some(target) = self.quiet_target(now, clock) else { return };
        let retry_ms = self.config.report_interval_ms;
        for (partition, source) in (0..).map(Partition).zip(&mut self.sources) {
            effects.extend(raise(partition, source, target, now, retry_ms));
        }
    }

    fn quiet_target(&mut self, now: Tick, clock: EventTime) -> Option<EventTime> {
        match (self.ground, self.config.on_quiet) {
            (Ground::Held | Ground::Counting(_), _) | (_, OnQuiet::Hold) => None,
            // The last window of a record at `seen` ends at most one size later, wherever the grid lies.
            (Ground::Quiet(_), OnQuiet::Finish) => self.seen.map(|seen| seen.plus(self.config.window)),
            (Ground::Quiet(_), OnQuiet::Advance) => {
                let from = self.watermark?;
                let quiet = self.quiet.get_or_insert(Quiet { since: now, from, reached: from });
                let elapsed = Span(i64::try_from(now.since(quiet.since)).unwrap_or(i64::MAX));
                // A record stamped now may still be `delay` late, as for the trackers.
                let wanted = quiet.from.plus(elapsed).min(clock.minus(self.config.delay));
                if wanted.since(quiet.reached) >= ADVANCE_STEP {
                    quiet.reached = wanted;
                }
                (quiet.reached > quiet.from).then_some(quiet.reached)
            }
        }
    }
}

/// Asks once for each target, and again while a report interval passes without the reader having done it.
fn raise(
    partition: Partition,
    source: &mut Source,
    to: EventTime,
    now: Tick,
    retry_ms: u64,
) -> Option<WatermarkEffect> {
    let SourceState::Idle(at) = source.state else { return None };
    let reader = source.owner?.reader;
    let asked = source.raised.is_some_and(|(asked, when)| asked >= to && now.since(when) < retry_ms);
    if at.watermark >= Some(to) || asked {
        return None;
    }
    source.raised = Some((to, now));
    source.lifted = Some(to);
    Some(WatermarkEffect::Raise { reader, partition, at: at.position, to })
}
