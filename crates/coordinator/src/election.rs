//! Which of several coordinators of a job is to lead: the member of the consumer group `<job>-coordinator` that has the only
//! partition of the control topic.
//!
//! ```text
//! Joining ──assigned nothing──► Standby ──assigned──► Elected ──revoked, lost──► Standby
//!    └──────────assigned──────────────────────────────►┘
//! ```
//!
//! It says only *when* to write a leader record; who leads is decided by the record and its transactional id. The assignor is
//! sticky: who has the partition keeps it when another joins. A candidate that has left or died is replaced at once, or after
//! the session timeout; one that is cut off from the brokers for that long takes itself for replaced.

use std::time::Duration;

use tidegate_kafka::{GroupReader, KafkaConfig, ReaderEvent, ReaderOptions};
use tidegate_runtime::task;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::control::PARTITION;
use crate::error::{Error, Result};

/// How long leaving the group may take.
const LEAVE: Duration = Duration::from_secs(3);

/// Where the candidates of a job meet.
#[derive(Clone, Debug)]
pub(crate) struct Election {
    kafka: KafkaConfig,
    topic: String,
    group: String,
}

/// How a candidate stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Not a member of the group yet.
    Joining,
    /// Another has the partition, or nobody yet.
    Standby,
    /// This one has it.
    Elected,
}

/// A candidate. Dropping it leaves the group, without waiting.
#[derive(Debug)]
pub(crate) struct Candidacy {
    standing: watch::Receiver<Standing>,
    follower: JoinHandle<()>,
    leave: DropGuard,
}

impl Election {
    /// The election of `job`; a member that is not heard for `session_timeout` is replaced.
    pub(crate) fn of(job: &tidegate_job::Job, kafka: &KafkaConfig, session_timeout: Duration) -> Self {
        let mut kafka = kafka.clone();
        let timeout = session_timeout.as_millis().to_string();
        kafka.extra.entry("session.timeout.ms".to_owned()).or_insert(timeout);
        Self { kafka, topic: job.control_topic(), group: job.coordinator_group() }
    }

    /// Becomes a candidate.
    pub(crate) fn stand(&self) -> Result<Candidacy> {
        let reader = GroupReader::join(&self.kafka, &self.topic, &self.group, ReaderOptions::default())?;
        let (told, standing) = watch::channel(Standing::Joining);
        let left = CancellationToken::new();
        let follower = task::spawn("election", follow(reader, told, left.clone()));
        Ok(Candidacy { standing, follower, leave: left.drop_guard() })
    }
}

impl Candidacy {
    /// Ready once the standing is another than `known`. Cancel safe.
    pub(crate) async fn changed(&mut self, known: Standing) -> Result<Standing> {
        let standing = self.standing.wait_for(|standing| *standing != known).await;
        standing.map(|standing| *standing).map_err(|_| Error::Task("election"))
    }

    /// Leaves the group, so that another is elected at once.
    pub(crate) async fn leave(self) {
        drop(self.leave);
        if tokio::time::timeout(LEAVE, self.follower).await.is_err() {
            tracing::warn!(
                "could not tell the brokers of leaving; a standby takes over after the session timeout"
            );
        }
    }
}

async fn follow(mut reader: GroupReader, standing: watch::Sender<Standing>, left: CancellationToken) {
    loop {
        let event = tokio::select! {
            () = left.cancelled() => break,
            event = reader.next() => event,
        };
        let Some(event) = event else { return };
        if let ReaderEvent::Failed(error) = &event {
            tracing::warn!(%error, "the election goes on with an error");
        }
        standing.send_if_modified(|standing| {
            let after = standing.after(&event);
            std::mem::replace(standing, after) != after
        });
    }
    reader.close().await;
}

impl Standing {
    /// The standing after an event of the group.
    fn after(self, event: &ReaderEvent) -> Self {
        match event {
            ReaderEvent::Assigned { partitions, .. } if partitions.contains(&PARTITION) => Self::Elected,
            // Nothing more than before.
            ReaderEvent::Assigned { .. } => match self {
                Self::Joining | Self::Standby => Self::Standby,
                Self::Elected => Self::Elected,
            },
            ReaderEvent::Revoked { partitions } | ReaderEvent::Lost { partitions }
                if partitions.contains(&PARTITION) =>
            {
                Self::Standby
            }
            ReaderEvent::Revoked { .. }
            | ReaderEvent::Lost { .. }
            | ReaderEvent::Batch(_)
            | ReaderEvent::EndOfPartition { .. }
            | ReaderEvent::Started { .. }
            | ReaderEvent::Failed(_) => self,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(partitions: &[tidegate_core::time::Partition]) -> ReaderEvent {
        ReaderEvent::Assigned { partitions: partitions.to_vec(), generation: 1 }
    }

    #[test]
    fn who_has_the_partition_is_elected_until_it_goes() {
        assert_eq!(Standing::Joining.after(&assigned(&[])), Standing::Standby);
        assert_eq!(Standing::Joining.after(&assigned(&[PARTITION])), Standing::Elected);
        assert_eq!(Standing::Standby.after(&assigned(&[PARTITION])), Standing::Elected);
        let gone = vec![PARTITION];
        let revoked = ReaderEvent::Revoked { partitions: gone.clone() };
        assert_eq!(Standing::Elected.after(&revoked), Standing::Standby);
        assert_eq!(Standing::Elected.after(&ReaderEvent::Lost { partitions: gone }), Standing::Standby);
    }

    #[test]
    fn a_rebalance_that_gives_nothing_more_leaves_the_elected_where_it_is() {
        assert_eq!(Standing::Elected.after(&assigned(&[])), Standing::Elected);
        let nothing = ReaderEvent::Revoked { partitions: vec![] };
        assert_eq!(Standing::Elected.after(&nothing), Standing::Elected);
        assert_eq!(Standing::Standby.after(&nothing), Standing::Standby);
        let closed = tidegate_kafka::Error::Closed { topic: "t".to_owned() };
        assert_eq!(Standing::Elected.after(&ReaderEvent::Failed(closed)), Standing::Elected);
    }
}
