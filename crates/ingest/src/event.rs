//! What reaches the owner of the reading, from all sides.

use tidegate_core::{
    announcement::Term,
    block::JobId,
    lane::WorkerRef,
    source::Want,
    time::{EventTime, Offset, Partition, Shard},
};
use tidegate_kafka::{PartitionEnds, TopicId};
use tidegate_proto::v1;
use tokio::sync::mpsc;

/// An event for [`crate::reading::Reading`].
#[derive(Debug)]
pub(crate) enum Event {
    /// A stream to the coordinator is open; reports go into `reports`.
    CoordinatorUp {
        /// The job's identity, from the job record.
        job: JobId,
        /// The coordinator's term.
        term: Term,
        /// The source topic's identity, from the job record; `None` where it has none.
        source: Option<TopicId>,
        /// Each partition is reported at least this often, ms.
        report_interval: u64,
        /// Where reports go.
        reports: mpsc::Sender<v1::IngestReport>,
    },
    /// The coordinator says something.
    Directive(v1::ingest_directive::Message),
    /// The stream to the coordinator is gone; its link connects again by itself.
    CoordinatorDown,
    /// A stream to a worker is open.
    WorkerUp {
        /// This connection; a later one to the same worker has another number.
        connection: WorkerRef,
        /// The worker's name.
        name: String,
        /// Where its messages go.
        outgoing: mpsc::Sender<v1::FeedRequest>,
    },
    /// Shards say where they are.
    Wants {
        /// The connection.
        connection: WorkerRef,
        /// Partition and want.
        wants: Vec<(Partition, Want)>,
    },
    /// Frames of so many bytes are committed or dropped.
    Credit {
        /// The connection.
        connection: WorkerRef,
        /// As counted by `Frame::cost`.
        bytes: u64,
    },
    /// Shards have committed.
    Committed {
        /// Positions that are durable.
        positions: Vec<(Shard, Partition, Offset)>,
        /// W_s.
        watermarks: Vec<(Shard, EventTime)>,
    },
    /// A stream to a worker is gone; its link connects again by itself.
    WorkerDown {
        /// The connection.
        connection: WorkerRef,
    },
    /// The broker was asked for the end of a partition.
    End {
        /// The partition.
        partition: Partition,
        /// Its answer, if it gave one.
        ends: Option<PartitionEnds>,
    },
    /// The brokers were asked where the source ends, because a lane does not move; their answer, if they gave one.
    Ends(Option<Vec<PartitionEnds>>),
    /// The registry has answered: a schema, or why there is none.
    Schema {
        /// Which one was asked for.
        id: tidegate_extract::SchemaId,
        /// The answer.
        answer: Result<tidegate_extract::SchemaText, String>,
    },
    /// The source is not the topic that the job began with.
    SourceChanged(crate::source_watch::Changed),
    /// Nothing can go on: another job record, or a refusal that waiting does not mend.
    Fatal(crate::error::Error),
}
