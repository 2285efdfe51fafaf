use super::*;
use crate::{
    job::{
        AggregateSpec, ColumnSpec, JobSpec, OnFuture, OnQuiet, OperatorSpec, WatermarkSpec,
        WatermarkStrategy, WindowSpec,
    },
    time::Span,
};
use proptest::prelude::*;

fn job() -> JobSpec {
    let aggregate = |name: &str, function, column| AggregateSpec { name: name.into(), function, column };
    JobSpec {
        shards: 1,
        watermark: WatermarkSpec {
            strategy: WatermarkStrategy::Bounded { delay: Span(0) },
            idle_timeout: Span(1),
            on_quiet: OnQuiet::Hold,
            max_future_skew: None,
            on_future: OnFuture::DeadLetter,
            reanchor_after: None,
        },
        operator: OperatorSpec::Windows(WindowSpec { size: Span(10), step: Span(10), offset: Span(0) }),
        allowed_lateness: Span(0),
        columns: vec![
            ColumnSpec { pointer: "/a".into(), scale: 2 },
            ColumnSpec { pointer: "/b".into(), scale: 0 },
        ],
        aggregates: vec![
            aggregate("n", AggregateFn::Count, None),
            aggregate("n_a", AggregateFn::Count, Some(0)),
            aggregate("sum", AggregateFn::Sum, Some(0)),
            aggregate("min", AggregateFn::Min, Some(0)),
            aggregate("max", AggregateFn::Max, Some(0)),
            aggregate("avg", AggregateFn::Avg, Some(1)),
        ],
    }
}

fn add(layout: &Layout, row: &mut [u64], values: (Option<i64>, Option<i64>)) {
    layout.add_record(row);
    for (column, value) in [values.0, values.1].into_iter().enumerate() {
        if let Some(value) = value {
            layout.add_value(row, column, value);
        }
    }
}

fn shown(layout: &Layout, row: &[u64]) -> Vec<String> {
    layout.results(row).iter().map(Value::to_string).collect()
}

#[test]
fn results_are_exact_and_null_without_values() {
    let layout = Layout::new(&job());
    let mut row = vec![0; layout.stride()];
    add(&layout, &mut row, (None, None));
    assert_eq!(shown(&layout, &row), ["1", "0", "null", "null", "null", "null"]);
    add(&layout, &mut row, (Some(-5), Some(1)));
    add(&layout, &mut row, (Some(1_250), Some(2)));
    assert_eq!(shown(&layout, &row), ["3", "2", "12.45", "-0.05", "12.5", "1.5"]);
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

fn records() -> impl Strategy<Value = Vec<(Option<i64>, Option<i64>)>> {
    prop::collection::vec((prop::option::of(any::<i64>()), prop::option::of(any::<i64>())), 0..40)
}

proptest! {
    #[test]
    fn merging_parts_equals_adding_all_in_any_order(records in records(), cut in 0usize..40) {
        let layout = Layout::new(&job());
        let fold = |records: &[(Option<i64>, Option<i64>)]| {
            let mut row = vec![0; layout.stride()];
            for record in records { add(&layout, &mut row, *record); }
            row
        };
        let all = fold(&records);
        let (left, right) = records.split_at(cut.min(records.len()));
        let (mut one, mut other) = (fold(left), fold(right));
        let (left_row, right_row) = (one.clone(), other.clone());
        layout.merge(&mut one, &right_row);
        layout.merge(&mut other, &left_row);
        prop_assert_eq!(&one, &all);
        prop_assert_eq!(&other, &all);
        let mut reversed = records.clone(); reversed.reverse();
        prop_assert_eq!(&fold(&reversed), &all);
    }

    #[test]
    fn encoded_rows_read_back(records in records()) {
        let layout = Layout::new(&job());
        let mut row = vec![0; layout.stride()];
        for record in records { add(&layout, &mut row, record); }
        let mut bytes = Vec::new();
        layout.encode(&row, &mut bytes);
        let mut back = vec![0; layout.stride()];
        prop_assert_eq!(layout.decode(&bytes, &mut back), Some(()));
        prop_assert_eq!(back, row);
    }

    #[test]
    fn garbage_is_refused_or_read_but_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..80)) {
        let layout = Layout::new(&job());
        let mut row = vec![0; layout.stride()];
        let _ = layout.decode(&bytes, &mut row);
    }
}
