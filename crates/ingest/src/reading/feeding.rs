//! Whether a lane may be read: workers without credit, pauses, schemas that are not known.

use tidegate_core::{
    credit::{Feeding, Step},
    lane::WorkerRef,
    time::Partition,
};

use super::Reading;

impl Reading {
    pub(super) fn drop_worker(&mut self, connection: WorkerRef) {
        if !self.outbox.worker_down(connection) {
            return;
        }
        self.stop_feeding(connection);
    }

    pub(super) fn stop_feeding(&mut self, connection: WorkerRef) {
        let now = self.now();
        for partition in self.read_here() {
            self.with(partition, |source| source.worker_gone(connection, now));
        }
        self.look_at_credit();
    }

    /// A lane waits while a worker that it feeds has no credit: the poll thread keeps the group membership meanwhile.
    pub(super) fn look_at_credit(&mut self) {
        let held = self.outbox.held(|| Feeding::of(self.partitions.values()));
        if held.main != self.held.main {
            self.held = held;
            let now = self.now();
            for partition in self.read_here() {
                let held = self.is_held(partition);
                if let Some(source) = self.partitions.get_mut(&partition) {
                    source.set_held(held, now);
                }
            }
        }
        self.held = held;
    }

    /// A worker that is connected and slow must not hold up the others: it is parked, and catches up when it can.
    pub(super) fn look_after_slow_workers(&mut self) {
        let now = self.now();
        for step in self.outbox.look(now, || Feeding::of(self.partitions.values())) {
            match step {
                Step::Park(connection) => {
                    let worker = self.outbox.name(connection);
                    tracing::warn!(worker, "a worker has no credit left, reading goes on without it");
                    self.metrics.demoted();
                    self.stop_feeding(connection);
                }
                Step::Ask(connection) => {
                    let worker = self.outbox.name(connection);
                    tracing::info!(worker, "a worker that had no credit takes frames again");
                    if !self.outbox.ask(connection, &self.read_here()) {
                        self.drop_worker(connection);
                    }
                }
            }
        }
    }

    pub(super) fn is_held(&self, partition: Partition) -> bool {
        let paused = self.paused.get(&partition).is_some_and(|paused| *paused);
        paused || self.held.main || self.waiting.main.is_some()
    }

    pub(super) fn tell_waiting(&mut self) {
        let waits = self.waiting.main.is_some() || self.waiting.catch_up.is_some();
        self.metrics.waits_for_schema(waits);
        self.tell_readiness();
        let now = self.now();
        for partition in self.read_here() {
            let held = self.is_held(partition);
            if let Some(source) = self.partitions.get_mut(&partition) {
                source.set_held(held, now);
            }
        }
    }
}
