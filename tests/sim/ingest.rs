//! An ingest process: the shell around [`SourcePartition`], with its readers and streams.

mod effects;
mod feeding;
mod reading;
mod streams;

use std::collections::{BTreeMap, BTreeSet};

use tidegate_core::{
    announcement::{Announcement, PartitionState, Report},
    assignment::Owners,
    credit::{Credit, Held, Terms},
    frame::SessionId,
    lane::WorkerRef,
    time::{Partition, Shard, Tick},
};

use self::{reading::Reading, streams::Connection};
use crate::{
    context::{Context, LinkId, Message, Process},
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
}
