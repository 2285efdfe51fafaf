//! A plain idempotent producer, for input that is generated or read from a file: fast, in order, no transactions.

use std::borrow::Cow;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header as RawHeader, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext};
use tidegate_core::time::{EventTime, Partition};

use crate::client::{Deadline, LastComplaint, raw_partition, trace_error, trace_log};
use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::bell::Bell;

/// How long the oldest record may wait in a full queue before `send` gives up.
const QUEUE_PATIENCE: Duration = Duration::from_secs(120);
/// How long deliveries are awaited at a time.
const WAIT: Duration = Duration::from_millis(100);
/// After how many records the delivery reports are looked at.
const POLL_EVERY: u32 = 512;

/// Keeps the first record that could not be delivered.
#[derive(Clone, Debug, Default)]
pub(crate) struct QuietContext {
    pub(crate) complaint: LastComplaint,
    failed: Arc<Mutex<Option<KafkaError>>>,
}

impl ClientContext for QuietContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.complaint.hear_log(facility, message);
        trace_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaint.hear_error(&error, reason);
        trace_error(&error, reason);
    }
}

impl ProducerContext for QuietContext {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            self.failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(|| error.clone());
        }
    }
}

/// Sends records to topics, keeping their order within a partition.
pub struct Producer {
    /// Before the client in the order of dropping.
    bell: Bell,
    client: BaseProducer<QuietContext>,
    context: QuietContext,
    since_poll: u32,
}

impl Producer {
    /// Opens a producer.
    ///
    /// # Errors
    ///
    /// When the client refuses its configuration.
    pub fn open(config: &KafkaConfig) -> Result<Self> {
        let settings = config.producer(
            &[
                ("linger.ms", "5"),
                ("queue.buffering.max.messages", "500000"),
                ("queue.buffering.max.kbytes", "131072"),
                ("batch.num.messages", "20000"),
            ],
            &[("enable.idempotence", "true")],
        );
        let context = QuietContext::default();
        let what = "open a producer";
        let client: BaseProducer<QuietContext> =
            settings.create_with_context(context.clone()).map_err(|error| Error::client(what, &error))?;
        let bell = Bell::of(client.client()).ok_or_else(|| Error::code(what, RDKafkaErrorCode::Fail))?;
        Ok(Self { bell, client, context, since_poll: 0 })
    }

    /// Queues a record; waits while the queue is full.
    ///
    /// # Errors
    ///
    /// When this record is refused, or one before it could not be delivered.
    pub fn send(
        &mut self,
        topic: &str,
        partition: Partition,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&str, Option<&[u8]>)],
        timestamp: Option<EventTime>,
    ) -> Result<()> {
        self.since_poll += 1;
        if self.since_poll >= POLL_EVERY {
            self.since_poll = 0;
            self.serve()?;
        }
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(raw_partition(partition));
        record.key = key;
        record.payload = value;
        record.timestamp = timestamp.map(EventTime::millis);
        record.headers = raw_headers(headers.iter().copied());
        let deadline = Deadline::after(QUEUE_PATIENCE);
        loop {
            record = match self.client.send(record) {
                Ok(()) => return Ok(()),
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), refused))
                    if !deadline.has_passed() =>
                {
                    refused
                }
                Err((error, _)) => {
                    return Err(Error::client(
                        format!("send to topic `{topic}` partition {partition}"),
                        &error,
                    ));
                }
            };
            self.bell.wait(WAIT);
            self.serve()?;
        }
    }

    /// Waits until every record sent so far is in the log.
    ///
    /// # Errors
    ///
    /// When one of them could not be delivered, or not all are within `timeout`.
    pub fn flush(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        while self.client.in_flight_count() > 0 {
            self.bell.wait(WAIT);
            self.serve()?;
            if deadline.has_passed() {
                let what = format!("deliver the last {} records", self.client.in_flight_count());
                return Err(Error::TimedOut { what, waited: timeout });
            }
        }
        self.serve()
    }

    /// Hands out what has come; fails with the first record that could not be delivered.
    fn serve(&self) -> Result<()> {
        while self.bell.is_pending() {
            self.client.poll(Duration::ZERO);
        }
        match &*self.context.failed.lock().unwrap_or_else(PoisonError::into_inner) {
            None => Ok(()),
            Some(error) => Err(Error::client("deliver a record", error)),
        }
    }
}

/// Headers as librdkafka wants them; `None` for none.
pub(crate) fn raw_headers<'a, N: Into<Cow<'a, str>>>(
    headers: impl ExactSizeIterator<Item = (N, Option<&'a [u8]>)>,
) -> Option<OwnedHeaders> {
    if headers.len() == 0 {
        return None;
    }
    let raw = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.fold(raw, |raw, (key, value)| raw.insert(RawHeader { key: &key.into(), value })))
}
