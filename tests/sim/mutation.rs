//! Rules that a run may break on purpose, to show that the checks see it.

/// One rule of the protocol, broken in the shells around the core or in what they pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// §4: announcements are believed without the in-band watermark.
    AnnouncementsAlone,
    /// §4: an excluded partition does not count even below its idle position.
    ExclusionWithoutPosition,
    /// §1: the idle position is one beyond the fetch position.
    IdleBeyondTheEnd,
    /// §4: idleness without a proof of the end.
    IdleWithoutProof,
    /// §4: what an open source transaction holds back is taken for the end.
    OpenTransactionsAreTheEnd,
    /// §4: the partition set is that of the partitions reported.
    PartitionsFromReports,
    /// §4: a reader in mid-stream is not seeded.
    SeedsAreLost,
    /// §4: a partition whose reader is gone counts as idle where it was left.
    UnownedDoNotHold,
    /// §4: what W waits for is paused with the rest.
    PausesHoldTheSlowest,
    /// §4: a paused partition is not read again.
    PausesAreNeverLifted,
    /// §4: what catches up does not wait for the shards that it feeds.
    CatchUpRunsAhead,
    /// §4: what catches up waits, and is not read on.
    CatchUpIsNotReadOn,
    /// §4: what catches up waits for the shard that waits for it.
    CatchUpHoldsTheSlowest,
    /// §1: the epoch of a reader that has expired is remembered.
    EpochsAreRemembered,
    /// §5: an announcement counts by its version, whatever its term.
    TermsAreIgnored,
    /// §3.2: only good records travel to the shards.
    RejectsStay,
    /// §3.2: a frame that only tells how far a partition is does not travel.
    EmptyFramesStay,
    /// §3.2: a shard that lacks a payload asks for another session, and not for the payloads.
    LackingPayloadsAreNotAskedFor,
    /// §3.3: records that were covered are taken for new ones.
    KnownRecordsAreTakenAgain,
    /// §3.2, §3.3: a refused session is not opened anew.
    NacksAreLost,
    /// §3.3: frames behind a gap are applied all the same.
    GapsAreCovered,
    /// §3.4: positions alone are never committed.
    NoHeartbeat,
    /// §3.4: a commit holds whatever waits.
    CommitsAreUnbounded,
    /// §3.4: a commit begins as soon as the one before has ended.
    CommitsAreNotPaced,
    /// §3.4: that windows are gone is not in the delta.
    PurgesAreForgotten,
    /// §3.4: where a closing stopped is not in the delta.
    ClosingsAreForgotten,
    /// §7: the result of a session that has become part of another stays as it is.
    RetractionsAreLost,
    /// §7: a replayed entry is asked for under another name each time.
    ReplayedAreTakenAgain,
    /// §7: an entry is answered for before that is committed.
    ReplaysAreAnsweredEarly,
    /// §7: entries that a request leaves out, or that do not read, are answered for too.
    WhatIsLeftOutIsCovered,
    /// §3.5: the log is cut before its snapshot is whole.
    TruncatesTooFar,
    /// §3.5: the log is never cut.
    NeverTruncates,
    /// I7: what waits of a stream that has ended stays, beside what its successor sends.
    EndedStreamsWait,
    /// §5: a worker without credit is waited for, however long.
    NobodyIsParked,
    /// §5: a worker that was parked is not asked again.
    ParkedAreForgotten,
    /// §5: a commit by an older epoch is taken.
    NoFencing,
    /// §5: an unknown outcome is taken for a commit.
    UnknownIsCommitted,
    /// §5: a restore stops before the end of the log.
    RestoreStopsEarly,
    /// §5: a local store is believed without looking whether it lies on the chain.
    StoreIsBelieved,
}
