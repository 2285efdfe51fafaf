//! What became of the records of a transaction, and what follows for the transaction.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use rdkafka::producer::{DeliveryResult, ProducerContext};
use tidegate_core::time::Offset;

use super::OutputRecord;
use crate::client::{trace_error, trace_log};

/// What became of one record.
#[derive(Clone, Copy, Debug)]
pub(super) enum Delivery {
    Waiting,
    Done(Option<Offset>),
    Failed(RDKafkaErrorCode),
}

/// Why the records of a transaction are not all in the log.
#[derive(Debug)]
pub(super) enum Failure {
    /// One of them cannot be.
    Refused { index: usize, code: RDKafkaErrorCode },
    /// librdkafka dropped them unsent. It does so in the transaction that follows one of which a broker refused a batch: it
    /// leaves out the sequence numbers of that batch, which the broker takes for a loss, so that this one needs an abort and
    /// a new epoch; then all is well.
    Purged,
    /// Anything else.
    Failed { reason: String },
}

#[derive(Debug, Default)]
pub(super) struct Deliveries {
    pub(super) of: Vec<Delivery>,
    pub(super) waiting: usize,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Context {
    deliveries: Arc<Mutex<Deliveries>>,
}

impl Context {
    pub(super) fn deliveries(&self) -> MutexGuard<'_, Deliveries> {
        self.deliveries.lock().unwrap_or_else(PoisonError::into_inner)
    }
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
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        let delivery = match result {
            Ok(message) => Delivery::Done(u64::try_from(message.offset()).ok().map(Offset)),
            Err((error, _)) => Delivery::Failed(error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail)),
        };
        let mut deliveries = self.deliveries();
        if let Some(place @ Delivery::Waiting) = deliveries.of.get_mut(index) {
            *place = delivery;
            deliveries.waiting = deliveries.waiting.saturating_sub(1);
        }
    }
}

/// Why a transaction cannot be committed: a record that was refused, else the first that failed.
pub(super) fn failure(records: &[OutputRecord], deliveries: &[Delivery]) -> Failure {
    let failed = || {
        deliveries.iter().zip(records).enumerate().filter_map(|(index, (delivery, record))| match delivery {
            Delivery::Failed(code) => Some((index, *code, record)),
            Delivery::Done(_) | Delivery::Waiting => None,
        })
    };
    // A broker refuses a batch that is too large as a whole: it is the largest record of it that is.
    let too_large = failed()
        .filter(|(_, code, _)| *code == RDKafkaErrorCode::MessageSizeTooLarge)
        .max_by_key(|(_, _, record)| record.value.as_ref().map_or(0, Bytes::len));
    if let Some((index, code, _)) = too_large.or_else(|| failed().find(|(_, code, _)| is_refusal(*code))) {
        return Failure::Refused { index, code };
    }
    match failed().find(|(_, code, _)| *code != RDKafkaErrorCode::PurgeQueue) {
        Some((index, code, record)) => Failure::Failed {
            reason: format!(
                "record {index} for topic `{}` partition {}: {code}",
                record.topic, record.partition
            ),
        },
        None if failed().next().is_some() => Failure::Purged,
        None => Failure::Failed { reason: "not all records were delivered in time".to_owned() },
    }
}

/// Why a record cannot be written; the client writes none larger than `limit`, which it was given when it was opened.
pub(super) fn refusal(record: &OutputRecord, code: RDKafkaErrorCode, limit: u32) -> String {
    let size = [&record.key, &record.value].into_iter().flatten().map(Bytes::len).sum::<usize>();
    let limit = match code {
        RDKafkaErrorCode::MessageSizeTooLarge
        | RDKafkaErrorCode::MessageBatchTooLarge
        | RDKafkaErrorCode::InvalidMessageSize => {
            format!("; `max.message.bytes` was {limit} at the start: raise it and restart")
        }
        _ => String::new(),
    };
    format!(
        "topic `{}` partition {} refuses a record of {size} bytes: {code}{limit}",
        record.topic, record.partition
    )
}

/// Whether the record itself, or where it is to go, is at fault: the same commit would fail again.
pub(super) const fn is_refusal(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::MessageSizeTooLarge
            | Code::MessageBatchTooLarge
            | Code::InvalidMessageSize
            | Code::InvalidRecord
            | Code::InvalidTimestamp
            | Code::UnknownTopic
            | Code::UnknownPartition
            | Code::UnknownTopicOrPartition
            | Code::InvalidTopic
            | Code::TopicAuthorizationFailed
            | Code::PolicyViolation
    )
}

#[cfg(test)]
mod tests {
    use tidegate_core::time::Partition;

    use super::Delivery::{Done, Failed, Waiting};
    use super::*;

    /// Records with values of these sizes.
    fn records(sizes: &[usize]) -> Vec<OutputRecord> {
        let record = |size: &usize| OutputRecord {
            topic: Arc::from("results"),
            partition: Partition(3),
            key: None,
            value: Some(Bytes::from(vec![0; *size])),
            headers: Vec::new(),
            timestamp: None,
        };
        sizes.iter().map(record).collect()
    }

    #[test]
    fn the_largest_record_of_a_batch_that_is_too_large_is_refused() {
        let too_large = Failed(RDKafkaErrorCode::MessageSizeTooLarge);
        let found = failure(&records(&[9, 10, 900, 20]), &[Done(None), too_large, too_large, too_large]);
        assert!(matches!(found, Failure::Refused { index: 2, .. }), "{found:?}");
    }

    #[test]
    fn a_refusal_counts_before_what_it_brought_down() {
        let purged = Failed(RDKafkaErrorCode::PurgeQueue);
        let timed_out = Failed(RDKafkaErrorCode::MessageTimedOut);
        let unknown = Failed(RDKafkaErrorCode::UnknownTopicOrPartition);
        let found = failure(&records(&[1, 2, 3]), &[purged, timed_out, unknown]);
        let Failure::Refused { index: 2, code } = found else { panic!("{found:?}") };
        let reason = refusal(&records(&[3])[0], code, 1_000);
        assert!(reason.contains("`results` partition 3") && reason.contains("3 bytes"), "{reason}");
        assert!(!reason.contains("max.message.bytes"), "{reason}");
        let found = failure(&records(&[1, 2]), &[purged, timed_out]);
        assert!(matches!(&found, Failure::Failed { reason } if reason.starts_with("record 1")), "{found:?}");
    }

    #[test]
    fn only_records_dropped_unsent_call_for_another_attempt() {
        let purged = Failed(RDKafkaErrorCode::PurgeQueue);
        assert!(matches!(failure(&records(&[1, 2]), &[Done(None), purged]), Failure::Purged));
        assert!(matches!(failure(&records(&[1, 2]), &[Done(None), Waiting]), Failure::Failed { .. }));
    }
}
