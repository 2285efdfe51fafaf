//! The owner of one shard: one task, from taking it over to leaving it.
//!
//! ```text
//! restore ──► take over ──► serve: frames, announcements ─► apply ─► pace ─► commit (a task of its own) ─► acknowledge
//!    ▲                        │                                                   │
//!    └─── backoff ────────────┴──────── aborted, refused, unknown ◄───────────────┤
//!                                       fenced: drop all, say so, end ◄───────────┘
//! ```
//!
//! Promises: one commit is in flight at a time and is never given up half-way; credit returns when the commit that holds a frame is
//! known, or when the frame is dropped; nothing is committed after a failure before the log was read again.

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    announcement::{Announcement, AssignmentId},
    frame::ShardFrame,
    shard::{Limits, ShardMachine, ShardState},
    time::{Partition, Shard, Tick},
};
use tidegate_kafka::TransactionalProducer;
use tidegate_proto::v1;
use tidegate_runtime::backoff::Backoff;
use tokio::{
    sync::{mpsc, watch},
    task::spawn_blocking,
    time::sleep,
};

use crate::{
    cache::ShardCache,
    caution::Caution,
    error::Error,
    ground::Ground,
    inspect::Question,
    owner::{Ended, Holdings, Owner},
    replay::Given,
    replies::{Permit, Replies},
    restore,
};

/// What comes in one message of an ingest.
#[derive(Debug, Default)]
pub(crate) struct Fed {
    /// Frames, in order.
    pub(crate) frames: Vec<(ShardFrame, Permit)>,
    /// Sampled records in them.
    pub(crate) traces: Vec<v1::RecordTrace>,
}

/// What an actor is told.
#[derive(Debug)]
pub(crate) enum ToShard {
    /// Frames of one ingest.
    Frames(Fed),
    /// An ingest reads these partitions, and wants to know where the shard is in them.
    Ask(Asker),
    /// Somebody wants to know where the shard stands.
    Inspect(Question),
    /// Dead letters, given again.
    Replay(Box<Given>),
    /// The shard is to be left.
    Leave(Leave),
}

/// How a shard is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leave {
    /// With everything committed that has been applied: another worker gets it.
    Committed,
    /// Likewise, and the local store is written: the process stops, and may find the shard again when it is back.
    Stopping,
    /// At once: it has been given anew, or the worker ends.
    AtOnce,
}

/// An ingest, and the partitions that it reads.
#[derive(Clone, Debug)]
pub(crate) struct Asker {
    pub(crate) replies: Arc<Replies>,
    pub(crate) partitions: Vec<Partition>,
}

/// What an actor tells.
#[derive(Debug)]
pub(crate) struct FromShard {
    pub(crate) shard: Shard,
    pub(crate) assignment: AssignmentId,
    pub(crate) news: News,
}

/// News of a shard.
#[derive(Debug)]
pub(crate) enum News {
    /// Restored.
    Ready,
    /// Left, as asked.
    Left,
    /// Lost to another owner, or to the transaction timeout.
    Fenced(Caution),
    /// After one of these: the actor is gone, and the local store is free.
    Ended,
}

/// The owner of one shard.
pub(crate) struct Actor {
    pub(crate) ground: Arc<Ground>,
    pub(crate) shard: Shard,
    pub(crate) assignment: AssignmentId,
    pub(crate) inbox: mpsc::Receiver<ToShard>,
    pub(crate) announcements: watch::Receiver<Option<Announcement>>,
    pub(crate) news: mpsc::Sender<FromShard>,
    pub(crate) askers: Vec<Asker>,
    pub(crate) caution: Caution,
    pub(crate) leave: Option<Leave>,
    /// How long the last restore took.
    pub(crate) restored_in: Duration,
}

impl Actor {
    /// Owns the shard until it is left or lost.
    pub(crate) async fn run(mut self) {
        let mut holdings = Holdings { producer: None, cache: self.new_cache(), has_scratch: true };
        let news = self.live(&mut holdings).await;
        self.ground.stats.left(self.shard);
        // The next owner does not wait for our store, nor for our producer to be closed.
        self.tell(news).await;
        let Holdings { producer, cache, .. } = holdings;
        close(producer);
        let stops = self.leave == Some(Leave::Stopping);
        let _turn = if stops { Some(self.ground.closing.lock().await) } else { None };
        if let Err(error) = spawn_blocking(move || cache.close(stops)).await {
            tracing::warn!(shard = self.shard.0, %error, "the local store was not written to its end");
        }
        self.tell(News::Ended).await;
    }

    pub(crate) async fn tell(&self, news: News) {
        // Without the roster nobody is left to tell.
        let _ = self.news.send(FromShard { shard: self.shard, assignment: self.assignment, news }).await;
    }

    async fn live(&mut self, holdings: &mut Holdings) -> News {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        self.wait(self.caution.delay()).await;
        while self.leave.is_none() {
            let begun = self.now();
            let state = match self.restore(holdings).await {
                Ok(state) if self.leave.is_none() => state,
                Ok(_) => break,
                Err(error) if error.is_fencing() => {
                    tracing::warn!(shard = self.shard.0, %error, "the shard has another owner, leaving it");
                    return News::Fenced(self.caution);
                }
                Err(error) => {
                    tracing::error!(shard = self.shard.0, %error, "cannot take the shard over, trying again");
                    self.wait(backoff.next_delay()).await;
                    continue;
                }
            };
            backoff.reset();
            self.restored_in = Duration::from_millis(self.now().since(begun));
            let newer = state.assignment();
            let Some(machine) = self.take_over(state) else {
                let error = Error::StandDown { shard: self.shard, newer };
                tracing::warn!(shard = self.shard.0, %error, "standing down");
                return News::Fenced(self.caution);
            };
            match Owner::new(self, machine, holdings).serve().await {
                Ended::Left => break,
                Ended::Fenced => {
                    self.caution.failed(self.now());
                    return News::Fenced(self.caution);
                }
                Ended::Failed => {
                    self.caution.failed(self.now());
                    self.wait(self.caution.delay()).await;
                }
            }
        }
        News::Left
    }

    fn new_cache(&self) -> ShardCache {
        ShardCache::new(self.ground.stores.clone(), self.shard, self.ground.job_id, self.ground.operator)
    }

    fn take_over(&self, state: ShardState) -> Option<ShardMachine> {
        let limits =
            Limits { commit_bytes: self.caution.bound(Limits::default().commit_bytes), ..Limits::default() };
        let incarnation = rand::random();
        ShardMachine::take_over(
            self.shard,
            &self.ground.job.core,
            limits,
            state,
            incarnation,
            self.assignment,
        )
    }

    /// Restores on a thread that may block; frames that come meanwhile belong to sessions that are void.
    async fn restore(&mut self, holdings: &mut Holdings) -> Result<ShardState, Error> {
        let (ground, shard) = (Arc::clone(&self.ground), self.shard);
        let mut producer = holdings.producer.take();
        let mut cache = std::mem::replace(&mut holdings.cache, self.new_cache());
        let mut task = spawn_blocking(move || {
            let state = restore::restore(&ground, shard, &mut producer, &mut cache);
            (producer, cache, state)
        });
        loop {
            tokio::select! {
                done = &mut task => {
                    let (producer, cache, state) = done.map_err(|error| Error::Task(error.to_string()))?;
                    (holdings.producer, holdings.cache) = (producer, cache);
                    return state;
                }
                message = self.inbox.recv(), if self.leave.is_none() => self.set_aside(message),
            }
        }
    }

    async fn wait(&mut self, delay: Duration) {
        let over = sleep(delay);
        tokio::pin!(over);
        while self.leave.is_none() {
            tokio::select! {
                () = &mut over => return,
                message = self.inbox.recv() => self.set_aside(message),
            }
        }
    }

    /// Takes a message while the shard has no state.
    fn set_aside(&mut self, message: Option<ToShard>) {
        match message {
            Some(ToShard::Frames(dropped)) => drop(dropped),
            Some(ToShard::Ask(asker)) => self.asked(asker),
            // Whoever asks learns from the end of the question that there is no state.
            Some(ToShard::Inspect(question)) => drop(question),
            // Likewise, and sends it again.
            Some(ToShard::Replay(given)) => drop(given),
            Some(ToShard::Leave(leave)) => self.leave = Some(leave),
            None => self.leave = Some(Leave::AtOnce),
        }
    }

    pub(crate) fn asked(&mut self, asker: Asker) {
        self.askers
            .retain(|known| !known.replies.is_closed() && !Arc::ptr_eq(&known.replies, &asker.replies));
        self.askers.push(asker);
    }

    pub(crate) fn now(&self) -> Tick {
        Tick(self.ground.clock.tick())
    }
}

/// Closing a producer may block.
fn close(producer: Option<TransactionalProducer>) {
    if producer.is_some() {
        spawn_blocking(move || drop(producer));
    }
}
