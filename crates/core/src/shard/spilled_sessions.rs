//! Sessions beyond the shard's memory: fragments in runs ([`crate::fragments`]), joined when they end, and when a late record comes.
//!
//! ```text
//! record at or after W_s ──► a fragment in memory; no read
//! late record ──► *settle* its key: its sessions leave the runs for memory, merged; then as if nothing had ever left
//! W_s passes the end of a fragment ──► what the key has in memory and runs, joined: does its session end there?  ──► result
//! ```
//! A session that has had a result that counts is whole: no record at or after W_s reaches it, and a late one settles its key. So how
//! often a result is out is known to that one fragment. An early result settles its key too; what comes behind it may make the
//! session another, which is seen when W_s passes the end of what is out, or when the key is settled: then it is taken back.
//! What ended by X is no more, wherever it lies; it goes for good when half of the runs
//! is such: with memory empty, a compaction of all of them.

use super::{
    ENTRY_OVERHEAD, Pane, ShardMachine, ShardState,
    state::{AllOutdated, AllSessions, Operator},
};
use crate::{
    block::Block,
    entry::EntryKey,
    fragments::{
        BY_KEY, Fragment, Joined, KeyRow, Outdated, behind_end, by_end, drop_ended, end_and_key, join,
        take_key,
    },
    runs::{Compaction, Looks, Unreadable, Walk},
    sessions::Sessions,
    time::{EventTime, Watermark},
};
use std::collections::BTreeMap;

/// Chunks of a part by end, about.
const PART_CHUNKS: usize = 256;

impl ShardMachine {
    /// The first end of a fragment in runs that the closing has not passed.
    pub(super) fn first_end_in_runs(&mut self) -> Result<Option<EventTime>, Unreadable> {
        if self.state.runs.of_slice(BY_KEY).is_empty() {
            self.walk = None;
            return Ok(None);
        }
        if self.walk.is_none() {
            let closing = self.state.closing.as_ref();
            let behind = behind_end(closing.map_or(self.state.watermark, |closing| closing.done));
            let parts = self.state.runs.parts().filter(|part| part.slice < BY_KEY);
            self.walk = Some(Walk::new(parts, &behind, &self.state.runs)?);
        }
        Ok(self.entry_in_runs().map(|(end, _)| end))
    }

    /// The key of the next fragment in runs, if it ends at `end`.
    pub(super) fn key_in_runs(&self, end: EventTime) -> Option<&[u8]> {
        self.entry_in_runs().filter(|(other, _)| *other == end).map(|(_, key)| key)
    }

    fn entry_in_runs(&self) -> Option<(EventTime, &[u8])> {
        self.walk.as_ref()?.row().and_then(|(entry, _)| end_and_key(entry))
    }

    /// Goes past the fragments of `key` that end at `end`.
    pub(super) fn pass_key_in_runs(&mut self, end: EventTime, key: &[u8]) -> Result<(), Unreadable> {
        while self.key_in_runs(end) == Some(key) {
            let Some(walk) = &mut self.walk else { return Ok(()) };
            walk.advance(&self.state.runs)?;
        }
        Ok(())
    }

    /// What ends at `end` of `key`; that may be a part of a session that goes on, and nothing.
    pub(super) fn what_ends(&mut self, end: EventTime, key: &[u8]) -> Result<Ended, Unreadable> {
        let Operator::Sessions(sessions) = &self.state.operator else { return Ok(Ended::default()) };
        let mut ended = Ended::default();
        if self.state.runs.of_slice(BY_KEY).is_empty() || sessions.is_pulled(key) {
            ended.session = sessions.ends_at(key, end).map(Whole::InMemory);
            return Ok(ended);
        }
        self.looks_left = self.looks_left.saturating_sub(1);
        // Keys of one end come in order.
        for joined in self.state.sessions_of(key, &mut self.looks)? {
            ended.outdated.extend(joined.outdated.into_iter().filter(|out| out.end == end));
            if joined.session.end == end {
                ended.session = Some(Whole::Joined { session: joined.session, parts: joined.parts });
            }
        }
        Ok(ended)
    }

    /// Emits its result, and takes back what is outdated.
    pub(super) fn emit_ended(&mut self, key: &[u8], ended: Ended) {
        for Outdated { start, end, emitted } in ended.outdated {
            self.emit_retracted((start, end), key.to_vec(), emitted);
        }
        let session = match ended.session {
            None => return,
            Some(Whole::InMemory(place)) => return self.emit_session(place, Pane::Final, 0),
            Some(Whole::Joined { session, parts }) => {
                self.joined += u64::from(parts > 1);
                session
            }
        };
        let (window, values) = ((session.start, session.end), self.state.layout.results(session.row.row()));
        self.push_result(window, key.to_vec(), values, Pane::Final, 0);
        if let Operator::Sessions(sessions) = &mut self.state.operator {
            sessions.close(key, window);
        }
    }

    /// Before a late record of `key` or an early result: makes its sessions those in memory, and none that are no more; never while
    /// sessions close. What is outdated is among the retractions then.
    pub(super) fn settle(&mut self, key: &[u8]) -> Result<(), Unreadable> {
        debug_assert!(self.state.closing.is_none(), "all results up to W_s are out");
        let state = &mut self.state;
        let Operator::Sessions(sessions) = &state.operator else { return Ok(()) };
        // With nothing in runs too: where the log is folded, they may have sessions that a compaction has left out here.
        let counts = state.run > 0 && !sessions.is_pulled(key);
        let in_runs = if counts { state.in_runs(key, &mut Looks::default())? } else { Vec::new() };
        let pulled = (!in_runs.is_empty()).then(|| state.joined(sessions, key, in_runs));
        let Operator::Sessions(sessions) = &mut state.operator else { return Ok(()) };
        if let Some(pulled) = pulled {
            let rows: usize = pulled.iter().map(|joined| joined.session.row.bytes()).sum();
            sessions.pull(&state.layout, key, &pulled, state.watermark);
            self.joined += pulled.iter().filter(|joined| joined.parts > 1).count() as u64;
            self.dirty.bytes += (key.len() + ENTRY_OVERHEAD) * (pulled.len() + 1) + rows;
            self.dirty.rows = true;
        } else if counts {
            sessions.note_pulled(key);
            self.dirty.bytes += key.len() + ENTRY_OVERHEAD;
        }
        sessions.purge_key(key, state.purged);
        Ok(())
    }

    /// Memory is empty: notes that sessions may go for good, where that is worth it.
    pub(super) fn note_purge_of_sessions(&mut self) {
        if self.state.are_sessions_gone() {
            self.purging = Some((self.state.run.saturating_sub(1), self.state.purged));
        }
    }

    /// The compaction with which they go.
    pub(super) fn purge_of_sessions(&mut self, boundary: Option<u64>) -> Option<Compaction> {
        let purging = self.purging?;
        let due = self.state.runs.purge_of_sessions(purging, boundary, &self.state.layout);
        if due.is_some() || self.state.runs.of_slice(BY_KEY).is_empty() {
            self.purging = None;
        }
        due
    }
}

/// What ends at a time, of a key.
#[derive(Default)]
pub(super) struct Ended {
    session: Option<Whole>,
    outdated: Vec<Outdated>,
}

impl Ended {
    pub(super) const fn is_nothing(&self) -> bool {
        self.session.is_none() && self.outdated.is_empty()
    }
}

/// A session that has ended.
enum Whole {
    /// All of it is in memory, at this place.
    InMemory(u32),
    /// Joined from memory and runs.
    Joined { session: Fragment, parts: u32 },
}

impl ShardState {
    /// The sessions of `key` that are still there, in order.
    pub(super) fn sessions_of(&self, key: &[u8], looks: &mut Looks) -> Result<Vec<Joined>, Unreadable> {
        let Some(sessions) = self.sessions() else { return Ok(Vec::new()) };
        let in_runs = if sessions.is_pulled(key) { Vec::new() } else { self.in_runs(key, looks)? };
        Ok(self.joined(sessions, key, in_runs))
    }

    fn joined(&self, in_memory: &Sessions, key: &[u8], in_runs: Vec<Fragment>) -> Vec<Joined> {
        let mut all = in_runs;
        all.extend(in_memory.of_key(&self.layout, key).iter().map(Fragment::of));
        let mut joined = join(all, &self.layout);
        drop_ended(&mut joined, self.purged);
        joined
    }

    /// What the runs have of `key`.
    fn in_runs(&self, key: &[u8], looks: &mut Looks) -> Result<Vec<Fragment>, Unreadable> {
        let mut found = Vec::new();
        for part in self.runs.of_slice(BY_KEY).iter().rev() {
            let row = looks.with_row(&self.runs, part, key, |value| KeyRow::decode(value, &self.layout))?;
            let Some(row) = row else { continue };
            found.extend(row.fragments);
            if row.hides {
                break;
            }
        }
        Ok(found)
    }

    /// Rows by key in runs, and their bytes: of those that are still there, about.
    pub(super) fn sessions_in_runs(&self) -> (u64, u64) {
        let parts = self.runs.of_slice(BY_KEY);
        let rows: u64 = parts.iter().map(|part| part.rows()).sum();
        let bytes: u64 = parts.iter().map(|part| part.bytes()).sum();
        let there = rows.min(self.ends_in_runs());
        (there, (bytes / rows.max(1)).saturating_mul(there))
    }

    /// Fragments in runs that end behind X, about.
    fn ends_in_runs(&self) -> u64 {
        self.runs.parts().filter(|part| part.slice < BY_KEY).map(|part| part.rows()).sum()
    }

    /// Whether half of the runs is of sessions that are no more.
    pub(super) fn are_sessions_gone(&self) -> bool {
        let rows: u64 = self.runs.of_slice(BY_KEY).iter().map(|part| part.rows()).sum();
        rows > 0 && self.ends_in_runs() <= rows / 2
    }

    /// Makes the sessions in memory a run.
    pub(super) fn spill_sessions(&mut self) {
        let Operator::Sessions(sessions) = &mut self.operator else { return };
        let emptied = sessions.emptied();
        let spilled = std::mem::replace(&mut **sessions, emptied);
        let mut writer = self.runs.writer(BY_KEY, self.run);
        let (mut value, mut ends) = (Vec::new(), Vec::new());
        let mut places = spilled.sorted().into_iter().peekable();
        while let Some(first) = places.next().and_then(|place| spilled.at(&self.layout, place)) {
            let mut row =
                KeyRow { hides: spilled.is_pulled(first.key), fragments: vec![Fragment::of(&first)] };
            while let Some(next) = places
                .peek()
                .and_then(|place| spilled.at(&self.layout, *place))
                .filter(|next| next.key == first.key)
            {
                row.fragments.push(Fragment::of(&next));
                places.next();
            }
            ends.extend(row.fragments.iter().map(|fragment| by_end(fragment.end, first.key)));
            value.clear();
            row.encode(&self.layout, &mut value);
            writer.push(first.key, &value);
        }
        let part = writer.finish();
        if part.rows() > 0 {
            self.runs.insert(part);
        }
        self.write_ends(self.run, ends);
    }

    /// Makes the entries by end of rows that have been taken as those of `run`; `None` when a row does not read.
    pub(super) fn index_ends<'a>(
        &mut self,
        run: u64,
        rows: impl Iterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Option<()> {
        let mut ends = Vec::new();
        for (key, value) in rows {
            let row = KeyRow::decode(value, &self.layout)?;
            ends.extend(row.fragments.iter().map(|fragment| by_end(fragment.end, key)));
        }
        self.write_ends(run, ends);
        Some(())
    }

    fn write_ends(&mut self, run: u64, mut ends: Vec<Vec<u8>>) {
        ends.sort_unstable();
        let mut ends = ends.into_iter().peekable();
        while ends.peek().is_some() {
            // A part stands under its last end.
            let (mut taken, mut bytes, mut last) = (Vec::new(), 0, None);
            while bytes < PART_CHUNKS * self.runs.chunk_bytes()
                && let Some(entry) = ends.next()
            {
                bytes += entry.len();
                last = end_and_key(&entry).map(|(end, _)| end);
                taken.push(entry);
            }
            let slice = last.unwrap_or(BY_KEY).min(EventTime(BY_KEY.0 - 1));
            let mut writer = self.runs.writer(slice, run);
            taken.iter().for_each(|entry| writer.push(entry, &[]));
            self.runs.insert(writer.finish());
        }
    }

    /// All sessions that are still there, and what is outdated and not taken back yet.
    pub(super) fn add_sessions(
        &self,
        in_memory: &Sessions,
        (all, outdated): (&mut AllSessions, &mut AllOutdated),
    ) -> Result<(), Unreadable> {
        let mut by_key: BTreeMap<Vec<u8>, Vec<Fragment>> = BTreeMap::new();
        for session in in_memory.iter(&self.layout) {
            by_key.entry(session.key.to_vec()).or_default().push(Fragment::of(&session));
        }
        let mut walk = Walk::from_start(self.runs.of_slice(BY_KEY).iter(), &self.runs)?;
        while let Some((key, row)) = take_key(&mut walk, &self.runs, &self.layout)? {
            if !in_memory.is_pulled(&key) {
                by_key.entry(key).or_default().extend(row.fragments);
            }
        }
        let closed = self.closing.as_ref().map_or(self.watermark, |closing| closing.done);
        for (key, fragments) in by_key {
            let mut joined = join(fragments, &self.layout);
            drop_ended(&mut joined, self.purged);
            for Joined { session, outdated: of_session, .. } in joined {
                let Fragment { start, end, emitted, row } = session;
                all.insert((start, key.clone()), (end, emitted, row));
                let open = of_session.into_iter().filter(|out| Some(out.end) > closed);
                outdated.extend(open.map(|out| ((out.start, out.end, key.clone()), out.emitted)));
            }
        }
        Ok(())
    }
}

/// Writes the sessions of runs, as base entries, until the block reaches `budget` bytes; true when none is left. Those that had
/// ended by `purged`, when memory was last empty, are left out.
pub(super) fn walk(
    state: &ShardState,
    (up_to, purged): (u64, Watermark),
    (after, walk): (&mut Option<Vec<u8>>, &mut Option<Walk>),
    block: &mut Block,
    budget: usize,
) -> Result<bool, Unreadable> {
    let mut open = match walk.take() {
        Some(open) => open,
        None => {
            let parts = state.runs.of_slice(BY_KEY).iter().filter(|part| part.run <= up_to);
            match after.as_deref() {
                Some(after) => Walk::new(parts, after, &state.runs)?,
                None => Walk::from_start(parts, &state.runs)?,
            }
        }
    };
    while block.entries.len() < budget {
        let Some((key, row)) = take_key(&mut open, &state.runs, &state.layout)? else { return Ok(true) };
        let mut joined = join(row.fragments, &state.layout);
        drop_ended(&mut joined, purged);
        if !joined.is_empty() {
            let fragments =
                joined.into_iter().flat_map(|joined| joined.into_fragments(&state.layout)).collect();
            let row = KeyRow { hides: false, fragments };
            let (mut entry, mut value) = (Vec::new(), Vec::new());
            EntryKey::Base(BY_KEY, &key).encode(&mut entry);
            row.encode(&state.layout, &mut value);
            block.entries.upsert(&entry, &value);
        }
        *after = Some(key);
    }
    *walk = Some(open);
    Ok(false)
}
