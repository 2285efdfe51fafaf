//! What a [`SourcePartition`](tidegate_core::source::SourcePartition) asks for, done.

use tidegate_core::{
    source::{Effect, LaneKind},
    time::{Offset, Partition},
};

use super::Reading;
use crate::event::Event;

impl Reading {
    pub(super) fn perform(&mut self, partition: Partition, effects: Vec<Effect>) {
        let mut slow = Vec::new();
        for effect in effects {
            match effect {
                Effect::Start(kind, offset) => self.start(kind, partition, offset),
                Effect::Stop(LaneKind::Main) => self.main.control().stop(partition),
                Effect::Stop(LaneKind::CatchUp) => {
                    self.catch_up_waits.remove(&partition);
                    self.catch_up.unassign(partition);
                }
                Effect::HoldCatchUp(holds) => self.hold_catch_up(partition, holds),
                Effect::ProveEnd => self.prove_end(partition),
                Effect::Open(connection, opening) => {
                    if !self.outbox.open(connection, &opening) {
                        slow.push(connection);
                    }
                }
                Effect::Frame(connection, frame) => self.outbox.frame(connection, frame, self.now()),
                Effect::Report(report) => self.outbox.report(report),
            }
        }
        for connection in slow {
            self.drop_worker(connection);
        }
        self.look_at_credit();
    }

    pub(super) fn start(&mut self, kind: LaneKind, partition: Partition, offset: Offset) {
        tracing::info!(partition = partition.0, offset = offset.0, ?kind, "reading from here");
        *self.starting.entry((partition, kind == LaneKind::Main)).or_default() += 1;
        match kind {
            LaneKind::Main => {
                self.main.control().start(partition, offset);
                if self.paused.get(&partition).is_some_and(|paused| *paused) {
                    self.main.control().pause(partition);
                }
            }
            LaneKind::CatchUp => {
                self.catch_up_waits.remove(&partition);
                self.catch_up.assign(partition, offset);
            }
        }
    }

    pub(super) fn hold_catch_up(&mut self, partition: Partition, holds: bool) {
        tracing::debug!(partition = partition.0, holds, "alignment of what catches up");
        let control = self.catch_up.control();
        if holds {
            self.catch_up_waits.insert(partition);
            control.pause(partition);
        } else {
            self.catch_up_waits.remove(&partition);
            control.resume(partition);
        }
    }

    pub(super) fn prove_end(&self, partition: Partition) {
        let (control, events) = (self.main.control().clone(), self.to_self.clone());
        tidegate_runtime::task::spawn("prove-end", async move {
            let ends = match control.end_of(partition).await {
                Ok(ends) => Some(ends),
                Err(error) => {
                    tracing::debug!(partition = partition.0, %error, "the broker does not say where the partition ends");
                    None
                }
            };
            let _ = events.send(Event::End { partition, ends }).await;
        });
    }

    pub(super) fn on_end_of(&mut self, partition: Partition, ends: Option<tidegate_kafka::PartitionEnds>) {
        let now = self.now();
        if let (Some(source), Some(ends)) = (self.partitions.get_mut(&partition), ends) {
            source.end_proven(ends.last_stable, ends.high_watermark, now);
        }
    }
}
