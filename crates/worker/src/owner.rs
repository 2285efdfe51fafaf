//! An actor that has its shard's state: what comes in is applied, what is due is committed, what is committed is acknowledged.
//!
//! A commit runs as a task of its own while frames go on being applied; its end comes back as a message. Any end but *committed*
//! ends the serving: the state is dropped with everything that waits for a commit, and the log is read again.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use tidegate_core::{
    frame::ShardFrame,
    job::OperatorSpec,
    pacing::{CommitPacer, Urgency},
    shard::{Applied, Failure, ShardMachine, Spilled},
    source::Want,
    time::{EventTime, Offset, Partition, Tick},
};
use tidegate_kafka::TransactionalProducer;
use tidegate_runtime::task;
use tokio::{
    task::{JoinError, JoinHandle, spawn_blocking, yield_now},
    time::sleep,
};

use crate::{
    actor::{Actor, Asker, Leave, News, ToShard},
    cache::{ShardCache, Written},
    commit::{self, Done, End},
    inspect::{Answer, Question},
    replay::{Became, Given},
    replies::{Held, Permit},
    scratch::SpanScratch,
    stats::{CommitCounts, Standing},
    traces::Contributions,
};

/// Why serving ended.
pub(crate) enum Ended {
    Left,
    Fenced,
    /// The log has to be read again.
    Failed,
}

/// What an actor keeps over restores: the producer, where it is still ours and no commit has it, and the local store.
pub(crate) struct Holdings {
    pub(crate) producer: Option<TransactionalProducer>,
    pub(crate) cache: ShardCache,
    /// Not where it has failed: what would be in it stays in memory.
    pub(crate) has_scratch: bool,
}

/// An actor that has its shard's state.
pub(crate) struct Owner<'a> {
    actor: &'a mut Actor,
    holdings: &'a mut Holdings,
    machine: ShardMachine,
    pacer: CommitPacer,
    waiting: VecDeque<(ShardFrame, Permit)>,
    replays: Replays,
    traces: Contributions,
    held: Held,
    /// They wait for the next commit.
    questions: Vec<Question>,
    in_flight: Option<InFlight>,
    /// Said in the log, once.
    has_spans_away: bool,
}

/// Frames of replays that wait, and answers that wait for the next commit.
#[derive(Default)]
struct Replays {
    waiting: VecDeque<Given>,
    applied: Vec<Became>,
}

impl Replays {
    /// What nobody waits for any more goes, or what is sent again and again would add up (I7).
    fn push(&mut self, given: Given) {
        self.waiting.retain(|waiting| !waiting.is_closed());
        self.waiting.push_back(given);
    }

    fn next(&mut self) -> Option<Given> {
        std::iter::from_fn(|| self.waiting.pop_front()).find(|given| !given.is_closed())
    }
}

struct InFlight {
    task: JoinHandle<Done>,
    held: Held,
    answers: Vec<Answer>,
    replayed: Vec<Became>,
    spilled: Option<Box<Spilled>>,
    counts: CommitCounts,
    begun: Tick,
}

impl<'a> Owner<'a> {
    pub(crate) fn new(actor: &'a mut Actor, mut machine: ShardMachine, holdings: &'a mut Holdings) -> Self {
        let pacer = CommitPacer::new(actor.ground.pace, actor.now());
        machine.set_early(actor.ground.job.early, actor.now());
        if holdings.has_scratch && matches!(actor.ground.operator, OperatorSpec::Sliding(_)) {
            machine.set_scratch(Box::new(SpanScratch::new(&actor.ground.stores)));
        }
        Self {
            actor,
            holdings,
            machine,
            pacer,
            waiting: VecDeque::new(),
            replays: Replays::default(),
            traces: Contributions::default(),
            held: Held::default(),
            questions: Vec::new(),
            in_flight: None,
            has_spans_away: false,
        }
    }

    /// Serves until the shard is left or a commit fails.
    pub(crate) async fn serve(mut self) -> Ended {
        self.begin().await;
        loop {
            self.set_memory();
            self.apply_waiting();
            self.apply_replay();
            if let Some(failure) = self.machine.failed().filter(|_| self.in_flight.is_none()) {
                tracing::warn!(shard = self.actor.shard.0, error = %failure, "reading the log again");
                match failure {
                    Failure::Unreadable(_) => self.holdings.cache.distrust(),
                    Failure::Scratch(_) => self.holdings.has_scratch = false,
                }
                return Ended::Failed;
            }
            if self.actor.leave.is_some() && self.in_flight.is_none() && !self.has_to_commit() {
                return Ended::Left;
            }
            let now = self.actor.now();
            self.machine.begin_early(now);
            let due = self.pacer.due(self.urgency());
            let due = if self.actor.leave.is_some() { due.map(|_| now) } else { due };
            if due.is_some_and(|due| due <= now) {
                self.begin_commit(now);
            }
            let next = due.into_iter().chain(self.machine.early_due()).min();
            let rest = next.map(|next| Duration::from_millis(next.since(now)));
            tokio::select! {
                biased;
                done = finished(&mut self.in_flight), if self.in_flight.is_some() => {
                    if let Some(ended) = self.finish_commit(done) {
                        return ended;
                    }
                }
                written = self.holdings.cache.written() => self.written(written),
                message = self.actor.inbox.recv(), if self.actor.leave != Some(Leave::AtOnce) => self.take(message),
                changed = self.actor.announcements.changed(), if self.actor.leave.is_none() => match changed {
                    Ok(()) => self.announce(),
                    Err(_) => self.actor.leave = Some(Leave::AtOnce),
                },
                () = yield_now(), if self.takes_replay() => {}
                () = sleep(rest.unwrap_or_default()), if self.in_flight.is_none() && rest.is_some() => {}
            }
        }
    }

    /// Says that the shard is here, and where it wants to be fed from.
    async fn begin(&mut self) {
        self.set_memory();
        let watermark = self.machine.state().watermark();
        let (_, sequence) = self.machine.state().identity();
        let (shard, open_rows) = (self.actor.shard.0, self.machine.state().open_rows());
        let watermark_ms = watermark.map(|time| time.millis());
        let restore_ms = u64::try_from(self.actor.restored_in.as_millis()).unwrap_or(u64::MAX);
        tracing::info!(shard, sequence, watermark_ms, open_rows, restore_ms, "took the shard over");
        self.actor.ground.stats.restored(self.actor.shard, Standing::of(&self.machine));
        self.actor.tell(News::Ready).await;
        for asker in &self.actor.askers {
            self.answer(asker);
        }
        self.announce();
    }

    fn answer(&self, asker: &Asker) {
        for partition in &asker.partitions {
            asker.replies.want(*partition, self.want(*partition, None));
        }
    }

    /// What the shard wants of a partition; `refused` where it could not cover a frame.
    fn want(&self, partition: Partition, refused: Option<(Offset, bool)>) -> Want {
        let input = self.machine.input(partition);
        let (next, payloads) =
            refused.unwrap_or_else(|| (input.next, self.machine.needs_payloads(partition)));
        Want {
            shard: self.actor.shard,
            assignment: self.actor.assignment,
            next,
            in_band: input.watermark,
            watermark: self.machine.state().watermark(),
            payloads,
        }
    }

    fn take(&mut self, message: Option<ToShard>) {
        match message {
            // Intake has stopped.
            Some(ToShard::Frames(dropped)) if self.actor.leave.is_some() => drop(dropped),
            Some(ToShard::Frames(fed)) => {
                fed.traces.into_iter().for_each(|trace| self.traces.add(trace));
                self.waiting.extend(fed.frames);
            }
            Some(ToShard::Ask(asker)) => {
                // A stream begins with an ask, and with its own credit: what waits of those that have ended goes, or it would
                // add up (I7). The ingest sends it again, from where the shard is.
                self.waiting.retain(|(_, permit)| !permit.replies().is_closed());
                self.answer(&asker);
                self.actor.asked(asker);
            }
            Some(ToShard::Inspect(question)) => self.inspect(question),
            Some(ToShard::Replay(given)) if self.actor.leave.is_some() => drop(given),
            Some(ToShard::Replay(given)) => self.replays.push(*given),
            Some(ToShard::Leave(leave)) => {
                self.actor.leave = Some(leave);
                self.waiting.clear();
                self.replays.waiting.clear();
            }
            None => self.actor.leave = Some(Leave::AtOnce),
        }
    }

    /// Answers as of a commit: what has moved without a row or an output is as good as committed.
    fn inspect(&mut self, question: Question) {
        let is_clean = self.urgency() <= Urgency::Moved;
        let is_committed = is_clean && self.in_flight.is_none();
        if is_committed || !question.committed {
            self.answer_to(question, is_committed).into_iter().for_each(Answer::give);
        } else if is_clean {
            let answer = self.answer_to(question, true);
            if let Some(in_flight) = &mut self.in_flight {
                in_flight.answers.extend(answer);
            }
        } else {
            self.questions.retain(|waiting| !waiting.is_closed());
            self.questions.push(question);
        }
    }

    fn answer_to(&self, question: Question, committed: bool) -> Option<Answer> {
        question.answer(&self.machine, &self.actor.ground.job, self.actor.assignment, committed)
    }

    fn announce(&mut self) {
        let newest = self.actor.announcements.borrow_and_update();
        if let Some(announcement) = newest.as_ref() {
            self.machine.announce(announcement);
        }
    }

    fn apply_waiting(&mut self) {
        while self.machine.takes_frames()
            && let Some((frame, permit)) = self.waiting.pop_front()
        {
            match self.machine.apply(&frame) {
                Applied::Covered => self.held.hold(permit),
                Applied::Known | Applied::Stale => drop(permit),
                Applied::Refused(nack) => {
                    let (partition, next, payloads) = (nack.partition, nack.next, nack.payloads);
                    tracing::debug!(
                        shard = self.actor.shard.0,
                        ?partition,
                        ?next,
                        payloads,
                        "refused a session"
                    );
                    permit.replies().want(partition, self.want(partition, Some((next, payloads))));
                }
            }
        }
    }

    /// Takes one frame of a replay between two commits, behind the live ones: what it adds to a commit is bounded, and live records
    /// do not wait for more.
    fn apply_replay(&mut self) {
        if !self.takes_replay() {
            return;
        }
        let Some(given) = self.replays.next() else { return };
        let replayed = self.machine.apply_replay(&given.frame);
        let became = given.became(replayed);
        if self.urgency() > Urgency::Moved {
            self.replays.applied.push(became);
        } else if let Some(in_flight) = &mut self.in_flight {
            // All of it was known, some of it perhaps by the commit in flight.
            in_flight.replayed.push(became);
        } else {
            became.give();
        }
    }

    fn takes_replay(&self) -> bool {
        !self.replays.waiting.is_empty() && self.replays.applied.is_empty() && self.machine.takes_frames()
    }

    fn urgency(&self) -> Urgency {
        if self.machine.has_output() {
            Urgency::Output
        } else if self.machine.is_dirty() {
            Urgency::Dirty
        } else if self.machine.has_moved() {
            Urgency::Moved
        } else {
            Urgency::Nothing
        }
    }

    fn has_to_commit(&self) -> bool {
        let committed = matches!(self.actor.leave, Some(Leave::Committed | Leave::Stopping));
        committed && self.urgency() > Urgency::Nothing
    }

    fn begin_commit(&mut self, now: Tick) {
        let Some(producer) = self.holdings.producer.take() else { return };
        if self.holdings.cache.wants_run(now) {
            self.machine.want_run();
        }
        let Some(mut commit) = self.machine.plan() else {
            self.holdings.producer = Some(producer);
            return;
        };
        self.pacer.begin(now);
        let questions = std::mem::take(&mut self.questions);
        let answers = questions.into_iter().filter_map(|question| self.answer_to(question, true)).collect();
        let spans = self.machine.take_span_traffic();
        if spans.left > 0 && !std::mem::replace(&mut self.has_spans_away, true) {
            let shard = self.actor.shard.0;
            tracing::info!(shard, "what sliding windows span is beyond memory: some of it goes to the disk");
        }
        if commit.spilled.is_some() || spans.left > 0 {
            tidegate_allocator::give_back_soon();
        }
        let counts = CommitCounts::of(&commit, &self.machine, spans);
        let (renderer, shard) = (Arc::clone(&self.actor.ground.renderer), self.actor.shard);
        let spilled = commit.spilled.take();
        let traced = self.traces.of(&commit.results);
        if let Some(purged) = self.purged_before() {
            self.traces.forget_before(purged);
        }
        let task = spawn_blocking(move || commit::run(&renderer, shard, producer, commit, traced));
        let held = std::mem::take(&mut self.held);
        let replayed = std::mem::take(&mut self.replays.applied);
        self.in_flight = Some(InFlight { task, held, answers, replayed, spilled, counts, begun: now });
    }

    /// Records before this are in no window any more.
    fn purged_before(&self) -> Option<EventTime> {
        let core = &self.actor.ground.job.core;
        Some(self.machine.state().watermark()?.minus(core.operator.trail()).minus(core.allowed_lateness))
    }

    /// Acts on the end of a commit; the reason where serving ends with it.
    fn finish_commit(&mut self, done: Result<Done, JoinError>) -> Option<Ended> {
        let InFlight { held, answers, replayed, spilled, counts, begun, .. } = self.in_flight.take()?;
        let shard = self.actor.shard.0;
        let Done { producer, block, end } = match done {
            Ok(done) => done,
            Err(error) => {
                tracing::error!(shard, %error, "a commit did not come to an end, reading the log again");
                return Some(Ended::Failed);
            }
        };
        self.holdings.producer = producer;
        if !matches!(end, End::Committed { .. }) {
            self.actor.ground.stats.failed();
        }
        match end {
            End::Committed { offset } => {
                let now = self.actor.now();
                self.pacer.committed(now);
                let latency = Duration::from_millis(now.since(begun)).as_secs_f64();
                self.actor.ground.stats.committed(self.actor.shard, &counts, latency);
                self.acknowledge(block.sequence, offset);
                match spilled {
                    Some(spilled) => self.holdings.cache.spilled(&block, offset, &spilled, now),
                    None => self.holdings.cache.committed(block, offset, now),
                }
                self.follow(now);
                drop(held);
                answers.into_iter().for_each(Answer::give);
                replayed.into_iter().for_each(Became::give);
                None
            }
            End::Fenced => {
                tracing::warn!(
                    shard,
                    "another owner took the shard, or the transaction took too long: dropping the shard"
                );
                Some(Ended::Fenced)
            }
            End::Refused { reason } => {
                tracing::error!(
                    shard,
                    error = reason,
                    "a record cannot be written; nothing is lost, the shard stands still and tries again"
                );
                Some(Ended::Failed)
            }
            End::Aborted { reason } => {
                tracing::warn!(shard, error = reason, "a commit was aborted, restoring the shard");
                Some(Ended::Failed)
            }
            End::Unknown { reason } => {
                tracing::warn!(
                    shard,
                    error = reason,
                    "the outcome of a commit is not known, reading the log again"
                );
                Some(Ended::Failed)
            }
        }
    }

    /// As much memory as the rows may take: all there is where no store takes runs.
    fn set_memory(&mut self) {
        let share = self.actor.ground.share();
        self.holdings.cache.set_share(share);
        self.machine.set_memory(self.holdings.cache.takes_runs().then_some(share));
    }

    /// Gives the local store what is due.
    fn follow(&mut self, now: Tick) {
        let (cache, writer) = (&mut self.holdings.cache, &self.actor.ground.cache);
        cache.follow(writer, now);
        if cache.is_free()
            && let Some(compaction) = self.machine.compaction()
        {
            cache.compact(writer, compaction);
        }
    }

    /// The local store has what it was given.
    fn written(&mut self, written: Written) {
        let Written { stored, compacted } = written;
        self.machine.stored(&stored);
        if let Some(done) = compacted {
            let (inputs, output) = (done.inputs.clone(), done.output.clone());
            if self.machine.compacted(done) {
                self.holdings.cache.replaced(&inputs, &output);
            }
        }
        self.follow(self.actor.now());
    }

    fn acknowledge(&mut self, sequence: u64, offset: Option<Offset>) {
        // Where the block lies is needed only to cut the log before it, and before offset 0 there is nothing to cut.
        let committed = self.machine.committed(sequence, offset.unwrap_or_default());
        self.actor.askers.retain(|asker| !asker.replies.is_closed());
        for asker in &self.actor.askers {
            let positions = committed.positions.iter().copied();
            let read_there = positions.filter(|(partition, _)| asker.partitions.contains(partition));
            asker.replies.committed(self.actor.shard, read_there, committed.watermark);
        }
        if let Some(before) = committed.truncate_before.filter(|before| *before > Offset(0)) {
            self.truncate(before);
        }
    }

    /// Deletes what a finished snapshot has made superfluous; where that fails, the next snapshot tries again.
    fn truncate(&self, before: Offset) {
        let (ground, shard) = (Arc::clone(&self.actor.ground), self.actor.shard);
        task::spawn("truncate-changelog", async move {
            let topic = &ground.renderer.changelog;
            match ground.admin.delete_records(topic, Partition(shard.0), before).await {
                Ok(_) => tracing::debug!(shard = shard.0, offset = before.0, "cut the changelog"),
                Err(error) => tracing::warn!(shard = shard.0, %error, "cannot cut the changelog"),
            }
        });
    }
}

/// The end of the commit in flight; never ready without one.
async fn finished(in_flight: &mut Option<InFlight>) -> Result<Done, JoinError> {
    match in_flight {
        Some(in_flight) => (&mut in_flight.task).await,
        None => std::future::pending().await,
    }
}
