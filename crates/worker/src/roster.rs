//! Which shards this worker owns: one task that starts an actor for each assignment and hears how it ends.
//!
//! ```text
//! coordinator ── assign, release ──► Roster ── starts, leave ──► actors ── ready, left, fenced ──► Roster ── reports ──► coordinator
//!                                      └── routes: shard → inbox ──► feeds
//! ```
//! A shard that is given anew is first left by the actor that had it: two actors of a process never own one shard.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tidegate_core::{
    announcement::{Announcement, AssignmentId},
    time::{Shard, Tick},
};
use tidegate_proto::v1::{self, worker_report::Message};
use tidegate_runtime::{
    metrics::Readiness,
    task::{self, Shutdown},
};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval},
};

use crate::{
    actor::{Actor, FromShard, Leave, News, ToShard},
    caution::Caution,
    ground::Ground,
    progress::{self, Progress},
    stats::Stats,
};

/// Messages that may wait for one actor; their bytes are bounded by credit.
const INBOX: usize = 1024;
/// News that may wait: each actor sends one or two.
const NEWS: usize = 1024;
/// How often it is looked at how far the shards have come.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Where a shard's actor is reached.
#[derive(Clone, Debug)]
pub(crate) struct Route {
    pub(crate) assignment: AssignmentId,
    pub(crate) inbox: mpsc::Sender<ToShard>,
}

/// All shards that have an actor.
pub(crate) type Routes = Arc<BTreeMap<Shard, Route>>;

/// What the coordinator asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    Assign(Shard, AssignmentId),
    Release(Shard, AssignmentId),
}

/// The channels of the roster.
pub(crate) struct Wires {
    pub(crate) directives: mpsc::Receiver<Directive>,
    pub(crate) reports: mpsc::Sender<v1::WorkerReport>,
    pub(crate) routes: watch::Sender<Routes>,
    pub(crate) announcements: watch::Receiver<Option<Announcement>>,
}

/// The shards of this worker.
pub(crate) struct Roster {
    ground: Arc<Ground>,
    wires: Wires,
    actors: BTreeMap<Shard, Entry>,
    cautions: BTreeMap<Shard, Caution>,
    news: (mpsc::Sender<FromShard>, mpsc::Receiver<FromShard>),
    readiness: Readiness,
}

struct Entry {
    route: Route,
    /// The actor has left the shard, and is about to end.
    left: bool,
    /// The assignment that follows once the actor has ended.
    next: Option<AssignmentId>,
    progress: Progress,
}

impl Roster {
    pub(crate) fn new(ground: Ground, wires: Wires, readiness: Readiness) -> Self {
        Self {
            ground: Arc::new(ground),
            wires,
            actors: BTreeMap::new(),
            cautions: BTreeMap::new(),
            news: mpsc::channel(NEWS),
            readiness,
        }
    }

    /// Serves until the shutdown is requested and every shard is left.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut draining = false;
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        while !(draining && self.actors.is_empty()) {
            tokio::select! {
                directive = self.wires.directives.recv(), if !draining => match directive {
                    Some(directive) => self.directed(directive).await,
                    None => draining = self.drain().await,
                },
                Some(news) = self.news.1.recv() => self.heard(news, draining).await,
                () = shutdown.requested(), if !draining => draining = self.drain().await,
                _ = look.tick() => self.tell_readiness(),
            }
        }
    }

    /// Ready is a worker whose shards are all restored and have caught up, within a bound.
    fn tell_readiness(&mut self) {
        let now = Tick(self.ground.clock.tick());
        for (shard, entry) in &mut self.actors {
            entry.progress.look(self.ground.stats.standing(*shard).watermark, now);
        }
        let serving = self.actors.iter().filter(|(_, entry)| !entry.left);
        match progress::why_not(serving.map(|(shard, entry)| (*shard, entry.progress))) {
            Some(reason) => self.readiness.not_ready(reason),
            None => self.readiness.ready(),
        }
    }

    /// Leaves all shards, each with its commit.
    async fn drain(&mut self) -> bool {
        tracing::info!(shards = self.actors.len(), "leaving all shards");
        self.wires.directives.close();
        self.report(Message::Draining(v1::Draining {})).await;
        let shards: Vec<Shard> = self.actors.keys().copied().collect();
        for shard in shards {
            self.leave(shard, Leave::Stopping).await;
        }
        true
    }

    async fn directed(&mut self, directive: Directive) {
        match directive {
            Directive::Assign(shard, assignment) => self.assigned(shard, assignment).await,
            Directive::Release(shard, assignment) => self.released(shard, assignment).await,
        }
    }

    async fn assigned(&mut self, shard: Shard, assignment: AssignmentId) {
        let Some(entry) = self.actors.get_mut(&shard) else { return self.start(shard, assignment) };
        let known = entry.next.unwrap_or(entry.route.assignment);
        if assignment > known {
            entry.next = Some(assignment);
            self.leave(shard, Leave::AtOnce).await;
        }
    }

    async fn released(&mut self, shard: Shard, assignment: AssignmentId) {
        match self.actors.get_mut(&shard) {
            Some(entry) if entry.next == Some(assignment) => {
                entry.next = None;
                self.report(Message::Released(left(shard, assignment))).await;
            }
            Some(entry) if entry.next.is_none() && entry.route.assignment == assignment && !entry.left => {
                self.leave(shard, Leave::Committed).await;
            }
            Some(entry) if entry.left && entry.next.is_none() => {
                self.report(Message::Released(left(shard, assignment))).await;
            }
            // Another assignment is in force here.
            Some(_) => {}
            None => self.report(Message::Released(left(shard, assignment))).await,
        }
    }

    async fn leave(&mut self, shard: Shard, leave: Leave) {
        if let Some(entry) = self.actors.get(&shard) {
            // An actor that has ended has said so, or will have.
            let _ = entry.route.inbox.send(ToShard::Leave(leave)).await;
        }
    }

    fn start(&mut self, shard: Shard, assignment: AssignmentId) {
        let (inbox, messages) = mpsc::channel(INBOX);
        let actor = Actor {
            ground: Arc::clone(&self.ground),
            shard,
            assignment,
            inbox: messages,
            announcements: self.wires.announcements.clone(),
            news: self.news.0.clone(),
            askers: Vec::new(),
            caution: self.cautions.remove(&shard).unwrap_or_default(),
            leave: None,
            restored_in: Duration::ZERO,
        };
        task::spawn(format!("shard-{shard}"), actor.run());
        let (route, progress) = (Route { assignment, inbox }, Progress::Restoring);
        self.actors.insert(shard, Entry { route, left: false, next: None, progress });
        self.publish();
        self.tell_readiness();
    }

    async fn heard(&mut self, FromShard { shard, assignment, news }: FromShard, draining: bool) {
        match news {
            News::Ready => {
                let ready = v1::ShardReady { shard: Some(owned(&self.ground.stats, shard, assignment)) };
                self.report(Message::Ready(ready)).await;
                self.restored(shard, assignment);
            }
            News::Left => self.has_left(shard, assignment, Message::Released).await,
            News::Fenced(caution) => {
                self.cautions.insert(shard, caution);
                self.has_left(shard, assignment, Message::Fenced).await;
            }
            News::Ended => self.ended(shard, draining).await,
        }
    }

    fn restored(&mut self, shard: Shard, assignment: AssignmentId) {
        let now = Tick(self.ground.clock.tick());
        let announced = self.wires.announcements.borrow().as_ref().and_then(|known| known.watermark);
        let own = self.ground.stats.standing(shard).watermark;
        if let Some(entry) = self.actors.get_mut(&shard)
            && entry.route.assignment == assignment
        {
            entry.progress = Progress::restored(own, announced, now);
        }
        self.tell_readiness();
    }

    /// The actor has let go of the shard; the coordinator hears of it unless it has given the shard to this worker anew.
    async fn has_left(
        &mut self,
        shard: Shard,
        assignment: AssignmentId,
        message: impl FnOnce(v1::ShardLeft) -> Message,
    ) {
        let Some(entry) = self.actors.get_mut(&shard) else { return };
        entry.left = true;
        let is_last = entry.next.is_none();
        self.publish();
        if is_last {
            self.report(message(left(shard, assignment))).await;
        }
    }

    async fn ended(&mut self, shard: Shard, draining: bool) {
        let Some(Entry { next: Some(next), .. }) = self.actors.remove(&shard) else { return };
        if draining {
            self.report(Message::Released(left(shard, next))).await;
        } else {
            self.start(shard, next);
        }
    }

    fn publish(&self) {
        self.ground.shards.store(self.actors.len(), Ordering::Relaxed);
        let serving = self.actors.iter().filter(|(_, entry)| !entry.left);
        let routes = serving.map(|(shard, entry)| (*shard, entry.route.clone())).collect();
        self.wires.routes.send_replace(Arc::new(routes));
    }

    async fn report(&self, message: Message) {
        // Without its link to the coordinator this worker is ending.
        let _ = self.wires.reports.send(v1::WorkerReport { message: Some(message) }).await;
    }
}

fn left(shard: Shard, assignment: AssignmentId) -> v1::ShardLeft {
    v1::ShardLeft { shard: shard.0, assignment: Some(assignment.into()) }
}

/// A shard as the coordinator is told of it.
pub(crate) fn owned(stats: &Stats, shard: Shard, assignment: AssignmentId) -> v1::OwnedShard {
    let standing = stats.standing(shard);
    let covered = standing.covered();
    v1::OwnedShard {
        shard: shard.0,
        assignment: Some(assignment.into()),
        watermark_ms: standing.watermark.map(|watermark| watermark.millis()),
        applied: covered.applied,
        dead_lettered: covered.dead_lettered,
    }
}
