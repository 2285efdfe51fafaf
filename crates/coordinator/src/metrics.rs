//! What the coordinator counts, for Prometheus.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use tidegate_core::coordinator::PartitionStatus;
use tidegate_core::time::Watermark;

use crate::replays::STATES as REPLAY_STATES;
use crate::status::{PARTITION_STATES, WORKER_STATES, partition_state};

/// Every reason for which a report is ignored.
const IGNORED: [&str; 2] = ["stale", "unknown_partition"];

/// The state of a partition or a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct State {
    state: &'static str,
}

/// A partition of the source topic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
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
    watermark: Family<NoLabels, Gauge<f64, AtomicU64>>,
    partitions: Family<State, Gauge>,
    partition_lag: Family<PartitionLabel, Gauge<u64, AtomicU64>>,
    partition_holds: Family<PartitionLabel, Gauge>,
    workers: Family<State, Gauge>,
    pub(crate) ingests: Gauge,
    pub(crate) unowned_shards: Gauge,
    lag: Gauge<u64, AtomicU64>,
    pub(crate) announcements: Counter,
    pub(crate) reports: Counter,
    ignored_reports: Family<Reason, Counter>,
    pub(crate) fences: Counter,
    pub(crate) failed_fences: Counter,
    pub(crate) closed_streams: Counter,
    pub(crate) source_errors: Counter,
    replays: Family<State, Gauge>,
    pub(crate) replays_done: Counter,
}

impl Metrics {
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("tidegate_coordinator");
        registry.register("leading", "1 while this coordinator leads, else 0", self.leading.clone());
        registry.register("term", "Offset of this coordinator's last leader record", self.term.clone());
        registry.register_with_unit(
            "watermark_timestamp",
            "The global watermark, event time since the Unix epoch",
            Unit::Seconds,
            self.watermark.clone(),
        );
        registry.register("partitions", "Source partitions by state", self.partitions.clone());
        registry.register("workers", "Workers by state", self.workers.clone());
        registry.register("ingests", "Connected ingests", self.ingests.clone());
        registry.register("unowned_shards", "Shards without an owner", self.unowned_shards.clone());
        registry.register("source_lag_offsets", "Offsets not read yet, all partitions", self.lag.clone());
        registry.register(
            "partition_lag_offsets",
            "Offsets of the partition not read yet, as last reported",
            self.partition_lag.clone(),
        );
        registry.register(
            "partition_holds",
            "1 where the global watermark waits for the partition, else 0",
            self.partition_holds.clone(),
        );
        registry.register("announcements", "Announcements made", self.announcements.clone());
        registry.register("reports", "Reports of partitions taken", self.reports.clone());
        for reason in IGNORED {
            drop(self.ignored_reports.get_or_create(&Reason { reason }));
        }
        registry.register("ignored_reports", "Reports ignored, by reason", self.ignored_reports.clone());
        registry.register("fences", "Fences of lost workers' shards", self.fences.clone());
        registry.register("failed_fences", "Fences that were given up", self.failed_fences.clone());
        registry.register("closed_streams", "Streams closed by us", self.closed_streams.clone());
        registry.register(
            "source_errors",
            "Refreshes that found the source topic deleted, created anew or out of reach",
            self.source_errors.clone(),
        );
        registry.register(
            "replays",
            "Replays of dead letters by state, those that have ended as far as they are remembered",
            self.replays.clone(),
        );
        registry.register(
            "replays_done",
            "Replays of dead letters that were done",
            self.replays_done.clone(),
        );
    }

    pub(crate) fn watermark(&self, watermark: Watermark) {
        if let Some(watermark) = watermark {
            self.watermark.get_or_create(&NoLabels).set(watermark.seconds());
        }
    }

    /// What only the one that leads knows goes.
    pub(crate) fn not_leading(&self) {
        self.leading.set(0);
        self.watermark.clear();
        self.partition_lag.clear();
        self.partition_holds.clear();
        self.partitions(&[]);
        self.worker_states(std::iter::empty());
        self.replay_states(std::iter::empty());
        self.ingests.set(0);
        self.unowned_shards.set(0);
    }

    pub(crate) fn ignored(&self, reason: &'static str) {
        self.ignored_reports.get_or_create(&Reason { reason }).inc();
    }

    /// Where the source's partitions stand.
    pub(crate) fn partitions(&self, partitions: &[PartitionStatus]) {
        let states = partitions.iter().map(|status| partition_state(&status.state));
        count(&self.partitions, PARTITION_STATES, states);
        self.lag.set(partitions.iter().map(|status| status.lag).fold(0, u64::saturating_add));
        for status in partitions {
            let label = PartitionLabel { partition: status.partition.0 };
            self.partition_lag.get_or_create(&label).set(status.lag);
            self.partition_holds.get_or_create(&label).set(i64::from(status.holds));
        }
    }

    pub(crate) fn worker_states<'a>(&self, states: impl Iterator<Item = &'a str> + Clone) {
        count(&self.workers, WORKER_STATES, states);
    }

    pub(crate) fn replay_states<'a>(&self, states: impl Iterator<Item = &'a str> + Clone) {
        count(&self.replays, REPLAY_STATES, states);
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
            text.lines()
                .find(|line| line.starts_with("tidegate_coordinator_watermark_timestamp_seconds"))
                .map(str::to_owned)
        };
        assert_eq!(shown(), None);
        metrics.watermark(None);
        assert_eq!(shown(), None);
        metrics.watermark(Some(EventTime(-5)));
        assert_eq!(shown().as_deref(), Some("tidegate_coordinator_watermark_timestamp_seconds{} -0.005"));
        metrics.not_leading();
        assert_eq!(shown(), None);
    }
}
