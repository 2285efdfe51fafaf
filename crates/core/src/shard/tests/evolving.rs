use super::*;
use crate::{aggregate::Layout, job::SessionSpec};

/// The job with an aggregate more.
fn grown(spec: &JobSpec) -> JobSpec {
    let mut grown = spec.clone();
    grown.aggregates.push(AggregateSpec::new("max", AggregateFn::Max, Some(0)));
    grown
}

/// What the blocks of a log fold to in the job as it is now.
fn restored(spec: &JobSpec, blocks: &[Block]) -> ShardState {
    let mut state = ShardState::empty_with(spec, Arc::new(Layout::grown(spec, &[2])));
    state.fold(&ShardState::genesis(JOB, &[(Partition(0), Offset(0))])).unwrap();
    blocks.iter().for_each(|block| state.fold(block).unwrap());
    state
}

fn owner_of(spec: &JobSpec, blocks: &[Block]) -> ShardMachine {
    let limits = Limits { snapshot_log_bytes: 1, snapshot_step: 1, ..Limits::default() };
    let state = restored(spec, blocks);
    ShardMachine::take_over(Shard(0), spec, limits, state, 8, AssignmentId::default()).unwrap()
}

/// Commits what there is; the log folds to what the owner has.
fn follow(shard: &mut ShardMachine, spec: &JobSpec, log: &mut Vec<Block>) -> Vec<(String, i64, String, u32)> {
    let commit = commit(shard);
    log.push(commit.block);
    assert_eq!(restored(spec, log).canonical(), shard.state().canonical());
    shown(&commit.results)
}

fn row(name: &str, end: i64, values: &str, revision: u32) -> (String, i64, String, u32) {
    (name.to_owned(), end, values.to_owned(), revision)
}

#[test]
fn an_added_aggregate_is_null_where_a_window_has_earlier_records_and_whole_elsewhere() {
    for spill in [false, true] {
        let old = spec(20, 10, 20);
        let mut log = Vec::new();
        let mut shard = owner(&old);
        shard.set_memory(Some(1 << 20));
        shard.apply(&frame(0, 0, 0, &[(1, "a", 5), (12, "a", 7), (12, "b", 2)]));
        if spill {
            shard.want_run();
        }
        log.push(commit(&mut shard).block);

        let new = grown(&old);
        let mut shard = owner_of(&new, &log);
        shard.announce(&announcement(1, 1, 1_000, &[]));
        shard.apply(&frame(0, 3, 0, &[(3, "a", 9), (4, "c", 4), (22, "a", 8)]));
        assert_eq!(follow(&mut shard, &new, &mut log), []);
        shard.apply(&frame(0, 6, 40, &[]));
        let out = [
            row("a final", 10, "2 14 null", 0),
            row("c final", 10, "1 4 4", 0),
            row("a final", 20, "3 21 null", 0),
            row("b final", 20, "1 2 null", 0),
            row("c final", 20, "1 4 4", 0),
            row("a final", 30, "2 15 null", 0),
            row("b final", 30, "1 2 null", 0),
            row("a final", 40, "1 8 8", 0),
        ];
        assert_eq!(follow(&mut shard, &new, &mut log), out, "spill {spill}");
        shard.apply(&frame(0, 6, 40, &[(23, "a", 11)]));
        let late = [row("a late", 30, "3 26 null", 1), row("a late", 40, "2 19 11", 1)];
        assert_eq!(follow(&mut shard, &new, &mut log), late);
    }
}

#[test]
fn an_added_aggregate_of_sessions_and_of_sliding_windows_is_null_while_earlier_records_are_in_them() {
    let session = OperatorSpec::Sessions(SessionSpec { gap: Span(10), cut: None });
    let sliding = OperatorSpec::Sliding(SlidingSpec { size: Span(10) });
    let results = |operator| {
        let old = JobSpec { operator, ..spec(10, 10, 0) };
        let mut log = Vec::new();
        let mut shard = owner(&old);
        shard.apply(&frame(0, 0, 0, &[(5, "a", 5)]));
        log.push(commit(&mut shard).block);
        let new = grown(&old);
        let mut shard = owner_of(&new, &log);
        shard.announce(&announcement(1, 1, 1_000, &[]));
        shard.apply(&frame(0, 1, 100, &[(8, "a", 7), (30, "a", 9)]));
        follow(&mut shard, &new, &mut log)
    };
    assert_eq!(results(session), [row("a final", 18, "2 12 null", 0), row("a final", 40, "1 9 9", 0)]);
    assert_eq!(
        results(sliding),
        [row("a final", 5, "1 5 null", 0), row("a final", 8, "2 12 null", 0), row("a final", 30, "1 9 9", 0)]
    );
}
