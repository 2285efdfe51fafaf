use super::*;
use crate::{job::SessionSpec, runs::Unreadable, time::Tick};

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

/// A job of sessions, and its owner of which nothing stays in memory.
fn spilling_sessions(lateness: i64) -> (JobSpec, ShardMachine, ShardState) {
    let operator = OperatorSpec::Sessions(SessionSpec { gap: Span(10), cut: None });
    let spec = JobSpec { operator, ..spec(10, 10, lateness) };
    let (mut shard, log) = early(&spec, Limits::default());
    shard.set_memory(Some(1 << 20));
    (spec, shard, log)
}

fn taken_over(spec: &JobSpec, log: &ShardState, every: Option<Span>, now: u64) -> ShardMachine {
    let id = AssignmentId::default();
    let mut shard = ShardMachine::take_over(Shard(0), spec, Limits::default(), log.clone(), 8, id).unwrap();
    shard.set_memory(Some(1 << 20));
    shard.set_early(every, Tick(now));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard
}

/// The same as [`follow`]; nothing stays in memory.
fn spill(shard: &mut ShardMachine, follower: &mut ShardState, now: u64) -> Vec<(String, i64, String, u32)> {
    shard.want_run();
    let out = follow(shard, follower, now);
    assert_eq!(in_memory(shard), 0);
    out
}

fn in_memory(shard: &ShardMachine) -> usize {
    shard.state().sessions().unwrap().len()
}

#[test]
fn a_session_beyond_memory_gives_early_results_that_are_whole_and_takes_back_what_it_was() {
    let (_, mut shard, mut log) = spilling_sessions(0);
    shard.apply(&frame(0, 0, 1, &[(1, "a", 5)]));
    assert_eq!(spill(&mut shard, &mut log, 50), []);
    shard.apply(&frame(0, 1, 1, &[(6, "a", 7)]));
    assert_eq!(spill(&mut shard, &mut log, 100), [row("a early", 16, "2 12", 0)]);
    shard.apply(&frame(0, 2, 1, &[(9, "a", 1), (30, "a", 1)]));
    assert_eq!(spill(&mut shard, &mut log, 150), [], "a fragment by itself knows of no result");
    let out =
        [row("a retracted", 16, "null null", 1), row("a early", 19, "3 13", 0), row("a early", 40, "1 1", 0)];
    assert_eq!(spill(&mut shard, &mut log, 200), out);
    assert_eq!(spill(&mut shard, &mut log, 300), [], "nothing has changed");
    shard.apply(&frame(0, 4, 19, &[]));
    assert_eq!(spill(&mut shard, &mut log, 400), [row("a final", 19, "3 13", 0)]);
}

#[test]
fn what_an_early_result_was_of_is_taken_back_when_the_watermark_passes_its_end_with_or_without_further_early_results()
 {
    for every in [Some(Span(1_000_000)), None] {
        let (spec, mut shard, mut log) = spilling_sessions(50);
        shard.apply(&frame(0, 0, 1, &[(1, "a", 5), (1, "b", 5)]));
        assert_eq!(
            spill(&mut shard, &mut log, 100),
            [row("a early", 11, "1 5", 0), row("b early", 11, "1 5", 0)]
        );
        let mut shard = taken_over(&spec, &log, every, 100);
        shard.apply(&frame(0, 2, 1, &[(9, "a", 1)]));
        assert_eq!(spill(&mut shard, &mut log, 200), []);
        shard.apply(&frame(0, 3, 12, &[]));
        let out = [row("a retracted", 11, "null null", 1), row("b final", 11, "1 5", 0)];
        assert_eq!(spill(&mut shard, &mut log, 300), out);
        shard.apply(&frame(0, 3, 20, &[]));
        assert_eq!(spill(&mut shard, &mut log, 400), [row("a final", 19, "2 6", 0)]);
        shard.apply(&frame(0, 3, 20, &[(2, "a", 1), (2, "b", 1)]));
        let out = [
            row("a late", 19, "3 7", 1),
            row("b late", 12, "2 6", 0),
            row("b retracted", 11, "null null", 1),
        ];
        let mut late = spill(&mut shard, &mut log, 500);
        late.sort();
        assert_eq!(late, out, "and once");
    }
}

#[test]
fn a_late_record_takes_back_the_early_result_of_the_session_that_it_joins() {
    let (_, mut shard, mut log) = spilling_sessions(50);
    shard.apply(&frame(0, 0, 5, &[(6, "a", 5), (3, "b", 1)]));
    assert_eq!(
        spill(&mut shard, &mut log, 100),
        [row("b early", 13, "1 1", 0), row("a early", 16, "1 5", 0)]
    );
    shard.apply(&frame(0, 2, 5, &[(9, "a", 1)]));
    assert_eq!(spill(&mut shard, &mut log, 110), []);
    shard.apply(&frame(0, 3, 5, &[(2, "a", 1)]));
    assert_eq!(spill(&mut shard, &mut log, 120), [row("a retracted", 16, "null null", 1)]);
    shard.apply(&frame(0, 4, 30, &[]));
    let out = [row("b final", 13, "1 1", 0), row("a final", 19, "3 7", 0)];
    assert_eq!(spill(&mut shard, &mut log, 130), out);
}

#[test]
fn early_results_that_are_switched_on_are_of_what_was_spilled_before_too() {
    let (spec, mut shard, mut log) = spilling_sessions(0);
    shard.set_early(None, Tick(0));
    shard.apply(&frame(0, 0, 1, &[(1, "a", 5), (1, "b", 5)]));
    assert_eq!(spill(&mut shard, &mut log, 100), []);
    let mut shard = taken_over(&spec, &log, Some(Span(100)), 100);
    shard.apply(&frame(0, 2, 1, &[(7, "a", 1)]));
    assert_eq!(spill(&mut shard, &mut log, 200), [row("a early", 17, "2 6", 0)]);
}

#[test]
fn early_results_of_sessions_beyond_memory_are_cut_to_what_a_commit_may_hold() {
    let operator = OperatorSpec::Sessions(SessionSpec { gap: Span(10), cut: None });
    let limits = Limits { commit_bytes: 1_000, ..Limits::default() };
    let (mut shard, mut log) = early(&JobSpec { operator, ..spec(10, 10, 0) }, limits);
    shard.set_memory(Some(1_000_000));
    let keys: Vec<_> = (0..12).map(|key| format!("k{key:02}")).collect();
    for (from, key) in (0..).zip(&keys) {
        shard.apply(&frame(0, from, 1, &[(1, key, 1)]));
        shard.want_run();
        assert_eq!(follow(&mut shard, &mut log, 50), []);
    }
    let mut commits: Vec<_> = (100..120).map(|now| follow(&mut shard, &mut log, now)).collect();
    let most = commits.iter().map(Vec::len).max().unwrap();
    assert!((1..=6).contains(&most), "{most} results in one commit");
    let out: Vec<_> = keys.iter().map(|key| row(&format!("{key} early"), 11, "1 1", 0)).collect();
    assert_eq!(commits.drain(..).flatten().collect::<Vec<_>>(), out);
}

#[test]
fn early_results_wait_while_the_store_is_behind() {
    let (_, mut shard, mut log) = spilling_sessions(0);
    shard.set_memory(Some(10));
    for round in 0..2u64 {
        shard.apply(&frame(0, round, 1, &[(1, "a", 1)]));
        assert_eq!(follow(&mut shard, &mut log, 50), []);
    }
    assert!(!shard.takes_frames(), "the first run is not stored");
    assert_eq!(follow(&mut shard, &mut log, 100), []);
    assert!(!shard.has_output(), "no commit for nothing");
    let held: Vec<_> = shard.state().runs().held().into_iter().collect();
    let chunks = Arc::new(super::spilling::MemoryChunks::default());
    shard.state.set_store(chunks.clone());
    let ids: Vec<_> = held.into_iter().map(|(id, bytes)| (chunks.put(id, bytes), id).1).collect();
    shard.stored(&ids);
    assert!(shard.has_output());
    assert_eq!(follow(&mut shard, &mut log, 100), [row("a early", 11, "2 2", 0)]);
}

#[test]
fn what_is_to_be_taken_back_outlives_compactions_snapshots_and_savepoints() {
    for way in ["compaction", "snapshot", "savepoint"] {
        let (spec, mut shard, mut log) = spilling_sessions(0);
        shard.apply(&frame(0, 0, 1, &[(1, "a", 5)]));
        assert_eq!(spill(&mut shard, &mut log, 100), [row("a early", 11, "1 5", 0)]);
        shard.apply(&frame(0, 1, 1, &[(9, "a", 1)]));
        for round in 2..10 {
            assert_eq!(spill(&mut shard, &mut log, 110), []);
            shard.apply(&frame(0, round, 1, &[(12, "b", 1)]));
        }
        assert_eq!(spill(&mut shard, &mut log, 120), []);
        let mut begun = match way {
            "compaction" => {
                let chunks = Arc::new(super::spilling::MemoryChunks::default());
                shard.state.set_store(chunks.clone());
                let done = shard.compaction().unwrap().run(|id, bytes| -> Result<(), Unreadable> {
                    chunks.put(id, bytes);
                    Ok(())
                });
                assert!(shard.compacted(done.unwrap()));
                assert_eq!(shard.state().canonical(), log.canonical());
                log
            }
            "snapshot" => {
                shard.limits.snapshot_log_bytes = 1;
                shard.state.log_bytes = 1 << 20;
                shard.apply(&frame(0, 10, 1, &[(12, "b", 1)]));
                let commit = commit(&mut shard);
                assert!(commit.block.begins.is_some());
                let mut begun = ShardState::empty(&spec);
                begun.fold(&commit.block).unwrap();
                begun
            }
            _ => {
                let mut begun = ShardState::empty(&spec);
                for block in log.canonical().blocks(JOB, &begun.layout.clone(), 1) {
                    begun.fold(&block).unwrap();
                }
                shard = taken_over(&spec, &begun, None, 0);
                begun
            }
        };
        assert_eq!(
            begun.canonical(),
            CanonicalState { sequence: begun.sequence, ..shard.state().canonical() }
        );
        shard.apply(&frame(0, shard.input(Partition(0)).next.0, 30, &[]));
        let out = spill(&mut shard, &mut begun, 130);
        let of_a: Vec<_> = out.into_iter().filter(|(name, ..)| name.starts_with('a')).collect();
        assert_eq!(of_a, [row("a retracted", 11, "null null", 1), row("a final", 19, "2 6", 0)], "{way}");
    }
}
