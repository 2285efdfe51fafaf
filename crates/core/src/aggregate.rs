//! Aggregates of a window, as rows of 64-bit words.
//!
//! All accumulators of one (key, slice) are one row of `stride` words, laid out once per job: no object per aggregate, no
//! allocation per record, and one merge for all of them. Every aggregate is exact and commutative, so the answer does not
//! depend on the order of records (design §7).
//!
//! ```text
//! clicks: count, sum(/amount), max(/amount)
//!   word 0        1                  2..4            4
//!        records  values of /amount  sum (128 bit)   max
//! ```
#![allow(clippy::indexing_slicing, reason = "word indexes come from the layout that sized the row")]

use std::fmt;

use crate::job::{AggregateFn, JobSpec};

/// Where each aggregate of a job keeps its words.
#[derive(Clone, Debug)]
pub struct Layout {
    stride: usize,
    columns: Vec<ColumnWords>,
    outputs: Vec<Output>,
}

#[derive(Clone, Debug)]
struct ColumnWords {
    scale: u32,
    values: usize,
    sum: Option<usize>,
    min: Option<usize>,
    max: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
struct Output {
    function: AggregateFn,
    column: Option<usize>,
}

/// The value of an aggregate; its `Display` is JSON.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// No value contributed.
    Null,
    /// A number of records.
    Count(u64),
    /// An exact number of `units · 10^−scale`.
    Decimal {
        /// The number in units of 10^−scale.
        units: i128,
        /// Decimal places.
        scale: u32,
    },
    /// A quotient.
    Float(f64),
}

impl Layout {
    /// The layout for the aggregates of `job`.
    #[must_use]
    pub fn new(job: &JobSpec) -> Self {
        let mut stride = 1;
        let mut take = |words: usize| {
            let at = stride;
            stride += words;
            at
        };
        let columns = (0..job.columns.len())
            .map(|index| {
                let wants = |functions: &[AggregateFn]| {
                    job.aggregates.iter().any(|a| a.column == Some(index) && functions.contains(&a.function))
                };
                ColumnWords {
                    scale: job.columns[index].scale,
                    values: take(1),
                    sum: wants(&[AggregateFn::Sum, AggregateFn::Avg]).then(|| take(2)),
                    min: wants(&[AggregateFn::Min]).then(|| take(1)),
                    max: wants(&[AggregateFn::Max]).then(|| take(1)),
                }
            })
            .collect();
        let outputs =
            job.aggregates.iter().map(|a| Output { function: a.function, column: a.column }).collect();
        Self { stride, columns, outputs }
    }

    /// Words in a row; a row of zeros is the empty row.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Number of input columns.
    #[must_use]
    pub fn columns(&self) -> usize {
        self.columns.len()
    }

    /// Counts a record into `row`; its values follow by [`Layout::add_value`].
    #[inline]
    pub fn add_record(&self, row: &mut [u64]) {
        row[0] += 1;
    }

    /// Takes the value of input column `column` of a record into `row`.
    #[inline]
    pub fn add_value(&self, row: &mut [u64], column: usize, value: i64) {
        let words = &self.columns[column];
        let first = row[words.values] == 0;
        row[words.values] += 1;
        if let Some(at) = words.sum {
            store_sum(row, at, load_sum(row, at).wrapping_add(i128::from(value)));
        }
        if let Some(at) = words.min
            && (first || value < row[at].cast_signed())
        {
            row[at] = value.cast_unsigned();
        }
        if let Some(at) = words.max
            && (first || value > row[at].cast_signed())
        {
            row[at] = value.cast_unsigned();
        }
    }

    /// Adds the records of `from` to `into`.
    pub fn merge(&self, into: &mut [u64], from: &[u64]) {
        into[0] += from[0];
        for words in &self.columns {
            if from[words.values] == 0 {
                continue;
            }
            let first = into[words.values] == 0;
            into[words.values] += from[words.values];
            if let Some(at) = words.sum {
                store_sum(into, at, load_sum(into, at).wrapping_add(load_sum(from, at)));
            }
            if let Some(at) = words.min
                && (first || from[at].cast_signed() < into[at].cast_signed())
            {
                into[at] = from[at];
            }
            if let Some(at) = words.max
                && (first || from[at].cast_signed() > into[at].cast_signed())
            {
                into[at] = from[at];
            }
        }
    }

    /// How many records are in `row`.
    #[must_use]
    pub fn records(&self, row: &[u64]) -> u64 {
        row[0]
    }

    /// The job's aggregates over the records in `row`, in the job's order.
    #[must_use]
    pub fn results(&self, row: &[u64]) -> Vec<Value> {
        self.outputs.iter().map(|output| self.result(*output, row)).collect()
    }

    fn result(&self, output: Output, row: &[u64]) -> Value {
        let Some(words) = output.column.map(|column| &self.columns[column]) else {
            return Value::Count(row[0]);
        };
        let values = row[words.values];
        if output.function == AggregateFn::Count {
            return Value::Count(values);
        }
        if values == 0 {
            return Value::Null;
        }
        let decimal = |units: i128| Value::Decimal { units, scale: words.scale };
        let word =
            |at: Option<usize>| at.map_or(Value::Null, |at| decimal(i128::from(row[at].cast_signed())));
        match output.function {
            AggregateFn::Min => word(words.min),
            AggregateFn::Max => word(words.max),
            AggregateFn::Sum => words.sum.map_or(Value::Null, |at| decimal(load_sum(row, at))),
            AggregateFn::Avg => words
                .sum
                .map_or(Value::Null, |at| Value::Float(average(load_sum(row, at), values, words.scale))),
            AggregateFn::Count => Value::Count(values),
        }
    }

    /// Appends `row` to `out`, small numbers in few bytes.
    pub fn encode(&self, row: &[u64], out: &mut Vec<u8>) {
        put_varint(out, u128::from(row[0]));
        for words in &self.columns {
            put_varint(out, u128::from(row[words.values]));
            if let Some(at) = words.sum {
                put_varint(out, zigzag(load_sum(row, at)));
            }
            for at in [words.min, words.max].into_iter().flatten() {
                put_varint(out, zigzag(i128::from(row[at].cast_signed())));
            }
        }
    }

    /// Reads a row that [`Layout::encode`] wrote into `row`; `None` when the bytes are not one.
    #[must_use]
    pub fn decode(&self, mut bytes: &[u8], row: &mut [u64]) -> Option<()> {
        let bytes = &mut bytes;
        row[0] = u64::try_from(take_varint(bytes)?).ok()?;
        for words in &self.columns {
            row[words.values] = u64::try_from(take_varint(bytes)?).ok()?;
            if let Some(at) = words.sum {
                store_sum(row, at, unzigzag(take_varint(bytes)?));
            }
            for at in [words.min, words.max].into_iter().flatten() {
                row[at] = i64::try_from(unzigzag(take_varint(bytes)?)).ok()?.cast_unsigned();
            }
        }
        bytes.is_empty().then_some(())
    }
}

fn load_sum(row: &[u64], at: usize) -> i128 {
    (u128::from(row[at]) | (u128::from(row[at + 1]) << 64)).cast_signed()
}

#[allow(clippy::cast_possible_truncation, reason = "the two halves of a 128-bit word")]
fn store_sum(row: &mut [u64], at: usize, sum: i128) {
    let bits = sum.cast_unsigned();
    row[at] = bits as u64;
    row[at + 1] = (bits >> 64) as u64;
}

#[allow(clippy::cast_precision_loss, reason = "an average is a float; both operands are exact until here")]
fn average(sum: i128, values: u64, scale: u32) -> f64 {
    sum as f64 / (values as f64 * 10f64.powi(i32::try_from(scale).unwrap_or(0)))
}

const fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)).cast_unsigned()
}

const fn unzigzag(bits: u128) -> i128 {
    (bits >> 1).cast_signed() ^ -((bits & 1).cast_signed())
}

/// Appends `value` as a LEB128 varint.
#[allow(clippy::cast_possible_truncation, reason = "seven bits at a time")]
pub(crate) fn put_varint(out: &mut Vec<u8>, mut value: u128) {
    while value >= 0x80 {
        out.push((value as u8) | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a LEB128 varint from the front of `bytes`; `None` when there is none.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Option<u128> {
    let mut value = 0u128;
    for shift in (0..128).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u128::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Null => f.write_str("null"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Float(value) => write!(f, "{value}"),
            Self::Decimal { units, scale } => write_decimal(f, units, scale),
        }
    }
}

fn write_decimal(f: &mut fmt::Formatter<'_>, units: i128, scale: u32) -> fmt::Result {
    let one = 10u128.pow(scale.min(38));
    let (whole, mut fraction) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
    let sign = if units < 0 { "-" } else { "" };
    if fraction == 0 {
        return write!(f, "{sign}{whole}");
    }
    let mut places = scale as usize;
    while fraction % 10 == 0 {
        fraction /= 10;
        places -= 1;
    }
    write!(f, "{sign}{whole}.{fraction:0places$}")
}

#[cfg(test)]
mod tests;
