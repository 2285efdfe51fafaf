//! A worker registers: what it claims is weighed against what the machine believes, shard by shard.

use super::{
    AssignmentEffect, AssignmentMachine, Phase, Presence, Registration, ShardState, Worker, WorkerId,
};
use crate::announcement::AssignmentId;
use crate::time::{Shard, Tick};

/// What a worker's word on one shard leads to.
enum Verdict {
    Nothing,
    /// It owned the shard, or waits for it: give it to it anew.
    AssignAnew,
    /// It has already left the shard that it was told to release.
    Left(AssignmentId),
    /// Repeat the release.
    Release(AssignmentId),
    /// Its claim stands; another's lower one ends.
    Keep(AssignmentId, Option<(WorkerId, AssignmentId)>),
}

impl AssignmentMachine {
    pub(super) fn register(
        &mut self,
        registration: Registration,
        now: Tick,
        effects: &mut Vec<AssignmentEffect>,
    ) {
        let Registration { worker, stream, address, incarnation, claims } = registration;
        let latest = claims.values().map(|claim| claim.term).max();
        if let Some(by) = latest.filter(|latest| *latest > self.term) {
            self.phase = Phase::Deposed { by };
            return;
        }
        if let Phase::Gathering { first, claimed } = &mut self.phase {
            first.get_or_insert(now);
            *claimed |= !claims.is_empty();
        }
        self.last_registration = now;
        self.workers
            .insert(worker.clone(), Worker { stream, address, incarnation, presence: Presence::Live });
        let shards: Vec<Shard> = self.slots.keys().copied().collect();
        self.arriving.retain(|shard| !claims.contains_key(shard));
        for shard in shards {
            let verdict = self.judge(shard, &worker, claims.get(&shard).copied());
            self.carry_out(verdict, shard, &worker, effects);
        }
    }

    fn judge(&self, shard: Shard, worker: &WorkerId, claim: Option<AssignmentId>) -> Verdict {
        let Some(slot) = self.slots.get(&shard) else { return Verdict::Nothing };
        let valid = claim.filter(|claim| Some(*claim) > slot.ended);
        match (&slot.state, valid) {
            (ShardState::Owned { worker: owner, assignment }, _) if owner == worker => {
                // Else the assignment did not reach it, or its process is a new one.
                if valid == Some(*assignment) { Verdict::Nothing } else { Verdict::AssignAnew }
            }
            (ShardState::Releasing { worker: owner, assignment, .. }, _) if owner == worker => {
                if valid == Some(*assignment) {
                    Verdict::Release(*assignment)
                } else {
                    Verdict::Left(*assignment)
                }
            }
            (ShardState::Held { worker: owner }, _) if owner == worker => Verdict::AssignAnew,
            (ShardState::Unassigned | ShardState::Held { .. }, Some(claim)) => Verdict::Keep(claim, None),
            (
                ShardState::Owned { worker: owner, assignment }
                | ShardState::Releasing { worker: owner, assignment, .. },
                Some(claim),
            ) if claim > *assignment => Verdict::Keep(claim, Some((owner.clone(), *assignment))),
            // Ended, or lower than another's.
            (_, _) => claim.map_or(Verdict::Nothing, Verdict::Release),
        }
    }

    fn carry_out(
        &mut self,
        verdict: Verdict,
        shard: Shard,
        worker: &WorkerId,
        effects: &mut Vec<AssignmentEffect>,
    ) {
        match verdict {
            Verdict::Nothing => {}
            Verdict::AssignAnew => self.assign(shard, worker, effects),
            Verdict::Left(assignment) => self.hand_over(shard, worker, assignment, effects),
            Verdict::Release(assignment) => {
                effects.push(AssignmentEffect::Release { shard, worker: worker.clone(), assignment });
            }
            Verdict::Keep(claim, loser) => {
                let Some(slot) = self.slots.get_mut(&shard) else { return };
                slot.state = ShardState::Owned { worker: worker.clone(), assignment: claim };
                if let Some((loser, assignment)) = loser {
                    slot.ended = slot.ended.max(Some(assignment));
                    effects.push(AssignmentEffect::Release { shard, worker: loser, assignment });
                }
            }
        }
    }
}
