//! What the brokers' clocks say, by the times that they give to records of a `LogAppendTime` topic.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::KafkaError;
use rdkafka::message::{Message, Timestamp};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, ProducerContext};
use tidegate_core::time::Partition;

use crate::admin::explained;
use crate::client::{Deadline, raw_partition, trace_error, trace_log};
use crate::config::KafkaConfig;
use crate::error::{Error, Result};

/// Each partition is written to this often; the quickest answer counts.
const ATTEMPTS: u32 = 4;

/// When a record was written, by three readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AppendTime {
    /// The partition, and so the broker that leads it.
    pub partition: Partition,
    /// Our clock before it was sent.
    pub sent_ms: i64,
    /// The broker's clock.
    pub appended_ms: i64,
    /// Our clock when the answer was here.
    pub answered_ms: i64,
}

impl AppendTime {
    /// How far the broker's clock is ahead of ours at least, whatever part of the way took how long; 0 where both may agree.
    #[must_use]
    pub const fn ahead_ms(&self) -> i64 {
        if self.appended_ms > self.answered_ms {
            self.appended_ms.saturating_sub(self.answered_ms)
        } else if self.appended_ms < self.sent_ms {
            self.appended_ms.saturating_sub(self.sent_ms)
        } else {
            0
        }
    }
}

/// The time that the broker gave to a record, where it gave one.
type Delivered = Result<Option<i64>, KafkaError>;

#[derive(Clone, Debug, Default)]
struct Context {
    delivered: Arc<Mutex<Option<Delivered>>>,
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        trace_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trace_error(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let time = match result {
            Ok(message) => Ok(match message.timestamp() {
                Timestamp::LogAppendTime(time) => Some(time),
                Timestamp::CreateTime(_) | Timestamp::NotAvailable => None,
            }),
            Err((error, _)) => Err(error.clone()),
        };
        *self.delivered.lock().unwrap_or_else(PoisonError::into_inner) = Some(time);
    }
}

/// Writes to each partition of a topic with `message.timestamp.type=LogAppendTime`, and tells the times. `now_ms` is our clock.
///
/// # Errors
///
/// When a record is not written within `patience`, or the topic keeps the producer's times.
pub fn append_times(
    config: &KafkaConfig,
    topic: &str,
    partitions: u32,
    patience: Duration,
    now_ms: impl Fn() -> i64,
) -> Result<Vec<AppendTime>> {
    let what = format!("write to topic `{topic}`");
    let context = Context::default();
    let settings = config.producer(&[("linger.ms", "0")], &[]);
    let client: BaseProducer<Context> =
        settings.create_with_context(context.clone()).map_err(|error| Error::client(&what, &error))?;
    let mut times = Vec::new();
    for partition in (0..partitions).map(Partition) {
        let mut best: Option<AppendTime> = None;
        for _ in 0..ATTEMPTS {
            let sent_ms = now_ms();
            let record =
                BaseRecord::<[u8], [u8]>::to(topic).partition(raw_partition(partition)).payload(b"clock");
            client.send(record).map_err(|(error, _)| Error::client(&what, &error))?;
            let appended = await_delivery(&client, &context, patience)
                .ok_or_else(|| Error::TimedOut { what: what.clone(), waited: patience })?
                .map_err(|error| explained(config, Error::client(&what, &error)))?;
            let answered_ms = now_ms();
            let Some(appended_ms) = appended else {
                return Err(Error::TopicConfig {
                    topic: topic.to_owned(),
                    key: "message.timestamp.type",
                    found: "CreateTime".to_owned(),
                    wanted: "LogAppendTime",
                });
            };
            let time = AppendTime { partition, sent_ms, appended_ms, answered_ms };
            let took = |time: &AppendTime| time.answered_ms.saturating_sub(time.sent_ms);
            if best.as_ref().is_none_or(|best| took(&time) < took(best)) {
                best = Some(time);
            }
        }
        times.extend(best);
    }
    Ok(times)
}

fn await_delivery(
    client: &BaseProducer<Context>,
    context: &Context,
    patience: Duration,
) -> Option<Delivered> {
    let deadline = Deadline::after(patience);
    while !deadline.has_passed() {
        client.poll(Duration::from_millis(1));
        let delivered = context.delivered.lock().unwrap_or_else(PoisonError::into_inner).take();
        if delivered.is_some() {
            return delivered;
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_ahead_only_by_what_the_way_cannot_explain() {
        let ahead = |appended_ms| {
            AppendTime { partition: Partition(0), sent_ms: 100, appended_ms, answered_ms: 120 }.ahead_ms()
        };
        assert_eq!([ahead(100), ahead(110), ahead(120)], [0, 0, 0]);
        assert_eq!([ahead(1_120), ahead(-900)], [1_000, -1_000]);
    }
}
