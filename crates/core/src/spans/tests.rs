//! Spans of which some are not in memory give the windows that spans in memory give, and leave no page behind.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use proptest::prelude::*;

use super::*;
use crate::job::{AggregateFn, AggregateSpec, ColumnSpec, JobSpec, OperatorSpec, Ranks};

/// Pages as a file has them.
#[derive(Clone, Debug, Default)]
pub(crate) struct MemoryScratch(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    next: u64,
    pages: HashMap<u64, Vec<u8>>,
}

impl MemoryScratch {
    pub(crate) fn pages(&self) -> usize {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pages.len()
    }

    /// Changes a byte of every page.
    pub(crate) fn damage(&self) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.pages.values_mut().filter_map(|page| page.last_mut()).for_each(|byte| *byte ^= 1);
    }
}

impl Scratch for MemoryScratch {
    fn write(&mut self, bytes: &[u8]) -> Result<u64, String> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        kept.next += 1;
        let at = kept.next;
        kept.pages.insert(at, bytes.to_vec());
        Ok(at)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), String> {
        let kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let page = kept.pages.get(&at).ok_or_else(|| format!("nothing is at {at}"))?;
        assert_eq!(page.len(), into.len());
        into.copy_from_slice(page);
        Ok(())
    }

    fn free(&mut self, at: u64, length: usize) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        assert_eq!(kept.pages.remove(&at).map(|page| page.len()), Some(length), "freed once, and whole");
    }
}

fn layout(summaries: bool) -> Layout {
    let mut aggregates = vec![AggregateSpec::new("sum", AggregateFn::Sum, Some(0))];
    if summaries {
        let ranks = Ranks::One(crate::job::PerMillion(500_000));
        let quantile = AggregateFn::Quantile { accuracy: crate::job::PerMillion(10_000), ranks };
        aggregates.push(AggregateSpec::new("median", quantile, Some(0)));
    }
    Layout::new(&JobSpec {
        columns: vec![ColumnSpec::number("/v", 0)],
        aggregates,
        ..JobSpec::of(OperatorSpec::Reorder)
    })
}

fn record(layout: &Layout, time: i64, value: i64) -> Vec<u8> {
    let mut row = RowBuf::new(layout);
    layout.add_record(&mut row.row_mut());
    let at = crate::aggregate::At {
        time: EventTime(time),
        partition: crate::time::Partition(0),
        offset: crate::time::Offset(0),
    };
    layout.add_value(&mut row.row_mut(), 0, value, &at);
    let mut bytes = Vec::new();
    layout.encode(row.row(), &mut bytes);
    bytes
}

/// Takes a record and gives its window.
fn window(spans: &mut Spans, (time, key, value): (i64, u16, i64), size: i64, layout: &Layout) -> RowBuf {
    let key = key.to_be_bytes();
    let at = spans.of_key(&key, layout).unwrap();
    spans.push(at, EventTime(time), &record(layout, time, value), layout).unwrap();
    let mut window = RowBuf::new(layout);
    let found = spans.window(at, EventTime(time - size + 1), &mut window, layout).unwrap();
    assert_eq!(found, Some(key.as_slice()));
    window
}

fn bytes_of(spans: &Spans) -> usize {
    spans.slots.iter().flatten().map(KeySpan::bytes).sum()
}

proptest! {
    #[test]
    fn windows_are_the_same_whatever_has_left_memory(
        records in prop::collection::vec((0i64..4, prop_oneof![2 => Just(0u16), 3 => 0u16..300], -9i64..9), 1..800),
        built in 0usize..400, size in 1i64..500, most in 0usize..20_000, page in 1usize..300, summaries in any::<bool>(),
    ) {
        let layout = layout(summaries);
        let scratch = MemoryScratch::default();
        let (mut bounded, mut free) = (Spans::default(), Spans::default());
        bounded.set_scratch(Box::new(scratch.clone()), page);
        bounded.begin_building();
        let mut now = 0;
        for (at, (step, key, value)) in records.into_iter().enumerate() {
            now += step;
            if at == built {
                bounded.end_building(&layout).unwrap();
            }
            if at < built {
                for spans in [&mut bounded, &mut free] {
                    let at = spans.of_key(&key.to_be_bytes(), &layout).unwrap();
                    spans.push(at, EventTime(now), &record(&layout, now, value), &layout).unwrap();
                }
            } else {
                let there = window(&mut bounded, (now, key, value), size, &layout);
                prop_assert_eq!(there, window(&mut free, (now, key, value), size, &layout));
            }
            if bounded.bytes() > most {
                bounded.make_room(most / 2, &layout).unwrap();
                prop_assert!(bounded.bytes <= most / 2, "memory is bounded");
            }
            prop_assert_eq!(bounded.bytes, bytes_of(&bounded), "bytes are counted");
            if at % 64 == 0 && at >= built {
                bounded.drop_before(EventTime(now - size + 1), &layout).unwrap();
                free.drop_before(EventTime(now - size + 1), &layout).unwrap();
            }
        }
        bounded.end_building(&layout).unwrap();
        bounded.drop_before(EventTime(i64::MAX), &layout).unwrap();
        prop_assert_eq!((bounded.looks(), bounded.bytes_away(), scratch.pages()), (0, 0, 0), "nothing stays behind");
    }
}

#[test]
fn a_key_with_more_records_than_memory_keeps_a_few_of_them_there() {
    let layout = layout(false);
    let (mut bounded, mut free) = (Spans::default(), Spans::default());
    bounded.set_scratch(Box::new(MemoryScratch::default()), 1_000);
    let (size, most) = (20_000, 30_000);
    for time in 0..60_000 {
        let there = window(&mut bounded, (time, 7, time % 13), size, &layout);
        assert_eq!(there, window(&mut free, (time, 7, time % 13), size, &layout));
        if bounded.bytes > most {
            // It is the only key, and used: its stacks leave before it does.
            bounded.make_room(most, &layout).unwrap();
        }
        assert!(bounded.bytes <= most + 1_000, "{} bytes after record {time}", bounded.bytes);
    }
    let Traffic { left, .. } = bounded.take_traffic();
    assert!(left < 10, "its stacks leave before it does: {left}");
    assert!(free.bytes > 20 * most, "{} bytes without a bound", free.bytes);
}

#[test]
fn thousands_of_keys_stay_within_their_bound_and_come_back() {
    let layout = layout(false);
    let (mut bounded, mut free) = (Spans::default(), Spans::default());
    let scratch = MemoryScratch::default();
    bounded.set_scratch(Box::new(scratch.clone()), 4_000);
    let (size, most) = (20_000, 200_000);
    for time in 0..40_000i64 {
        let key = u16::try_from(time * 7_919 % 5_000).unwrap();
        let there = window(&mut bounded, (time, key, time % 13), size, &layout);
        assert_eq!(there, window(&mut free, (time, key, time % 13), size, &layout));
        if bounded.bytes() > most {
            bounded.make_room(most / 4 * 3, &layout).unwrap();
            assert!(bounded.bytes() <= most, "{} bytes, {} leaves", bounded.bytes(), bounded.looks());
        }
    }
    let Traffic { left, back } = bounded.take_traffic();
    assert!(left > 35_000 && back > 30_000, "{left} left, {back} came back");
    assert!(free.bytes > 10 * most, "{} bytes without a bound", free.bytes);
    assert!(scratch.pages() < 2_000, "{} pages", scratch.pages());
}

#[test]
fn a_page_that_is_another_than_was_written_is_an_error() {
    let layout = layout(false);
    let scratch = MemoryScratch::default();
    let mut spans = Spans::default();
    spans.set_scratch(Box::new(scratch.clone()), 100);
    window(&mut spans, (1, 7, 1), 10, &layout);
    spans.make_room(0, &layout).unwrap();
    scratch.damage();
    let error = spans.of_key(&7u16.to_be_bytes(), &layout).unwrap_err();
    assert!(error.to_string().contains("another page"), "{error}");
}
