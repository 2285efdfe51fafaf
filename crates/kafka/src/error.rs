//! What can go wrong with the log: what, where, and what to do about it.

use std::time::Duration;

use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tidegate_core::time::{Offset, Partition};

use crate::config::shown;

/// The result of an operation on the log.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the log.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No broker answers.
    #[error(
        "no broker of `{brokers}` answers: {reason}; check the address (`--kafka`) and that the cluster runs"
    )]
    Unreachable {
        /// The configured bootstrap servers.
        brokers: String,
        /// What the client said last.
        reason: String,
    },
    /// Brokers answer, and do not let us in.
    #[error(
        "the brokers `{brokers}` and this client do not come together: {reason}; check user, password and certificates \
         (`--kafka-sasl-…`, `--kafka-tls-ca`, `--kafka-config`), or who gives the tokens (`--kafka-oauth-…`)"
    )]
    Denied {
        /// The configured bootstrap servers.
        brokers: String,
        /// What the client said last.
        reason: String,
    },
    /// There is no token to show to the brokers.
    #[error(
        "no token for the brokers `{brokers}`{}: {reason}; check the token endpoint, client id and secret, and who has signed \
         the endpoint's certificate (`--kafka-oauth-…`, `--kafka-config`)",
        .endpoint.as_ref().map(|endpoint| format!(" from `{endpoint}`")).unwrap_or_default()
    )]
    NoToken {
        /// The configured bootstrap servers.
        brokers: String,
        /// The token endpoint, where it was asked.
        endpoint: Option<String>,
        /// What it answered, or why it did not.
        reason: String,
        /// It has answered, and will answer the same.
        refused: bool,
    },
    /// The flags that say how to get into the cluster cannot be used.
    #[error("{reason}")]
    Access {
        /// Which, why, and what to do.
        reason: String,
    },
    /// The client refuses its configuration.
    #[error("the Kafka client refuses its configuration: {reason}")]
    Config {
        /// Property, value and why.
        reason: String,
    },
    /// The topic does not exist.
    #[error("topic `{topic}` does not exist; create it or correct its name")]
    UnknownTopic {
        /// The topic.
        topic: String,
    },
    /// The partition does not exist.
    #[error("topic `{topic}` has no partition {partition}")]
    UnknownPartition {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
    },
    /// The position asked for is not in the log: records below the log start are gone, records above the end never were.
    #[error("topic `{topic}` partition {partition}: offset {offset} is not in the log{}", held(*.log_start, *.end))]
    OffsetOutOfRange {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The offset asked for.
        offset: Offset,
        /// The first offset there is, where known.
        log_start: Option<Offset>,
        /// The high watermark, where known.
        end: Option<Offset>,
    },
    /// Readers do not get past an open transaction.
    #[error(
        "topic `{topic}` partition {partition}: nothing can be read from offset {position} up to {high_watermark} since \
         {} ms: a transaction is open there; find its producer with `kafka-transactions.sh --describe-producers`",
        .waited.as_millis()
    )]
    OpenTransaction {
        /// The topic.
        topic: String,
        /// The partition.
        partition: Partition,
        /// The last stable offset.
        position: Offset,
        /// The high watermark to be reached.
        high_watermark: Offset,
        /// For how long nothing moved.
        waited: Duration,
    },
    /// A topic is not configured as its role needs it.
    #[error(
        "topic `{topic}`: `{key}` is `{found}`, must be `{wanted}`; alter the topic, nothing was changed"
    )]
    TopicConfig {
        /// The topic.
        topic: String,
        /// The topic's configuration key.
        key: &'static str,
        /// The value found.
        found: String,
        /// The value wanted.
        wanted: &'static str,
    },
    /// Another producer has taken over the transactional id.
    #[error("transactional id `{transactional_id}` was taken over by another producer")]
    Fenced {
        /// The transactional id.
        transactional_id: String,
    },
    /// Not answered in time.
    #[error("{what}: no answer within {} ms", .waited.as_millis())]
    TimedOut {
        /// What was asked.
        what: String,
        /// How long it was waited for.
        waited: Duration,
    },
    /// The reader's poll thread has ended.
    #[error("the reader of topic `{topic}` is closed")]
    Closed {
        /// The topic.
        topic: String,
    },
    /// The operating system refused a thread.
    #[error("cannot start the poll thread: {0}")]
    Thread(#[source] std::io::Error),
    /// Anything else the client or the broker reports.
    #[error("{what}: {reason}")]
    Client {
        /// What was tried, with topic and partition where there is one.
        what: String,
        /// What the client said.
        reason: String,
        /// Its error code.
        code: RDKafkaErrorCode,
    },
}

fn held(log_start: Option<Offset>, end: Option<Offset>) -> String {
    match (log_start, end) {
        (Some(start), Some(end)) => format!(", which holds {start} to {end}"),
        _ => String::new(),
    }
}

impl Error {
    /// Whether the same call may succeed later with nothing changed by hand.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        use RDKafkaErrorCode as Code;
        match self {
            Self::Unreachable { .. } | Self::OpenTransaction { .. } | Self::TimedOut { .. } => true,
            Self::NoToken { refused, .. } => !refused,
            Self::Denied { .. }
            | Self::Access { .. }
            | Self::Config { .. }
            | Self::UnknownTopic { .. }
            | Self::UnknownPartition { .. }
            | Self::OffsetOutOfRange { .. }
            | Self::TopicConfig { .. }
            | Self::Fenced { .. }
            | Self::Closed { .. }
            | Self::Thread(_) => false,
            Self::Client { code, .. } => matches!(
                code,
                Code::BrokerTransportFailure
                    | Code::AllBrokersDown
                    | Code::Resolve
                    // Whoever was let in and is not any more shows a new token, or is let in again when the brokers' users are back.
                    | Code::Authentication
                    | Code::OperationTimedOut
                    | Code::MessageTimedOut
                    | Code::TimedOutQueue
                    | Code::RequestTimedOut
                    | Code::LeaderNotAvailable
                    | Code::NotLeaderForPartition
                    // Client and broker learn of a new leader at different times.
                    | Code::FencedLeaderEpoch
                    | Code::UnknownLeaderEpoch
                    | Code::OffsetNotAvailable
                    | Code::ListenerNotFound
                    | Code::BrokerNotAvailable
                    | Code::ReplicaNotAvailable
                    | Code::NetworkException
                    | Code::CoordinatorLoadInProgress
                    | Code::CoordinatorNotAvailable
                    | Code::NotCoordinator
                    | Code::NotEnoughReplicas
                    | Code::NotEnoughReplicasAfterAppend
                    | Code::NotController
                    | Code::ConcurrentTransactions
                    | Code::RebalanceInProgress
                    | Code::KafkaStorageError
                    | Code::Retry
            ),
        }
    }

    pub(crate) fn client(what: impl Into<String>, error: &KafkaError) -> Self {
        if let KafkaError::ClientConfig(_, reason, key, value) = error {
            let value = shown(key, value);
            return Self::Config { reason: format!("`{key}` = `{value}`: {reason}") };
        }
        let code = match error {
            KafkaError::AdminOp(code) => *code,
            other => other.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail),
        };
        Self::Client { what: what.into(), reason: error.to_string(), code }
    }

    pub(crate) fn code(what: impl Into<String>, code: RDKafkaErrorCode) -> Self {
        Self::Client { what: what.into(), reason: code.to_string(), code }
    }
}
