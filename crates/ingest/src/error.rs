//! What ends an ingest process.

use thiserror::Error;

/// Why ingest cannot go on.
#[derive(Debug, Error)]
pub enum Error {
    /// The log.
    #[error(transparent)]
    Kafka(#[from] tidegate_kafka::Error),
    /// A peer refused us for good.
    #[error("{peer} refuses this ingest: {reason}")]
    Refused {
        /// Which peer.
        peer: String,
        /// What it said.
        reason: String,
    },
    /// The job record is another than when this process started.
    #[error("the coordinator serves another job record than at the start of this ingest; restart it")]
    JobChanged,
    /// An address that cannot be one.
    #[error("`{address}` is no address of {peer}: {reason}")]
    Address {
        /// Which peer.
        peer: String,
        /// What was given.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The source has been read as far as its group allows, and the reader ended.
    #[error("the reader of topic `{0}` ended")]
    ReaderEnded(String),
}
