//! Whether a lane may be read: workers without credit, and what catches up.

use std::collections::BTreeMap;

use tidegate_core::{
    credit::{Feeding, Step},
    lane::WorkerRef,
    time::{Partition, Tick},
};

use super::{Ingest, Reading};
use crate::{
    context::{Context, LinkId},
    mutation::Mutation,
};

impl Ingest {
    pub(super) fn look_after_slow_workers(&mut self, ctx: &mut Context) {
        if ctx.is_mutated(Mutation::NobodyIsParked) {
            return;
        }
        let partitions = &self.partitions;
        for step in self.credit.look(Tick(ctx.now), || feeding(partitions)) {
            ctx.note(|| format!("ingest {} {step:?}", self.id));
            match step {
                Step::Park(worker) => {
                    ctx.count("workers parked");
                    self.stop_feeding(worker, ctx);
                }
                Step::Ask(_) if ctx.is_mutated(Mutation::ParkedAreForgotten) => {}
                Step::Ask(worker) => {
                    ctx.count("parked workers asked");
                    self.ask(LinkId(worker.0), ctx);
                }
            }
        }
    }

    pub(super) fn stop_feeding(&mut self, worker: WorkerRef, ctx: &mut Context) {
        let partitions: Vec<_> = self.partitions.keys().copied().collect();
        for partition in partitions {
            self.with(partition, ctx, |source, now| source.worker_gone(worker, now));
        }
        self.look_at_credit(ctx);
    }

    pub(super) fn hold_catch_up(&mut self, partition: Partition, holds: bool, ctx: &mut Context) {
        ctx.note(|| format!("ingest {} p{partition} catch-up waits: {holds}", self.id));
        let broken = match ctx.mutation {
            Some(Mutation::CatchUpRunsAhead) => holds,
            Some(Mutation::CatchUpIsNotReadOn) => !holds,
            _ => false,
        };
        if holds {
            ctx.count("catch-up readings that waited");
        }
        if holds && ctx.is_mutated(Mutation::CatchUpHoldsTheSlowest) {
            self.partitions.values_mut().for_each(|reading| reading.catch_up_waits = true);
        }
        if !broken {
            self.set_catch_up_waits(partition, holds);
        }
    }

    pub(super) fn set_catch_up_waits(&mut self, partition: Partition, waits: bool) {
        if let Some(reading) = self.partitions.get_mut(&partition) {
            reading.catch_up_waits = waits;
        }
    }

    /// A lane waits while a worker that it feeds has no credit.
    pub(super) fn look_at_credit(&mut self, ctx: &Context) {
        let partitions = &self.partitions;
        let held = self.credit.held(|| feeding(partitions));
        if held.main != self.held.main {
            for reading in self.partitions.values_mut() {
                reading.source.set_held(held.main || reading.paused, Tick(ctx.now));
            }
        }
        self.held = held;
    }
}

fn feeding(partitions: &BTreeMap<Partition, Reading>) -> Feeding {
    Feeding::of(partitions.values().map(|reading| &reading.source))
}
