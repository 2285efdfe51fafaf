//! Accumulators that grow with what they have seen, beside the words of a row.
//!
//! Whatever the order of records and merges, the same records make the same summary, and the same bytes (decision 0021).
//!
//! Values as they are come in one form: text as a `"` and its characters, a number or `true` and `false` as they are written.

use super::{
    At, Value,
    collect::{Collect, End},
    distinct::Distinct,
    quantiles::Quantiles,
    top_k::TopK,
};
use crate::job::AggregateFn;

/// Which summary an aggregate needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SummaryKind {
    /// Bins to a doubling.
    Quantiles(u32),
    Distinct,
    TopK,
    Collect {
        end: End,
        limit: u32,
    },
}

/// A summary of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    Quantiles(Quantiles),
    Distinct(Distinct),
    TopK(Box<TopK>),
    Collect(Collect),
}

impl SummaryKind {
    /// Without values.
    pub(crate) fn empty(&self) -> Summary {
        match self {
            Self::Quantiles(bins) => Summary::Quantiles(Quantiles::new(*bins)),
            Self::Distinct => Summary::Distinct(Distinct::new()),
            Self::TopK => Summary::TopK(Box::default()),
            Self::Collect { end, limit } => Summary::Collect(Collect::new(*end, *limit as usize)),
        }
    }
}

impl Summary {
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Quantiles(quantiles) => quantiles.clear(),
            Self::Distinct(distinct) => *distinct = Distinct::new(),
            Self::TopK(top) => top.clear(),
            Self::Collect(collect) => collect.clear(),
        }
    }

    /// Takes a number in units of 10^−scale.
    #[inline]
    pub(crate) fn add_value(&mut self, value: i64, scale: u32, at: &At) {
        match self {
            Self::Quantiles(quantiles) => quantiles.add(value, 1),
            Self::Distinct(distinct) => distinct.add(&value.to_be_bytes()),
            Self::TopK(_) | Self::Collect(_) => {
                let text = Value::Decimal { units: i128::from(value), scale }.to_string();
                self.add_text(text.as_bytes(), at);
            }
        }
    }

    /// Takes a value as it is.
    pub(crate) fn add_text(&mut self, text: &[u8], at: &At) {
        match self {
            Self::Quantiles(_) => {}
            Self::Distinct(distinct) => distinct.add(text),
            Self::TopK(top) => top.add(text, at),
            Self::Collect(collect) => collect.add(text, at),
        }
    }

    /// Adds the values of a summary of the same kind.
    pub(crate) fn merge(&mut self, from: &Self) {
        match (self, from) {
            (Self::Quantiles(into), Self::Quantiles(from)) => into.merge(from),
            (Self::Distinct(into), Self::Distinct(from)) => into.merge(from),
            (Self::TopK(into), Self::TopK(from)) => into.merge(from),
            (Self::Collect(into), Self::Collect(from)) => into.merge(from),
            (Self::Quantiles(_) | Self::Distinct(_) | Self::TopK(_) | Self::Collect(_), _) => {
                debug_assert!(false, "rows of one layout have the same summaries");
            }
        }
    }

    /// What `function` says of the values; not for quantiles.
    pub(crate) fn result(&self, function: &AggregateFn) -> Value {
        match (self, function) {
            (Self::Distinct(distinct), _) => Value::Count(distinct.count()),
            (Self::TopK(top), AggregateFn::TopK { k }) => {
                let top = top.top(*k as usize).into_iter();
                Value::Counted(top.map(|(value, count)| (Value::as_is(value), count)).collect())
            }
            (Self::Collect(collect), AggregateFn::Collect { .. }) => {
                Value::List(collect.values().map(Value::as_is).collect())
            }
            (Self::Collect(collect), _) => collect.values().next().map_or(Value::Null, Value::as_is),
            (Self::Quantiles(_) | Self::TopK(_), _) => Value::Null,
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Quantiles(quantiles) => quantiles.encode(out),
            Self::Distinct(distinct) => distinct.encode(out),
            Self::TopK(top) => top.encode(out),
            Self::Collect(collect) => collect.encode(out),
        }
    }

    /// Takes what [`Summary::encode`] wrote from the front of `bytes`; `None` when there is none.
    pub(crate) fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        match self {
            Self::Quantiles(quantiles) => quantiles.decode(bytes),
            Self::Distinct(distinct) => distinct.decode(bytes),
            Self::TopK(top) => top.decode(bytes),
            Self::Collect(collect) => collect.decode(bytes),
        }
    }

    /// Bytes of memory that it takes beside itself, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Quantiles(quantiles) => quantiles.heap_bytes(),
            Self::Distinct(distinct) => distinct.heap_bytes(),
            Self::TopK(top) => top.heap_bytes(),
            Self::Collect(collect) => collect.heap_bytes(),
        }
    }
}
