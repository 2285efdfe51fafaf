//! An ingest process: the shell around [`SourcePartition`], with its readers and streams.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use tidegate_core::{
    announcement::{Announcement, PartitionState, ReaderEpoch, Report},
    assignment::Owners,
    credit::{Credit, Feeding, Held, Step, Terms},
    frame::{Frame, SessionId},
    lane::{RejectedRecord, Row, WorkerRef},
    source::{Effect, LaneKind, SourcePartition},
    time::{Offset, Partition, Shard, Tick},
};

use crate::{
    context::{Context, Event, LinkId, Message, Process},
    mutation::Mutation,
    violation::ensure,
};

#[derive(Debug)]
pub struct Ingest {
    id: u64,
    pub partitions: BTreeMap<Partition, Reading>,
    announced: Option<Announcement>,
    owners: Option<Owners>,
    coordinator: Option<LinkId>,
    workers: BTreeMap<LinkId, Connection>,
    credit: Credit,
    reports: BTreeMap<Partition, Report>,
    held: Held,
    /// Partitions ever given to this process: their sessions are numbered apart.
    readings: u64,
    /// Shards that asked for payloads, and the sessions that bring them.
    asked: BTreeSet<(Partition, Shard)>,
    whole: BTreeSet<SessionId>,
    /// The states last reported, so that the trace shows changes.
    told: BTreeMap<Partition, PartitionState>,
}

#[derive(Debug)]
pub struct Reading {
    pub source: SourcePartition,
    main: Reader,
    catch_up: Reader,
    paused: bool,
    /// What catches up waits for the shards that it feeds.
    catch_up_waits: bool,
}

/// A consumer of one partition; a new start makes what was under way void.
#[derive(Debug, Default)]
struct Reader {
    reading: u64,
    position: Offset,
}

#[derive(Debug)]
struct Connection {
    process: u64,
    frames: Vec<Frame>,
}

impl Ingest {
    pub fn new(id: u64, terms: Terms) -> Self {
        Self {
            id,
            partitions: BTreeMap::new(),
            announced: None,
            owners: None,
            coordinator: None,
            workers: BTreeMap::new(),
            credit: Credit::new(terms),
            reports: BTreeMap::new(),
            held: Held::default(),
            readings: 0,
            asked: BTreeSet::new(),
            whole: BTreeSet::new(),
            told: BTreeMap::new(),
        }
    }

    const fn process(&self) -> Process {
        Process::Ingest(self.id)
    }

    /// Looks around: streams to open, frames to cut, reports to send.
    pub fn tick(&mut self, coordinator: Option<u64>, ctx: &mut Context) {
        if self.coordinator.is_none()
            && let Some(link) = coordinator.and_then(|c| ctx.connect(self.process(), Process::Coordinator(c)))
        {
            self.coordinator = Some(link);
            ctx.send(link, self.process(), Message::IngestHello);
        }
        self.connect_workers(ctx);
        let partitions: Vec<_> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.with(partition, ctx, |source, now| source.tick(now));
        }
        self.look_after_slow_workers(ctx);
        self.flush(ctx);
    }

    fn look_after_slow_workers(&mut self, ctx: &mut Context) {
        if ctx.is_mutated(Mutation::NobodyIsParked) {
            return;
        }
        let partitions = &self.partitions;
        for step in self.credit.look(Tick(ctx.now), || feeding(partitions)) {
            ctx.note(|| format!("ingest {} {step:?}", self.id));
            match step {
                Step::Park(worker) => {
                    ctx.count("workers parked");
                    self.stop_feeding(worker, ctx);
                }
                Step::Ask(_) if ctx.is_mutated(Mutation::ParkedAreForgotten) => {}
                Step::Ask(worker) => {
                    ctx.count("parked workers asked");
                    self.ask(LinkId(worker.0), ctx);
                }
            }
        }
    }

    /// A stream to every worker that owns a shard, none to others.
    fn connect_workers(&mut self, ctx: &mut Context) {
        let Some(owners) = &self.owners else { return };
        let named: Vec<u64> =
            owners.owners.values().map(|owner| owner.address.parse().expect("a number")).collect();
        let idle: Vec<_> =
            self.workers.iter().filter(|(_, c)| !named.contains(&c.process)).map(|(link, _)| *link).collect();
        for link in idle {
            self.drop_worker(link, ctx);
        }
        for process in named {
            let known = self.workers.values().any(|connection| connection.process == process);
            if let Some(link) =
                (!known).then(|| ctx.connect(self.process(), Process::Worker(process))).flatten()
            {
                self.workers.insert(link, Connection { process, frames: Vec::new() });
                self.credit.up(WorkerRef(link.0));
                self.ask(link, ctx);
            }
        }
    }

    fn ask(&self, link: LinkId, ctx: &mut Context) {
        ctx.send(link, self.process(), Message::Ask(self.partitions.keys().copied().collect()));
    }

    fn ask_all(&self, ctx: &mut Context) {
        for link in self.workers.keys().filter(|link| !self.credit.is_parked(WorkerRef(link.0))) {
            self.ask(*link, ctx);
        }
    }

    fn flush(&mut self, ctx: &mut Context) {
        let links: Vec<_> = self.workers.keys().copied().collect();
        links.into_iter().for_each(|link| self.flush_worker(link, ctx));
        if let Some(link) = self.coordinator.filter(|_| !self.reports.is_empty()) {
            let reports = std::mem::take(&mut self.reports).into_values().collect();
            ctx.send(link, self.process(), Message::Reports(reports));
        }
    }

    fn flush_worker(&mut self, link: LinkId, ctx: &mut Context) {
        let process = self.process();
        if let Some(connection) =
            self.workers.get_mut(&link).filter(|connection| !connection.frames.is_empty())
        {
            ctx.send(link, process, Message::Frames(std::mem::take(&mut connection.frames)));
        }
    }

    pub fn receive(&mut self, link: LinkId, message: Message, ctx: &mut Context) {
        match message {
            Message::Wants(_) if self.credit.is_parked(WorkerRef(link.0)) => {
                ctx.count("wants of parked workers");
            }
            Message::Wants(wants) if self.workers.contains_key(&link) => {
                let mut by_partition: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
                for (partition, want) in wants {
                    let mut want = want;
                    if ctx.is_mutated(Mutation::SeedsAreLost) {
                        want.in_band = None;
                    }
                    if want.payloads {
                        self.asked.insert((partition, want.shard));
                    }
                    by_partition.entry(partition).or_default().push(want);
                }
                for (partition, wants) in by_partition {
                    ctx.note(|| format!("ingest {} p{partition} wants of {link:?}: {wants:?}", self.id));
                    self.with(partition, ctx, |source, now| source.wants(WorkerRef(link.0), &wants, now));
                }
            }
            Message::Credit(bytes) => {
                let worker = WorkerRef(link.0);
                if self.workers.contains_key(&link) {
                    let under_way = self.credit.under_way(worker);
                    ensure(under_way >= bytes, "I7: credit is given back once", || {
                        format!("{bytes} of {under_way} bytes")
                    });
                    self.credit.give_back(worker, bytes, Tick(ctx.now));
                }
                self.look_at_credit(ctx);
            }
            Message::Committed(shard, watermark, positions) => {
                self.partitions.values_mut().for_each(|reading| reading.source.reached(shard, watermark));
                for (partition, next) in positions {
                    if let Some(reading) = self.partitions.get_mut(&partition) {
                        reading.source.committed(shard, next);
                    }
                }
            }
            Message::Announcement(announcement) => {
                for reading in self.partitions.values_mut() {
                    reading.source.announce(&announcement);
                }
                if self.announced.as_ref().is_none_or(|known| announcement.newer_than(known)) {
                    self.announced = Some(announcement);
                }
            }
            Message::Owners(owners) => {
                let version = |owners: &Owners| (owners.term, owners.version);
                if self.owners.as_ref().is_none_or(|known| version(&owners) >= version(known)) {
                    let named: Vec<_> =
                        owners.owners.iter().map(|(shard, owner)| (*shard, owner.assignment)).collect();
                    let sources = self.partitions.values_mut().map(|reading| &mut reading.source);
                    let asks =
                        sources.filter_map(|source| source.owned(owners.term, &named).then_some(())).count();
                    self.owners = Some(owners);
                    self.connect_workers(ctx);
                    if asks > 0 {
                        self.ask_all(ctx);
                    }
                }
            }
            Message::Raise(partition, at, to) => {
                if let Some(reading) = self.partitions.get_mut(&partition) {
                    reading.source.raise(at, to);
                }
            }
            Message::Pause(partition, paused) => {
                ctx.note(|| format!("ingest {} p{partition} paused: {paused}", self.id));
                let deaf = !paused && ctx.is_mutated(Mutation::PausesAreNeverLifted);
                if let Some(reading) = self.partitions.get_mut(&partition).filter(|_| !deaf) {
                    reading.paused = paused;
                    reading.source.set_held(paused || self.held.main, Tick(ctx.now));
                }
            }
            _ => {}
        }
    }

    pub fn down(&mut self, link: LinkId, ctx: &mut Context) {
        if self.coordinator == Some(link) {
            self.coordinator = None;
            // A pause lasts at most as long as the stream it came on.
            for reading in self.partitions.values_mut().filter(|reading| reading.paused) {
                reading.paused = false;
                reading.source.set_held(self.held.main, Tick(ctx.now));
            }
        }
        self.drop_worker(link, ctx);
    }

    fn drop_worker(&mut self, link: LinkId, ctx: &mut Context) {
        if self.workers.remove(&link).is_none() {
            return;
        }
        self.credit.down(WorkerRef(link.0));
        ctx.close(link, self.process());
        self.stop_feeding(WorkerRef(link.0), ctx);
    }

    fn stop_feeding(&mut self, worker: WorkerRef, ctx: &mut Context) {
        let partitions: Vec<_> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.with(partition, ctx, |source, now| source.worker_gone(worker, now));
        }
        self.look_at_credit(ctx);
    }

    /// What is under way to workers, for a run that does not end.
    pub fn explain(&self) -> String {
        let shown = |(link, c): (&LinkId, &Connection)| {
            let worker = WorkerRef(link.0);
            let parked = if self.credit.is_parked(worker) { ", parked" } else { "" };
            format!("{link:?} to {}: {} bytes{parked}", c.process, self.credit.under_way(worker))
        };
        let workers: Vec<_> = self.workers.iter().map(shown).collect();
        format!("; ingest {} {:?} {workers:?}", self.id, self.coordinator)
    }

    /// The group's word on what this process reads.
    pub fn assigned(&mut self, generation: u64, partitions: &[Partition], ctx: &mut Context) {
        let epoch = ReaderEpoch(generation);
        self.partitions.retain(|partition, _| partitions.contains(partition));
        self.reports.retain(|partition, _| partitions.contains(partition));
        for partition in partitions {
            if let Some(reading) = self.partitions.get_mut(partition) {
                reading.source.set_epoch(epoch);
                continue;
            }
            let (job, timing) = (Arc::clone(&ctx.scenario.job), ctx.scenario.timing);
            self.readings += 1;
            let mut source = SourcePartition::new(job, *partition, epoch, timing, Tick(ctx.now))
                .with_sessions_behind(SessionId(self.readings << 32));
            if let Some(announced) = &self.announced {
                source.announce(announced);
            }
            let reading = Reading {
                source,
                main: Reader::default(),
                catch_up: Reader::default(),
                paused: false,
                catch_up_waits: false,
            };
            self.partitions.insert(*partition, reading);
        }
        self.ask_all(ctx);
    }

    /// A reader's turn: a batch, or the news that it is at the end.
    pub fn read(&mut self, partition: Partition, lane: LaneKind, reading: u64, ctx: &mut Context) {
        let held = match lane {
            LaneKind::Main => self.held.main,
            LaneKind::CatchUp => self.held.catch_up,
        };
        let Some(known) = self.partitions.get_mut(&partition) else { return };
        let paused = match lane {
            LaneKind::Main => known.paused,
            LaneKind::CatchUp => known.catch_up_waits,
        };
        let Reading { source, main, catch_up, .. } = known;
        let reader = match lane {
            LaneKind::Main => main,
            LaneKind::CatchUp => catch_up,
        };
        if reader.reading != reading {
            return;
        }
        let again = Event::Read { ingest: self.id, partition, lane, reading };
        if held || paused {
            ctx.after(ctx.scenario.tick, again);
            return;
        }
        let mut effects = Vec::new();
        let topic = std::rc::Rc::clone(&ctx.topic);
        let log = topic.log(partition);
        let items = log.read(reader.position, ctx.now, ctx.scenario.batch);
        let now = Tick(ctx.now);
        let ended = items.is_empty();
        for item in items {
            reader.position = item.offset.next();
            let Some(record) = &item.record else { continue };
            let taken = match record.rejected {
                Some(reason) => {
                    let rejected = RejectedRecord {
                        reason,
                        detail: String::new(),
                        event_time: None,
                        payload: record.payload(),
                    };
                    source.reject(lane, item.offset, rejected, now, &mut effects)
                }
                None => {
                    let row = Row {
                        offset: item.offset,
                        time: record.time,
                        believed: true,
                        key: &record.key,
                        shard: record.shard,
                        values: &record.values,
                        text: &[],
                    };
                    source.row(lane, &row, now, || record.payload(), &mut effects)
                }
            };
            if !taken {
                break;
            }
        }
        if ended {
            reader.position = reader.position.max(log.stable(ctx.now));
            source.end(lane, reader.position, &mut effects);
        }
        let tick = ctx.scenario.tick;
        let pause = if ended { ctx.dice.within(tick, 4 * tick) } else { ctx.dice.within(0, tick) };
        let slow = if (partition, lane) == (Partition(0), LaneKind::CatchUp) {
            ctx.scenario.slow_catch_up
        } else {
            0
        };
        ctx.after(pause + slow, again);
        self.perform(partition, effects, ctx);
    }

    pub fn end_answered(&mut self, partition: Partition, stable: Offset, high: Offset, ctx: &Context) {
        let Some(reading) = self.partitions.get_mut(&partition) else { return };
        let position = reading.source.main().map_or(Offset(0), |main| main.position());
        let (stable, high) = match ctx.mutation {
            Some(Mutation::IdleWithoutProof) => (position, position),
            Some(Mutation::OpenTransactionsAreTheEnd) => (stable, stable),
            _ => (stable, high),
        };
        reading.source.end_proven(stable, high, Tick(ctx.now));
    }

    fn with(
        &mut self,
        partition: Partition,
        ctx: &mut Context,
        call: impl FnOnce(&mut SourcePartition, Tick) -> Vec<Effect>,
    ) {
        if let Some(reading) = self.partitions.get_mut(&partition) {
            let effects = call(&mut reading.source, Tick(ctx.now));
            self.perform(partition, effects, ctx);
        }
    }

    fn perform(&mut self, partition: Partition, effects: Vec<Effect>, ctx: &mut Context) {
        for effect in effects {
            match effect {
                Effect::Start(lane, offset) => self.start(partition, lane, offset, ctx),
                Effect::Stop(lane) => {
                    let reading = ctx.number();
                    self.reader(partition, lane).reading = reading;
                }
                Effect::HoldCatchUp(holds) => self.hold_catch_up(partition, holds, ctx),
                Effect::ProveEnd => {
                    let latency = ctx.latency();
                    ctx.after(latency, Event::EndAsked { ingest: self.id, partition });
                }
                Effect::Open(worker, opening) => {
                    let link = LinkId(worker.0);
                    self.flush_worker(link, ctx);
                    ctx.note(|| format!("ingest {} opens {opening:?} to {link:?}", self.id));
                    if opening.shards.iter().any(|shard| self.asked.remove(&(partition, *shard))) {
                        self.whole.insert(opening.session);
                    }
                    ctx.send(link, self.process(), Message::Open(opening));
                }
                Effect::Frame(_, frame)
                    if frame.rows.is_empty() && ctx.is_mutated(Mutation::EmptyFramesStay) => {}
                Effect::Frame(worker, mut frame) => {
                    if ctx.is_mutated(Mutation::RejectsStay) {
                        frame.rows.iter_mut().for_each(|(_, rows)| rows.rejects.clear());
                    }
                    if ctx.scenario.bare && !self.whole.contains(&frame.session) {
                        frame.rows.iter_mut().for_each(|(_, rows)| rows.payloads.clear());
                    }
                    ctx.note(|| format!("ingest {} p{partition} {}", self.id, shown(&frame)));
                    if let Some(connection) = self.workers.get_mut(&LinkId(worker.0)) {
                        self.credit.spend(worker, frame.cost(), Tick(ctx.now));
                        connection.frames.push(frame);
                    }
                }
                Effect::Report(report) => {
                    if self.told.insert(partition, report.state) != Some(report.state) {
                        ctx.note(|| format!("ingest {} {report:?}", self.id));
                    }
                    self.reports.insert(report.partition, report);
                }
            }
        }
        self.look_at_credit(ctx);
    }

    fn reader(&mut self, partition: Partition, lane: LaneKind) -> &mut Reader {
        let reading = self.partitions.get_mut(&partition).expect("effects are of a partition that is read");
        match lane {
            LaneKind::Main => &mut reading.main,
            LaneKind::CatchUp => &mut reading.catch_up,
        }
    }

    fn start(&mut self, partition: Partition, lane: LaneKind, offset: Offset, ctx: &mut Context) {
        let reading = ctx.number();
        ctx.count(if lane == LaneKind::Main { "main readings" } else { "catch-up readings" });
        ctx.note(|| format!("ingest {} reads p{partition} {lane:?} from {offset}", self.id));
        *self.reader(partition, lane) = Reader { reading, position: offset };
        if lane == LaneKind::CatchUp {
            self.set_catch_up_waits(partition, false);
        }
        let latency = ctx.latency();
        ctx.after(latency, Event::Read { ingest: self.id, partition, lane, reading });
    }

    fn hold_catch_up(&mut self, partition: Partition, holds: bool, ctx: &mut Context) {
        ctx.note(|| format!("ingest {} p{partition} catch-up waits: {holds}", self.id));
        let broken = match ctx.mutation {
            Some(Mutation::CatchUpRunsAhead) => holds,
            Some(Mutation::CatchUpIsNotReadOn) => !holds,
            _ => false,
        };
        if holds {
            ctx.count("catch-up readings that waited");
        }
        if holds && ctx.is_mutated(Mutation::CatchUpHoldsTheSlowest) {
            self.partitions.values_mut().for_each(|reading| reading.catch_up_waits = true);
        }
        if !broken {
            self.set_catch_up_waits(partition, holds);
        }
    }

    fn set_catch_up_waits(&mut self, partition: Partition, waits: bool) {
        if let Some(reading) = self.partitions.get_mut(&partition) {
            reading.catch_up_waits = waits;
        }
    }

    /// A lane waits while a worker that it feeds has no credit.
    fn look_at_credit(&mut self, ctx: &Context) {
        let partitions = &self.partitions;
        let held = self.credit.held(|| feeding(partitions));
        if held.main != self.held.main {
            for reading in self.partitions.values_mut() {
                reading.source.set_held(held.main || reading.paused, Tick(ctx.now));
            }
        }
        self.held = held;
    }
}

fn feeding(partitions: &BTreeMap<Partition, Reading>) -> Feeding {
    Feeding::of(partitions.values().map(|reading| &reading.source))
}

fn shown(frame: &Frame) -> String {
    let rows: Vec<_> = frame
        .rows
        .iter()
        .map(|(shard, rows)| format!("s{shard}: {:?} at {:?}", rows.times, rows.offsets))
        .collect();
    format!(
        "frame of session {} [{}, {}) watermark {:?} {:?} {rows:?}",
        frame.session.0 & 0xffff_ffff,
        frame.from,
        frame.to,
        frame.watermark,
        frame.state
    )
}
