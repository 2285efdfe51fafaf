//! How many spans were how long: counts by logarithmic buckets, in constant memory.
//!
//! Eight buckets to a doubling, so a span is known to an eighth of its length; those up to 15 ms exactly, those beyond 69 years
//! are one. Negative spans count as zero. Answers are the upper ends of buckets: never too short.

use crate::time::Span;

/// Buckets to a doubling.
const PARTS: u64 = 8;
/// 2^41 ms are 69 years.
const BUCKETS: usize = 320;

/// Counts of spans; allocated once.
#[derive(Clone, Debug)]
pub struct Sketch {
    counts: Box<[u32; BUCKETS]>,
    total: u64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { counts: Box::new([0; BUCKETS]), total: 0 }
    }
}

impl Sketch {
    /// Counts one more.
    #[inline]
    pub fn add(&mut self, span: Span) {
        if let Some(count) = self.counts.get_mut(bucket(span)) {
            *count = count.saturating_add(1);
            self.total += 1;
        }
    }

    /// Halves all counts, so that what comes counts for more than what came.
    pub fn halve(&mut self) {
        self.total = 0;
        for count in self.counts.iter_mut() {
            *count /= 2;
            self.total += u64::from(*count);
        }
    }

    /// How many are counted.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.total
    }

    /// A span that at most `above` of those counted exceed; no bucket's end is shorter and does the same.
    #[must_use]
    pub fn bound(&self, above: u64) -> Span {
        let mut left = above;
        for (bucket, count) in self.counts.iter().enumerate().rev() {
            match left.checked_sub(u64::from(*count)) {
                Some(less) => left = less,
                None => return end(bucket),
            }
        }
        Span::ZERO
    }

    /// Adds the counts of another.
    pub fn merge(&mut self, other: &Self) {
        for (count, others) in self.counts.iter_mut().zip(other.counts.iter()) {
            *count = count.saturating_add(*others);
        }
        self.total += other.total;
    }

    /// The buckets that are not empty: the longest span of each, and how many are in it.
    pub fn counts(&self) -> impl Iterator<Item = (Span, u64)> {
        let counted = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counted.map(|(bucket, count)| (end(bucket), u64::from(*count)))
    }

    /// How many are in buckets that lie beyond `span`.
    #[must_use]
    pub fn above(&self, span: Span) -> u64 {
        self.counts.iter().skip(bucket(span) + 1).map(|count| u64::from(*count)).sum()
    }
}

#[inline]
fn bucket(span: Span) -> usize {
    let millis = u64::try_from(span.0).unwrap_or(0);
    let bucket = match millis.checked_ilog2() {
        Some(octave) if millis >= PARTS => {
            u64::from(octave - 2) * PARTS + ((millis >> (octave - 3)) & (PARTS - 1))
        }
        _ => millis,
    };
    usize::try_from(bucket).unwrap_or(BUCKETS).min(BUCKETS - 1)
}

/// The longest span of a bucket.
fn end(bucket: usize) -> Span {
    let bucket = i64::try_from(bucket).unwrap_or(0);
    let (octave, part) = (bucket / 8, bucket % 8);
    if octave == 0 { Span(part) } else { Span(((8 + part + 1) << (octave - 1)) - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sketch(spans: &[i64]) -> Sketch {
        let mut sketch = Sketch::default();
        spans.iter().for_each(|span| sketch.add(Span(*span)));
        sketch
    }

    #[test]
    fn short_spans_are_exact() {
        let spans: Vec<i64> = (0..16).collect();
        for above in 0..16 {
            assert_eq!(sketch(&spans).bound(above), Span(15 - i64::try_from(above).unwrap()));
        }
        assert_eq!(sketch(&spans).bound(16), Span::ZERO);
        assert_eq!(Sketch::default().bound(0), Span::ZERO);
    }

    #[test]
    fn halving_lets_the_past_fade() {
        let mut sketch = sketch(&[5; 100]);
        sketch.halve();
        (0..50).for_each(|_| sketch.add(Span(9)));
        assert_eq!((sketch.total(), sketch.above(Span(5))), (100, 50));
    }

    proptest! {
        #[test]
        fn a_bound_is_kept_by_all_but_the_allowed_and_is_an_eighth_too_long_at_most(
            mut spans in prop::collection::vec(prop_oneof![0i64..100, 0i64..1 << 40], 1..100), above in 0usize..20
        ) {
            let bound = sketch(&spans).bound(above as u64).0;
            spans.sort_unstable();
            let exact = spans.len().checked_sub(above + 1).map_or(0, |at| spans[at]);
            prop_assert!(bound >= exact && bound <= exact + exact / 8, "{} for {}", bound, exact);
        }
    }
}
