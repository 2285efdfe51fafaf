//! Which worker owns which shard (design §5; spec D4, D5, D6).
//!
//! ```text
//! Unassigned ──assign──► Owned ──release──► Releasing ──released──► (assigned to its next owner)
//!     ▲                   │  ▲                  │
//!     │              lost │  │ back in time     │ lost
//!     └──return timeout── Held                  └─► Unassigned
//! ```
//!
//! Promises:
//! - No two assignments carry the same (term, n); of one shard each is higher than the last. Who may *commit* is decided
//!   by the shard's transactional id (I6): this machine only has to be deterministic, balanced and calm.
//! - After a (re)start nothing is given or moved before the grace period has passed or every shard is claimed; a shard
//!   that a worker claims stays with it, the highest claim wins.
//! - Once things are calm, the counts of any two live workers differ by at most one, with as few moves as that takes.
//! - A machine that meets a claim of a later term is deposed and asks for nothing any more.
//! - A lost worker's shards are fenced at once, and wait for its return until the timeout.

mod arrange;
mod register;
mod view;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::announcement::{AssignmentId, Term};
use crate::time::{Shard, Tick};

pub use view::{Owner, Owners, WorkerStatus};

/// The stable name of a worker: in Kubernetes its pod's, so that it comes back to its volume.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub String);

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One stream of a worker to this coordinator; the shell draws a new number for every connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId(pub u64);

/// The waiting times of the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AssignmentConfig {
    /// After a start, from the first registration: how long to wait for further claims.
    pub grace_ms: u64,
    /// Without a new registration for this long, those present are taken for all: a first start without claims ends its
    /// grace, and shards are moved for balance.
    pub settle_ms: u64,
    /// How long a lost worker's shards wait for it.
    pub return_timeout_ms: u64,
    /// So many shards are on their way from one worker to another at a time for balance: each stands still only for
    /// its own restore, not for those of all.
    pub moves_at_once: usize,
}

impl Default for AssignmentConfig {
    /// 5 s, 500 ms and 10 s; one move at a time.
    fn default() -> Self {
        Self { grace_ms: 5000, settle_ms: 500, return_timeout_ms: 10_000, moves_at_once: 1 }
    }
}

/// What a worker says of itself when it connects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// Its stable name.
    pub worker: WorkerId,
    /// The stream it speaks on. A newer stream of the same name replaces the older one.
    pub stream: StreamId,
    /// Where ingests reach it.
    pub address: String,
    /// Drawn at the start of its process; for the status view.
    pub incarnation: u64,
    /// The shards it owns at this moment, by which assignment. Empty for a process that has just started.
    pub claims: BTreeMap<Shard, AssignmentId>,
}

/// What the shell has to do, in this order. A fence of a shard has to be finished, or given up, before a later assignment
/// of the same shard is sent: it would fence the new owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AssignmentEffect {
    /// Tell the worker to take the shard. Replaces whatever assignment of the shard it knows.
    Assign {
        /// The shard.
        shard: Shard,
        /// Its new owner.
        worker: WorkerId,
        /// Goes into every block the owner writes.
        assignment: AssignmentId,
    },
    /// Tell the worker to stop taking records for the shard, commit, leave and say `released`; where it finds itself
    /// fenced, to drop it. Void where the worker's assignment is another one.
    Release {
        /// The shard.
        shard: Shard,
        /// Who is to leave it.
        worker: WorkerId,
        /// The assignment that ends.
        assignment: AssignmentId,
    },
    /// Run `init_transactions` for the shard's transactional id, so that nothing of its lost owner hangs or commits.
    Fence {
        /// The shard.
        shard: Shard,
    },
}

/// Where a shard is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ShardState {
    /// Nobody's; given to a live worker as soon as there is one and the grace period is over.
    Unassigned,
    /// Given to a connected worker.
    Owned {
        /// The owner.
        worker: WorkerId,
        /// Its assignment.
        assignment: AssignmentId,
    },
    /// On its way from one worker to another; the first is draining it.
    Releasing {
        /// Who still has it.
        worker: WorkerId,
        /// The assignment that ends.
        assignment: AssignmentId,
        /// Who gets it; `None`: the least loaded when it is free.
        to: Option<WorkerId>,
    },
    /// Fenced, waiting for its lost owner's return.
    Held {
        /// The lost owner.
        worker: WorkerId,
    },
}

/// A shard, and the highest of its assignments that is known to have ended: claims up to it are void.
#[derive(Clone, Debug)]
struct Slot {
    state: ShardState,
    ended: Option<AssignmentId>,
}

/// Whether a worker is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Connected.
    Live,
    /// Connected, and about to stop: keeps its shards only while there is nobody else.
    Draining,
    /// Its stream closed.
    Lost {
        /// When.
        since: Tick,
    },
}

#[derive(Clone, Debug)]
struct Worker {
    stream: StreamId,
    address: String,
    incarnation: u64,
    presence: Presence,
}

/// How far the machine is after its start.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Waiting for registrations and their claims; the first came at this time.
    Gathering { first: Option<Tick>, claimed: bool },
    /// Gives and moves shards.
    Settled,
    /// A worker holds a shard by an assignment of this later term: another coordinator rules, this one is silent.
    Deposed { by: Term },
}

/// The coordinator's view of the workers; see the module's promises.
#[derive(Clone, Debug)]
pub struct AssignmentMachine {
    term: Term,
    config: AssignmentConfig,
    slots: BTreeMap<Shard, Slot>,
    /// Assigned, and not yet said to be ready.
    arriving: BTreeSet<Shard>,
    workers: BTreeMap<WorkerId, Worker>,
    phase: Phase,
    last_registration: Tick,
    last_number: u64,
    owners: Owners,
}

impl AssignmentMachine {
    /// A machine for `shards` shards that knows no worker yet. `term` is higher than any before.
    #[must_use]
    pub fn new(term: Term, shards: u32, config: AssignmentConfig) -> Self {
        let slot = |shard| (Shard(shard), Slot { state: ShardState::Unassigned, ended: None });
        Self {
            term,
            config,
            slots: (0..shards).map(slot).collect(),
            arriving: BTreeSet::new(),
            workers: BTreeMap::new(),
            phase: Phase::Gathering { first: None, claimed: false },
            last_registration: Tick(0),
            last_number: 0,
            owners: Owners { term, version: 0, owners: BTreeMap::new() },
        }
    }

    /// A worker connected, for the first time, again, or on a newer stream.
    pub fn registered(&mut self, registration: Registration, now: Tick) -> Vec<AssignmentEffect> {
        let mut effects = Vec::new();
        self.register(registration, now, &mut effects);
        self.finish(now, effects)
    }

    /// The stream of a worker closed. Void if it has a newer one.
    pub fn lost(&mut self, worker: &WorkerId, stream: StreamId, now: Tick) -> Vec<AssignmentEffect> {
        let mut effects = Vec::new();
        match self.workers.get_mut(worker) {
            Some(known) if known.stream == stream && !matches!(known.presence, Presence::Lost { .. }) => {
                known.presence = Presence::Lost { since: now };
            }
            _ => return effects,
        }
        for (&shard, slot) in &mut self.slots {
            let next = match &slot.state {
                ShardState::Owned { worker: owner, assignment } if owner == worker => {
                    slot.ended = slot.ended.max(Some(*assignment));
                    ShardState::Held { worker: worker.clone() }
                }
                // It was leaving anyway.
                ShardState::Releasing { worker: owner, assignment, .. } if owner == worker => {
                    slot.ended = slot.ended.max(Some(*assignment));
                    ShardState::Unassigned
                }
                _ => continue,
            };
            slot.state = next;
            effects.push(AssignmentEffect::Fence { shard });
        }
        self.finish(now, effects)
    }

    /// The worker has restored the shard.
    pub fn ready(&mut self, shard: Shard, worker: &WorkerId, now: Tick) -> Vec<AssignmentEffect> {
        let owns =
            |slot: &Slot| matches!(&slot.state, ShardState::Owned { worker: owner, .. } if owner == worker);
        if self.slots.get(&shard).is_some_and(owns) {
            self.arriving.remove(&shard);
        }
        self.finish(now, Vec::new())
    }

    /// The worker has committed and left the shard.
    pub fn released(
        &mut self,
        shard: Shard,
        worker: &WorkerId,
        assignment: AssignmentId,
        now: Tick,
    ) -> Vec<AssignmentEffect> {
        let mut effects = Vec::new();
        self.hand_over(shard, worker, assignment, &mut effects);
        self.finish(now, effects)
    }

    /// The worker found itself fenced and has dropped the shard. While it is still the assigned owner it gets it again,
    /// by a higher assignment; a zombie's word is ignored, so that a contest for a shard ends.
    pub fn fenced(
        &mut self,
        shard: Shard,
        worker: &WorkerId,
        assignment: AssignmentId,
        now: Tick,
    ) -> Vec<AssignmentEffect> {
        let mut effects = Vec::new();
        if let Some(to) = self.end(shard, worker, assignment) {
            let keeps = !self.is_draining(worker) || !self.any_live();
            if let Some(to) = to.or_else(|| keeps.then(|| worker.clone())) {
                self.assign(shard, &to, &mut effects);
            }
        }
        self.finish(now, effects)
    }

    /// The worker is about to stop: its shards move to the others, if there are any. To be said again after a reconnect.
    pub fn draining(&mut self, worker: &WorkerId, now: Tick) -> Vec<AssignmentEffect> {
        if let Some(known) = self.workers.get_mut(worker)
            && known.presence == Presence::Live
        {
            known.presence = Presence::Draining;
        }
        self.finish(now, Vec::new())
    }

    /// Ends the grace period, gives up on lost workers, balances. Call it about every 100 ms.
    pub fn tick(&mut self, now: Tick) -> Vec<AssignmentEffect> {
        self.finish(now, Vec::new())
    }

    fn finish(&mut self, now: Tick, mut effects: Vec<AssignmentEffect>) -> Vec<AssignmentEffect> {
        if let Phase::Deposed { .. } = self.phase {
            return Vec::new();
        }
        self.arrange(now, &mut effects);
        effects
    }

    /// The worker has left the shard: on to the next owner, if that is settled.
    fn hand_over(
        &mut self,
        shard: Shard,
        worker: &WorkerId,
        assignment: AssignmentId,
        effects: &mut Vec<AssignmentEffect>,
    ) {
        if let Some(Some(to)) = self.end(shard, worker, assignment) {
            self.assign(shard, &to, effects);
        }
    }

    /// Ends an assignment that is in force, and says who is to get the shard next, if that was settled. `None`: it was
    /// not in force.
    fn end(&mut self, shard: Shard, worker: &WorkerId, assignment: AssignmentId) -> Option<Option<WorkerId>> {
        let slot = self.slots.get_mut(&shard)?;
        let to = match &slot.state {
            ShardState::Owned { worker: owner, assignment: current }
                if owner == worker && *current == assignment =>
            {
                None
            }
            ShardState::Releasing { worker: owner, assignment: current, to }
                if owner == worker && *current == assignment =>
            {
                to.clone()
            }
            _ => return None,
        };
        slot.ended = slot.ended.max(Some(assignment));
        slot.state = ShardState::Unassigned;
        Some(to.filter(|to| self.is_live(to)))
    }

    fn assign(&mut self, shard: Shard, worker: &WorkerId, effects: &mut Vec<AssignmentEffect>) {
        let Some(slot) = self.slots.get_mut(&shard) else { return };
        self.last_number = self.last_number.saturating_add(1);
        let assignment = AssignmentId { term: self.term, number: self.last_number };
        if let ShardState::Owned { assignment: previous, .. }
        | ShardState::Releasing { assignment: previous, .. } = &slot.state
        {
            slot.ended = slot.ended.max(Some(*previous));
        }
        debug_assert!(Some(assignment) > slot.ended, "an assignment does not rise");
        slot.state = ShardState::Owned { worker: worker.clone(), assignment };
        self.arriving.insert(shard);
        effects.push(AssignmentEffect::Assign { shard, worker: worker.clone(), assignment });
    }

    fn is_live(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|worker| worker.presence == Presence::Live)
    }

    fn is_draining(&self, worker: &WorkerId) -> bool {
        self.workers.get(worker).is_some_and(|worker| worker.presence == Presence::Draining)
    }

    fn any_live(&self) -> bool {
        self.workers.values().any(|worker| worker.presence == Presence::Live)
    }
}
