//! The partitions that the group gives and takes.

use std::sync::Arc;

use tidegate_core::{
    announcement::ReaderEpoch,
    frame::SessionId,
    source::{LaneKind, SourcePartition},
    time::{Offset, Partition},
};

use super::{Reading, Waiting};
use crate::error::Error;

impl Reading {
    pub(super) fn on_assigned(&mut self, partitions: &[Partition], generation: u32) {
        tracing::info!(?partitions, generation, "the group assigned partitions");
        let now = self.now();
        let epoch = ReaderEpoch(u64::from(generation));
        for source in self.partitions.values_mut() {
            source.set_epoch(epoch);
        }
        for partition in partitions {
            self.starting.retain(|(other, _), _| other != partition);
            let core = Arc::new(self.job.core.clone());
            self.readings += 1;
            let mut source = SourcePartition::new(core, *partition, epoch, self.timing, now)
                .with_sessions_behind(SessionId(self.readings << 32));
            if let Some(announced) = &self.announced {
                source.announce(announced);
            }
            self.partitions.insert(*partition, source);
        }
        if !partitions.is_empty() {
            self.ask();
        }
        self.is_member = true;
        self.tell_readiness();
    }

    pub(super) fn leave_all(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.leave(*partition);
        }
        self.ask();
    }

    pub(super) fn leave(&mut self, partition: Partition) {
        tracing::info!(partition = partition.0, "the group took a partition away");
        self.partitions.remove(&partition);
        self.paused.remove(&partition);
        self.catch_up_waits.remove(&partition);
        self.outbox.forget(partition);
        self.metrics.forget(partition);
        self.ahead.forget(partition);
        self.timestamps.forget(partition);
        self.catch_up.unassign(partition);
    }

    /// The clients are of no use any more: new ones join the group and begin where the shards are.
    pub(super) fn replace_readers(&mut self, partition: Partition, offset: Offset) -> Result<(), Error> {
        tracing::warn!(
            partition = partition.0,
            offset = offset.0,
            "the Kafka client reads nothing although records wait: it is replaced"
        );
        self.metrics.replaced_client();
        (self.main, self.catch_up) = self.readers.open()?;
        self.starting.clear();
        self.waiting = Waiting::default();
        self.is_member = false;
        self.leave_all(&self.read_here());
        self.tell_waiting();
        Ok(())
    }

    /// The lanes that are to move where there are records for them, and their positions.
    pub(super) fn moving(&self) -> Vec<(Partition, LaneKind, Offset)> {
        let catch_up_rests = self.held.catch_up || self.waiting.catch_up.is_some();
        let lanes = self.partitions.iter().flat_map(|(partition, source)| {
            let main = source.main().filter(|_| !self.is_held(*partition));
            let waits = catch_up_rests || self.catch_up_waits.contains(partition);
            let catch_up = source.catch_up().filter(|_| !waits);
            let of = |kind, position| (*partition, kind, position);
            main.map(|lane| of(LaneKind::Main, lane.position()))
                .into_iter()
                .chain(catch_up.map(|lane| of(LaneKind::CatchUp, lane.position())))
        });
        lanes.collect()
    }

    /// How far each partition is read.
    pub(super) fn positions(&self) -> Vec<(Partition, Offset)> {
        let read = self.partitions.iter();
        read.filter_map(|(partition, source)| Some((*partition, source.main()?.position()))).collect()
    }
}
