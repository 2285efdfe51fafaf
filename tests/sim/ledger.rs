//! What a `read_committed` reader has seen, and the invariants that hold for it at every commit (design §6).

use std::{cell::Cell, collections::BTreeMap, collections::BTreeSet, rc::Rc};

use tidegate_core::{
    aggregate::{Layout, RowBuf, Value},
    announcement::Announcement,
    dead_letter::{DeadLetter, Reason},
    job::{JobSpec, OnQuiet, OperatorSpec},
    shard::{CanonicalState, Pane, ResultRow, ShardState},
    time::{EventTime, Offset, Partition, Shard, Watermark},
};

use crate::{
    changelog::JOB,
    context::{CommitRequest, Replayed},
    oracle::{self, Answer, Window},
    reordered::Reordered,
    replay::MOST_ROWS,
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

/// A dead letter, and what became of it.
#[derive(Debug)]
struct Letter {
    letter: DeadLetter,
    /// The number of its commit, and its place in it.
    at: (u64, usize),
    /// W_s when it came back to its shard, and whether it was applied.
    replayed: Option<(Watermark, bool)>,
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

    /// I7: a commit is bounded, by its limit and what one frame may add to it.
    fn check_size(&self, request: &CommitRequest) {
        let row = 80 + 24 * self.scenario.job.aggregates.len();
        let letters = request.commit.dead_letters.iter().map(|letter| 80 + letter.payload.bytes());
        let reordered = request.commit.reordered.iter().map(|record| 80 + record.payload.bytes());
        let bytes = request.commit.results.len() * row + letters.sum::<usize>() + reordered.sum::<usize>();
        // A late record counts with its entry before the commit, and with its result in it.
        let frame = self.scenario.credit.window as usize + 400 * self.scenario.batch;
        let replayed = request.replayed.len().min(MOST_ROWS as usize) * self.windows_of_a_record() * row;
        let bound = self.scenario.limits.commit_bytes * row / 48 + 2 * frame + replayed;
        ensure(bytes <= bound, "I7: a commit is bounded", || format!("{bytes} of {bound} bytes"));
    }

    /// At most so many.
    fn windows_of_a_record(&self) -> usize {
        match &self.scenario.job.operator {
            OperatorSpec::Windows(spec) => (spec.size.0 / spec.step.0) as usize + 1,
            // What it joins is retracted.
            OperatorSpec::Sessions(_) => 3,
            OperatorSpec::Reorder | OperatorSpec::Sliding(_) => 1,
        }
    }

    /// L2: what came back was a dead letter of the job, came back once, and expired only if nothing is kept for it.
    fn take_replayed(
        &mut self,
        shard: Shard,
        before: &ShardState,
        after: &ShardState,
        replayed: &[Replayed],
    ) {
        let (mut applied, mut expired) = (0, 0);
        for replayed in replayed {
            let seen = || format!("shard {shard}: {replayed:?}");
            let (p, offset) = replayed.record;
            let record =
                self.topic.log(p).record(offset).filter(|r| r.home(self.scenario.job.shards) == shard);
            let Some(record) = record else { violated("L2: what comes back is of the shard", seen()) };
            let Some(letter) = self.letters.get(&replayed.record) else {
                violated("L2: what comes back was a dead letter", seen())
            };
            ensure(letter.replayed.is_none(), "L2: an entry counts once", seen);
            let is_kept = self.is_kept(record, &letter.letter, replayed.watermark);
            // Of sessions the ledger does not know which are kept.
            let sessions = matches!(self.scenario.job.operator, OperatorSpec::Sessions(_));
            let is_applied = replayed.applied.filter(|_| sessions).unwrap_or(is_kept);
            let right = replayed.applied.is_none_or(|applied| applied == is_applied);
            ensure(right && (is_applied || !is_kept), "L2: what has a window that is kept is applied", seen);
            *(if is_applied { &mut applied } else { &mut expired }) += 1;
            if let Some(letter) = self.letters.get_mut(&replayed.record) {
                letter.replayed = Some((replayed.watermark, is_applied));
            }
        }
        let counted = |state: &ShardState| state.answered().counts();
        let (then, now) = (counted(before), counted(after));
        ensure(
            (now.0 - then.0, now.1 - then.1) == (applied, expired),
            "L2: what was replayed is counted",
            || format!("shard {shard}: {then:?}, then {now:?}: {replayed:?}"),
        );
    }

    /// Whether a window of the record, of those that the letter is about, is kept at W_s.
    fn is_kept(&self, record: &Record, letter: &DeadLetter, watermark: Watermark) -> bool {
        let job = &self.scenario.job;
        match &job.operator {
            OperatorSpec::Windows(spec) => {
                let ends = oracle::window_ends(spec, record.time.0);
                let partial = letter.reason == Reason::LatePartial;
                let mut missed = ends.into_iter().filter(|end| !partial || misses(job, letter, *end));
                missed.any(|end| is_kept_at(job, end, watermark))
            }
            OperatorSpec::Sessions(spec) => {
                is_kept_at(job, oracle::session_end(spec, record.time.0), watermark)
            }
            OperatorSpec::Reorder | OperatorSpec::Sliding(_) => Some(record.time) >= watermark,
        }
    }

    /// Whether the record came back to its shard.
    pub fn is_replayed(&self, record: (Partition, Offset)) -> bool {
        self.letters.get(&record).is_some_and(|letter| letter.replayed.is_some())
    }

    fn take_letter(
        &mut self,
        shard: Shard,
        before: &ShardState,
        after: &ShardState,
        (place, letter): (usize, &DeadLetter),
    ) {
        let seen = || format!("shard {shard}: {letter:?}");
        let (p, offset) = (letter.partition, letter.offset);
        let record = self.topic.log(p).record(offset).filter(|record| record.shard == shard);
        let Some(record) = record else { violated("I4: a dead letter is of a record", seen()) };
        ensure(*letter.payload == record.payload(), "I5: each dead letter is whole", seen);
        let covered = next(before, p) <= offset && offset < next(after, p);
        ensure(covered, "I4: a dead letter comes with the position behind it", seen);
        ensure(!self.letters.contains_key(&(p, offset)), "I4: a dead letter comes once", seen);
        match (letter.reason, record.rejected) {
            (reason, Some(rejected)) => {
                ensure(reason == rejected, "I4: a reject is a dead letter with its reason", seen);
            }
            (Reason::Late | Reason::LatePartial, None) => self.check_late(record, letter),
            (_, None) => violated("I4: a good record is no dead letter", seen()),
        }
        if letter.reason != Reason::LatePartial {
            *self.shards[shard.0 as usize].dead.entry(p).or_default() += 1;
        }
        let letter = Letter { letter: letter.clone(), at: (self.commits, place), replayed: None };
        self.letters.insert((p, offset), letter);
    }

    /// A late record's windows are over, and none that is still open is missed.
    fn check_late(&self, record: &Record, letter: &DeadLetter) {
        let seen = || format!("{letter:?}");
        ensure(!self.scenario.exact, "I4: no record within the delay is late", seen);
        let job = &self.scenario.job;
        let spec = match &job.operator {
            OperatorSpec::Windows(spec) => spec,
            OperatorSpec::Sessions(spec) => {
                let end = oracle::session_end(spec, record.time.0);
                let over = Some(end.plus(job.allowed_lateness)) <= letter.watermark;
                ensure(
                    letter.reason == Reason::Late && over,
                    "I4: what a late record would begin is over",
                    seen,
                );
                let named = letter.missed == Some((record.time, end));
                return ensure(named, "I4: the windows missed are named", seen);
            }
            OperatorSpec::Reorder | OperatorSpec::Sliding(_) => {
                let passed = letter.reason == Reason::Late && Some(record.time) < letter.watermark;
                return ensure(passed, "I4: a late record is one that W has passed", seen);
            }
        };
        let ends = oracle::window_ends(spec, record.time.0);
        let over = |end: &EventTime| Some(end.plus(job.allowed_lateness)) <= letter.watermark;
        let legitimate = match letter.reason {
            Reason::Late => ends.iter().all(over),
            _ => ends.iter().filter(|end| misses(job, letter, **end)).all(over),
        };
        ensure(legitimate, "I4: a late record has missed only windows that are over", seen);
        let named = letter.missed.is_some_and(|(start, end)| {
            ends.contains(&end) && ends.contains(&start.plus(spec.size)) && start < end
        });
        ensure(named, "I4: the windows missed are named", seen);
    }

    fn take_result(&mut self, shard: Shard, after: &ShardState, row: &ResultRow) {
        let seen = || format!("shard {shard}: {row:?}");
        let own = Shard::of(&row.key, self.scenario.job.shards) == shard;
        ensure(own, "I4: a result is of the shard's keys", seen);
        if row.pane == Pane::Early {
            return self.take_early(after, row);
        }
        let window = (row.key.clone(), row.start, row.end);
        let emitted = self.results.entry(window.clone()).or_default();
        // Of a session that had become another before it was over.
        let provisional = emitted.is_empty()
            && (row.pane, row.revision) == (Pane::Retracted, 1)
            && self.early.contains(&window);
        let over = Some(row.end) <= after.watermark();
        ensure(over || provisional, "I4: a window is emitted after its end", seen);
        // Where a key has only partly late records in a window, its first result is the second revision.
        let next = emitted.last().map_or(0, |last| last.revision + 1);
        let skips = row.pane == Pane::Replay && emitted.is_empty() && row.revision == 1;
        let partial = |letter: &Letter| {
            let record = self.topic.log(letter.letter.partition).record(letter.letter.offset);
            record.is_some_and(|record| record.key == row.key)
                && misses(&self.scenario.job, &letter.letter, row.end)
        };
        let counts_up = row.revision == next || provisional || (skips && self.letters.values().any(partial));
        ensure(counts_up, "I4: revisions count up, each once", || format!("{row:?} after {emitted:?}"));
        self.early.remove(&window);
        self.emitted.insert(window.clone(), self.commits);
        let pane = (row.pane, row.revision);
        ensure(!matches!(pane, (Pane::Final, 1..)), "I4: the final result is the first", seen);
        if let Some(answer) = self.answer.as_ref().filter(|_| !provisional) {
            let right = answer
                .get(&window)
                .is_some_and(|values| oracle::same(&self.scenario.job, &row.values, values));
            ensure(right, "I4: a result is that of the batch", || {
                format!("{row:?}, batch {:?}", answer.get(&window))
            });
        }
        emitted.push(row.clone());
    }

    /// An early result is what a batch says of the records that its commit has covered; none comes behind one that counts.
    fn take_early(&mut self, after: &ShardState, row: &ResultRow) {
        let seen = || format!("{row:?} at W {:?}", after.watermark());
        let window = (row.key.clone(), row.start, row.end);
        let open = Some(row.end) > after.watermark() && row.revision == 0;
        let first = !self.results.contains_key(&window);
        ensure(open && first, "I4: no early result after the final one", seen);
        let letter = |record: &Record| self.letters.get(&(record.partition, record.offset));
        let covered = self.topic.records().filter(|record| {
            record.key == row.key
                && match letter(record) {
                    None => record.rejected.is_none() && record.offset < next(after, record.partition),
                    Some(letter) if letter.letter.reason == Reason::LatePartial => true,
                    Some(letter) => letter.replayed.is_some_and(|(_, applied)| applied),
                }
        });
        let job = &self.scenario.job;
        let answer = oracle::batch(job, covered, |record, end| {
            letter(record).is_some_and(|letter| self.is_missing(record, letter, end))
        });
        let right = match answer.get(&window) {
            Some(values) => oracle::same(job, &row.values, values),
            // A part of a session of which another part is forgotten.
            None => matches!(job.operator, OperatorSpec::Sessions(_)) && self.answer.is_none(),
        };
        ensure(right, "I4: an early result is of the records so far", || {
            format!("{}, batch {:?}", seen(), answer.get(&window))
        });
        self.early.insert(window);
    }

    /// No early result is the last of a window that the shard has passed.
    fn check_early(&self, shard: Shard, after: &CanonicalState) {
        let passed = after.closing.as_ref().map_or(after.watermark, |closing| closing.done);
        let own = |key: &[u8]| Shard::of(key, self.scenario.job.shards) == shard;
        let left = self.early.iter().find(|(key, _, end)| Some(*end) <= passed && own(key));
        ensure(left.is_none(), "I4: no early result is the last", || format!("shard {shard}: {left:?}"));
    }

    /// I2 and I5: every record below the position is accounted for once.
    fn check_positions(&self, shard: Shard, before: &ShardState, after: &ShardState) {
        for (at, input) in after.inputs().iter().enumerate() {
            let p = Partition(at as u32);
            let seen = || format!("shard {shard}, partition {p}: {input:?}");
            ensure(input.next >= next(before, p), "I2: positions only rise", seen);
            ensure(input.next <= self.topic.log(p).end(), "I2: a position is not beyond the log", seen);
            let covered = self.topic.log(p).covered(shard, input.next);
            ensure(input.applied + input.dead == covered, "I5: covered = applied + dead-lettered", || {
                format!("{}, {covered} records below it", seen())
            });
            let letters = self.shards[shard.0 as usize].dead.get(&p).copied().unwrap_or(0);
            ensure(input.dead == letters, "I5: every dead-lettered record has its letter", || {
                format!("{}, {letters} letters", seen())
            });
        }
    }

    /// I3: time has been reached in every partition that counts.
    fn check_reached(&self, shard: Shard, after: &ShardState) {
        let Some(watermark) = after.watermark() else { return };
        if self.scenario.exact {
            for (at, log) in self.topic.partitions.iter().enumerate() {
                let p = Partition(at as u32);
                let least = log.least_from(shard, next(after, p));
                ensure(
                    least.is_none_or(|least| least >= watermark),
                    "I3: every record below W has arrived",
                    || {
                        format!(
                            "shard {shard} at {watermark} and {} of partition {p}: {least:?} is to come",
                            next(after, p)
                        )
                    },
                );
            }
        }
        let holds = |announcement: &Announcement| {
            announcement.watermark >= Some(watermark)
                && (0..announcement.partitions).map(Partition).all(|p| {
                    let excluded = announcement.excluded.iter().find(|(other, _)| *other == p);
                    excluded.is_some_and(|(_, at)| next(after, p) >= *at)
                        || self.watermark_at(p, next(after, p)) >= Some(watermark)
                })
        };
        ensure(
            self.announced.iter().rev().any(holds),
            "I3: every partition that counts has reached W",
            || {
                let positions: Vec<_> = after.inputs().iter().map(|input| input.next).collect();
                format!("shard {shard} at {watermark}, positions {positions:?}")
            },
        );
    }

    /// The watermark that the partition can have at a position.
    fn watermark_at(&self, partition: Partition, next: Offset) -> Watermark {
        let delay = self.scenario.job.watermark.strategy.least_delay();
        let records = self.topic.log(partition).largest_below(next).map(|largest| largest.minus(delay));
        let raised = self.raised.get(&partition).into_iter().flatten();
        raised.filter(|(at, _)| *at <= next).map(|(_, to)| Some(*to)).max().flatten().max(records)
    }

    /// I7: snapshots keep the log near the size of the state. An owner that dies between a snapshot and the deletion of what it
    /// makes superfluous leaves that to the next one.
    pub fn check_log(&self, shard: Shard, bytes: usize) {
        let record = if self.scenario.job.operator.buffers_records() { 60 } else { 0 };
        let row = 60 + 30 * self.scenario.job.aggregates.len() + record;
        let account = &self.shards[shard.0 as usize];
        let live = account.most_rows * row + account.most_summaries + 100 * self.topic.partitions.len();
        let begins = (self.scenario.limits.snapshot_log_bytes as usize).max(2 * live) + 1_000;
        // Rows with summaries are large against so small a state: the block with which a snapshot ends weighs.
        let last = if account.most_summaries > 0 { account.largest_block } else { 0 };
        ensure(bytes <= 2 * begins + last, "I7: the log is bounded by the state", || {
            format!("shard {shard}: {bytes} bytes, a snapshot begins at about {begins}")
        });
    }

    /// Whether every record is covered and all windows up to the watermarks are out, as far as committed.
    pub fn is_complete(&self) -> bool {
        let least = self.final_watermark();
        self.shards.iter().all(|account| {
            let ends = self.topic.partitions.iter().enumerate();
            account.state.watermark() >= least
                && account.state.canonical().closing.is_none()
                && ends.into_iter().all(|(p, log)| next(&account.state, Partition(p as u32)) >= log.end())
        })
    }

    /// Rises with everything that brings the end nearer: offsets covered, results emitted, watermarks.
    pub fn progress(&self) -> (u64, usize, Vec<Watermark>) {
        let covered = self.shards.iter().flat_map(|a| a.state.inputs()).map(|input| input.next.0).sum();
        let least = self.final_watermark();
        let watermarks = self.shards.iter().map(|account| account.state.watermark().min(least)).collect();
        let reordered: usize = self.shards.iter().map(|account| account.reordered.len()).sum();
        (covered, self.results.values().map(Vec::len).sum::<usize>() + reordered, watermarks)
    }

    /// What every shard's watermark has to come to.
    fn final_watermark(&self) -> Watermark {
        let job = &self.scenario.job;
        let largest = self.topic.partitions.iter().map(|log| log.largest_below(log.end())).max().flatten();
        match job.watermark.on_quiet {
            // Where a silence was taken for the end, the watermark was raised beyond records yet to come, and no longer tells a
            // successor of theirs.
            OnQuiet::Finish if self.scenario.exact || self.scenario.backlog => {
                largest.map(|largest| largest.plus(job.operator.reach()))
            }
            _ => largest.map(|largest| largest.minus(job.watermark.strategy.most_delay())),
        }
    }

    /// What stands between the present and the end.
    pub fn missing(&self) -> String {
        let least = self.final_watermark();
        let mut missing = String::new();
        for (shard, account) in self.shards.iter().enumerate() {
            let positions: Vec<_> = self
                .topic
                .partitions
                .iter()
                .enumerate()
                .map(|(p, log)| format!("{}/{}", next(&account.state, Partition(p as u32)), log.end()))
                .collect();
            missing += &format!(
                "shard {shard}: W {:?} of {least:?}, positions {positions:?}, closing {:?}; ",
                account.state.watermark(),
                account.state.canonical().closing
            );
        }
        missing
    }

    /// I4 at the end: what is there equals the batch over the records that were not dead-lettered.
    pub fn check_answer(&self) {
        for record in self.topic.records().filter(|record| record.rejected.is_some()) {
            ensure(
                self.letters.contains_key(&(record.partition, record.offset)),
                "I4: every reject is there",
                || format!("{record:?}"),
            );
        }
        let letter = |record: &Record| self.letters.get(&(record.partition, record.offset));
        let counts = |record: &Record| match letter(record) {
            None => true,
            Some(letter) => letter.replayed.is_some_and(|(_, applied)| applied),
        };
        if let OperatorSpec::Sliding(spec) = self.scenario.job.operator {
            let kept: Vec<_> = self.topic.records().filter(|record| counts(record)).collect();
            for record in &kept {
                let account = &self.shards[record.home(self.scenario.job.shards).0 as usize];
                account.reordered.check(record, account.state.watermark());
                account.reordered.check_window(&self.scenario.job, spec.size, record, &kept);
            }
            return;
        }
        if self.scenario.job.operator.keeps_records() {
            for record in self.topic.records().filter(|record| counts(record)) {
                let account = &self.shards[record.home(self.scenario.job.shards).0 as usize];
                account.reordered.check(record, account.state.watermark());
            }
        }
        let partial = |record: &Record| {
            letter(record).is_some_and(|letter| letter.letter.reason == Reason::LatePartial)
        };
        let kept = || self.topic.records().filter(|record| counts(record) || partial(record));
        let expected = oracle::batch(&self.scenario.job, kept(), |record, end| {
            letter(record).is_some_and(|letter| self.is_missing(record, letter, end))
        });
        if let OperatorSpec::Sessions(_) = self.scenario.job.operator {
            return self.check_sessions(&expected);
        }
        for (window, rows) in &self.results {
            let same = |values: &Vec<Value>| {
                rows.last().is_some_and(|row| oracle::same(&self.scenario.job, &row.values, values))
            };
            // A partly late record of the commit of the last result may have come after that.
            let cuts = |record: &Record| {
                let letter = letter(record).filter(|_| partial(record) && record.key == window.0);
                letter.map(|letter| letter.at).filter(|at| Some(&at.0) == self.emitted.get(window))
            };
            let without = |cut: (u64, usize)| {
                let batch = oracle::batch(&self.scenario.job, kept(), |record, end| {
                    let letter = letter(record);
                    letter.is_some_and(|letter| {
                        self.is_missing(record, letter, end)
                            || (misses(&self.scenario.job, &letter.letter, end) && letter.at >= cut)
                    })
                });
                batch.get(window).is_some_and(same)
            };
            let right = expected.get(window).is_some_and(same) || kept().filter_map(cuts).any(without);
            ensure(right, "I4: the last revision is that of the batch", || {
                format!("{rows:?}, batch {:?}", expected.get(window))
            });
        }
        for (window, values) in &expected {
            let emitted = self.results.contains_key(window);
            ensure(emitted || !self.is_over(window), "I4: every window that is over is there", || {
                format!("{window:?}: {values:?}")
            });
        }
    }

    /// Whether the letter says that its record is not in the last result of the window that ends at `end`.
    fn is_missing(&self, record: &Record, letter: &Letter, end: EventTime) -> bool {
        let job = &self.scenario.job;
        let OperatorSpec::Windows(spec) = &job.operator else { return false };
        match letter.replayed {
            // It is in the state: who corrects the window for whatever reason has it in the result.
            _ if letter.letter.reason == Reason::LatePartial => {
                let window = (record.key.clone(), end.minus(spec.size), end);
                let last = self.results.get(&window).and_then(|rows| rows.last());
                let has_it = last.is_some_and(|row| row.pane == Pane::Replay)
                    && self.emitted.get(&window) >= Some(&letter.at.0);
                misses(job, &letter.letter, end) && !has_it
            }
            Some((watermark, _)) => !is_kept_at(job, end, watermark),
            None => true,
        }
    }

    fn is_over(&self, (key, _, end): &Window) -> bool {
        let shard = Shard::of(key, self.scenario.job.shards);
        Some(*end) <= self.state(shard).watermark()
    }

    /// A session of the batch is there as one; or, where a record came so late that what it joins had been forgotten, in parts
    /// that overlap and hold all of it.
    fn check_sessions(&self, expected: &Answer) {
        let last = self.results.iter().filter_map(|(window, rows)| Some((window, rows.last()?)));
        let mut kept: BTreeMap<&Window, &ResultRow> =
            last.filter(|(_, row)| row.pane != Pane::Retracted).collect();
        for (window, values) in expected {
            let (key, start, end) = window;
            let (from, to) = ((key.clone(), *start, *start), (key.clone(), *end, *start));
            let parts: Vec<&ResultRow> = kept.range::<Window, _>(&from..&to).map(|(_, row)| *row).collect();
            let seen = || format!("{window:?}: {values:?}, parts {parts:?}");
            let fits = parts.iter().all(|part| part.end <= *end);
            ensure(fits, "I4: a session is within that of the batch", seen);
            if let [part] = parts.as_slice()
                && part.end == *end
                && part.start == *start
            {
                ensure(
                    oracle::same(&self.scenario.job, &part.values, values),
                    "I4: the last revision is that of the batch",
                    seen,
                );
            } else if self.is_over(window) {
                let records = |value: Option<&Value>| match value {
                    Some(Value::Count(count)) => *count,
                    other => panic!("the first aggregate counts records, {other:?}"),
                };
                let counted: u64 = parts.iter().map(|part| records(part.values.first())).sum();
                let joined = parts.windows(2).all(|pair| pair[1].start < pair[0].end);
                let whole = parts.first().is_some_and(|part| part.start == *start)
                    && parts.iter().map(|part| part.end).max() == Some(*end);
                let right = joined && whole && counted == records(values.first()) && self.answer.is_none();
                ensure(right, "I4: the parts of a session are all of it", seen);
                self.split.set(self.split.get() + 1);
            }
            kept.retain(|(of, from, _), _| of != key || from < start || from >= end);
        }
        ensure(kept.is_empty(), "I4: a result is of records", || format!("{kept:?}"));
    }

    /// Sessions that came out in parts.
    pub const fn split(&self) -> u64 {
        self.split.get()
    }
}

fn next(state: &ShardState, partition: Partition) -> Offset {
    state.inputs().get(partition.0 as usize).map_or(Offset(0), |input| input.next)
}

/// Whether a window that ends there is kept for replays at W_s.
fn is_kept_at(job: &JobSpec, end: EventTime, watermark: Watermark) -> bool {
    let kept = job.allowed_lateness.0 + job.replay_ttl.0;
    watermark.is_none_or(|watermark| end.0 > watermark.0 - kept)
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

/// Whether the letter says that its record is missing in the window that ends at `end`.
fn misses(job: &JobSpec, letter: &DeadLetter, end: EventTime) -> bool {
    letter.reason == Reason::LatePartial
        && letter.missed.is_some_and(|(start, last)| start.plus(job.operator.reach()) <= end && end <= last)
}
