//! What reaches the owner of the coordinator's state, from all sides.

use std::collections::BTreeMap;

use tidegate_core::announcement::{Announcement, AssignmentId, Report};
use tidegate_core::assignment::{Registration, StreamId, WorkerId};
use tidegate_core::coordinator::ReaderId;
use tidegate_core::time::{EventTime, Shard, Watermark};
use tidegate_kafka::PartitionEnds;
use tidegate_proto::v1;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::DropGuard;
use tonic::Status;

use crate::replay_record::DeadLetterTopic;
use crate::replays::{Progress, Request};

/// Something that the owner has to know or to answer.
#[derive(Debug)]
pub(crate) enum Event {
    /// From an ingest's stream.
    Ingest(ReaderId, IngestEvent),
    /// From a worker's stream.
    Worker(WorkerId, StreamId, WorkerEvent),
    /// The fence of a shard is done or given up.
    FenceEnded(Shard),
    /// The source topic has so many partitions.
    Partitions(u32),
    /// What does the job look like?
    Status(oneshot::Sender<v1::JobStatus>),
    /// Something about replays.
    Replay(ReplayEvent),
}

/// How a question about a replay is answered.
pub(crate) type TicketReply = oneshot::Sender<Result<v1::ReplayTicket, Status>>;

/// Something about replays.
#[derive(Debug)]
pub(crate) enum ReplayEvent {
    /// One is asked for, of the job of this name.
    Asked {
        /// The job's name.
        job: String,
        /// What.
        request: Request,
        /// Answered once it is in the log.
        reply: TicketReply,
    },
    /// One is taken back.
    Cancelled {
        /// The job's name.
        job: String,
        /// Which.
        number: u64,
        /// Answered once that is in the log.
        reply: TicketReply,
    },
    /// Where the dead-letter topic ends, looked up for a request.
    Looked(Look, Result<(DeadLetterTopic, Vec<PartitionEnds>), String>),
    /// The records of these numbers are in the log.
    Written(Vec<u64>),
}

/// A request whose ranges are looked up; one of the coordinator itself waits for no answer.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) request: Request,
    pub(crate) reply: Option<TicketReply>,
}

/// From an ingest's stream.
#[derive(Debug)]
pub(crate) enum IngestEvent {
    /// It said hello.
    Hello {
        /// Its number, the same on every stream of the process.
        ingest: u64,
        /// The way back.
        link: Link<v1::IngestDirective>,
    },
    /// Its word on its partitions.
    Reports {
        /// One for each partition that has something to say.
        reports: Vec<Report>,
        /// Its clock.
        clock: EventTime,
    },
    /// Its totals.
    Stats(v1::IngestStats),
    /// How far it is with the replay that it was ordered to do.
    Replay(Progress),
    /// The stream ended, or said something that cannot be read.
    Gone(Option<Status>),
}

/// From a worker's stream.
#[derive(Debug)]
pub(crate) enum WorkerEvent {
    /// It said hello.
    Hello {
        /// Who it is and what it claims.
        registration: Registration,
        /// The largest committed watermark of its shards.
        committed: Watermark,
        /// The newest announcement it has seen.
        announced: Option<Announcement>,
        /// The way back.
        link: Link<v1::WorkerDirective>,
    },
    /// It has taken a shard over and wants its records.
    Ready(OwnedShard),
    /// It has committed and left a shard.
    Released(Shard, AssignmentId),
    /// It found itself fenced and has dropped a shard.
    Fenced(Shard, AssignmentId),
    /// It is about to stop.
    Draining,
    /// Its totals.
    Stats(v1::WorkerStats),
    /// The stream ended, or said something that cannot be read.
    Gone(Option<Status>),
}

/// A shard as its owner sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OwnedShard {
    pub(crate) shard: Shard,
    pub(crate) assignment: AssignmentId,
    pub(crate) watermark: Watermark,
}

/// What a worker says of the shards it owns: its claims, and their largest watermark.
pub(crate) fn claims(owned: &[OwnedShard]) -> (BTreeMap<Shard, AssignmentId>, Watermark) {
    let claims = owned.iter().map(|owned| (owned.shard, owned.assignment)).collect();
    (claims, owned.iter().filter_map(|owned| owned.watermark).max())
}

/// The way back to a peer. Dropping it ends the stream in both directions.
#[derive(Debug)]
pub(crate) struct Link<T> {
    pub(crate) directives: mpsc::Sender<Result<T, Status>>,
    /// Ends the task that reads the peer's messages.
    pub(crate) _reading: DropGuard,
}

impl<T> Link<T> {
    /// Hands a directive on; false when the peer is gone or does not keep up, and the link is of no more use.
    #[must_use]
    pub(crate) fn send(&self, directive: T) -> bool {
        self.directives.try_send(Ok(directive)).is_ok()
    }

    /// Ends the stream with a reason.
    pub(crate) fn refuse(self, status: Status) {
        // A peer that does not take it sees the end of the stream.
        let _ = self.directives.try_send(Err(status));
    }
}
