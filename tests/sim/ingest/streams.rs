//! Streams to the workers, and what is sent on them and to the coordinator.

use tidegate_core::{frame::Frame, lane::WorkerRef};

use super::Ingest;
use crate::context::{Context, LinkId, Message, Process};

#[derive(Debug)]
pub(super) struct Connection {
    pub(super) process: u64,
    pub(super) frames: Vec<Frame>,
}

impl Ingest {
    /// A stream to every worker that owns a shard, none to others.
    pub(super) fn connect_workers(&mut self, ctx: &mut Context) {
        let Some(owners) = &self.owners else { return };
        let named: Vec<u64> =
            owners.owners.values().map(|owner| owner.address.parse().expect("a number")).collect();
        let idle: Vec<_> =
            self.workers.iter().filter(|(_, c)| !named.contains(&c.process)).map(|(link, _)| *link).collect();
        for link in idle {
            self.drop_worker(link, ctx);
        }
        for process in named {
            let known = self.workers.values().any(|connection| connection.process == process);
            if let Some(link) =
                (!known).then(|| ctx.connect(self.process(), Process::Worker(process))).flatten()
            {
                self.workers.insert(link, Connection { process, frames: Vec::new() });
                self.credit.up(WorkerRef(link.0));
                self.ask(link, ctx);
            }
        }
    }

    pub(super) fn ask(&self, link: LinkId, ctx: &mut Context) {
        ctx.send(link, self.process(), Message::Ask(self.partitions.keys().copied().collect()));
    }

    pub(super) fn ask_all(&self, ctx: &mut Context) {
        for link in self.workers.keys().filter(|link| !self.credit.is_parked(WorkerRef(link.0))) {
            self.ask(*link, ctx);
        }
    }

    pub(super) fn flush(&mut self, ctx: &mut Context) {
        let links: Vec<_> = self.workers.keys().copied().collect();
        links.into_iter().for_each(|link| self.flush_worker(link, ctx));
        if let Some(link) = self.coordinator.filter(|_| !self.reports.is_empty()) {
            let reports = std::mem::take(&mut self.reports).into_values().collect();
            ctx.send(link, self.process(), Message::Reports(reports));
        }
    }

    pub(super) fn flush_worker(&mut self, link: LinkId, ctx: &mut Context) {
        let process = self.process();
        if let Some(connection) =
            self.workers.get_mut(&link).filter(|connection| !connection.frames.is_empty())
        {
            ctx.send(link, process, Message::Frames(std::mem::take(&mut connection.frames)));
        }
    }

    pub(super) fn drop_worker(&mut self, link: LinkId, ctx: &mut Context) {
        if self.workers.remove(&link).is_none() {
            return;
        }
        self.credit.down(WorkerRef(link.0));
        ctx.close(link, self.process());
        self.stop_feeding(WorkerRef(link.0), ctx);
    }
}
