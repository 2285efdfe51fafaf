//! What the coordinator counts, for Prometheus.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tidegate_core::time::Watermark;

use crate::status::{PARTITION_STATES, WORKER_STATES};

/// The state of a partition or a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct State {
    state: &'static str,
}

/// None: of a figure that is not always there.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct NoLabels;

impl EncodeLabelSet for NoLabels {
    fn encode(&self, _: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        Ok(())
    }
}

/// Why a report was ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// The figures; clones count into the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) leading: Gauge,
    pub(crate) term: Gauge<u64, AtomicU64>,
    watermark: Family<NoLabels, Gauge>,
    partitions: Family<State, Gauge>,
    workers: Family<State, Gauge>,
    pub(crate) ingests: Gauge,
    pub(crate) unowned_shards: Gauge,
    pub(crate) lag: Gauge<u64, AtomicU64>,
    pub(crate) announcements: Counter,
    pub(crate) reports: Counter,
    ignored_reports: Family<Reason, Counter>,
    pub(crate) fences: Counter,
    pub(crate) failed_fences: Counter,
    pub(crate) closed_streams: Counter,
    pub(crate) source_errors: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tidegate_coordinator");
        registry.register("leading", "1 while this coordinator leads, else 0", self.leading.clone());
        registry.register("term", "Offset of this coordinator's last leader record", self.term.clone());
        registry.register("watermark_ms", "The global watermark, ms of event time", self.watermark.clone());
        registry.register("partitions", "Source partitions by state", self.partitions.clone());
        registry.register("workers", "Workers by state", self.workers.clone());
        registry.register("ingests", "Connected ingests", self.ingests.clone());
        registry.register("unowned_shards", "Shards without an owner", self.unowned_shards.clone());
        registry.register("source_lag", "Offsets not read yet, all partitions", self.lag.clone());
        registry.register("announcements", "Announcements made", self.announcements.clone());
        registry.register("reports", "Reports of partitions taken", self.reports.clone());
        registry.register("ignored_reports", "Reports ignored, by reason", self.ignored_reports.clone());
        registry.register("fences", "Fences of lost workers' shards", self.fences.clone());
        registry.register("failed_fences", "Fences that were given up", self.failed_fences.clone());
        registry.register("closed_streams", "Streams closed by us", self.closed_streams.clone());
        registry.register(
            "source_errors",
            "Refreshes that found the source topic deleted, created anew or out of reach",
            self.source_errors.clone(),
        );
    }

    pub(crate) fn watermark(&self, watermark: Watermark) {
        if let Some(watermark) = watermark {
            self.watermark.get_or_create(&NoLabels).set(watermark.millis());
        }
    }

    /// What only the one that leads knows goes.
    pub(crate) fn not_leading(&self) {
        self.leading.set(0);
        self.watermark.clear();
        self.partition_states(std::iter::empty());
        self.worker_states(std::iter::empty());
        self.ingests.set(0);
        self.unowned_shards.set(0);
        self.lag.set(0);
    }

    pub(crate) fn ignored(&self, reason: &'static str) {
        self.ignored_reports.get_or_create(&Reason { reason }).inc();
    }

    pub(crate) fn partition_states<'a>(&self, states: impl Iterator<Item = &'a str> + Clone) {
        count(&self.partitions, PARTITION_STATES, states);
    }

    pub(crate) fn worker_states<'a>(&self, states: impl Iterator<Item = &'a str> + Clone) {
        count(&self.workers, WORKER_STATES, states);
    }
}

fn count<'a>(
    family: &Family<State, Gauge>,
    known: &[&'static str],
    states: impl Iterator<Item = &'a str> + Clone,
) {
    for state in known {
        let number = states.clone().filter(|found| found == state).count();
        family.get_or_create(&State { state }).set(i64::try_from(number).unwrap_or(i64::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::time::EventTime;

    #[test]
    fn the_watermark_is_shown_only_while_there_is_one() {
        let (metrics, mut registry) = (Metrics::default(), Registry::default());
        metrics.register(&mut registry);
        let shown = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text.lines().find(|line| line.starts_with("tidegate_coordinator_watermark_ms")).map(str::to_owned)
        };
        assert_eq!(shown(), None);
        metrics.watermark(None);
        assert_eq!(shown(), None);
        metrics.watermark(Some(EventTime(-5)));
        assert_eq!(shown().as_deref(), Some("tidegate_coordinator_watermark_ms{} -5"));
        metrics.not_leading();
        assert_eq!(shown(), None);
    }
}
