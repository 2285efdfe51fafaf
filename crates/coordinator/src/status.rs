//! The job as `tidegate status`, the terminal and the console show it.

use std::collections::BTreeMap;

use tidegate_core::assignment::{AssignmentMachine, Owners, Presence, ShardState};
use tidegate_core::coordinator::{SourceState, WatermarkMachine};
use tidegate_core::job::{OnQuiet, OperatorSpec};
use tidegate_core::time::{EventTime, Partition, Shard, Span, Tick};
use tidegate_job::Job;
use tidegate_proto::v1;

use crate::job_record::JobRecord;

/// Every word of [`partition_state`].
pub(crate) const PARTITION_STATES: &[&str] =
    &["unknown", "active", "idle", "blocked", "lagging", "unowned", "expired"];
/// Every word of [`worker_state`].
pub(crate) const WORKER_STATES: &[&str] = &["live", "lost", "draining"];

/// A partition's state in one word.
pub(crate) const fn partition_state(state: &SourceState) -> &'static str {
    match state {
        SourceState::Unknown => "unknown",
        SourceState::Active(_) => "active",
        SourceState::Idle(_) => "idle",
        SourceState::Blocked(_) => "blocked",
        SourceState::Lagging(_) => "lagging",
        SourceState::Unowned(_) => "unowned",
        SourceState::Expired(_) => "expired",
    }
}

/// A worker's state in one word.
pub(crate) const fn worker_state(presence: Presence) -> &'static str {
    match presence {
        Presence::Live => "live",
        Presence::Lost { .. } => "lost",
        Presence::Draining => "draining",
    }
}

/// What of the job file explains where a watermark stands.
pub(crate) fn job_facts(job: &Job) -> v1::JobFacts {
    let millis = |span: Span| u64::try_from(span.millis()).unwrap_or_default();
    let core = &job.core;
    let window = match core.operator {
        OperatorSpec::Windows(window) => Some(window),
        OperatorSpec::Sessions(_) | OperatorSpec::Reorder | OperatorSpec::Sliding(_) => None,
    };
    v1::JobFacts {
        source_topic: job.source.topic.clone(),
        sink_topic: job.sink.topic.clone(),
        dead_letter_topic: job.dead_letter.topic.clone(),
        shards: core.shards,
        window_size_ms: window.map(|window| millis(window.size)).unwrap_or_default(),
        window_step_ms: window.map(|window| millis(window.step)).unwrap_or_default(),
        window_offset_ms: window.map(|window| window.offset.millis()).unwrap_or_default(),
        allowed_lateness_ms: millis(core.allowed_lateness),
        idle_timeout_ms: millis(core.watermark.idle_timeout),
        on_quiet: match core.watermark.on_quiet {
            OnQuiet::Hold => "hold",
            OnQuiet::Advance => "advance",
            OnQuiet::Finish => "finish",
        }
        .to_owned(),
        max_future_skew_ms: core.watermark.max_future_skew.map(millis),
        max_drift_ms: job.max_drift.map(millis),
        timezone: window
            .and_then(|window| window.zone)
            .map(|zone| zone.name().to_owned())
            .unwrap_or_default(),
        replay_ttl_ms: job.dead_letter.replay_ttl.map(millis),
    }
}

/// What peers have told and the machines do not keep.
pub(crate) struct Totals<'a> {
    /// Now.
    pub(crate) now: Tick,
    /// The least of the ingests' clocks.
    pub(crate) clock: EventTime,
    /// By all ingests.
    pub(crate) records_read: u64,
    pub(crate) offsets_skipped: u64,
    /// The largest event time seen in each partition.
    pub(crate) newest: &'a BTreeMap<Partition, EventTime>,
    /// The types of the timestamps of the records read of each partition.
    pub(crate) timestamps: &'a BTreeMap<Partition, v1::TimestampCount>,
    /// The last stats of a worker, by its name.
    pub(crate) workers: &'a dyn Fn(&str) -> Option<v1::WorkerStats>,
    pub(crate) replays: Vec<v1::ReplayStatus>,
}

/// The whole picture.
pub(crate) fn job_status(
    name: &str,
    facts: &v1::JobFacts,
    record: &JobRecord,
    watermarks: &WatermarkMachine,
    assignment: &AssignmentMachine,
    totals: Totals<'_>,
) -> v1::JobStatus {
    let explained = watermarks.explain();
    let ago = |tick: Option<Tick>| tick.map(|tick| totals.now.since(tick));
    let partition = |status: &tidegate_core::coordinator::PartitionStatus| {
        let reading = status.state.reading();
        v1::PartitionStatus {
            partition: status.partition.0,
            state: partition_state(&status.state).to_owned(),
            watermark_ms: reading.and_then(|at| at.watermark).map(EventTime::millis),
            position: reading.map_or(0, |at| at.position.0),
            lag: status.lag,
            holds: status.holds,
            paused: status.paused,
            max_event_time_ms: totals.newest.get(&status.partition).map(|time| time.millis()),
            heard_ms: ago(status.heard),
            since_ms: ago(status.since),
            risen_ms: ago(status.risen),
            observed: Some((&status.observed).into()),
            timestamps: totals.timestamps.get(&status.partition).copied(),
        }
    };
    let worker = |worker: tidegate_core::assignment::WorkerStatus| v1::WorkerStatus {
        stats: (totals.workers)(&worker.worker.0),
        name: worker.worker.0,
        address: worker.address,
        state: worker_state(worker.presence).to_owned(),
    };
    v1::JobStatus {
        name: name.to_owned(),
        job: record.job.0.to_vec().into(),
        term: explained.term.0,
        announcement: watermarks.current().map(Into::into),
        partitions: explained.partitions.iter().map(partition).collect(),
        workers: assignment.workers().into_iter().map(worker).collect(),
        owners: owners(assignment.owners()).owners,
        records_read: totals.records_read,
        offsets_skipped: totals.offsets_skipped,
        facts: Some(facts.clone()),
        watermark_risen_ms: ago(explained.risen),
        watermark_pace: explained.pace,
        clock_ms: totals.clock.millis(),
        shards: assignment.shards().map(shard_status).collect(),
        replays: totals.replays,
    }
}

fn shard_status((shard, state): (Shard, &ShardState)) -> v1::ShardStatus {
    let (state, worker) = match state {
        ShardState::Unassigned => ("unassigned", None),
        ShardState::Owned { worker, .. } => ("owned", Some(worker)),
        ShardState::Releasing { worker, .. } => ("releasing", Some(worker)),
        ShardState::Held { worker } => ("held", Some(worker)),
    };
    let worker = worker.map(|worker| worker.0.clone()).unwrap_or_default();
    v1::ShardStatus { shard: shard.0, state: state.to_owned(), worker }
}

/// The owners as ingests are told of them.
pub(crate) fn owners(owners: &Owners) -> v1::Owners {
    let owner =
        |(shard, owner): (&tidegate_core::time::Shard, &tidegate_core::assignment::Owner)| v1::Owner {
            shard: shard.0,
            worker: owner.worker.0.clone(),
            address: owner.address.clone(),
            assignment: Some(owner.assignment.into()),
        };
    v1::Owners { version: owners.version, owners: owners.owners.iter().map(owner).collect() }
}
