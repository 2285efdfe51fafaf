//! The batch answer, by definition: every window of every record, one by one. Shares no code with the windows, slices and
//! aggregates of the core.

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::{
    aggregate::Value,
    job::{AggregateFn, AggregateSpec, JobSpec, OperatorSpec, Ranks, SessionSpec, WindowSpec},
    time::{EventTime, Span},
};

use crate::topic::Record;

/// Group key, start and end.
pub type Window = (Vec<u8>, EventTime, EventTime);
/// Values by window.
pub type Answer = BTreeMap<Window, Vec<Value>>;

/// The answer over `records`, except where `misses` says that a record is not in the window that ends there.
pub fn batch<'a>(
    job: &JobSpec,
    records: impl Iterator<Item = &'a Record>,
    misses: impl Fn(&Record, EventTime) -> bool,
) -> Answer {
    let windows = match &job.operator {
        OperatorSpec::Sessions(spec) => sessions(spec, records),
        // Looked at record by record.
        OperatorSpec::Reorder | OperatorSpec::Sliding(_) => BTreeMap::new(),
        OperatorSpec::Windows(spec) => {
            let mut windows: BTreeMap<Window, Vec<&Record>> = BTreeMap::new();
            for record in records {
                for end in window_ends(spec, record.time.0) {
                    if !misses(record, end) {
                        let window = (record.key.clone(), end.minus(spec.size), end);
                        windows.entry(window).or_default().push(record);
                    }
                }
            }
            windows
        }
    };
    windows.into_iter().map(|(window, records)| (window, values(job, &records))).collect()
}

/// Ends of the windows `[k·step + offset, k·step + offset + size)` that hold `time`.
pub fn window_ends(window: &WindowSpec, time: i64) -> Vec<EventTime> {
    let (size, step, offset) = (window.size.0, window.step.0, window.offset.0);
    let mut k = (time - offset - size) / step - 2;
    let mut ends = Vec::new();
    while k * step + offset <= time {
        if time < k * step + offset + size {
            ends.push(EventTime(k * step + offset + size));
        }
        k += 1;
    }
    ends
}

/// The end of a session whose last record is at `time`.
pub fn session_end(spec: &SessionSpec, time: i64) -> EventTime {
    let cut = spec.cut.map(|cut| (time.div_euclid(cut.0) + 1) * cut.0);
    EventTime(cut.map_or(time + spec.gap.0, |cut| cut.min(time + spec.gap.0)))
}

/// A record at or after the end of what its key has so far begins a new session.
fn sessions<'a>(
    spec: &SessionSpec,
    records: impl Iterator<Item = &'a Record>,
) -> BTreeMap<Window, Vec<&'a Record>> {
    let mut records: Vec<_> = records.collect();
    records.sort_by_key(|record| (&record.key, record.time));
    let mut sessions: Vec<(Window, Vec<&Record>)> = Vec::new();
    for record in records {
        let end = session_end(spec, record.time.0);
        match sessions.last_mut() {
            Some(((key, _, open), members)) if *key == record.key && record.time < *open => {
                *open = end;
                members.push(record);
            }
            _ => sessions.push(((record.key.clone(), record.time, end), vec![record])),
        }
    }
    sessions.into_iter().collect()
}

pub fn values(job: &JobSpec, records: &[&Record]) -> Vec<Value> {
    let value = |aggregate: &AggregateSpec| {
        let Some(column) = aggregate.column else { return Value::Count(records.len() as u64) };
        let mut there: Vec<_> = records.iter().filter(|record| record.values[column].is_some()).collect();
        there.sort_by_key(|record| (record.time, record.partition, record.offset));
        let numbers: Vec<i64> = there.iter().filter_map(|record| record.values[column]).collect();
        let scale = job.columns[column].scale();
        let one = 10f64.powi(scale as i32);
        let decimal =
            |units: Option<i64>| units.map_or(Value::Null, |u| Value::Decimal { units: u.into(), scale });
        let sum: i64 = numbers.iter().sum();
        let mean = sum as f64 / numbers.len() as f64;
        let variance = numbers.iter().map(|number| (*number as f64 - mean).powi(2)).sum::<f64>()
            / (numbers.len() as f64 - 1.0)
            / one.powi(2);
        match &aggregate.function {
            AggregateFn::Count => Value::Count(numbers.len() as u64),
            AggregateFn::Sum => decimal((!numbers.is_empty()).then_some(sum)),
            AggregateFn::Min => decimal(numbers.iter().min().copied()),
            AggregateFn::Max => decimal(numbers.iter().max().copied()),
            AggregateFn::First => decimal(numbers.first().copied()),
            AggregateFn::Last => decimal(numbers.last().copied()),
            AggregateFn::Variance | AggregateFn::Stddev if numbers.len() < 2 => Value::Null,
            AggregateFn::Variance => Value::Float(variance),
            AggregateFn::Stddev => Value::Float(variance.sqrt()),
            _ if numbers.is_empty() => Value::Null,
            AggregateFn::Avg => Value::Float(mean / one),
            AggregateFn::Distinct => Value::Count(numbers.iter().collect::<BTreeSet<_>>().len() as u64),
            AggregateFn::Collect { limit } => Value::List(
                numbers.iter().take(*limit as usize).map(|number| written(*number, scale)).collect(),
            ),
            AggregateFn::TopK { k } => {
                let mut counts: BTreeMap<String, (i64, u64)> = BTreeMap::new();
                for number in &numbers {
                    counts.entry(written(*number, scale).to_string()).or_insert((*number, 0)).1 += 1;
                }
                let mut counts: Vec<_> = counts.into_values().collect();
                // Stable: of equally many the order of the text.
                counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
                counts.truncate(*k as usize);
                Value::Counted(
                    counts.into_iter().map(|(number, count)| (written(number, scale), count)).collect(),
                )
            }
            AggregateFn::Quantile { ranks: Ranks::One(rank), .. } => {
                let mut sorted = numbers.clone();
                sorted.sort_unstable();
                let at = (sorted.len() as f64 * f64::from(rank.0) / 1e6).ceil() as usize;
                Value::Float(sorted[at.max(1) - 1] as f64 / one)
            }
            AggregateFn::Quantile { ranks: Ranks::Several(_), .. } => unreachable!("not in a scenario"),
        }
    };
    job.aggregates.iter().map(value).collect()
}

fn written(units: i64, scale: u32) -> Value {
    Value::Written(Value::Decimal { units: units.into(), scale }.to_string())
}

/// Equal, floats up to rounding and quantiles up to their accuracy.
pub fn same(job: &JobSpec, got: &[Value], expected: &[Value]) -> bool {
    got.len() == expected.len()
        && job.aggregates.iter().zip(got.iter().zip(expected)).all(|(aggregate, values)| match values {
            (Value::Float(got), Value::Float(expected)) => {
                let relative = match &aggregate.function {
                    AggregateFn::Quantile { accuracy, .. } => f64::from(accuracy.0) * 1e-6,
                    _ => 0.0,
                };
                (got - expected).abs() <= relative * expected.abs() + 1e-9 * expected.abs().max(1.0)
            }
            (got, expected) => got == expected,
        })
}

#[test]
fn the_oracle_is_right_by_hand() {
    let spec = WindowSpec { size: Span(20), step: Span(10), offset: Span(3), zone: None };
    let ends = |time| window_ends(&spec, time);
    assert_eq!(ends(0), [EventTime(3), EventTime(13)], "[-17, 3) and [-7, 13)");
    assert_eq!(ends(3), [EventTime(13), EventTime(23)], "half-open");
    assert_eq!(ends(-8), [EventTime(-7), EventTime(3)], "negative times");
}
