//! Sessions of which runs hold parts (decision 0030).

use super::{Retracted, Sessions, place};
use crate::{
    aggregate::Layout,
    fragments::Joined,
    time::{EventTime, Watermark},
};

/// What a key by itself takes in a table, beside its bytes.
const PULLED: usize = 40;

impl Sessions {
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

    /// None of it, of the same kind.
    pub(crate) fn emptied(&self) -> Self {
        Self { purged: self.purged, ..Self::new(self.spec) }
    }
}
