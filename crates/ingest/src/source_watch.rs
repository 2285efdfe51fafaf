//! Whether the source is still the topic that the job began with: the positions mean nothing in another one of the same name.
//!
//! Looked at before this ingest joins the group, and once a second while it reads. What was read from another topic within
//! that second is at most what lies beyond the positions there; below them, reading fails by itself.

use std::{fmt::Write, time::Duration};

use tidegate_core::time::{Offset, Partition};
use tidegate_kafka::{Admin, PartitionEnds, TopicId};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use crate::{error::Error, event::Event};

const INTERVAL: Duration = Duration::from_secs(1);
/// So many looks in a row have to miss the topic: a broker that has just started may not know it yet.
const MISSES: u32 = 3;

/// How the source is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Changed {
    /// There is no topic of the name.
    Deleted,
    /// There is another topic of the name.
    Recreated {
        /// The id that the job record names.
        recorded: TopicId,
        /// The id of the topic that is there.
        found: TopicId,
        /// What it holds, where the brokers say.
        ends: Vec<PartitionEnds>,
    },
}

impl Changed {
    /// The error that ends this ingest, which had read up to `positions`.
    pub(crate) fn error(self, topic: &str, positions: &[(Partition, Offset)]) -> Error {
        let topic = topic.to_owned();
        match self {
            Self::Deleted => Error::SourceDeleted { topic, positions: places(positions, &[]) },
            Self::Recreated { recorded, found, ends } => Error::SourceRecreated {
                topic,
                recorded: format!("{:032x}", recorded.0),
                found: format!("{:032x}", found.0),
                positions: places(positions, &ends),
            },
        }
    }
}

/// `; partition 0: position 12, the log holds 0 to 3` for each.
fn places(positions: &[(Partition, Offset)], ends: &[PartitionEnds]) -> String {
    let mut text = String::new();
    for (partition, position) in positions {
        // Writing to a String cannot fail.
        let _ = write!(text, "; partition {partition}: position {position}");
        if let Some(ends) = ends.iter().find(|ends| ends.partition == *partition) {
            let _ = write!(text, ", the log holds {} to {}", ends.log_start, ends.high_watermark);
        }
    }
    text
}

/// Looks at the source topic.
pub(crate) struct SourceWatch {
    admin: Admin,
    topic: String,
    /// As of the job record; `None` where the brokers knew no ids then.
    recorded: Option<TopicId>,
}

impl SourceWatch {
    pub(crate) const fn new(admin: Admin, topic: String, recorded: Option<TopicId>) -> Self {
        Self { admin, topic, recorded }
    }

    /// Looks once; brokers that do not answer are no change.
    ///
    /// # Errors
    /// How it has changed.
    pub(crate) async fn look(&self) -> Result<(), Changed> {
        let found = match self.admin.topic(&self.topic).await {
            Ok(found) => found.ok_or(Changed::Deleted)?,
            Err(error) => {
                tracing::debug!(%error, "cannot look at the source topic; trying again");
                return Ok(());
            }
        };
        match (self.recorded, found.id) {
            (Some(recorded), Some(found)) if recorded != found => {
                let ends = self.admin.ends(&self.topic).await.unwrap_or_default();
                Err(Changed::Recreated { recorded, found, ends })
            }
            _ => Ok(()),
        }
    }

    /// Looks until the topic has changed or nobody listens.
    pub(crate) async fn run(self, events: mpsc::Sender<Event>) {
        let mut interval = interval(INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut misses = 0;
        while !events.is_closed() {
            interval.tick().await;
            match self.look().await {
                Ok(()) => misses = 0,
                Err(Changed::Deleted) if misses + 1 < MISSES => misses += 1,
                Err(changed) => {
                    let _ = events.send(Event::SourceChanged(changed)).await;
                    return;
                }
            }
        }
    }
}
