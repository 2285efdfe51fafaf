//! The log as tidegate needs it, over librdkafka.
//!
//! - [`GroupReader`], [`PartitionReader`]: one poll thread each, a stream of [`ReaderEvent`]s bounded by bytes.
//! - [`ChangelogReader`]: a partition from an offset to its high watermark, past markers and aborted transactions.
//! - [`TransactionalProducer`]: one commit, one Kafka transaction, one [`Outcome`] that is never inferred.
//! - [`Producer`]: plain and fast, for generated input.
//! - [`Admin`]: topics, configurations, watermarks.
//! - [`drain`], [`tail`], [`Sample`]: a whole topic, or a part of it, into a callback.
//!
//! Everything reads `read_committed`. What librdkafka logs goes to `tracing`, target `librdkafka`.

mod access;
mod admin;
mod append_time;
mod budget;
mod changelog;
mod client;
mod config;
mod drain;
mod error;
#[allow(
    unsafe_code,
    reason = "rdkafka has no safe binding of the batch queue (0.21 against 0.38 CPU-seconds per million records), of \
              waiting for a producer's events, of ListOffsets and of topic ids"
)]
mod native;
mod outage;
mod producer;
mod reader;
mod sample;
mod scan;
mod token;
mod topic;
mod transaction;

pub use access::{Access, Mechanism, Protocol};
pub use admin::Admin;
pub use append_time::{AppendTime, append_times};
pub use budget::Permit;
pub use changelog::{ChangelogEnd, ChangelogReader, Entry};
pub use config::KafkaConfig;
pub use drain::{Between, between, drain, tail};
pub use error::{Error, Result};
pub use native::batch::{Headers, Record, RecordBatch, Run};
pub use producer::Producer;
pub use reader::{GroupReader, PartitionReader, ReaderControl, ReaderEvent, ReaderOptions};
pub use sample::{Extent, Sample, readable};
pub use scan::Step;
pub use tidegate_core::record::Timestamp;
pub use topic::{Copies, Created, NewTopic, PartitionEnds, TopicDescription, TopicId, TopicRole};
pub use transaction::{Header, Outcome, OutputRecord, TransactionOptions, TransactionalProducer};
