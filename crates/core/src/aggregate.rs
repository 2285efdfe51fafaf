//! Aggregates of a window, as rows of 64-bit words.
//!
//! All accumulators of one (key, slice) are one row of `stride` words, laid out once per job: no object per aggregate, no
//! allocation per record, and one merge for all of them. Every aggregate is commutative and associative to the bit, so the answer
//! does not depend on the order of records (design §7).
//!
//! ```text
//! clicks: count, sum(/amount), max(/amount)
//!   word 0        1                  2..4            4
//!        records  values of /amount  sum (128 bit)   max
//! ```
//! What grows with the values it has seen (quantiles, different values, text) is a summary beside the words, in jobs that ask for it; the others do not pay
//! for it.
//!
//! Aggregates that were added to a job while it had state are a *generation* of their own: columns behind those of the others, with a
//! count of the records seen since. A row that was written before does not have them and reads as one that has seen nothing of them;
//! the result of such an aggregate is null until the row holds no earlier record.
#![allow(clippy::indexing_slicing, reason = "word indexes come from the layout that sized the row")]

mod collect;
mod distinct;
mod generations;
mod moments;
mod quantiles;
mod row;
mod summary;
mod top_k;
mod value;

use std::ops::Range;

use collect::End;
use generations::{Generation, Output};
pub(crate) use row::RowRun;
pub use row::{At, Row, RowBuf, RowMut};
use summary::{Summary, SummaryKind};
pub use value::Value;

use crate::{
    job::{AggregateFn, AggregateSpec, ColumnKind, JobSpec, PerMillion, Ranks},
    time::{EventTime, Offset, Partition},
};

/// A value of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Given<'a> {
    /// A number, in units of 10^−scale.
    Number(i64),
    /// As it is: text as a `"` and its characters, others as they are written.
    AsIs(&'a [u8]),
}

/// Where each aggregate of a job keeps its words.
#[derive(Clone, Debug)]
pub struct Layout {
    stride: usize,
    /// Those of the inputs, in their order; then further ones of the same inputs, in later generations.
    columns: Vec<ColumnWords>,
    inputs: usize,
    summaries: Vec<SummaryKind>,
    outputs: Vec<Output>,
    /// In the order in which they are written.
    generations: Vec<Generation>,
    /// Where the generations behind the first count records.
    later_records: Vec<usize>,
}

#[derive(Clone, Debug)]
struct ColumnWords {
    kind: ColumnKind,
    scale: u32,
    values: usize,
    sum: Option<usize>,
    min: Option<usize>,
    max: Option<usize>,
    /// 192 bits.
    squares: Option<usize>,
    first: Option<usize>,
    last: Option<usize>,
    /// The summaries of its values.
    summaries: Range<usize>,
    /// The column of the same input in a later generation.
    next: Option<usize>,
    /// Whether there is any of the last five.
    has_more: bool,
}

/// Words of a value with the place of its record: event time, partition, offset, value.
const AT_AND_VALUE: usize = 4;

impl Layout {
    /// The layout for the aggregates of `job`.
    #[must_use]
    pub fn new(job: &JobSpec) -> Self {
        Self::grown(job, &[])
    }

    /// Words in a row; a row of zeros and empty summaries is the empty row.
    #[must_use]
    pub const fn stride(&self) -> usize {
        self.stride
    }

    /// Summaries in a row, beside the words.
    pub(crate) const fn summaries(&self) -> usize {
        self.summaries.len()
    }

    /// Bytes of a row, without what its summaries take beside it.
    pub(crate) const fn row_bytes(&self) -> usize {
        self.stride * 8 + self.summaries.len() * size_of::<Summary>()
    }

    pub(crate) const fn has_summaries(&self) -> bool {
        !self.summaries.is_empty()
    }

    pub(crate) fn empty_summaries(&self) -> impl Iterator<Item = Summary> + '_ {
        self.summaries.iter().map(SummaryKind::empty)
    }

    /// Number of input columns.
    #[must_use]
    pub const fn columns(&self) -> usize {
        self.inputs
    }

    /// Counts a record into `row`; its values follow by [`Layout::add_value`].
    #[inline]
    pub fn add_record(&self, row: &mut RowMut<'_>) {
        row.words[0] += 1;
        for records in &self.later_records {
            row.words[*records] += 1;
        }
    }

    /// Takes the value of input column `column` of the record at `at` into `row`.
    #[inline]
    pub fn add_value(&self, row: &mut RowMut<'_>, column: usize, value: i64, at: &At) {
        let column = &self.columns[column];
        let words = &mut *row.words;
        let first = words[column.values] == 0;
        words[column.values] += 1;
        if let Some(at) = column.sum {
            store_sum(words, at, load_sum(words, at).wrapping_add(i128::from(value)));
        }
        if let Some(at) = column.min
            && (first || value < words[at].cast_signed())
        {
            words[at] = value.cast_unsigned();
        }
        if let Some(at) = column.max
            && (first || value > words[at].cast_signed())
        {
            words[at] = value.cast_unsigned();
        }
        if column.has_more {
            self.add_more(row, column, first, value, at);
        }
    }

    /// What only few jobs ask for.
    fn add_more(&self, row: &mut RowMut<'_>, column: &ColumnWords, first: bool, value: i64, at: &At) {
        let words = &mut *row.words;
        if let Some(place) = column.squares {
            moments::add_square(&mut words[place..place + moments::WORDS], value);
        }
        if let Some(place) = column.first
            && (first || *at < load_at(words, place))
        {
            store_at(words, place, at, value);
        }
        if let Some(place) = column.last
            && (first || *at > load_at(words, place))
        {
            store_at(words, place, at, value);
        }
        for summary in column.summaries.clone() {
            row.summary(summary, |summary| summary.add_value(value, column.scale, at));
        }
        if let Some(next) = column.next {
            self.add_value(row, next, value, at);
        }
    }

    /// Takes a value of input column `column` of the record at `at` into `row`.
    #[inline]
    pub fn add(&self, row: &mut RowMut<'_>, column: usize, value: Given<'_>, at: &At) {
        match value {
            Given::Number(value) => self.add_value(row, column, value, at),
            Given::AsIs(text) => self.add_text(row, column, text, at),
        }
    }

    /// Takes the value as it is of input column `column` of the record at `at` into `row`.
    pub fn add_text(&self, row: &mut RowMut<'_>, column: usize, text: &[u8], at: &At) {
        let column = &self.columns[column];
        row.words[column.values] += 1;
        for summary in column.summaries.clone() {
            row.summary(summary, |summary| summary.add_text(text, at));
        }
        if let Some(next) = column.next {
            self.add_text(row, next, text, at);
        }
    }

    /// Adds the records of `from` to `into`.
    pub fn merge(&self, into: &mut RowMut<'_>, from: Row<'_>) {
        let words = &mut *into.words;
        words[0] += from.words[0];
        for records in &self.later_records {
            words[*records] += from.words[*records];
        }
        for column in &self.columns {
            if from.words[column.values] == 0 {
                continue;
            }
            let first = words[column.values] == 0;
            words[column.values] += from.words[column.values];
            if let Some(at) = column.sum {
                store_sum(words, at, load_sum(words, at).wrapping_add(load_sum(from.words, at)));
            }
            if let Some(at) = column.min
                && (first || from.words[at].cast_signed() < words[at].cast_signed())
            {
                words[at] = from.words[at];
            }
            if let Some(at) = column.max
                && (first || from.words[at].cast_signed() > words[at].cast_signed())
            {
                words[at] = from.words[at];
            }
            if let Some(at) = column.squares {
                let squares = at..at + moments::WORDS;
                moments::add(&mut words[squares.clone()], &from.words[squares]);
            }
            let place = |at: usize| at..at + AT_AND_VALUE;
            if let Some(at) = column.first
                && (first || load_at(from.words, at) < load_at(words, at))
            {
                words[place(at)].copy_from_slice(&from.words[place(at)]);
            }
            if let Some(at) = column.last
                && (first || load_at(from.words, at) > load_at(words, at))
            {
                words[place(at)].copy_from_slice(&from.words[place(at)]);
            }
        }
        for (at, from) in from.summaries.iter().enumerate() {
            into.summary(at, |summary| summary.merge(from));
        }
    }

    /// How many values [`Layout::results`] gives.
    #[must_use]
    pub const fn outputs(&self) -> usize {
        self.outputs.len()
    }

    /// How many records are in `row`.
    #[must_use]
    pub fn records(&self, row: Row<'_>) -> u64 {
        row.words[0]
    }

    /// The job's aggregates over the records in `row`, in the job's order.
    #[must_use]
    pub fn results(&self, row: Row<'_>) -> Vec<Value> {
        self.outputs.iter().map(|output| self.result(output, row)).collect()
    }

    fn result(&self, output: &Output, row: Row<'_>) -> Value {
        let Some(column) = output.column.map(|column| &self.columns[column]) else {
            return Value::Count(row.words[0]);
        };
        if row.words[output.records] != row.words[0] {
            // It has not seen all of them.
            return Value::Null;
        }
        let output = &output.spec;
        let values = row.words[column.values];
        if output.function == AggregateFn::Count {
            return Value::Count(values);
        }
        if values == 0 {
            return Value::Null;
        }
        let decimal = |units: i128| Value::Decimal { units, scale: column.scale };
        let word =
            |at: Option<usize>| at.map_or(Value::Null, |at| decimal(i128::from(row.words[at].cast_signed())));
        match &output.function {
            AggregateFn::Min => word(column.min),
            AggregateFn::Max => word(column.max),
            AggregateFn::Sum => column.sum.map_or(Value::Null, |at| decimal(load_sum(row.words, at))),
            AggregateFn::Avg => column.sum.map_or(Value::Null, |at| {
                Value::Float(average(load_sum(row.words, at), values, column.scale))
            }),
            AggregateFn::Count => Value::Count(values),
            AggregateFn::Variance => variance(column, row.words).map_or(Value::Null, Value::Float),
            AggregateFn::Stddev => {
                variance(column, row.words).map_or(Value::Null, |v| Value::Float(v.sqrt()))
            }
            AggregateFn::Distinct | AggregateFn::TopK { .. } | AggregateFn::Collect { .. } => self
                .summary(output, column, row)
                .map_or(Value::Null, |summary| summary.result(&output.function)),
            AggregateFn::First | AggregateFn::Last if column.kind == ColumnKind::AsIs => self
                .summary(output, column, row)
                .map_or(Value::Null, |summary| summary.result(&output.function)),
            AggregateFn::First => word(column.first.map(|at| at + AT_AND_VALUE - 1)),
            AggregateFn::Last => word(column.last.map(|at| at + AT_AND_VALUE - 1)),
            AggregateFn::Quantile { ranks, .. } => self.quantiles(output, column, ranks, row),
        }
    }

    fn quantiles(&self, output: &AggregateSpec, column: &ColumnWords, ranks: &Ranks, row: Row<'_>) -> Value {
        let Some(Summary::Quantiles(quantiles)) = self.summary(output, column, row) else {
            return Value::Null;
        };
        let one = 10_f64.powi(i32::try_from(column.scale).unwrap_or(0));
        let value = |rank: &PerMillion| {
            quantiles.quantile(rank.0).map_or(Value::Null, |value| Value::Float(value / one))
        };
        match ranks {
            Ranks::One(rank) => value(rank),
            Ranks::Several(ranks) => Value::List(ranks.iter().map(value).collect()),
        }
    }

    /// The summary that `output` is read from.
    fn summary<'a>(&self, output: &AggregateSpec, column: &ColumnWords, row: Row<'a>) -> Option<&'a Summary> {
        let kind = summary_of(&output.function, column.kind)?;
        let at = column.summaries.clone().find(|at| self.summaries.get(*at) == Some(&kind))?;
        row.summaries.get(at)
    }

    /// Appends `row` to `out`, small numbers in few bytes.
    pub fn encode(&self, row: Row<'_>, out: &mut Vec<u8>) {
        let words = row.words;
        for generation in &self.generations {
            put_varint(out, u128::from(words[generation.records]));
            for column in generation.columns.iter().map(|at| &self.columns[*at]) {
                put_varint(out, u128::from(words[column.values]));
                if let Some(at) = column.sum {
                    put_varint(out, zigzag(load_sum(words, at)));
                }
                for at in [column.min, column.max].into_iter().flatten() {
                    put_varint(out, zigzag(i128::from(words[at].cast_signed())));
                }
                for at in column.squares.iter().flat_map(|at| *at..at + moments::WORDS) {
                    put_varint(out, u128::from(words[at]));
                }
                for place in [column.first, column.last].into_iter().flatten() {
                    load_at(words, place).encode(out);
                    put_varint(out, zigzag(i128::from(words[place + AT_AND_VALUE - 1].cast_signed())));
                }
            }
            for summary in &row.summaries[generation.summaries.clone()] {
                summary.encode(out);
            }
        }
    }

    /// Reads a row that [`Layout::encode`] wrote, perhaps before later generations were added, into `row`; `None` when the bytes
    /// are not one.
    #[must_use]
    pub fn decode(&self, mut bytes: &[u8], row: &mut RowMut<'_>) -> Option<()> {
        let bytes = &mut bytes;
        for generation in &self.generations {
            if generation.records > 0 && bytes.is_empty() {
                row.words[generation.records..].fill(0);
                for at in generation.summaries.start..self.summaries.len() {
                    row.summary(at, Summary::clear);
                }
                return Some(());
            }
            self.decode_generation(generation, bytes, row)?;
        }
        bytes.is_empty().then_some(())
    }

    fn decode_generation(
        &self,
        generation: &Generation,
        bytes: &mut &[u8],
        row: &mut RowMut<'_>,
    ) -> Option<()> {
        let words = &mut *row.words;
        words[generation.records] = u64::try_from(take_varint(bytes)?).ok()?;
        for column in generation.columns.iter().map(|at| &self.columns[*at]) {
            words[column.values] = u64::try_from(take_varint(bytes)?).ok()?;
            if let Some(at) = column.sum {
                store_sum(words, at, unzigzag(take_varint(bytes)?));
            }
            for at in [column.min, column.max].into_iter().flatten() {
                words[at] = i64::try_from(unzigzag(take_varint(bytes)?)).ok()?.cast_unsigned();
            }
            for at in column.squares.iter().flat_map(|at| *at..at + moments::WORDS) {
                words[at] = u64::try_from(take_varint(bytes)?).ok()?;
            }
            for place in [column.first, column.last].into_iter().flatten() {
                let at = At::decode(bytes)?;
                store_at(words, place, &at, i64::try_from(unzigzag(take_varint(bytes)?)).ok()?);
            }
        }
        let mut read = Some(());
        for at in generation.summaries.clone() {
            row.summary(at, |summary| read = read.and_then(|()| summary.decode(bytes)));
        }
        read
    }
}

/// What an aggregate needs beside words.
fn summary_of(function: &AggregateFn, column: ColumnKind) -> Option<SummaryKind> {
    match function {
        AggregateFn::First if column == ColumnKind::AsIs => {
            Some(SummaryKind::Collect { end: End::First, limit: 1 })
        }
        AggregateFn::Last if column == ColumnKind::AsIs => {
            Some(SummaryKind::Collect { end: End::Last, limit: 1 })
        }
        AggregateFn::Distinct => Some(SummaryKind::Distinct),
        AggregateFn::TopK { .. } => Some(SummaryKind::TopK),
        AggregateFn::Collect { limit } => Some(SummaryKind::Collect { end: End::First, limit: *limit }),
        AggregateFn::Count
        | AggregateFn::Sum
        | AggregateFn::Min
        | AggregateFn::Max
        | AggregateFn::Avg
        | AggregateFn::Variance
        | AggregateFn::Stddev
        | AggregateFn::First
        | AggregateFn::Last => None,
        // Bins of which none is wider than twice the error.
        AggregateFn::Quantile { accuracy, .. } => {
            Some(SummaryKind::Quantiles(500_000_u32.div_ceil(accuracy.0.max(1))))
        }
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

#[allow(clippy::cast_possible_truncation, reason = "store_at wrote a partition there")]
fn load_at(row: &[u64], at: usize) -> At {
    At {
        time: EventTime(row[at].cast_signed()),
        partition: Partition(row[at + 1] as u32),
        offset: Offset(row[at + 2]),
    }
}

fn store_at(row: &mut [u64], place: usize, at: &At, value: i64) {
    row[place] = at.time.0.cast_unsigned();
    row[place + 1] = u64::from(at.partition.0);
    row[place + 2] = at.offset.0;
    row[place + 3] = value.cast_unsigned();
}

/// The sample variance; `None` of a single value.
fn variance(column: &ColumnWords, words: &[u64]) -> Option<f64> {
    let values = words[column.values];
    let (sum, squares) = (load_sum(words, column.sum?), column.squares?);
    let scale = i32::try_from(column.scale).unwrap_or(0);
    (values > 1).then(|| {
        moments::variance(values, sum, &words[squares..squares + moments::WORDS]) / 10_f64.powi(2 * scale)
    })
}

#[allow(clippy::cast_precision_loss, reason = "an average is a float; both operands are exact until here")]
fn average(sum: i128, values: u64, scale: u32) -> f64 {
    sum as f64 / (values as f64 * 10f64.powi(i32::try_from(scale).unwrap_or(0)))
}

pub(crate) const fn zigzag(value: i128) -> u128 {
    ((value << 1) ^ (value >> 127)).cast_unsigned()
}

pub(crate) const fn unzigzag(bits: u128) -> i128 {
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

#[cfg(test)]
mod tests;
