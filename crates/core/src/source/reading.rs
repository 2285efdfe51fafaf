//! What the readers of the lanes bring: records, ends, and the news that records are gone.

use super::{Effect, LaneKind, SourcePartition};
use crate::{
    announcement::PartitionState,
    dead_letter::Payload,
    lane::{Lane, RejectedRecord, Row},
    time::{Offset, Shard, Tick},
};

impl SourcePartition {
    /// Takes the next record of a lane; false when the lane has ended and the rest of the batch is not wanted.
    #[inline]
    pub fn row(
        &mut self,
        kind: LaneKind,
        record: &Row<'_>,
        now: Tick,
        payload: impl FnOnce() -> Payload,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.accepts(kind, record.offset, now, effects) {
            Accepts::Takes => {}
            Accepts::Known => return true,
            Accepts::Ended => return false,
        }
        let announced = self.announced.as_ref().and_then(|announced| announced.watermark);
        let everything = self.activity.maybe_excluded;
        if let Some(lane) = self.lane_mut(kind) {
            lane.push_row(record, announced, everything, payload);
        }
        true
    }

    /// Takes the next record of a lane, which is no row; false as for [`SourcePartition::row`].
    pub fn reject(
        &mut self,
        kind: LaneKind,
        offset: Offset,
        record: RejectedRecord,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.accepts(kind, offset, now, effects) {
            Accepts::Takes => {}
            Accepts::Known => return true,
            Accepts::Ended => return false,
        }
        let shard = Shard::of_rejects(self.partition, self.job.shards);
        if let Some(lane) = self.lane_mut(kind) {
            lane.push_reject(offset, shard, record);
        }
        true
    }

    #[inline]
    fn accepts(&mut self, kind: LaneKind, offset: Offset, now: Tick, effects: &mut Vec<Effect>) -> Accepts {
        match kind {
            LaneKind::Main => {
                self.activity.last_record = now;
                if !self.activity.held {
                    self.activity.state = PartitionState::Active;
                }
            }
            LaneKind::CatchUp => {
                if self.joins_at(offset) {
                    self.join(effects);
                    return Accepts::Ended;
                }
            }
        }
        let Some(lane) = self.lane_mut(kind) else { return Accepts::Ended };
        if offset < lane.position() {
            return Accepts::Known;
        }
        if lane.must_cut(offset) {
            self.cut(kind, effects);
        }
        Accepts::Takes
    }

    /// Whether a catch-up lane whose next record is at `offset` has covered all that the main lane has.
    fn joins_at(&self, offset: Offset) -> bool {
        self.main.as_ref().is_some_and(|main| offset >= main.position())
    }

    /// The catch-up lane has come to the main lane's position: both cut there, and its sessions are live.
    fn join(&mut self, effects: &mut Vec<Effect>) {
        let Some(position) = self.main.as_ref().map(Lane::position) else { return };
        if let Some(lane) = self.catch_up.as_mut() {
            lane.skip_to(position);
        }
        self.cut(LaneKind::CatchUp, effects);
        self.cut(LaneKind::Main, effects);
        if let (Some(main), Some(done)) = (self.main.as_mut(), self.catch_up.take()) {
            main.adopt(done);
            self.alignment.restarted();
            effects.push(Effect::Stop(LaneKind::CatchUp));
        }
    }

    /// The lane's reader has come to the end: `position` is its fetch position there.
    pub fn end(&mut self, kind: LaneKind, position: Offset, effects: &mut Vec<Effect>) {
        match kind {
            LaneKind::Main => {
                if let Some(main) = self.main.as_mut() {
                    main.skip_to(position);
                }
            }
            LaneKind::CatchUp => {
                if let Some(lane) = self.catch_up.as_mut() {
                    lane.skip_to(position);
                }
                if self.joins_at(position) {
                    self.join(effects);
                }
            }
        }
    }

    /// The lane cannot read on: the log begins at `start` now, behind its position, and what lay between is gone (design §5,
    /// `on_data_loss`). It goes on there, and the missing offsets are a gap like those of markers. Gives how many they are for
    /// this lane.
    pub fn lost_below(&mut self, kind: LaneKind, start: Offset, effects: &mut Vec<Effect>) -> u64 {
        // A catch-up lane ends where the main lane is, which finds out for itself.
        let start = match (kind, &self.main) {
            (LaneKind::CatchUp, Some(main)) => start.min(main.position()),
            _ => start,
        };
        let Some(lane) = self.lane_mut(kind) else { return 0 };
        let lost = start.0.saturating_sub(lane.position().0);
        self.end(kind, start, effects);
        if let Some(position) = self.lane_mut(kind).map(|lane| lane.position()) {
            if kind == LaneKind::CatchUp {
                self.alignment.restarted();
            }
            effects.push(Effect::Start(kind, position));
        }
        lost
    }
}

/// What a lane does with a record.
enum Accepts {
    Takes,
    /// It lies before the lane's position.
    Known,
    /// The lane is not there any more.
    Ended,
}
