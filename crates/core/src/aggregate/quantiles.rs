//! Quantiles within a relative error: DDSketch (Masson, Rim, Lee: VLDB 2019) with bins that are linear within a doubling.
//!
//! ```text
//! bins = 4:   8 ──── 10 ──── 12 ──── 14 ──── 16 ──────── 20 ──────── 24 …      zero and negative values have bins of their own
//! ```
//! The bin of a value is found with integers alone, so that it is the same on every machine. A bin is at most 1/`bins` of its
//! values wide, and the answer lies between its smallest and its largest integer so that it is off by at most 1/(2·`bins`) of
//! the value. Values are 64-bit, so there are never more than 128 · `bins` of them: nothing is collapsed, and the error holds for
//! every quantile.

use super::{put_varint, take_varint, unzigzag, zigzag};

/// Counts of values by bin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Quantiles {
    bins: u32,
    /// Bins that are not empty, ascending.
    counts: Vec<(i32, u64)>,
}

impl Quantiles {
    pub(crate) const fn new(bins: u32) -> Self {
        Self { bins, counts: Vec::new() }
    }

    pub(crate) fn clear(&mut self) {
        self.counts.clear();
    }

    #[inline]
    pub(crate) fn add(&mut self, value: i64, count: u64) {
        let bin = bin_of(value, self.bins);
        match self.counts.binary_search_by_key(&bin, |(bin, _)| *bin) {
            Ok(at) => {
                if let Some((_, known)) = self.counts.get_mut(at) {
                    *known += count;
                }
            }
            Err(at) => self.counts.insert(at, (bin, count)),
        }
    }

    pub(crate) fn merge(&mut self, from: &Self) {
        if self.counts.is_empty() {
            self.counts.clone_from(&from.counts);
            return;
        }
        let mut merged = Vec::with_capacity(self.counts.len() + from.counts.len());
        let (mut ours, mut theirs) =
            (self.counts.iter().copied().peekable(), from.counts.iter().copied().peekable());
        while let (Some(one), Some(other)) = (ours.peek().copied(), theirs.peek().copied()) {
            merged.push(match one.0.cmp(&other.0) {
                std::cmp::Ordering::Less => ours.next().unwrap_or(one),
                std::cmp::Ordering::Greater => theirs.next().unwrap_or(other),
                std::cmp::Ordering::Equal => {
                    ours.next();
                    theirs.next();
                    (one.0, one.1 + other.1)
                }
            });
        }
        merged.extend(ours.chain(theirs));
        self.counts = merged;
    }

    /// The value of which at least a share of `millionths` of all are at most it, within the error; `None` without values.
    pub(crate) fn quantile(&self, millionths: u32) -> Option<f64> {
        let total: u128 = self.counts.iter().map(|(_, count)| u128::from(*count)).sum();
        let rank = (total * u128::from(millionths)).div_ceil(1_000_000).max(1);
        let mut below = 0;
        for (bin, count) in &self.counts {
            below += u128::from(*count);
            if below >= rank {
                return Some(value_of(*bin, self.bins));
            }
        }
        None
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.counts.len() as u128);
        let mut before = 0;
        for (bin, count) in &self.counts {
            put_varint(out, zigzag(i128::from(*bin) - before));
            put_varint(out, u128::from(*count));
            before = i128::from(*bin);
        }
    }

    pub(crate) fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        self.counts.clear();
        let mut before: Option<i32> = None;
        for _ in 0..take_varint(bytes)? {
            let step = unzigzag(take_varint(bytes)?);
            let bin = i32::try_from(i128::from(before.unwrap_or(0)).checked_add(step)?).ok()?;
            let count = u64::try_from(take_varint(bytes)?).ok()?;
            if before.is_some_and(|before| bin <= before) {
                return None;
            }
            self.counts.push((bin, count));
            before = Some(bin);
        }
        Some(())
    }

    pub(crate) const fn heap_bytes(&self) -> usize {
        self.counts.len() * size_of::<(i32, u64)>()
    }
}

/// The bin of a value: 0 for zero, below zero for what is below zero.
#[inline]
fn bin_of(value: i64, bins: u32) -> i32 {
    let Some(octave) = value.unsigned_abs().checked_ilog2() else { return 0 };
    let above = u128::from(value.unsigned_abs() - (1 << octave));
    let part = (above * u128::from(bins)) >> octave;
    let bin = 1 + i64::from(octave) * i64::from(bins) + i64::try_from(part).unwrap_or(0);
    i32::try_from(if value < 0 { -bin } else { bin }).unwrap_or(0)
}

/// What stands for the values of a bin: of its smallest and largest integer the number that is off from both by the same share.
#[allow(clippy::cast_precision_loss, reason = "the answer is an estimate")]
fn value_of(bin: i32, bins: u32) -> f64 {
    let Some(at) = bin.unsigned_abs().checked_sub(1) else { return 0.0 };
    let (octave, part) = (at / bins.max(1), u128::from(at % bins.max(1)));
    let start = 1_u128 << octave.min(64);
    let low = start + (part * start).div_ceil(u128::from(bins.max(1)));
    let high = (start + ((part + 1) * start).div_ceil(u128::from(bins.max(1))) - 1).max(low);
    let (low, high) = (low as f64, high as f64);
    let value = if low >= high { low } else { 2.0 * (low / (low + high)) * high };
    if bin < 0 { -value } else { value }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(values: &[i64], bins: u32) -> Quantiles {
        let mut quantiles = Quantiles::new(bins);
        values.iter().for_each(|value| quantiles.add(*value, 1));
        quantiles
    }

    fn exact(values: &[i64], millionths: u32) -> i64 {
        let mut sorted = values.to_vec();
        sorted.sort_unstable();
        let rank = (sorted.len() as u128 * u128::from(millionths)).div_ceil(1_000_000).max(1);
        sorted[usize::try_from(rank).unwrap() - 1]
    }

    fn value() -> impl Strategy<Value = i64> {
        prop_oneof![-300i64..300, -1_000_000i64..1_000_000, any::<i64>(), Just(i64::MIN), Just(i64::MAX)]
    }

    #[test]
    fn small_whole_numbers_are_exact() {
        let values: Vec<i64> = (-50..=50).collect();
        let quantiles = of(&values, 50);
        for (millionths, expected) in [(0, -50.0), (250_000, -25.0), (500_000, 0.0), (1_000_000, 50.0)] {
            assert_eq!(quantiles.quantile(millionths), Some(expected));
        }
        assert_eq!(Quantiles::new(50).quantile(500_000), None);
    }

    proptest! {
        #[test]
        fn an_answer_is_off_by_at_most_the_stated_share(
            values in prop::collection::vec(value(), 1..200), millionths in 0u32..=1_000_000,
            bins in prop_oneof![Just(5u32), Just(50), Just(500)]
        ) {
            let exact = exact(&values, millionths) as f64;
            let got = of(&values, bins).quantile(millionths).unwrap();
            let bound = exact.abs() / f64::from(2 * bins) * (1.0 + 1e-9);
            prop_assert!((got - exact).abs() <= bound, "{} for {}", got, exact);
        }

        #[test]
        fn bins_follow_the_order_of_values(one in value(), other in value(), bins in 1u32..600) {
            let (low, high) = (one.min(other), one.max(other));
            prop_assert!(bin_of(low, bins) <= bin_of(high, bins));
        }
    }
}
