//! The sessions of a shard: for each group key, intervals that records have made, with a row of accumulators each.
//!
//! A record at t makes `[t, t + gap)`, cut at the next multiple of `cut`; intervals of a key that overlap are one
//! session (Akidau et al., "The Dataflow Model", 2015). Which sessions there are does not depend on the order of the records,
//! as long as none of them has been purged.
//!
//! ```text
//! records   a    b              c
//! sessions  [a    b    +gap)    [c   +gap)         gap > b − a, gap ≤ c − b
//! ```
//! Sessions lie in one slab, those of a key in a chain, with a set of their ends beside it (≤ 200 bytes each, see
//! `cargo run --release -p tidegate-core --example slices_memory`).
#![allow(
    clippy::indexing_slicing,
    reason = "places come from the table, the chains and the set of ends, which name only taken slots"
)]

mod changes;
mod slots;
mod spilled;

use std::collections::{BTreeSet, HashSet};

use hashbrown::HashTable;

use crate::{
    aggregate::{Layout, Row, RowMut, RowRun},
    job::SessionSpec,
    time::{EventTime, Watermark},
};

use changes::Changes;
pub use changes::Retracted;
use slots::{Slot, place};

/// No further session in a chain.
const NONE: u32 = u32::MAX;

/// The sessions of a shard.
#[derive(Clone, Debug)]
pub struct Sessions {
    spec: SessionSpec,
    slots: Vec<Slot>,
    rows: RowRun,
    /// The first session of each key.
    table: HashTable<u32>,
    ends: BTreeSet<(EventTime, u32)>,
    free: Vec<u32>,
    key_bytes: usize,
    /// Keys of which runs hold nothing that counts: their sessions were taken out of them.
    pulled: HashSet<Box<[u8]>>,
    pulled_bytes: usize,
    /// X as of the last purge.
    purged: Watermark,
    changes: Changes,
}

/// A session.
#[derive(Clone, Copy, Debug)]
pub struct Session<'a> {
    /// The group key.
    pub key: &'a [u8],
    /// The first record's time.
    pub start: EventTime,
    /// Where it ends, exclusive.
    pub end: EventTime,
    /// Its results that are out, as far as they were counted: see [`Sessions::results_of`].
    pub emitted: u32,
    /// Its accumulators.
    pub row: Row<'a>,
}

impl Sessions {
    /// No session.
    #[must_use]
    pub fn new(spec: SessionSpec) -> Self {
        Self {
            spec,
            slots: Vec::new(),
            rows: RowRun::default(),
            table: HashTable::new(),
            ends: BTreeSet::new(),
            free: Vec::new(),
            key_bytes: 0,
            pulled: HashSet::new(),
            pulled_bytes: 0,
            purged: None,
            changes: Changes::default(),
        }
    }

    /// Where a record makes its session end, if it is alone.
    #[must_use]
    pub fn end_of(&self, time: EventTime) -> EventTime {
        let end = time.plus(self.spec.gap);
        match self.spec.cut {
            None => end,
            Some(cut) => {
                let width = cut.0.max(1);
                let next = time.0.saturating_sub(time.0.rem_euclid(width)).saturating_add(width);
                EventTime(end.0.min(next))
            }
        }
    }

    /// Whether a record at `time` falls into a session of `key` that ends after `ended`.
    #[must_use]
    pub fn takes(&self, key: &[u8], time: EventTime, ended: Option<EventTime>) -> bool {
        let end = self.end_of(time);
        self.chain(key).any(|at| self.slots[at].overlaps(time, end) && Some(self.slots[at].end) > ended)
    }

    /// The accumulators of the session that a record at `time` belongs to, all those that it joins merged, and whether it was clean
    /// before; `watermark` is W_s, and `replayed` says that it was a dead letter.
    pub fn session_mut(
        &mut self,
        layout: &Layout,
        key: &[u8],
        time: EventTime,
        watermark: Watermark,
        replayed: bool,
    ) -> (RowMut<'_>, bool) {
        let end = self.end_of(time);
        let mut next = self.head(key);
        let mut into: Option<usize> = None;
        while let Some(at) = next {
            next = self.next(at);
            if !self.slots[at].overlaps(time, end) {
                continue;
            }
            self.count_first_result(at, watermark);
            match into {
                None => into = Some(at),
                Some(first) => self.join(layout, first, at),
            }
        }
        let at = into.unwrap_or_else(|| self.insert(layout, key, time, end));
        self.extend(at, time, end);
        let newly_dirty = self.mark(at, watermark, replayed);
        (self.rows.row_mut(layout, at), newly_dirty)
    }

    /// A session that ended and that no late record has touched has one result out.
    fn count_first_result(&mut self, at: usize, watermark: Watermark) {
        let slot = &mut self.slots[at];
        if Some(slot.end) <= watermark && !slot.late {
            slot.emitted = slot.emitted.max(1);
        }
    }

    /// Makes `other` part of `into`.
    fn join(&mut self, layout: &Layout, into: usize, other: usize) {
        let row = self.rows.row(layout, other).to_owned();
        layout.merge(&mut self.rows.row_mut(layout, into), row.row());
        let (start, end) = (self.slots[other].start, self.slots[other].end);
        self.retract(other);
        self.remove(other);
        self.extend(into, start, end);
    }

    /// Widens a session to hold `[start, end)`.
    fn extend(&mut self, at: usize, start: EventTime, end: EventTime) {
        let slot = &self.slots[at];
        let (old, new) = ((slot.start, slot.end), (slot.start.min(start), slot.end.max(end)));
        if old == new {
            return;
        }
        self.retract(at);
        if old.0 != new.0 {
            self.forget_entry(at);
        }
        if old.1 != new.1 {
            self.ends.remove(&(old.1, place(at)));
            self.ends.insert((new.1, place(at)));
        }
        let slot = &mut self.slots[at];
        (slot.start, slot.end, slot.emitted) = (new.0, new.1, 0);
    }

    /// Forgets the sessions that ended at or before `purged`. Where runs have fragments too (`spilled`), what ended may be a part of
    /// a session that has not: that stays until [`Sessions::close`] says where its session ends, or memory is spilled.
    pub fn purge(&mut self, purged: EventTime, spilled: bool) {
        let from = self.purged.filter(|_| spilled).map_or((EventTime(i64::MIN), 0), |before| (before, NONE));
        self.purged = self.purged.max(Some(purged));
        let to = (purged, NONE);
        let ended: Vec<u32> = (from < to)
            .then(|| self.ends.range(from..=to))
            .into_iter()
            .flatten()
            .map(|(_, at)| *at)
            .collect();
        for at in ended {
            let slot = &self.slots[at as usize];
            if !spilled || slot.closed || self.pulled.contains(&slot.key) {
                self.remove(at as usize);
            }
        }
    }

    /// Places of all sessions, by key and start.
    pub(crate) fn sorted(&self) -> Vec<u32> {
        let mut places: Vec<u32> = (0..self.places()).filter(|at| self.slots[*at as usize].taken).collect();
        self.sort(&mut places);
        places
    }

    /// By key and start.
    fn sort(&self, places: &mut [u32]) {
        places.sort_unstable_by(|a, b| {
            let (a, b) = (&self.slots[*a as usize], &self.slots[*b as usize]);
            (&a.key, a.start).cmp(&(&b.key, b.start))
        });
    }

    /// The first end after `after`.
    #[must_use]
    pub fn next_end(&self, after: Watermark) -> Option<EventTime> {
        let from = after.map_or(EventTime(i64::MIN), |after| EventTime(after.0.saturating_add(1)));
        self.ends.range((from, 0)..).next().map(|(end, _)| *end)
    }

    /// Places of the sessions that end at `end`, by key.
    #[must_use]
    pub fn ending(&self, end: EventTime) -> Vec<u32> {
        let mut places: Vec<u32> = self.ends.range((end, 0)..=(end, NONE)).map(|(_, at)| *at).collect();
        places.sort_unstable_by(|a, b| self.slots[*a as usize].key.cmp(&self.slots[*b as usize].key));
        places
    }

    /// The session at a place, if there is one.
    #[must_use]
    pub fn at(&self, layout: &Layout, place: u32) -> Option<Session<'_>> {
        let at = place as usize;
        let slot = self.slots.get(at).filter(|slot| slot.taken)?;
        let row = self.rows.row(layout, at);
        Some(Session { key: &slot.key, start: slot.start, end: slot.end, emitted: slot.emitted, row })
    }

    /// The sessions of a key, in order.
    #[must_use]
    pub fn of_key(&self, layout: &Layout, key: &[u8]) -> Vec<Session<'_>> {
        let mut sessions: Vec<_> = self.chain(key).filter_map(|at| self.at(layout, place(at))).collect();
        sessions.sort_unstable_by_key(|session| session.start);
        sessions
    }

    /// Results of a session that are out, where all that ended by `watermark` have one.
    #[must_use]
    pub fn results_of(session: &Session<'_>, watermark: Watermark) -> u32 {
        session.emitted.max(u32::from(Some(session.end) <= watermark))
    }

    /// All sessions, in no order.
    pub fn iter<'a>(&'a self, layout: &'a Layout) -> impl Iterator<Item = Session<'a>> {
        (0..self.places()).filter_map(|at| self.at(layout, at))
    }

    /// Places are below this.
    #[must_use]
    pub fn places(&self) -> u32 {
        place(self.slots.len())
    }

    /// Takes over a session as it is in the log.
    pub fn restore(
        &mut self,
        layout: &Layout,
        key: &[u8],
        (start, end): (EventTime, EventTime),
        emitted: u32,
    ) -> RowMut<'_> {
        self.delete(start, key);
        let at = self.insert(layout, key, start, end);
        let slot = &mut self.slots[at];
        (slot.emitted, slot.logged) = (emitted, true);
        self.rows.row_mut(layout, at)
    }

    /// Takes away the session of `key` that starts at `start`, as the log says.
    pub fn delete(&mut self, start: EventTime, key: &[u8]) {
        let found = self.chain(key).find(|at| self.slots[*at].start == start);
        if let Some(at) = found {
            self.remove(at);
        }
    }

    /// Number of sessions.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// Bytes of all keys.
    #[must_use]
    pub const fn key_bytes(&self) -> usize {
        self.key_bytes
    }

    /// Bytes that the summaries of the rows take beside them.
    #[must_use]
    pub const fn summary_bytes(&self) -> usize {
        self.rows.heap_bytes()
    }

    /// Bytes of memory in use, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        /// An entry of a B-tree, at the filling that random insertion leaves.
        const END: usize = 24;
        self.slots.capacity() * size_of::<Slot>()
            + self.rows.bytes()
            + self.table.allocation_size()
            + self.key_bytes
            + self.pulled_bytes
            + self.ends.len() * END
            + (self.free.capacity() + self.changes.dirty.capacity()) * 4
    }
}

#[cfg(test)]
mod tests;
