//! What this worker has done since it started, and where its shards stand: for the coordinator's status and for `/metrics`.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering},
    },
};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
    },
    registry::{Registry, Unit},
};
use tidegate_core::{
    dead_letter::Reason,
    shard::{Commit, Pane, ShardMachine, Traffic},
    time::{Shard, Watermark},
};
use tidegate_proto::v1;

/// Seconds, from a fast log to one that is stuck.
const LATENCIES: [f64; 10] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 15.0];

/// Totals since the process started, and gauges; counted once a commit, never per record.
#[derive(Debug)]
pub(crate) struct Stats {
    applied: Counter,
    dead_letters: Family<ReasonLabel, Counter>,
    results: Family<PaneLabel, Counter>,
    windows_closed: Counter,
    commits: Counter,
    failed_commits: Counter,
    restores: Counter,
    replayed: Family<OutcomeLabel, Counter>,
    spans: Family<WayLabel, Counter>,
    latency: Histogram,
    open_rows: Gauge<i64, AtomicI64>,
    state_bytes: Gauge<i64, AtomicI64>,
    owned: Gauge<i64, AtomicI64>,
    spilled_bytes: Gauge<i64, AtomicI64>,
    runs: Gauge<i64, AtomicI64>,
    memory: u64,
    over_memory: AtomicBool,
    watermarks: Family<ShardLabel, Gauge<f64, AtomicU64>>,
    shards: Mutex<BTreeMap<Shard, Standing>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabel {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabel {
    to: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PaneLabel {
    pane: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ShardLabel {
    shard: u32,
}

/// Where a shard stands, as of a commit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Standing {
    /// W_s.
    pub(crate) watermark: Watermark,
    /// Of each partition, what was covered since the job began.
    covered: Vec<Covered>,
    /// Dead letters that were replayed since the job began: applied, and expired.
    replayed: (u64, u64),
    open_rows: u64,
    state_bytes: u64,
    spilled_bytes: u64,
    runs: u64,
}

/// Records covered: conservation says that these are all that were read (I5).
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Covered {
    /// Applied to windows.
    pub(crate) applied: u64,
    /// Dead-lettered.
    pub(crate) dead_lettered: u64,
}

impl Covered {
    fn add(&mut self, other: Self) {
        self.applied += other.applied;
        self.dead_lettered += other.dead_lettered;
    }
}

impl Standing {
    /// Where a shard stands.
    pub(crate) fn of(machine: &ShardMachine) -> Self {
        let state = machine.state();
        let (spans, spans_away) = machine.span_bytes();
        let inputs = state.inputs().iter();
        Self {
            watermark: state.watermark(),
            covered: inputs
                .map(|input| Covered { applied: input.applied, dead_lettered: input.dead })
                .collect(),
            replayed: state.answered().counts(),
            open_rows: state.open_rows(),
            state_bytes: (state.memory_bytes() + spans) as u64,
            spilled_bytes: state.runs().bytes() + spans_away as u64,
            runs: state.runs().parts().count() as u64,
        }
    }

    /// What was covered of all partitions.
    pub(crate) fn covered(&self) -> Covered {
        let mut sum = Covered::default();
        self.covered.iter().for_each(|covered| sum.add(*covered));
        sum
    }
}

/// What a commit adds, counted when it is planned and added when it is known.
#[derive(Clone, Debug, Default)]
pub(crate) struct CommitCounts {
    standing: Standing,
    results_early: u64,
    results_final: u64,
    results_late: u64,
    results_replay: u64,
    results_retracted: u64,
    windows_closed: u64,
    dead_letters: BTreeMap<Reason, u64>,
    spans: Traffic,
}

impl CommitCounts {
    /// Counts what is in `commit`, which was planned by `machine`, and the spans that left memory and came back there since the one before.
    pub(crate) fn of(commit: &Commit, machine: &ShardMachine, spans: Traffic) -> Self {
        let mut counts = Self { standing: Standing::of(machine), spans, ..Self::default() };
        let mut last_end = None;
        for row in &commit.results {
            match row.pane {
                Pane::Final => {
                    counts.results_final += 1;
                    counts.windows_closed += u64::from(last_end.replace(row.end) != Some(row.end));
                }
                Pane::Early => counts.results_early += 1,
                Pane::Late => counts.results_late += 1,
                Pane::Replay => counts.results_replay += 1,
                Pane::Retracted => counts.results_retracted += 1,
            }
        }
        counts.results_final += commit.reordered.len() as u64;
        for letter in &commit.dead_letters {
            *counts.dead_letters.entry(letter.reason).or_default() += 1;
        }
        counts
    }
}

impl Stats {
    /// Stats that `registry` shows; window state beyond `memory` bytes is warned of.
    pub(crate) fn new(registry: &mut Registry, memory: u64) -> Self {
        let stats = Self {
            applied: Counter::default(),
            dead_letters: Family::default(),
            results: Family::default(),
            windows_closed: Counter::default(),
            commits: Counter::default(),
            failed_commits: Counter::default(),
            restores: Counter::default(),
            replayed: Family::default(),
            spans: Family::default(),
            latency: Histogram::new(LATENCIES),
            open_rows: Gauge::default(),
            state_bytes: Gauge::default(),
            owned: Gauge::default(),
            spilled_bytes: Gauge::default(),
            runs: Gauge::default(),
            memory,
            over_memory: AtomicBool::new(false),
            watermarks: Family::default(),
            shards: Mutex::default(),
        };
        let counters = [
            ("tidegate_worker_applied", "Records applied to windows", &stats.applied),
            ("tidegate_worker_windows_closed", "Windows closed, per shard", &stats.windows_closed),
            ("tidegate_worker_commits", "Commits in the log", &stats.commits),
            ("tidegate_worker_failed_commits", "Commits that came to another end", &stats.failed_commits),
            ("tidegate_worker_restores", "Shards restored from the log", &stats.restores),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        for reason in Reason::ALL {
            drop(stats.dead_letters.get_or_create(&ReasonLabel { reason: reason.as_str() }));
        }
        for pane in [Pane::Final, Pane::Late, Pane::Replay] {
            drop(stats.results.get_or_create(&PaneLabel { pane: pane.as_str() }));
        }
        registry.register(
            "tidegate_worker_dead_letters",
            "Dead letters by reason",
            stats.dead_letters.clone(),
        );
        registry.register("tidegate_worker_results", "Results by pane", stats.results.clone());
        for outcome in ["applied", "expired"] {
            drop(stats.replayed.get_or_create(&OutcomeLabel { outcome }));
        }
        registry.register(
            "tidegate_worker_replayed",
            "Dead letters given back to their windows, by what became of them",
            stats.replayed.clone(),
        );
        for to in ["disk", "memory"] {
            drop(stats.spans.get_or_create(&WayLabel { to }));
        }
        registry.register(
            "tidegate_worker_spans_moved",
            "What keys have in their sliding windows, moved out of memory to the scratch file or back",
            stats.spans.clone(),
        );
        registry.register(
            "tidegate_worker_open_rows",
            "Open (slice, group key) rows",
            stats.open_rows.clone(),
        );
        registry.register_with_unit(
            "tidegate_worker_state",
            "Memory of the window state of all shards here, about",
            Unit::Bytes,
            stats.state_bytes.clone(),
        );
        registry.register_with_unit(
            "tidegate_worker_state_limit",
            "The job's state.memory",
            Unit::Bytes,
            ConstGauge::new(i64::try_from(memory).unwrap_or(i64::MAX)),
        );
        registry.register("tidegate_worker_shards", "Shards owned here", stats.owned.clone());
        registry.register_with_unit(
            "tidegate_worker_spilled",
            "Window state of all shards here that is in the local stores and scratch files instead of memory",
            Unit::Bytes,
            stats.spilled_bytes.clone(),
        );
        registry.register(
            "tidegate_worker_runs",
            "Parts of runs in which the spilled state lies, over all slices",
            stats.runs.clone(),
        );
        let latency = "Time from the plan of a commit to its known end";
        registry.register_with_unit(
            "tidegate_worker_commit_duration",
            latency,
            Unit::Seconds,
            stats.latency.clone(),
        );
        registry.register_with_unit(
            "tidegate_worker_watermark_timestamp",
            "Watermark of each shard, event time since the Unix epoch",
            Unit::Seconds,
            stats.watermarks.clone(),
        );
        stats
    }

    /// A shard was restored from the log.
    pub(crate) fn restored(&self, shard: Shard, standing: Standing) {
        self.restores.inc();
        self.stands(shard, standing);
    }

    /// A commit is in the log.
    pub(crate) fn committed(&self, shard: Shard, counts: &CommitCounts, seconds: f64) {
        let before = self.stands(shard, counts.standing.clone());
        self.commits.inc();
        self.latency.observe(seconds);
        let replayed_before = before.replayed;
        let (now, before) = (counts.standing.covered(), before.covered());
        self.applied.inc_by(now.applied.saturating_sub(before.applied));
        self.windows_closed.inc_by(counts.windows_closed);
        let ((applied, expired), before) = (counts.standing.replayed, replayed_before);
        for (outcome, count) in
            [("applied", applied.saturating_sub(before.0)), ("expired", expired.saturating_sub(before.1))]
        {
            self.replayed.get_or_create(&OutcomeLabel { outcome }).inc_by(count);
        }
        let panes = [
            (Pane::Early, counts.results_early),
            (Pane::Final, counts.results_final),
            (Pane::Late, counts.results_late),
            (Pane::Replay, counts.results_replay),
            (Pane::Retracted, counts.results_retracted),
        ];
        for (pane, count) in panes.into_iter().filter(|(_, count)| *count > 0) {
            self.results.get_or_create(&PaneLabel { pane: pane.as_str() }).inc_by(count);
        }
        for (to, count) in [("disk", counts.spans.left), ("memory", counts.spans.back)] {
            self.spans.get_or_create(&WayLabel { to }).inc_by(count);
        }
        for (reason, count) in &counts.dead_letters {
            self.dead_letters.get_or_create(&ReasonLabel { reason: reason.as_str() }).inc_by(*count);
        }
    }

    /// A commit came to another end.
    pub(crate) fn failed(&self) {
        self.failed_commits.inc();
    }

    /// The shard is no longer here.
    pub(crate) fn left(&self, shard: Shard) {
        let mut shards = self.shards();
        shards.remove(&shard);
        self.weigh(&shards);
        self.watermarks.remove(&ShardLabel { shard: shard.0 });
    }

    /// Where a shard stands, if it is here.
    pub(crate) fn standing(&self, shard: Shard) -> Standing {
        self.shards().get(&shard).cloned().unwrap_or_default()
    }

    /// The totals, as the coordinator is told.
    pub(crate) fn to_wire(&self, shards: Vec<v1::OwnedShard>) -> v1::WorkerStats {
        let results = |pane: Pane| self.results.get_or_create(&PaneLabel { pane: pane.as_str() }).get();
        let dead_letters = Reason::ALL.into_iter().map(|reason| {
            let count = self.dead_letters.get_or_create(&ReasonLabel { reason: reason.as_str() }).get();
            (reason.as_str().to_owned(), count)
        });
        v1::WorkerStats {
            applied: self.applied.get(),
            dead_letters: dead_letters.filter(|(_, count)| *count > 0).collect(),
            results_final: results(Pane::Final),
            results_late: results(Pane::Late),
            windows_closed: self.windows_closed.get(),
            commits: self.commits.get(),
            open_rows: u64::try_from(self.open_rows.get()).unwrap_or_default(),
            shards,
            partitions: self.partitions(),
        }
    }

    fn partitions(&self) -> Vec<v1::PartitionCount> {
        let mut sums: Vec<Covered> = Vec::new();
        for standing in self.shards().values() {
            sums.resize(sums.len().max(standing.covered.len()), Covered::default());
            for (sum, covered) in sums.iter_mut().zip(&standing.covered) {
                sum.add(*covered);
            }
        }
        let counts = (0u32..).zip(sums).map(|(partition, Covered { applied, dead_lettered })| {
            v1::PartitionCount { partition, applied, dead_lettered }
        });
        counts.collect()
    }

    fn stands(&self, shard: Shard, standing: Standing) -> Standing {
        if let Some(watermark) = standing.watermark {
            self.watermarks.get_or_create(&ShardLabel { shard: shard.0 }).set(watermark.seconds());
        }
        let mut shards = self.shards();
        let before = shards.insert(shard, standing);
        self.weigh(&shards);
        before.unwrap_or_default()
    }

    /// Sums up the state that is here, and says when it grows beyond the job's `state.memory`, and when it is below again.
    fn weigh(&self, shards: &BTreeMap<Shard, Standing>) {
        let sum = |of: fn(&Standing) -> u64| shards.values().map(of).sum::<u64>();
        let (rows, bytes) = (sum(|standing| standing.open_rows), sum(|standing| standing.state_bytes));
        let (spilled, runs) = (sum(|standing| standing.spilled_bytes), sum(|standing| standing.runs));
        let gauges = [
            (&self.open_rows, rows),
            (&self.state_bytes, bytes),
            (&self.spilled_bytes, spilled),
            (&self.runs, runs),
            (&self.owned, shards.len() as u64),
        ];
        for (gauge, value) in gauges {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        // Rows leave memory at the next commit beyond their share: only twice as much says that they cannot.
        let over = bytes > self.memory.saturating_mul(2);
        if self.over_memory.swap(over, Ordering::Relaxed) == over {
            return;
        }
        let memory = self.memory;
        if over {
            tracing::warn!(
                rows,
                bytes,
                memory,
                "window state is beyond twice state.memory and cannot be spilled: is there room for the local store?"
            );
        } else {
            tracing::info!(rows, bytes, memory, "window state is within state.memory again");
        }
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<Shard, Standing>> {
        self.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
