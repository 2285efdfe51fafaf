//! What the coordinator says: announcements, owners of shards, pauses.

use tidegate_core::{
    announcement::{Announcement, AssignmentId},
    time::{EventTime, Offset, Partition, Shard},
};
use tidegate_proto::v1;

use super::Reading;
use crate::error::Error;

impl Reading {
    /// Records flow on with the last owners known; pauses were of the stream that is gone.
    pub(super) fn on_coordinator_down(&mut self) {
        self.outbox.set_coordinator(None);
        self.replayer.stop();
        self.tell_readiness();
        let paused: Vec<_> = self.paused.iter().filter(|(_, paused)| **paused).map(|(p, _)| *p).collect();
        for partition in paused {
            self.set_paused(partition, false);
        }
    }

    pub(super) fn on_directive(&mut self, directive: v1::ingest_directive::Message) -> Result<(), Error> {
        use v1::ingest_directive::Message;
        match directive {
            Message::Welcome(_) => {}
            Message::Announcement(announcement) => {
                let announcement = Announcement::from(announcement);
                if self.announced.as_ref().is_none_or(|known| announcement.newer_than(known)) {
                    for source in self.partitions.values_mut() {
                        source.announce(&announcement);
                    }
                    self.announced = Some(announcement);
                }
            }
            Message::Owners(owners) => {
                if let Some(job) = self.job_id {
                    self.links.set_owners(job, &owners)?;
                    self.replayer.set_owners(job, &owners);
                }
                self.on_owners(&owners);
            }
            Message::Replay(order) => {
                if let Some(reports) = self.outbox.coordinator() {
                    self.replayer.order(order, reports.clone());
                }
            }
            Message::StopReplay(number) => self.replayer.cancel(number),
            Message::Raises(raises) => {
                for raise in raises.raises {
                    if let Some(source) = self.partitions.get_mut(&Partition(raise.partition)) {
                        source.raise(Offset(raise.at), EventTime(raise.to_ms));
                    }
                }
            }
            Message::Pauses(pauses) => {
                for pause in pauses.pauses {
                    self.set_paused(Partition(pause.partition), pause.paused);
                }
            }
        }
        Ok(())
    }

    /// Where a later coordinator has put an earlier assignment in force again, what its worker wanted was ignored: ask anew.
    pub(super) fn on_owners(&mut self, owners: &v1::Owners) {
        let assignments: Vec<(Shard, AssignmentId)> = owners
            .owners
            .iter()
            .filter_map(|owner| Some((Shard(owner.shard), owner.assignment?.into())))
            .collect();
        let mut lowered = false;
        for source in self.partitions.values_mut() {
            lowered |= source.owned(self.term, &assignments);
        }
        if lowered {
            self.ask();
        }
    }

    pub(super) fn set_paused(&mut self, partition: Partition, paused: bool) {
        tracing::debug!(partition = partition.0, paused, "alignment");
        self.paused.insert(partition, paused);
        if paused {
            self.main.control().pause(partition);
        } else {
            self.main.control().resume(partition);
        }
        let (now, held) = (self.now(), self.is_held(partition));
        if let Some(source) = self.partitions.get_mut(&partition) {
            source.set_held(held, now);
        }
    }
}
