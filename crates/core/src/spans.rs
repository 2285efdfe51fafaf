//! What each key has in its sliding window now, as two stacks of rows: the older records, each merged with all behind it, and the
//! newer ones as they came, with one row that merges them.
//!
//! ```text
//! older   [a+b+c] [b+c] [c] ◄── turned over when the older are used up ── newer  d  e  f    all newer  d+e+f
//! window from b on = (b+c) + (d+e+f)
//! ```
//! Each record is merged twice and each window is one merge; nothing is ever taken out of an aggregate, so that any will do
//! (Tangwongsan et al., "General Incremental Sliding-Window Aggregation", 2015). Rows of a stack lie in one run of memory.
//!
//! Where memory is short, a long stack keeps its top and writes the rest into pages, and the spans of keys that had no record of late
//! leave memory ([`Away`]) until the next one (decision 0034).
#![allow(clippy::indexing_slicing, reason = "places come from the table, which names only taken slots")]

mod away;
mod key_span;
mod stack;
#[cfg(test)]
pub(crate) mod tests;

use hashbrown::HashTable;
use xxhash_rust::xxh3::xxh3_64;

use self::{away::Away, key_span::KeySpan};
use crate::{
    aggregate::{Layout, RowBuf},
    scratch::{Pages, Scratch, ScratchError},
    time::EventTime,
};

/// The spans of a shard's keys.
#[derive(Debug, Default)]
pub(crate) struct Spans {
    table: HashTable<usize>,
    slots: Vec<Option<KeySpan>>,
    free: Vec<usize>,
    /// Of the spans in memory, about.
    bytes: usize,
    /// The slot behind the one that was looked at last for spans that may leave.
    hand: usize,
    away: Option<Box<Away>>,
    /// They are built anew: no window is asked for, and a key in memory may have more away.
    builds: bool,
    traffic: Traffic,
}

/// How many spans have left memory, and how many came back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Left.
    pub left: u64,
    /// Came back.
    pub back: u64,
}

impl Spans {
    /// Spans that leave memory for `scratch`, in pages of about `page` bytes.
    pub(crate) fn set_scratch(&mut self, scratch: Box<dyn Scratch>, page: usize) {
        debug_assert!(self.away.is_none(), "nothing is away");
        self.away = Some(Box::new(Away::new(Pages::new(scratch), page)));
    }

    /// The place of the span of `key`, made if there is none.
    pub(crate) fn of_key(&mut self, key: &[u8], layout: &Layout) -> Result<usize, ScratchError> {
        let hash = xxh3_64(key);
        if let Some(at) = self.find(hash, key) {
            return Ok(at);
        }
        if self.bring_back(hash, layout)?
            && let Some(at) = self.find(hash, key)
        {
            return Ok(at);
        }
        Ok(self.insert(hash, KeySpan::new(key, layout)))
    }

    fn find(&self, hash: u64, key: &[u8]) -> Option<usize> {
        self.table.find(hash, |at| key_at(&self.slots, *at) == key).copied()
    }

    fn insert(&mut self, hash: u64, span: KeySpan) -> usize {
        let Self { table, slots, free, .. } = self;
        let at = free.pop().unwrap_or_else(|| {
            slots.push(None);
            slots.len() - 1
        });
        self.bytes += span.bytes();
        slots[at] = Some(span);
        table.insert_unique(hash, at, |at| xxh3_64(key_at(slots, *at)));
        at
    }

    /// Takes a record into the span at a place; `None` when its row does not read.
    pub(crate) fn push(&mut self, at: usize, time: EventTime, row: &[u8], layout: &Layout) -> Option<()> {
        let span = self.slots.get_mut(at)?.as_mut()?;
        let before = span.bytes();
        span.push(time, row, layout)?;
        self.bytes = self.bytes + span.bytes() - before;
        Some(())
    }

    /// Makes `window` the aggregates of the records of the span at a place from `from` on, forgets those before, and gives the key.
    pub(crate) fn window(
        &mut self,
        at: usize,
        from: EventTime,
        window: &mut RowBuf,
        layout: &Layout,
    ) -> Result<Option<&[u8]>, ScratchError> {
        let Some(span) = self.slots.get_mut(at).and_then(Option::as_mut) else { return Ok(None) };
        let before = span.bytes();
        let room = self.away.as_mut().map(|away| (&mut away.pages, away.page));
        span.drop_before(from, layout, room)?;
        self.bytes = self.bytes + span.bytes() - before;
        span.merge_into(window, layout);
        Ok(Some(span.key()))
    }

    /// Number of keys in memory and of leaves of those that are not: what a look at each costs.
    pub(crate) fn looks(&self) -> usize {
        self.table.len() + self.away.as_ref().map_or(0, |away| away.len())
    }

    /// Bytes of memory in use, about.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes + self.away.as_ref().map_or(0, |away| away.bytes())
    }

    /// Bytes in pages.
    pub(crate) fn bytes_away(&self) -> usize {
        self.away.as_ref().map_or(0, |away| away.pages.bytes())
    }

    /// What has come and gone since this was last asked for.
    pub(crate) fn take_traffic(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }

    /// Forgets the keys whose records are all before `from`.
    pub(crate) fn drop_before(&mut self, from: EventTime, layout: &Layout) -> Result<(), ScratchError> {
        let Self { table, slots, free, bytes, away, .. } = self;
        table.retain(|at| {
            let stays = slots[*at].as_ref().is_some_and(|span| span.newest() >= Some(from));
            if !stays && let Some(span) = slots[*at].take() {
                *bytes -= span.bytes();
                free.push(*at);
                if let Some(away) = away {
                    span.free(&mut away.pages);
                }
            }
            stays
        });
        away.as_mut().map_or(Ok(()), |away| away.drop_before(from, layout))
    }

    /// Has spans leave memory until those that are left take no more than `most` bytes. Places of before hold no more.
    pub(crate) fn make_room(&mut self, most: usize, layout: &Layout) -> Result<(), ScratchError> {
        let Some(away) = &mut self.away else { return Ok(()) };
        let most = most.saturating_sub(away.bytes());
        let mut leaving = Vec::new();
        // Once around for spans without a record since the last time, once more for any.
        for _ in 0..2 * self.slots.len() {
            if self.bytes <= most {
                break;
            }
            self.hand = if self.hand + 1 < self.slots.len() { self.hand + 1 } else { 0 };
            let slot = &mut self.slots[self.hand];
            let Some(span) = slot else { continue };
            let before = span.bytes();
            span.put_down(away.page, layout, &mut away.pages)?;
            self.bytes = self.bytes + span.bytes() - before;
            if std::mem::take(&mut span.is_used) {
                continue;
            }
            let hash = xxh3_64(span.key());
            if let Ok(taken) = self.table.find_entry(hash, |at| *at == self.hand) {
                taken.remove();
            }
            self.free.push(self.hand);
            self.bytes -= span.bytes();
            leaving.extend(slot.take().map(|span| (hash, span)));
        }
        self.traffic.left += leaving.len() as u64;
        away.put(leaving, layout)
    }

    /// Begins to take records of before: a key's span in memory may be a piece of it.
    pub(crate) fn begin_building(&mut self) {
        self.builds = true;
    }

    /// All are whole again.
    pub(crate) fn end_building(&mut self, layout: &Layout) -> Result<(), ScratchError> {
        self.builds = false;
        if self.away.as_ref().is_some_and(|away| away.len() > 0) {
            self.make_room(0, layout)?;
        }
        Ok(())
    }

    /// Brings the spans of keys with that hash back; whether any came.
    #[cold]
    fn bring_back(&mut self, hash: u64, layout: &Layout) -> Result<bool, ScratchError> {
        let Some(away) = self.away.as_mut().filter(|_| !self.builds) else { return Ok(false) };
        let spans = away.take(hash, layout)?;
        let any = !spans.is_empty();
        for span in spans {
            let Some(at) = self.find(hash, span.key()) else {
                self.insert(hash, span);
                self.traffic.back += 1;
                continue;
            };
            if let (Some(known), Some(away)) = (&mut self.slots[at], &mut self.away) {
                let before = known.bytes();
                known.append(span, away.page, layout, &mut away.pages)?;
                self.bytes = self.bytes + known.bytes() - before;
            }
        }
        Ok(any)
    }
}

fn key_at(slots: &[Option<KeySpan>], at: usize) -> &[u8] {
    slots[at].as_ref().map_or(&[], KeySpan::key)
}
