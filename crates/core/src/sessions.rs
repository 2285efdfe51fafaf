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

use std::collections::{BTreeSet, HashSet};

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use crate::{
    aggregate::{Layout, Row, RowMut, RowRun},
    fragments::Joined,
    job::SessionSpec,
    time::{EventTime, Watermark},
};

/// No further session in a chain.
const NONE: u32 = u32::MAX;
/// What a key by itself takes in a table, beside its bytes.
const PULLED: usize = 40;

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

/// What has happened since it was last taken.
#[derive(Clone, Debug, Default)]
struct Changes {
    dirty: Vec<u32>,
    /// Sessions that are in the log under this start and are no more.
    gone: BTreeSet<(EventTime, Box<[u8]>)>,
    /// Sessions that ended and were changed since by a record.
    late: Vec<u32>,
    retracted: Vec<Retracted>,
    pulled: Vec<Box<[u8]>>,
}

#[derive(Clone, Debug)]
struct Slot {
    key: Box<[u8]>,
    start: EventTime,
    end: EventTime,
    /// Results of this very interval that are out, as far as late records made it necessary to count them.
    emitted: u32,
    next: u32,
    taken: bool,
    dirty: bool,
    late: bool,
    /// A dead letter is among what makes it late.
    replayed: bool,
    /// The log has an entry of it.
    logged: bool,
    /// The session that it is a part of has had its result, and ends where this says.
    closed: bool,
    /// No record has come since its last early result.
    shown: bool,
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

/// A result that is out, of a session that has become part of another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retracted {
    /// The group key.
    pub key: Vec<u8>,
    /// The interval that is no session any more.
    pub start: EventTime,
    /// Its end, exclusive.
    pub end: EventTime,
    /// How many results of it are out.
    pub emitted: u32,
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

    fn retract(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.emitted > 0 {
            let (start, end, emitted) = (slot.start, slot.end, slot.emitted);
            self.changes.retracted.push(Retracted { key: slot.key.to_vec(), start, end, emitted });
        }
    }

    fn forget_entry(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if std::mem::take(&mut slot.logged) {
            self.changes.gone.insert((slot.start, slot.key.clone()));
        }
    }

    fn mark(&mut self, at: usize, watermark: Watermark, replayed: bool) -> bool {
        let slot = &mut self.slots[at];
        let late = Some(slot.end) <= watermark;
        if late && !slot.late {
            self.changes.late.push(place(at));
        }
        slot.replayed = late && (replayed || slot.replayed);
        (slot.late, slot.shown) = (late, false);
        self.mark_dirty(at)
    }

    /// Whether it was clean before.
    fn mark_dirty(&mut self, at: usize) -> bool {
        let was_dirty = std::mem::replace(&mut self.slots[at].dirty, true);
        if !was_dirty {
            self.changes.dirty.push(place(at));
        }
        !was_dirty
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

    /// The session of `key` over `[start, end)` has had its result: what is here of it goes when all of it does.
    pub(crate) fn close(&mut self, key: &[u8], (start, end): (EventTime, EventTime)) {
        let parts: Vec<usize> = self.chain(key).filter(|at| self.slots[*at].overlaps(start, end)).collect();
        for at in parts {
            let slot = &mut self.slots[at];
            slot.closed = true;
            // Not a change: in the log and in runs it is the part that it is.
            let before = std::mem::replace(&mut slot.end, end);
            self.ends.remove(&(before, place(at)));
            self.ends.insert((end, place(at)));
        }
    }

    /// Forgets the sessions of `key` that ended at or before `purged`: a late record must not join them.
    pub(crate) fn purge_key(&mut self, key: &[u8], purged: Watermark) {
        let ended: Vec<usize> = self.chain(key).filter(|at| Some(self.slots[*at].end) <= purged).collect();
        ended.into_iter().for_each(|at| self.remove(at));
    }

    /// Takes the sessions of `key`, all there are of it in memory and in runs, in the place of what is here and there. What is
    /// outdated by W_s has been taken back when W_s passed its end; the rest is now.
    pub(crate) fn pull(&mut self, layout: &Layout, key: &[u8], sessions: &[Joined], watermark: Watermark) {
        let known: Vec<usize> = self.chain(key).collect();
        known.into_iter().for_each(|at| self.remove(at));
        for Joined { session, outdated, .. } in sessions {
            let at = self.insert(layout, key, session.start, session.end);
            self.slots[at].emitted = session.emitted;
            self.rows.row_mut(layout, at).set(session.row.row());
            self.mark_dirty(at);
            let open = outdated.iter().filter(|out| Some(out.end) > watermark);
            self.changes.retracted.extend(open.map(|out| Retracted {
                key: key.to_vec(),
                start: out.start,
                end: out.end,
                emitted: out.emitted,
            }));
        }
        self.note_pulled(key);
    }

    /// From now on the sessions of `key` in runs do not count.
    pub(crate) fn note_pulled(&mut self, key: &[u8]) {
        self.restore_pulled(key);
        self.changes.pulled.push(key.into());
    }

    /// The log says that the sessions of `key` in runs do not count.
    pub(crate) fn restore_pulled(&mut self, key: &[u8]) {
        if self.pulled.insert(key.into()) {
            self.pulled_bytes += key.len() + PULLED;
        }
    }

    /// Whether the sessions of `key` in runs do not count.
    pub(crate) fn is_pulled(&self, key: &[u8]) -> bool {
        self.pulled.contains(key)
    }

    /// All keys of which that is so.
    pub(crate) fn pulled(&self) -> impl Iterator<Item = &[u8]> {
        self.pulled.iter().map(|key| &**key)
    }

    /// Takes those that have come to be so.
    pub(crate) fn take_pulled(&mut self) -> Vec<Box<[u8]>> {
        std::mem::take(&mut self.changes.pulled)
    }

    /// The place of the session of `key` that ends at `end`.
    pub(crate) fn ends_at(&self, key: &[u8], end: EventTime) -> Option<u32> {
        self.chain(key).find(|at| self.slots[*at].end == end).map(place)
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

    /// None of it, of the same kind.
    pub(crate) fn emptied(&self) -> Self {
        Self { purged: self.purged, ..Self::new(self.spec) }
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

    /// Takes the sessions that changed after they had ended, by key and start: each has a further result, which is counted here, its
    /// revision given with it, and whether a replayed record is among what changed it.
    pub fn take_late(&mut self) -> Vec<(u32, u32, bool)> {
        let mut places = std::mem::take(&mut self.changes.late);
        self.sort(&mut places);
        let mut late = Vec::with_capacity(places.len());
        for at in places {
            let slot = &mut self.slots[at as usize];
            if std::mem::take(&mut slot.late) {
                late.push((at, slot.emitted, std::mem::take(&mut slot.replayed)));
                slot.emitted += 1;
                self.mark_dirty(at as usize);
            }
        }
        late
    }

    /// Whether there are sessions to be taken by [`Sessions::take_late`], or retractions.
    #[must_use]
    pub fn has_late(&self) -> bool {
        !(self.changes.late.is_empty() && self.changes.retracted.is_empty())
    }

    /// Takes the results that are no longer true, by key and time.
    pub fn take_retracted(&mut self) -> Vec<Retracted> {
        let mut retracted = std::mem::take(&mut self.changes.retracted);
        retracted.sort_by(|a, b| (&a.key, a.start, a.end).cmp(&(&b.key, b.start, b.end)));
        retracted
    }

    /// Start and key of the sessions that changed.
    pub fn dirty(&self) -> impl Iterator<Item = (EventTime, &[u8])> {
        let slots = self.changes.dirty.iter().map(|at| &self.slots[*at as usize]);
        slots.filter(|slot| slot.taken && slot.dirty).map(|slot| (slot.start, &*slot.key))
    }

    /// Counts an early result of the session of `key` that holds `time`, so that it is taken back if the session becomes another;
    /// gives its place. `None` where there is no such session, where it has ended, or where what is out is what it is.
    pub fn count_early(&mut self, time: EventTime, key: &[u8], watermark: Watermark) -> Option<u32> {
        let at = self.chain(key).find(|at| self.slots[*at].start <= time && time < self.slots[*at].end)?;
        let slot = &mut self.slots[at];
        if Some(slot.end) <= watermark || std::mem::replace(&mut slot.shown, true) {
            return None;
        }
        if slot.emitted == 0 {
            self.slots[at].emitted = 1;
            self.mark_dirty(at);
        }
        Some(place(at))
    }

    /// Takes the places of the sessions that changed: they are in the log from now on.
    pub fn take_dirty(&mut self) -> Vec<u32> {
        let mut dirty = std::mem::take(&mut self.changes.dirty);
        dirty.retain(|at| {
            let slot = &mut self.slots[*at as usize];
            let changed = slot.taken && std::mem::take(&mut slot.dirty);
            slot.logged |= changed;
            changed
        });
        dirty
    }

    /// Takes start and key of the entries that are no more, as of the sessions taken by [`Sessions::take_dirty`].
    pub fn take_gone(&mut self) -> BTreeSet<(EventTime, Box<[u8]>)> {
        let mut gone = std::mem::take(&mut self.changes.gone);
        gone.retain(|(start, key)| !self.chain(key).any(|at| self.slots[at].start == *start));
        gone
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

    /// What has happened so far is in the log.
    pub fn forget_changes(&mut self) {
        self.changes = Changes::default();
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

    fn insert(&mut self, layout: &Layout, key: &[u8], start: EventTime, end: EventTime) -> usize {
        let hash = xxh3_64(key);
        let slots = &self.slots;
        let head = self.table.find(hash, |at| *slots[*at as usize].key == *key).copied();
        let slot = Slot {
            key: key.into(),
            start,
            end,
            emitted: 0,
            next: head.unwrap_or(NONE),
            taken: true,
            dirty: false,
            late: false,
            replayed: false,
            logged: false,
            closed: false,
            shown: false,
        };
        let at = self.place(layout, slot);
        let slots = &self.slots;
        if head.is_some()
            && let Some(first) = self.table.find_mut(hash, |at| *slots[*at as usize].key == *key)
        {
            *first = place(at);
        } else {
            self.table.insert_unique(hash, place(at), |at| xxh3_64(&slots[*at as usize].key));
        }
        self.ends.insert((end, place(at)));
        self.key_bytes += key.len();
        at
    }

    /// Puts a session into a free slot, or a new one: storage grows by a quarter, not by the double.
    fn place(&mut self, layout: &Layout, slot: Slot) -> usize {
        if let Some(at) = self.free.pop() {
            let at = at as usize;
            self.slots[at] = slot;
            self.rows.row_mut(layout, at).clear();
            return at;
        }
        if self.slots.len() == self.slots.capacity() {
            let more = (self.slots.len() / 4).max(16);
            self.slots.reserve_exact(more);
            self.rows.reserve(layout, more);
        }
        self.slots.push(slot);
        self.rows.push(layout);
        self.slots.len() - 1
    }

    fn remove(&mut self, at: usize) {
        self.forget_entry(at);
        let slot = &mut self.slots[at];
        let (next, end) = (slot.next, slot.end);
        let key = std::mem::take(&mut slot.key);
        (slot.taken, slot.dirty, slot.late, slot.replayed) = (false, false, false, false);
        self.ends.remove(&(end, place(at)));
        self.key_bytes -= key.len();
        self.unchain(&key, at, next);
        self.free.push(place(at));
    }

    /// Takes a session, whose slot has lost its key, out of the chain of `key`.
    fn unchain(&mut self, key: &[u8], at: usize, next: u32) {
        let slots = &self.slots;
        let is_chain = |first: &u32| *first == place(at) || *slots[*first as usize].key == *key;
        let Ok(mut entry) = self.table.find_entry(xxh3_64(key), is_chain) else { return };
        if *entry.get() != place(at) {
            let mut before = *entry.get() as usize;
            while self.slots[before].next != place(at) {
                before = self.slots[before].next as usize;
            }
            self.slots[before].next = next;
        } else if next == NONE {
            entry.remove();
        } else {
            *entry.get_mut() = next;
        }
    }

    fn head(&self, key: &[u8]) -> Option<usize> {
        let found = self.table.find(xxh3_64(key), |at| *self.slots[*at as usize].key == *key);
        found.map(|at| *at as usize)
    }

    fn next(&self, at: usize) -> Option<usize> {
        let next = self.slots[at].next;
        (next != NONE).then_some(next as usize)
    }

    fn chain(&self, key: &[u8]) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.head(key), |at| self.next(*at))
    }
}

impl Slot {
    fn overlaps(&self, start: EventTime, end: EventTime) -> bool {
        start < self.end && self.start < end
    }
}

fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}

#[cfg(test)]
mod tests;
