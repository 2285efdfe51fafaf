//! The owner of the coordinator's state: one task holds both machines, takes every event, and does what they decide.
//!
//! Promises:
//! - A new stream gets Welcome, the current announcement and (an ingest) the owners at once; every change goes to all.
//! - Nothing here waits: a stream that does not keep up is closed, a fence runs elsewhere.
//! - What concerns a shard under fence waits for its end.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use tidegate_core::announcement::Announcement;
use tidegate_core::assignment::{
    AssignmentConfig, AssignmentEffect, AssignmentMachine, Registration, ShardState, StreamId, WorkerId,
};
use tidegate_core::coordinator::{
    ReaderId, ReportOutcome, WatermarkConfig, WatermarkEffect, WatermarkMachine,
};
use tidegate_core::time::{EventTime, Partition, Shard, Span, Tick};
use tidegate_proto::v1;
use tidegate_runtime::clock::Clock;
use tidegate_runtime::task::Shutdown;
use tokio::sync::mpsc;
use tonic::Status;
use v1::ingest_directive::Message as ToIngest;
use v1::worker_directive::Message as ToWorker;

use crate::error::{Error, Result};
use crate::event::{Event, IngestEvent, Link, OwnedShard, WorkerEvent};
use crate::fence::{Fences, Waiting};
use crate::leader::Reign;
use crate::metrics::Metrics;
use crate::replay_desk::ReplayDesk;
use crate::status::{Totals, job_status, owners, worker_state};

/// How often the machines look at the time: as often as `on_quiet: advance` wants.
const TICK_MS: u64 = 100;
/// How often what `/metrics` shows of partitions and workers is brought up to date.
const MEASURE_MS: u64 = 1000;
/// Events handled in a row before announcements are looked at again.
const BATCH: usize = 256;

/// What the owner is given.
pub(crate) struct Parts {
    pub(crate) name: String,
    pub(crate) facts: v1::JobFacts,
    pub(crate) reign: Reign,
    pub(crate) watermarks: WatermarkConfig,
    pub(crate) assignment: AssignmentConfig,
    pub(crate) fences: Fences,
    pub(crate) replays: ReplayDesk,
    pub(crate) clock: Clock,
    pub(crate) metrics: Metrics,
    /// To be given to the fences.
    pub(crate) sender: mpsc::Sender<Event>,
    pub(crate) events: mpsc::Receiver<Event>,
}

/// The owner; see the module's promises.
pub(crate) struct Owner {
    parts: Parts,
    watermarks: WatermarkMachine,
    assignment: AssignmentMachine,
    ingests: BTreeMap<ReaderId, Ingest>,
    workers: BTreeMap<WorkerId, Worker>,
    /// By ingest, those that left included.
    totals: BTreeMap<u64, v1::IngestStats>,
    /// The largest event time each partition's reader has accepted.
    newest: BTreeMap<Partition, EventTime>,
    timestamps: BTreeMap<Partition, v1::TimestampCount>,
    announced_owners: u64,
    next_tick: Tick,
    next_measure: Tick,
}

struct Ingest {
    ingest: u64,
    link: Link<v1::IngestDirective>,
    /// Its clock, and when it said so.
    clock: Option<(EventTime, Tick)>,
}

struct Worker {
    stream: StreamId,
    incarnation: u64,
    /// None once its stream has closed.
    link: Option<Link<v1::WorkerDirective>>,
    stats: Option<v1::WorkerStats>,
}

impl Owner {
    pub(crate) fn new(parts: Parts) -> Self {
        let (term, shards) = (parts.reign.term, parts.reign.record.shards);
        let mut watermarks = WatermarkMachine::new(term, parts.watermarks.clone());
        watermarks.metadata(parts.reign.partitions);
        parts.metrics.term.set(term.0);
        Self {
            assignment: AssignmentMachine::new(term, shards, parts.assignment),
            watermarks,
            parts,
            ingests: BTreeMap::new(),
            workers: BTreeMap::new(),
            totals: BTreeMap::new(),
            newest: BTreeMap::new(),
            timestamps: BTreeMap::new(),
            announced_owners: 0,
            next_tick: Tick(0),
            next_measure: Tick(0),
        }
    }

    /// Runs until the process is to end, or another coordinator rules.
    pub(crate) async fn run(mut self, shutdown: Shutdown) -> Result<()> {
        loop {
            let event = tokio::select! {
                () = shutdown.requested() => return Ok(()),
                // Both branches may be dropped at any time: receiving is cancel safe.
                event = tokio::time::timeout(self.until_next(), self.parts.events.recv()) => event,
            };
            if let Ok(Some(event)) = event {
                self.handle(event);
                for _ in 1..BATCH {
                    let Ok(event) = self.parts.events.try_recv() else { break };
                    self.handle(event);
                }
            }
            self.step();
            if let Some(by) = self.assignment.deposed_by() {
                return Err(Error::Deposed { job: self.parts.name, by: Some(by) });
            }
        }
    }

    fn now(&self) -> Tick {
        Tick(self.parts.clock.tick())
    }

    fn until_next(&self) -> Duration {
        let due = self.watermarks.announce_due().map_or(self.next_tick, |due| due.min(self.next_tick));
        Duration::from_millis(due.since(self.now()))
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Ingest(reader, event) => self.ingest(reader, event),
            Event::Worker(worker, stream, event) => self.worker(worker, stream, event),
            Event::FenceEnded(shard) => {
                for waiting in self.parts.fences.ended(shard) {
                    let effects = self.send_to_worker(waiting);
                    self.perform(effects);
                }
            }
            Event::Partitions(partitions) => self.watermarks.metadata(partitions),
            Event::Status(reply) => {
                // Whoever asked may be gone.
                let _ = reply.send(self.status());
            }
            Event::Replay(event) => {
                let at = self.parts.clock.now_millis();
                if let Some((reader, message)) = self.parts.replays.handle(event, at) {
                    self.direct_ingest(reader, message);
                }
            }
        }
    }

    /// What time brings, and what has changed.
    fn step(&mut self) {
        let now = self.now();
        if now >= self.next_tick {
            self.next_tick = Tick(now.0.saturating_add(TICK_MS));
            let clock = self.ingests_clock(now);
            let effects = self.watermarks.tick(now, clock);
            self.direct_readers(effects);
            let effects = self.assignment.tick(now);
            self.perform(effects);
            self.forget_workers();
        }
        if now >= self.next_measure {
            self.next_measure = Tick(now.0.saturating_add(MEASURE_MS));
            self.measure();
        }
        if let Some(announcement) = self.watermarks.announce(now) {
            self.announce(&announcement);
        }
        if let Some((reader, message)) = self.parts.replays.step(now, self.ingests.keys().copied()) {
            self.direct_ingest(reader, message);
        }
        let owners = self.assignment.owners();
        if owners.version != self.announced_owners {
            self.announced_owners = owners.version;
            let message = ToIngest::Owners(crate::status::owners(owners));
            self.direct_all_ingests(&message);
        }
    }

    fn ingest(&mut self, reader: ReaderId, event: IngestEvent) {
        let now = self.now();
        match event {
            IngestEvent::Hello { ingest, link } => self.welcome_ingest(reader, ingest, link),
            IngestEvent::Reports { reports, clock } => {
                let Some(ingest) = self.ingests.get_mut(&reader) else { return };
                ingest.clock = Some((clock, now));
                for report in &reports {
                    match self.watermarks.report(reader, report, now) {
                        ReportOutcome::Accepted => {
                            self.parts.metrics.reports.inc();
                            if let Some(time) = report.max_event_time {
                                let newest = self.newest.entry(report.partition).or_insert(time);
                                *newest = time.max(*newest);
                            }
                        }
                        ReportOutcome::Stale => self.parts.metrics.ignored("stale"),
                        ReportOutcome::UnknownPartition => self.parts.metrics.ignored("unknown_partition"),
                    }
                }
            }
            IngestEvent::Stats(stats) => {
                if let Some(ingest) = self.ingests.get(&reader) {
                    let counts = stats.timestamps.iter();
                    self.timestamps.extend(counts.map(|count| (Partition(count.partition), *count)));
                    self.totals.insert(ingest.ingest, stats);
                }
            }
            IngestEvent::Replay(progress) => {
                self.parts.replays.progress(reader, progress, self.parts.clock.now_millis());
            }
            IngestEvent::Gone(refused) => {
                self.parts.replays.gone(reader);
                if let Some(ingest) = self.ingests.remove(&reader) {
                    tracing::warn!(
                        ingest = ingest.ingest,
                        reason = reason(refused.as_ref()),
                        "lost an ingest"
                    );
                    self.watermarks.reader_gone(reader);
                    if let Some(status) = refused {
                        ingest.link.refuse(status);
                    }
                }
            }
        }
    }

    fn welcome_ingest(&mut self, reader: ReaderId, ingest: u64, link: Link<v1::IngestDirective>) {
        tracing::info!(ingest, "an ingest connected");
        let announcement = self.watermarks.current().map(|current| ToIngest::Announcement(current.into()));
        let owners = ToIngest::Owners(owners(self.assignment.owners()));
        let messages = [Some(ToIngest::Welcome(self.welcome())), announcement, Some(owners)];
        self.ingests.insert(reader, Ingest { ingest, link, clock: None });
        for message in messages.into_iter().flatten() {
            self.direct_ingest(reader, message);
        }
    }

    fn worker(&mut self, worker: WorkerId, stream: StreamId, event: WorkerEvent) {
        let now = self.now();
        if let WorkerEvent::Hello { registration, committed, announced, link } = event {
            self.watermarks.recover(committed, announced.as_ref());
            return self.welcome_worker(registration, link);
        }
        // Events of a stream that another has replaced.
        let Some(known) = self.workers.get_mut(&worker).filter(|known| known.stream == stream) else {
            return;
        };
        let effects = match event {
            WorkerEvent::Hello { .. } => Vec::new(),
            WorkerEvent::Ready(OwnedShard { shard, assignment, watermark }) => {
                tracing::info!(
                    shard = shard.0,
                    %worker,
                    assignment = assignment.number,
                    watermark_ms = watermark.map(EventTime::millis),
                    "a shard is ready"
                );
                self.watermarks.recover(watermark, None);
                self.assignment.ready(shard, &worker, now)
            }
            WorkerEvent::Released(shard, assignment) => {
                self.assignment.released(shard, &worker, assignment, now)
            }
            WorkerEvent::Fenced(shard, assignment) => {
                tracing::warn!(shard = shard.0, %worker, assignment = assignment.number, "a worker was fenced");
                self.assignment.fenced(shard, &worker, assignment, now)
            }
            WorkerEvent::Draining => {
                tracing::info!(%worker, "a worker is about to stop");
                self.assignment.draining(&worker, now)
            }
            WorkerEvent::Stats(stats) => {
                known.stats = Some(stats);
                Vec::new()
            }
            WorkerEvent::Gone(refused) => {
                let Some(link) = known.link.take() else { return };
                tracing::warn!(%worker, reason = reason(refused.as_ref()), "lost a worker");
                if let Some(status) = refused {
                    link.refuse(status);
                }
                self.assignment.lost(&worker, stream, now)
            }
        };
        self.perform(effects);
    }

    fn welcome_worker(&mut self, registration: Registration, link: Link<v1::WorkerDirective>) {
        let Registration { worker, stream, incarnation, .. } = registration.clone();
        tracing::info!(%worker, address = registration.address, claims = registration.claims.len(), "a worker connected");
        let before = self.workers.get(&worker);
        if before.is_some_and(|before| before.link.is_some() && before.incarnation != incarnation) {
            tracing::warn!(
                %worker,
                "another process has taken the name of a connected worker: give each worker a `--name` of its own"
            );
        }
        let stats = self.workers.remove(&worker).and_then(|before| before.stats);
        // Dropping the former link has ended the former stream.
        self.workers.insert(worker.clone(), Worker { stream, incarnation, link: Some(link), stats });
        let announcement = self.watermarks.current().map(|current| ToWorker::Announcement(current.into()));
        let effects = self.assignment.registered(registration, self.now());
        for message in [Some(ToWorker::Welcome(self.welcome())), announcement].into_iter().flatten() {
            let effects = self.send_to_worker(waiting(&worker, stream, message));
            self.perform(effects);
        }
        self.perform(effects);
    }

    fn welcome(&self) -> v1::Welcome {
        let Reign { term, record, .. } = &self.parts.reign;
        v1::Welcome {
            job: record.job.0.to_vec().into(),
            term: term.0,
            shards: record.shards,
            report_interval_ms: self.parts.watermarks.report_interval_ms,
            source_id: record.source_id.map(|id| id.0.to_be_bytes().to_vec().into()).unwrap_or_default(),
            generations: record
                .generations
                .iter()
                .map(|count| u32::try_from(*count).unwrap_or(u32::MAX))
                .collect(),
        }
    }

    /// Does what the assignment decides, in its order; a worker that turns out to be gone leads to more.
    fn perform(&mut self, effects: Vec<AssignmentEffect>) {
        let mut effects = VecDeque::from(effects);
        while let Some(effect) = effects.pop_front() {
            let (shard, worker, directive) = match effect {
                AssignmentEffect::Fence { shard } => {
                    self.parts.fences.start(shard, self.parts.sender.clone());
                    continue;
                }
                AssignmentEffect::Assign { shard, worker, assignment } => {
                    tracing::info!(shard = shard.0, %worker, assignment = assignment.number, "assigned a shard");
                    let assign = v1::Assign { shard: shard.0, assignment: Some(assignment.into()) };
                    (shard, worker, ToWorker::Assign(assign))
                }
                AssignmentEffect::Release { shard, worker, assignment } => {
                    tracing::info!(shard = shard.0, %worker, assignment = assignment.number, "released a shard");
                    let release = v1::Release { shard: shard.0, assignment: Some(assignment.into()) };
                    (shard, worker, ToWorker::Release(release))
                }
            };
            effects.extend(self.direct_worker(shard, &worker, directive));
        }
    }

    /// Sends what concerns a shard, now or when its fence has ended.
    fn direct_worker(&mut self, shard: Shard, worker: &WorkerId, message: ToWorker) -> Vec<AssignmentEffect> {
        // Not connected: when it registers again, the machine decides again.
        let Some(stream) = self.workers.get(worker).map(|known| known.stream) else { return Vec::new() };
        match self.parts.fences.hold(shard, waiting(worker, stream, message)) {
            Some(now) => self.send_to_worker(now),
            None => Vec::new(),
        }
    }

    /// Sends to a worker, if it is still on the same stream; a failure is its loss.
    fn send_to_worker(&mut self, waiting: Waiting) -> Vec<AssignmentEffect> {
        let Waiting { worker, stream, directive } = waiting;
        let now = self.now();
        let Some(known) = self.workers.get_mut(&worker).filter(|known| known.stream == stream) else {
            return Vec::new();
        };
        if known.link.as_ref().is_none_or(|link| link.send(directive)) {
            return Vec::new();
        }
        known.link = None;
        self.parts.metrics.closed_streams.inc();
        tracing::warn!(%worker, "closed the stream of a worker that does not take what it is told");
        self.assignment.lost(&worker, stream, now)
    }

    fn announce(&mut self, announcement: &Announcement) {
        self.parts.metrics.announcements.inc();
        self.parts.metrics.watermark(announcement.watermark);
        let wire = v1::Announcement::from(announcement);
        self.direct_all_ingests(&ToIngest::Announcement(wire.clone()));
        let all: Vec<_> = self.workers.iter().map(|(worker, known)| (worker.clone(), known.stream)).collect();
        for (worker, stream) in all {
            let message = ToWorker::Announcement(wire.clone());
            let effects = self.send_to_worker(waiting(&worker, stream, message));
            self.perform(effects);
        }
    }

    /// One message of a kind to each reader, however many of its partitions it is about.
    fn direct_readers(&mut self, effects: Vec<WatermarkEffect>) {
        let mut raises: BTreeMap<ReaderId, Vec<v1::Raise>> = BTreeMap::new();
        let mut pauses: BTreeMap<ReaderId, Vec<v1::Pause>> = BTreeMap::new();
        for effect in effects {
            match effect {
                WatermarkEffect::Raise { reader, partition, at, to } => {
                    let raise = v1::Raise { partition: partition.0, at: at.0, to_ms: to.millis() };
                    raises.entry(reader).or_default().push(raise);
                }
                WatermarkEffect::Pause { reader, partition } => {
                    tracing::info!(partition = partition.0, "paused a partition that is too far ahead");
                    let pause = v1::Pause { partition: partition.0, paused: true };
                    pauses.entry(reader).or_default().push(pause);
                }
                WatermarkEffect::Resume { reader, partition } => {
                    tracing::info!(partition = partition.0, "a partition may go on");
                    let pause = v1::Pause { partition: partition.0, paused: false };
                    pauses.entry(reader).or_default().push(pause);
                }
            }
        }
        for (reader, pauses) in pauses {
            self.direct_ingest(reader, ToIngest::Pauses(v1::Pauses { pauses }));
        }
        for (reader, raises) in raises {
            self.direct_ingest(reader, ToIngest::Raises(v1::Raises { raises }));
        }
    }

    fn direct_all_ingests(&mut self, message: &ToIngest) {
        let all: Vec<_> = self.ingests.keys().copied().collect();
        for reader in all {
            self.direct_ingest(reader, message.clone());
        }
    }

    fn direct_ingest(&mut self, reader: ReaderId, message: ToIngest) {
        let Some(ingest) = self.ingests.get(&reader) else { return };
        if !ingest.link.send(v1::IngestDirective { message: Some(message) }) {
            self.parts.metrics.closed_streams.inc();
            tracing::warn!(
                ingest = ingest.ingest,
                "closed the stream of an ingest that does not take what it is told"
            );
            self.ingests.remove(&reader);
            self.watermarks.reader_gone(reader);
            self.parts.replays.gone(reader);
        }
    }

    /// The least of the ingests' clocks, carried on to now; ours while none has told.
    fn ingests_clock(&self, now: Tick) -> EventTime {
        let carried = |(clock, at): (EventTime, Tick)| {
            clock.plus(Span(i64::try_from(now.since(at)).unwrap_or(i64::MAX)))
        };
        let clocks = self.ingests.values().filter_map(|ingest| ingest.clock.map(carried));
        clocks.min().unwrap_or_else(|| EventTime(self.parts.clock.now_millis()))
    }

    /// Workers that the machine no longer waits for.
    fn forget_workers(&mut self) {
        if self.workers.values().any(|worker| worker.link.is_none()) {
            let known = self.assignment.workers();
            self.workers.retain(|name, worker| {
                worker.link.is_some() || known.iter().any(|known| known.worker == *name)
            });
        }
    }

    fn measure(&self) {
        let metrics = &self.parts.metrics;
        metrics.partitions(&self.watermarks.explain().partitions);
        let workers = self.assignment.workers();
        metrics.worker_states(workers.iter().map(|worker| worker_state(worker.presence)));
        self.parts.replays.measure();
        let owned = |(_, state): &(Shard, &ShardState)| matches!(state, ShardState::Owned { .. });
        let unowned = self.assignment.shards().filter(|shard| !owned(shard)).count();
        metrics.unowned_shards.set(i64::try_from(unowned).unwrap_or(i64::MAX));
        metrics.ingests.set(i64::try_from(self.ingests.len()).unwrap_or(i64::MAX));
    }

    fn status(&self) -> v1::JobStatus {
        let sum = |of: fn(&v1::IngestStats) -> u64| self.totals.values().map(of).fold(0, u64::saturating_add);
        let stats =
            |name: &str| self.workers.get(&WorkerId(name.to_owned())).and_then(|known| known.stats.clone());
        let now = self.now();
        job_status(
            &self.parts.name,
            &self.parts.facts,
            &self.parts.reign.record,
            &self.watermarks,
            &self.assignment,
            Totals {
                now,
                clock: self.ingests_clock(now),
                records_read: sum(|stats| stats.records),
                offsets_skipped: sum(|stats| stats.skipped),
                newest: &self.newest,
                timestamps: &self.timestamps,
                workers: &stats,
                replays: self.parts.replays.status(),
            },
        )
    }
}

fn waiting(worker: &WorkerId, stream: StreamId, message: ToWorker) -> Waiting {
    Waiting { worker: worker.clone(), stream, directive: v1::WorkerDirective { message: Some(message) } }
}

fn reason(refused: Option<&Status>) -> &str {
    refused.map_or("its stream closed", Status::message)
}
