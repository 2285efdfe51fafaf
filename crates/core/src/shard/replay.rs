//! Dead letters that come back: applied to what is kept of their windows, each once.
//!
//! A replayed entry makes no dead letter and moves no watermark, no position and no count of the source. Closed windows that
//! are still kept give their whole corrected result (`pane: replay`); windows that are open hold it from now on.

use super::{ENTRY_OVERHEAD, Pane, ShardMachine, payload_of, state::Operator};
use crate::{
    aggregate::At,
    dead_letter::Reason,
    frame::RowReader,
    ordered::{Buffered, Place},
    replay::{Origin, Outcome, ReplayFrame, Replayed},
    time::{EventTime, Offset, Partition},
    window::Grid,
};

impl ShardMachine {
    /// Answers for the entries of a frame; call only while [`ShardMachine::takes_frames`]. The answer is durable with the next commit
    /// that is planned, at once if neither changes wait nor a commit is on its way.
    pub fn apply_replay(&mut self, frame: &ReplayFrame) -> Replayed {
        debug_assert!(self.state.closing.is_none(), "frames wait while windows close");
        let mut replayed = Replayed::default();
        let mut reader = RowReader::new(&frame.rows, 0);
        for (origin, delta) in frame.origins.iter().zip(&frame.rows.offsets) {
            let offset = Offset(frame.from.0.saturating_add(u64::from(*delta)));
            let Some((row, time, key)) = reader.next_row() else { break };
            if self.state.answered.contains(frame.partition, offset) {
                replayed.known += 1;
                continue;
            }
            let outcome = self.replay_row(frame, (row, time, key), origin, &mut reader);
            match outcome {
                Outcome::Applied => replayed.applied += 1,
                Outcome::Expired => replayed.expired += 1,
            }
            self.state.answered.answer(frame.partition, offset, outcome);
            self.dirty.bytes += ENTRY_OVERHEAD;
        }
        for offsets in &frame.covers {
            self.state.answered.cover(frame.partition, offsets);
        }
        replayed
    }

    /// What became of an entry of the dead-letter topic, if this shard has answered for it.
    #[must_use]
    pub fn replayed(&self, partition: Partition, offset: Offset) -> Option<Outcome> {
        self.state.answered.outcome(partition, offset)
    }

    fn replay_row(
        &mut self,
        frame: &ReplayFrame,
        (row, time, key): (usize, EventTime, &[u8]),
        origin: &Origin,
        reader: &mut RowReader<'_>,
    ) -> Outcome {
        let place = Place { time, partition: origin.partition, offset: origin.offset };
        match self.state.operator {
            Operator::Windows(grid) if origin.reason == Reason::LatePartial => {
                self.correct_missed(grid, place.time, key, origin)
            }
            Operator::Windows(grid) => self.replay_to_windows(grid, place, key, reader),
            Operator::Sessions(_) => self.replay_to_session(place, key, reader),
            Operator::Reorder | Operator::Sliding(_) if Some(time) < self.state.watermark => Outcome::Expired,
            Operator::Reorder => match payload_of(&frame.rows, row) {
                Some(payload) => self.replay_to_buffer(place, Buffered::Whole { key: key.into(), payload }),
                None => Outcome::Expired,
            },
            Operator::Sliding(_) => {
                let alone = self.row_of_record(key, reader, &place);
                self.replay_to_buffer(place, alone)
            }
        }
    }

    /// An entry that is in its slice already: the windows that it missed, and that are kept, give a result with it.
    fn correct_missed(&mut self, grid: Grid, time: EventTime, key: &[u8], origin: &Origin) -> Outcome {
        let is_missed = |end: &EventTime| {
            origin.missed.is_none_or(|(start, last)| start <= grid.start_of(*end) && *end <= last)
        };
        let kept = |end: &EventTime| self.state.purged < Some(*end) && Some(*end) <= self.state.watermark;
        let missed: Vec<_> = grid.ends_of(time).filter(kept).filter(is_missed).collect();
        if missed.is_empty() {
            return Outcome::Expired;
        }
        for end in missed {
            self.touch_late(grid, end, key, Pane::Replay);
        }
        Outcome::Applied
    }

    fn replay_to_windows(
        &mut self,
        grid: Grid,
        place: Place,
        key: &[u8],
        reader: &mut RowReader<'_>,
    ) -> Outcome {
        if Some(grid.last_end(place.time)) <= self.state.purged {
            return Outcome::Expired;
        }
        let kept = |end: &EventTime| self.state.purged < Some(*end) && Some(*end) <= self.state.watermark;
        let closed: Vec<_> = grid.ends_of(place.time).filter(kept).collect();
        for end in closed {
            self.touch_late(grid, end, key, Pane::Replay);
        }
        self.add_to_slice(grid.slice_of(place.time), key, reader, &at(&place));
        self.dirty.rows = true;
        Outcome::Applied
    }

    fn replay_to_session(&mut self, place: Place, key: &[u8], reader: &mut RowReader<'_>) -> Outcome {
        if let Err(unreadable) = self.settle(key) {
            self.failed = Some(unreadable.into());
            return Outcome::Expired;
        }
        let Operator::Sessions(sessions) = &self.state.operator else { return Outcome::Expired };
        let is_kept = Some(sessions.end_of(place.time)) > self.state.purged;
        if !is_kept && !sessions.takes(key, place.time, None) {
            return Outcome::Expired;
        }
        self.add_to_session(key, reader, &at(&place), true);
        self.dirty.rows = true;
        Outcome::Applied
    }

    fn replay_to_buffer(&mut self, place: Place, record: Buffered) -> Outcome {
        self.buffer_record(place, record);
        self.dirty.rows = true;
        Outcome::Applied
    }
}

const fn at(place: &Place) -> At {
    At { time: place.time, partition: place.partition, offset: place.offset }
}
