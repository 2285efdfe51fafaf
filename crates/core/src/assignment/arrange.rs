//! What to do with the shards as things stand: place the free ones, empty draining workers, balance.

use std::collections::BTreeMap;

use super::{AssignmentEffect, AssignmentMachine, Phase, Presence, ShardState, Slot, WorkerId};
use crate::time::{Shard, Tick};

/// Shards that each live worker has or is about to get.
type Loads = BTreeMap<WorkerId, usize>;

impl AssignmentMachine {
    pub(super) fn arrange(&mut self, now: Tick, effects: &mut Vec<AssignmentEffect>) {
        self.give_up_on_lost(now);
        self.end_gathering(now);
        if self.phase == Phase::Settled {
            let mut loads = self.loads();
            self.place(&mut loads, effects);
            self.empty_draining(&mut loads, effects);
            if self.is_calm(now) {
                self.balance(&mut loads, effects);
            }
        }
        self.publish();
    }

    fn give_up_on_lost(&mut self, now: Tick) {
        let timeout = self.config.return_timeout_ms;
        let gone = |presence| match presence {
            Presence::Lost { since } => now.since(since) >= timeout,
            Presence::Live | Presence::Draining => false,
        };
        self.workers.retain(|_, worker| !gone(worker.presence));
        for slot in self.slots.values_mut() {
            if let ShardState::Held { worker } = &slot.state
                && !self.workers.contains_key(worker)
            {
                slot.state = ShardState::Unassigned;
            }
        }
        if self.workers.is_empty() {
            self.phase = Phase::Gathering { first: None, claimed: false };
        }
    }

    fn end_gathering(&mut self, now: Tick) {
        let Phase::Gathering { first: Some(first), claimed } = self.phase else { return };
        let waited = now.since(first) >= self.config.grace_ms;
        let first_start = !claimed && now.since(self.last_registration) >= self.config.settle_ms;
        let all_claimed = self.slots.values().all(|slot| slot.state != ShardState::Unassigned);
        if self.any_live() && (waited || first_start || all_claimed) {
            self.phase = Phase::Settled;
        }
    }

    /// Whether moves for balance are worth it: nobody has just come, nobody is expected back.
    fn is_calm(&self, now: Tick) -> bool {
        let held = |state: &ShardState| matches!(state, ShardState::Held { .. });
        now.since(self.last_registration) >= self.config.settle_ms
            && !self.slots.values().any(|slot| held(&slot.state))
    }

    /// Shards that no worker serves at this moment, or soon none.
    fn moving(&self) -> usize {
        let moving = |(shard, slot): &(&Shard, &Slot)| match slot.state {
            ShardState::Releasing { .. } => true,
            ShardState::Owned { .. } => self.arriving.contains(shard),
            ShardState::Unassigned | ShardState::Held { .. } => false,
        };
        self.slots.iter().filter(moving).count()
    }

    fn loads(&self) -> Loads {
        let live = self.workers.iter().filter(|(_, worker)| worker.presence == Presence::Live);
        let mut loads: Loads = live.map(|(id, _)| (id.clone(), 0)).collect();
        for slot in self.slots.values() {
            if let Some(worker) = slot.state.next_owner()
                && let Some(load) = loads.get_mut(worker)
            {
                *load += 1;
            }
        }
        loads
    }

    /// Gives free shards, and those being released to nobody in particular, to the least loaded.
    fn place(&mut self, loads: &mut Loads, effects: &mut Vec<AssignmentEffect>) {
        let shards: Vec<Shard> = self.slots.keys().copied().collect();
        for shard in shards {
            let Some(slot) = self.slots.get_mut(&shard) else { continue };
            match &mut slot.state {
                ShardState::Unassigned => {
                    let Some(worker) = least(loads) else { return };
                    self.assign(shard, &worker, effects);
                    add(loads, &worker);
                }
                ShardState::Releasing { to, .. } if to.as_ref().is_none_or(|to| !loads.contains_key(to)) => {
                    *to = least(loads);
                    if let Some(worker) = to {
                        add(loads, worker);
                    }
                }
                ShardState::Owned { .. } | ShardState::Releasing { .. } | ShardState::Held { .. } => {}
            }
        }
    }

    fn empty_draining(&mut self, loads: &mut Loads, effects: &mut Vec<AssignmentEffect>) {
        let draining =
            |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.presence == Presence::Draining);
        for (&shard, slot) in &mut self.slots {
            if let ShardState::Owned { worker, .. } = &slot.state
                && draining(worker)
                && let Some(to) = least(loads)
            {
                effects.extend(slot.state.release(shard, &to));
                add(loads, &to);
            }
        }
    }

    /// Moves from the most to the least loaded until they differ by at most one: the fewest moves that balance, a few at
    /// a time.
    fn balance(&mut self, loads: &mut Loads, effects: &mut Vec<AssignmentEffect>) {
        while let (Some(from), Some(to)) = (most(loads), least(loads)) {
            let load = |worker| loads.get(worker).copied().unwrap_or(0);
            let balanced = load(&from) <= load(&to) + 1;
            if balanced || self.moving() >= self.config.moves_at_once || !self.shift(&from, &to, effects) {
                return;
            }
            if let Some(load) = loads.get_mut(&from) {
                *load -= 1;
            }
            add(loads, &to);
        }
    }

    /// Moves one shard; a shard that is under way anyway first, since that costs nothing.
    fn shift(&mut self, from: &WorkerId, to: &WorkerId, effects: &mut Vec<AssignmentEffect>) -> bool {
        let coming =
            |state: &ShardState| matches!(state, ShardState::Releasing { to: Some(to), .. } if to == from);
        let owned = |state: &ShardState| matches!(state, ShardState::Owned { worker, .. } if worker == from);
        let under_way = self.slots.iter().find(|(_, slot)| coming(&slot.state)).map(|(shard, _)| *shard);
        let settled = || self.slots.iter().rfind(|(_, slot)| owned(&slot.state)).map(|(shard, _)| *shard);
        let Some(shard) = under_way.or_else(settled) else { return false };
        let Some(slot) = self.slots.get_mut(&shard) else { return false };
        if let ShardState::Releasing { to: target, .. } = &mut slot.state {
            *target = Some(to.clone());
        } else {
            effects.extend(slot.state.release(shard, to));
        }
        true
    }
}

impl ShardState {
    /// Who has the shard or is about to get it, as far as settled.
    const fn next_owner(&self) -> Option<&WorkerId> {
        match self {
            Self::Owned { worker, .. } => Some(worker),
            Self::Releasing { to, .. } => to.as_ref(),
            Self::Unassigned | Self::Held { .. } => None,
        }
    }

    fn release(&mut self, shard: Shard, to: &WorkerId) -> Option<AssignmentEffect> {
        let Self::Owned { worker, assignment } = self.clone() else { return None };
        *self = Self::Releasing { worker: worker.clone(), assignment, to: Some(to.clone()) };
        Some(AssignmentEffect::Release { shard, worker, assignment })
    }
}

fn least(loads: &Loads) -> Option<WorkerId> {
    loads.iter().min_by_key(|(_, load)| **load).map(|(worker, _)| worker.clone())
}

fn most(loads: &Loads) -> Option<WorkerId> {
    loads.iter().max_by_key(|(_, load)| **load).map(|(worker, _)| worker.clone())
}

fn add(loads: &mut Loads, worker: &WorkerId) {
    if let Some(load) = loads.get_mut(worker) {
        *load += 1;
    }
}
