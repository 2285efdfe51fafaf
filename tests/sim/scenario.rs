//! What a seed stands for: the job, the sizes and delays of the world, and which faults befall it.

use std::sync::Arc;

use tidegate_core::{
    assignment::AssignmentConfig,
    coordinator::WatermarkConfig,
    credit::Terms,
    dead_letter::Reason,
    job::{
        AggregateFn, AggregateSpec, ColumnSpec, JobSpec, OnFuture, OnQuiet, OperatorSpec, PerMillion, Ranks,
        SessionSpec, SlidingSpec, WatermarkSpec, WatermarkStrategy, WindowSpec,
    },
    pacing::Pace,
    shard::Limits,
    source::Timing,
    time::Span,
};

use crate::{dice::Dice, replay::Request};

/// Times are in ms of the world's clock.
#[derive(Debug)]
pub struct Scenario {
    pub job: Arc<JobSpec>,
    /// Every record lies within the delay, no partition falls silent before its end: the answer is that of a batch.
    pub exact: bool,
    /// All records are there at the beginning.
    pub backlog: bool,
    /// Event time is about the time of arrival.
    pub tied: bool,
    /// Some records wait behind an open source transaction.
    pub transactions: bool,
    pub partitions: u32,
    pub new_partitions: u32,
    /// At most so many in each partition.
    pub records: u64,
    pub keys: u64,
    pub appends_until: u64,
    pub ingests: u32,
    pub workers: u32,
    pub limits: Limits,
    /// Bytes of rows that a shard may have in memory.
    pub memory: Option<usize>,
    /// How often there are early results.
    pub early: Option<Span>,
    pub pace: Pace,
    pub timing: Timing,
    pub watermark: WatermarkConfig,
    pub assignment: AssignmentConfig,
    /// How often the coordinator looks at the broker's metadata.
    pub refresh: u64,
    /// How often each process looks around.
    pub tick: u64,
    /// Messages take at most this long.
    pub delay: u64,
    /// Records in a batch of a reader.
    pub batch: usize,
    /// What catches up in the first partition takes so much longer for a batch.
    pub slow_catch_up: u64,
    /// How much may be under way to a worker, and when it is parked.
    pub credit: Terms,
    /// Frames lose the payloads that they bring unasked, as if ingest had not seen that they may be needed.
    pub bare: bool,
    /// Partitions of the dead-letter topic.
    pub dead_partitions: u32,
    /// When dead letters are asked for back, and which. If any, then all of them once more at the end.
    pub replays: Vec<(u64, Request)>,
    /// Bytes in a record of the changelog.
    pub chunk: usize,
    /// The local store is written after so many commits.
    pub store_every: u64,
    pub faults: Faults,
    /// Faults end here.
    pub chaos_until: u64,
}

/// Which faults there are, and how often; chances are per mille.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// Single faults spread over the chaos.
    pub count: u64,
    pub kinds: Vec<FaultKind>,
    pub commit_request_lost: u64,
    pub commit_answer_lost: u64,
    pub commit_aborted: u64,
    pub commit_delayed: u64,
    pub admin_lost: u64,
    pub admin_slow: u64,
    pub store_damaged: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    CrashIngest,
    CrashWorker,
    CrashCoordinator,
    SecondCoordinator,
    PauseIngest,
    PauseWorker,
    PauseCoordinator,
    SlowWorker,
    CutLink,
    CutWorkerOff,
    CutIngestOff,
    Rebalance,
    RecreateGroup,
    AddWorker,
    DrainWorker,
    AddIngest,
}

impl FaultKind {
    pub const ALL: [Self; 16] = [
        Self::CrashIngest,
        Self::CrashWorker,
        Self::CrashCoordinator,
        Self::SecondCoordinator,
        Self::PauseIngest,
        Self::PauseWorker,
        Self::PauseCoordinator,
        Self::SlowWorker,
        Self::CutLink,
        Self::CutWorkerOff,
        Self::CutIngestOff,
        Self::Rebalance,
        Self::RecreateGroup,
        Self::AddWorker,
        Self::DrainWorker,
        Self::AddIngest,
    ];
}

impl Scenario {
    pub fn generate(dice: &mut Dice) -> Self {
        let exact = dice.chance(500);
        let backlog = dice.chance(250);
        let refresh = dice.within(60, 150);
        let job = job(dice, refresh);
        // What is added after everything was quiet comes too late for a job that has finished.
        let finishes = exact && job.watermark.on_quiet == OnQuiet::Finish;
        let new_partitions = if backlog || finishes { 0 } else { dice.within(0, 2).saturating_sub(1) as u32 };
        // `adaptive` needs a sample before it leaves its longest delay.
        let adaptive = matches!(job.watermark.strategy, WatermarkStrategy::Adaptive { .. });
        let learns = adaptive && dice.chance(200);
        let tied = new_partitions > 0 || dice.chance(500);
        let report_interval = dice.within(60, 150);
        let max_drift = dice.chance(200).then(|| Span(dice.signed(100, 2_000)));
        let watermark = WatermarkConfig {
            max_drift,
            report_interval_ms: report_interval,
            coalesce_ms: dice.within(0, 20),
            ..WatermarkConfig::of(&job)
        };
        let appends_until = dice.within(500, 4_000);
        Self {
            job: Arc::new(job),
            exact,
            backlog,
            tied,
            transactions: dice.chance(300),
            partitions: dice.within(1, 5) as u32,
            new_partitions,
            records: if learns { 600 } else { *dice.pick(&[8, 30, 60]) },
            keys: dice.within(1, 12),
            appends_until,
            ingests: dice.within(1, 2) as u32,
            workers: dice.within(1, 3) as u32,
            limits: Limits {
                commit_bytes: *dice.pick(&[400, 1_500, 1 << 20]),
                snapshot_log_bytes: *dice.pick(&[300, 3_000, 1 << 20]),
                snapshot_step: *dice.pick(&[20, 100, 64 << 10]),
                chunk_bytes: *dice.pick(&[1, 60, 4_000]),
                looks: 3,
            },
            memory: *dice.pick(&[None, Some(0), Some(700), Some(2_500)]),
            pace: Pace {
                commit_interval: dice.within(10, 100),
                min_interval: dice.within(1, 25),
                heartbeat: dice.within(100, 600),
            },
            timing: Timing { start_grace: dice.within(100, 500), report_interval, max_drift },
            watermark,
            assignment: AssignmentConfig {
                grace_ms: dice.within(100, 400),
                settle_ms: dice.within(20, 100),
                return_timeout_ms: dice.within(100, 900),
                moves_at_once: *dice.pick(&[1, 2, 100]),
            },
            refresh,
            tick: dice.within(5, 30),
            delay: *dice.pick(&[3, 20, 80]),
            batch: dice.within(1, 20) as usize,
            slow_catch_up: 0,
            credit: Terms {
                window: *dice.pick(&[700, 4_000, 100_000]),
                patience: *dice.pick(&[10, 60, 400]),
                recent: 3_000,
                first_wait: 30,
                longest_wait: 500,
            },
            bare: dice.chance(200),
            dead_partitions: dice.within(1, 3) as u32,
            replays: replays(dice),
            chunk: *dice.pick(&[80, 300, 4_000]),
            store_every: dice.within(1, 6),
            faults: faults(dice),
            chaos_until: dice.within(1_000, 4_000),
            early: dice.chance(250).then(|| Span(dice.signed(1, 400))),
        }
    }

    /// A small world without faults, for directed schedules.
    pub fn plain() -> Self {
        let job = JobSpec {
            shards: 4,
            watermark: WatermarkSpec { idle_timeout: Span(400), ..WatermarkSpec::bounded(Span(20)) },
            columns: vec![ColumnSpec::number("/v", 0)],
            aggregates: vec![AggregateSpec::new("sum", AggregateFn::Sum, Some(0))],
            ..JobSpec::of(OperatorSpec::hopping(Span(200), Span(100)))
        };
        Self {
            watermark: WatermarkConfig { report_interval_ms: 100, ..WatermarkConfig::of(&job) },
            job: Arc::new(job),
            exact: true,
            backlog: false,
            tied: true,
            transactions: false,
            partitions: 3,
            new_partitions: 0,
            records: 60,
            keys: 12,
            appends_until: 3_000,
            ingests: 1,
            workers: 2,
            limits: Limits { commit_bytes: 1 << 20, snapshot_log_bytes: 1 << 20, ..Limits::default() },
            memory: None,
            early: None,
            pace: Pace { commit_interval: 50, min_interval: 10, heartbeat: 200 },
            timing: Timing { start_grace: 300, report_interval: 100, max_drift: None },
            assignment: AssignmentConfig {
                grace_ms: 200,
                settle_ms: 50,
                return_timeout_ms: 500,
                moves_at_once: 1,
            },
            refresh: 100,
            tick: 10,
            delay: 5,
            batch: 10,
            slow_catch_up: 0,
            credit: Terms::of_window(100_000),
            bare: false,
            dead_partitions: 2,
            replays: Vec::new(),
            chunk: 4_000,
            store_every: 3,
            faults: Faults::default(),
            chaos_until: 4_000,
        }
    }

    /// The longest time without a record in a partition that has not ended.
    pub fn silence(&self, new: bool) -> u64 {
        let idle = self.job.watermark.idle_timeout.0 as u64;
        if self.exact {
            // A new partition is not written to before it can have been discovered.
            idle.saturating_sub(if new { self.refresh + 60 } else { 1 })
        } else {
            3 * idle
        }
    }
}

fn job(dice: &mut Dice, refresh: u64) -> JobSpec {
    let size = dice.signed(10, 900);
    let step = match dice.within(0, 2) {
        0 => size,
        1 => (size / dice.signed(2, 5)).max(1),
        _ => dice.signed((size / 6).max(1), size),
    };
    let columns: Vec<_> = (0..dice.within(0, 2))
        .map(|at| ColumnSpec::number(&format!("/v{at}"), dice.within(0, 2) as u32))
        .collect();
    let mut aggregates = vec![AggregateSpec::new("n", AggregateFn::Count, None)];
    let quantile =
        AggregateFn::Quantile { accuracy: PerMillion(10_000), ranks: Ranks::One(PerMillion(900_000)) };
    let functions = [
        AggregateFn::Count,
        AggregateFn::Sum,
        AggregateFn::Min,
        AggregateFn::Max,
        AggregateFn::Avg,
        AggregateFn::Variance,
        AggregateFn::Stddev,
        AggregateFn::First,
        AggregateFn::Last,
        quantile,
        AggregateFn::Distinct,
        AggregateFn::TopK { k: 2 },
        AggregateFn::Collect { limit: 3 },
    ];
    for column in 0..columns.len() {
        for function in functions.clone() {
            if dice.chance(300) {
                aggregates.push(AggregateSpec::new("a", function, Some(column)));
            }
        }
    }
    let fixed =
        WindowSpec { size: Span(size), step: Span(step), offset: Span(dice.signed(-50, 50)), zone: None };
    let mut job = JobSpec {
        shards: dice.within(1, 6) as u32,
        watermark: WatermarkSpec {
            strategy: strategy(dice),
            idle_timeout: Span(dice.signed(refresh as i64 + 80, 600)),
            on_quiet: *dice.pick(&[OnQuiet::Hold, OnQuiet::Finish, OnQuiet::Finish, OnQuiet::Advance]),
            max_future_skew: None,
            on_future: OnFuture::DeadLetter,
            reanchor_after: dice.chance(300).then_some(3),
        },
        operator: OperatorSpec::Windows(fixed),
        allowed_lateness: Span(*dice.pick(&[0, 0, 30, 400])),
        replay_ttl: Span(*dice.pick(&[0, 50, 500, 5_000])),
        columns,
        aggregates,
    };
    if dice.chance(300) {
        let gap = dice.signed(5, 300);
        let cut = dice.chance(300).then(|| Span(dice.signed(gap, 4 * gap)));
        job.operator = OperatorSpec::Sessions(SessionSpec { gap: Span(gap), cut });
    } else if dice.chance(200) {
        job = reordering(job);
    } else if dice.chance(200) {
        job.operator = OperatorSpec::Sliding(SlidingSpec { size: Span(size) });
        job.allowed_lateness = Span(0);
    }
    job
}

/// The job with its records reordered in place of what it computes.
pub fn reordering(job: JobSpec) -> JobSpec {
    JobSpec {
        operator: OperatorSpec::Reorder,
        allowed_lateness: Span(0),
        columns: Vec::new(),
        aggregates: Vec::new(),
        ..job
    }
}

fn strategy(dice: &mut Dice) -> WatermarkStrategy {
    let delay = Span(*dice.pick(&[0, 20, 150]));
    match dice.within(0, 9) {
        0..=4 => WatermarkStrategy::Bounded { delay },
        5..=7 => WatermarkStrategy::SlidingMin { span: Span(dice.signed(1, 300)), delay },
        _ => WatermarkStrategy::Adaptive {
            late: PerMillion(*dice.pick(&[10_000, 200_000])),
            min_delay: delay,
            max_delay: Span(delay.0 + dice.signed(1, 300)),
        },
    }
}

fn replays(dice: &mut Dice) -> Vec<(u64, Request)> {
    if dice.chance(600) {
        return Vec::new();
    }
    let request = |dice: &mut Dice| Request {
        reasons: Reason::ALL.into_iter().filter(|_| dice.chance(700)).collect(),
        every: *dice.pick(&[1, 1, 2, 3]),
        mends: dice.chance(500),
    };
    (0..dice.within(1, 4)).map(|_| (dice.within(300, 4_000), request(dice))).collect()
}

fn faults(dice: &mut Dice) -> Faults {
    if dice.chance(100) {
        return Faults::default();
    }
    let kinds = FaultKind::ALL.into_iter().filter(|_| dice.chance(400)).collect();
    let mut often = |most: u64| if dice.chance(400) { dice.within(0, most) } else { 0 };
    Faults {
        count: often(30),
        kinds,
        commit_request_lost: often(80),
        commit_answer_lost: often(80),
        commit_aborted: often(60),
        commit_delayed: often(80),
        admin_lost: often(150),
        admin_slow: often(300),
        store_damaged: often(900).max(often(900)),
    }
}
