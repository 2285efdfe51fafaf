use super::*;
use crate::job::SessionSpec;

fn spec_of(gap: i64, lateness: i64) -> JobSpec {
    let operator = OperatorSpec::Sessions(SessionSpec { gap: Span(gap), cut: None });
    JobSpec { operator, ..spec(10, 10, lateness) }
}

fn windows(commit: &Commit) -> Vec<(String, i64, i64, u32, String)> {
    let window = |row: &ResultRow| {
        let name = format!("{} {}", String::from_utf8_lossy(&row.key), row.pane.as_str());
        (
            name,
            row.start.0,
            row.end.0,
            row.revision,
            row.values.first().map(ToString::to_string).unwrap_or_default(),
        )
    };
    commit.results.iter().map(window).collect()
}

fn row(name: &str, start: i64, end: i64, revision: u32, count: &str) -> (String, i64, i64, u32, String) {
    (name.to_owned(), start, end, revision, count.to_owned())
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
fn a_session_closes_a_gap_after_its_last_record() {
    let spec = spec_of(10, 0);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 100, &[]));
    shard.apply(&frame(0, 0, 14, &[(1, "b", 5), (8, "b", 7), (4, "a", 1), (19, "a", 1)]));
    assert_eq!(windows(&follow(&mut shard, &mut follower)), [row("a final", 4, 14, 0, "1")]);
    shard.apply(&frame(0, 4, 18, &[]));
    assert_eq!(windows(&follow(&mut shard, &mut follower)), [row("b final", 1, 18, 0, "2")]);
    assert_eq!(shard.state().open_rows(), 1, "only the open session is kept");
}

#[test]
fn late_records_correct_retract_and_reopen_sessions() {
    let spec = spec_of(10, 50);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 40, &[(0, "a", 5), (20, "a", 7), (38, "a", 1)]));
    let out = [row("a final", 0, 10, 0, "1"), row("a final", 20, 30, 0, "1")];
    assert_eq!(windows(&follow(&mut shard, &mut follower)), out);
    shard.apply(&frame(0, 3, 40, &[(0, "a", 5)]));
    assert_eq!(windows(&follow(&mut shard, &mut follower)), [row("a late", 0, 10, 1, "2")]);
    shard.apply(&frame(0, 4, 40, &[(29, "a", 5), (5, "a", 5)]));
    let joined = [
        row("a retracted", 0, 10, 2, "null"),
        row("a retracted", 20, 30, 1, "null"),
        row("a late", 0, 15, 0, "3"),
    ];
    assert_eq!(windows(&follow(&mut shard, &mut follower)), joined, "[20, 48) is open again");
    shard.apply(&frame(0, 6, 48, &[]));
    assert_eq!(windows(&follow(&mut shard, &mut follower)), [row("a final", 20, 48, 0, "3")]);
}

#[test]
fn a_record_is_merged_before_it_is_judged_and_what_has_no_session_left_is_a_dead_letter() {
    let spec = spec_of(10, 5);
    let (mut shard, mut follower) = (owner(&spec), genesis(&spec));
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 20, &[(0, "a", 1), (12, "a", 1)]));
    assert_eq!(windows(&follow(&mut shard, &mut follower)), [row("a final", 0, 10, 0, "1")]);
    // X is 15: [0, 10) is gone. 4 makes [4, 14), which touches [12, 22) and counts there; the session of 3 would be gone too.
    shard.apply(&frame(0, 2, 20, &[(4, "a", 1), (3, "b", 1), (11, "a", 1)]));
    let commit = follow(&mut shard, &mut follower);
    let dead: Vec<_> =
        commit.dead_letters.iter().map(|letter| (letter.offset.0, letter.reason, letter.missed)).collect();
    let missed = |start, end| Some((EventTime(start), EventTime(end)));
    let expected = [(3, Reason::Late, missed(3, 13))];
    assert_eq!(dead, expected);
    assert_eq!(windows(&commit), [], "[4, 22) is open");
}

#[test]
fn what_comes_and_goes_between_two_commits_is_never_logged() {
    let spec = spec_of(10, 0);
    let mut shard = owner(&spec);
    shard.announce(&announcement(1, 1, 1_000, &[]));
    shard.apply(&frame(0, 0, 50, &[(0, "a", 1), (20, "b", 1)]));
    let commit = commit(&mut shard);
    assert_eq!(commit.results.len(), 2);
    let keys: Vec<_> = commit
        .block
        .entries
        .iter()
        .map(|change| match change.unwrap() {
            crate::block::Change::Upsert(key, _) | crate::block::Change::Delete(key) => key[0],
        })
        .collect();
    assert_eq!(keys, [0], "the position alone");
}

#[test]
fn a_closing_of_many_sessions_spans_commits_and_goes_on_after_a_restore() {
    let spec = spec_of(10, 30);
    let limits = Limits { commit_bytes: 600, ..Limits::default() };
    let mut shard = owner_with(&spec, limits);
    let mut follower = genesis(&spec);
    shard.announce(&announcement(1, 1, 1_000, &[]));
    let rows: Vec<_> = (0..40).map(|n| (n / 20, format!("k{n:02}"), 1)).collect();
    let rows: Vec<_> = rows.iter().map(|(time, key, value)| (*time, key.as_str(), *value)).collect();
    shard.apply(&frame(0, 0, 25, &rows));
    let mut seen = Vec::new();
    let mut commits = 0;
    while let Some(commit) = shard.plan() {
        follower.fold(&commit.block).unwrap();
        assert_eq!(follower.canonical(), shard.state().canonical());
        seen.extend(commit.results.iter().map(|row| (row.end.0, row.key.clone())));
        commits += 1;
        // Another owner goes on.
        shard = ShardMachine::take_over(
            Shard(0),
            &spec,
            limits,
            follower.clone(),
            8 + commits,
            AssignmentId::default(),
        )
        .unwrap();
        shard.announce(&announcement(1, 1, 1_000, &[]));
    }
    assert!(commits > 3, "{commits} commits");
    assert_eq!(seen.len(), 40);
    assert!(seen.is_sorted(), "in (end, key) order");
    seen.dedup();
    assert_eq!(seen.len(), 40, "each once");
}

/// By key, start and end: revision, pane, count.
type Folded = std::collections::BTreeMap<(Vec<u8>, i64, i64), (u32, Pane, String)>;

proptest! {
    /// Disorder up to the allowed lateness: what a reader folds equals the batch, whatever the commits (design §8.12).
    #[test]
    fn folded_results_equal_the_batch(
        steps in prop::collection::vec((0i64..30, 0u8..3, 0i64..25), 1..80), gap in 1i64..30, commits in prop::collection::vec(any::<bool>(), 80)
    ) {
        let spec = spec_of(gap, 25);
        let limits = Limits { commit_bytes: 2_000, snapshot_log_bytes: 500, snapshot_step: 50, ..Limits::default() };
        let mut shard = owner_with(&spec, limits);
        let mut follower = genesis(&spec);
        shard.announce(&announcement(1, 1, i64::MAX / 2, &[]));
        let mut folded = Folded::new();
        let mut records = Vec::new();
        let mut largest = 0;
        let mut drain = |shard: &mut ShardMachine, follower: &mut ShardState| {
            while let Some(commit) = shard.plan() {
                follower.fold(&commit.block).unwrap();
                assert_eq!(follower.canonical(), shard.state().canonical());
                for row in &commit.results {
                    let window = (row.key.clone(), row.start.0, row.end.0);
                    let expected = folded.get(&window).map_or(0, |(revision, ..)| revision + 1);
                    assert_eq!(row.revision, expected, "revisions count up: {row:?}");
                    folded.insert(window, (row.revision, row.pane, row.values[0].to_string()));
                }
                shard.committed(commit.block.sequence, Offset(commit.block.sequence));
                if !shard.has_output() { break }
            }
        };
        for (at, (progress, key, behind)) in steps.iter().enumerate() {
            largest += progress;
            let time = largest - behind;
            records.push((*key, time));
            let applied = shard.apply(&frame(0, at as u64, largest, &[(time, &key.to_string(), 1)]));
            prop_assert_eq!(applied, Applied::Covered);
            if commits[at] || !shard.takes_frames() { drain(&mut shard, &mut follower); }
        }
        shard.apply(&frame(0, steps.len() as u64, largest + 1_000, &[]));
        drain(&mut shard, &mut follower);
        let result: Vec<_> = folded.into_iter().filter(|(_, (_, pane, _))| *pane != Pane::Retracted)
            .map(|((key, start, end), (_, _, count))| (String::from_utf8(key).unwrap(), start, end, count)).collect();
        records.sort_unstable();
        let mut expected: Vec<(String, i64, i64, u64)> = Vec::new();
        for (key, time) in records {
            match expected.last_mut() {
                Some((k, _, end, count)) if *k == key.to_string() && time < *end => (*end, *count) = (time + gap, *count + 1),
                _ => expected.push((key.to_string(), time, time + gap, 1)),
            }
        }
        let expected: Vec<_> = expected.into_iter().map(|(k, s, e, c)| (k, s, e, c.to_string())).collect();
        prop_assert_eq!(result, expected);
    }
}
