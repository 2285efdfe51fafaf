//! Accumulators that grow with what they have seen, beside the words of a row.
//!
//! Whatever the order of records and merges, the same records make the same summary, and the same bytes.

use super::quantiles::Quantiles;

/// Which summary an aggregate needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum SummaryKind {
    /// Bins to a doubling.
    Quantiles(u32),
}

/// A summary of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Summary {
    Quantiles(Quantiles),
}

impl SummaryKind {
    /// Without values.
    pub(crate) fn empty(&self) -> Summary {
        match self {
            Self::Quantiles(bins) => Summary::Quantiles(Quantiles::new(*bins)),
        }
    }
}

impl Summary {
    pub(crate) fn clear(&mut self) {
        match self {
            Self::Quantiles(quantiles) => quantiles.clear(),
        }
    }

    #[inline]
    pub(crate) fn add_value(&mut self, value: i64) {
        match self {
            Self::Quantiles(quantiles) => quantiles.add(value, 1),
        }
    }

    pub(crate) fn merge(&mut self, from: &Self) {
        match (self, from) {
            (Self::Quantiles(into), Self::Quantiles(from)) => into.merge(from),
        }
    }

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Self::Quantiles(quantiles) => quantiles.encode(out),
        }
    }

    /// Takes what [`Summary::encode`] wrote from the front of `bytes`; `None` when there is none.
    pub(crate) fn decode(&mut self, bytes: &mut &[u8]) -> Option<()> {
        match self {
            Self::Quantiles(quantiles) => quantiles.decode(bytes),
        }
    }

    /// Bytes of memory that it takes beside itself, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Self::Quantiles(quantiles) => quantiles.heap_bytes(),
        }
    }
}
