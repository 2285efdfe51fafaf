//! Rules that a run may break on purpose, to show that the checks see it.

/// One rule of the protocol, broken in the shells around the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutation {
    /// Announcements are believed without the in-band watermark (§4).
    AnnouncementsAlone,
    /// An excluded partition does not count even below its idle position (§4).
    ExclusionWithoutPosition,
    /// A commit by an older epoch is taken (I6).
    NoFencing,
    /// An unknown outcome is taken for a commit (§5).
    UnknownIsCommitted,
    /// Idleness without a proof of the end (§4).
    IdleWithoutProof,
    /// The partition set is that of the partitions reported (§4).
    PartitionsFromReports,
    /// A nack is not sent (§3.3).
    NacksAreLost,
    /// Frames that were refused are applied all the same, as if nothing were missing (§3.3).
    GapsAreCovered,
    /// A session covers a shard that a later one has taken (§3.3).
    OldSessionsKeepTheirShards,
    /// A local store is believed without looking whether it lies on the chain (§5).
    StoreIsBelieved,
}
