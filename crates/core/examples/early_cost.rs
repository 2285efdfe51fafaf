//! What early results cost a shard: a million records a run into tumbling windows of 10 s (count, sum and max of one field), 100,000 records a
//! second of event time, a commit each 100 ms, with early results off and each second.
//! `cargo run --release -p tidegate-core --example early_cost`
#![expect(clippy::print_stdout, reason = "a measurement prints")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

use std::time::Instant;

use tidegate_core::{
    announcement::{Announcement, AssignmentId, Term},
    block::JobId,
    frame::{Rows, SessionId, ShardFrame},
    job::{AggregateFn, AggregateSpec, ColumnSpec, JobSpec, OperatorSpec, WatermarkSpec},
    shard::{Limits, Pane, ShardMachine, ShardState},
    time::{EventTime, Offset, Partition, Shard, Span, Tick},
};

const RECORDS: u64 = 1_000_000;
/// Records of a commit: 100 ms.
const BATCH: u64 = 10_000;

fn main() {
    for keys in [1_000, 10_000, 100_000] {
        for every in [None, Some(Span(1_000))] {
            run(keys, every);
        }
    }
}

fn run(keys: u64, every: Option<Span>) {
    let job = job();
    let mut state = ShardState::empty(&job);
    if state.fold(&ShardState::genesis(JobId([1; 16]), &[(Partition(0), Offset(0))])).is_err() {
        return;
    }
    let limits = Limits::default();
    let taken = ShardMachine::take_over(Shard(0), &job, limits, state, 1, AssignmentId::default());
    let Some(mut machine) = taken else { return };
    machine.set_early(every, Tick(0));
    machine.announce(&Announcement {
        term: Term(1),
        version: 1,
        partitions: 1,
        watermark: Some(EventTime(i64::MAX)),
        excluded: Vec::new(),
    });
    let names: Vec<String> = (0..keys).map(|key| format!("user-{key:05}")).collect();
    let frames: Vec<_> = (0..RECORDS / BATCH).map(|batch| frame(batch, &names)).collect();
    let (mut finals, mut early) = (0, 0);
    let begun = Instant::now();
    for (frame, now) in frames.iter().zip((100..).step_by(100)) {
        machine.apply(frame);
        loop {
            machine.begin_early(Tick(now));
            let Some(commit) = machine.plan() else { break };
            early += commit.results.iter().filter(|row| row.pane == Pane::Early).count();
            finals += commit.results.iter().filter(|row| row.pane == Pane::Final).count();
            machine.committed(commit.block.sequence, Offset(commit.block.sequence));
            if !machine.has_output() {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let every = every.map_or_else(|| "off".to_owned(), |every| format!("{}ms", every.millis()));
    println!(
        "early_cost: keys={keys} early={every} results={finals} early_results={early} seconds={seconds:.3}"
    );
}

fn frame(batch: u64, names: &[String]) -> ShardFrame {
    let mut rows = Rows::new(1);
    let from = batch * BATCH;
    let mut last = 0;
    for (delta, number) in (0..).zip(from..from + BATCH) {
        last = i64::try_from(number / 100).unwrap_or_default();
        let key = usize::try_from(number.wrapping_mul(7_919)).unwrap_or_default() % names.len();
        let name = names.get(key).map_or("", String::as_str);
        rows.push(delta, EventTime(last), name.as_bytes(), &[Some(i64::from(delta))], &[]);
    }
    ShardFrame {
        session: (1, SessionId(1)),
        partition: Partition(0),
        from: Offset(from),
        to: Offset(from + BATCH),
        watermark: Some(EventTime(last - 2_000)),
        rows,
    }
}

fn job() -> JobSpec {
    let aggregate = AggregateSpec::new;
    JobSpec {
        watermark: WatermarkSpec::bounded(Span(2_000)),
        columns: vec![ColumnSpec::number("/amount", 2)],
        aggregates: vec![
            aggregate("clicks", AggregateFn::Count, None),
            aggregate("spend", AggregateFn::Sum, Some(0)),
            aggregate("largest", AggregateFn::Max, Some(0)),
        ],
        ..JobSpec::of(OperatorSpec::tumbling(Span(10_000)))
    }
}
