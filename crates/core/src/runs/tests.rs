use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    aggregate::{self, At},
    job::{AggregateFn, AggregateSpec, ColumnSpec, JobSpec, OperatorSpec},
    slices::Slices,
    time::{Offset, Partition, Span},
};

fn layout() -> Layout {
    Layout::new(&JobSpec {
        columns: vec![ColumnSpec::number("/v", 0)],
        aggregates: vec![AggregateSpec::new("n", AggregateFn::Max, Some(0))],
        ..JobSpec::of(OperatorSpec::tumbling(Span(10)))
    })
}

const SLICE: EventTime = EventTime(-7);
const AT: At = At { time: SLICE, partition: Partition(0), offset: Offset(0) };

fn part(runs: &mut Runs, run: u64, rows: &BTreeMap<Vec<u8>, i64>, layout: &Layout) -> Part {
    let mut writer = runs.writer(SLICE, run);
    for (key, value) in rows {
        let mut row = RowBuf::new(layout);
        layout.add_record(&mut row.row_mut());
        layout.add_value(&mut row.row_mut(), 0, *value, &AT);
        let mut bytes = Vec::new();
        layout.encode(row.row(), &mut bytes);
        writer.push(key, &bytes);
    }
    writer.finish()
}

fn largest(layout: &Layout, row: &MergedRow) -> i64 {
    match layout.results(row.row.row())[..] {
        [aggregate::Value::Decimal { units, .. }] => i64::try_from(units).unwrap(),
        ref others => panic!("{others:?}"),
    }
}

fn keys() -> impl Strategy<Value = BTreeMap<Vec<u8>, i64>> {
    prop::collection::btree_map(prop::collection::vec(0u8..3, 0..150), -50i64..50, 0..20)
}

proptest! {
    #[test]
    fn a_merge_gives_each_key_once_in_order_from_any_key_on(
        parts in prop::collection::vec(keys(), 0..12), after in prop::option::of(prop::collection::vec(0u8..3, 0..4)), chunk in 1usize..300
    ) {
        let layout = layout();
        let mut runs = Runs { chunk_bytes: chunk, ..Runs::default() };
        let mut memory = Slices::default();
        let mut expected: BTreeMap<Vec<u8>, (u64, i64)> = BTreeMap::new();
        for (run, rows) in (0u64..).zip(&parts) {
            for (key, value) in rows {
                let merged = expected.entry(key.clone()).or_insert((0, i64::MIN));
                *merged = (merged.0 + 1, merged.1.max(*value));
            }
            if run == 0 {
                for (key, value) in rows {
                    let (mut row, _) = memory.slice_mut(SLICE).row_mut(&layout, key);
                    layout.add_record(&mut row);
                    layout.add_value(&mut row, 0, *value, &AT);
                }
            } else {
                let part = part(&mut runs, run, rows, &layout);
                prop_assert_eq!(Part::from_index(SLICE, part.file, &part.to_index()).map(|read| read.to_index()), Some(part.to_index()));
                runs.insert(part);
            }
        }
        for key in expected.keys() {
            let mut row = RowBuf::new(&layout);
            let in_runs = parts.iter().skip(1).any(|rows| rows.contains_key(key));
            prop_assert_eq!(runs.find(SLICE, key, &layout, &mut row.row_mut()).unwrap(), in_runs);
        }
        let after = after.as_deref();
        let mut merge = Merge::default();
        merge.add_memory(0, after, &memory);
        for part in runs.of_slice(SLICE) {
            merge.add_part(Arc::clone(part), after, &runs).unwrap();
        }
        let mut row = MergedRow::new(&layout);
        let mut merged = Vec::new();
        while merge.next(&memory, &runs, &layout, &mut row).unwrap() {
            merged.push((row.key.clone(), (layout.records(row.row.row()), largest(&layout, &row))));
        }
        let expected: Vec<_> = expected.into_iter().filter(|(key, _)| Some(key.as_slice()) > after).collect();
        prop_assert_eq!(merged, expected);
    }
}

#[test]
fn parts_that_have_become_many_are_compacted_but_never_across_a_snapshots_beginning() {
    let layout = Arc::new(layout());
    let mut runs = Runs::default();
    let rows = |run: u64| BTreeMap::from([(vec![b'a'], 1), (run.to_be_bytes().to_vec(), 2)]);
    for run in 0..8 {
        let part = part(&mut runs, run, &rows(run), &layout);
        runs.insert(part);
    }
    assert!(runs.compaction(Some(3), &layout).is_none(), "four on either side");
    let compaction = runs.compaction(Some(9), &layout).unwrap();
    let mut stored = Vec::new();
    let done = compaction
        .run(|id, bytes| -> Result<(), Unreadable> {
            stored.push((id, bytes));
            Ok(())
        })
        .unwrap();
    assert_eq!((done.output.run, done.output.rows(), done.inputs.len()), (7, 9, 8));
    assert_eq!(done.output.ids().collect::<Vec<_>>(), stored.iter().map(|(id, _)| *id).collect::<Vec<_>>());
    let inputs: Vec<u64> = done.inputs.iter().map(|part| part.file).collect();
    assert!(runs.replace(&inputs, done.output));
    assert_eq!(runs.parts().count(), 1);
    runs.drop_before(EventTime(0));
    assert!(runs.is_empty());
}

#[test]
fn a_chunk_in_the_place_of_another_or_damaged_is_not_read() {
    #[derive(Debug)]
    struct Other(Arc<[u8]>);
    impl Chunks for Other {
        fn read(&self, _: ChunkId) -> Result<Arc<[u8]>, String> {
            Ok(Arc::clone(&self.0))
        }
    }
    let layout = layout();
    let mut runs = Runs::default();
    let part = part(&mut runs, 1, &BTreeMap::from([(vec![1], 5)]), &layout);
    let (id, bytes) = part.held().next().unwrap();
    runs.insert(part);
    runs.stored(&[id]);
    let mut find = |bytes: Arc<[u8]>| {
        runs.set_store(Arc::new(Other(bytes)));
        runs.find(SLICE, &[1], &layout, &mut RowBuf::new(&layout).row_mut())
    };
    assert_eq!(find(Arc::clone(&bytes)), Ok(true));
    let mut damaged = bytes.to_vec();
    *damaged.last_mut().unwrap() ^= 1;
    assert_eq!(find(damaged.into()).unwrap_err().reason, "its checksum does not fit");
    let mut elsewhere = Runs::default().writer(EventTime(5), 1);
    elsewhere.push(&[0], &[]);
    assert!(find(elsewhere.finish().held().next().unwrap().1).is_err());
}

#[test]
fn looks_in_any_order_find_what_is_there() {
    let layout = layout();
    let mut runs = Runs::default();
    runs.set_chunk_bytes(40);
    let rows: BTreeMap<Vec<u8>, i64> =
        (0..200).step_by(2).map(|key: u8| (vec![key], i64::from(key))).collect();
    let part = part(&mut runs, 1, &rows, &layout);
    assert!(part.ids().count() > 10);
    runs.insert(part);
    let [part] = runs.of_slice(SLICE) else { panic!("one part") };
    let mut looks = Looks::default();
    let mut look = |key: u8| looks.with_row(&runs, part, &[key], |value| Some(value.to_vec())).unwrap();
    let in_order: Vec<_> = (0..=255).map(&mut look).collect();
    assert_eq!(in_order.iter().flatten().count(), rows.len());
    for key in (0..=255).rev().chain((0..=255).map(|key: u8| key.wrapping_mul(37))).flat_map(|key| [key, key])
    {
        assert_eq!(look(key), in_order[usize::from(key)], "{key}");
        assert_eq!(look(key).is_some(), rows.contains_key([key].as_slice()));
    }
}
