//! Small messages to domain values and back.

use tidegate_core::{
    announcement::{Announcement, AssignmentId, Observed, PartitionState, ReaderEpoch, Report, Term},
    block::JobId,
    frame::SessionId,
    job::PerMillion,
    skew::SkewSummary,
    source::{Opening, Want},
    time::{EventTime, Offset, Partition, Shard, Span, Watermark},
    tracker::Delay,
};

use crate::{WireError, v1};

fn millis(watermark: Watermark) -> Option<i64> {
    watermark.map(EventTime::millis)
}

impl From<&Announcement> for v1::Announcement {
    fn from(announcement: &Announcement) -> Self {
        let excluded = announcement
            .excluded
            .iter()
            .map(|(partition, position)| v1::Excluded { partition: partition.0, position: position.0 })
            .collect();
        Self {
            term: announcement.term.0,
            version: announcement.version,
            partitions: announcement.partitions,
            watermark_ms: millis(announcement.watermark),
            excluded,
        }
    }
}

impl From<v1::Announcement> for Announcement {
    fn from(wire: v1::Announcement) -> Self {
        let mut excluded: Vec<_> =
            wire.excluded.into_iter().map(|e| (Partition(e.partition), Offset(e.position))).collect();
        excluded.sort_unstable();
        Self {
            term: Term(wire.term),
            version: wire.version,
            partitions: wire.partitions,
            watermark: wire.watermark_ms.map(EventTime),
            excluded,
        }
    }
}

impl From<AssignmentId> for v1::AssignmentId {
    fn from(id: AssignmentId) -> Self {
        Self { term: id.term.0, number: id.number }
    }
}

impl From<v1::AssignmentId> for AssignmentId {
    fn from(wire: v1::AssignmentId) -> Self {
        Self { term: Term(wire.term), number: wire.number }
    }
}

impl From<PartitionState> for v1::PartitionState {
    fn from(state: PartitionState) -> Self {
        match state {
            PartitionState::Active => Self::Active,
            PartitionState::Idle => Self::Idle,
            PartitionState::Blocked => Self::Blocked,
            PartitionState::Lagging => Self::Lagging,
        }
    }
}

/// The state that a wire value stands for.
///
/// # Errors
/// [`WireError`] for a value that names no state.
pub fn partition_state(wire: i32) -> Result<PartitionState, WireError> {
    match v1::PartitionState::try_from(wire) {
        Ok(v1::PartitionState::Active) => Ok(PartitionState::Active),
        Ok(v1::PartitionState::Idle) => Ok(PartitionState::Idle),
        Ok(v1::PartitionState::Blocked) => Ok(PartitionState::Blocked),
        Ok(v1::PartitionState::Lagging) => Ok(PartitionState::Lagging),
        Ok(v1::PartitionState::Unspecified) | Err(_) => Err(WireError::Missing("state")),
    }
}

impl From<&Report> for v1::Report {
    fn from(report: &Report) -> Self {
        Self {
            partition: report.partition.0,
            epoch: report.epoch.0,
            watermark_ms: millis(report.watermark),
            position: report.position.0,
            state: v1::PartitionState::from(report.state).into(),
            max_event_time_ms: millis(report.max_event_time),
            lag: report.lag,
            agreed_ms: millis(report.agreed),
            observed: Some((&report.observed).into()),
        }
    }
}

impl From<&Observed> for v1::Observed {
    fn from(observed: &Observed) -> Self {
        let length = |span: Span| u64::try_from(span.millis()).unwrap_or(0);
        Self {
            delay_ms: observed.delay.map(|delay| length(delay.in_force)),
            learning: observed.delay.is_some_and(|delay| delay.learning),
            late_per_million: observed.delay.and_then(|delay| delay.late).map(|share| share.0),
            skew: observed.skew.map(|skew| v1::Skew {
                p50_ms: skew.p50.millis(),
                p99_ms: skew.p99.millis(),
                most_ahead_ms: length(skew.most_ahead),
            }),
        }
    }
}

impl From<v1::Observed> for Observed {
    fn from(wire: v1::Observed) -> Self {
        let span = |millis: u64| Span(i64::try_from(millis).unwrap_or(i64::MAX));
        Self {
            delay: wire.delay_ms.map(|delay| Delay {
                in_force: span(delay),
                learning: wire.learning,
                late: wire.late_per_million.map(PerMillion),
            }),
            skew: wire.skew.map(|skew| SkewSummary {
                p50: Span(skew.p50_ms),
                p99: Span(skew.p99_ms),
                most_ahead: span(skew.most_ahead_ms),
            }),
        }
    }
}

impl TryFrom<v1::Report> for Report {
    type Error = WireError;

    fn try_from(wire: v1::Report) -> Result<Self, WireError> {
        Ok(Self {
            partition: Partition(wire.partition),
            epoch: ReaderEpoch(wire.epoch),
            watermark: wire.watermark_ms.map(EventTime),
            position: Offset(wire.position),
            state: partition_state(wire.state)?,
            max_event_time: wire.max_event_time_ms.map(EventTime),
            lag: wire.lag,
            agreed: wire.agreed_ms.map(EventTime),
            observed: wire.observed.map(Into::into).unwrap_or_default(),
        })
    }
}

impl From<&Opening> for v1::Open {
    fn from(opening: &Opening) -> Self {
        Self {
            session: opening.session.0,
            partition: opening.partition.0,
            shards: opening.shards.iter().map(|shard| shard.0).collect(),
            from: opening.from.0,
        }
    }
}

impl From<v1::Open> for Opening {
    fn from(wire: v1::Open) -> Self {
        Self {
            session: SessionId(wire.session),
            partition: Partition(wire.partition),
            shards: wire.shards.into_iter().map(Shard).collect(),
            from: Offset(wire.from),
        }
    }
}

/// What a shard wants of a partition, as a message.
#[must_use]
pub fn want_to_wire(partition: Partition, want: &Want) -> v1::Want {
    v1::Want {
        partition: partition.0,
        shard: want.shard.0,
        assignment: Some(want.assignment.into()),
        next: want.next.0,
        in_band_ms: millis(want.in_band),
        watermark_ms: millis(want.watermark),
        payloads: want.payloads,
    }
}

/// The partition and what a shard wants of it.
///
/// # Errors
/// [`WireError`] when the assignment is missing.
pub fn want_from_wire(wire: v1::Want) -> Result<(Partition, Want), WireError> {
    let want = Want {
        shard: Shard(wire.shard),
        assignment: wire.assignment.ok_or(WireError::Missing("assignment"))?.into(),
        next: Offset(wire.next),
        in_band: wire.in_band_ms.map(EventTime),
        watermark: wire.watermark_ms.map(EventTime),
        payloads: wire.payloads,
    };
    Ok((Partition(wire.partition), want))
}

/// The job's identity from its bytes.
///
/// # Errors
/// [`WireError`] when they are not 16.
pub fn job_id(bytes: &[u8]) -> Result<JobId, WireError> {
    bytes.try_into().map(JobId).map_err(|_| WireError::Inconsistent("job"))
}
