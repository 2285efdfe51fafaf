//! What a `read_committed` reader has seen, and the invariants that hold for it at every commit (design §6).

mod answer;
mod bounds;
mod letters;
mod positions;
mod progress;
mod replays;
mod results;

use std::{cell::Cell, collections::BTreeMap, collections::BTreeSet, rc::Rc};

use tidegate_core::{
    aggregate::{Layout, RowBuf},
    announcement::Announcement,
    job::OperatorSpec,
    shard::{ResultRow, ShardState},
    time::{EventTime, Offset, Partition, Shard, Watermark},
};

use self::letters::Letter;
use crate::{
    changelog::JOB,
    context::CommitRequest,
    oracle::{self, Answer, Window},
    reordered::Reordered,
    scenario::Scenario,
    topic::{Record, Topic},
    violation::{ensure, violated},
};

#[derive(Debug)]
pub struct Ledger {
    scenario: Rc<Scenario>,
    topic: Rc<Topic>,
    shards: Vec<Account>,
    /// Bytes of a row without records.
    empty_row: usize,
    results: BTreeMap<Window, Vec<ResultRow>>,
    /// The commit of the last result of each window.
    emitted: BTreeMap<Window, u64>,
    /// Windows with an early result that is the last.
    early: BTreeSet<Window>,
    letters: BTreeMap<(Partition, Offset), Letter>,
    /// Commits so far.
    commits: u64,
    announced: Vec<Announcement>,
    raised: BTreeMap<Partition, Vec<(Offset, EventTime)>>,
    answer: Option<Answer>,
    split: Cell<u64>,
}

/// One shard's committed chain.
#[derive(Debug)]
struct Account {
    /// What the committed blocks fold to.
    state: ShardState,
    /// Whose last commit was.
    committer: u64,
    retired: BTreeSet<u64>,
    dead: BTreeMap<Partition, u64>,
    reordered: Reordered,
    /// The most rows it ever held.
    most_rows: usize,
    /// The most bytes that their summaries ever took.
    most_summaries: usize,
    /// Bytes of the largest block: a snapshot begins and ends with whole ones.
    largest_block: usize,
}

impl Ledger {
    pub fn new(scenario: Rc<Scenario>, topic: Rc<Topic>) -> Self {
        let starts: Vec<_> =
            (0..scenario.partitions).map(Partition).map(|p| (p, topic.log(p).start)).collect();
        let mut state = ShardState::empty(&scenario.job);
        state.fold(&ShardState::genesis(JOB, &starts)).expect("genesis begins a log");
        let account = || Account {
            state: state.clone(),
            committer: 0,
            retired: BTreeSet::new(),
            dead: BTreeMap::new(),
            reordered: Reordered::default(),
            most_rows: 0,
            most_summaries: 0,
            largest_block: 0,
        };
        // What a corrected job reads anew is in its results too.
        let exact = scenario.exact && scenario.replays.is_empty();
        let good = topic.records().filter(|record| record.rejected.is_none());
        let answer = exact.then(|| oracle::batch(&scenario.job, good, |_, _| false));
        Self {
            shards: (0..scenario.job.shards).map(|_| account()).collect(),
            empty_row: RowBuf::new(&Layout::new(&scenario.job)).bytes(),
            scenario,
            topic,
            results: BTreeMap::new(),
            emitted: BTreeMap::new(),
            early: BTreeSet::new(),
            letters: BTreeMap::new(),
            commits: 0,
            announced: Vec::new(),
            raised: BTreeMap::new(),
            answer,
            split: Cell::new(0),
        }
    }

    /// What the shard's log folds to.
    pub fn state(&self, shard: Shard) -> &ShardState {
        &self.shards[shard.0 as usize].state
    }

    /// How many owners have committed.
    pub fn owners(&self, shard: Shard) -> usize {
        self.shards[shard.0 as usize].retired.len()
    }

    /// The process whose the shard's last commit was.
    pub fn committer(&self, shard: Shard) -> u64 {
        self.shards[shard.0 as usize].committer
    }

    /// A coordinator announces; `reached` is the largest W_s committed by the workers that speak to it.
    pub fn announced(&mut self, announcement: &Announcement, reached: Watermark) {
        let last = self.announced.iter().rev().find(|other| other.term == announcement.term);
        let rises = last.is_none_or(|last| {
            last.watermark <= announcement.watermark
                && last.partitions <= announcement.partitions
                && last.version < announcement.version
        });
        ensure(rises, "I1: the global watermark never falls", || format!("{announcement:?} after {last:?}"));
        ensure(
            reached <= announcement.watermark,
            "I1: the global watermark is not below a committed one",
            || format!("{announcement:?}, but {reached:?} is committed"),
        );
        self.announced.push(announcement.clone());
    }

    /// A coordinator asks for a raise of an idle partition.
    pub fn raised(&mut self, partition: Partition, at: Offset, to: EventTime) {
        self.raised.entry(partition).or_default().push((at, to));
    }

    /// A transaction is in the log.
    pub fn committed(&mut self, request: &CommitRequest) {
        self.commits += 1;
        let shard = request.shard;
        let block = &request.commit.block;
        let place = || format!("shard {shard}, block {} of {:x}", block.sequence, block.incarnation);
        let account = &mut self.shards[shard.0 as usize];
        let before = account.state.clone();
        let (incarnation, _) = before.identity();
        if incarnation != block.incarnation {
            account.retired.insert(incarnation);
        }
        let returned = account.retired.contains(&block.incarnation);
        ensure(!returned, "I6: one owner commits", || format!("{}: came back after another owner", place()));
        if let Err(error) = account.state.fold(block) {
            violated("I6: one committed chain", format!("{}: {error}", place()));
        }
        account.committer = request.worker;
        account.most_rows = account.most_rows.max(account.state.open_rows() as usize);
        let after = account.state.clone();
        let canonical = after.canonical();
        let rows = canonical.rows.values().chain(canonical.sessions.values().map(|(_, _, row)| row));
        let summaries = rows.map(|row| row.bytes().saturating_sub(self.empty_row)).sum();
        account.most_summaries = account.most_summaries.max(summaries);
        account.largest_block = account.largest_block.max(block.entries.len());
        ensure(canonical == request.owner, "rebuild = owner", || {
            format!("{}: the log folds to {:?}, the owner has {:?}", place(), canonical, request.owner)
        });
        ensure(after.watermark() >= before.watermark(), "I1: a committed watermark never falls", || {
            format!("{}: {:?} after {:?}", place(), after.watermark(), before.watermark())
        });
        self.check_size(request);
        for (place, letter) in request.commit.dead_letters.iter().enumerate() {
            self.take_letter(shard, &before, &after, (place, letter));
        }
        self.take_replayed(shard, &before, &after, &request.replayed);
        let slides = matches!(self.scenario.job.operator, OperatorSpec::Sliding(_));
        for row in request.commit.results.iter().filter(|_| slides) {
            let account = &mut self.shards[shard.0 as usize];
            let is_good = is_good(&self.letters, self.scenario.job.shards, shard);
            account.reordered.take_result(&self.topic, &is_good, &after, row);
        }
        for row in request.commit.results.iter().filter(|_| !slides) {
            self.take_result(shard, &after, row);
        }
        self.check_early(shard, &canonical);
        let account = &mut self.shards[shard.0 as usize];
        let is_good = is_good(&self.letters, self.scenario.job.shards, shard);
        for record in &request.commit.reordered {
            account.reordered.take(&self.topic, &is_good, &after, record);
        }
        self.check_positions(shard, &before, &after);
        if after.watermark() > before.watermark() {
            self.check_reached(shard, &after);
        }
    }
}

fn next(state: &ShardState, partition: Partition) -> Offset {
    state.inputs().get(partition.0 as usize).map_or(Offset(0), |input| input.next)
}

/// Whether a record may be in the results of the shard.
fn is_good(
    letters: &BTreeMap<(Partition, Offset), Letter>,
    shards: u32,
    shard: Shard,
) -> impl Fn(&Record) -> bool {
    move |record| {
        let replayed = letters.get(&(record.partition, record.offset)).and_then(|letter| letter.replayed);
        record.home(shards) == shard
            && (record.rejected.is_none() || replayed.is_some_and(|(_, applied)| applied))
    }
}
