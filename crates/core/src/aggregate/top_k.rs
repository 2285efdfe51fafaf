//! The most frequent values: exact while they are few, then estimates.
//!
//! Up to [`EXACT`] different values each has its count. Beyond, the counts are those of a count-min sketch (Cormode,
//! Muthukrishnan 2005), too high by at most 0.3 % of all values (with a probability of 98 %) and never too low; and the candidates are
//! the values with the smallest *draw*, which is the least hash of the places of a value's records: as if records were drawn
//! from a hat until so many different values have come (Cohen's bottom-k sample), so that what is frequent is among them.
//!
//! Counters add up and draws are a minimum: what a summary holds follows from its records alone, whatever their order
//! (decision 0021). Space-saving and Misra-Gries do not have that.

use std::collections::BTreeMap;

use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

use super::{At, put_varint, take_varint};
use crate::block::{put_bytes, take_bytes};

/// Up to so many different values the counts are exact.
pub(crate) const EXACT: usize = 1_000;
const ROWS: usize = 4;
const COLUMNS: usize = 1_024;
/// What a value takes beside its bytes: its place in the map, about.
const VALUE_OVERHEAD: usize = 64;

/// Counts of values.
#[derive(Clone, Debug, Default)]
pub(crate) struct TopK {
    values: BTreeMap<Box<[u8]>, Seen>,
    value_bytes: usize,
    /// Once there are more values than are kept.
    counters: Option<Box<[u64]>>,
    /// Where known: the largest draw of the values kept, beyond which no other comes in.
    limit: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Seen {
    /// Exact, while all values are here; then of no meaning, and 0.
    count: u64,
    draw: u64,
}

impl PartialEq for TopK {
    fn eq(&self, other: &Self) -> bool {
        self.values == other.values && self.counters == other.counters
    }
}

impl Eq for TopK {}

impl TopK {
    pub(crate) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn add(&mut self, value: &[u8], at: &At) {
        self.take(value, Seen { count: 1, draw: draw(at) });
    }

    pub(crate) fn merge(&mut self, from: &Self) {
        if let Some(theirs) = &from.counters {
            self.count_in_counters();
            for (ours, theirs) in self.counters.iter_mut().flatten().zip(theirs) {
                *ours += theirs;
            }
        }
        for (value, seen) in &from.values {
            self.take(value, *seen);
        }
    }

    /// Takes records of a value.
    fn take(&mut self, value: &[u8], seen: Seen) {
        if let Some(counters) = &mut self.counters {
            count(counters, value, seen.count);
            self.offer(value, seen.draw);
            return;
        }
        if let Some(known) = self.values.get_mut(value) {
            *known = Seen { count: known.count + seen.count, draw: known.draw.min(seen.draw) };
            return;
        }
        if self.values.len() < EXACT {
            self.insert(value, seen);
            return;
        }
        self.count_in_counters();
        self.take(value, seen);
    }

    /// Keeps a value if its draw is among the smallest.
    fn offer(&mut self, value: &[u8], draw: u64) {
        if let Some(known) = self.values.get_mut(value) {
            if draw < known.draw {
                known.draw = draw;
                self.limit = None;
            }
            return;
        }
        if self.values.len() >= EXACT {
            if self.limit.is_some_and(|limit| draw > limit) {
                return;
            }
            let largest = self.values.iter().map(|(value, seen)| (seen.draw, value)).max();
            let Some((largest, last)) = largest.map(|(draw, value)| (draw, value.clone())) else { return };
            if (draw, value) > (largest, &*last) {
                self.limit = Some(largest);
                return;
            }
            self.values.remove(&last);
            self.value_bytes -= last.len() + VALUE_OVERHEAD;
            self.limit = None;
        }
        self.insert(value, Seen { count: 0, draw });
    }

    fn insert(&mut self, value: &[u8], seen: Seen) {
        self.values.insert(value.into(), seen);
        self.value_bytes += value.len() + VALUE_OVERHEAD;
    }

    /// From now on the counts are estimates.
    fn count_in_counters(&mut self) {
        if self.counters.is_some() {
            return;
        }
        let mut counters = vec![0; ROWS * COLUMNS].into_boxed_slice();
        for (value, seen) in &mut self.values {
            count(&mut counters, value, std::mem::take(&mut seen.count));
        }
        self.counters = Some(counters);
    }

    /// The `k` most frequent values, the most frequent first; of equal ones the smaller value.
    pub(crate) fn top(&self, k: usize) -> Vec<(&[u8], u64)> {
        let count = |value: &[u8], seen: &Seen| match &self.counters {
            None => seen.count,
            Some(counters) => estimate(counters, value),
        };
        let mut top: Vec<_> =
            self.values.iter().map(|(value, seen)| (&**value, count(value, seen))).collect();
        top.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(other.0)));
        top.truncate(k);
        top
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.values.len() as u128);
        for (value, seen) in &self.values {
            put_bytes(out, value);
            put_varint(out, u128::from(seen.count));
            out.extend_from_slice(&seen.draw.to_be_bytes());
        }
        out.push(u8::from(self.counters.is_some()));
        for counter in self.counters.iter().flatten() {
            put_varint(out, u128::from(*counter));
        }
    }

    pub(crate) fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        self.clear();
        for _ in 0..take_varint(bytes)? {
            let value = take_bytes(bytes)?;
            let count = u64::try_from(take_varint(bytes)?).ok()?;
            let (draw, rest) = bytes.split_first_chunk::<8>()?;
            *bytes = rest;
            self.insert(value, Seen { count, draw: u64::from_be_bytes(*draw) });
        }
        let (flag, rest) = bytes.split_first()?;
        *bytes = rest;
        if *flag != 0 {
            let counters = (0..ROWS * COLUMNS).map(|_| u64::try_from(take_varint(bytes)?).ok());
            self.counters = Some(counters.collect::<Option<_>>()?);
        }
        Some(())
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.value_bytes + self.counters.as_ref().map_or(0, |counters| counters.len() * 8)
    }
}

/// The draw of a record: of its place alone, so that it is the same however often and wherever the record is read.
fn draw(at: &At) -> u64 {
    let mut place = [0; 12];
    let (partition, offset) = place.split_at_mut(4);
    partition.copy_from_slice(&at.partition.0.to_be_bytes());
    offset.copy_from_slice(&at.offset.0.to_be_bytes());
    xxh3_64(&place)
}

fn cells(value: &[u8]) -> impl Iterator<Item = usize> {
    let hash = xxh3_64_with_seed(value, COLUMNS as u64);
    let (one, other) = (hash >> 32, (hash & 0xffff_ffff) | 1);
    (0..ROWS as u64).map(move |row| {
        let column = one.wrapping_add(other.wrapping_mul(row + 1)) >> 11;
        usize::try_from(row * COLUMNS as u64 + column % COLUMNS as u64).unwrap_or(0)
    })
}

fn count(counters: &mut [u64], value: &[u8], records: u64) {
    for cell in cells(value) {
        if let Some(counter) = counters.get_mut(cell) {
            *counter += records;
        }
    }
}

fn estimate(counters: &[u64], value: &[u8]) -> u64 {
    cells(value).filter_map(|cell| counters.get(cell)).copied().min().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::{EventTime, Offset, Partition};
    use proptest::prelude::*;

    fn at(offset: u64) -> At {
        At { time: EventTime(0), partition: Partition(0), offset: Offset(offset) }
    }

    fn of(records: impl IntoIterator<Item = (u64, u64)>) -> TopK {
        let mut top = TopK::default();
        records.into_iter().for_each(|(offset, value)| top.add(value.to_string().as_bytes(), &at(offset)));
        top
    }

    /// Values of which each is about as frequent as the next two together, and many that come once.
    fn skewed(records: u64) -> impl Iterator<Item = (u64, u64)> + Clone {
        (0..records).map(|offset| {
            let mixed = xxh3_64(&offset.to_be_bytes());
            (
                offset,
                if mixed.is_multiple_of(2) {
                    100 + offset
                } else {
                    u64::from((mixed >> 8).trailing_zeros().min(20))
                },
            )
        })
    }

    #[test]
    fn few_values_have_exact_counts_and_ties_go_by_value() {
        let top = of([(0, 7), (1, 7), (2, 9), (3, 5), (4, 9), (5, 1)]);
        let expected: [(&[u8], u64); 3] = [(b"7", 2), (b"9", 2), (b"1", 1)];
        assert_eq!(top.top(3), expected);
    }

    #[test]
    fn the_most_frequent_of_very_many_are_found_with_counts_that_are_never_too_low() {
        let records = 200_000;
        let mut exact = BTreeMap::new();
        skewed(records).for_each(|(_, value)| *exact.entry(value.to_string()).or_insert(0_u64) += 1);
        assert!(exact.len() > 90_000);
        let top = of(skewed(records));
        assert!(top.heap_bytes() < 150_000);
        let mut expected: Vec<_> = exact.iter().collect();
        expected.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        for ((value, got), (exact_value, exact)) in top.top(6).into_iter().zip(expected) {
            assert_eq!(value, exact_value.as_bytes());
            assert!(got >= *exact && got - *exact <= records * 3 / 1_000, "{got} for {exact}");
        }
    }

    proptest! {
        #[test]
        fn the_same_records_in_any_parts_and_order_are_the_same_summary(
            cuts in (0usize..4_000, 0usize..4_000), records in 0u64..4_000
        ) {
            let records: Vec<_> = skewed(records).collect();
            let all = of(records.iter().copied());
            let (one, two) = (cuts.0.min(cuts.1).min(records.len()), cuts.0.max(cuts.1).min(records.len()));
            let parts = [&records[..one], &records[one..two], &records[two..]].map(|part| of(part.iter().copied()));
            let [a, b, c] = &parts;
            let merged = |one: &TopK, other: &TopK| { let mut one = one.clone(); one.merge(other); one };
            prop_assert_eq!(&merged(&merged(a, b), c), &all);
            prop_assert_eq!(&merged(c, &merged(b, a)), &all);
            prop_assert_eq!(&of(records.iter().rev().copied()), &all);
            let mut bytes = Vec::new();
            all.encode(&mut bytes);
            let (mut read, mut rest) = (of([(1, 1)]), bytes.as_slice());
            prop_assert_eq!((read.decode(&mut rest), rest.len()), (Some(()), 0));
            prop_assert_eq!(read, all);
        }
    }
}
