//! The commits of a shard: planned, sent, answered or not.

use tidegate_core::{
    job::OperatorSpec,
    shard::{Commit, Pane},
    time::{Offset, Shard, Tick},
};

use super::{PATIENCE, Phase, Volume, Worker, owning::answer};
use crate::{
    changelog::CommitOutcome,
    context::{CommitRequest, Context, Event, Message},
    mutation::Mutation,
    violation::ensure,
};

impl Worker {
    pub(super) fn commit(&mut self, shard: Shard, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        let Some(mut commit) = owning.machine.plan() else { return };
        if ctx.is_mutated(Mutation::RetractionsAreLost) {
            commit.results.retain(|row| row.pane != Pane::Retracted);
        }
        owning.pacer.begin(Tick(ctx.now));
        let least = ctx.scenario.pace.min_interval.min(ctx.scenario.pace.commit_interval);
        let rests = slot.releasing || owning.begun.is_none_or(|begun| ctx.now >= begun + least);
        ensure(rests, "I7: commits are paced", || {
            format!("shard {shard}, less than {least} ms after the last")
        });
        owning.begun = Some(ctx.now);
        let attempt = ctx.number();
        slot.attempt = attempt;
        let owner = owning.machine.state().canonical();
        if owner.unreadable.is_some() {
            return self.distrust(shard, ctx);
        }
        if let Some(spilled) = &commit.spilled {
            ctx.count("runs");
            let of_sessions = matches!(ctx.scenario.job.operator, OperatorSpec::Sessions(_));
            if of_sessions && !spilled.parts.is_empty() {
                ctx.count("runs of sessions");
            }
        }
        if !owner.outdated.is_empty() {
            ctx.count("early results outdated in runs");
        }
        (owning.joined..owning.machine.joined_sessions()).for_each(|_| ctx.count("sessions joined"));
        owning.joined = owning.machine.joined_sessions();
        let spans = owning.machine.take_span_traffic();
        (0..spans.left).for_each(|_| ctx.count("spans that left memory"));
        (0..spans.back).for_each(|_| ctx.count("spans that came back"));
        let replayed = std::mem::take(&mut owning.replayed);
        let [waiting, committing] = &mut owning.answers;
        std::mem::swap(waiting, committing);
        let request = Box::new(CommitRequest {
            worker: self.id,
            shard,
            attempt,
            epoch: owning.epoch,
            commit,
            owner,
            replayed,
        });
        owning.committing = Some((request.clone(), std::mem::take(&mut owning.applied)));
        owning.retried = false;
        send_commit(request, ctx);
    }

    pub fn commit_answered(
        &mut self,
        shard: Shard,
        attempt: u64,
        outcome: CommitOutcome,
        volume: &mut Volume,
        ctx: &mut Context,
    ) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        match outcome {
            CommitOutcome::Fenced => self.stand_down(shard, ctx),
            CommitOutcome::Aborted => self.initialise(shard, ctx),
            CommitOutcome::Committed(offset) => {
                let Some((request, credit)) = owning.committing.take() else { return };
                let Commit { block, spilled, .. } = request.commit;
                owning.pacer.committed(Tick(ctx.now));
                let committed = owning.machine.committed(block.sequence, offset);
                slot.committed = block.scalars.watermark;
                owning.unstored.push((block, spilled));
                // A run is written at once: frames may wait for it.
                let due = owning.unstored.iter().any(|(_, spilled)| spilled.is_some())
                    || owning.unstored.len() as u64 >= ctx.scenario.store_every;
                if due && let Some(store) = volume.get_mut(&shard) {
                    for (block, spilled) in std::mem::take(&mut owning.unstored) {
                        owning.machine.stored(&store.apply(&ctx.scenario.job, &block, spilled.as_deref()));
                    }
                    if let Some(compaction) = owning.machine.compaction() {
                        ctx.count("compactions");
                        owning.machine.compacted(store.compact(compaction));
                    }
                }
                if let Some(before) = committed.truncate_before {
                    let latency = ctx.latency();
                    ctx.after(latency, Event::Truncate { shard, before });
                }
                for (run, at) in std::mem::take(&mut owning.answers[1]) {
                    answer(run, at, ctx);
                }
                for (link, bytes) in credit {
                    self.credit(link, bytes, ctx);
                }
                for link in self.feeds.keys() {
                    let positions = committed.positions.clone();
                    let message = Message::Committed(shard, committed.watermark, positions);
                    ctx.send(*link, self.process(), message);
                }
                self.pump(shard, ctx);
            }
        }
    }

    /// No answer in time: retry, and if that does not resolve it, take the shard anew and read what became of it.
    pub fn commit_overdue(&mut self, shard: Shard, attempt: u64, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        let Some((request, _)) = &owning.committing else { return };
        if !owning.retried && ctx.dice.chance(500) {
            owning.retried = true;
            let request = request.clone();
            return send_commit(request, ctx);
        }
        ctx.count("unknown outcomes");
        ctx.note(|| format!("worker {} does not know what became of its commit of shard {shard}", self.id));
        if ctx.is_mutated(Mutation::UnknownIsCommitted) {
            let answered = Event::CommitAnswered {
                worker: self.id,
                shard,
                attempt,
                outcome: CommitOutcome::Committed(Offset(0)),
            };
            return ctx.after(0, answered);
        }
        self.initialise(shard, ctx);
    }
}

fn send_commit(request: Box<CommitRequest>, ctx: &mut Context) {
    let (worker, shard, attempt) = (request.worker, request.shard, request.attempt);
    ctx.after(PATIENCE, Event::CommitOverdue { worker, shard, attempt });
    if ctx.dice.chance(ctx.faults.commit_request_lost) {
        return;
    }
    let latency = ctx.latency();
    let delayed = if ctx.dice.chance(ctx.faults.commit_delayed) { ctx.dice.within(0, 1_500) } else { 0 };
    ctx.after(latency + delayed, Event::Commit(request));
}
