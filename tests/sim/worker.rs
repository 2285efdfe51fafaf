//! A worker process: the shell around the [`ShardMachine`]s of the shards it owns.
//!
//! ```text
//! Assign ─► Initialising ── epoch ──► Restoring ── log read ──► Owning ── released, fenced ──► gone
//!                ▲                                                │
//!                └────────── outcome not known committed ─────────┘
//! ```

mod broken;
mod commit;
mod feed;
mod owning;
mod slot;

use std::collections::BTreeMap;

use tidegate_core::{
    announcement::Announcement,
    assignment::{Registration, StreamId, WorkerId},
    time::Shard,
};

use self::{
    broken::mutated,
    feed::Feed,
    slot::{Phase, Slot},
};
use crate::context::{Context, LinkId, Message, Process};

/// The stores of a worker's volume, by shard; they outlive the process.
pub type Volume = BTreeMap<Shard, crate::store::LocalStore>;

#[derive(Debug)]
pub struct Worker {
    pub id: u64,
    pub name: String,
    coordinator: Option<LinkId>,
    announced: Option<Announcement>,
    pub shards: BTreeMap<Shard, Slot>,
    feeds: BTreeMap<LinkId, Feed>,
    /// How many streams there were when one last asked: what waits is of those.
    streams: u64,
    pub draining: bool,
    /// Applies and commits nothing until then, although it is there: it is slow.
    pub slow_until: u64,
}

/// An answer that takes longer is taken for lost.
const PATIENCE: u64 = 300;

impl Worker {
    pub fn new(id: u64, name: String) -> Self {
        Self {
            id,
            name,
            coordinator: None,
            announced: None,
            shards: BTreeMap::new(),
            feeds: BTreeMap::new(),
            streams: 0,
            draining: false,
            slow_until: 0,
        }
    }

    const fn process(&self) -> Process {
        Process::Worker(self.id)
    }

    pub fn tick(&mut self, coordinator: Option<u64>, ctx: &mut Context) {
        if self.coordinator.is_none()
            && let Some(link) = coordinator.and_then(|c| ctx.connect(self.process(), Process::Coordinator(c)))
        {
            self.coordinator = Some(link);
            self.say_hello(link, ctx);
        }
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            let Some(slot) = self.shards.get_mut(&shard) else { continue };
            let waits = matches!(slot.phase, Phase::Initialising | Phase::Restoring);
            if waits && ctx.now > slot.since + PATIENCE {
                self.initialise(shard, ctx);
            }
            self.pump(shard, ctx);
        }
    }

    fn say_hello(&self, link: LinkId, ctx: &mut Context) {
        let registration = Registration {
            worker: WorkerId(self.name.clone()),
            stream: StreamId(link.0),
            address: self.id.to_string(),
            incarnation: self.id,
            claims: self.shards.iter().map(|(shard, slot)| (*shard, slot.assignment)).collect(),
        };
        let committed = self.shards.values().map(|slot| slot.committed).max().flatten();
        let hello = Box::new((registration, committed, self.announced.clone()));
        ctx.send(link, self.process(), Message::WorkerHello(hello));
        if self.draining {
            ctx.send(link, self.process(), Message::Draining);
        }
    }

    fn tell_coordinator(&self, message: Message, ctx: &mut Context) {
        if let Some(link) = self.coordinator {
            ctx.send(link, self.process(), message);
        }
    }

    /// Leaves all shards, each with its commit; takes none any more.
    pub fn drain(&mut self, ctx: &mut Context) {
        self.draining = true;
        self.tell_coordinator(Message::Draining, ctx);
        let shards: Vec<_> = self.shards.iter().map(|(shard, slot)| (*shard, slot.assignment)).collect();
        shards.into_iter().for_each(|(shard, assignment)| self.release(shard, assignment, ctx));
    }

    pub fn down(&mut self, link: LinkId) {
        if self.coordinator == Some(link) {
            self.coordinator = None;
        }
        self.feeds.remove(&link);
    }

    pub fn receive(&mut self, link: LinkId, from: Process, message: Message, ctx: &mut Context) {
        match message {
            Message::Assign(shard, assignment) => self.assign(shard, assignment, ctx),
            Message::Release(shard, assignment) => self.release(shard, assignment, ctx),
            Message::Announcement(announcement) => self.announce(announcement, ctx),
            Message::Ask(partitions) => {
                let Process::Ingest(ingest) = from else { return };
                // An ingest has one stream, the newest.
                if self.feeds.iter().any(|(other, feed)| feed.ingest == ingest && *other > link) {
                    return;
                }
                let feed = Feed { ingest, partitions, sessions: BTreeMap::new() };
                let feed = match self.feeds.remove(&link) {
                    Some(known) => Feed { sessions: known.sessions, ..feed },
                    None => feed,
                };
                let process = self.process();
                self.feeds.retain(|other, feed| {
                    let ended = feed.ingest == ingest;
                    if ended {
                        ctx.close(*other, process);
                    }
                    !ended
                });
                self.feeds.insert(link, feed);
                self.forget_ended_streams(ctx);
                let shards: Vec<_> = self.shards.keys().copied().collect();
                self.send_wants(link, &shards, ctx);
            }
            Message::Open(opening) => {
                if let Some(feed) = self.feeds.get_mut(&link) {
                    feed.open(opening);
                }
            }
            Message::Frames(frames) => {
                for frame in frames {
                    self.take_frame(link, frame, ctx);
                }
                let shards: Vec<_> = self.shards.keys().copied().collect();
                shards.into_iter().for_each(|shard| self.pump(shard, ctx));
            }
            _ => {}
        }
    }

    fn announce(&mut self, announcement: Announcement, ctx: &mut Context) {
        if self.announced.as_ref().is_none_or(|known| announcement.newer_than(known)) {
            self.announced = Some(announcement.clone());
        }
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            if let Some(Phase::Owning(owning)) = self.shards.get_mut(&shard).map(|slot| &mut slot.phase) {
                owning.machine.announce(&mutated(&announcement, ctx));
                self.pump(shard, ctx);
            }
        }
    }

    /// Where its shards are, for a run that does not end.
    pub fn explain(&self) -> String {
        let shown = |(shard, slot): (&Shard, &Slot)| match &slot.phase {
            Phase::Owning(owning) => format!(
                "{shard}: releasing {}, {} wait, applied {:?}, committing {}, closing {:?}, moved {}",
                slot.releasing,
                owning.inbox.len(),
                owning.applied,
                owning.machine.is_committing(),
                owning.machine.takes_frames(),
                owning.machine.has_moved(),
            ),
            phase => format!("{shard}: {phase:?}"),
        };
        let shards: Vec<_> = self.shards.iter().map(shown).collect();
        format!("; worker {} {:?}: {shards:?}", self.id, self.coordinator)
    }

    /// How many streams may have something waiting here.
    pub const fn streams(&self) -> u64 {
        self.streams
    }

    /// Bytes of frames that wait (I7).
    pub fn waiting(&self) -> u64 {
        let inbox = |slot: &Slot| match &slot.phase {
            Phase::Owning(owning) => owning.inbox.iter().map(|(_, _, cost)| cost).sum(),
            Phase::Initialising | Phase::Restoring => 0,
        };
        self.shards.values().map(inbox).sum()
    }
}
