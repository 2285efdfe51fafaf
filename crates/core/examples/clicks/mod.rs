//! A million clicks, 100,000 a second of event time, for measurements of a shard: count, sum and max of one field.

use tidegate_core::{
    announcement::{Announcement, AssignmentId, Term},
    block::JobId,
    frame::{Rows, SessionId, ShardFrame},
    job::{AggregateFn, AggregateSpec, ColumnSpec, JobSpec, OperatorSpec, WatermarkSpec},
    shard::{Limits, ShardMachine, ShardState},
    time::{EventTime, Offset, Partition, Shard, Span},
};

const RECORDS: u64 = 1_000_000;
/// Records of a commit: 100 ms.
const BATCH: u64 = 10_000;

pub(crate) fn job(operator: OperatorSpec) -> JobSpec {
    let aggregate = AggregateSpec::new;
    JobSpec {
        watermark: WatermarkSpec::bounded(Span(2_000)),
        columns: vec![ColumnSpec::number("/amount", 2)],
        aggregates: vec![
            aggregate("clicks", AggregateFn::Count, None),
            aggregate("spend", AggregateFn::Sum, Some(0)),
            aggregate("largest", AggregateFn::Max, Some(0)),
        ],
        ..JobSpec::of(operator)
    }
}

/// The only shard of the job, at its beginning.
pub(crate) fn empty(job: &JobSpec) -> Option<ShardState> {
    let mut state = ShardState::empty(job);
    state.fold(&ShardState::genesis(JobId([1; 16]), &[(Partition(0), Offset(0))])).ok()?;
    Some(state)
}

/// Its owner.
pub(crate) fn owner(job: &JobSpec, state: ShardState) -> Option<ShardMachine> {
    ShardMachine::take_over(Shard(0), job, Limits::default(), state, 1, AssignmentId::default())
}

/// The announcement after which the shard's watermark is that of its records.
pub(crate) fn announcement() -> Announcement {
    Announcement {
        term: Term(1),
        version: 1,
        partitions: 1,
        watermark: Some(EventTime(i64::MAX)),
        excluded: Vec::new(),
    }
}

/// The records of so many keys, a frame for each commit.
pub(crate) fn frames(keys: u64) -> Vec<ShardFrame> {
    let names: Vec<String> = (0..keys).map(|key| format!("user-{key:05}")).collect();
    (0..RECORDS / BATCH).map(|batch| frame(batch, &names)).collect()
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
