//! The smallest event time within a span behind the largest: what a min-heap of the span's event times has on top, in constant
//! time and constant memory.
//!
//! A ring of 4,096 buckets, one bit each, and a word that says which words of it are not empty. A bucket is the smallest power of
//! two of ms for which the ring holds the span: 1 ms for spans below 4.1 s, where the answer is exact; else up to a 2,048th of
//! the span. Event times are rounded down, so that the answer is never above that of the heap.
//!
//! ```text
//!           max − span                    max
//!   cleared │ · · 1 · · · 1 1 · · 1 · · 1 │ free
//!                 ▲ low
//! ```

use crate::time::{EventTime, Span, Watermark};

const WORDS: usize = 64;
const BITS: u32 = 64;
const BUCKETS: i64 = 4_096;

#[derive(Clone, Debug)]
pub(super) struct SlidingMin {
    span: Span,
    delay: Span,
    /// A bucket is 2^shift ms.
    shift: u32,
    max: Option<EventTime>,
    /// Number of the first bucket that is not empty.
    low: i64,
    words: [u64; WORDS],
    /// Which words are not zero.
    full: u64,
    seen: Seen,
}

/// How much of a span it has seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seen {
    /// No record that is not late already.
    Nothing,
    /// What came since a record with this event time.
    Since(EventTime),
    /// A full span.
    Enough,
}

impl SlidingMin {
    pub(super) fn new(span: Span, delay: Span) -> Self {
        let mut shift = 0;
        // The buckets of both ends are in the ring.
        while span.0 >> shift > BUCKETS - 2 {
            shift += 1;
        }
        Self { span, delay, shift, max: None, low: 0, words: [0; WORDS], full: 0, seen: Seen::Nothing }
    }

    /// Forgets everything: the next maximum is a beginning.
    pub(super) fn restart(&mut self) {
        (self.max, self.words, self.full, self.seen) = (None, [0; WORDS], 0, Seen::Nothing);
    }

    /// A new maximum; gives what it reaches. `published` tells what was late before.
    #[inline]
    pub(super) fn rise(&mut self, max: EventTime, published: Watermark) -> EventTime {
        let first = self.bucket(max.minus(self.span));
        match self.max {
            Some(before) => self.clear(self.bucket(before.minus(self.span)), first),
            None => self.low = self.bucket(max),
        }
        self.max = Some(max);
        self.set(self.bucket(max));
        if self.low < first {
            self.low = self.next(first);
        }
        self.seen = match self.seen {
            Seen::Nothing if Some(max) >= published => Seen::Since(max),
            Seen::Since(first) if max.since(first) >= self.span => Seen::Enough,
            seen => seen,
        };
        max.minus(self.behind())
    }

    /// Another event time, not above the maximum.
    #[inline]
    pub(super) fn insert(&mut self, time: EventTime) {
        if self.max.is_some_and(|max| time >= max.minus(self.span)) {
            let bucket = self.bucket(time);
            self.set(bucket);
            self.low = self.low.min(bucket);
        }
    }

    /// How far behind the maximum.
    #[inline]
    pub(super) fn behind(&self) -> Span {
        let most = Span(self.span.0.saturating_add(self.delay.0));
        match (self.seen, self.max) {
            (Seen::Enough, Some(max)) => {
                let smallest = EventTime(self.low << self.shift);
                Span(max.since(smallest).0.min(self.span.0).saturating_add(self.delay.0))
            }
            _ => most,
        }
    }

    pub(super) fn is_learning(&self) -> bool {
        self.seen != Seen::Enough
    }

    const fn bucket(&self, time: EventTime) -> i64 {
        time.0 >> self.shift
    }

    #[inline]
    fn set(&mut self, bucket: i64) {
        let (word, bit) = place(bucket);
        if let Some(bits) = self.words.get_mut(word as usize) {
            *bits |= 1 << bit;
            self.full |= 1 << word;
        }
    }

    /// Clears the buckets `[from, to)`.
    #[inline]
    fn clear(&mut self, mut from: i64, to: i64) {
        if to.saturating_sub(from) >= BUCKETS {
            (self.words, self.full) = ([0; WORDS], 0);
            return;
        }
        while from < to {
            let (word, bit) = place(from);
            let count = (to - from).min(i64::from(BITS - bit));
            let ones = if count == i64::from(BITS) { u64::MAX } else { (1 << count) - 1 };
            if let Some(bits) = self.words.get_mut(word as usize) {
                *bits &= !(ones << bit);
                if *bits == 0 {
                    self.full &= !(1 << word);
                }
            }
            from += count;
        }
    }

    /// The first bucket from `from` on that is not empty; there is one, that of the maximum.
    #[inline]
    fn next(&self, from: i64) -> i64 {
        let (word, bit) = place(from);
        let bits = |word: u32| self.words.get((word % BITS) as usize).copied().unwrap_or(0);
        let here = bits(word) >> bit;
        if here != 0 {
            return from + i64::from(here.trailing_zeros());
        }
        // The words behind this one, and at last what of this one lies before `bit`.
        let behind = self.full.rotate_right(word + 1).trailing_zeros();
        let found = bits(word + 1 + behind).trailing_zeros();
        from + i64::from(BITS - bit + BITS * behind + found)
    }
}

/// Word and bit of a bucket in the ring.
#[inline]
fn place(bucket: i64) -> (u32, u32) {
    let slot = u32::try_from(bucket & (BUCKETS - 1)).unwrap_or(0);
    (slot / BITS, slot % BITS)
}
