//! The machine of a shard that a worker owns, with what waits for it.

use std::collections::{BTreeMap, VecDeque};

use tidegate_core::{
    block::Block,
    frame::ShardFrame,
    pacing::{CommitPacer, Urgency},
    shard::{Applied, Failure, ShardMachine, Spilled},
    time::{Offset, Shard, Tick},
};

use super::{
    Phase, Worker,
    broken::{cover_gap, renew},
    feed::want_of,
};
use crate::{
    context::{CommitRequest, Context, Event, LinkId, Message, Replayed},
    mutation::Mutation,
    replay::Asked,
    violation::ensure,
};

#[derive(Debug)]
pub(super) struct Owning {
    pub(super) machine: ShardMachine,
    pub(super) epoch: u64,
    pub(super) pacer: CommitPacer,
    /// When the last commit began.
    pub(super) begun: Option<u64>,
    /// With what each costs of the credit.
    pub(super) inbox: VecDeque<(LinkId, ShardFrame, u64)>,
    /// Credit of frames applied since the last commit was planned, and of those in the commit.
    pub(super) applied: BTreeMap<LinkId, u64>,
    pub(super) committing: Option<(Box<CommitRequest>, BTreeMap<LinkId, u64>)>,
    pub(super) retried: bool,
    /// Dead letters that came back, and wait; those applied since the last commit was planned; and where answers are due, of these and of
    /// those in the commit.
    pub(super) asked: VecDeque<Asked>,
    pub(super) replayed: Vec<Replayed>,
    pub(super) answers: [Vec<(u64, usize)>; 2],
    /// Committed blocks that the local store has not taken in.
    pub(super) unstored: Vec<(Block, Option<Box<Spilled>>)>,
    /// Sessions joined, as counted.
    pub(super) joined: u64,
}

impl Worker {
    /// Applies what can be applied, commits what is due, leaves when there is nothing left to commit.
    pub(super) fn pump(&mut self, shard: Shard, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        if ctx.now < self.slow_until && !slot.releasing {
            return;
        }
        owning.machine.begin_early(Tick(ctx.now));
        let mut nacks = Vec::new();
        let mut credits: BTreeMap<LinkId, u64> = BTreeMap::new();
        while slot.releasing || owning.machine.takes_frames() {
            let Some((link, mut frame, cost)) = owning.inbox.pop_front() else { break };
            if slot.releasing {
                *credits.entry(link).or_default() += cost;
                continue;
            }
            match ctx.mutation {
                Some(Mutation::GapsAreCovered) => cover_gap(&owning.machine, &mut frame),
                Some(Mutation::KnownRecordsAreTakenAgain) => renew(&owning.machine, &mut frame),
                _ => {}
            }
            let applied = owning.machine.apply(&frame);
            ctx.note(|| {
                let (name, session) = frame.session;
                let ShardFrame { partition, from, to, .. } = frame;
                let session = session.0 & 0xffff_ffff;
                format!(
                    "worker {} shard {shard} p{partition} ingest {name} session {session} [{from}, {to}): {applied:?}",
                    self.id
                )
            });
            match applied {
                Applied::Covered => *owning.applied.entry(link).or_default() += cost,
                Applied::Known if !frame.rows.is_empty() => {
                    ctx.count("records dropped as known");
                    *credits.entry(link).or_default() += cost;
                }
                Applied::Known | Applied::Stale => *credits.entry(link).or_default() += cost,
                Applied::Refused(nack) => {
                    ctx.count(if nack.payloads { "payloads asked for" } else { "gaps refused" });
                    *credits.entry(link).or_default() += cost;
                    // As of the refusal: what comes behind it in the inbox may cover more.
                    let mut want = want_of(&owning.machine, slot.assignment, nack);
                    want.payloads &= !ctx.is_mutated(Mutation::LackingPayloadsAreNotAskedFor);
                    nacks.push((link, nack, want));
                }
            }
        }
        if slot.releasing {
            owning.asked.clear();
        }
        owning.replay(ctx);
        if let Some(failure) = owning.machine.failed().filter(|_| !owning.machine.is_committing()) {
            if matches!(failure, Failure::Scratch(_)) {
                ctx.count("spans that found no room");
            }
            return self.distrust(shard, ctx);
        }
        let (machine, releasing) = (&owning.machine, slot.releasing);
        let urgency = match () {
            () if machine.has_output() => Urgency::Output,
            () if machine.is_dirty() => Urgency::Dirty,
            () if machine.has_moved() => Urgency::Moved,
            () => Urgency::Nothing,
        };
        let never = urgency == Urgency::Moved && ctx.is_mutated(Mutation::NoHeartbeat);
        let paced = owning.pacer.due(urgency).is_some_and(|due| due.0 <= ctx.now);
        let hurries = ctx.is_mutated(Mutation::CommitsAreNotPaced) && !machine.is_committing();
        let due = !never && (paced || (hurries && urgency != Urgency::Nothing));
        let empty = urgency == Urgency::Nothing && !machine.is_committing();
        for (link, bytes) in credits {
            self.credit(link, bytes, ctx);
        }
        for (link, nack, want) in nacks {
            ctx.note(|| format!("worker {} shard {shard} refuses: {nack:?}", self.id));
            if !releasing && !ctx.is_mutated(Mutation::NacksAreLost) {
                ctx.send(link, self.process(), Message::Wants(vec![(nack.partition, want)]));
            }
        }
        if releasing && empty {
            self.leave(shard, ctx);
        } else if due || (releasing && urgency != Urgency::Nothing) {
            self.commit(shard, ctx);
        }
    }

    /// Dead letters come back.
    pub fn asked(&mut self, asked: Asked, ctx: &mut Context) {
        let shard = asked.shard;
        let slot = self.shards.get_mut(&shard).filter(|slot| !slot.releasing);
        if let Some(Phase::Owning(owning)) = slot.map(|slot| &mut slot.phase) {
            owning.asked.push_back(asked);
            self.pump(shard, ctx);
        }
    }
}

impl Owning {
    /// Takes dead letters that came back, where no frame waits.
    fn replay(&mut self, ctx: &mut Context) {
        while self.inbox.is_empty() && self.machine.takes_frames() {
            let Some(Asked { run, at, frame, .. }) = self.asked.pop_front() else { return };
            let watermark = self.machine.state().watermark();
            let known = |delta: &u32| {
                let offset = Offset(frame.from.0 + u64::from(*delta));
                self.machine.state().answered().contains(frame.partition, offset)
            };
            let new: Vec<_> =
                frame.rows.offsets.iter().zip(&frame.origins).filter(|(delta, _)| !known(delta)).collect();
            let records: Vec<_> = new.iter().map(|(_, origin)| (origin.partition, origin.offset)).collect();
            let joined = self.machine.joined_sessions();
            let done = self.machine.apply_replay(&frame);
            if self.machine.joined_sessions() > joined {
                ctx.count("sessions joined for replays");
            }
            let counted = (done.applied + done.expired, done.known);
            let expected = (records.len() as u64, (frame.rows.len() - records.len()) as u64);
            ensure(counted == expected, "L2: each row of a frame is answered for", || {
                format!("{done:?} of {frame:?}")
            });
            let applied = (records.len() == 1).then_some(done.applied == 1);
            self.replayed.extend(records.into_iter().map(|record| Replayed { record, watermark, applied }));
            for (count, what) in [
                (done.applied, "replayed"),
                (done.expired, "replayed too late"),
                (done.known, "replayed before"),
            ] {
                (0..count).for_each(|_| ctx.count(what));
            }
            if ctx.is_mutated(Mutation::ReplaysAreAnsweredEarly) {
                answer(run, at, ctx);
            } else if self.machine.is_dirty() {
                self.answers[0].push((run, at));
            } else if self.machine.is_committing() {
                self.answers[1].push((run, at));
            } else {
                answer(run, at, ctx);
            }
        }
    }
}

pub(super) fn answer(run: u64, at: usize, ctx: &mut Context) {
    if !ctx.dice.chance(ctx.faults.commit_answer_lost) {
        let latency = ctx.latency();
        ctx.after(latency, Event::ReplayAnswered { run, at });
    }
}
