//! Where sessions lie: slots in one slab, those of a key in a chain.

use xxhash_rust::xxh3::xxh3_64;

use super::{NONE, Sessions};
use crate::{aggregate::Layout, time::EventTime};

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) key: Box<[u8]>,
    pub(super) start: EventTime,
    pub(super) end: EventTime,
    /// Results of this very interval that are out, as far as late records made it necessary to count them.
    pub(super) emitted: u32,
    pub(super) next: u32,
    pub(super) taken: bool,
    pub(super) dirty: bool,
    pub(super) late: bool,
    /// A dead letter is among what makes it late.
    pub(super) replayed: bool,
    /// The log has an entry of it.
    pub(super) logged: bool,
    /// The session that it is a part of has had its result, and ends where this says.
    pub(super) closed: bool,
    /// No record has come since its last early result.
    pub(super) shown: bool,
}

impl Sessions {
    pub(super) fn insert(&mut self, layout: &Layout, key: &[u8], start: EventTime, end: EventTime) -> usize {
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

    pub(super) fn remove(&mut self, at: usize) {
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

    pub(super) fn head(&self, key: &[u8]) -> Option<usize> {
        let found = self.table.find(xxh3_64(key), |at| *self.slots[*at as usize].key == *key);
        found.map(|at| *at as usize)
    }

    pub(super) fn next(&self, at: usize) -> Option<usize> {
        let next = self.slots[at].next;
        (next != NONE).then_some(next as usize)
    }

    pub(super) fn chain(&self, key: &[u8]) -> impl Iterator<Item = usize> + '_ {
        std::iter::successors(self.head(key), |at| self.next(*at))
    }
}

impl Slot {
    pub(super) fn overlaps(&self, start: EventTime, end: EventTime) -> bool {
        start < self.end && self.start < end
    }
}

pub(super) fn place(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(NONE)
}
