//! What is looked at every few seconds: how many partitions the source has, whether it is still the same topic, and whether
//! this coordinator still leads. Another topic under the name of the source ends this coordinator.

use std::time::Duration;

use tidegate_core::announcement::Term;
use tidegate_core::time::Offset;
use tidegate_job::Job;
use tidegate_kafka::{Admin, Error as KafkaError, KafkaConfig};
use tokio::sync::mpsc;

use crate::control::Control;
use crate::error::{Error, Result};
use crate::event::Event;
use crate::job_record::JobRecord;
use crate::metrics::Metrics;
use crate::topics::blocking;

const INTERVAL: Duration = Duration::from_secs(5);
/// So many looks in a row have to miss the source: a broker that has just started may not know it yet.
const MISSES: u32 = 2;
/// An open transaction is waited out until the next look.
const PATIENCE: Duration = Duration::from_secs(1);

/// Looks.
pub(crate) struct Watch {
    pub(crate) admin: Admin,
    pub(crate) kafka: KafkaConfig,
    pub(crate) job: Job,
    pub(crate) record: JobRecord,
    pub(crate) term: Term,
    pub(crate) events: mpsc::Sender<Event>,
    pub(crate) metrics: Metrics,
}

impl Watch {
    /// Looks for ever; ends when there is no more use in it.
    pub(crate) async fn run(self) -> Error {
        // The end of the control topic at the last look.
        let mut read_to = None;
        let mut misses = 0;
        let mut interval = tokio::time::interval(INTERVAL);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            match self.partitions().await {
                Ok(partitions) => {
                    misses = 0;
                    if self.events.send(Event::Partitions(partitions)).await.is_err() {
                        return Error::Task("owner");
                    }
                }
                Err(error) => {
                    self.metrics.source_errors.inc();
                    match error {
                        Error::SourceRecreated { .. } => return error,
                        Error::SourceDeleted { .. } if misses + 1 == MISSES => return error,
                        Error::SourceDeleted { .. } => misses += 1,
                        _ => {
                            tracing::warn!(%error, "cannot refresh the partitions of the source; trying again")
                        }
                    }
                }
            }
            match self.leads(&mut read_to).await {
                Ok(()) => {}
                Err(error @ Error::Deposed { .. }) => return error,
                Err(error) => tracing::warn!(%error, "cannot look at the control topic; trying again"),
            }
        }
    }

    async fn partitions(&self) -> Result<u32> {
        let found = self.admin.topic(&self.record.source).await?;
        self.record.same_source(found.as_ref())?;
        Ok(found.map_or(0, |found| found.partitions))
    }

    /// Reads the control topic when something has come: a later leader record deposes this coordinator.
    async fn leads(&self, read_to: &mut Option<Offset>) -> Result<()> {
        let topic = self.job.control_topic();
        let end = self.admin.ends(&topic).await?.first().map(|ends| ends.high_watermark);
        if end == *read_to {
            return Ok(());
        }
        let kafka = self.kafka.clone();
        let control = match blocking("watch", move || Control::read(&kafka, &topic, PATIENCE)).await {
            Ok(control) => control,
            Err(Error::Kafka(KafkaError::OpenTransaction { .. })) => return Ok(()),
            Err(error) => return Err(error),
        };
        match control.leader {
            Some((term, _)) if term > self.term => {
                Err(Error::Deposed { job: self.job.name.clone(), by: Some(term) })
            }
            _ => {
                *read_to = end;
                Ok(())
            }
        }
    }
}
