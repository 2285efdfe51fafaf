//! What ingest counts.

use std::sync::{
    Arc,
    atomic::{AtomicI64, AtomicU64},
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use tidegate_core::{
    replay_request::ReplayTally,
    skew::Totals,
    source::LaneKind,
    time::{Offset, Partition, Watermark},
    tracker::Delay,
};

use crate::skew_metric::SkewHistogram;
use crate::timestamps::Counts;

/// The skew of so many partitions is shown, of further ones it is not: a histogram is a dozen series.
const SKEWS: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LaneLabel {
    lane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartitionLabel {
    partition: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TimestampLabel {
    partition: u32,
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

/// Counters and gauges of one ingest process.
#[derive(Clone, Debug)]
pub(crate) struct IngestMetrics {
    main: Counter,
    catch_up: Counter,
    positions: Family<PartitionLabel, Gauge<i64, AtomicI64>>,
    watermarks: Family<PartitionLabel, Gauge<f64, AtomicU64>>,
    delays: Family<PartitionLabel, Gauge<f64, AtomicU64>>,
    skews: Family<PartitionLabel, SkewHistogram>,
    demotions: Counter,
    replaced_clients: Counter,
    skipped: Family<PartitionLabel, Counter>,
    timestamps: Family<TimestampLabel, Counter>,
    waits_for_schema: Gauge,
    replayed: Family<OutcomeLabel, Counter>,
    total: Arc<AtomicU64>,
    total_skipped: Arc<AtomicU64>,
}

impl IngestMetrics {
    /// Metrics that `registry` shows.
    #[must_use]
    pub(crate) fn new(registry: &mut Registry) -> Self {
        let records = Family::<LaneLabel, Counter>::default();
        registry.register("tidegate_ingest_records", "Records read from the source", records.clone());
        let positions = Family::default();
        registry.register(
            "tidegate_ingest_position",
            "Offset behind the last record framed",
            positions.clone(),
        );
        let watermarks = Family::default();
        registry.register_with_unit(
            "tidegate_ingest_watermark_timestamp",
            "Watermark of the partition, event time since the Unix epoch",
            Unit::Seconds,
            watermarks.clone(),
        );
        let delays = Family::default();
        registry.register_with_unit(
            "tidegate_ingest_delay",
            "How far the watermark's strategy is behind the largest event time of the partition",
            Unit::Seconds,
            delays.clone(),
        );
        let skews = Family::default();
        registry.register_with_unit(
            "tidegate_ingest_skew",
            "Calibrated clock minus event time as records arrive, negative for what is ahead; of at most 64 partitions",
            Unit::Seconds,
            skews.clone(),
        );
        let demotions = Counter::default();
        registry.register(
            "tidegate_ingest_demotions",
            "Workers without credit that reading went on without",
            demotions.clone(),
        );
        let replaced_clients = Counter::default();
        registry.register(
            "tidegate_ingest_replaced_clients",
            "Kafka clients that read nothing although there was something to read, and were replaced",
            replaced_clients.clone(),
        );
        let skipped = Family::default();
        registry.register(
            "tidegate_ingest_skipped_offsets",
            "Offsets that were deleted before they were read, and passed over",
            skipped.clone(),
        );
        let timestamps = Family::default();
        registry.register(
            "tidegate_ingest_timestamps",
            "Records read, by whose clock their timestamp is of",
            timestamps.clone(),
        );
        let waits_for_schema = Gauge::default();
        registry.register(
            "tidegate_ingest_waits_for_schema",
            "1 while reading waits for a schema that the registry does not give",
            waits_for_schema.clone(),
        );
        let replayed = Family::<OutcomeLabel, Counter>::default();
        for outcome in ["applied", "expired", "known", "failed", "left_out", "deleted"] {
            drop(replayed.get_or_create(&OutcomeLabel { outcome }));
        }
        registry.register(
            "tidegate_ingest_replayed_entries",
            "Dead letters read in replays, by what became of them; those of a replay that was begun again anew",
            replayed.clone(),
        );
        let lane = |lane| records.get_or_create_owned(&LaneLabel { lane });
        Self {
            main: lane("main"),
            catch_up: lane("catch_up"),
            positions,
            watermarks,
            delays,
            skews,
            demotions,
            replaced_clients,
            skipped,
            timestamps,
            waits_for_schema,
            replayed,
            total: Arc::default(),
            total_skipped: Arc::default(),
        }
    }

    /// So many records were read.
    pub(crate) fn records(&self, lane: LaneKind, count: u64) {
        match lane {
            LaneKind::Main => self.main.inc_by(count),
            LaneKind::CatchUp => self.catch_up.inc_by(count),
        };
        self.total.fetch_add(count, std::sync::atomic::Ordering::Relaxed);
    }

    /// A worker had no credit, and reading goes on without it.
    pub(crate) fn demoted(&self) {
        self.demotions.inc();
    }

    /// A Kafka client stood still and was replaced.
    pub(crate) fn replaced_client(&self) {
        self.replaced_clients.inc();
    }

    /// So many offsets of a partition were deleted before they were read.
    pub(crate) fn skipped(&self, partition: Partition, offsets: u64) {
        self.skipped.get_or_create(&PartitionLabel { partition: partition.0 }).inc_by(offsets);
        self.total_skipped.fetch_add(offsets, std::sync::atomic::Ordering::Relaxed);
    }

    /// All offsets passed over by this process.
    #[must_use]
    pub(crate) fn total_skipped(&self) -> u64 {
        self.total_skipped.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// So many records more had timestamps of these types.
    pub(crate) fn timestamps(&self, partition: Partition, counts: Counts) {
        let Counts { create, append, none } = counts;
        for (kind, count) in [("create_time", create), ("log_append_time", append), ("none", none)] {
            if count > 0 {
                let label = TimestampLabel { partition: partition.0, kind };
                self.timestamps.get_or_create(&label).inc_by(count);
            }
        }
    }

    /// Whether reading waits for a schema.
    pub(crate) fn waits_for_schema(&self, waits: bool) {
        self.waits_for_schema.set(i64::from(waits));
    }

    /// What has become of dead letters since it was told last.
    pub(crate) fn replayed(&self, before: ReplayTally, now: ReplayTally) {
        let outcomes = [
            ("applied", before.applied, now.applied),
            ("expired", before.expired, now.expired),
            ("known", before.known, now.known),
            ("failed", before.failed, now.failed),
            ("left_out", before.left_out, now.left_out),
            ("deleted", before.deleted, now.deleted),
        ];
        for (outcome, before, now) in outcomes.into_iter().filter(|(_, before, now)| now > before) {
            self.replayed.get_or_create(&OutcomeLabel { outcome }).inc_by(now - before);
        }
    }

    /// All records read by this process.
    #[must_use]
    pub(crate) fn total(&self) -> u64 {
        self.total.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Where a partition is.
    pub(crate) fn partition(&self, partition: Partition, position: Offset, watermark: Watermark) {
        let label = PartitionLabel { partition: partition.0 };
        self.positions.get_or_create(&label).set(i64::try_from(position.0).unwrap_or(i64::MAX));
        if let Some(watermark) = watermark {
            self.watermarks.get_or_create(&label).set(watermark.seconds());
        }
    }

    /// What a partition's strategy and clock look like; `order` is its place among those read here.
    pub(crate) fn observed(&self, partition: Partition, order: usize, delay: Delay, skew: Totals) {
        let label = PartitionLabel { partition: partition.0 };
        #[allow(clippy::cast_precision_loss, reason = "seconds for people")]
        self.delays.get_or_create(&label).set(delay.in_force.millis() as f64 / 1_000.0);
        if order < SKEWS {
            self.skews.get_or_create(&label).set(skew);
        } else {
            self.skews.remove(&label);
        }
    }

    /// A partition is no longer read here.
    pub(crate) fn forget(&self, partition: Partition) {
        let label = PartitionLabel { partition: partition.0 };
        self.positions.remove(&label);
        self.watermarks.remove(&label);
        self.delays.remove(&label);
        self.skews.remove(&label);
        for kind in ["create_time", "log_append_time", "none"] {
            self.timestamps.remove(&TimestampLabel { partition: partition.0, kind });
        }
    }
}
