//! A coordinator process: the shell around [`WatermarkMachine`] and [`AssignmentMachine`].

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::{
    announcement::{PartitionState, ReaderEpoch, Report, Term},
    assignment::{AssignmentEffect, AssignmentMachine, StreamId, WorkerId},
    coordinator::{ReaderId, ReportOutcome, WatermarkEffect, WatermarkMachine},
    time::{EventTime, Partition, Shard, Tick, Watermark},
};

use crate::{
    context::{Context, Event, LinkId, Message, Process},
    mutation::Mutation,
};

#[derive(Debug)]
pub struct Coordinator {
    id: u64,
    watermark: WatermarkMachine,
    assignment: AssignmentMachine,
    ingests: Vec<LinkId>,
    workers: BTreeMap<LinkId, (WorkerId, u64)>,
    /// Shards whose W_s was told on a stream that is open.
    heard: BTreeSet<(Shard, LinkId)>,
    refreshed: Option<u64>,
    /// The highest epoch ever, for a mutation alone.
    epochs: BTreeMap<Partition, ReaderEpoch>,
    owners_sent: u64,
    /// The last report of each partition and the stream it came on, for mutations alone.
    reported: BTreeMap<Partition, (LinkId, Report)>,
    /// Fences under way, by shard, and the assignments that wait for them.
    fences: BTreeMap<Shard, Fence>,
    /// A later coordinator has written its leader record: this one stops then.
    pub deposed_at: Option<u64>,
}

#[derive(Debug, Default)]
struct Fence {
    attempt: u64,
    since: u64,
    waiting: Vec<AssignmentEffect>,
}

/// A fence that takes longer is given up.
const FENCE_PATIENCE: u64 = 200;

impl Coordinator {
    pub fn new(id: u64, term: u64, ctx: &Context) -> Self {
        Self {
            id,
            watermark: WatermarkMachine::new(Term(term), ctx.scenario.watermark.clone()),
            assignment: AssignmentMachine::new(Term(term), ctx.scenario.job.shards, ctx.scenario.assignment),
            ingests: Vec::new(),
            workers: BTreeMap::new(),
            heard: BTreeSet::new(),
            refreshed: None,
            epochs: BTreeMap::new(),
            owners_sent: 0,
            reported: BTreeMap::new(),
            fences: BTreeMap::new(),
            deposed_at: None,
        }
    }

    const fn process(&self) -> Process {
        Process::Coordinator(self.id)
    }

    /// The worker that speaks on a stream is gone or here, as this coordinator sees it.
    pub fn is_deposed(&self, now: u64) -> bool {
        self.assignment.deposed_by().is_some() || self.deposed_at.is_some_and(|at| at <= now)
    }

    fn refresh(&mut self, ctx: &Context) {
        if !ctx.is_mutated(Mutation::PartitionsFromReports) {
            self.watermark.metadata(ctx.topic.visible(ctx.now));
        }
        self.refreshed = Some(ctx.now);
    }

    pub fn tick(&mut self, ctx: &mut Context) {
        if self.refreshed.is_none_or(|at| ctx.now >= at + ctx.scenario.refresh) {
            self.refresh(ctx);
        }
        let clock = EventTime(ctx.now as i64);
        if ctx.is_mutated(Mutation::UnownedDoNotHold) {
            for (link, report) in self.reported.values().filter(|(link, _)| !self.ingests.contains(link)) {
                let idle = Report { state: PartitionState::Idle, ..*report };
                self.watermark.report(ReaderId(link.0), &idle, Tick(ctx.now));
            }
        }
        for effect in self.watermark.tick(Tick(ctx.now), clock) {
            self.direct(effect, ctx);
        }
        let overdue: Vec<_> =
            self.fences.iter().filter(|(_, f)| ctx.now > f.since + FENCE_PATIENCE).map(|(s, _)| *s).collect();
        for shard in overdue {
            self.fence_ended(shard, ctx);
        }
        let effects = self.assignment.tick(Tick(ctx.now));
        self.perform(effects, ctx);
        self.announce(ctx);
    }

    fn announce(&mut self, ctx: &mut Context) {
        let Some(announcement) = self.watermark.announce(Tick(ctx.now)) else { return };
        ctx.note(|| format!("coordinator {} {announcement:?}", self.id));
        ctx.ledger.announced(&announcement, self.committed_by_those_here(ctx));
        for link in self.ingests.iter().chain(self.workers.keys()) {
            ctx.send(*link, self.process(), Message::Announcement(announcement.clone()));
        }
    }

    /// The largest W_s that a worker has committed for a shard of which it told this coordinator.
    fn committed_by_those_here(&self, ctx: &Context) -> Watermark {
        let heard = self.heard.iter().filter(|(shard, link)| {
            let committer = ctx.ledger.committer(*shard);
            self.deposed_at.is_none()
                && self.workers.get(link).is_some_and(|(_, process)| *process == committer)
        });
        heard.map(|(shard, _)| ctx.ledger.state(*shard).watermark()).max().flatten()
    }

    fn direct(&self, effect: WatermarkEffect, ctx: &mut Context) {
        let (reader, message) = match effect {
            WatermarkEffect::Raise { reader, partition, at, to } => {
                ctx.count("raises");
                ctx.note(|| format!("coordinator {} {effect:?}", self.id));
                ctx.ledger.raised(partition, at, to);
                (reader, Message::Raise(partition, at, to))
            }
            WatermarkEffect::Pause { reader, partition } => {
                if ctx.is_mutated(Mutation::PausesHoldTheSlowest) {
                    for (link, report) in self.reported.values() {
                        ctx.send(*link, self.process(), Message::Pause(report.partition, true));
                    }
                }
                ctx.count("pauses for drift");
                ctx.note(|| format!("coordinator {} {effect:?}", self.id));
                (reader, Message::Pause(partition, true))
            }
            WatermarkEffect::Resume { reader, partition } => (reader, Message::Pause(partition, false)),
        };
        ctx.send(LinkId(reader.0), self.process(), message);
    }

    fn perform(&mut self, effects: Vec<AssignmentEffect>, ctx: &mut Context) {
        for effect in effects {
            match &effect {
                AssignmentEffect::Fence { shard } => {
                    let attempt = ctx.number();
                    let fence = self.fences.entry(*shard).or_default();
                    (fence.attempt, fence.since) = (attempt, ctx.now);
                    let latency = ctx.latency();
                    ctx.note(|| format!("coordinator {} fences shard {shard}", self.id));
                    ctx.after(latency, Event::Init { by: self.process(), shard: *shard, attempt });
                }
                AssignmentEffect::Assign { shard, .. } | AssignmentEffect::Release { shard, .. } => {
                    match self.fences.get_mut(shard) {
                        Some(fence) => fence.waiting.push(effect),
                        None => self.tell(&effect, ctx),
                    }
                }
            }
        }
        self.send_owners(ctx);
    }

    fn tell(&self, effect: &AssignmentEffect, ctx: &mut Context) {
        let (worker, message) = match effect {
            AssignmentEffect::Assign { shard, worker, assignment } => {
                (worker, Message::Assign(*shard, *assignment))
            }
            AssignmentEffect::Release { shard, worker, assignment } => {
                (worker, Message::Release(*shard, *assignment))
            }
            AssignmentEffect::Fence { .. } => return,
        };
        ctx.note(|| format!("coordinator {} to {worker}: {message:?}", self.id));
        if let Some((link, _)) = self.workers.iter().find(|(_, (name, _))| name == worker) {
            ctx.send(*link, self.process(), message);
        }
    }

    pub fn fenced(&mut self, shard: Shard, attempt: u64, ctx: &mut Context) {
        if self.fences.get(&shard).is_some_and(|fence| fence.attempt == attempt) {
            self.fence_ended(shard, ctx);
        }
    }

    fn fence_ended(&mut self, shard: Shard, ctx: &mut Context) {
        let waiting = self.fences.remove(&shard).map(|fence| fence.waiting).unwrap_or_default();
        waiting.iter().for_each(|effect| self.tell(effect, ctx));
    }

    fn send_owners(&mut self, ctx: &mut Context) {
        let owners = self.assignment.owners();
        if owners.version != self.owners_sent {
            self.owners_sent = owners.version;
            for link in &self.ingests {
                ctx.send(*link, self.process(), Message::Owners(owners.clone()));
            }
        }
    }

    pub fn receive(&mut self, link: LinkId, from: Process, message: Message, ctx: &mut Context) {
        let now = Tick(ctx.now);
        let name = self.workers.get(&link).map(|(name, _)| name.clone());
        match (message, name) {
            (Message::IngestHello, _) => {
                self.ingests.push(link);
                self.welcome(link, ctx);
                ctx.send(link, self.process(), Message::Owners(self.assignment.owners().clone()));
            }
            (Message::Reports(reports), _) => {
                for report in reports {
                    self.reported.insert(report.partition, (link, report));
                    let epoch = self.epochs.entry(report.partition).or_default();
                    *epoch = report.epoch.max(*epoch);
                    if ctx.is_mutated(Mutation::EpochsAreRemembered) && report.epoch < *epoch {
                        continue;
                    }
                    if ctx.is_mutated(Mutation::PartitionsFromReports) {
                        self.watermark.metadata(report.partition.0 + 1);
                    }
                    let outcome = self.watermark.report(ReaderId(link.0), &report, now);
                    if outcome == ReportOutcome::UnknownPartition {
                        self.refresh(ctx);
                    }
                }
            }
            (Message::WorkerHello(hello), _) => {
                let (mut registration, committed, announced) = *hello;
                registration.stream = StreamId(link.0);
                let Process::Worker(process) = from else { return };
                let same = |(_, (name, _)): &(&LinkId, &(WorkerId, u64))| *name == registration.worker;
                let replaced: Vec<_> = self.workers.iter().filter(same).map(|(link, _)| *link).collect();
                for link in replaced {
                    self.workers.remove(&link);
                    self.heard.retain(|(_, other)| *other != link);
                    ctx.close(link, self.process());
                }
                self.workers.insert(link, (registration.worker.clone(), process));
                self.heard.extend(registration.claims.keys().map(|shard| (*shard, link)));
                self.watermark.recover(committed, announced.as_ref());
                self.welcome(link, ctx);
                let effects = self.assignment.registered(registration, now);
                self.perform(effects, ctx);
            }
            (Message::Ready(shard, committed), Some(name)) => {
                self.heard.insert((shard, link));
                self.watermark.recover(committed, None);
                let effects = self.assignment.ready(shard, &name, now);
                self.perform(effects, ctx);
            }
            (Message::Released(shard, assignment), Some(name)) => {
                let effects = self.assignment.released(shard, &name, assignment, now);
                self.perform(effects, ctx);
            }
            (Message::Fenced(shard, assignment), Some(name)) => {
                let effects = self.assignment.fenced(shard, &name, assignment, now);
                self.perform(effects, ctx);
            }
            (Message::Draining, Some(name)) => {
                let effects = self.assignment.draining(&name, now);
                self.perform(effects, ctx);
            }
            _ => {}
        }
    }

    fn welcome(&self, link: LinkId, ctx: &mut Context) {
        if let Some(current) = self.watermark.current() {
            ctx.send(link, self.process(), Message::Announcement(current.clone()));
        }
    }

    pub fn down(&mut self, link: LinkId, ctx: &mut Context) {
        if self.ingests.contains(&link) {
            self.ingests.retain(|other| *other != link);
            if !ctx.is_mutated(Mutation::UnownedDoNotHold) {
                self.watermark.reader_gone(ReaderId(link.0));
            }
        }
        self.heard.retain(|(_, other)| *other != link);
        if let Some((name, _)) = self.workers.remove(&link) {
            let effects = self.assignment.lost(&name, StreamId(link.0), Tick(ctx.now));
            self.perform(effects, ctx);
        }
    }

    /// What W waits for, for a run that does not end.
    pub fn explain(&self) -> String {
        format!("coordinator {}: {:?}, {:?}", self.id, self.watermark.explain(), self.assignment.owners())
    }
}
