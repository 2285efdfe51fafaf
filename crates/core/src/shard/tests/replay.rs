//! Dead letters that come back: each once, into what is kept of their windows.

use super::*;
use crate::{
    job::SessionSpec,
    replay::{Origin, ReplayFrame, Replayed},
};

fn kept(size: i64, step: i64, lateness: i64, ttl: i64) -> JobSpec {
    JobSpec { replay_ttl: Span(ttl), ..spec(size, step, lateness) }
}

/// Entries from `from` on, one offset each, of records of partition 0 whose offsets are the same.
pub(super) fn letters(from: u64, reason: Reason, rows: &[(i64, &str, i64)]) -> ReplayFrame {
    let origin = |offset| Origin { partition: Partition(0), offset: Offset(offset), reason, missed: None };
    let past = from + rows.len() as u64;
    ReplayFrame {
        partition: Partition(5),
        from: Offset(from),
        covers: vec![Offset(from)..Offset(past)],
        rows: frame(0, from, 0, rows).rows,
        origins: (from..past).map(origin).collect(),
    }
}

fn replayed(applied: u64, expired: u64, known: u64) -> Replayed {
    Replayed { applied, expired, known }
}

/// What the commit's block makes of a follower is what the owner has.
fn follow(machine: &mut ShardMachine, follower: &mut ShardState) -> Commit {
    let commit = machine.plan().unwrap();
    follower.fold(&commit.block).unwrap();
    assert_eq!(follower.canonical(), machine.state().canonical());
    machine.committed(commit.block.sequence, Offset(commit.block.sequence));
    commit
}

#[test]
fn a_replayed_record_corrects_the_windows_that_are_kept_for_it() {
    let spec = kept(10, 10, 0, 20);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 35, &[(5, "a", 1), (25, "a", 7), (35, "a", 1)]));
    assert_eq!(follow(&mut shard, &mut follower).results.len(), 2);
    // X is 15: the window that ends at 10 is gone, those that end at 20 and 30 are kept, and live records are too late for them.
    shard.apply(&frame(0, 3, 35, &[(26, "a", 9)]));
    let letter = follow(&mut shard, &mut follower);
    assert_eq!((letter.results.len(), letter.dead_letters.len()), (0, 1));
    let (input, watermark) = (shard.input(Partition(0)), shard.state().watermark());

    let asked = letters(0, Reason::Late, &[(9, "a", 1), (15, "a", 2), (26, "a", 9), (36, "a", 4)]);
    assert_eq!(shard.apply_replay(&asked), replayed(3, 1, 0));
    let commit = follow(&mut shard, &mut follower);
    let corrected =
        [("a replay".to_owned(), 20, "1 2".to_owned(), 0), ("a replay".to_owned(), 30, "2 16".to_owned(), 1)];
    assert_eq!((shown(&commit.results).as_slice(), commit.dead_letters.len()), (corrected.as_slice(), 0));
    assert_eq!((shard.input(Partition(0)), shard.state().watermark()), (input, watermark));
    assert_eq!(shard.state().answered().counts(), (3, 1));

    shard.apply(&frame(0, 4, 40, &[]));
    let final_result = [("a final".to_owned(), 40, "2 5".to_owned(), 0)];
    assert_eq!(
        shown(&follow(&mut shard, &mut follower).results),
        final_result,
        "an open window holds it too"
    );
}

#[test]
fn an_entry_counts_once_however_often_it_is_asked_for() {
    let spec = kept(10, 10, 0, 1_000);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 30, &[(25, "a", 7)]));
    follow(&mut shard, &mut follower);
    // Filtered: the second entry is not asked for.
    let mut filtered = letters(0, Reason::Late, &[(1, "a", 1), (2, "a", 10), (3, "a", 100)]);
    filtered.rows = letters(0, Reason::Late, &[(1, "a", 1)]).rows;
    filtered.rows.push(2, EventTime(3), b"a", &[Some(100)], &[]);
    filtered.origins.remove(1);
    filtered.covers = vec![Offset(0)..Offset(1), Offset(2)..Offset(3)];
    assert_eq!(shard.apply_replay(&filtered), replayed(2, 0, 0));
    assert_eq!(shard.apply_replay(&filtered), replayed(0, 0, 2));
    follow(&mut shard, &mut follower);
    // A crash: the next owner knows what is committed, and nothing else.
    let whole = letters(0, Reason::Late, &[(1, "a", 1), (2, "a", 10), (3, "a", 100)]);
    assert_eq!(shard.apply_replay(&whole), replayed(1, 0, 2));
    let mut shard = ShardMachine::take_over(
        Shard(0),
        &spec,
        Limits::default(),
        follower.clone(),
        8,
        AssignmentId::default(),
    )
    .unwrap();
    assert_eq!(shard.apply_replay(&whole), replayed(1, 0, 2));
    let commit = follow(&mut shard, &mut follower);
    assert_eq!(shown(&commit.results), [("a replay".to_owned(), 10, "3 111".to_owned(), 1)]);
    assert_eq!(shard.apply_replay(&whole), replayed(0, 0, 3));
    assert!(!shard.is_dirty(), "nothing is left to be committed");
}

#[test]
fn what_is_covered_without_a_row_is_committed_too() {
    let spec = kept(10, 10, 0, 1_000);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    let mut others = letters(0, Reason::Late, &[]);
    others.covers = vec![Offset(0)..Offset(70_000)];
    assert_eq!(shard.apply_replay(&others), Replayed::default());
    assert!(shard.is_dirty());
    follow(&mut shard, &mut follower);
    assert!(follower.answered().contains(Partition(5), Offset(69_999)));
}

#[test]
fn a_partly_late_record_is_emitted_for_the_windows_it_missed_and_counts_once() {
    let spec = kept(10, 5, 0, 1_000);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 12, &[(7, "a", 1), (12, "a", 1)]));
    follow(&mut shard, &mut follower);
    // [0, 10) is over, [5, 15) is open.
    shard.apply(&frame(0, 2, 12, &[(6, "a", 10)]));
    let commit = follow(&mut shard, &mut follower);
    let missed = Some((EventTime(0), EventTime(10)));
    assert_eq!((commit.dead_letters[0].reason, commit.dead_letters[0].missed), (Reason::LatePartial, missed));
    assert_eq!(commit.results, []);

    let mut asked = letters(2, Reason::LatePartial, &[(6, "a", 10)]);
    asked.origins[0].missed = missed;
    assert_eq!(shard.apply_replay(&asked), replayed(1, 0, 0));
    let commit = follow(&mut shard, &mut follower);
    assert_eq!(shown(&commit.results), [("a replay".to_owned(), 10, "2 11".to_owned(), 1)]);
    shard.apply(&frame(0, 3, 15, &[]));
    let commit = follow(&mut shard, &mut follower);
    assert_eq!(shown(&commit.results), [("a final".to_owned(), 15, "3 12".to_owned(), 0)]);
}

#[test]
fn windows_kept_for_replays_take_no_live_records() {
    for ttl in [0, 7, 1_000] {
        let mut shard = owner(&kept(10, 5, 5, ttl));
        shard.announce(&announcement(1, 1, 1_000, &[]));
        shard.apply(&frame(0, 0, 30, &[(1, "a", 1), (12, "a", 1), (22, "a", 1), (30, "a", 1)]));
        // L is 25: [10, 20) and [15, 25) are missed, [20, 30) is corrected.
        shard.apply(&frame(0, 4, 30, &[(19, "a", 1), (21, "a", 1)]));
        let commit = commit(&mut shard);
        let late: Vec<_> = commit.results.iter().filter(|row| row.pane == Pane::Late).collect();
        assert_eq!(late.iter().map(|row| row.end.0).collect::<Vec<_>>(), [30]);
        let letters: Vec<_> =
            commit.dead_letters.iter().map(|letter| (letter.reason, letter.missed)).collect();
        let missed = |start, end| Some((EventTime(start), EventTime(end)));
        assert_eq!(letters, [(Reason::Late, missed(10, 25)), (Reason::LatePartial, missed(15, 25))]);
    }
}

#[test]
fn late_and_replayed_records_of_one_commit_give_one_result() {
    let mut shard = owner(&kept(10, 10, 50, 50));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 20, &[(1, "a", 1)]));
    commit(&mut shard);
    shard.apply_replay(&letters(0, Reason::Unreadable, &[(2, "a", 10)]));
    shard.apply(&frame(0, 1, 20, &[(3, "a", 100)]));
    let commit = commit(&mut shard);
    assert_eq!(shown(&commit.results), [("a replay".to_owned(), 10, "3 111".to_owned(), 1)]);
}

#[test]
fn a_replayed_record_joins_sessions_that_are_kept() {
    let operator = OperatorSpec::Sessions(SessionSpec { gap: Span(10), cut: None });
    let spec = JobSpec { operator, ..kept(10, 10, 0, 100) };
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 60, &[(0, "a", 1), (15, "a", 1), (60, "a", 1)]));
    follow(&mut shard, &mut follower);
    shard.apply(&frame(0, 3, 60, &[(16, "a", 1)]));
    assert_eq!(follow(&mut shard, &mut follower).dead_letters.len(), 1, "kept sessions take no live record");
    assert_eq!(shard.apply_replay(&letters(0, Reason::Late, &[(7, "a", 10)])), replayed(1, 0, 0));
    let commit = follow(&mut shard, &mut follower);
    let out: Vec<_> =
        commit.results.iter().map(|row| (row.pane.as_str(), row.start.0, row.end.0, row.revision)).collect();
    assert_eq!(out, [("retracted", 0, 10, 1), ("retracted", 15, 25, 1), ("replay", 0, 25, 0)]);
    // X is 20, 40, 60 …: once the joined session is gone, nothing is left for the entry.
    shard.apply(&frame(0, 4, 125, &[]));
    follow(&mut shard, &mut follower);
    assert_eq!(shard.apply_replay(&letters(1, Reason::Late, &[(7, "a", 10)])), replayed(0, 1, 0));
}

#[test]
fn what_waits_in_order_takes_what_the_watermark_has_not_passed() {
    for spec in [reordering(), sliding(5)] {
        let spec = JobSpec { replay_ttl: Span(1_000), ..spec };
        let mut shard = owner(&spec);
        shard.announce(&announcement(1, 1, 1_000, &[]));
        shard.apply(&frame(0, 9, 10, &[]));
        shard.apply(&frame(0, 0, 10, &[(8, "a", 1), (12, "a", 2)]));
        commit(&mut shard);
        let asked = letters(0, Reason::NoEventTime, &[(9, "a", 1), (11, "a", 2)]);
        assert_eq!(shard.apply_replay(&asked), replayed(1, 1, 0));
        shard.apply(&frame(0, 2, 20, &[]));
        let commit = commit(&mut shard);
        let times: Vec<_> = commit.reordered.iter().map(|record| record.place.time.0).collect();
        let results: Vec<_> =
            commit.results.iter().map(|row| (row.end.0, row.values[0].to_string())).collect();
        if spec.operator == OperatorSpec::Reorder {
            assert_eq!(times, [11, 12]);
        } else {
            assert_eq!(results, [(11, "2".to_owned()), (12, "3".to_owned())]);
        }
    }
}

#[test]
fn a_window_that_is_kept_is_corrected_from_its_runs_too() {
    let spec = kept(10, 10, 0, 1_000);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 30, &[(1, "a", 1), (2, "b", 1)]));
    shard.set_memory(Some(1));
    follow(&mut shard, &mut follower);
    assert_eq!(shard.state().slices.rows(), 0);
    shard.set_memory(None);
    shard.apply_replay(&letters(0, Reason::Late, &[(3, "a", 10), (4, "c", 10)]));
    let commit = follow(&mut shard, &mut follower);
    let corrected = [
        ("a replay".to_owned(), 10, "2 11".to_owned(), 1),
        ("c replay".to_owned(), 10, "1 10".to_owned(), 0),
    ];
    assert_eq!(shown(&commit.results), corrected);
}

#[test]
fn how_long_windows_are_kept_may_change_with_a_restart() {
    let (short, long) = (kept(10, 10, 0, 0), kept(10, 10, 0, 100));
    let (mut shard, mut follower) = (owner(&short), genesis(&short));
    shard.announce(&announcement(1, 1, 30, &[]));
    shard.apply(&frame(0, 0, 100, &[(1, "a", 1), (25, "a", 1), (31, "a", 1)]));
    follow(&mut shard, &mut follower);
    let take_over = |spec: &JobSpec, state: &ShardState| {
        ShardMachine::take_over(Shard(0), spec, Limits::default(), state.clone(), 8, AssignmentId::default())
            .unwrap()
    };
    // What is gone does not come back; from now on windows are kept.
    let mut shard = take_over(&long, &follower);
    assert_eq!(shard.apply_replay(&letters(0, Reason::Late, &[(25, "a", 1)])), replayed(0, 1, 0));
    shard.announce(&announcement(2, 1, 50, &[]));
    follow(&mut shard, &mut follower);
    assert_eq!(shard.apply_replay(&letters(1, Reason::Late, &[(35, "a", 1)])), replayed(1, 0, 0));
    follow(&mut shard, &mut follower);
    // Without a ttl they go with the next watermark.
    let mut shard = take_over(&short, &follower);
    shard.announce(&announcement(3, 1, 60, &[]));
    follow(&mut shard, &mut follower);
    assert_eq!(shard.apply_replay(&letters(2, Reason::Late, &[(36, "a", 1)])), replayed(0, 1, 0));
}
