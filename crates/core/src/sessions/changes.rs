//! What has happened to sessions since it was last taken: for the log, for late results and for retractions.

use std::collections::BTreeSet;

use super::{Sessions, place};
use crate::time::{EventTime, Watermark};

/// What has happened since it was last taken.
#[derive(Clone, Debug, Default)]
pub(super) struct Changes {
    pub(super) dirty: Vec<u32>,
    /// Sessions that are in the log under this start and are no more.
    pub(super) gone: BTreeSet<(EventTime, Box<[u8]>)>,
    /// Sessions that ended and were changed since by a record.
    pub(super) late: Vec<u32>,
    pub(super) retracted: Vec<Retracted>,
    pub(super) pulled: Vec<Box<[u8]>>,
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
    pub(super) fn retract(&mut self, at: usize) {
        let slot = &self.slots[at];
        if slot.emitted > 0 {
            let (start, end, emitted) = (slot.start, slot.end, slot.emitted);
            self.changes.retracted.push(Retracted { key: slot.key.to_vec(), start, end, emitted });
        }
    }

    pub(super) fn forget_entry(&mut self, at: usize) {
        let slot = &mut self.slots[at];
        if std::mem::take(&mut slot.logged) {
            self.changes.gone.insert((slot.start, slot.key.clone()));
        }
    }

    pub(super) fn mark(&mut self, at: usize, watermark: Watermark, replayed: bool) -> bool {
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
    pub(super) fn mark_dirty(&mut self, at: usize) -> bool {
        let was_dirty = std::mem::replace(&mut self.slots[at].dirty, true);
        if !was_dirty {
            self.changes.dirty.push(place(at));
        }
        !was_dirty
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

    /// What has happened so far is in the log.
    pub fn forget_changes(&mut self) {
        self.changes = Changes::default();
    }
}
