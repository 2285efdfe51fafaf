//! The batch answer, by definition: every window of every record, one by one. Shares no code with the windows, slices and
//! aggregates of the core.

use std::collections::BTreeMap;

use tidegate_core::{
    aggregate::Value,
    job::{AggregateFn, JobSpec, OperatorSpec},
    time::EventTime,
};

use crate::topic::Record;

/// Values by group key and window end.
pub type Answer = BTreeMap<(Vec<u8>, EventTime), Vec<Value>>;

/// The answer over `records`, except where `misses` says that a record is not in the window that ends there.
pub fn batch<'a>(
    job: &JobSpec,
    records: impl Iterator<Item = &'a Record>,
    misses: impl Fn(&Record, EventTime) -> bool,
) -> Answer {
    let mut windows: BTreeMap<(Vec<u8>, EventTime), Vec<&Record>> = BTreeMap::new();
    for record in records.filter(|record| record.rejected.is_none()) {
        for end in window_ends(job, record.time.0) {
            if !misses(record, end) {
                windows.entry((record.key.clone(), end)).or_default().push(record);
            }
        }
    }
    windows.into_iter().map(|(window, records)| (window, values(job, &records))).collect()
}

/// Ends of the windows `[k·step + offset, k·step + offset + size)` that hold `time`.
pub fn window_ends(job: &JobSpec, time: i64) -> Vec<EventTime> {
    let OperatorSpec::Windows(window) = job.operator;
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

fn values(job: &JobSpec, records: &[&Record]) -> Vec<Value> {
    let value = |aggregate: &tidegate_core::job::AggregateSpec| {
        let Some(column) = aggregate.column else { return Value::Count(records.len() as u64) };
        let numbers: Vec<i64> = records.iter().filter_map(|record| record.values[column]).collect();
        let scale = job.columns[column].scale;
        let decimal =
            |units: Option<i64>| units.map_or(Value::Null, |u| Value::Decimal { units: u.into(), scale });
        let sum: i64 = numbers.iter().sum();
        match aggregate.function {
            AggregateFn::Count => Value::Count(numbers.len() as u64),
            AggregateFn::Sum => decimal((!numbers.is_empty()).then_some(sum)),
            AggregateFn::Min => decimal(numbers.iter().min().copied()),
            AggregateFn::Max => decimal(numbers.iter().max().copied()),
            AggregateFn::Avg if numbers.is_empty() => Value::Null,
            AggregateFn::Avg => Value::Float(sum as f64 / numbers.len() as f64 / 10f64.powi(scale as i32)),
        }
    };
    job.aggregates.iter().map(value).collect()
}

/// Equal, averages up to rounding.
pub fn same(one: &[Value], other: &[Value]) -> bool {
    one.len() == other.len()
        && one.iter().zip(other).all(|(one, other)| match (one, other) {
            (Value::Float(one), Value::Float(other)) => (one - other).abs() <= 1e-9 * other.abs().max(1.0),
            _ => one == other,
        })
}
