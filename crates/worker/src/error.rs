//! What stops the worker or one of its shards: what, where, and what to do.

use std::{io, net::SocketAddr};

use tidegate_core::{
    announcement::AssignmentId,
    shard::RestoreError,
    time::{Offset, Shard},
};

/// An error of the worker.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error(transparent)]
    Kafka(#[from] tidegate_kafka::Error),
    /// The local store.
    #[error(transparent)]
    Store(#[from] tidegate_store::Error),
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}; choose another address (`--listen`)")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The gRPC server ended.
    #[error("the gRPC server failed: {0}")]
    Server(String),
    /// Not the URI of a coordinator.
    #[error(
        "`{address}` is not the address of a coordinator: {reason}; give one like 127.0.0.1:7400 (`--coordinator`)"
    )]
    Coordinator {
        /// What was given.
        address: String,
        /// Why not.
        reason: String,
    },
    /// The coordinator runs another job, or another version of it.
    #[error("the coordinator refuses this worker: {reason}")]
    Refused {
        /// Its words.
        reason: String,
    },
    /// The changelog of a shard does not fold to a state.
    #[error("the changelog `{topic}` partition {shard}, offset {offset}: {source}")]
    Restore {
        /// The changelog topic.
        topic: String,
        /// The shard, and partition.
        shard: Shard,
        /// Where the block begins that does not fold.
        offset: Offset,
        /// Why.
        source: RestoreError,
    },
    /// The changelog holds nothing.
    #[error(
        "the changelog `{topic}` partition {shard} is empty: its genesis block, written with the job record, was lost; restore \
         the topic, or give up the job's state by deleting its changelog and control topics"
    )]
    NoGenesis {
        /// The changelog topic.
        topic: String,
        /// The shard, and partition.
        shard: Shard,
    },
    /// The local store is ahead of the changelog.
    #[error(
        "committed data was lost: the local store of shard {shard} holds commit {cached} at offset {offset}, and the changelog \
         `{topic}` partition {shard} ends before it (at {end}); restore the topic, or accept the loss by removing the state \
         directory of this worker"
    )]
    DataLoss {
        /// The changelog topic.
        topic: String,
        /// The shard, and partition.
        shard: Shard,
        /// Sequence of the commit in the store.
        cached: u64,
        /// Its offset.
        offset: Offset,
        /// Where the log ends: an offset, or the sequence of its last commit.
        end: String,
    },
    /// The log holds a newer assignment.
    #[error("shard {shard} was taken by assignment {}.{} since", .newer.term.0, .newer.number)]
    StandDown {
        /// The shard.
        shard: Shard,
        /// The assignment in the log.
        newer: AssignmentId,
    },
    /// The job record is another than when this process started.
    #[error("the coordinator serves another job record than at the start of this worker; restart it")]
    JobChanged,
    /// A task of this process ended unexpectedly.
    #[error("a task of this process failed: {0}")]
    Task(String),
}

impl Error {
    /// Whether the shard belongs to another owner now, so that trying again would only take it away from it.
    #[must_use]
    pub(crate) const fn is_fencing(&self) -> bool {
        matches!(self, Self::StandDown { .. } | Self::Kafka(tidegate_kafka::Error::Fenced { .. }))
    }
}
