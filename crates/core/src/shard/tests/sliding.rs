//! Sliding windows: what the simulation has not, and memory as it is at a size that it has not.

use super::{spilling::MemoryChunks, *};
use crate::{ordered::Place, spans::tests::MemoryScratch};

#[test]
fn a_window_takes_values_as_they_are() {
    let aggregates = vec![AggregateSpec::new("which", AggregateFn::Collect { limit: 5 }, Some(0))];
    let spec = JobSpec { columns: vec![ColumnSpec::as_is("/v")], aggregates, ..sliding(10) };
    let mut shard = owner(&spec);
    shard.announce(&announcement(1, 1, 1_000, &[]));
    let mut asked = frame(0, 0, 20, &[]);
    asked.rows = Rows::of(&spec.columns);
    for (row, (time, value)) in
        (0..).zip([(1, Some("\"one")), (5, None), (6, Some("\"six")), (12, Some("12"))])
    {
        let text = value.unwrap_or_default().as_bytes();
        let end = value.map(|value| i64::try_from(value.len()).unwrap());
        asked.rows.push(row, EventTime(time), b"a", &[end], text);
        asked.rows.payloads.push((row, Arc::default()));
    }
    asked.to = Offset(4);
    shard.apply(&asked);
    let commit = commit(&mut shard);
    let values: Vec<_> = commit.results.iter().map(|row| row.values[0].to_string()).collect();
    assert_eq!(values, [r#"["one"]"#, r#"["one"]"#, r#"["one","six"]"#, r#"["six",12]"#]);
}

/// A shard of which at most so much is in memory, and everything that came of it.
struct Bounded {
    shard: ShardMachine,
    chunks: Arc<MemoryChunks>,
    share: Option<usize>,
    log: Vec<Block>,
    results: Vec<ResultRow>,
    most: usize,
    traffic: Traffic,
}

impl Bounded {
    fn new(job: &JobSpec, share: Option<usize>) -> Self {
        let mut shard = owner(job);
        let chunks = Arc::new(MemoryChunks::default());
        Self::equip(&mut shard, &chunks, share);
        let log = vec![ShardState::genesis(JOB, &[(Partition(0), Offset(0))])];
        Self { shard, chunks, share, log, results: Vec::new(), most: 0, traffic: Traffic::default() }
    }

    fn equip(shard: &mut ShardMachine, chunks: &Arc<MemoryChunks>, share: Option<usize>) {
        shard.state.set_store(chunks.clone());
        shard.set_memory(share);
        shard.set_scratch(Box::new(MemoryScratch::default()));
        shard.announce(&announcement(1, 1, i64::MAX, &[]));
    }

    /// Commits until nothing waits.
    fn commit_all(&mut self) {
        while let Some(commit) = self.shard.plan() {
            self.most = self.most.max(self.shard.span_bytes().0);
            self.results.extend(commit.results);
            let sequence = commit.block.sequence;
            self.log.push(commit.block);
            if let Some(before) = self.shard.committed(sequence, Offset(sequence)).truncate_before {
                self.log.retain(|block| block.sequence >= before.0);
            }
            for (id, bytes) in self.shard.state().runs().held() {
                self.chunks.put(id, bytes);
                self.shard.stored(&[id]);
            }
            let Traffic { left, back } = self.shard.take_span_traffic();
            self.traffic = Traffic { left: self.traffic.left + left, back: self.traffic.back + back };
        }
        assert_eq!(self.shard.failed(), None);
    }

    /// Is restored from the log, with scratch that is empty.
    fn crash(&mut self, job: &JobSpec) {
        let mut state = ShardState::empty(job);
        state.set_store(self.chunks.clone());
        self.log.iter().for_each(|block| state.fold(block).unwrap());
        self.shard =
            ShardMachine::take_over(Shard(0), job, Limits::default(), state, 8, AssignmentId::default())
                .unwrap();
        Self::equip(&mut self.shard, &self.chunks, self.share);
    }
}

#[test]
fn thousands_of_keys_and_one_of_thousands_of_records_have_the_same_results_in_a_tenth_of_the_memory() {
    const SHARE: usize = 600_000;
    let job = sliding(30_000);
    let (mut bounded, mut free) = (Bounded::new(&job, Some(SHARE)), Bounded::new(&job, None));
    let mut due = 0;
    for round in 0..60i64 {
        let names: Vec<_> = (0..1_000)
            .map(|at| {
                if at % 2 == 0 {
                    "one".to_owned()
                } else {
                    format!("k{}", (round * 1_000 + at) * 7_919 % 6_000)
                }
            })
            .collect();
        // Out of order by up to 300.
        let times = (0..1_000i64).map(|at| round * 1_000 + at - at * 37 % 300);
        due += times.clone().filter(|time| *time < 59_700).count();
        let rows: Vec<_> = times.zip(&names).map(|(time, name)| (time, name.as_str(), time % 17)).collect();
        let frame = frame(0, u64::try_from(round).unwrap() * 1_000, round * 1_000 + 700, &rows);
        for shard in [&mut bounded, &mut free] {
            assert_eq!(shard.shard.apply(&frame), Applied::Covered);
            shard.commit_all();
            assert!(shard.shard.takes_frames());
        }
        if round % 20 == 15 {
            bounded.crash(&job);
        }
    }
    let place = |row: &ResultRow| {
        let (partition, offset) = row.record.unwrap();
        Place { time: row.end, partition, offset }
    };
    assert!(bounded.results.is_sorted_by_key(place), "in order of their records");
    assert_eq!(bounded.results.len(), due);
    assert!(bounded.results == free.results, "the same with less memory");
    let Traffic { left, back } = bounded.traffic;
    assert!(left > 20_000 && back > 15_000, "{left} left, {back} came back");
    assert_eq!(free.traffic, Traffic::default());
    assert!(bounded.most <= SHARE / 2 + 10_000, "{} bytes of spans at a commit", bounded.most);
    assert!(free.most > 10 * bounded.most, "{} bytes of spans without a bound", free.most);
}

#[test]
fn scratch_that_loses_a_page_stops_the_shard_before_it_commits() {
    let job = sliding(1_000);
    let mut shard = owner(&job);
    let scratch = MemoryScratch::default();
    shard.set_memory(Some(0));
    shard.set_scratch(Box::new(scratch.clone()));
    shard.announce(&announcement(1, 1, i64::MAX, &[]));
    shard.apply(&frame(0, 0, 10, &[(5, "a", 1), (6, "b", 1)]));
    assert_eq!(commit(&mut shard).results.len(), 2);
    assert!(scratch.pages() > 0, "there is no room in memory");
    scratch.damage();
    shard.apply(&frame(0, 2, 20, &[(15, "a", 1)]));
    assert!(shard.plan().is_none());
    assert!(matches!(shard.failed(), Some(Failure::Scratch(_))), "{:?}", shard.failed());
}
