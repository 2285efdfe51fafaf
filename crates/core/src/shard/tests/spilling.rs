//! Rows that leave memory: the same results, the same state from log and store, a bounded log.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
};

use super::*;
use crate::{
    aggregate::Layout,
    block::{Change, Entries},
    entry::{EntryKey, all_rows, purged_ranges},
    fragments::{BY_KEY, Fragment, KeyRow},
    job::SessionSpec,
    runs::{ChunkId, Chunks, Part},
    spans::tests::MemoryScratch,
    time::Tick,
};

/// Chunks as a store keeps them.
#[derive(Debug, Default)]
pub(super) struct MemoryChunks(Mutex<HashMap<ChunkId, Arc<[u8]>>>);

impl MemoryChunks {
    pub(super) fn put(&self, id: ChunkId, bytes: Arc<[u8]>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(id, bytes);
    }
}

impl Chunks for MemoryChunks {
    fn read(&self, id: ChunkId) -> Result<Arc<[u8]>, String> {
        let chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.get(&id).map(Arc::clone).ok_or_else(|| "it was never stored".to_owned())
    }
}

/// A local store that follows the commits, as a worker has it.
#[derive(Debug, Default)]
struct Store {
    chunks: Arc<MemoryChunks>,
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    head: Option<Block>,
    /// Index entries of the rows in memory: they end with the run that these become.
    image: Vec<Vec<u8>>,
}

impl Store {
    fn put(&mut self, part: &Part) -> Vec<ChunkId> {
        let mut key = Vec::new();
        EntryKey::Index(part.slice, part.file).encode(&mut key);
        self.entries.insert(key, part.to_index());
        part.held().map(|(id, bytes)| (self.chunks.put(id, bytes), id).1).collect()
    }

    fn take(&mut self, entries: &Entries) {
        for change in entries.iter() {
            match change.unwrap() {
                // Of a snapshot: the store has these rows.
                Change::Upsert(key, _) if EntryKey::decode(key).is_some_and(|key| key.is_base()) => {}
                Change::Upsert(key, value) => drop(self.entries.insert(key.to_vec(), value.to_vec())),
                Change::Delete(key) => drop(self.entries.remove(key)),
            }
        }
    }

    /// Takes a commit; gives the chunks that it has now.
    fn follow(&mut self, job: &JobSpec, commit: &Commit) -> Vec<ChunkId> {
        let mut stored = Vec::new();
        match &commit.spilled {
            None => self.take(&commit.block.entries),
            Some(spilled) => {
                for (from, to) in all_rows() {
                    self.entries.retain(|key, _| !(from <= *key && *key < to));
                }
                for key in self.image.drain(..) {
                    self.entries.remove(&key);
                }
                self.take(&spilled.small.entries);
                stored = spilled.parts.iter().flat_map(|part| self.put(part)).collect();
            }
        }
        if let Some(purged) = commit.block.scalars.purged {
            for (from, to) in purged_ranges(&job.operator, purged) {
                self.entries.retain(|key, _| !(from <= *key && *key < to));
            }
        }
        self.head = Some(Block { entries: Entries::default(), ..commit.block.clone() });
        stored
    }

    fn state(&self, job: &JobSpec) -> ShardState {
        let mut state = ShardState::empty(job);
        state.set_job(JOB);
        state.set_store(self.chunks.clone());
        for (key, value) in &self.entries {
            state.restore_entry(Change::Upsert(key, value)).unwrap();
        }
        state.restore_scalars(self.head.as_ref().unwrap());
        state.load_image().unwrap();
        state
    }
}

#[derive(Clone, Debug)]
enum Event {
    Records(Vec<(i64, u8, i64)>, i64),
    /// Dead letters that come back.
    Replay(Vec<(i64, u8, i64)>),
    Announce(i64),
    Commit,
    Compact,
    Stored,
    /// And whether the store is continued from, and whether there are early results of sessions from then on.
    Crash(bool, bool),
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let records = (prop::collection::vec((0i64..400, 0u8..20, -9i64..9), 0..12), 0i64..380)
        .prop_map(|(rows, watermark)| Event::Records(rows, watermark));
    let replay = prop::collection::vec((0i64..400, 0u8..20, -9i64..9), 1..4).prop_map(Event::Replay);
    let event = prop_oneof![
        6 => records,
        1 => replay,
        2 => (0i64..400).prop_map(Event::Announce),
        6 => Just(Event::Commit),
        1 => Just(Event::Compact),
        2 => Just(Event::Stored),
        1 => any::<(bool, bool)>().prop_map(|(store, early)| Event::Crash(store, early)),
    ];
    prop::collection::vec(event, 1..120)
}

fn without_sequence(state: &ShardState) -> CanonicalState {
    let mut canonical = CanonicalState { sequence: 0, outdated: BTreeMap::new(), ..state.canonical() };
    for (_, emitted, _) in canonical.sessions.values_mut() {
        // One may have been an early one; and one is out of all that have ended.
        *emitted = if *emitted == 1 { 0 } else { *emitted };
    }
    // A fragment in a run ends where no session does: a closing passes that end too.
    if let (Operator::Sessions(_), Some(closing)) = (&state.operator, &mut canonical.closing) {
        closing.done = None;
    }
    canonical
}

/// The early results that are out, not taken back, and not followed by one that counts.
#[derive(Debug, Default)]
struct Provisional(BTreeSet<(EventTime, EventTime, Vec<u8>)>);

impl Provisional {
    /// Leaves what a shard without early results has.
    fn take(&mut self, results: Vec<ResultRow>) -> Vec<ResultRow> {
        let counts = |row: &ResultRow| {
            let window = (row.start, row.end, row.key.clone());
            match row.pane {
                Pane::Early => {
                    self.0.insert(window);
                    false
                }
                Pane::Retracted if row.revision == 1 => !self.0.remove(&window),
                _ => {
                    self.0.remove(&window);
                    true
                }
            }
        };
        results.into_iter().filter(counts).collect()
    }
}

proptest! {
    /// A shard that spills with almost every commit is the same as one that never does, and so is what log and store restore to.
    #[test]
    fn a_shard_that_spills_is_one_that_does_not(
        events in events(), size in 1i64..80, step in 1i64..40, lateness in 0i64..60, limit in 300usize..4_000,
        share in prop_oneof![Just(0usize), 500usize..3_000], chunk in prop_oneof![Just(1usize), 20usize..200], log_limit in 300u64..3_000,
        kind in 0u8..6, gap in 1i64..60, cut in prop::option::of(0i64..100), early in any::<bool>(), ttl in prop_oneof![Just(0i64), 0i64..60],
    ) {
        let job = match kind {
            0 => reordering(),
            1 => sliding(size),
            2 | 3 => {
                let sessions = SessionSpec { gap: Span(gap), cut: cut.map(|cut| Span(gap + cut)) };
                JobSpec { operator: OperatorSpec::Sessions(sessions), replay_ttl: Span(ttl), ..spec(1, 1, lateness) }
            }
            _ => spec(size.max(step), step, lateness),
        };
        let limits = Limits { commit_bytes: limit, snapshot_log_bytes: log_limit, snapshot_step: 40, chunk_bytes: chunk, ..Limits::default() };
        let (mut provisional, mut now) = (Provisional::default(), 0);
        let (mut out, mut plain_out) = (Vec::new(), Vec::new());
        let early = early && matches!(kind, 2 | 3);
        let same = |shard: &ShardMachine, plain: &ShardMachine| -> Result<(), TestCaseError> {
            if !early || (shard.state.closing.is_none() && plain.state.closing.is_none()) {
                prop_assert_eq!(without_sequence(shard.state()), without_sequence(plain.state()));
            }
            Ok(())
        };
        let take_over = |state: ShardState, gives: bool, now: u64| {
            let mut shard = ShardMachine::take_over(Shard(0), &job, limits, state, 7, AssignmentId::default()).unwrap();
            shard.set_memory(Some(share));
            shard.set_scratch(Box::new(MemoryScratch::default()));
            shard.set_early(gives.then_some(Span(1)), Tick(now));
            shard
        };
        let mut shard = take_over(genesis(&job), early, now);
        let mut plain = owner_with(&job, limits);
        let mut log = vec![ShardState::genesis(JOB, &[(Partition(0), Offset(0))])];
        let mut plain_log = log.clone();
        let (mut store, mut stored) = (Store::default(), Vec::new());
        shard.state.set_store(store.chunks.clone());
        // No record has the place of another.
        let (mut next, mut version, mut letter) = (0u64, 0u64, 1u64 << 40);
        // In the end all is out.
        for event in events.into_iter().chain(std::iter::repeat_n(Event::Commit, if early { 40 } else { 0 })) {
            match event {
                Event::Records(rows, watermark) if shard.takes_frames() && plain.takes_frames() => {
                    let keys: Vec<String> = rows.iter().map(|(_, key, _)| key.to_string()).collect();
                    let rows: Vec<_> = rows.iter().zip(&keys).map(|((time, _, value), key)| (*time, key.as_str(), *value)).collect();
                    let frame = frame(0, next, watermark, &rows);
                    prop_assert_eq!(shard.apply(&frame), plain.apply(&frame));
                    next += rows.len() as u64;
                }
                Event::Replay(rows) if shard.takes_frames() && plain.takes_frames() => {
                    let keys: Vec<String> = rows.iter().map(|(_, key, _)| key.to_string()).collect();
                    let rows: Vec<_> = rows.iter().zip(&keys).map(|((time, _, value), key)| (*time, key.as_str(), *value)).collect();
                    let letters = super::replay::letters(letter, Reason::Unreadable, &rows);
                    prop_assert_eq!(shard.apply_replay(&letters), plain.apply_replay(&letters));
                    letter += rows.len() as u64;
                }
                Event::Records(..) | Event::Replay(_) => {}
                Event::Announce(watermark) => {
                    version += 1;
                    shard.announce(&announcement(version, 1, watermark, &[]));
                    plain.announce(&announcement(version, 1, watermark, &[]));
                }
                Event::Commit => {
                    now += 1;
                    shard.begin_early(Tick(now));
                    let (commit, plain_commit) = (shard.plan(), plain.plan());
                    prop_assert_eq!(shard.failed(), None);
                    let results = |commit: &Option<Commit>| commit.as_ref().map(|commit| commit.results.clone()).unwrap_or_default();
                    if early {
                        // What is taken back takes room, so that results are cut elsewhere.
                        out.extend(provisional.take(results(&commit)));
                        plain_out.extend(results(&plain_commit));
                        let both = out.len().min(plain_out.len());
                        prop_assert_eq!(&out[..both], &plain_out[..both]);
                        out.drain(..both);
                        plain_out.drain(..both);
                    } else {
                        prop_assert_eq!(results(&commit), results(&plain_commit));
                    }
                    let closed = shard.state().closing.as_ref().map_or(shard.state().watermark, |closing| closing.done);
                    let left: Vec<_> = provisional.0.iter().filter(|(_, end, _)| Some(*end) <= closed).collect();
                    prop_assert!(left.is_empty(), "early results of what is over: {left:?}");
                    let reordered = |commit: &Option<Commit>| commit.as_ref().map(|commit| commit.reordered.clone()).unwrap_or_default();
                    prop_assert_eq!(reordered(&commit), reordered(&plain_commit));
                    if let Some(commit) = commit {
                        log.push(commit.block.clone());
                        prop_assert_eq!(fold(&job, &log)?.canonical(), shard.state().canonical(), "rebuild = owner");
                        stored.extend(store.follow(&job, &commit));
                        let sequence = commit.block.sequence;
                        prop_assert_eq!(store.state(&job).canonical(), shard.state().canonical(), "store = owner");
                        if let Some(before) = shard.committed(sequence, Offset(sequence)).truncate_before {
                            log.retain(|block| block.sequence >= before.0);
                            prop_assert!(log[0].begins.is_some());
                        }
                    }
                    if let Some(commit) = plain_commit {
                        plain_log.push(commit.block.clone());
                        plain.committed(commit.block.sequence, Offset(0));
                    }
                    same(&shard, &plain)?;
                }
                Event::Compact => if let Some(compaction) = shard.compaction() {
                    let done = compaction.run(|id, bytes| -> Result<(), crate::runs::Unreadable> { store.chunks.put(id, bytes); Ok(()) }).unwrap();
                    let mut key = Vec::new();
                    for input in &done.inputs {
                        key.clear();
                        EntryKey::Index(input.slice, input.file).encode(&mut key);
                        store.entries.remove(&key);
                    }
                    store.put(&done.output);
                    prop_assert!(shard.compacted(done));
                    same(&shard, &plain)?;
                },
                Event::Stored => shard.stored(&std::mem::take(&mut stored)),
                // Where one has come further than the other, they would be asked for different records.
                Event::Crash(..) if early && without_sequence(&fold(&job, &log)?) != without_sequence(&fold(&job, &plain_log)?) => {}
                Event::Crash(from_store, gives) => {
                    let state = if from_store && store.head.is_some() {
                        store.state(&job)
                    } else {
                        let mut state = fold(&job, &log)?;
                        state.set_store(store.chunks.clone());
                        // The store is built anew, with an image of what is in memory.
                        store.entries.clear();
                        store.take(&state.small_entries().entries);
                        let parts: Vec<_> = state.runs().parts().cloned().collect();
                        parts.iter().for_each(|part| drop(store.put(part)));
                        let before: Vec<_> = store.entries.keys().cloned().collect();
                        state.image().iter().for_each(|part| drop(store.put(part)));
                        store.image = store.entries.keys().filter(|key| !before.contains(key)).cloned().collect();
                        store.head = log.last().map(|block| Block { entries: Entries::default(), ..block.clone() });
                        prop_assert_eq!(store.state(&job).canonical(), state.canonical(), "image = state");
                        state
                    };
                    stored.clear();
                    next = state.inputs().first().map_or(0, |input| input.next.0);
                    shard = take_over(state, early && gives, now);
                    let state = fold(&job, &plain_log)?;
                    plain = ShardMachine::take_over(Shard(0), &job, limits, state, 7, AssignmentId::default()).unwrap();
                    same(&shard, &plain)?;
                }
            }
        }
        prop_assert_eq!((out, plain_out), (Vec::new(), Vec::new()));
    }
}

#[test]
fn rows_leave_memory_when_they_are_beyond_their_share_and_windows_close_from_runs() {
    let job = spec(10, 10, 0);
    let mut shard = owner(&job);
    shard.set_memory(Some(0));
    shard.announce(&announcement(1, 1, 100, &[]));
    let chunks = Arc::new(MemoryChunks::default());
    shard.state.set_store(chunks.clone());
    for round in 0..3u64 {
        shard.apply(&frame(0, round * 2, 5, &[(1, "a", 1), (2, "b", 2)]));
        assert_eq!(commit(&mut shard).spilled.unwrap().parts.len(), 1);
        for (id, bytes) in shard.state().runs().held() {
            chunks.put(id, bytes);
            shard.stored(&[id]);
        }
        let (rows, parts) = (shard.state().slices.rows(), shard.state().runs().parts().count());
        assert_eq!((rows, parts as u64), (0, round + 1), "memory is empty");
    }
    shard.apply(&frame(0, 6, 10, &[(1, "c", 1)]));
    assert_eq!(
        shown(&commit(&mut shard).results),
        [
            ("a final".into(), 10, "3 3".into(), 0),
            ("b final".into(), 10, "3 6".into(), 0),
            ("c final".into(), 10, "1 1".into(), 0)
        ]
    );
    assert!(shard.state().runs().is_empty(), "what ended is gone");
}

#[test]
fn a_late_record_meets_no_session_that_a_compaction_has_left_out_of_the_runs() {
    let operator = OperatorSpec::Sessions(SessionSpec { gap: Span(10), cut: None });
    let job = JobSpec { operator, ..spec(1, 1, 0) };
    let (mut shard, mut follower) = (owner(&job), genesis(&job));
    let chunks = Arc::new(MemoryChunks::default());
    shard.state.set_store(chunks.clone());
    shard.set_memory(Some(1 << 20));
    shard.announce(&announcement(1, 1, 100, &[]));
    let mut follow = |shard: &mut ShardMachine| {
        let commit = commit(shard);
        follower.fold(&commit.block).unwrap();
        assert_eq!(follower.canonical(), shard.state().canonical());
        commit
    };
    shard.apply(&frame(0, 0, 1, &[(1, "a", 1)]));
    shard.want_run();
    assert!(follow(&mut shard).spilled.is_some());
    shard.apply(&frame(0, 1, 12, &[]));
    assert_eq!(follow(&mut shard).results.len(), 1);
    let done =
        shard.compaction().expect("all of the run is over").run(|_, _| Ok::<_, crate::runs::Unreadable>(()));
    assert!(shard.compacted(done.unwrap()));
    assert!(shard.state().runs().of_slice(BY_KEY).is_empty());
    // Not too late by itself, as its session goes on until 15.
    shard.apply(&frame(0, 1, 12, &[(5, "a", 1)]));
    follow(&mut shard);
    shard.apply(&frame(0, 2, 15, &[]));
    let results: Vec<_> =
        follow(&mut shard).results.into_iter().map(|row| (row.start.0, row.end.0)).collect();
    assert_eq!(results, [(5, 15)]);
}

#[test]
fn sessions_in_runs_are_looked_up_some_at_a_time_with_a_commit_between_and_after_a_restore_too() {
    let operator = OperatorSpec::Sessions(SessionSpec { gap: Span(10), cut: None });
    let job = JobSpec { operator, ..spec(1, 1, 0) };
    let limits = Limits { looks: 3, ..Limits::default() };
    let (mut shard, mut follower) = (owner_with(&job, limits), genesis(&job));
    let chunks = Arc::new(MemoryChunks::default());
    let keys: Vec<_> = (0..20).map(|n| format!("k{n:02}")).collect();
    let at = |time: i64| keys.iter().map(|key| (time, key.as_str(), 1)).collect::<Vec<_>>();
    shard.state.set_store(chunks.clone());
    shard.set_memory(Some(1 << 20));
    shard.announce(&announcement(1, 1, 11, &[]));
    shard.apply(&frame(0, 0, 1, &at(1)));
    shard.want_run();
    let spilled = commit(&mut shard);
    follower.fold(&spilled.block).unwrap();
    for (id, bytes) in shard.state().runs().held() {
        chunks.put(id, bytes);
    }
    // All go on, so that nothing ends where what is in the run does.
    shard.apply(&frame(0, 20, 11, &at(5)));
    assert!(shard.state().closing.is_some(), "three of twenty have been looked up");
    shard.announce(&announcement(2, 1, 15, &[]));
    let (mut commits, mut results) = (0, Vec::new());
    let mut next = 40;
    while let Some(commit) = shard.plan() {
        assert!(commit.results.len() <= 3, "{} results of three looks", commit.results.len());
        follower.fold(&commit.block).unwrap();
        assert_eq!(follower.canonical(), shard.state().canonical());
        results.extend(commit.results.iter().map(|row| (row.key.clone(), row.start.0, row.end.0)));
        commits += 1;
        let mut state = follower.clone();
        state.set_store(chunks.clone());
        shard = ShardMachine::take_over(Shard(0), &job, limits, state, 7 + commits, AssignmentId::default())
            .unwrap();
        shard.set_memory(Some(1 << 20));
        shard.announce(&announcement(2 + commits, 1, 15, &[]));
        if shard.takes_frames() && next == 40 {
            shard.apply(&frame(0, next, 15, &[]));
            next += 1;
        }
    }
    let expected: Vec<_> = keys.iter().map(|key| (key.clone().into_bytes(), 1, 15)).collect();
    assert_eq!(results, expected, "each once, in order");
    assert!(commits > 12, "{commits} commits");
}

#[test]
fn a_chunk_that_does_not_read_stops_the_shard_before_it_commits() {
    let job = spec(10, 10, 0);
    let mut shard = owner(&job);
    shard.set_memory(Some(0));
    shard.apply(&frame(0, 0, 5, &[(1, "a", 1)]));
    commit(&mut shard);
    let held: Vec<_> = shard.state().runs().held().into_iter().map(|(id, _)| id).collect();
    shard.state.set_store(Arc::new(MemoryChunks::default()));
    shard.stored(&held);
    shard.announce(&announcement(1, 1, 100, &[]));
    shard.apply(&frame(0, 1, 100, &[(50, "a", 1)]));
    assert!(shard.plan().is_none());
    let Some(Failure::Unreadable(unreadable)) = shard.failed() else { panic!("{:?}", shard.failed()) };
    assert_eq!(unreadable.reason, "it was never stored");
}

#[test]
fn frames_wait_while_the_store_is_behind_and_go_on_when_it_has_the_rows() {
    let job = spec(10, 10, 0);
    let mut shard = owner(&job);
    shard.set_memory(Some(10));
    for round in 0..2u64 {
        assert!(shard.takes_frames());
        shard.apply(&frame(0, round, 5, &[(1, "a", 1)]));
        commit(&mut shard);
    }
    assert!(!shard.takes_frames(), "the first run is not stored, the second would be as large");
    let held: Vec<_> = shard.state().runs().held().into_iter().map(|(id, _)| id).collect();
    shard.stored(&held);
    assert!(shard.takes_frames());
    shard.set_memory(None);
    assert!(shard.takes_frames(), "without a store the rows stay in memory");
}

/// Design §8, test 2, and issue 3: the log is at most three times the live state, and what a few commits hold.
fn longest_log(
    job: &JobSpec,
    share: Option<usize>,
    rounds: u64,
    record: impl Fn(u64) -> (i64, String, i64),
) -> (usize, usize) {
    let limits = Limits { snapshot_log_bytes: 20_000, snapshot_step: 2_000, ..Limits::default() };
    let mut shard = owner_with(job, limits);
    shard.set_memory(share);
    let chunks = Arc::new(MemoryChunks::default());
    shard.state.set_store(chunks.clone());
    let mut log: std::collections::VecDeque<(u64, usize)> = std::collections::VecDeque::new();
    let (mut longest, mut live) = (0, 0);
    for round in 0..rounds {
        let (time, key, watermark) = record(round);
        shard.apply(&frame(0, round, watermark, &[(time, &key, 1)]));
        shard.announce(&announcement(round + 1, 1, watermark, &[]));
        let Some(commit) = shard.plan() else { continue };
        let bytes = commit.block.chunks(1 << 20).iter().map(Vec::len).sum();
        log.push_back((commit.block.sequence, bytes));
        let sequence = commit.block.sequence;
        if let Some(before) = shard.committed(sequence, Offset(sequence)).truncate_before {
            log.retain(|(sequence, _)| *sequence >= before.0);
        }
        for (id, bytes) in shard.state().runs().held() {
            chunks.put(id, bytes);
            shard.stored(&[id]);
        }
        while let Some(compaction) = shard.compaction() {
            let done = compaction.run(|id, bytes| -> Result<(), crate::runs::Unreadable> {
                chunks.put(id, bytes);
                Ok(())
            });
            shard.compacted(done.unwrap());
        }
        if round % 500 == 0 {
            live = live.max(encoded(&shard.state().canonical(), &shard.state().layout));
            longest = longest.max(log.iter().map(|(_, bytes)| bytes).sum());
        }
    }
    assert_eq!(shard.failed(), None);
    (longest, live)
}

/// What the rows take in a block.
fn encoded(state: &CanonicalState, layout: &Layout) -> usize {
    let mut block = Block::default();
    for ((slice, key), row) in &state.rows {
        let (mut entry, mut value) = (Vec::new(), Vec::new());
        EntryKey::Row(*slice, key).encode(&mut entry);
        layout.encode(row.row(), &mut value);
        block.entries.upsert(&entry, &value);
    }
    for ((start, key), (end, emitted, row)) in &state.sessions {
        let session = Fragment { start: *start, end: *end, emitted: *emitted, row: row.clone() };
        let (mut entry, mut value) = (Vec::new(), Vec::new());
        EntryKey::Base(BY_KEY, key).encode(&mut entry);
        KeyRow { hides: false, fragments: vec![session] }.encode(layout, &mut value);
        block.entries.upsert(&entry, &value);
    }
    for (place, record) in &state.buffered {
        let (mut entry, mut value) = (Vec::new(), Vec::new());
        EntryKey::Buffered(*place).encode(&mut entry);
        record.encode(&mut value);
        block.entries.upsert(&entry, &value);
    }
    block.entries.len()
}

#[test]
fn the_log_stays_within_three_times_the_live_state_over_many_commits() {
    let tumbling = spec(1_000_000, 1_000_000, 0);
    let hopping = spec(40_000, 10_000, 5_000);
    let one_window = |round: u64| (1, format!("key-{}", round * 7_919 % 5_000), 5);
    let moving =
        |round: u64| ((round * 4) as i64, format!("key-{}", round * 7_919 % 5_000), (round * 4) as i64 - 100);
    type Case<'a> = (&'a str, &'a JobSpec, Option<usize>, &'a dyn Fn(u64) -> (i64, String, i64));
    let reorder = reordering();
    let delayed = |round: u64| {
        ((round * 4) as i64, format!("key-{}", round * 7_919 % 5_000), (round * 4) as i64 - 20_000)
    };
    let sessions = OperatorSpec::Sessions(SessionSpec { gap: Span(20_000), cut: None });
    let sessions = JobSpec { operator: sessions, ..spec(1, 1, 5_000) };
    let cases: [Case<'_>; 8] = [
        ("in memory", &tumbling, None, &one_window),
        ("with runs", &tumbling, Some(200_000), &one_window),
        ("moving, in memory", &hopping, None, &moving),
        ("moving, with runs", &hopping, Some(200_000), &moving),
        ("sessions, in memory", &sessions, None, &moving),
        ("sessions, with runs", &sessions, Some(200_000), &moving),
        ("reordering, in memory", &reorder, None, &delayed),
        ("reordering, with runs", &reorder, Some(200_000), &delayed),
    ];
    for (name, job, share, record) in cases {
        let (longest, live) = longest_log(job, share, 100_000, record);
        assert!(live > 100_000, "{name}: {live} bytes of state");
        let bound = 3 * live + 20_000;
        assert!(longest <= bound, "{name}: {longest} bytes of log for {live} bytes of state");
    }
}
