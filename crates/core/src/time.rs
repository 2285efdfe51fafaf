//! Quantities of event time and of the log, each with its own type.
//!
//! Arithmetic saturates; division floors, so that windows are right for negative times too.

use std::fmt;

/// Event time in milliseconds since the Unix epoch; may be negative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventTime(pub i64);

impl EventTime {
    /// The milliseconds since the Unix epoch.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// The seconds since the Unix epoch, as metrics show them.
    #[must_use]
    pub const fn seconds(self) -> f64 {
        self.0 as f64 / 1000.0
    }

    /// `self + span`, saturating.
    #[must_use]
    pub const fn plus(self, span: Span) -> Self {
        Self(self.0.saturating_add(span.0))
    }

    /// `self − span`, saturating.
    #[must_use]
    pub const fn minus(self, span: Span) -> Self {
        Self(self.0.saturating_sub(span.0))
    }

    /// `self − earlier`, saturating; negative when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Span {
        Span(self.0.saturating_sub(earlier.0))
    }
}

impl fmt::Display for EventTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A length of time in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span(pub i64);

impl Span {
    /// No time at all.
    pub const ZERO: Self = Self(0);

    /// The length in milliseconds.
    #[must_use]
    pub const fn millis(self) -> i64 {
        self.0
    }
}

/// A watermark: `None` until the first record, then *every record with event time below it has arrived*.
///
/// `Option` orders `None` first, so the minimum of several watermarks is undefined while any of them is.
pub type Watermark = Option<EventTime>;

/// A monotonic reading in milliseconds since some start of the process; the core never reads a clock itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

impl Tick {
    /// Milliseconds passed since `earlier`, 0 when `earlier` is later.
    #[must_use]
    pub const fn since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// A position in a partition of the log: the offset of the next record to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offset(pub u64);

impl Offset {
    /// The offset behind this one.
    #[must_use]
    pub const fn next(self) -> Self {
        Self(self.0.saturating_add(1))
    }
}

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A partition of the source topic.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Partition(pub u32);

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A shard of the key space: the unit of ownership, state, commit and movement.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(pub u32);

impl Shard {
    /// The shard of `key` among `count` shards: `xxh3_64(key) mod count`. Frozen by a golden test.
    #[must_use]
    pub fn of(key: &[u8], count: u32) -> Self {
        let hash = xxhash_rust::xxh3::xxh3_64(key);
        Self(u32::try_from(hash % u64::from(count.max(1))).unwrap_or(0))
    }

    /// The shard that writes the dead letters for rejected records of `partition` (those without a usable key or time).
    #[must_use]
    pub const fn of_rejects(partition: Partition, count: u32) -> Self {
        Self(if count == 0 { 0 } else { partition.0 % count })
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
