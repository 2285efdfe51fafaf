//! The first so many values, by event time, partition and offset.

use super::{At, put_varint, take_varint, unzigzag, zigzag};
use crate::{
    block::{put_bytes, take_bytes},
    time::{EventTime, Offset, Partition},
};

/// What a value takes beside its bytes, about.
const VALUE_OVERHEAD: usize = 48;

/// Values with the places of their records, in order of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Collect {
    end: End,
    limit: usize,
    values: Vec<(At, Box<[u8]>)>,
    value_bytes: usize,
}

/// Which values are kept where there are more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The first.
    First,
    /// The last.
    Last,
}

impl Collect {
    pub(crate) const fn new(end: End, limit: usize) -> Self {
        Self { end, limit, values: Vec::new(), value_bytes: 0 }
    }

    pub(crate) fn clear(&mut self) {
        self.values.clear();
        self.value_bytes = 0;
    }

    pub(crate) fn add(&mut self, value: &[u8], at: &At) {
        let place = self.values.partition_point(|(other, _)| other <= at);
        let is_full = self.values.len() >= self.limit;
        match self.end {
            End::First if is_full && place == self.values.len() => return,
            End::Last if is_full && place == 0 => return,
            End::First | End::Last => {}
        }
        self.values.insert(place, (*at, value.into()));
        self.value_bytes += value.len() + VALUE_OVERHEAD;
        if is_full {
            let leaves = match self.end {
                End::First => self.values.len() - 1,
                End::Last => 0,
            };
            let (_, value) = self.values.remove(leaves);
            self.value_bytes -= value.len() + VALUE_OVERHEAD;
        }
    }

    pub(crate) fn merge(&mut self, from: &Self) {
        from.values.iter().for_each(|(at, value)| self.add(value, at));
    }

    /// The values in order.
    pub(crate) fn values(&self) -> impl Iterator<Item = &[u8]> {
        self.values.iter().map(|(_, value)| &**value)
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, self.values.len() as u128);
        for (at, value) in &self.values {
            at.encode(out);
            put_bytes(out, value);
        }
    }

    pub(crate) fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        self.clear();
        for _ in 0..take_varint(bytes)? {
            let at = At::decode(bytes)?;
            let value = take_bytes(bytes)?;
            if self.values.len() >= self.limit || self.values.last().is_some_and(|(last, _)| *last > at) {
                return None;
            }
            self.values.push((at, value.into()));
            self.value_bytes += value.len() + VALUE_OVERHEAD;
        }
        Some(())
    }

    pub(crate) const fn heap_bytes(&self) -> usize {
        self.value_bytes
    }
}

impl At {
    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        put_varint(out, zigzag(i128::from(self.time.0)));
        put_varint(out, u128::from(self.partition.0));
        put_varint(out, u128::from(self.offset.0));
    }

    pub(super) fn decode(bytes: &mut &[u8]) -> Option<Self> {
        Some(Self {
            time: EventTime(i64::try_from(unzigzag(take_varint(bytes)?)).ok()?),
            partition: Partition(u32::try_from(take_varint(bytes)?).ok()?),
            offset: Offset(u64::try_from(take_varint(bytes)?).ok()?),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of<'a>(end: End, limit: usize, records: impl IntoIterator<Item = &'a (At, Vec<u8>)>) -> Collect {
        let mut collect = Collect::new(end, limit);
        records.into_iter().for_each(|(at, value)| collect.add(value, at));
        collect
    }

    /// Records in different places.
    fn records() -> impl Strategy<Value = Vec<(At, Vec<u8>)>> {
        let place = (-3i64..3, 0u32..2, 0u64..9);
        prop::collection::btree_map(place, prop::collection::vec(any::<u8>(), 0..4), 0..20).prop_map(
            |records| {
                let at = |(time, partition, offset)| At {
                    time: EventTime(time),
                    partition: Partition(partition),
                    offset: Offset(offset),
                };
                records.into_iter().map(|(place, value)| (at(place), value)).collect()
            },
        )
    }

    proptest! {
        #[test]
        fn the_first_or_last_by_place_are_kept_whatever_the_order(
            (sorted, shuffled) in records().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle())),
            limit in 1usize..6, cut in 0usize..20
        ) {
            let expected_first: Vec<_> = sorted.iter().take(limit).map(|(_, value)| value.as_slice()).collect();
            let from = sorted.len().saturating_sub(limit);
            let expected_last: Vec<_> = sorted[from..].iter().map(|(_, value)| value.as_slice()).collect();
            let (one, other) = shuffled.split_at(cut.min(shuffled.len()));
            for (end, expected) in [(End::First, expected_first), (End::Last, expected_last)] {
                let all = of(end, limit, &shuffled);
                prop_assert_eq!(all.values().collect::<Vec<_>>(), expected);
                let mut merged = of(end, limit, other);
                merged.merge(&of(end, limit, one));
                prop_assert_eq!(&merged, &all);
                let mut bytes = Vec::new();
                all.encode(&mut bytes);
                let (mut read, mut rest) = (of(end, limit, one), bytes.as_slice());
                prop_assert_eq!((read.decode(&mut rest), rest.len()), (Some(()), 0));
                prop_assert_eq!(read, all);
            }
        }
    }
}
