//! The dead-letter topic and those who ask for it back (design §7).
//!
//! ```text
//! request ─► a run over the topic up to where it ended then ─► frames by shard ─► whoever owns it ─► answered once committed
//!               └── begins anew when its ingest dies
//! ```
//! Frames and answers get lost and come twice; a frame without an answer is sent again, perhaps to another owner.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use tidegate_core::{
    dead_letter::{DeadLetter, Reason},
    frame::Rows,
    job::JobSpec,
    replay::{Origin, ReplayFrame},
    time::{Offset, Partition, Shard},
};

use crate::{
    context::{Context, Event},
    mutation::Mutation,
    topic::Record,
    violation::ensure,
    worker::Worker,
};

/// The dead-letter topic: offsets that are not here are markers.
#[derive(Debug, Default)]
pub struct DeadTopic {
    partitions: Vec<BTreeMap<Offset, DeadLetter>>,
    ends: Vec<u64>,
}

impl DeadTopic {
    pub fn new(partitions: u32) -> Self {
        let partitions = partitions as usize;
        Self { partitions: vec![BTreeMap::new(); partitions], ends: vec![0; partitions] }
    }

    /// A transaction of `shard` has these letters.
    pub fn append(&mut self, shard: Shard, letters: &[DeadLetter]) {
        if letters.is_empty() {
            return;
        }
        let at = shard.0 as usize % self.ends.len();
        for letter in letters {
            self.partitions[at].insert(Offset(self.ends[at]), letter.clone());
            self.ends[at] += 1;
        }
        self.ends[at] += 1;
    }
}

/// Which entries are asked for.
#[derive(Clone, Debug)]
pub struct Request {
    pub reasons: Vec<Reason>,
    /// Only those of offsets that leave no rest.
    pub every: u64,
    /// The job has been corrected: what was unreadable, or had no time, is read now.
    pub mends: bool,
}

impl Request {
    /// Everything, by a job that reads more than before.
    pub fn all() -> Self {
        Self { reasons: Reason::ALL.to_vec(), every: 1, mends: true }
    }

    fn wants(&self, letter: &DeadLetter) -> bool {
        self.reasons.contains(&letter.reason) && letter.offset.0.is_multiple_of(self.every)
    }

    fn reads(&self, record: &Record) -> bool {
        record.rejected.is_none_or(|reason| self.mends && reason != Reason::Tombstone)
    }
}

#[derive(Debug)]
pub struct Replayer {
    requests: VecDeque<(Request, Vec<u64>)>,
    run: Option<Run>,
    /// Answers so far.
    pub answers: u64,
}

/// A request under way.
#[derive(Debug)]
struct Run {
    number: u64,
    frames: Vec<Sent>,
    /// The entries that it answers for, with the shard that does.
    entries: Vec<(Shard, Partition, Offset, (Partition, Offset))>,
}

#[derive(Debug)]
struct Sent {
    shard: Shard,
    frame: ReplayFrame,
    sent: Option<u64>,
    answered: bool,
}

/// A frame is sent again after so many ms.
const PATIENCE: u64 = 250;
/// Frames without an answer.
const IN_FLIGHT: usize = 4;
/// The most rows of a frame.
pub const MOST_ROWS: u64 = 4;

impl Replayer {
    pub const fn new() -> Self {
        Self { requests: VecDeque::new(), run: None, answers: 0 }
    }

    pub fn is_idle(&self) -> bool {
        self.requests.is_empty() && self.run.is_none()
    }

    pub fn ask(&mut self, request: Request, ctx: &Context) {
        self.requests.push_back((request, ctx.dead_topic.ends.clone()));
    }

    pub fn tick(&mut self, workers: &BTreeMap<u64, Worker>, ctx: &mut Context) {
        let restarts = ctx.dice.chance(if ctx.now < ctx.scenario.chaos_until { 20 } else { 0 });
        if self.run.is_none() || restarts {
            let Some((request, ends)) = self.requests.front().cloned() else { return };
            self.run = Some(begin(&request, &ends, ctx));
            ctx.count(if restarts { "replays begun anew" } else { "replays begun" });
            self.finish(ctx);
        }
        let Some(run) = &mut self.run else { return };
        for (at, sent) in run.frames.iter_mut().enumerate().filter(|(_, sent)| !sent.answered).take(IN_FLIGHT)
        {
            if sent.sent.is_some_and(|at| ctx.now < at + PATIENCE) {
                continue;
            }
            // A deposed owner may be asked too.
            let owners: Vec<u64> = workers
                .iter()
                .filter(|(_, w)| w.shards.contains_key(&sent.shard))
                .map(|(id, _)| *id)
                .collect();
            if owners.is_empty() {
                continue;
            }
            sent.sent = Some(ctx.now);
            let worker = *ctx.dice.pick(&owners);
            let mut frame = sent.frame.clone();
            if ctx.is_mutated(Mutation::ReplayedAreTakenAgain) {
                frame.partition.0 += 10 * (ctx.number() as u32);
            }
            for _ in 0..if ctx.dice.chance(50) { 2 } else { 1 } {
                if ctx.dice.chance(ctx.faults.commit_request_lost) {
                    continue;
                }
                let latency = ctx.latency();
                let asked = Asked { run: run.number, at, shard: sent.shard, frame: frame.clone() };
                ctx.after(latency, Event::ReplayAsked { worker, asked: Box::new(asked) });
            }
        }
    }

    pub fn answered(&mut self, number: u64, at: usize, ctx: &mut Context) {
        let Some(run) = self.run.as_mut().filter(|run| run.number == number) else { return };
        self.answers += u64::from(!std::mem::replace(&mut run.frames[at].answered, true));
        self.finish(ctx);
    }

    /// Ends the run if everything is answered for.
    fn finish(&mut self, ctx: &mut Context) {
        let Some(run) = &self.run else { return };
        if run.frames.iter().all(|sent| sent.answered) {
            for (shard, partition, offset, record) in &run.entries {
                let is_known = ctx.ledger.state(*shard).answered().contains(*partition, *offset);
                ensure(
                    is_known && ctx.ledger.is_replayed(*record),
                    "L2: what is answered for is committed",
                    || format!("shard {shard}, entry {offset} of {partition}: {record:?}"),
                );
            }
            ctx.count("replays done");
            self.run = None;
            self.requests.pop_front();
        }
    }
}

/// A frame at a worker.
#[derive(Clone, Debug)]
pub struct Asked {
    pub run: u64,
    pub at: usize,
    pub shard: Shard,
    pub frame: ReplayFrame,
}

/// The frames of a request, as an ingest makes them from the topic.
fn begin(request: &Request, ends: &[u64], ctx: &mut Context) -> Run {
    let job = ctx.scenario.job.clone();
    let mut run = Run { number: ctx.number(), frames: Vec::new(), entries: Vec::new() };
    // What is known of each row of a session has to be known by itself.
    let most =
        if matches!(job.operator, tidegate_core::job::OperatorSpec::Sessions(_)) { 1 } else { MOST_ROWS };
    for (partition, end) in (0..).map(Partition).zip(ends) {
        let mut makers: BTreeMap<Shard, Maker> = BTreeMap::new();
        let mut left_out = BTreeSet::new();
        for offset in 0..*end {
            let letter = ctx.dead_topic.partitions[partition.0 as usize].get(&Offset(offset));
            let Some(letter) = letter else { continue };
            let record =
                ctx.topic.log(letter.partition).record(letter.offset).expect("a letter is of a record");
            if !(request.wants(letter) && request.reads(record)) {
                left_out.insert(offset);
                continue;
            }
            let shard = record.home(job.shards);
            let maker = makers.entry(shard).or_insert_with(|| Maker::new(partition, &job));
            maker.push(offset, letter, record);
            run.entries.push((shard, partition, Offset(offset), (letter.partition, letter.offset)));
            if maker.frame.rows.len() as u64 >= ctx.dice.within(1, most) {
                run.frames.push(maker.finish(shard, offset + 1, &left_out, &job, ctx));
            }
        }
        for (shard, mut maker) in makers {
            run.frames.push(maker.finish(shard, *end, &left_out, &job, ctx));
        }
    }
    run
}

/// Makes the frames of a shard.
struct Maker {
    frame: ReplayFrame,
    /// What is below is covered by the frames so far.
    covered: u64,
}

impl Maker {
    fn new(partition: Partition, job: &JobSpec) -> Self {
        let rows = Rows::new(job.columns.len());
        let frame = ReplayFrame { partition, from: Offset(0), covers: Vec::new(), rows, origins: Vec::new() };
        Self { frame, covered: 0 }
    }

    fn push(&mut self, offset: u64, letter: &DeadLetter, record: &Record) {
        let row = self.frame.rows.len() as u32;
        self.frame.rows.push(offset as u32, record.time, &record.key, &record.values, &[]);
        self.frame.rows.payloads.push((row, record.payload().into()));
        self.frame.origins.push(Origin {
            partition: letter.partition,
            offset: letter.offset,
            reason: letter.reason,
            missed: letter.missed,
        });
    }

    fn finish(
        &mut self,
        shard: Shard,
        end: u64,
        left_out: &BTreeSet<u64>,
        job: &JobSpec,
        ctx: &Context,
    ) -> Sent {
        let mut from = self.covered;
        let all = ctx.is_mutated(Mutation::WhatIsLeftOutIsCovered);
        for out in left_out.range(from..end).filter(|_| !all).chain(std::iter::once(&end)) {
            if from < *out {
                self.frame.covers.push(Offset(from)..Offset(*out));
            }
            from = out + 1;
        }
        self.covered = end;
        let next = Self::new(self.frame.partition, job).frame;
        Sent { shard, frame: std::mem::replace(&mut self.frame, next), sent: None, answered: false }
    }
}
