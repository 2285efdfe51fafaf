//! What others may see of the assignment: the owners, for ingests; workers and shards, for status and console.

use std::collections::BTreeMap;

use super::{AssignmentMachine, Phase, Presence, ShardState, WorkerId};
use crate::announcement::{AssignmentId, Term};
use crate::time::Shard;

/// Where each assigned shard is to be sent. Shards that are free, held or being released are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owners {
    /// The coordinator's term; a view of an older (term, version) is ignored.
    pub term: Term,
    /// Rises by one with each change.
    pub version: u64,
    /// The owner of each assigned shard.
    pub owners: BTreeMap<Shard, Owner>,
}

/// The owner of a shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The worker's name.
    pub worker: WorkerId,
    /// Where to reach it.
    pub address: String,
    /// By which assignment.
    pub assignment: AssignmentId,
}

/// A worker as the coordinator sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerStatus {
    /// Its name.
    pub worker: WorkerId,
    /// Where ingests reach it.
    pub address: String,
    /// The incarnation it registered with.
    pub incarnation: u64,
    /// Whether it is there.
    pub presence: Presence,
    /// The shards that are its own now: owned, being released by it, or held for it.
    pub shards: Vec<Shard>,
}

impl AssignmentMachine {
    /// The present owners. Send it to ingests whenever its version has changed.
    #[must_use]
    pub const fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Whether the grace period after the start is over.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.phase == Phase::Settled
    }

    /// The later term that a worker knows of: this coordinator has to stop.
    #[must_use]
    pub const fn deposed_by(&self) -> Option<Term> {
        match self.phase {
            Phase::Deposed { by } => Some(by),
            Phase::Gathering { .. } | Phase::Settled => None,
        }
    }

    /// The state of every shard, in order.
    pub fn shards(&self) -> impl Iterator<Item = (Shard, &ShardState)> {
        self.slots.iter().map(|(shard, slot)| (*shard, &slot.state))
    }

    /// Every known worker, in order of name.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerStatus> {
        let mut shards: BTreeMap<&WorkerId, Vec<Shard>> = BTreeMap::new();
        for (shard, state) in self.shards() {
            if let ShardState::Owned { worker, .. }
            | ShardState::Releasing { worker, .. }
            | ShardState::Held { worker } = state
            {
                shards.entry(worker).or_default().push(shard);
            }
        }
        let status = |(id, worker): (&WorkerId, &super::Worker)| WorkerStatus {
            worker: id.clone(),
            address: worker.address.clone(),
            incarnation: worker.incarnation,
            presence: worker.presence,
            shards: shards.remove(id).unwrap_or_default(),
        };
        self.workers.iter().map(status).collect()
    }

    /// Brings the owners' view up to date.
    pub(super) fn publish(&mut self) {
        let owner = |(shard, state): (Shard, &ShardState)| {
            let ShardState::Owned { worker, assignment } = state else { return None };
            let address = self.workers.get(worker)?.address.clone();
            Some((shard, Owner { worker: worker.clone(), address, assignment: *assignment }))
        };
        let owners: BTreeMap<Shard, Owner> = self.shards().filter_map(owner).collect();
        if owners != self.owners.owners {
            self.owners.version = self.owners.version.saturating_add(1);
            self.owners.owners = owners;
        }
    }
}
