//! What flows between ingest, coordinator and workers about time: reports up, announcements down (design §4).

use crate::skew::SkewSummary;
use crate::time::{EventTime, Offset, Partition, Watermark};
use crate::tracker::Delay;

/// The generation of the consumer group in which a reader owns its partitions; the highest wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderEpoch(pub u64);

/// The reign of a coordinator: the offset of its leader record in the control topic; the highest wins.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Term(pub u64);

/// One giving of a shard to a worker: carried in every block that the worker then writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct AssignmentId {
    /// The term of the coordinator that assigned.
    pub term: Term,
    /// Rises with each assignment of a term.
    pub number: u64,
}

/// What a reader can say of its partition, as of a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PartitionState {
    /// Records arrive, or may: holds the global watermark.
    Active,
    /// At the end for the idle timeout, proven by a fetch newer than the timer's start.
    Idle,
    /// Not read because a worker gives no credit or the partition is paused: holds the global watermark.
    Blocked,
    /// At the last stable offset, but below the high watermark: a source transaction is open; holds the watermark.
    Lagging,
}

/// Ingest → coordinator: one partition as its reader sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Report {
    /// The partition.
    pub partition: Partition,
    /// The group generation of the reader; a report of an older one than known is ignored.
    pub epoch: ReaderEpoch,
    /// The partition's watermark as of `position`.
    pub watermark: Watermark,
    /// How much of it several records agree on: the partition is not paused for less.
    pub agreed: Watermark,
    /// The fetch position up to which records have been framed.
    pub position: Offset,
    /// Whether the partition holds the watermark.
    pub state: PartitionState,
    /// The largest event time the reader has accepted, for `on_quiet: finish`.
    pub max_event_time: Option<EventTime>,
    /// Offsets between `position` and the end of the partition, as far as known.
    pub lag: u64,
    /// What explains it to people.
    pub observed: Observed,
}

/// What a reader sees besides, as of the last report interval: nothing is decided by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// How far the strategy is behind the largest event time.
    pub delay: Option<Delay>,
    /// How event times compare with the clock; `None` while no records come.
    pub skew: Option<SkewSummary>,
}

/// Coordinator → workers and ingests: which partitions count, and up to where time has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The coordinator's term; an announcement of an older (term, version) is ignored.
    pub term: Term,
    /// Rises by one with each announcement of a term.
    pub version: u64,
    /// P: the number of partitions of the source topic, from the broker's metadata.
    pub partitions: u32,
    /// The global watermark W.
    pub watermark: Watermark,
    /// Partitions that do not hold W, each with the position at which it was proven idle.
    pub excluded: Vec<(Partition, Offset)>,
}

impl Announcement {
    /// Whether this one replaces `other`.
    #[must_use]
    pub fn newer_than(&self, other: &Self) -> bool {
        (self.term, self.version) > (other.term, other.version)
    }
}
