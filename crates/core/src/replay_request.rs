//! What is asked of a replay: which dead letters, from where to where, and what became of them.

use std::ops::AddAssign;

use crate::{
    dead_letter::Reason,
    time::{EventTime, Offset, Partition},
};

/// Which dead letters are replayed: those that everything given here agrees with.
///
/// The reason is the one in the dead letter. Event time and group key are those that the job as it is now takes out of the
/// record: the ones it was given when it became a dead letter may be what was wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplayFilter {
    /// Only those with one of these reasons; empty: whatever the reason.
    pub reasons: Vec<Reason>,
    /// Only those at this event time or later.
    pub since: Option<EventTime>,
    /// Only those before this event time.
    pub until: Option<EventTime>,
    /// Only those of this group key.
    pub key: Option<Vec<u8>>,
}

impl ReplayFilter {
    /// What the automatic mode replays: records that came too late, and nothing that a person has to look at first.
    #[must_use]
    pub fn late() -> Self {
        Self { reasons: vec![Reason::Late, Reason::LatePartial], ..Self::default() }
    }

    /// Whether a dead letter of this reason may be meant.
    #[must_use]
    pub fn takes_reason(&self, reason: Reason) -> bool {
        self.reasons.is_empty() || self.reasons.contains(&reason)
    }

    /// Whether a record of this event time and group key is meant.
    #[must_use]
    pub fn takes(&self, time: EventTime, key: &[u8]) -> bool {
        self.since.is_none_or(|since| time >= since)
            && self.until.is_none_or(|until| time < until)
            && self.key.as_ref().is_none_or(|only| only == key)
    }
}

/// A stretch of a partition of the dead-letter topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayRange {
    /// The partition.
    pub partition: Partition,
    /// First offset.
    pub from: Offset,
    /// First offset behind it.
    pub to: Offset,
}

impl ReplayRange {
    /// How many offsets it has: as many dead letters, or fewer.
    #[must_use]
    pub const fn offsets(&self) -> u64 {
        self.to.0.saturating_sub(self.from.0)
    }
}

/// The partition under which shards keep what they have answered for: offsets of two topics that the job has had for its dead
/// letters, one after the other, are not the same entries. A topic has fewer than 65,536 partitions.
#[must_use]
pub const fn partition_of_topic(topic: u32, partition: Partition) -> Partition {
    Partition((topic << 16) | (partition.0 & 0xffff))
}

/// What became of dead letters. Each is counted once a reading.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayTally {
    /// The filter takes them, and they can be read.
    pub selected: u64,
    /// Counted in at least one window, or put out.
    pub applied: u64,
    /// Nothing is left of where they belong.
    pub expired: u64,
    /// Answered for before, by this replay or another.
    pub known: u64,
    /// The job as it is now cannot read them either.
    pub failed: u64,
    /// The filter does not take them, or they are of another source.
    pub left_out: u64,
    /// Offsets that were deleted from the dead-letter topic before they were read.
    pub deleted: u64,
}

impl AddAssign for ReplayTally {
    fn add_assign(&mut self, other: Self) {
        self.selected += other.selected;
        self.applied += other.applied;
        self.expired += other.expired;
        self.known += other.known;
        self.failed += other.failed;
        self.left_out += other.left_out;
        self.deleted += other.deleted;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_of_two_topics_are_not_the_same() {
        assert_eq!(partition_of_topic(0, Partition(7)), Partition(7));
        assert_ne!(partition_of_topic(1, Partition(7)), partition_of_topic(0, Partition(7)));
        assert_ne!(partition_of_topic(1, Partition(7)), partition_of_topic(2, Partition(7)));
    }

    #[test]
    fn a_filter_takes_what_everything_in_it_agrees_with() {
        let all = ReplayFilter::default();
        assert!(all.takes_reason(Reason::Future) && all.takes(EventTime(-1), b""));
        let some = ReplayFilter {
            reasons: vec![Reason::NoKey],
            since: Some(EventTime(5)),
            until: Some(EventTime(9)),
            key: Some(b"a".to_vec()),
        };
        assert!(some.takes_reason(Reason::NoKey) && !some.takes_reason(Reason::Late));
        assert!(some.takes(EventTime(5), b"a") && some.takes(EventTime(8), b"a"));
        for (time, key) in [(4, b"a"), (9, b"a"), (6, b"b")] {
            assert!(!some.takes(EventTime(time), key));
        }
    }
}
