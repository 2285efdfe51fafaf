//! A shard that was assigned to a worker: how it is taken, restored, and left.

use std::collections::{BTreeMap, VecDeque};

use tidegate_core::{
    announcement::AssignmentId,
    job::OperatorSpec,
    pacing::CommitPacer,
    shard::ShardMachine,
    time::{Shard, Tick, Watermark},
};

use super::{Volume, Worker, broken::mutated, owning::Owning};
use crate::{
    context::{Context, Event, Message},
    mutation::Mutation,
    scratch::OwnersScratch,
    store::{Found, restore},
    violation::ensure,
};

/// A shard that was assigned to this worker.
#[derive(Debug)]
pub struct Slot {
    pub assignment: AssignmentId,
    pub(super) phase: Phase,
    /// Names the request under way: answers to others are void.
    pub(super) attempt: u64,
    pub(super) since: u64,
    pub(super) releasing: bool,
    /// What the local store was given does not read.
    pub(super) distrusts: bool,
    /// W_s as last known committed.
    pub(super) committed: Watermark,
}

#[derive(Debug)]
pub(super) enum Phase {
    Initialising,
    Restoring,
    Owning(Box<Owning>),
}

impl Worker {
    pub(super) fn assign(&mut self, shard: Shard, assignment: AssignmentId, ctx: &mut Context) {
        if self.draining || self.shards.get(&shard).is_some_and(|slot| slot.assignment >= assignment) {
            return;
        }
        self.drop_shard(shard, ctx);
        let slot = Slot {
            assignment,
            phase: Phase::Initialising,
            attempt: 0,
            since: 0,
            releasing: false,
            distrusts: false,
            committed: None,
        };
        self.shards.insert(shard, slot);
        self.initialise(shard, ctx);
    }

    pub(super) fn release(&mut self, shard: Shard, assignment: AssignmentId, ctx: &mut Context) {
        match self.shards.get_mut(&shard) {
            // Void: this worker has it by another one.
            Some(slot) if slot.assignment != assignment => {}
            Some(slot) if matches!(slot.phase, Phase::Owning(_)) => {
                slot.releasing = true;
                self.pump(shard, ctx);
            }
            Some(_) => self.leave(shard, ctx),
            None => self.tell_coordinator(Message::Released(shard, assignment), ctx),
        }
    }

    pub(super) fn leave(&mut self, shard: Shard, ctx: &mut Context) {
        if let Some(assignment) = self.drop_shard(shard, ctx) {
            self.tell_coordinator(Message::Released(shard, assignment), ctx);
        }
    }

    /// Fenced, or not the owner any more: asks for assignment again.
    pub(super) fn stand_down(&mut self, shard: Shard, ctx: &mut Context) {
        ctx.count("owners that stood down");
        ctx.note(|| format!("worker {} stands down from shard {shard}", self.id));
        if let Some(assignment) = self.drop_shard(shard, ctx) {
            self.tell_coordinator(Message::Fenced(shard, assignment), ctx);
        }
    }

    fn drop_shard(&mut self, shard: Shard, ctx: &mut Context) -> Option<AssignmentId> {
        let slot = self.shards.remove(&shard)?;
        self.forget(slot.phase, ctx);
        Some(slot.assignment)
    }

    /// Gives back the credit of what is dropped with a machine.
    fn forget(&self, phase: Phase, ctx: &mut Context) {
        let Phase::Owning(owning) = phase else { return };
        let Owning { inbox, applied, committing, .. } = *owning;
        for (link, _, cost) in inbox {
            self.credit(link, cost, ctx);
        }
        let committing = committing.into_iter().flat_map(|(_, credit)| credit);
        for (link, bytes) in applied.into_iter().chain(committing) {
            self.credit(link, bytes, ctx);
        }
    }

    /// Takes the shard's transactional id, or takes it again after an outcome that is not known: drops all state.
    pub(super) fn initialise(&mut self, shard: Shard, ctx: &mut Context) {
        let attempt = ctx.number();
        let Some(slot) = self.shards.get_mut(&shard) else { return };
        (slot.attempt, slot.since) = (attempt, ctx.now);
        let phase = std::mem::replace(&mut slot.phase, Phase::Initialising);
        self.forget(phase, ctx);
        let latency = ctx.latency();
        ctx.note(|| format!("worker {} initialises shard {shard}", self.id));
        ctx.after(latency, Event::Init { by: self.process(), shard, attempt });
    }

    pub fn initialised(&mut self, shard: Shard, attempt: u64, epoch: u64, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        slot.phase = Phase::Restoring;
        let latency = ctx.latency();
        ctx.after(latency, Event::Restored { worker: self.id, shard, attempt, epoch });
    }

    /// The changelog has been read: takes the shard over, or stands down.
    pub fn restored(
        &mut self,
        shard: Shard,
        attempt: u64,
        epoch: u64,
        volume: &mut Volume,
        ctx: &mut Context,
    ) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        let mut log = ctx.changelog.blocks(shard);
        if ctx.is_mutated(Mutation::RestoreStopsEarly) && log.len() > 1 {
            log.pop();
        }
        if ctx.is_mutated(Mutation::ClosingsAreForgotten) {
            log.iter_mut().for_each(|(_, block)| block.scalars.closing = None);
        }
        if ctx.is_mutated(Mutation::PurgesAreForgotten) {
            log.iter_mut().for_each(|(_, block)| block.scalars.purged = None);
        }
        let believes = ctx.is_mutated(Mutation::StoreIsBelieved);
        let mut store = volume.remove(&shard).filter(|_| !std::mem::take(&mut slot.distrusts));
        let (state, found) = restore(&ctx.scenario.job, &mut store, &log, believes);
        volume.extend(store.map(|store| (shard, store)));
        ctx.note(|| {
            format!("worker {} restored shard {shard} at {:?}: {found:?}", self.id, state.identity())
        });
        if state.canonical().unreadable.is_some() {
            return self.distrust(shard, ctx);
        }
        ensure(state.canonical() == ctx.ledger.state(shard).canonical(), "rebuild = owner", || {
            format!("shard {shard}: a restore ({found:?}) gives {:?}", state.canonical())
        });
        ctx.count(match found {
            Found::Store => "stores used",
            Found::LogAlone => "logs restored",
            Found::Ahead => "stores ahead of the log",
        });
        let incarnation = ctx.dice.bits();
        slot.committed = state.watermark();
        let (spec, mut limits) = (&ctx.scenario.job, ctx.scenario.limits);
        if ctx.is_mutated(Mutation::CommitsAreUnbounded) {
            limits.commit_bytes = usize::MAX;
        }
        let taken = ShardMachine::take_over(shard, spec, limits, state, incarnation, slot.assignment);
        let Some(mut machine) = taken else { return self.stand_down(shard, ctx) };
        machine.set_memory(ctx.scenario.memory);
        if matches!(spec.operator, OperatorSpec::Sliding(_)) {
            let room = ctx.dice.chance(100).then(|| ctx.dice.within(0, 20));
            machine.set_scratch(Box::new(OwnersScratch::new(room)));
        }
        if let Some(announced) = &self.announced {
            machine.announce(&mutated(announced, ctx));
        }
        // A restart may come with another job file.
        let early = ctx.scenario.early.filter(|_| ctx.dice.chance(800));
        machine.set_early(early, Tick(ctx.now));
        slot.phase = Phase::Owning(Box::new(Owning {
            machine,
            epoch,
            pacer: CommitPacer::new(ctx.scenario.pace, Tick(ctx.now)),
            begun: None,
            inbox: VecDeque::new(),
            applied: BTreeMap::new(),
            committing: None,
            retried: false,
            asked: VecDeque::new(),
            replayed: Vec::new(),
            answers: Default::default(),
            unstored: Vec::new(),
            joined: 0,
        }));
        let committed = slot.committed;
        if slot.releasing {
            return self.leave(shard, ctx);
        }
        self.tell_coordinator(Message::Ready(shard, committed), ctx);
        let links: Vec<_> = self.feeds.keys().copied().collect();
        links.into_iter().for_each(|link| self.send_wants(link, &[shard], ctx));
        self.pump(shard, ctx);
    }

    /// The store has lost what it was given: the log has it.
    pub(super) fn distrust(&mut self, shard: Shard, ctx: &mut Context) {
        ctx.count("stores that lost a chunk");
        if let Some(slot) = self.shards.get_mut(&shard) {
            slot.distrusts = true;
            self.initialise(shard, ctx);
        }
    }
}
