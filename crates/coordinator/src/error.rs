//! What ends the coordinator, and what it waits out.

use std::net::SocketAddr;

use tidegate_core::announcement::Term;

use crate::savepoint::Error as SavepointError;

/// The result of a step of the coordinator.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the coordinator cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The log.
    #[error(transparent)]
    Kafka(#[from] tidegate_kafka::Error),
    /// The job's source is not there and the job does not say how to make it.
    #[error(
        "source.topic: topic `{topic}` does not exist; create it, correct its name, or give `source.partitions` to have \
         it created"
    )]
    SourceMissing {
        /// The topic.
        topic: String,
    },
    /// The source was there when the job began.
    #[error(
        "source.topic: topic `{topic}`, which this job has read since its start, does not exist any more; restore it, or \
         give the job another name to begin anew"
    )]
    SourceDeleted {
        /// The topic.
        topic: String,
    },
    /// The source was deleted and made anew, so that its offsets mean other records.
    #[error(
        "source.topic: topic `{topic}` was deleted and created anew ({recorded} when the job began, {found} now): the \
         positions of this job mean other records there; give the job another name to begin anew"
    )]
    SourceRecreated {
        /// The topic.
        topic: String,
        /// What the job record says of it.
        recorded: String,
        /// What it is now.
        found: String,
    },
    /// The job file contradicts the job record.
    #[error(
        "`{key}` is {given} in the job file, but {recorded} in the record of job `{job}` (topic `{job}-control`): {why}; put it \
         back, or give the job another name to begin anew"
    )]
    JobDiffers {
        /// The job's name.
        job: String,
        /// The first key that differs.
        key: String,
        /// Its value in the job record.
        recorded: String,
        /// Its value in the job file.
        given: String,
        /// Why it cannot change.
        why: &'static str,
    },
    /// The job file contradicts the savepoint that the job is to begin with.
    #[error(
        "`{key}` is {given} in the job file, but {recorded} in the savepoint: {why}; put it back, or begin without the savepoint"
    )]
    SavepointDiffers {
        /// The first key that differs.
        key: String,
        /// Its value in the savepoint.
        recorded: String,
        /// Its value in the job file.
        given: String,
        /// Why it cannot change.
        why: &'static str,
    },
    /// The savepoint that the job is to begin with cannot be used.
    #[error("--from-savepoint: {0}")]
    Savepoint(Box<SavepointError>),
    /// A record of the control topic does not read.
    #[error(
        "topic `{topic}` offset {offset}: the `{key}` record does not read: {reason}; it was written by a newer version \
         of tidegate or by something else"
    )]
    Record {
        /// The control topic.
        topic: String,
        /// Where.
        offset: u64,
        /// The record's key.
        key: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// There is a job record, but the state of the job is not there.
    #[error(
        "topic `{topic}` {found}, but job `{job}` has committed state in its {shards} partitions: that state is lost; \
         restore the topic, or give the job another name to begin anew"
    )]
    ChangelogLost {
        /// The changelog topic.
        topic: String,
        /// The job's name.
        job: String,
        /// S.
        shards: u32,
        /// What there is instead.
        found: String,
    },
    /// A topic of ours that somebody else made.
    #[error(
        "topic `{topic}` has {found} partitions, must have {wanted}; delete it (nothing of this job is in it), it is made \
         anew"
    )]
    Partitions {
        /// The topic.
        topic: String,
        /// How many it has.
        found: u32,
        /// How many it must have.
        wanted: u32,
    },
    /// A topic that is there, and that a broker does not know.
    #[error("topic `{topic}` is not known to all brokers yet")]
    Settling {
        /// The topic.
        topic: String,
    },
    /// There is no job record, but there is state.
    #[error(
        "topic `{topic}` partition {partition} holds committed state, but topic `{control}` has no job record of `{job}`; \
         restore the control topic, or delete the changelog topic to begin anew"
    )]
    ChangelogForeign {
        /// The changelog topic.
        topic: String,
        /// The first partition that holds something.
        partition: u32,
        /// The control topic.
        control: String,
        /// The job's name.
        job: String,
    },
    /// A transaction on the control topic that has to be tried again.
    #[error("topic `{topic}`: the transaction of the {what} did not get through: {reason}")]
    Undecided {
        /// The control topic.
        topic: String,
        /// What was to be written.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// A record that the control or changelog topic does not take.
    #[error(
        "the {what} cannot be written: {reason}; check the topic's `max.message.bytes` and the rights of this client"
    )]
    Refused {
        /// What was to be written.
        what: &'static str,
        /// Why.
        reason: String,
    },
    /// Another coordinator leads this job.
    #[error(
        "another coordinator has taken over job `{job}`{}", by_term(*.by)
    )]
    Deposed {
        /// The job's name.
        job: String,
        /// Its term, where known.
        by: Option<Term>,
    },
    /// The address to listen at.
    #[error("--listen {address}: {source}; give another address")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why not.
        source: std::io::Error,
    },
    /// The gRPC server.
    #[error("the gRPC server failed: {0}")]
    Server(#[from] tonic::transport::Error),
    /// The descriptions of the services.
    #[error("gRPC reflection: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// A task of this process ended by a defect.
    #[error("the task `{0}` ended unexpectedly; this is a defect of tidegate")]
    Task(&'static str),
}

impl Error {
    /// Whether the same step may succeed later with nothing changed by hand.
    #[must_use]
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Kafka(error) => error.is_retriable(),
            Self::Undecided { .. } | Self::Settling { .. } => true,
            Self::SourceMissing { .. }
            | Self::SourceDeleted { .. }
            | Self::SourceRecreated { .. }
            | Self::JobDiffers { .. }
            | Self::SavepointDiffers { .. }
            | Self::Savepoint(_)
            | Self::Record { .. }
            | Self::ChangelogLost { .. }
            | Self::Partitions { .. }
            | Self::ChangelogForeign { .. }
            | Self::Refused { .. }
            | Self::Deposed { .. }
            | Self::Listen { .. }
            | Self::Server(_)
            | Self::Reflection(_)
            | Self::Task(_) => false,
        }
    }
}

fn by_term(term: Option<Term>) -> String {
    term.map(|term| format!(" in term {}", term.0)).unwrap_or_default()
}
