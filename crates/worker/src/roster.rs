//! Which shards this worker owns: one task that starts an actor for each assignment and hears how it ends.
//!
//! ```text
//! coordinator ── assign, release ──► Roster ── starts, leave ──► actors ── ready, left, fenced ──► Roster ── reports ──► coordinator
//!                                      └── routes: shard → inbox ──► feeds
//! ```
//! A shard that is given anew is first left by the actor that had it: two actors of a process never own one shard.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_core::{
    announcement::{Announcement, AssignmentId},
    time::Shard,
};
use tidegate_proto::v1::{self, worker_report::Message};
use tidegate_runtime::task::{self, Shutdown};
use tokio::sync::{mpsc, watch};

use crate::{
    actor::{Actor, FromShard, Leave, News, ToShard},
    caution::Caution,
    ground::Ground,
    stats::Stats,
};

/// Messages that may wait for one actor; their bytes are bounded by credit.
const INBOX: usize = 1024;
/// News that may wait: each actor sends one or two.
const NEWS: usize = 1024;

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
}

struct Entry {
    route: Route,
    /// The assignment that follows once the actor has left.
    next: Option<AssignmentId>,
}

impl Roster {
    pub(crate) fn new(ground: Ground, wires: Wires) -> Self {
        Self {
            ground: Arc::new(ground),
            wires,
            actors: BTreeMap::new(),
            cautions: BTreeMap::new(),
            news: mpsc::channel(NEWS),
        }
    }

    /// Serves until the shutdown is requested and every shard is left.
    pub(crate) async fn run(mut self, shutdown: Shutdown) {
        let mut draining = false;
        while !(draining && self.actors.is_empty()) {
            tokio::select! {
                directive = self.wires.directives.recv(), if !draining => match directive {
                    Some(directive) => self.directed(directive).await,
                    None => draining = self.drain().await,
                },
                Some(news) = self.news.1.recv() => self.heard(news, draining).await,
                () = shutdown.requested(), if !draining => draining = self.drain().await,
            }
        }
    }

    /// Leaves all shards, each with its commit.
    async fn drain(&mut self) -> bool {
        tracing::info!(shards = self.actors.len(), "leaving all shards");
        self.wires.directives.close();
        self.report(Message::Draining(v1::Draining {})).await;
        let shards: Vec<Shard> = self.actors.keys().copied().collect();
        for shard in shards {
            self.leave(shard, Leave::Committed).await;
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
            Some(entry) if entry.next.is_none() && entry.route.assignment == assignment => {
                self.leave(shard, Leave::Committed).await;
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
        };
        task::spawn(format!("shard-{shard}"), actor.run());
        self.actors.insert(shard, Entry { route: Route { assignment, inbox }, next: None });
        self.publish();
    }

    async fn heard(&mut self, FromShard { shard, assignment, news }: FromShard, draining: bool) {
        let caution = match news {
            News::Ready => {
                let ready = v1::ShardReady { shard: Some(owned(&self.ground.stats, shard, assignment)) };
                return self.report(Message::Ready(ready)).await;
            }
            News::Left => None,
            News::Fenced(caution) => Some(caution),
        };
        let Some(entry) = self.actors.remove(&shard) else { return };
        self.publish();
        if let Some(caution) = caution {
            self.cautions.insert(shard, caution);
        }
        match (entry.next, caution) {
            (Some(next), _) if !draining => self.start(shard, next),
            (Some(next), _) => self.report(Message::Released(left(shard, next))).await,
            (None, None) => self.report(Message::Released(left(shard, assignment))).await,
            (None, Some(_)) => self.report(Message::Fenced(left(shard, assignment))).await,
        }
    }

    fn publish(&self) {
        let routes = self.actors.iter().map(|(shard, entry)| (*shard, entry.route.clone())).collect();
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
