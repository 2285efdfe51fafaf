//! What all clients share: their logs go to `tracing`, and the last connection error is kept for a useful message.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tidegate_core::time::{Offset, Partition};

use crate::error::{Error, Result};
use crate::outage;
use crate::token::NoToken;

/// The last thing the client complained about on its own (a refused connection, for instance).
#[derive(Clone, Debug, Default)]
pub(crate) struct LastComplaint(Arc<Mutex<Option<Complaint>>>);

#[derive(Clone, Debug)]
enum Complaint {
    /// No broker answers.
    Unreachable(String),
    /// A broker answers, and does not let us in.
    Denied(String),
    /// There is no token to show to the brokers.
    NoToken(NoToken),
}

impl LastComplaint {
    fn set(&self, complaint: Complaint) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(complaint);
    }

    fn get(&self) -> Option<Complaint> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes a line of librdkafka's log: some say what errors do not.
    pub(crate) fn hear_log(&self, facility: &str, message: &str) {
        if let Some(no_token) = NoToken::from_log(facility, message) {
            self.set(Complaint::NoToken(no_token));
        }
    }

    /// Takes an error that concerns the client as a whole.
    pub(crate) fn hear_error(&self, error: &KafkaError, reason: &str) {
        // "All brokers down" follows the reason for it; the reason is what helps.
        if matches!(error.rdkafka_error_code(), Some(RDKafkaErrorCode::AllBrokersDown)) {
            return;
        }
        match (NoToken::from_error(reason), self.get()) {
            (Some(no_token), Some(Complaint::NoToken(logged))) if logged.says_more_than(&no_token) => {}
            (Some(no_token), _) => self.set(Complaint::NoToken(no_token)),
            (None, _) if error.rdkafka_error_code().is_some_and(is_denial) => {
                self.set(Complaint::Denied(reason.to_owned()));
            }
            (None, _) => self.set(Complaint::Unreachable(reason.to_owned())),
        }
    }

    pub(crate) fn is_none(&self) -> bool {
        self.get().is_none()
    }

    /// Why `brokers` cannot be reached, if the client has said.
    pub(crate) fn error(&self, brokers: &str) -> Option<Error> {
        let brokers = brokers.to_owned();
        Some(match self.get()? {
            Complaint::Unreachable(reason) => Error::Unreachable { brokers, reason },
            Complaint::Denied(reason) => Error::Denied { brokers, reason },
            Complaint::NoToken(NoToken { endpoint, reason, refused }) => {
                Error::NoToken { brokers, endpoint, reason, refused }
            }
        })
    }
}

/// The context of a client without further callbacks.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogContext;

impl ClientContext for LogContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        trace_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        trace_error(&error, reason);
    }
}

/// The lines of librdkafka's log that tell of a connection that failed, or of requests that it did not answer.
const CONNECTION: [&str; 2] = ["FAIL", "REQTMOUT"];

/// A line of librdkafka's log.
pub(crate) fn trace_log(level: RDKafkaLogLevel, facility: &str, message: &str) {
    if CONNECTION.contains(&facility) || NoToken::from_log(facility, message).is_some() {
        return say_outage(facility, message);
    }
    match level {
        RDKafkaLogLevel::Emerg
        | RDKafkaLogLevel::Alert
        | RDKafkaLogLevel::Critical
        | RDKafkaLogLevel::Error => {
            tracing::error!(target: "librdkafka", facility, "{message}");
        }
        RDKafkaLogLevel::Warning => tracing::warn!(target: "librdkafka", facility, "{message}"),
        RDKafkaLogLevel::Notice | RDKafkaLogLevel::Info => {
            tracing::info!(target: "librdkafka", facility, "{message}")
        }
        RDKafkaLogLevel::Debug => tracing::debug!(target: "librdkafka", facility, "{message}"),
    }
}

/// An error that concerns the client as a whole; librdkafka goes on trying by itself.
pub(crate) fn trace_error(error: &KafkaError, reason: &str) {
    match error.rdkafka_error_code() {
        // "Communication failure with broker" is what a refused connection is.
        Some(code) if is_connection(code) || is_denial(code) || code == RDKafkaErrorCode::Fail => {
            say_outage(&code.to_string(), reason);
        }
        _ => tracing::warn!(target: "librdkafka", %error, "{reason}"),
    }
}

/// Whether the error says that brokers cannot be reached.
pub(crate) const fn is_connection(code: RDKafkaErrorCode) -> bool {
    use RDKafkaErrorCode as Code;
    matches!(
        code,
        Code::BrokerTransportFailure | Code::AllBrokersDown | Code::Resolve | Code::OperationTimedOut
    )
}

/// Whether the error says that a broker does not let us in, or we do not trust it.
pub(crate) const fn is_denial(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SSL)
}

/// Brokers that do not answer make every client of the process complain, again and again.
fn say_outage(error: &str, reason: &str) {
    match outage::admit() {
        Some(withheld) => tracing::warn!(target: "librdkafka", error, withheld, "{reason}"),
        None => tracing::debug!(target: "librdkafka", error, "{reason}"),
    }
}

/// The number of partitions of `topic`.
pub(crate) fn partition_count<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<u32> {
    let what = format!("read the metadata of topic `{topic}`");
    let metadata =
        client.fetch_metadata(Some(topic), timeout).map_err(|error| Error::client(&what, &error))?;
    let Some(found) = metadata.topics().iter().find(|found| found.name() == topic) else {
        return Err(Error::UnknownTopic { topic: topic.to_owned() });
    };
    if let Some(error) = found.error() {
        let code = RDKafkaErrorCode::from(error);
        return Err(match code {
            RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic => {
                Error::UnknownTopic { topic: topic.to_owned() }
            }
            code => Error::code(what, code),
        });
    }
    match u32::try_from(found.partitions().len()) {
        Ok(0) | Err(_) => Err(Error::UnknownTopic { topic: topic.to_owned() }),
        Ok(count) => Ok(count),
    }
}

/// librdkafka's number of a partition.
pub(crate) fn raw_partition(partition: Partition) -> i32 {
    i32::try_from(partition.0).unwrap_or(i32::MAX)
}

/// librdkafka's number of an offset.
pub(crate) fn raw_offset(offset: Offset) -> i64 {
    i64::try_from(offset.0).unwrap_or(i64::MAX)
}

/// The time left of a wait for the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    started: Instant,
    pub(crate) patience: Duration,
}

impl Deadline {
    #[allow(
        clippy::disallowed_methods,
        reason = "bounds blocking calls of the client; nothing is decided by this clock"
    )]
    pub(crate) fn after(patience: Duration) -> Self {
        Self { started: Instant::now(), patience }
    }

    pub(crate) fn left(self) -> Duration {
        self.patience.saturating_sub(self.started.elapsed())
    }

    pub(crate) fn has_passed(self) -> bool {
        self.left().is_zero()
    }
}
