//! What a partition is: active, idle, blocked or lagging. Idleness is proven, never guessed (design §4).

use super::{Effect, SourcePartition};
use crate::{
    announcement::PartitionState,
    lane::Lane,
    time::{EventTime, Offset, Tick},
};

#[derive(Debug)]
pub(super) struct Activity {
    pub(super) state: PartitionState,
    pub(super) last_record: Tick,
    pub(super) asked: Option<Tick>,
    pub(super) held: bool,
    /// Since the start or an idle report, until an announcement counts the partition as active: it may be excluded meanwhile.
    pub(super) maybe_excluded: bool,
}

impl SourcePartition {
    /// Whether reading is held up: a worker gives no credit, or the coordinator paused the partition.
    pub fn set_held(&mut self, held: bool, now: Tick) {
        if self.activity.held && !held {
            self.activity.last_record = now;
        }
        self.activity.held = held;
        match (held, self.activity.state) {
            (true, _) => self.activity.state = PartitionState::Blocked,
            (false, PartitionState::Blocked) => self.activity.state = PartitionState::Active,
            (false, _) => {}
        }
    }

    /// A fetch has shown that the partition goes on to `high`: for the lag that is reported.
    pub fn see_end(&mut self, high: Offset) {
        self.end = self.end.max(high);
    }

    /// The answer to [`Effect::ProveEnd`]: the last stable offset and the high watermark, as asked for after `asked`.
    pub fn end_proven(&mut self, stable: Offset, high: Offset, now: Tick) {
        let asked = self.activity.asked.take();
        let Some(position) = self.main.as_ref().map(Lane::position) else { return };
        self.end = high;
        let quiet = now.since(self.activity.last_record) >= self.idle_timeout()
            && asked.is_some_and(|asked| asked.since(self.activity.last_record) >= self.idle_timeout());
        if self.activity.held || !quiet {
            return;
        }
        if position >= high {
            self.activity.state = PartitionState::Idle;
            self.activity.maybe_excluded = true;
        } else if position >= stable {
            self.activity.state = PartitionState::Lagging;
        }
    }

    fn idle_timeout(&self) -> u64 {
        u64::try_from(self.job.watermark.idle_timeout.0).unwrap_or(0)
    }

    /// The coordinator lifts the watermark of a quiet partition, behind its records: only if it is still idle at `at`.
    pub fn raise(&mut self, at: Offset, to: EventTime) {
        if self.activity.state == PartitionState::Idle
            && let Some(main) = self.main.as_mut().filter(|main| main.position() == at)
        {
            main.tracker_mut().raise(to);
        }
    }

    pub(super) fn look_for_idleness(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let settled = matches!(self.activity.state, PartitionState::Idle | PartitionState::Blocked);
        let quiet = now.since(self.activity.last_record) >= self.idle_timeout();
        let asked_lately = self.activity.asked.is_some_and(|asked| now.since(asked) < 1_000);
        if self.main.is_some() && !settled && quiet && !asked_lately {
            self.activity.asked = Some(now);
            effects.push(Effect::ProveEnd);
        }
    }
}
