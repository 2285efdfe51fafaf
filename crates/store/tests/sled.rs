//! The store in sled against its twin in memory, and against kills, damage and foreign directories.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "helpers of tests are tests"
)]

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::collection::{btree_map, btree_set, vec};
use proptest::prelude::*;
use tidegate_store::{Changes, Error, Identity, MemoryStore, ShardStore, Stores};

const JOB: [u8; 16] = *b"0123456789abcdef";

/// Everything a store holds.
#[derive(Debug, PartialEq)]
struct Contents {
    identity: Option<Identity>,
    meta: Option<Vec<u8>>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
}

fn contents(store: &impl ShardStore) -> Result<Contents, Error> {
    let mut entries = BTreeMap::new();
    let mut last = None;
    store.scan(&mut |key, value| {
        assert!(last.as_deref() < Some(key), "keys out of order");
        last = Some(key.to_vec());
        entries.insert(key.to_vec(), value.to_vec());
        ControlFlow::Continue(())
    })?;
    Ok(Contents { identity: store.identity()?, meta: store.meta()?, entries })
}

const fn identity(sequence: u64) -> Identity {
    Identity { job: JOB, incarnation: 5, sequence, changelog_offset: 10 * sequence }
}

fn cases(default: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: asked.map_or(default, |cases| cases.parse().unwrap()),
        failure_persistence: None,
        ..ProptestConfig::default()
    }
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Changes),
    Wipe,
    Sync,
    Reopen,
}

fn key() -> impl Strategy<Value = Vec<u8>> {
    vec(0_u8..4, 0..4)
}

fn step() -> impl Strategy<Value = Step> {
    let apply = (
        btree_map(key(), vec(any::<u8>(), 0..40), 0..30),
        btree_set(key(), 0..10),
        vec((key(), key()), 0..3),
        proptest::option::of(vec(any::<u8>(), 0..20)),
        any::<u64>(),
    );
    let apply = apply.prop_map(|(upserts, deletes, purge_below, meta, sequence)| {
        let identity = identity(sequence >> 8);
        Step::Apply(Changes { upserts, deletes, purge_below, meta, identity })
    });
    prop_oneof![20 => apply, 1 => Just(Step::Wipe), 1 => Just(Step::Sync), 1 => Just(Step::Reopen)]
}

proptest! {
    #![proptest_config(cases(40))]

    #[test]
    fn sled_and_memory_hold_the_same(steps in vec((0_usize..2, step()), 1..40)) {
        let dir = tempfile::tempdir().unwrap();
        let open = || {
            let stores = Stores::open(dir.path(), JOB).unwrap();
            [stores.shard(0).unwrap(), stores.shard(11).unwrap()]
        };
        let mut disk = Some(open());
        let mut memory = [MemoryStore::new(), MemoryStore::new()];
        for (at, step) in steps {
            let shard = &mut disk.as_mut().unwrap()[at];
            match step {
                Step::Apply(changes) => {
                    shard.apply(&changes).unwrap();
                    memory[at].apply(&changes).unwrap();
                }
                Step::Wipe => {
                    shard.wipe().unwrap();
                    memory[at].wipe().unwrap();
                }
                Step::Sync => shard.sync().unwrap(),
                Step::Reopen => {
                    drop(disk.take());
                    disk = Some(open());
                }
            }
            for (shard, memory) in disk.as_ref().unwrap().iter().zip(&memory) {
                prop_assert_eq!(contents(shard).unwrap(), contents(memory).unwrap());
            }
        }
    }
}

#[test]
fn changes_of_several_transactions_are_applied_as_one() {
    let dir = tempfile::tempdir().unwrap();
    let stores = Stores::open(dir.path(), JOB).unwrap();
    let mut disk = stores.shard(3).unwrap();
    let mut memory = MemoryStore::new();
    let numbered = |number: u32| number.to_be_bytes().to_vec();
    let mut many = Changes::at(identity(1));
    many.upserts = (0..40_000).map(|number| (numbered(number), vec![1; 20])).collect();
    many.deletes = (100..20_000).map(numbered).collect();
    let mut purge = Changes::at(identity(2));
    purge.upserts.insert(numbered(30_000), vec![9]);
    purge.purge_below.push((numbered(50), numbered(39_000)));
    let mut large = Changes::at(identity(3));
    large.upserts = (0..40).map(|number| (numbered(number), vec![2; 1 << 20])).collect();
    for changes in [many, purge, large] {
        disk.apply(&changes).unwrap();
        memory.apply(&changes).unwrap();
        assert_eq!(contents(&disk).unwrap(), contents(&memory).unwrap());
    }
    disk.sync().unwrap();
    drop((disk, stores));
    let stores = Stores::open(dir.path(), JOB).unwrap();
    assert_eq!(contents(&stores.shard(3).unwrap()).unwrap(), contents(&memory).unwrap());
}

#[test]
fn a_held_directory_is_refused_and_named_with_its_holder() {
    let dir = tempfile::tempdir().unwrap();
    let _held = Stores::open(dir.path(), JOB).unwrap();
    let error = Stores::open(dir.path(), JOB).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Locked { holder: Some(pid), .. } if pid == std::process::id()));
    assert!(text.contains(dir.path().to_str().unwrap()), "{text}");
}

#[test]
fn the_cache_of_another_job_is_wiped_and_other_files_are_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::write(dir.path().join("cache-9-other"), "another format").unwrap();
    write_history(dir.path(), 3);
    let foreign = Stores::open(dir.path(), [9; 16]).unwrap();
    assert_eq!(contents(&foreign.shard(0).unwrap()).unwrap().identity, None);
    drop(foreign);
    let back = Stores::open(dir.path(), JOB).unwrap();
    assert_eq!(contents(&back.shard(0).unwrap()).unwrap().identity, None);
    drop(back);
    let mut names: Vec<_> = fs::read_dir(dir.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert_eq!(names, ["cache-2-30313233343536373839616263646566-1", "lock", "notes.txt"]);
}

// ---- kills and damage: the store is found at some step of a known history ----

/// Step `sequence` of the history that the tests below write: overlapping upserts, deletes, a purge, all told apart.
fn history(sequence: u64) -> Changes {
    let mut changes = Changes::at(identity(sequence));
    let numbered = |number: u64| number.to_be_bytes().to_vec();
    for at in 0..300 {
        let value = [numbered(sequence), vec![3; 40]].concat();
        changes.upserts.insert(numbered((sequence * 37 + at * 11) % 5000), value);
    }
    changes.deletes = (0..20).map(|at| numbered((sequence * 53 + at) % 5000)).collect();
    if sequence.is_multiple_of(5) {
        let from = (sequence * 97) % 5000;
        changes.purge_below.push((numbered(from), numbered(from + 200)));
    }
    changes.meta = Some(numbered(sequence));
    changes
}

/// What the history holds after `sequence` steps.
fn expected(sequence: u64) -> Contents {
    let mut memory = MemoryStore::new();
    for sequence in 1..=sequence {
        memory.apply(&history(sequence)).unwrap();
    }
    contents(&memory).unwrap()
}

fn write_history(dir: &Path, steps: u64) {
    let stores = Stores::open(dir, JOB).unwrap();
    let mut shard = stores.shard(0).unwrap();
    for sequence in 1..=steps {
        shard.apply(&history(sequence)).unwrap();
        if sequence % 10 == 0 {
            shard.sync().unwrap();
        }
    }
}

/// Not a test of its own: what the killed process of the test below runs.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(dir) = std::env::var_os("TIDEGATE_STORE_CHILD") else { return };
    let stores = Stores::open(Path::new(&dir), JOB).unwrap();
    let mut shard = stores.shard(0).unwrap();
    let reached = shard.identity().unwrap().map_or(0, |identity| identity.sequence);
    for sequence in reached + 1.. {
        shard.apply(&history(sequence)).unwrap();
        shard.sync().unwrap();
        println!("\nsynced {sequence}");
    }
}

#[test]
fn a_killed_process_leaves_a_whole_state_no_older_than_its_last_sync() {
    let dir = tempfile::tempdir().unwrap();
    let mut reached = 0;
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_writes_until_it_is_killed", "--nocapture"])
            .env("TIDEGATE_STORE_CHILD", dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let synced = lines
            .by_ref()
            .filter_map(|line| line.unwrap().strip_prefix("synced ").map(|n| n.parse::<u64>().unwrap()))
            .nth(5 + round)
            .unwrap();
        child.kill().unwrap();
        child.wait().unwrap();

        let stores = Stores::open(dir.path(), JOB).unwrap();
        let found = contents(&stores.shard(0).unwrap()).unwrap();
        let sequence = found.identity.unwrap().sequence;
        assert!(sequence >= synced && synced > reached, "{sequence} {synced} {reached}");
        assert_eq!(found, expected(sequence));
        reached = sequence;
    }
}

#[derive(Clone, Debug)]
enum Damage {
    Flip(u8),
    Truncate,
    Append(Vec<u8>),
    Garbage(Vec<u8>),
    Remove,
}

fn damage() -> impl Strategy<Value = Damage> {
    prop_oneof![
        6 => (1_u8..).prop_map(Damage::Flip),
        2 => Just(Damage::Truncate),
        1 => vec(any::<u8>(), 1..2000).prop_map(Damage::Append),
        1 => vec(any::<u8>(), 0..200).prop_map(Damage::Garbage),
        1 => Just(Damage::Remove),
    ]
}

fn inflict(path: &Path, position: f64, damage: &Damage) {
    let mut bytes = fs::read(path).unwrap();
    let at = (position * bytes.len() as f64) as usize;
    match damage {
        Damage::Flip(mask) => {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= mask;
            }
        }
        Damage::Truncate => bytes.truncate(at),
        Damage::Append(more) => bytes.extend(more),
        Damage::Garbage(all) => bytes.clone_from(all),
        Damage::Remove => return fs::remove_file(path).unwrap(),
    }
    fs::write(path, bytes).unwrap();
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
        .into_iter()
        .flat_map(|path| if path.is_dir() { self::files(&path) } else { vec![path] })
        .filter(|path| !path.ends_with("lock"))
        .collect()
}

proptest! {
    #![proptest_config(cases(60))]

    /// Damage is found, or it did no harm, or it cost the newest steps: never a mixture.
    #[test]
    fn a_damaged_directory_opens_at_a_whole_state_or_empty(
        steps in 1_u64..60,
        blows in vec((any::<prop::sample::Index>(), 0.0_f64..1.0, damage()), 1..4),
    ) {
        let dir = tempfile::tempdir().unwrap();
        write_history(dir.path(), steps);
        for (file, position, damage) in blows {
            let files = files(dir.path());
            if !files.is_empty() {
                inflict(file.get::<PathBuf>(&files), position, &damage);
            }
        }
        let stores = Stores::open(dir.path(), JOB).unwrap();
        let mut shard = stores.shard(0).unwrap();
        match contents(&shard) {
            Ok(found) => {
                let sequence = found.identity.map_or(0, |identity| identity.sequence);
                prop_assert!(found == expected(sequence), "a mixture at {}", sequence);
            }
            Err(Error::Damaged { .. }) => shard.wipe().unwrap(),
            Err(other) => return Err(TestCaseError::fail(other.to_string())),
        }
        let next = shard.identity().unwrap().map_or(1, |identity| identity.sequence + 1);
        let applied = shard.apply(&history(next)).and_then(|()| shard.sync());
        prop_assert!(matches!(applied, Ok(()) | Err(Error::Damaged { .. })), "{:?}", applied);
        if applied.is_err() {
            shard.wipe().unwrap();
            shard.apply(&history(next)).unwrap();
        }
    }
}
