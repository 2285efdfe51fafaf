//! Sessions of a shard: applied, closed, corrected, written.
//!
//! A record is merged first, then judged on the session that it has become part of: it is too late if there is none left for it and
//! the one it would begin is gone already. Where a late record joins a session whose result is out with something else, that
//! result is taken back (`pane: retracted`) by the commit that holds the change (design §7).

use super::{
    ENTRY_OVERHEAD, Late, Pane, ShardMachine, closing::Emitted, commit::RowWriter, spilled_sessions::Ended,
    state::Operator,
};
use crate::{
    aggregate::{At, Layout, Value},
    block::{Block, Closing},
    dead_letter::Reason,
    entry::EntryKey,
    frame::{RowReader, ShardFrame},
    runs::Unreadable,
    sessions::{Session, Sessions},
    time::EventTime,
};

impl ShardMachine {
    /// Applies the rows from offset delta `skip` on; the offset delta of the first row that lacks the payload it needs is the error.
    pub(super) fn apply_to_sessions(&mut self, frame: &ShardFrame, skip: u32) -> Result<(), u32> {
        let mut reader = RowReader::new(&frame.rows, skip);
        let mut applied = 0;
        let mut lacking = None;
        while let Some((place, time, key)) = reader.next_row() {
            if Some(time) < self.state.watermark {
                match self.judge_late_session(frame, place, time, key) {
                    Late::Applies => {}
                    Late::DeadLettered => continue,
                    Late::LacksPayload => {
                        lacking = frame.rows.offsets.get(place).copied();
                        break;
                    }
                }
            }
            let at = At { time, partition: frame.partition, offset: super::offset_of(frame, place) };
            self.add_to_session(key, &mut reader, &at, false);
            applied += 1;
        }
        self.dirty.rows |= applied > 0;
        self.state.input_mut(frame.partition).applied += applied;
        lacking.map_or(Ok(()), Err)
    }

    /// Adds the row that `reader` is at to its session.
    #[inline]
    pub(super) fn add_to_session(&mut self, key: &[u8], reader: &mut RowReader<'_>, at: &At, replayed: bool) {
        let (layout, watermark) = (&self.state.layout, self.state.watermark);
        let Operator::Sessions(sessions) = &mut self.state.operator else { return };
        let summaries = sessions.summary_bytes();
        let (mut row, newly_dirty) = sessions.session_mut(layout, key, at.time, watermark, replayed);
        layout.add_record(&mut row);
        if newly_dirty {
            self.dirty.bytes += key.len() + ENTRY_OVERHEAD + row.summary_bytes();
        }
        reader.values(|column, value| layout.add(&mut row, column, value, at));
        self.dirty.bytes += sessions.summary_bytes().saturating_sub(summaries);
    }

    fn judge_late_session(&mut self, frame: &ShardFrame, row: usize, time: EventTime, key: &[u8]) -> Late {
        if let Err(unreadable) = self.settle(key) {
            self.failed = Some(unreadable.into());
            return Late::Applies;
        }
        let Operator::Sessions(sessions) = &self.state.operator else { return Late::Applies };
        let (end, missed_by) = (sessions.end_of(time), self.missed_by());
        if Some(end) > missed_by || sessions.takes(key, time, missed_by) {
            return Late::Applies;
        }
        let Some(payload) = super::payload_of(&frame.rows, row) else { return Late::LacksPayload };
        self.push_late(frame, row, (Reason::Late, Some((time, end))), payload);
        Late::DeadLettered
    }

    /// Emits the sessions that ended by W_s until all are out, the next commit is full, or enough has been looked up for now.
    pub(super) fn close_sessions(&mut self) {
        if let Err(unreadable) = self.close_due_sessions() {
            self.failed = Some(unreadable.into());
        }
    }

    fn close_due_sessions(&mut self) -> Result<(), Unreadable> {
        while let Some(closing) = self.state.closing.clone() {
            let in_runs = self.first_end_in_runs()?;
            let Operator::Sessions(sessions) = &self.state.operator else { return Ok(()) };
            let next = [sessions.next_end(closing.done), in_runs].into_iter().flatten().min();
            let Some(end) = next.filter(|end| Some(*end) <= self.state.watermark) else {
                self.end_closing();
                return Ok(());
            };
            match self.emit_sessions(end, closing.key)? {
                Emitted::All => self.state.closing = Some(Closing { done: Some(end), key: None }),
                Emitted::UpTo(key) => {
                    self.state.closing = Some(Closing { done: closing.done, key: Some(key) });
                    return Ok(());
                }
                Emitted::Nothing => return Ok(()),
            }
            if self.looks_left == 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Emits the results of the sessions that end at `end`, of group keys after `after`.
    fn emit_sessions(&mut self, end: EventTime, after: Option<Vec<u8>>) -> Result<Emitted, Unreadable> {
        let Operator::Sessions(sessions) = &self.state.operator else { return Ok(Emitted::All) };
        let mut in_memory = sessions.ending(end).into_iter().peekable();
        let (mut last, mut emitted) = (after, false);
        // Behind `last`, where nothing ended.
        let mut looked_at = None;
        loop {
            let of_memory =
                in_memory.peek().and_then(|place| self.session_at(*place)).map(|session| session.key);
            let of_runs = self.key_in_runs(end);
            let Some(key) = [of_memory, of_runs].into_iter().flatten().min().map(<[u8]>::to_vec) else {
                return Ok(Emitted::All);
            };
            let (from_memory, from_runs) = (of_memory == Some(&*key), of_runs == Some(&*key));
            let is_out = last.as_ref().is_some_and(|last| key <= *last);
            if !is_out && self.looks_left == 0 {
                return Ok(looked_at.or(last.filter(|_| emitted)).map_or(Emitted::Nothing, Emitted::UpTo));
            }
            let ended = if is_out { Ended::default() } else { self.what_ends(end, &key)? };
            let is_something = !ended.is_nothing();
            if is_something && self.is_full() {
                return Ok(last.filter(|_| emitted).map_or(Emitted::Nothing, Emitted::UpTo));
            }
            if from_memory {
                in_memory.next();
            }
            if from_runs {
                self.pass_key_in_runs(end, &key)?;
            }
            if is_something {
                self.emit_ended(&key, ended);
                (last, emitted, looked_at) = (Some(key), true, None);
            } else if !is_out {
                looked_at = Some(key);
            }
        }
    }

    /// Emits what late and replayed records have made of sessions whose result was out: retractions, then corrected results.
    pub(super) fn emit_late_sessions(&mut self) {
        self.emit_all_retracted();
        let Operator::Sessions(sessions) = &mut self.state.operator else { return };
        for (place, revision, replayed) in sessions.take_late() {
            let pane = if replayed { Pane::Replay } else { Pane::Late };
            self.emit_session(place, pane, revision);
        }
    }

    /// Emits that results are of sessions that are no more.
    pub(super) fn emit_all_retracted(&mut self) {
        let Operator::Sessions(sessions) = &mut self.state.operator else { return };
        for gone in sessions.take_retracted() {
            self.emit_retracted((gone.start, gone.end), gone.key, gone.emitted);
        }
    }

    pub(super) fn emit_retracted(&mut self, window: (EventTime, EventTime), key: Vec<u8>, emitted: u32) {
        let nothing = vec![Value::Null; self.state.layout.outputs()];
        self.push_result(window, key, nothing, Pane::Retracted, emitted);
    }

    pub(super) fn emit_session(&mut self, place: u32, pane: Pane, revision: u32) {
        let Some(session) = self.session_at(place) else { return };
        let (window, key) = ((session.start, session.end), session.key.to_vec());
        let values = self.state.layout.results(session.row);
        self.push_result(window, key, values, pane, revision);
    }

    pub(super) fn session_at(&self, place: u32) -> Option<Session<'_>> {
        self.state.sessions()?.at(&self.state.layout, place)
    }
}

/// Writes the sessions that changed, and takes away the entries of those that are no more.
pub(super) fn write_changes(
    sessions: &mut Sessions,
    layout: &Layout,
    writer: &mut RowWriter,
    block: &mut Block,
) {
    for place in sessions.take_dirty() {
        if let Some(session) = sessions.at(layout, place) {
            writer.write_session(&session, layout, block);
        }
    }
    sessions.take_pulled().iter().for_each(|key| write_pulled(key, block));
    for (start, key) in sessions.take_gone() {
        let mut entry = Vec::new();
        EntryKey::Session(start, &key).encode(&mut entry);
        block.entries.delete(&entry);
    }
}

/// Writes that the sessions of `key` in runs do not count.
pub(super) fn write_pulled(key: &[u8], block: &mut Block) {
    let mut entry = Vec::new();
    EntryKey::Pulled(key).encode(&mut entry);
    block.entries.upsert(&entry, &[]);
}

/// Writes sessions from the cursor on until the block reaches `budget` bytes; true when none is left.
pub(super) fn walk(
    sessions: &Sessions,
    layout: &Layout,
    cursor: &mut u32,
    writer: &mut RowWriter,
    block: &mut Block,
    budget: usize,
) -> bool {
    while *cursor < sessions.places() {
        if block.entries.len() >= budget {
            return false;
        }
        if let Some(session) = sessions.at(layout, *cursor) {
            writer.write_session(&session, layout, block);
        }
        *cursor += 1;
    }
    true
}
