use super::*;
use crate::{job::SessionSpec, time::Tick};

fn early(spec: &JobSpec, limits: Limits) -> (ShardMachine, ShardState) {
    let mut shard = owner_with(spec, limits);
    shard.set_early(Some(Span(100)), Tick(0));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    (shard, genesis(spec))
}

/// What the commit at `now` holds; its block makes of a follower what the owner has.
fn follow(shard: &mut ShardMachine, follower: &mut ShardState, now: u64) -> Vec<(String, i64, String, u32)> {
    shard.begin_early(Tick(now));
    let Some(commit) = shard.plan() else { return Vec::new() };
    follower.fold(&commit.block).unwrap();
    assert_eq!(follower.canonical(), shard.state().canonical());
    shard.committed(commit.block.sequence, Offset(commit.block.sequence));
    shown(&commit.results)
}

fn row(name: &str, end: i64, values: &str, revision: u32) -> (String, i64, String, u32) {
    (name.to_owned(), end, values.to_owned(), revision)
}

#[test]
fn what_has_changed_of_open_windows_is_out_when_it_is_due_and_once() {
    let (mut shard, mut log) = early(&spec(10, 10, 0), Limits::default());
    shard.apply(&frame(0, 0, 1, &[(1, "b", 5), (2, "a", 7), (11, "a", 1)]));
    assert_eq!(follow(&mut shard, &mut log, 50), [], "not due yet");
    assert_eq!(shard.early_due(), Some(Tick(100)));
    shard.apply(&frame(0, 3, 1, &[(3, "b", -1)]));
    let out = [row("a early", 10, "1 7", 0), row("b early", 10, "2 4", 0), row("a early", 20, "1 1", 0)];
    assert_eq!(follow(&mut shard, &mut log, 100), out);
    assert_eq!(shard.early_due(), None);
    assert_eq!(follow(&mut shard, &mut log, 250), [], "nothing has changed");
    shard.apply(&frame(0, 4, 1, &[(4, "a", 1)]));
    assert_eq!(follow(&mut shard, &mut log, 260), [row("a early", 10, "2 8", 0)], "it was due already");
}

#[test]
fn no_early_result_comes_behind_the_final_one() {
    let (mut shard, mut log) = early(&spec(10, 10, 20), Limits::default());
    shard.apply(&frame(0, 0, 5, &[(1, "a", 5), (12, "a", 7)]));
    assert_eq!(follow(&mut shard, &mut log, 50), []);
    shard.apply(&frame(0, 2, 10, &[(13, "b", 1)]));
    let out = [row("a final", 10, "1 5", 0), row("a early", 20, "1 7", 0), row("b early", 20, "1 1", 0)];
    assert_eq!(follow(&mut shard, &mut log, 100), out);
    shard.apply(&frame(0, 3, 10, &[(2, "a", 5)]));
    assert_eq!(
        follow(&mut shard, &mut log, 200),
        [row("a late", 10, "2 10", 1)],
        "a closed window is not open"
    );
}

#[test]
fn a_hopping_window_shows_the_records_of_all_its_slices() {
    let (mut shard, mut log) = early(&spec(20, 10, 0), Limits::default());
    shard.apply(&frame(0, 0, 1, &[(5, "a", 1)]));
    assert_eq!(
        follow(&mut shard, &mut log, 100),
        [row("a early", 10, "1 1", 0), row("a early", 20, "1 1", 0)]
    );
    shard.apply(&frame(0, 1, 1, &[(15, "a", 2)]));
    assert_eq!(
        follow(&mut shard, &mut log, 200),
        [row("a early", 20, "2 3", 0), row("a early", 30, "1 2", 0)],
        "the window that ends at 10 has not changed"
    );
}

#[test]
fn early_results_are_cut_to_what_a_commit_may_hold_and_read_what_was_spilled() {
    let limits = Limits { commit_bytes: 400, chunk_bytes: 1, ..Limits::default() };
    let (mut shard, mut log) = early(&spec(10, 10, 0), limits);
    shard.set_memory(Some(1 << 20));
    let keys: Vec<_> = (0..12).map(|key| format!("k{key:02}")).collect();
    let mut commits = Vec::new();
    for (from, key) in (0..).zip(&keys) {
        shard.apply(&frame(0, from, 1, &[(1, key, 1)]));
        shard.want_run();
        commits.push(follow(&mut shard, &mut log, 50));
    }
    assert_eq!(shard.state().slices.rows(), 0, "all rows are in runs");
    commits.extend((100..200).map(|now| follow(&mut shard, &mut log, now)));
    let most = commits.iter().map(Vec::len).max().unwrap();
    assert!((1..=5).contains(&most), "{most} results in one commit");
    let mut out = commits.concat();
    out.sort();
    assert_eq!(out, keys.iter().map(|key| row(&format!("{key} early"), 10, "1 1", 0)).collect::<Vec<_>>());
}

#[test]
fn a_session_that_becomes_another_takes_its_early_result_back_whoever_owns_it_by_then() {
    let operator = OperatorSpec::Sessions(SessionSpec { gap: Span(10), cut: None });
    let spec = JobSpec { operator, ..spec(10, 10, 20) };
    let (mut shard, mut log) = early(&spec, Limits::default());
    shard.apply(&frame(0, 0, 1, &[(1, "a", 5)]));
    assert_eq!(follow(&mut shard, &mut log, 100), [row("a early", 11, "1 5", 0)]);
    let state = log.clone();
    let mut next =
        ShardMachine::take_over(Shard(0), &spec, Limits::default(), state, 8, AssignmentId::default())
            .unwrap();
    next.set_early(Some(Span(100)), Tick(150));
    next.announce(&announcement(1, 1, 1_000, &[]));
    next.apply(&frame(0, 1, 1, &[(5, "a", 2)]));
    assert_eq!(follow(&mut next, &mut log, 160), [row("a retracted", 11, "null null", 1)]);
    assert_eq!(follow(&mut next, &mut log, 260), [row("a early", 15, "2 7", 0)]);
    next.apply(&frame(0, 2, 15, &[]));
    assert_eq!(follow(&mut next, &mut log, 300), [row("a final", 15, "2 7", 0)]);
    next.apply(&frame(0, 2, 15, &[(3, "a", 1)]));
    assert_eq!(follow(&mut next, &mut log, 400), [row("a late", 15, "3 8", 1)]);
}
