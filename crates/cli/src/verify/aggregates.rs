//! What the aggregates of a window should be, computed from all its values by definition.

use std::collections::{BTreeMap, BTreeSet};

use super::condition;
use serde_json::Value;
use tidegate_core::job::{AggregateFn, AggregateSpec, ColumnKind, PerMillion, Ranks};
use tidegate_job::Job;

/// Event time, partition and offset of a record.
pub(super) type Place = (i64, u32, u64);

/// What went into a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Inputs {
    pub(super) records: u64,
    columns: Vec<Values>,
}

#[derive(Clone, Debug, Default)]
struct Values {
    numbers: Vec<i128>,
    /// Of a column that is taken as it is.
    written: Vec<String>,
    /// Where each is from, in jobs that ask for an order.
    places: Vec<Place>,
}

impl Inputs {
    /// Takes a record.
    pub(super) fn add(&mut self, job: &Job, record: &Value, place: Place) {
        self.records += 1;
        self.columns.resize_with(job.core.columns.len(), Values::default);
        for (at, (column, values)) in job.core.columns.iter().zip(&mut self.columns).enumerate() {
            if column.only.as_ref().is_some_and(|only| !condition::holds(only, record)) {
                continue;
            }
            if column.kind == ColumnKind::AsIs {
                let Some(value) = record.pointer(&column.pointer).filter(|value| !value.is_null()) else {
                    continue;
                };
                values.written.push(form(value));
                values.places.push(place);
                continue;
            }
            let number = match record.pointer(&column.pointer) {
                None | Some(Value::Null) => None,
                Some(Value::Number(number)) => decimal(&number.to_string(), column.scale()),
                Some(_) => Some(1),
            };
            let Some(number) = number else { continue };
            values.numbers.push(number);
            if job.core.aggregates.iter().any(|aggregate| is_ordered(aggregate, at)) {
                values.places.push(place);
            }
        }
    }

    /// Takes what went into another window of the key.
    pub(super) fn join(&mut self, other: Self) {
        self.records += other.records;
        self.columns.resize_with(other.columns.len(), Values::default);
        for (values, other) in self.columns.iter_mut().zip(other.columns) {
            values.numbers.extend(other.numbers);
            values.written.extend(other.written);
            values.places.extend(other.places);
        }
    }

    /// Whether the value of an aggregate in a result is right.
    pub(super) fn fits(&self, job: &Job, aggregate: &AggregateSpec, got: &Value) -> bool {
        let Some(column) = aggregate.column else { return got.as_u64() == Some(self.records) };
        let (Some(values), Some(spec)) = (self.columns.get(column), job.core.columns.get(column)) else {
            return false;
        };
        let (numbers, scale) = (values.numbers.as_slice(), spec.scale());
        let as_units = || decimal(&got.to_string(), scale);
        match &aggregate.function {
            AggregateFn::Count => got.as_u64() == Some(values.len() as u64),
            _ if values.len() == 0 => got.is_null(),
            AggregateFn::Distinct => values.has_so_many(got.as_u64(), scale),
            AggregateFn::TopK { k } => values.has_most(*k as usize, got, scale),
            AggregateFn::Collect { limit } => {
                let expected = values.in_order(scale).into_iter().take(*limit as usize);
                got.as_array().is_some_and(|got| got.iter().map(form).eq(expected))
            }
            AggregateFn::First | AggregateFn::Last if spec.kind == ColumnKind::AsIs => {
                let values = values.in_order(scale);
                let expected =
                    if aggregate.function == AggregateFn::First { values.first() } else { values.last() };
                Some(&form(got)) == expected
            }
            AggregateFn::Sum => as_units() == Some(numbers.iter().sum()),
            AggregateFn::Min => as_units() == numbers.iter().min().copied(),
            AggregateFn::Max => as_units() == numbers.iter().max().copied(),
            AggregateFn::Avg => is_near(got, mean(numbers, scale), 1e-12),
            AggregateFn::Variance | AggregateFn::Stddev if numbers.len() < 2 => got.is_null(),
            AggregateFn::Variance => is_near(got, variance(numbers, scale), 1e-9),
            AggregateFn::Stddev => is_near(got, variance(numbers, scale).sqrt(), 1e-9),
            AggregateFn::First => as_units() == values.ordered().first().copied(),
            AggregateFn::Last => as_units() == values.ordered().last().copied(),
            AggregateFn::Quantile { accuracy, ranks } => {
                let mut sorted = numbers.to_vec();
                sorted.sort_unstable();
                let right = |got: &Value, rank: &PerMillion| {
                    is_near(got, quantile(&sorted, *rank, scale), f64::from(accuracy.0) * 1.000_001e-6)
                };
                match (ranks, got) {
                    (Ranks::One(rank), got) => right(got, rank),
                    (Ranks::Several(ranks), Value::Array(got)) => {
                        got.len() == ranks.len() && got.iter().zip(ranks).all(|(got, rank)| right(got, rank))
                    }
                    (Ranks::Several(_), _) => false,
                }
            }
        }
    }
}

impl Values {
    fn len(&self) -> usize {
        self.numbers.len().max(self.written.len())
    }

    /// All values as text.
    fn forms(&self, scale: u32) -> Vec<String> {
        if self.written.is_empty() {
            return self.numbers.iter().map(|number| plain(*number, scale)).collect();
        }
        self.written.clone()
    }

    /// All values as text, in the order of their places.
    fn in_order(&self, scale: u32) -> Vec<String> {
        let mut placed: Vec<_> = self.places.iter().zip(self.forms(scale)).collect();
        placed.sort_unstable();
        placed.into_iter().map(|(_, form)| form).collect()
    }

    /// Exact up to 512 different values, then within some standard errors.
    #[allow(clippy::cast_precision_loss, reason = "an estimate is compared")]
    fn has_so_many(&self, got: Option<u64>, scale: u32) -> bool {
        let expected = self.forms(scale).into_iter().collect::<BTreeSet<_>>().len() as u64;
        let Some(got) = got else { return false };
        if expected <= 512 { got == expected } else { (got as f64 / expected as f64 - 1.0).abs() < 0.1 }
    }

    /// Exact up to 1,000 different values, then with counts that are too high by a hundredth of all at most.
    fn has_most(&self, k: usize, got: &Value, scale: u32) -> bool {
        let mut counts: BTreeMap<String, u64> = BTreeMap::new();
        for form in self.forms(scale) {
            *counts.entry(form).or_default() += 1;
        }
        let got: Option<Vec<(String, u64)>> = got.as_array().map(|entries| {
            let entry = |entry: &Value| (form(&entry["value"]), entry["count"].as_u64().unwrap_or(0));
            entries.iter().map(entry).collect()
        });
        let Some(got) = got else { return false };
        if counts.len() > 1_000 {
            let slack = self.len() as u64 / 100;
            return got.len() == k
                && got.iter().all(|(form, count)| {
                    counts.get(form).is_some_and(|exact| (*exact..=exact + slack).contains(count))
                });
        }
        let mut expected: Vec<_> = counts.into_iter().collect();
        expected.sort_by(|one, other| other.1.cmp(&one.1).then_with(|| one.0.cmp(&other.0)));
        expected.truncate(k);
        got == expected
    }

    /// The numbers in the order of their places.
    fn ordered(&self) -> Vec<i128> {
        let mut placed: Vec<_> = self.places.iter().zip(&self.numbers).collect();
        placed.sort_unstable();
        placed.into_iter().map(|(_, number)| *number).collect()
    }
}

fn is_ordered(aggregate: &AggregateSpec, column: usize) -> bool {
    use AggregateFn::{Collect, First, Last};
    aggregate.column == Some(column) && matches!(aggregate.function, First | Last | Collect { .. })
}

/// Text apart from a number that looks like it.
fn form(value: &Value) -> String {
    match value {
        Value::String(text) => format!("\"{text}"),
        other => other.to_string(),
    }
}

/// As a decimal without trailing zeros.
fn plain(number: i128, scale: u32) -> String {
    let places = scale as usize;
    let digits = format!("{:0>width$}", number.unsigned_abs(), width = places + 1);
    let (whole, fraction) = digits.split_at(digits.len() - places);
    let text = format!("{}{whole}.{fraction}", if number < 0 { "-" } else { "" });
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn is_near(got: &Value, expected: f64, relative: f64) -> bool {
    got.as_f64().is_some_and(|got| (got - expected).abs() <= expected.abs() * relative)
}

fn one(scale: u32) -> f64 {
    10f64.powi(i32::try_from(scale).unwrap_or(0))
}

#[allow(clippy::cast_precision_loss, reason = "an average is a float")]
fn mean(numbers: &[i128], scale: u32) -> f64 {
    let sum: i128 = numbers.iter().sum();
    sum as f64 / numbers.len() as f64 / one(scale)
}

#[allow(clippy::cast_precision_loss, reason = "a variance is a float")]
fn variance(numbers: &[i128], scale: u32) -> f64 {
    let mean = mean(numbers, scale);
    let squares: f64 = numbers.iter().map(|number| (*number as f64 / one(scale) - mean).powi(2)).sum();
    squares / (numbers.len() as f64 - 1.0)
}

/// The smallest value that at least this share of all do not exceed.
#[allow(clippy::cast_precision_loss, reason = "a quantile is a float")]
fn quantile(sorted: &[i128], rank: PerMillion, scale: u32) -> f64 {
    let below = (sorted.len() as u64 * u64::from(rank.0)).div_ceil(1_000_000).max(1) - 1;
    let value = usize::try_from(below).ok().and_then(|at| sorted.get(at));
    value.map_or(f64::NAN, |value| *value as f64 / one(scale))
}

/// A plain decimal number in units of 10^−scale, further digits cut off: the generator and the test data have none.
fn decimal(text: &str, scale: u32) -> Option<i128> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, exponent.parse::<i64>().ok()?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let shift = i64::from(scale) + exponent - i64::try_from(fraction.len()).ok()?;
    let factor = 10i128.checked_pow(u32::try_from(shift.unsigned_abs()).ok()?)?;
    if shift >= 0 { digits.checked_mul(factor) } else { Some(digits / factor) }
}
