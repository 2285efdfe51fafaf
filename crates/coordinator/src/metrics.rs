//! What the coordinator counts, for Prometheus.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::EncodeLabelSet;
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

/// Why a report was ignored.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: &'static str,
}

/// The figures; clones count into the same.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    pub(crate) term: Gauge<u64, AtomicU64>,
    watermark: Gauge,
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
        registry.register("term", "Offset of this coordinator's leader record", self.term.clone());
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
            self.watermark.set(watermark.millis());
        }
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
