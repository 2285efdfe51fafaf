//! One commit, one Kafka transaction.
//!
//! ```text
//!   commit(records):  begin ─▶ produce all ─▶ all delivered? ──yes──▶ end(commit) ─▶ Committed | Fenced | Unknown
//!                                                  └──────────no───▶ end(abort)  ─▶ Aborted | RecordRefused | Fenced | Unknown
//! ```
//!
//! The transaction opens here and never earlier. No outcome is inferred: once the commit was asked for, only the
//! coordinator's yes is [`Outcome::Committed`], and nothing is [`Outcome::Aborted`] any more.

mod delivery;

use std::borrow::Cow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _, PurgeConfig};
use tidegate_core::time::{EventTime, Offset, Partition};

use self::delivery::{Context, Deliveries, Delivery, Failure, failure, is_refusal, refusal};
use crate::admin::explained;
use crate::client::{Deadline, raw_partition};
use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::bell::Bell;
use crate::native::produce::{Plain, Topics};
use crate::producer::raw_headers;

/// How long one attempt to end a transaction waits; it is repeated.
const ATTEMPT: Duration = Duration::from_secs(5);
/// How often a transaction is made before its records count as not deliverable.
const ATTEMPTS: u32 = 3;
/// How long deliveries are awaited at a time.
const WAIT: Duration = Duration::from_millis(100);
/// Bytes of a request beside its records, at most.
const REQUEST_OVERHEAD: usize = 1_024;
/// Bytes of a record in a request beside key, value and headers, at most, as librdkafka counts.
const RECORD_OVERHEAD: usize = 40;
/// The same of a header.
const HEADER_OVERHEAD: usize = 10;

/// How transactions are made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionOptions {
    /// After this the coordinator aborts an open transaction by itself.
    pub transaction_timeout: Duration,
    /// How long a commit whose outcome is not known yet is repeated.
    pub commit_patience: Duration,
    /// `none`, `lz4`, `zstd`, `gzip` or `snappy`.
    pub compression: Cow<'static, str>,
    /// The largest record. Topics must allow at least as much (`max.message.bytes`).
    pub max_message_bytes: u32,
}

impl Default for TransactionOptions {
    fn default() -> Self {
        Self {
            transaction_timeout: Duration::from_secs(10),
            commit_patience: Duration::from_secs(15),
            compression: Cow::Borrowed("none"),
            max_message_bytes: 1_000_000,
        }
    }
}

/// A record to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputRecord {
    /// Its topic.
    pub topic: Arc<str>,
    /// Its partition.
    pub partition: Partition,
    /// Its key.
    pub key: Option<Bytes>,
    /// Its value; `None` is a tombstone.
    pub value: Option<Bytes>,
    /// Its headers.
    pub headers: Vec<Header>,
    /// Its timestamp, at least 1 (what is below is written as 1: the log knows no earlier time); without it the time of
    /// writing.
    pub timestamp: Option<EventTime>,
}

/// A header of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: Cow<'static, str>,
    /// Its value.
    pub value: Option<Bytes>,
}

impl OutputRecord {
    /// Bytes of key, value and headers.
    fn bytes(&self) -> usize {
        let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers = headers.map(|header| HEADER_OVERHEAD + header.name.len() + length(&header.value));
        length(&self.key) + length(&self.value) + headers.sum::<usize>()
    }
}

/// What became of a commit.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// All records are in the log and visible.
    Committed {
        /// Where each record lies, in the order given; `None` where the broker had taken it before and does not say.
        offsets: Vec<Option<Offset>>,
    },
    /// No record is or will be visible; the producer can go on.
    Aborted {
        /// Why.
        reason: String,
    },
    /// One record cannot be written, so none was: no record is or will be visible; the producer can go on.
    RecordRefused {
        /// Which record.
        index: usize,
        /// Why.
        reason: String,
    },
    /// Another producer has taken over, or the coordinator has timed the transaction out. This producer is of no more use.
    /// Whether *this* commit is visible is not said: the log tells.
    Fenced,
    /// Not known. This producer is of no more use: open and init another, and read the log.
    Unknown {
        /// What happened.
        reason: String,
    },
}

/// The producer of one transactional id. All its calls block: for `spawn_blocking`.
pub struct TransactionalProducer {
    id: Box<str>,
    config: KafkaConfig,
    options: TransactionOptions,
    /// These two before the client in the order of dropping.
    bell: Bell,
    topics: Topics,
    client: BaseProducer<Context>,
    context: Context,
}

impl TransactionalProducer {
    /// Opens a producer; nothing is fenced before [`init`](Self::init).
    ///
    /// # Errors
    ///
    /// When the client refuses its configuration.
    pub fn open(config: &KafkaConfig, transactional_id: &str, options: TransactionOptions) -> Result<Self> {
        let timeout = options.transaction_timeout.as_millis().to_string();
        let settings = config.producer(
            &[
                // Many of these live in one process. A request goes when its portion is whole: sooner, the client's thread
                // would spin until the rest may go (see `portion`). Few records wait for their partitions to join the
                // transaction in any case.
                ("linger.ms", "5"),
                ("queue.buffering.max.messages", "100000"),
                ("queue.buffering.max.kbytes", "65536"),
                // Its bytes are what bounds a request.
                ("batch.num.messages", "100000"),
                ("compression.type", &options.compression),
                ("message.max.bytes", &options.max_message_bytes.to_string()),
                // A topic that is not there is told within the transaction's time.
                ("topic.metadata.propagation.max.ms", "2000"),
                ("retry.backoff.ms", "20"),
                ("retry.backoff.max.ms", "200"),
            ],
            &[
                ("transactional.id", transactional_id),
                ("transaction.timeout.ms", &timeout),
                ("message.timeout.ms", &timeout),
            ],
        );
        let context = Context::default();
        let what = || format!("open the producer `{transactional_id}`");
        let client: BaseProducer<Context> =
            settings.create_with_context(context.clone()).map_err(|error| Error::client(what(), &error))?;
        let bell = Bell::of(client.client()).ok_or_else(|| Error::code(what(), RDKafkaErrorCode::Fail))?;
        let (id, config, topics) = (transactional_id.into(), config.clone(), Topics::default());
        Ok(Self { id, config, options, bell, topics, client, context })
    }

    /// The transactional id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Takes the transactional id over: fences every earlier producer of it and ends what it left open.
    ///
    /// # Errors
    ///
    /// When the coordinator does not answer within `timeout` (to be called again), or refuses.
    pub fn init(&mut self, timeout: Duration) -> Result<()> {
        let deadline = Deadline::after(timeout);
        loop {
            let error = match self.client.init_transactions(deadline.left().min(ATTEMPT)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.serve();
            match &error {
                KafkaError::Transaction(inner) if is_fencing(inner.code()) => {
                    return Err(Error::Fenced { transactional_id: self.id.to_string() });
                }
                KafkaError::Transaction(inner) if inner.is_retriable() && !deadline.has_passed() => {}
                _ => {
                    let what = format!("take over the transactional id `{}`", self.id);
                    return Err(explained(&self.config, Error::client(what, &error)));
                }
            }
        }
    }

    /// Writes the records as one transaction.
    pub fn commit(&mut self, records: &[OutputRecord]) -> Outcome {
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            if let Err(error) = self.client.begin_transaction() {
                return self.lost("the transaction did not begin", &error);
            }
            let failure = match self.deliver(records) {
                Ok(offsets) => return self.end(offsets),
                Err(failure) => failure,
            };
            let cause = self.cause();
            if let Err(outcome) = self.abort() {
                return outcome;
            }
            match failure {
                Failure::Refused { index, code } => {
                    let refused = records.get(index);
                    let reason = refused.map(|record| refusal(record, code, self.options.max_message_bytes));
                    return Outcome::RecordRefused { index, reason: reason.unwrap_or_default() };
                }
                Failure::Purged if attempts > 0 => {
                    tracing::debug!(transactional_id = %self.id, ?cause, "the transaction is made again");
                }
                Failure::Purged => {
                    let reason = cause.unwrap_or_else(|| "the client dropped the records".to_owned());
                    return Outcome::Aborted { reason };
                }
                Failure::Failed { reason } => {
                    let cause = cause.map(|cause| format!(" ({cause})")).unwrap_or_default();
                    return Outcome::Aborted { reason: format!("{reason}{cause}") };
                }
            }
        }
    }

    /// Writes the record within a transaction and aborts that: whether it could have been committed. No reader of committed
    /// records ever sees it.
    ///
    /// # Errors
    ///
    /// Why not.
    pub fn rehearse(&mut self, record: &OutputRecord) -> Result<(), String> {
        let records = std::slice::from_ref(record);
        let mut attempts = ATTEMPTS;
        loop {
            attempts -= 1;
            self.client.begin_transaction().map_err(|error| error.to_string())?;
            let delivered = self.deliver(records);
            let cause = self.cause();
            let aborted = self.abort();
            let reason = match (delivered, aborted) {
                (Ok(_), Ok(())) => return Ok(()),
                (Ok(_), Err(outcome)) => {
                    return Err(format!("the transaction could not be aborted: {outcome:?}"));
                }
                (Err(Failure::Purged), Ok(())) if attempts > 0 => continue,
                (Err(Failure::Purged), _) => "the client dropped the record".to_owned(),
                (Err(Failure::Refused { code, .. }), _) => code.to_string(),
                (Err(Failure::Failed { reason }), _) => reason,
            };
            return Err(cause.unwrap_or(reason));
        }
    }

    /// Why librdkafka wants the transaction aborted, if it does.
    fn cause(&self) -> Option<String> {
        match self.client.begin_transaction() {
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => Some(error.string()),
            _ => None,
        }
    }

    /// Produces the records and waits for all of them.
    fn deliver(&mut self, records: &[OutputRecord]) -> Result<Vec<Option<Offset>>, Failure> {
        *self.context.deliveries() = Deliveries { of: vec![Delivery::Waiting; records.len()], waiting: 0 };
        let deadline = Deadline::after(self.options.transaction_timeout);
        let mut from = 0;
        while from < records.len() {
            let rest = records.get(from..).unwrap_or_default();
            let portion = rest.get(..portion(rest, self.options.max_message_bytes)).unwrap_or(rest);
            // Before any is sent: deliveries may be reported while others are produced.
            self.context.deliveries().waiting = portion.len();
            for (at, record) in portion.iter().enumerate() {
                if let Err(failure) = self.produce(from + at, record, deadline) {
                    self.context.deliveries().waiting -= portion.len() - at;
                    return Err(failure);
                }
            }
            self.await_deliveries(deadline);
            let deliveries = self.context.deliveries();
            from += portion.len();
            let done = deliveries.of.get(..from).unwrap_or_default();
            if done.iter().any(|delivery| !matches!(delivery, Delivery::Done(_))) {
                return Err(failure(records, &deliveries.of));
            }
        }
        let deliveries = self.context.deliveries();
        let offset = |delivery: &Delivery| if let Delivery::Done(offset) = delivery { *offset } else { None };
        Ok(deliveries.of.iter().map(offset).collect())
    }

    fn produce(&mut self, index: usize, record: &OutputRecord, deadline: Deadline) -> Result<(), Failure> {
        loop {
            let Err(error) = self.send(index, record) else { return Ok(()) };
            if error == RDKafkaErrorCode::QueueFull && !deadline.has_passed() {
                self.serve();
                self.bell.wait(WAIT);
                continue;
            }
            return Err(if is_refusal(error) {
                Failure::Refused { index, code: error }
            } else {
                Failure::Failed { reason: format!("record {index} was not accepted: {error}") }
            });
        }
    }

    fn send(&mut self, index: usize, record: &OutputRecord) -> Result<(), RDKafkaErrorCode> {
        let (key, value) = (record.key.as_deref(), record.value.as_deref());
        let timestamp = record.timestamp.map(|time| time.millis().max(1));
        if record.headers.is_empty() {
            let timestamp = timestamp.unwrap_or(0);
            let plain = Plain { partition: record.partition, key, value, timestamp, number: index };
            return self.topics.produce(self.client.client(), &record.topic, plain);
        }
        let mut raw = BaseRecord::<[u8], [u8], usize>::with_opaque_to(&record.topic, index)
            .partition(raw_partition(record.partition));
        (raw.key, raw.payload, raw.timestamp) = (key, value, timestamp);
        raw.headers =
            raw_headers(record.headers.iter().map(|header| (&*header.name, header.value.as_deref())));
        self.client
            .send(raw)
            .map_err(|(error, _)| error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::InvalidArgument))
    }

    fn await_deliveries(&self, deadline: Deadline) {
        loop {
            self.serve();
            if self.context.deliveries().waiting == 0 || deadline.has_passed() {
                return;
            }
            self.bell.wait(deadline.left().min(WAIT));
        }
    }

    /// Hands out what has come: deliveries, complaints, log lines.
    fn serve(&self) {
        while self.bell.is_pending() {
            self.client.poll(Duration::ZERO);
        }
    }

    /// Asks for the commit until its outcome is known or patience ends.
    fn end(&self, offsets: Vec<Option<Offset>>) -> Outcome {
        let deadline = Deadline::after(self.options.commit_patience);
        loop {
            let error = match self.client.commit_transaction(deadline.left().min(ATTEMPT)) {
                Ok(()) => return Outcome::Committed { offsets },
                Err(error) => error,
            };
            self.serve();
            match &error {
                KafkaError::Transaction(inner) if inner.is_retriable() && !deadline.has_passed() => {
                    tracing::debug!(transactional_id = %self.id, %error, "the commit is asked for again");
                }
                _ => return self.lost("the commit was not answered", &error),
            }
        }
    }

    /// Ends the transaction so that nothing of it will be visible. The error is the outcome where that failed.
    fn abort(&self) -> Result<(), Outcome> {
        // What is on its way is awaited: an aborted producer must not have records in flight.
        self.client.purge(PurgeConfig::default().queue());
        self.await_deliveries(Deadline::after(ATTEMPT));
        if self.context.deliveries().waiting > 0 {
            self.client.purge(PurgeConfig::default().queue().inflight());
            self.await_deliveries(Deadline::after(ATTEMPT));
        }
        let deadline = Deadline::after(self.options.commit_patience);
        loop {
            let error = match self.client.abort_transaction(deadline.left().min(ATTEMPT)) {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            self.serve();
            match &error {
                KafkaError::Transaction(inner) if inner.is_retriable() && !deadline.has_passed() => {}
                _ => return Err(self.lost("the abort failed", &error)),
            }
        }
    }

    /// The outcome when the producer is of no more use.
    fn lost(&self, what: &str, error: &KafkaError) -> Outcome {
        let fatal = self.client.client().fatal_error().map(|(code, _)| code);
        if [error.rdkafka_error_code(), fatal].into_iter().flatten().any(is_fencing) {
            return Outcome::Fenced;
        }
        Outcome::Unknown { reason: format!("{what}: {error}") }
    }
}

/// How many of the records are produced before they are awaited: no more for one partition than a request takes.
///
/// An idempotent producer of librdkafka has one request for a partition under way, and its thread spins while more records than
/// that wait for the answer.
fn portion(records: &[OutputRecord], request_bytes: u32) -> usize {
    let limit = usize::try_from(request_bytes).unwrap_or(usize::MAX).saturating_sub(REQUEST_OVERHEAD);
    let (mut to, mut bytes) = (None, 0);
    for (at, record) in records.iter().enumerate() {
        let here = Some((&record.topic, record.partition));
        if to != here {
            (to, bytes) = (here, 0);
        }
        let before = bytes;
        bytes += RECORD_OVERHEAD + record.bytes();
        if bytes > limit && before > 0 {
            return at;
        }
    }
    records.len()
}

const fn is_fencing(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(code, Code::Fenced | Code::ProducerFenced | Code::InvalidProducerEpoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn records(of: &[(u32, usize)]) -> Vec<OutputRecord> {
        let record = |(partition, size): &(u32, usize)| OutputRecord {
            topic: "results".into(),
            partition: Partition(*partition),
            key: None,
            value: Some(vec![0; *size].into()),
            headers: Vec::new(),
            timestamp: None,
        };
        of.iter().map(record).collect()
    }

    #[test]
    fn a_portion_has_as_much_for_one_partition_as_a_request_takes() {
        assert_eq!(portion(&records(&[(0, 4_000); 20]), 100_000), 20);
        assert_eq!(portion(&records(&[(0, 4_000); 60]), 100_000), 24);
        let two = [vec![(0, 4_000); 20], vec![(1, 4_000); 20]].concat();
        assert_eq!(portion(&records(&two), 100_000), 40, "each partition has requests of its own");
    }

    #[test]
    fn a_record_larger_than_a_request_is_a_portion() {
        assert_eq!(portion(&records(&[(0, 200_000), (0, 1)]), 100_000), 1);
        assert_eq!(portion(&records(&[(0, 1), (0, 200_000)]), 100_000), 1);
        assert_eq!(portion(&[], 100_000), 0);
    }
}
