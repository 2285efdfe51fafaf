mod early;
mod evolving;
mod inspect;
mod reorder;
mod replay;
mod savepoint;
mod sessions;
mod sliding;
mod spilling;

use std::sync::Arc;

use super::*;
use crate::{
    announcement::Term,
    block::{Assembler, Block},
    frame::Column,
    job::{AggregateFn, AggregateSpec, ColumnSpec, OperatorSpec, SlidingSpec},
};
use proptest::prelude::*;

fn spec(size: i64, step: i64, lateness: i64) -> JobSpec {
    JobSpec {
        allowed_lateness: Span(lateness),
        columns: vec![ColumnSpec::number("/v", 0)],
        aggregates: vec![
            AggregateSpec::new("n", AggregateFn::Count, None),
            AggregateSpec::new("sum", AggregateFn::Sum, Some(0)),
        ],
        ..JobSpec::of(OperatorSpec::hopping(Span(size), Span(step)))
    }
}

fn reordering() -> JobSpec {
    let operator = OperatorSpec::Reorder;
    JobSpec { operator, columns: Vec::new(), aggregates: Vec::new(), ..spec(1, 1, 0) }
}

fn sliding(size: i64) -> JobSpec {
    JobSpec { operator: OperatorSpec::Sliding(SlidingSpec { size: Span(size) }), ..spec(1, 1, 0) }
}

const JOB: JobId = JobId([1; 16]);

fn genesis(spec: &JobSpec) -> ShardState {
    let mut state = ShardState::empty(spec);
    state.fold(&ShardState::genesis(JOB, &[(Partition(0), Offset(0))])).unwrap();
    state
}

fn owner_with(spec: &JobSpec, limits: Limits) -> ShardMachine {
    ShardMachine::take_over(Shard(0), spec, limits, genesis(spec), 7, AssignmentId::default()).unwrap()
}

fn owner(spec: &JobSpec) -> ShardMachine {
    owner_with(spec, Limits::default())
}

/// A frame of (time, key, value) rows, one offset each, payloads with all.
fn frame(partition: u32, from: u64, watermark: i64, rows: &[(i64, &str, i64)]) -> ShardFrame {
    let mut out = Rows::new(1);
    for (row, (time, key, value)) in (0u32..).zip(rows) {
        out.push(row, EventTime(*time), key.as_bytes(), &[Some(*value)], &[]);
        out.payloads
            .push((row, Arc::new(Payload { value: Some(key.as_bytes().to_vec()), ..Payload::default() })));
    }
    ShardFrame {
        session: (1, SessionId(1)),
        partition: Partition(partition),
        from: Offset(from),
        to: Offset(from + rows.len() as u64),
        watermark: Some(EventTime(watermark)),
        rows: out,
    }
}

fn announcement(version: u64, partitions: u32, watermark: i64, excluded: &[(u32, u64)]) -> Announcement {
    Announcement {
        term: Term(1),
        version,
        partitions,
        watermark: Some(EventTime(watermark)),
        excluded: excluded.iter().map(|(p, at)| (Partition(*p), Offset(*at))).collect(),
    }
}

fn shown(rows: &[ResultRow]) -> Vec<(String, i64, String, u32)> {
    rows.iter()
        .map(|row| {
            let values: Vec<_> = row.values.iter().map(ToString::to_string).collect();
            let key = String::from_utf8_lossy(&row.key).into_owned();
            (format!("{key} {}", row.pane.as_str()), row.end.0, values.join(" "), row.revision)
        })
        .collect()
}

fn commit(machine: &mut ShardMachine) -> Commit {
    let commit = machine.plan().unwrap();
    machine.committed(commit.block.sequence, Offset(commit.block.sequence));
    commit
}

#[test]
fn a_window_closes_when_the_watermark_reaches_its_end_and_is_emitted_by_key() {
    let mut shard = owner(&spec(10, 10, 0));
    shard.announce(&announcement(1, 1, 100, &[]));
    assert_eq!(shard.apply(&frame(0, 0, 9, &[(1, "b", 5), (2, "a", 7), (3, "b", -1)])), Applied::Covered);
    assert!(!shard.has_output(), "the in-band watermark 9 has not reached the end 10");
    shard.apply(&frame(0, 3, 10, &[(11, "a", 1)]));
    let commit = commit(&mut shard);
    assert_eq!(
        shown(&commit.results),
        [("a final".into(), 10, "1 7".into(), 0), ("b final".into(), 10, "2 4".into(), 0)]
    );
    assert_eq!(shard.state().slices.rows(), 1, "only the open window is kept");
}

#[test]
fn an_announcement_that_overtakes_records_closes_nothing_early() {
    let mut shard = owner(&spec(10, 10, 0));
    shard.apply(&frame(0, 0, 4, &[(1, "a", 1)]));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    assert!(!shard.has_output());
    assert_eq!(shard.state().watermark(), Some(EventTime(4)));
}

#[test]
fn an_empty_frame_behind_its_announcement_closes_the_window() {
    let mut shard = owner(&spec(10, 10, 0));
    shard.apply(&frame(0, 0, 4, &[(1, "a", 1)]));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    assert_eq!(shard.apply(&frame(0, 1, 10, &[])), Applied::Known);
    assert!(shard.has_output());
}

#[test]
fn an_excluded_partition_counts_while_the_shard_is_below_its_idle_position() {
    let mut shard = owner(&spec(10, 10, 0));
    shard.apply(&frame(0, 0, 50, &[(1, "a", 1)]));
    shard.announce(&announcement(1, 2, 50, &[(1, 2)]));
    assert_eq!(shard.state().watermark(), None, "two records of partition 1 are still on their way");
    shard.apply(&frame(1, 0, 3, &[(2, "a", 1), (3, "a", 1)]));
    assert_eq!(shard.state().watermark(), Some(EventTime(50)));
    assert_eq!(shown(&commit(&mut shard).results), [("a final".into(), 10, "3 3".into(), 0)]);
}

#[test]
fn older_announcements_are_ignored() {
    let mut shard = owner(&spec(10, 10, 0));
    shard.apply(&frame(0, 0, 50, &[(1, "a", 1)]));
    shard.announce(&announcement(2, 1, 5, &[]));
    shard.announce(&announcement(1, 1, 40, &[]));
    assert_eq!(shard.state().watermark(), Some(EventTime(5)));
}

#[test]
fn a_gap_is_refused_once_a_session_and_nothing_of_it_is_applied() {
    let mut shard = owner(&spec(10, 10, 0));
    let gap = frame(0, 5, 50, &[(1, "a", 1)]);
    let nack = Nack { partition: Partition(0), next: Offset(0), payloads: false };
    assert_eq!(shard.apply(&gap), Applied::Refused(nack));
    assert_eq!(shard.apply(&gap), Applied::Stale);
    assert_eq!(shard.apply(&ShardFrame { session: (1, SessionId(2)), ..gap }), Applied::Refused(nack));
    assert_eq!(shard.state().slices.rows(), 0);
}

#[test]
fn duplicates_are_dropped_record_by_record() {
    let mut shard = owner(&spec(10, 10, 0));
    shard.apply(&frame(0, 0, 5, &[(1, "a", 1), (2, "a", 1)]));
    assert_eq!(shard.apply(&frame(0, 0, 5, &[(1, "a", 1)])), Applied::Known);
    assert_eq!(shard.apply(&frame(0, 1, 5, &[(2, "a", 1), (3, "a", 1)])), Applied::Covered);
    assert_eq!(shard.input(Partition(0)).applied, 3);
}

#[test]
fn a_late_record_corrects_its_window_and_a_too_late_one_is_a_whole_dead_letter() {
    let mut shard = owner(&spec(10, 10, 20));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 12, &[(1, "a", 1), (11, "a", 1)]));
    commit(&mut shard);
    shard.apply(&frame(0, 2, 12, &[(3, "a", 4), (4, "a", 1), (5, "new", 9)]));
    let late = commit(&mut shard);
    assert_eq!(
        shown(&late.results),
        [("a late".into(), 10, "3 6".into(), 1), ("new late".into(), 10, "1 9".into(), 0)],
        "one correction for both records; the first result of a key has revision 0"
    );
    shard.apply(&frame(0, 5, 30, &[(6, "a", 1)]));
    assert_eq!(shown(&commit(&mut shard).results)[0], ("a late".into(), 10, "4 7".into(), 2));
    shard.apply(&frame(0, 6, 30, &[(7, "a", 1)]));
    let dead = commit(&mut shard).dead_letters;
    assert_eq!((dead[0].reason, dead[0].offset), (Reason::Late, Offset(6)));
    assert_eq!(dead[0].missed, Some((EventTime(0), EventTime(10))));
    assert_eq!(dead[0].payload.value, Some(b"a".to_vec()));
    let input = shard.input(Partition(0));
    assert_eq!((input.applied, input.dead), (6, 1), "I5: covered = applied + dead-lettered");
}

#[test]
fn a_correction_is_emitted_before_its_window_is_purged() {
    let mut shard = owner(&spec(10, 10, 5));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 12, &[(1, "a", 1)]));
    commit(&mut shard);
    shard.apply(&frame(0, 1, 500, &[(2, "a", 1)]));
    assert_eq!(shown(&commit(&mut shard).results), [("a late".into(), 10, "2 2".into(), 1)]);
}

#[test]
fn a_record_too_late_for_some_of_its_windows_is_applied_to_the_others() {
    let mut shard = owner(&spec(20, 10, 0));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 20, &[(15, "a", 1)]));
    commit(&mut shard);
    shard.apply(&frame(0, 1, 30, &[(16, "a", 1)]));
    let commit = commit(&mut shard);
    assert_eq!(commit.dead_letters[0].reason, Reason::LatePartial);
    assert_eq!(commit.dead_letters[0].missed, Some((EventTime(0), EventTime(20))));
    assert_eq!(shown(&commit.results), [("a final".into(), 30, "2 2".into(), 0)]);
    assert_eq!((shard.input(Partition(0)).applied, shard.input(Partition(0)).dead), (2, 0));
}

#[test]
fn a_needed_payload_that_is_missing_is_asked_for() {
    let mut shard = owner(&spec(10, 10, 0));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 50, &[(1, "a", 1)]));
    let mut bare = frame(0, 1, 60, &[(55, "a", 1), (2, "a", 1), (56, "a", 1)]);
    bare.rows.payloads.clear();
    let nack = Nack { partition: Partition(0), next: Offset(2), payloads: true };
    assert!(!shard.needs_payloads(Partition(0)));
    assert_eq!(shard.apply(&bare), Applied::Refused(nack));
    assert!(shard.needs_payloads(Partition(0)), "until it is covered, whoever asks and however often");
    assert_eq!(shard.input(Partition(0)).applied, 2, "what lies before it is covered");
    assert_eq!(shard.input(Partition(0)).watermark, Some(EventTime(55)), "and counts for the watermark");
    let whole = ShardFrame { session: (1, SessionId(2)), ..frame(0, 2, 60, &[(2, "a", 1), (56, "a", 1)]) };
    assert_eq!(shard.apply(&whole), Applied::Covered);
    assert!(!shard.needs_payloads(Partition(0)));
    assert_eq!((shard.input(Partition(0)).applied, shard.input(Partition(0)).dead), (3, 1));
}

#[test]
fn a_closing_larger_than_a_commit_goes_on_over_several_in_order() {
    let limits = Limits { commit_bytes: 1_000, ..Limits::default() };
    let job = spec(10, 10, 0);
    let mut shard = owner_with(&job, limits);
    let mut log = vec![ShardState::genesis(JOB, &[(Partition(0), Offset(0))])];
    let keys: Vec<String> = (0..40).map(|key| format!("key-{key:02}")).collect();
    let rows: Vec<_> = keys.iter().rev().map(|key| (1, key.as_str(), 1)).collect();
    for (at, chunk) in rows.chunks(8).enumerate() {
        shard.apply(&frame(0, 8 * at as u64, 5, chunk));
        if let Some(commit) = shard.plan() {
            shard.committed(commit.block.sequence, Offset(0));
            log.push(commit.block);
        }
    }
    shard.apply(&frame(0, 40, 10, &[(11, "z", 1)]));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    let mut emitted = Vec::new();
    let mut commits = 0;
    while shard.has_output() {
        assert!(commits < 50, "closing ends");
        let commit = shard.plan().unwrap();
        emitted.extend(commit.results.iter().map(|row| String::from_utf8_lossy(&row.key).into_owned()));
        log.push(commit.block.clone());
        commits += 1;
        if commits == 2 {
            assert!(!shard.takes_frames(), "frames wait while windows close");
            // The owner dies here; its successor goes on behind the last committed result.
            let mut state = ShardState::empty(&job);
            for block in &log {
                state.fold(block).unwrap();
            }
            shard =
                ShardMachine::take_over(Shard(0), &job, limits, state, 8, AssignmentId::default()).unwrap();
            shard.announce(&announcement(1, 1, 1_000, &[]));
        } else {
            shard.committed(commit.block.sequence, Offset(0));
        }
    }
    assert!(commits > 2);
    assert_eq!(emitted, keys, "each once, in key order");
}

#[test]
fn a_newer_assignment_in_the_log_makes_an_owner_stand_down() {
    let job = spec(10, 10, 0);
    let mut state = genesis(&job);
    state.assignment = AssignmentId { term: Term(2), number: 1 };
    let older = AssignmentId { term: Term(1), number: 9 };
    assert!(ShardMachine::take_over(Shard(0), &job, Limits::default(), state, 8, older).is_none());
}

#[test]
fn a_log_without_its_beginning_or_with_a_gap_is_an_error() {
    let job = spec(10, 10, 0);
    let block = Block { sequence: 3, ..Block::default() };
    assert_eq!(ShardState::empty(&job).fold(&block), Err(RestoreError::NoBeginning { found: 3 }));
    assert_eq!(genesis(&job).fold(&block), Err(RestoreError::Gap { before: 0, found: 3 }));
}

#[derive(Clone, Debug)]
enum Step {
    Records(Vec<(i64, u8, i64)>, i64),
    Announce(i64),
    Commit,
    Crash,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let records = (prop::collection::vec((0i64..400, 0u8..6, -9i64..9), 0..12), 0i64..380)
        .prop_map(|(rows, watermark)| Step::Records(rows, watermark));
    let step = prop_oneof![4 => records, 2 => (0i64..400).prop_map(Step::Announce), 3 => Just(Step::Commit), 1 => Just(Step::Crash)];
    prop::collection::vec(step, 1..60)
}

proptest! {
    /// Design §8, test 1 and 2: what the log folds to is what the owner had committed, at every step, and the log stays bounded.
    #[test]
    fn the_log_rebuilds_the_owner(steps in steps(), size in 1i64..40, step in 1i64..40, lateness in 0i64..60, limit in 300usize..4_000) {
        let job = spec(size.max(step), step, lateness);
        let limits = Limits { commit_bytes: limit, snapshot_log_bytes: 500, snapshot_step: 40, ..Limits::default() };
        let mut shard = owner_with(&job, limits);
        let mut log = vec![ShardState::genesis(JOB, &[(Partition(0), Offset(0))])];
        let (mut next, mut version, mut incarnation) = (0u64, 0u64, 7u64);
        for step in steps {
            match step {
                Step::Records(rows, watermark) if shard.takes_frames() => {
                    let keys: Vec<String> = rows.iter().map(|(_, key, _)| key.to_string()).collect();
                    let rows: Vec<_> = rows.iter().zip(&keys).map(|((time, _, value), key)| (*time, key.as_str(), *value)).collect();
                    prop_assert_ne!(shard.apply(&frame(0, next, watermark, &rows)), Applied::Stale);
                    next += rows.len() as u64;
                }
                Step::Records(..) => {}
                Step::Announce(watermark) => {
                    version += 1;
                    shard.announce(&announcement(version, 1, watermark, &[]));
                }
                Step::Commit => {
                    let before = shard.state().watermark();
                    if let Some(commit) = shard.plan() {
                        let owner = shard.state().canonical();
                        log.push(commit.block.clone());
                        let state = fold(&job, &log)?;
                        prop_assert_eq!(state.canonical(), owner, "rebuild = owner");
                        let truncate = shard.committed(commit.block.sequence, Offset(commit.block.sequence)).truncate_before;
                        if let Some(before) = truncate {
                            log.retain(|block| block.sequence >= before.0);
                            prop_assert!(log[0].begins.is_some());
                        }
                    }
                    prop_assert!(shard.state().watermark() >= before, "I1");
                }
                Step::Crash => {
                    incarnation += 1;
                    let state = fold(&job, &log)?;
                    next = state.inputs()[0].next.0;
                    shard = ShardMachine::take_over(Shard(0), &job, limits, state, incarnation, AssignmentId::default()).unwrap();
                }
            }
            let input = shard.input(Partition(0));
            prop_assert_eq!(input.applied + input.dead, input.next.0, "I5");
        }
    }
}

fn fold(job: &JobSpec, log: &[Block]) -> Result<ShardState, TestCaseError> {
    let mut state = ShardState::empty(job);
    let mut assembler = Assembler::default();
    for block in log {
        for chunk in block.chunks(120) {
            if let Some(block) =
                assembler.push(&chunk).map_err(|error| TestCaseError::fail(error.to_string()))?
            {
                state.fold(&block).map_err(|error| TestCaseError::fail(error.to_string()))?;
            }
        }
    }
    Ok(state)
}

#[test]
fn null_values_count_as_records_without_a_value() {
    let mut shard = owner(&spec(10, 10, 0));
    let mut with_null = frame(0, 0, 10, &[(1, "a", 5), (2, "a", 0), (3, "a", 0)]);
    with_null.rows.columns = vec![Column { values: vec![5, 0, 0], nulls: vec![1, 2], text: None }];
    shard.apply(&with_null);
    shard.announce(&announcement(1, 1, 10, &[]));
    assert_eq!(shown(&commit(&mut shard).results), [("a final".into(), 10, "3 5".into(), 0)]);
}
