//! What a fault does.

use crate::{
    context::{Event, Process, Role},
    scenario::FaultKind,
    world::World,
};

impl World {
    pub fn befall(&mut self, kind: FaultKind) {
        if self.ctx.now >= self.ctx.scenario.chaos_until {
            return;
        }
        let ingest = any(self.ingests.keys().copied().collect(), self);
        let worker = any(self.workers.keys().copied().collect(), self);
        let coordinator = any(self.coordinators.keys().copied().collect(), self);
        let span = self.ctx.dice.within(30, 1_500);
        self.ctx.count("faults");
        self.ctx.note(|| format!("fault {kind:?} for {span} ms"));
        match (kind, ingest, worker, coordinator) {
            (FaultKind::CrashIngest, Some(id), _, _) => {
                self.stop_ingest(id);
                let noticed = self.ctx.dice.within(0, 400);
                self.ctx.after(noticed, Event::Rebalance { recreated: false });
                self.ctx.after(span, Event::Start(Role::Ingest));
            }
            (FaultKind::AddIngest, ..) if self.ingests.len() < 3 => self.start(Role::Ingest),
            (FaultKind::CrashWorker, _, Some(id), _) => self.crash_worker(id, span),
            (FaultKind::CrashCoordinator, _, _, Some(id)) => {
                self.stop_coordinator(id);
                self.ctx.after(span, Event::Start(Role::Coordinator));
            }
            (FaultKind::SecondCoordinator, ..) => self.start(Role::Coordinator),
            (FaultKind::PauseIngest, Some(id), _, _) => {
                self.pause(Process::Ingest(id), span);
                if self.ctx.dice.chance(500) {
                    self.expel(id, span);
                }
            }
            (FaultKind::PauseWorker, _, Some(id), _) => self.pause(Process::Worker(id), span),
            (FaultKind::PauseCoordinator, _, _, Some(id)) => self.pause(Process::Coordinator(id), span),
            (FaultKind::SlowWorker, _, Some(id), _) => {
                let until = self.ctx.now + span;
                if let Some(worker) = self.workers.get_mut(&id) {
                    worker.slow_until = until.max(worker.slow_until);
                }
            }
            (FaultKind::CutLink, ..) => self.cut_link(span),
            (FaultKind::CutWorkerOff, _, Some(id), _) => self.cut_off(Process::Worker(id), span),
            (FaultKind::CutIngestOff, Some(id), _, _) => {
                self.cut_off(Process::Ingest(id), span);
                self.expel(id, span);
            }
            (FaultKind::Rebalance, ..) => self.group.rebalance(false, &mut self.ctx),
            (FaultKind::RecreateGroup, ..) => self.group.rebalance(true, &mut self.ctx),
            (FaultKind::AddWorker, ..) if self.workers.len() < 4 => {
                let name = format!("w{}", self.ctx.number());
                self.start(Role::Worker(name));
            }
            (FaultKind::DrainWorker, _, Some(id), _) => {
                if let Some(worker) = self.workers.get_mut(&id).filter(|worker| !worker.draining) {
                    worker.drain(&mut self.ctx);
                    let name = worker.name.clone();
                    self.ctx.after(span, Event::Start(Role::Worker(name)));
                }
            }
            _ => {}
        }
    }

    fn crash_worker(&mut self, id: u64, span: u64) {
        let Some(name) = self.workers.get(&id).map(|worker| worker.name.clone()) else { return };
        self.stop_worker(id);
        let damaged = self.ctx.faults.store_damaged;
        if self.ctx.dice.chance(damaged) {
            let lost = self.ctx.dice.chance(300);
            let incarnation = self.ctx.dice.bits();
            let ahead = self.ctx.dice.chance(500);
            let loses_chunk = self.ctx.dice.chance(300);
            let volume = self.abandoned(&name).map(std::mem::take).unwrap_or_default();
            let volume = volume.into_iter().filter(|_| !lost).map(|(shard, mut store)| {
                if loses_chunk {
                    store.lose_chunk();
                } else {
                    store.damage(incarnation, ahead);
                }
                (shard, store)
            });
            let volume = volume.collect();
            if let Some(abandoned) = self.abandoned(&name) {
                *abandoned = volume;
            }
        }
        if !self.workers.is_empty() && self.ctx.dice.chance(150) {
            return;
        }
        self.ctx.after(span, Event::Start(Role::Worker(name)));
    }

    fn pause(&mut self, process: Process, span: u64) {
        let until = self.ctx.now + span;
        let known = self.paused.entry(process).or_default();
        *known = until.max(*known);
    }

    /// The group goes on without the member, which goes on without the group.
    fn expel(&mut self, ingest: u64, span: u64) {
        self.group.expel(ingest, self.ctx.now + span);
        let noticed = self.ctx.dice.within(0, 200);
        self.ctx.after(noticed, Event::Rebalance { recreated: false });
        self.ctx.after(span, Event::Rebalance { recreated: false });
    }

    fn cut_link(&mut self, span: u64) {
        let links: Vec<_> = self.ctx.links.iter().map(|(id, link)| (*id, link.ends)).collect();
        if links.is_empty() {
            return;
        }
        let (link, [one, other]) = *self.ctx.dice.pick(&links);
        self.ctx.break_link(link);
        if self.ctx.dice.chance(400) {
            let until = self.ctx.now + span;
            self.ctx.cut.insert((one, other), until);
        }
    }

    /// The process does not reach the coordinator, and the coordinator not it; everything else it reaches.
    fn cut_off(&mut self, process: Process, span: u64) {
        let until = self.ctx.now + span;
        self.ctx.cut_off.insert(process, until);
        let to_coordinator = |ends: &[Process; 2]| {
            ends.contains(&process) && ends.iter().any(|end| matches!(end, Process::Coordinator(_)))
        };
        let links: Vec<_> =
            self.ctx.links.iter().filter(|(_, link)| to_coordinator(&link.ends)).map(|(id, _)| *id).collect();
        links.into_iter().for_each(|link| self.ctx.break_link(link));
    }
}

fn any(ids: Vec<u64>, world: &mut World) -> Option<u64> {
    if ids.is_empty() { None } else { Some(*world.ctx.dice.pick(&ids)) }
}
