use super::*;
use crate::{
    job::{AggregateSpec, ColumnSpec, JobSpec, OperatorSpec},
    time::{EventTime, Offset, Partition, Span},
};
use proptest::prelude::*;

fn quantile(ranks: Ranks) -> AggregateFn {
    AggregateFn::Quantile { accuracy: PerMillion(100), ranks }
}

fn job() -> JobSpec {
    let aggregate = AggregateSpec::new;
    JobSpec {
        columns: vec![ColumnSpec::number("/a", 2), ColumnSpec::number("/b", 0)],
        aggregates: vec![
            aggregate("n", AggregateFn::Count, None),
            aggregate("n_a", AggregateFn::Count, Some(0)),
            aggregate("sum", AggregateFn::Sum, Some(0)),
            aggregate("min", AggregateFn::Min, Some(0)),
            aggregate("max", AggregateFn::Max, Some(0)),
            aggregate("avg", AggregateFn::Avg, Some(1)),
            aggregate("variance", AggregateFn::Variance, Some(1)),
            aggregate("stddev", AggregateFn::Stddev, Some(0)),
            aggregate("first", AggregateFn::First, Some(0)),
            aggregate("last", AggregateFn::Last, Some(0)),
            aggregate("distinct", AggregateFn::Distinct, Some(1)),
            aggregate("top", AggregateFn::TopK { k: 1 }, Some(1)),
            aggregate("some", AggregateFn::Collect { limit: 3 }, Some(0)),
            aggregate("median", quantile(Ranks::One(PerMillion(500_000))), Some(1)),
            aggregate("ends", quantile(Ranks::Several(vec![PerMillion(0), PerMillion(1_000_000)])), Some(0)),
        ],
        ..JobSpec::of(OperatorSpec::tumbling(Span(10)))
    }
}

/// A record: its values and where it is.
type Record = ((Option<i64>, Option<i64>), At);

fn at(number: u64) -> At {
    At { time: EventTime(0), partition: Partition(0), offset: Offset(number) }
}

/// Places that differ, in another order than their numbers.
fn scattered(number: u64) -> At {
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    At {
        time: EventTime(i64::try_from(mixed >> 62).unwrap() - 1),
        partition: Partition(u32::try_from((mixed >> 60) & 1).unwrap()),
        offset: Offset(number),
    }
}

fn add(layout: &Layout, row: &mut RowBuf, (values, at): Record) {
    let mut row = row.row_mut();
    layout.add_record(&mut row);
    for (column, value) in [values.0, values.1].into_iter().enumerate().take(layout.columns()) {
        if let Some(value) = value {
            layout.add_value(&mut row, column, value, &at);
        }
    }
}

fn fold(layout: &Layout, records: &[Record]) -> RowBuf {
    let mut row = RowBuf::new(layout);
    records.iter().for_each(|record| add(layout, &mut row, *record));
    row
}

fn merged(layout: &Layout, one: &RowBuf, other: &RowBuf) -> RowBuf {
    let mut row = one.clone();
    layout.merge(&mut row.row_mut(), other.row());
    row
}

fn encoded(layout: &Layout, row: &RowBuf) -> Vec<u8> {
    let mut bytes = Vec::new();
    layout.encode(row.row(), &mut bytes);
    bytes
}

fn shown(layout: &Layout, row: &RowBuf) -> Vec<String> {
    layout.results(row.row()).iter().map(Value::to_string).collect()
}

#[test]
fn results_are_exact_and_null_without_values() {
    let layout = Layout::new(&job());
    let mut row = RowBuf::new(&layout);
    add(&layout, &mut row, ((None, None), at(0)));
    assert_eq!(
        shown(&layout, &row),
        [
            "1", "0", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null", "null",
            "null", "null"
        ]
    );
    add(&layout, &mut row, ((Some(300), Some(1)), at(1)));
    add(&layout, &mut row, ((Some(-100), Some(2)), at(2)));
    assert_eq!(
        shown(&layout, &row),
        [
            "3",
            "2",
            "2",
            "-1",
            "3",
            "1.5",
            "0.5",
            "2.8284271247461903",
            "3",
            "-1",
            "2",
            "[{\"value\":1,\"count\":1}]",
            "[3,-1]",
            "1",
            "[-1,3]"
        ]
    );
}

#[test]
fn first_and_last_go_by_event_time_then_partition_then_offset() {
    let layout = Layout::new(&job());
    let at = |time, partition, offset| At {
        time: EventTime(time),
        partition: Partition(partition),
        offset: Offset(offset),
    };
    // In the order of their places; the first and last have no value.
    let places =
        [at(-9, 0, 0), at(-5, 1, 0), at(-5, 1, 2), at(-5, 2, 1), at(0, 0, 9), at(7, 0, 1), at(9, 0, 0)];
    let mut records: Vec<Record> = (0..).zip(places).map(|(value, at)| ((Some(value), None), at)).collect();
    (records[0].0, records[6].0) = ((None, Some(1)), (None, Some(1)));
    for turn in 0..records.len() {
        records.rotate_left(turn);
        let shown = shown(&layout, &fold(&layout, &records));
        assert_eq!((shown[8].as_str(), shown[9].as_str()), ("0.01", "0.05"));
    }
}

#[test]
fn values_as_they_are_come_out_as_json() {
    let as_is = |name: &str, function| AggregateSpec::new(name, function, Some(0));
    let layout = Layout::new(&JobSpec {
        columns: vec![ColumnSpec::as_is("/a")],
        aggregates: vec![
            as_is("first", AggregateFn::First),
            as_is("last", AggregateFn::Last),
            as_is("distinct", AggregateFn::Distinct),
            as_is("top", AggregateFn::TopK { k: 2 }),
            as_is("some", AggregateFn::Collect { limit: 4 }),
            as_is("n", AggregateFn::Count),
        ],
        ..job()
    });
    let values: [&str; 6] = ["\"1", "1", "\"a\"\\\n\u{1}é", "true", "1", "1.0"];
    let mut row = RowBuf::new(&layout);
    for (offset, value) in values.iter().enumerate().rev() {
        layout.add_record(&mut row.row_mut());
        layout.add_text(&mut row.row_mut(), 0, value.as_bytes(), &at(offset as u64));
    }
    let expected = [
        "\"1\"",
        "1.0",
        "5",
        "[{\"value\":1,\"count\":2},{\"value\":\"1\",\"count\":1}]",
        "[\"1\",1,\"a\\\"\\\\\\n\\u0001é\",true]",
        "6",
    ];
    assert_eq!(shown(&layout, &row), expected);
}

#[test]
fn decimals_print_without_trailing_zeros() {
    let shown = |units, scale| Value::Decimal { units, scale }.to_string();
    assert_eq!(shown(0, 6), "0");
    assert_eq!(shown(-1_000_000, 6), "-1");
    assert_eq!(shown(1, 6), "0.000001");
    assert_eq!(shown(-100_010, 4), "-10.001");
    assert_eq!(shown(7, 0), "7");
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let value = || prop::option::of(prop_oneof![any::<i64>(), -100i64..100]);
    prop::collection::vec((value(), value()), 0..40)
        .prop_map(|values| (0..).zip(values).map(|(offset, values)| (values, scattered(offset))).collect())
}

proptest! {
    #[test]
    fn merging_parts_equals_adding_all_in_any_order(
        records in records(), cuts in (0usize..40, 0usize..40), shuffled in Just((0..40).collect::<Vec<usize>>()).prop_shuffle()
    ) {
        let layout = Layout::new(&job());
        let all = fold(&layout, &records);
        let (first, second) = (cuts.0.min(cuts.1).min(records.len()), cuts.0.max(cuts.1).min(records.len()));
        let parts = [&records[..first], &records[first..second], &records[second..]].map(|part| fold(&layout, part));
        let [a, b, c] = &parts;
        prop_assert_eq!(&merged(&layout, &merged(&layout, a, b), c), &all);
        prop_assert_eq!(&merged(&layout, a, &merged(&layout, b, c)), &all);
        prop_assert_eq!(&merged(&layout, c, &merged(&layout, b, a)), &all);
        prop_assert_eq!(&merged(&layout, &all, &RowBuf::new(&layout)), &all);
        prop_assert_eq!(&merged(&layout, &RowBuf::new(&layout), &all), &all);
        let other_way: Vec<_> = shuffled.iter().filter_map(|at| records.get(*at).copied()).collect();
        let other_way = fold(&layout, &other_way);
        prop_assert_eq!(encoded(&layout, &other_way), encoded(&layout, &all));
        prop_assert_eq!(&other_way, &all);
    }

    #[test]
    fn encoded_rows_read_back_over_whatever_was_there(records in records(), others in records()) {
        let layout = Layout::new(&job());
        let row = fold(&layout, &records);
        let mut back = fold(&layout, &others);
        prop_assert_eq!(layout.decode(&encoded(&layout, &row), &mut back.row_mut()), Some(()));
        prop_assert_eq!(&back, &row);
        let mut set = fold(&layout, &others);
        set.row_mut().set(row.row());
        prop_assert_eq!(&set, &row);
        set.clear();
        prop_assert_eq!(set, RowBuf::new(&layout));
    }

    #[test]
    fn a_row_of_an_earlier_generation_reads_as_one_that_has_seen_nothing_of_what_was_added(
        before in records(), since in records(), cuts in (0usize..=15, 0usize..=15), others in records()
    ) {
        let (whole, cut) = (job(), cuts.0.min(cuts.1));
        let mut first = job();
        first.aggregates.truncate(cut);
        first.columns.truncate(generations::inputs_of(&first.aggregates).len());
        let cuts = [cut, cuts.0.max(cuts.1)];
        let (old, new) = (Layout::grown(&first, &[]), Layout::grown(&whole, &cuts));
        let written = encoded(&old, &fold(&old, &before));
        let mut read = fold(&new, &others);
        prop_assert_eq!(new.decode(&written, &mut read.row_mut()), Some(()));
        let row = merged(&new, &read, &fold(&new, &since));
        let all: Vec<Record> = before.iter().chain(&since).copied().collect();
        let (layout, mut fresh) = (Layout::new(&whole), fold(&new, &since));
        prop_assert_eq!(shown(&new, &fresh), shown(&layout, &fold(&layout, &since)), "on rows that are all new");
        let expected = shown(&layout, &fold(&layout, &all));
        for (at, (got, expected)) in shown(&new, &row).iter().zip(&expected).enumerate() {
            // The first counts all records.
            let is_whole = at < cut || at == 0 || before.is_empty();
            prop_assert_eq!(got.as_str(), if is_whole { expected.as_str() } else { "null" }, "aggregate {}", at);
        }
        prop_assert_eq!(new.decode(&encoded(&new, &row), &mut fresh.row_mut()), Some(()));
        prop_assert_eq!(fresh, row);
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let layout = Layout::new(&job());
        let _ = layout.decode(&bytes, &mut RowBuf::new(&layout).row_mut());
    }
}
