//! One run: all processes, the group, the brokers' answers, the faults, and how it ends.

use std::{collections::BTreeMap, rc::Rc};

use tidegate_core::{
    block::Closing,
    shard::Pane,
    source::LaneKind,
    time::{Offset, Shard, Watermark},
};

use crate::{
    changelog::CommitOutcome,
    context::{CommitRequest, Context, Event, Process, Role},
    coordinator::Coordinator,
    dice::Dice,
    group::Group,
    ingest::Ingest,
    mutation::Mutation,
    replay::{Replayer, Request},
    scenario::{Faults, Scenario},
    topic::Topic,
    violation::{ensure, violated},
    worker::{Volume, Worker},
};

#[derive(Debug)]
pub struct World {
    pub ctx: Context,
    pub ingests: BTreeMap<u64, Ingest>,
    pub workers: BTreeMap<u64, Worker>,
    pub coordinators: BTreeMap<u64, Coordinator>,
    pub group: Group,
    replayer: Replayer,
    /// Everything was asked for back at the end.
    asked_all: bool,
    /// What the local stores of live workers hold, and of dead ones, by name.
    volumes: BTreeMap<u64, Volume>,
    abandoned: BTreeMap<String, Volume>,
    /// Processes that do nothing until then.
    pub paused: BTreeMap<Process, u64>,
    /// The processes that are to be there in the end.
    terms: u64,
    ended: bool,
    /// How far it had come when it last moved, and when.
    progress: (Progress, u64),
}

/// See [`crate::ledger::Ledger::progress`]; and answers to replays.
type Progress = ((u64, usize, Vec<(Watermark, Option<Closing>)>), u64);

/// After the last fault something has come out within this many ms, or everything is out.
const MOVES_WITHIN: u64 = 8_000;
/// A run has fewer events.
const MOST_EVENTS: u64 = 3_000_000;

impl World {
    pub fn new(seed: u64, mutation: Option<Mutation>, traced: bool) -> Self {
        let mut dice = Dice::new(seed);
        let scenario = Scenario::generate(&mut dice);
        Self::of(scenario, dice, mutation, traced)
    }

    pub fn of(scenario: Scenario, mut dice: Dice, mutation: Option<Mutation>, traced: bool) -> Self {
        let topic = Rc::new(Topic::generate(&scenario, &mut dice));
        let ctx = Context::new(Rc::new(scenario), topic, dice, mutation, traced);
        let mut world = Self {
            ctx,
            ingests: BTreeMap::new(),
            workers: BTreeMap::new(),
            coordinators: BTreeMap::new(),
            group: Group::default(),
            replayer: Replayer::new(),
            asked_all: false,
            volumes: BTreeMap::new(),
            abandoned: BTreeMap::new(),
            paused: BTreeMap::new(),
            terms: 0,
            ended: false,
            progress: Default::default(),
        };
        world.begin();
        world
    }

    fn begin(&mut self) {
        let scenario = Rc::clone(&self.ctx.scenario);
        self.start_soon(Role::Coordinator);
        (0..scenario.ingests).for_each(|_| self.start_soon(Role::Ingest));
        (0..scenario.workers).for_each(|worker| self.start_soon(Role::Worker(format!("w{worker}"))));
        for log in &Rc::clone(&self.ctx.topic).partitions {
            if log.created > 0 {
                let noticed = self.ctx.dice.within(0, scenario.refresh);
                self.ctx.after(log.created + noticed, Event::Rebalance { recreated: false });
            }
        }
        for _ in 0..scenario.faults.count {
            if scenario.faults.kinds.is_empty() {
                break;
            }
            let at = self.ctx.dice.within(0, scenario.chaos_until);
            let kind = *self.ctx.dice.pick(&scenario.faults.kinds);
            self.ctx.after(at, Event::Fault(kind));
        }
        self.ctx.after(scenario.chaos_until, Event::Heal);
        if !scenario.replays.is_empty() {
            self.ctx.after(0, Event::ReplayTick);
        }
        for (number, (at, _)) in scenario.replays.iter().enumerate() {
            self.ctx.after(*at, Event::Replay(number));
        }
    }

    fn start_soon(&mut self, role: Role) {
        let after = self.ctx.dice.within(0, 60);
        self.ctx.after(after, Event::Start(role));
    }

    /// Lets everything happen until the run is complete.
    pub fn run(&mut self) {
        while !self.ended {
            self.step();
        }
        self.ctx.ledger.check_answer();
        for _ in 0..self.ctx.ledger.split() {
            self.ctx.count("sessions split");
        }
        for shard in (0..self.ctx.scenario.job.shards).map(Shard) {
            self.ctx.ledger.check_log(shard, self.ctx.changelog.bytes(shard));
        }
    }

    /// Lets everything happen that is due before `time`.
    pub fn run_until(&mut self, time: u64) {
        while !self.ended && self.ctx.due().is_some_and(|due| due < time) {
            self.step();
        }
    }

    fn step(&mut self) {
        let Some((number, event)) = self.ctx.next() else {
            violated("quiescence", "nothing happens any more".into())
        };
        ensure(self.ctx.events < MOST_EVENTS, "quiescence", || self.unfinished());
        match self.sleeper(&event) {
            Some(until) => self.ctx.put_off(until, number, event),
            None => self.handle(event),
        }
    }

    fn handle(&mut self, event: Event) {
        let Self { ctx, ingests, workers, coordinators, volumes, replayer, .. } = self;
        match event {
            Event::Deliver { link, to, message } => {
                let Some(receiver) = ctx.receives(link, to) else { return };
                let Some(from) = ctx.links.get(&link).map(|link| link.ends[1 - to]) else { return };
                match receiver {
                    Process::Ingest(id) => {
                        if let Some(ingest) = ingests.get_mut(&id) {
                            ingest.receive(link, message, ctx);
                        }
                    }
                    Process::Worker(id) => {
                        if let Some(worker) = workers.get_mut(&id) {
                            worker.receive(link, from, message, ctx);
                        }
                    }
                    Process::Coordinator(id) => {
                        if let Some(coordinator) = coordinators.get_mut(&id) {
                            coordinator.receive(link, from, message, ctx);
                        }
                    }
                }
            }
            Event::Down { link, at } => match ctx.down(link, at) {
                Some(Process::Ingest(id)) => {
                    if let Some(ingest) = ingests.get_mut(&id) {
                        ingest.down(link, ctx);
                    }
                }
                Some(Process::Worker(id)) => {
                    if let Some(worker) = workers.get_mut(&id) {
                        worker.down(link);
                    }
                }
                Some(Process::Coordinator(id)) => {
                    if let Some(coordinator) = coordinators.get_mut(&id) {
                        coordinator.down(link, ctx);
                    }
                }
                None => {}
            },
            Event::Tick(process) => self.tick(process),
            Event::Read { ingest, partition, lane, reading } => {
                if let Some(ingest) = ingests.get_mut(&ingest) {
                    ingest.read(partition, lane, reading, ctx);
                }
            }
            Event::EndAsked { ingest, partition } => {
                if !ctx.dice.chance(ctx.faults.admin_lost) {
                    let log = ctx.topic.log(partition);
                    let (stable, high) = (log.stable(ctx.now), log.high(ctx.now));
                    let slow =
                        if ctx.dice.chance(ctx.faults.admin_slow) { ctx.dice.within(0, 2_000) } else { 0 };
                    let latency = ctx.latency() + slow;
                    ctx.after(latency, Event::EndAnswered { ingest, partition, stable, high });
                }
            }
            Event::EndAnswered { ingest, partition, stable, high } => {
                if let Some(ingest) = ingests.get_mut(&ingest) {
                    ingest.end_answered(partition, stable, high, ctx);
                }
            }
            Event::Assigned { ingest, generation, partitions } => {
                if let Some(ingest) = ingests.get_mut(&ingest) {
                    ctx.note(|| format!("group generation {generation}: {partitions:?}"));
                    ingest.assigned(generation, &partitions, ctx);
                }
            }
            Event::Rebalance { recreated } => self.group.rebalance(recreated, ctx),
            Event::Init { by, shard, attempt } => {
                let epoch = ctx.changelog.init(shard);
                if !ctx.dice.chance(ctx.faults.admin_lost) {
                    let latency = ctx.latency();
                    ctx.after(latency, Event::InitAnswered { by, shard, attempt, epoch });
                }
            }
            Event::InitAnswered { by: Process::Worker(id), shard, attempt, epoch } => {
                if let Some(worker) = workers.get_mut(&id) {
                    worker.initialised(shard, attempt, epoch, ctx);
                }
            }
            Event::InitAnswered { by: Process::Coordinator(id), shard, attempt, .. } => {
                if let Some(coordinator) = coordinators.get_mut(&id) {
                    coordinator.fenced(shard, attempt, ctx);
                }
            }
            Event::InitAnswered { by: Process::Ingest(_), .. } => {}
            Event::Restored { worker, shard, attempt, epoch } => {
                if let (Some(worker), Some(volume)) = (workers.get_mut(&worker), volumes.get_mut(&worker)) {
                    worker.restored(shard, attempt, epoch, volume, ctx);
                }
            }
            Event::Commit(request) => commit(&request, ctx),
            Event::CommitAnswered { worker, shard, attempt, outcome } => {
                if let (Some(worker), Some(volume)) = (workers.get_mut(&worker), volumes.get_mut(&worker)) {
                    worker.commit_answered(shard, attempt, outcome, volume, ctx);
                }
            }
            Event::CommitOverdue { worker, shard, attempt } => {
                if let Some(worker) = workers.get_mut(&worker) {
                    worker.commit_overdue(shard, attempt, ctx);
                }
            }
            Event::Truncate { .. } if ctx.is_mutated(Mutation::NeverTruncates) => {}
            Event::Truncate { shard, before } => {
                let too_far = u64::from(ctx.is_mutated(Mutation::TruncatesTooFar));
                let before = Offset(before.0 + too_far);
                ctx.count("logs truncated");
                ctx.changelog.truncate(shard, before);
            }
            Event::Replay(number) => {
                let request = ctx.scenario.replays[number].1.clone();
                replayer.ask(request, ctx);
            }
            Event::ReplayTick => {
                replayer.tick(workers, ctx);
                ctx.after(20, Event::ReplayTick);
            }
            Event::ReplayAsked { worker, asked } => {
                if let Some(worker) = workers.get_mut(&worker) {
                    worker.asked(*asked, ctx);
                }
            }
            Event::ReplayAnswered { run, at } => replayer.answered(run, at, ctx),
            Event::Fault(kind) => self.befall(kind),
            Event::Start(role) => self.start(role),
            Event::Heal => self.heal(),
            Event::Settled => self.settled(),
        }
    }

    /// Until when the process that an event is for is paused.
    fn sleeper(&self, event: &Event) -> Option<u64> {
        let process = match event {
            Event::Deliver { link, to, .. } | Event::Down { link, at: to } => {
                self.ctx.links.get(link)?.ends[*to]
            }
            Event::Tick(process) | Event::InitAnswered { by: process, .. } => *process,
            Event::Read { ingest, .. }
            | Event::EndAnswered { ingest, .. }
            | Event::Assigned { ingest, .. } => Process::Ingest(*ingest),
            Event::Restored { worker, .. }
            | Event::ReplayAsked { worker, .. }
            | Event::CommitAnswered { worker, .. }
            | Event::CommitOverdue { worker, .. } => Process::Worker(*worker),
            _ => return None,
        };
        self.paused.get(&process).copied().filter(|until| *until > self.ctx.now)
    }

    /// Where processes find the coordinator: the one that last wrote its leader record.
    fn leader(&self) -> Option<u64> {
        self.coordinators.keys().next_back().copied()
    }

    fn tick(&mut self, process: Process) {
        let leader = self.leader();
        let ctx = &mut self.ctx;
        match process {
            Process::Ingest(id) => {
                let Some(ingest) = self.ingests.get_mut(&id) else { return };
                ingest.tick(leader, ctx);
            }
            Process::Worker(id) => {
                let Some(worker) = self.workers.get_mut(&id) else { return };
                worker.tick(leader, ctx);
                let bound = bound_of_inbox(ctx) * worker.streams();
                ensure(worker.waiting() <= bound, "I7: what waits at a worker is bounded by credit", || {
                    format!("{} bytes wait", worker.waiting())
                });
                if worker.draining && worker.shards.is_empty() {
                    return self.stop_worker(id);
                }
            }
            Process::Coordinator(id) => {
                let Some(coordinator) = self.coordinators.get_mut(&id) else { return };
                coordinator.tick(ctx);
                if coordinator.is_deposed(ctx.now) {
                    return self.stop_coordinator(id);
                }
            }
        }
        let tick = self.ctx.scenario.tick;
        self.ctx.after(tick, Event::Tick(process));
    }

    pub fn start(&mut self, role: Role) {
        let ctx = &mut self.ctx;
        let id = ctx.number();
        let process = match role {
            Role::Ingest => {
                self.ingests.insert(id, Ingest::new(id, ctx.scenario.credit));
                self.group.join(id);
                ctx.after(0, Event::Rebalance { recreated: false });
                Process::Ingest(id)
            }
            Role::Worker(name) => {
                let taken = self.workers.values().any(|worker| worker.name == name && !worker.draining);
                let name = if taken { format!("w{id}") } else { name };
                self.volumes.insert(id, self.abandoned.remove(&name).unwrap_or_default());
                self.workers.insert(id, Worker::new(id, name));
                Process::Worker(id)
            }
            Role::Coordinator => {
                self.terms += ctx.dice.within(1, 5);
                for other in self.coordinators.values_mut() {
                    let noticed = ctx.dice.within(0, 800);
                    other.deposed_at.get_or_insert(ctx.now + noticed);
                }
                self.coordinators.insert(id, Coordinator::new(id, self.terms, ctx));
                Process::Coordinator(id)
            }
        };
        ctx.note(|| format!("{process:?} starts"));
        ctx.live.insert(process);
        ctx.after(0, Event::Tick(process));
    }

    pub fn stop_ingest(&mut self, id: u64) {
        self.ingests.remove(&id);
        self.group.leave(id);
        self.ctx.gone(Process::Ingest(id));
    }

    pub fn stop_worker(&mut self, id: u64) {
        let Some(worker) = self.workers.remove(&id) else { return };
        self.ctx.gone(Process::Worker(id));
        self.abandoned.insert(worker.name, self.volumes.remove(&id).unwrap_or_default());
    }

    pub fn stop_coordinator(&mut self, id: u64) {
        self.coordinators.remove(&id);
        self.ctx.gone(Process::Coordinator(id));
    }

    /// A dead worker's volume, for faults.
    pub fn abandoned(&mut self, name: &str) -> Option<&mut Volume> {
        self.abandoned.get_mut(name)
    }

    fn heal(&mut self) {
        self.ctx.note(|| "all faults end".to_owned());
        self.ctx.faults = Faults::default();
        self.ctx.cut.clear();
        self.ctx.cut_off.clear();
        self.group.heal(self.ingests.keys().copied());
        if self.ingests.is_empty() {
            self.start(Role::Ingest);
        }
        if self.coordinators.values().all(|coordinator| coordinator.deposed_at.is_some()) {
            self.start(Role::Coordinator);
        }
        if self.workers.values().all(|worker| worker.draining) {
            self.start(Role::Worker("w0".to_owned()));
        }
        self.ctx.after(0, Event::Rebalance { recreated: false });
        self.ctx.after(0, Event::Settled);
    }

    fn settled(&mut self) {
        let begins = self.ctx.scenario.chaos_until.max(self.ctx.topic.complete_at());
        if self.ctx.now >= begins && self.ctx.ledger.is_complete() && self.replayer.is_idle() {
            if self.asked_all || self.ctx.scenario.replays.is_empty() {
                self.ended = true;
                return;
            }
            self.asked_all = true;
            self.replayer.ask(Request::all(), &self.ctx);
        }
        let progress = (self.ctx.ledger.progress(), self.replayer.answers);
        if self.ctx.now < begins || progress != self.progress.0 {
            self.progress = (progress, self.ctx.now);
        }
        ensure(self.ctx.now < self.progress.1 + MOVES_WITHIN, "quiescence", || self.unfinished());
        self.ctx.after(50, Event::Settled);
    }

    fn unfinished(&self) -> String {
        let mut seen = self.ctx.ledger.missing();
        for coordinator in self.coordinators.values() {
            seen += &coordinator.explain();
        }
        self.workers.values().for_each(|worker| seen += &worker.explain());
        for (id, ingest) in &self.ingests {
            seen += &ingest.explain();
            for (partition, reading) in &ingest.partitions {
                let position = |lane: LaneKind| match lane {
                    LaneKind::Main => reading.source.main().map(|lane| lane.position()),
                    LaneKind::CatchUp => reading.source.catch_up().map(|lane| lane.position()),
                };
                seen += &format!(
                    "; ingest {id} p{partition} main {:?} catch-up {:?} {:?}",
                    position(LaneKind::Main),
                    position(LaneKind::CatchUp),
                    reading.source.state()
                );
            }
        }
        seen
    }
}

/// Bytes of frames that may wait at a worker for each stream: the credit, and what was read before it was noticed used up.
fn bound_of_inbox(ctx: &Context) -> u64 {
    let batch = ctx.scenario.batch as u64 * 700;
    ctx.scenario.credit.window + batch * 2 * u64::from(ctx.topic.partitions.len() as u32)
}

/// A transaction reaches the broker.
fn commit(request: &CommitRequest, ctx: &mut Context) {
    let (shard, sequence) = (request.shard, request.commit.block.sequence);
    let fences = !ctx.is_mutated(Mutation::NoFencing);
    let outcome = match ctx.changelog.judge(shard, request.epoch, sequence, fences) {
        Some(known) => known,
        None if ctx.dice.chance(ctx.faults.commit_aborted) => CommitOutcome::Aborted,
        None => {
            ctx.ledger.committed(request);
            ctx.dead_topic.append(shard, &request.commit.dead_letters);
            let chunk = ctx.scenario.chunk;
            CommitOutcome::Committed(ctx.changelog.commit(shard, request.epoch, &request.commit, chunk))
        }
    };
    ctx.count(match outcome {
        CommitOutcome::Committed(_) => "commits",
        CommitOutcome::Aborted => "commits aborted",
        CommitOutcome::Fenced => "commits fenced",
    });
    let reasons = request.commit.dead_letters.iter().map(|letter| letter.reason);
    reasons.for_each(|reason| ctx.count(reason.as_str()));
    for row in &request.commit.results {
        ctx.count(match row.pane {
            Pane::Early => "early",
            Pane::Final => "final",
            Pane::Late => "windows corrected",
            Pane::Replay => "windows corrected by replays",
            Pane::Retracted => "sessions retracted",
        });
    }
    request.commit.reordered.iter().for_each(|_| ctx.count("reordered"));
    if request.commit.block.scalars.closing.is_some() {
        ctx.count("closings over several commits");
    }
    ctx.note(|| {
        let block = &request.commit.block;
        let (results, letters) = (request.commit.results.len(), request.commit.dead_letters.len());
        format!(
            "worker {} commits shard {shard} block {sequence} W {:?}: {results} results, {letters} letters: {outcome:?}",
            request.worker, block.scalars.watermark
        )
    });
    if !ctx.dice.chance(ctx.faults.commit_answer_lost) {
        let latency = ctx.latency();
        let (worker, attempt) = (request.worker, request.attempt);
        ctx.after(latency, Event::CommitAnswered { worker, shard, attempt, outcome });
    }
}
