//! Skew as a metric: totals that the owner of the reading sets once a second, encoded as a histogram.

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric},
};
use tidegate_core::skew::{ENDS, Totals};

/// A histogram of skews in seconds; clones are the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct SkewHistogram(Arc<Mutex<Totals>>);

impl SkewHistogram {
    /// Replaces what it shows.
    pub(crate) fn set(&self, totals: Totals) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = totals;
    }
}

impl TypedMetric for SkewHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for SkewHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let totals = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
        let seconds = |millis: i64| millis as f64 / 1_000.0;
        // The encoder writes the largest number as infinity.
        let ends = ENDS.iter().map(|end| seconds(*end)).chain([f64::MAX]);
        let buckets: Vec<(f64, u64)> = ends.zip(totals.counts).collect();
        let count = totals.counts.iter().sum();
        encoder.encode_histogram::<NoLabelSet>(seconds(totals.sum), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}
