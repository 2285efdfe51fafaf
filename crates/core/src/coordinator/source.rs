//! One partition as the coordinator knows it: what its reader last said, and whether that holds W.

use crate::announcement::{Observed, PartitionState, ReaderEpoch, Report};
use crate::time::{EventTime, Offset, Span, Tick, Watermark};

/// One stream of an ingest to this coordinator; the shell draws a new number for every connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReaderId(pub u64);

/// A watermark and the position up to which it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// The partition's watermark as of `position`.
    pub watermark: Watermark,
    /// The fetch position up to which records have been framed.
    pub position: Offset,
}

/// What the coordinator knows of a partition. Only `Idle` does not hold W.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// In the broker's metadata, but no reader has ever reported it: W does not move.
    Unknown,
    /// Records arrive, or may: W stays at or below its watermark.
    Active(Reading),
    /// Not read for lack of credit or because it is paused: counts like `Active`.
    Blocked(Reading),
    /// Behind an open source transaction: counts like `Active`.
    Lagging(Reading),
    /// Proven to be at its end: excluded.
    Idle(Reading),
    /// Its reader's stream closed: nobody vouches for it, W does not move.
    Unowned(Reading),
    /// No report for three intervals: nobody vouches for it, W does not move. Any epoch may take it.
    Expired(Reading),
}

impl SourceState {
    fn of(report: &Report) -> Self {
        let reading = Reading { watermark: report.watermark, position: report.position };
        match report.state {
            PartitionState::Active => Self::Active(reading),
            PartitionState::Blocked => Self::Blocked(reading),
            PartitionState::Lagging => Self::Lagging(reading),
            PartitionState::Idle => Self::Idle(reading),
        }
    }

    /// What was last reported; `None` only while unknown.
    #[must_use]
    pub const fn reading(&self) -> Option<Reading> {
        match self {
            Self::Unknown => None,
            Self::Active(reading)
            | Self::Blocked(reading)
            | Self::Lagging(reading)
            | Self::Idle(reading)
            | Self::Unowned(reading)
            | Self::Expired(reading) => Some(*reading),
        }
    }

    /// What a partition that counts and has a reader last reported.
    #[must_use]
    pub const fn counting(&self) -> Option<Reading> {
        match self {
            Self::Active(reading) | Self::Blocked(reading) | Self::Lagging(reading) => Some(*reading),
            Self::Unknown | Self::Idle(_) | Self::Unowned(_) | Self::Expired(_) => None,
        }
    }
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReportOutcome {
    /// Taken in.
    Accepted,
    /// Of an older reader epoch, or of an older position in the same epoch: ignored.
    Stale,
    /// Of a partition that the broker's metadata has not shown yet: ignored; refresh the metadata.
    UnknownPartition,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owner {
    pub(super) reader: ReaderId,
    pub(super) epoch: ReaderEpoch,
}

/// What a report changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    Stale,
    /// Alive, nothing new.
    Same,
    Changed {
        new_reader: bool,
    },
}

/// Whether the reader has been asked to stop for drift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pause {
    Lifted,
    Paused,
    /// The reader may be one that was paused before, on a stream that is still open: it is told anew.
    Unknown,
}

#[derive(Clone, Debug)]
pub(super) struct Source {
    pub(super) state: SourceState,
    /// Who reads it; `None` before the first report and once expired.
    pub(super) owner: Option<Owner>,
    pub(super) heard_at: Tick,
    pub(super) lag: u64,
    /// How much of its watermark several records agree on.
    pub(super) agreed: Watermark,
    pub(super) observed: Observed,
    /// The largest event time that any reader of it has accepted.
    pub(super) seen: Option<EventTime>,
    pub(super) pause: Pause,
    /// Since when it is in its state; `None` while it is unknown.
    pub(super) since: Option<Tick>,
    /// Since when its watermark stands where it is.
    pub(super) risen: Option<Tick>,
    /// The last raise asked of the present reader at the present position, and when.
    pub(super) raised: Option<(EventTime, Tick)>,
    /// The last raise asked of any reader: a watermark that stands there tells of no record.
    pub(super) lifted: Watermark,
}

impl Source {
    pub(super) const fn new() -> Self {
        Self {
            state: SourceState::Unknown,
            owner: None,
            heard_at: Tick(0),
            lag: 0,
            agreed: None,
            observed: Observed { delay: None, skew: None },
            seen: None,
            pause: Pause::Lifted,
            since: None,
            risen: None,
            raised: None,
            lifted: None,
        }
    }

    pub(super) fn hear(&mut self, reader: ReaderId, report: &Report, now: Tick, delay: Span) -> Heard {
        let sender = Owner { reader, epoch: report.epoch };
        if self.is_stale(report) {
            return Heard::Stale;
        }
        let new_reader = self.owner != Some(sender);
        if new_reader {
            self.raised = None;
        }
        if self.owner.is_some_and(|owner| owner.reader != reader) {
            self.pause = match self.state {
                // Its predecessor's pause died with the stream it was sent on.
                SourceState::Unowned(_) => Pause::Lifted,
                // Two readers at a time, until the group has its way: this one may have been paused before.
                _ => Pause::Unknown,
            };
        }
        let (known, position) = match self.state.reading() {
            Some(last) => (last.watermark, Some(last.position)),
            None => (None, None),
        };
        if position != Some(report.position) {
            self.raised = None;
        }
        // A reader that starts behind the last record has not accepted it, but the shards have seeded its watermark, perhaps
        // with records that nobody reported: none is further ahead of it than the delay. A raise is no record.
        let risen = report.watermark > known && report.watermark != self.lifted;
        let seeded = report.watermark.filter(|_| risen).map(|at| at.plus(delay));
        self.seen = self.seen.max(report.max_event_time).max(seeded);
        let state = SourceState::of(report);
        let changed = new_reader || state != self.state;
        if report.watermark > known || self.risen.is_none() {
            self.risen = Some(now);
        }
        self.owner = Some(sender);
        self.enter(state, now);
        self.heard_at = now;
        self.lag = report.lag;
        self.agreed = report.agreed;
        self.observed = report.observed;
        if changed { Heard::Changed { new_reader } } else { Heard::Same }
    }

    fn enter(&mut self, state: SourceState, now: Tick) {
        if self.since.is_none() || std::mem::discriminant(&state) != std::mem::discriminant(&self.state) {
            self.since = Some(now);
        }
        self.state = state;
    }

    /// Streams keep their order, but two of them may overlap: within an epoch positions only rise, unless the owner
    /// has gone and its successor starts again below what was framed but never committed.
    fn is_stale(&self, report: &Report) -> bool {
        let Some(owner) = self.owner else { return false };
        if report.epoch != owner.epoch {
            return report.epoch < owner.epoch;
        }
        match self.state {
            SourceState::Active(at)
            | SourceState::Blocked(at)
            | SourceState::Lagging(at)
            | SourceState::Idle(at) => report.position < at.position,
            SourceState::Unknown | SourceState::Unowned(_) | SourceState::Expired(_) => false,
        }
    }

    /// The reader's stream closed. The epoch is kept until expiry, so that a zombie cannot take over meanwhile.
    pub(super) fn disown(&mut self) {
        if let Some(reading) = self.state.reading() {
            // Nobody has vouched for it since it was last heard of.
            self.enter(SourceState::Unowned(reading), self.heard_at);
        }
        self.pause = Pause::Lifted;
        self.raised = None;
    }

    /// Whether the source expired just now: not heard of for longer than `limit_ms`. Its epoch is forgotten, so that a
    /// recreated group may start again at generation 1.
    pub(super) fn expire(&mut self, now: Tick, limit_ms: u64) -> bool {
        if self.owner.is_none() || now.since(self.heard_at) <= limit_ms {
            return false;
        }
        self.disown();
        self.owner = None;
        self.pause = Pause::Unknown;
        if let Some(reading) = self.state.reading() {
            self.enter(SourceState::Expired(reading), now);
        }
        true
    }
}

/// What the partitions together allow W to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ground {
    /// Some partition is unknown, without a reader, or counts without a watermark yet: W stays.
    Held,
    /// The smallest watermark of those that count.
    Counting(EventTime),
    /// All are idle: the largest of their watermarks.
    Quiet(Watermark),
}

impl Ground {
    pub(super) fn of(sources: &[Source]) -> Self {
        let mut least: Watermark = None;
        let mut most_idle: Watermark = None;
        for source in sources {
            match source.state {
                SourceState::Unknown | SourceState::Unowned(_) | SourceState::Expired(_) => {
                    return Self::Held;
                }
                SourceState::Idle(at) => most_idle = most_idle.max(at.watermark),
                SourceState::Active(at) | SourceState::Blocked(at) | SourceState::Lagging(at) => {
                    let Some(watermark) = at.watermark else { return Self::Held };
                    least = Some(least.map_or(watermark, |least| least.min(watermark)));
                }
            }
        }
        match least {
            Some(least) => Self::Counting(least),
            None if sources.is_empty() => Self::Held,
            None => Self::Quiet(most_idle),
        }
    }
}
