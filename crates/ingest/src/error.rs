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
    /// The source does not exist any more.
    #[error(
        "source.topic: topic `{topic}`, which this job reads, does not exist any more{positions}; restore it, or give the \
         job another name to begin anew"
    )]
    SourceDeleted {
        /// The topic.
        topic: String,
        /// How far each partition was read here.
        positions: String,
    },
    /// The source was deleted and made anew, so that its offsets mean other records.
    #[error(
        "source.topic: topic `{topic}` was deleted and created anew (id {recorded} when the job began, {found} now){positions}: \
         the positions of this job mean other records there; give the job another name to begin anew"
    )]
    SourceRecreated {
        /// The topic.
        topic: String,
        /// The id in the job record.
        recorded: String,
        /// The id now.
        found: String,
        /// How far each partition was read here, and what the log holds.
        positions: String,
    },
    /// Records that were not read yet are gone.
    #[error(
        "{0}: records that this job has not read were deleted (retention, or DeleteRecords), or the topic was created anew; \
         restore them, go on without them by `source.on_data_loss: skip` where the log still holds what comes after them, or give \
         the job another name to begin with what is there"
    )]
    SourceTruncated(#[source] tidegate_kafka::Error),
    /// The source has been read as far as its group allows, and the reader ended.
    #[error("the reader of topic `{0}` ended")]
    ReaderEnded(String),
}
