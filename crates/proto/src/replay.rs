//! Replays of dead letters: what is asked, what shards are given, and what became of it.

use std::ops::Range;

use tidegate_core::{
    block::JobId,
    dead_letter::Reason,
    replay::{Origin, ReplayFrame},
    replay_request::{ReplayFilter, ReplayRange, ReplayTally},
    time::{EventTime, Offset, Partition, Shard},
};

use crate::{
    WireError,
    frame::{rows_from_wire, rows_to_wire},
    v1,
};

/// A frame for a shard of the job as a message.
#[must_use]
pub fn frame_to_wire(job: JobId, fingerprint: u64, shard: Shard, frame: ReplayFrame) -> v1::ReplayFrame {
    let ReplayFrame { partition, from, covers, rows, origins } = frame;
    let relative = |offset: Offset| offset.0.saturating_sub(from.0);
    v1::ReplayFrame {
        job: job.0.to_vec().into(),
        fingerprint,
        partition: partition.0,
        from: from.0,
        covers: covers.iter().flat_map(|range| [relative(range.start), relative(range.end)]).collect(),
        rows: Some(rows_to_wire(shard, rows)),
        origins: origins.iter().map(origin_to_wire).collect(),
    }
}

/// A shard and its frame.
///
/// # Errors
/// [`WireError`] when stretches are not ascending, a row is in none of them, or rows and origins are not of a kind.
pub fn frame_from_wire(wire: v1::ReplayFrame, columns: usize) -> Result<(Shard, ReplayFrame), WireError> {
    let v1::ReplayFrame { partition, from, covers, rows, origins, .. } = wire;
    let rows = rows.ok_or(WireError::Missing("rows"))?;
    let shard = Shard(rows.shard);
    let rows = rows_from_wire(rows, columns)?;
    let (pairs, []) = covers.as_chunks::<2>() else { return Err(WireError::Inconsistent("covers")) };
    let ascending = pairs.iter().all(|[start, end]| start < end) && covers.is_sorted();
    let mut stretches = pairs.iter();
    let mut stretch = stretches.next();
    let covered = rows.offsets.iter().all(|offset| {
        let offset = u64::from(*offset);
        while stretch.is_some_and(|[_, end]| *end <= offset) {
            stretch = stretches.next();
        }
        stretch.is_some_and(|[start, _]| *start <= offset)
    });
    let last = pairs.last().map_or(0, |[_, end]| *end);
    if !ascending || !covered || from.checked_add(last).is_none() {
        return Err(WireError::Inconsistent("covers"));
    }
    if origins.len() != rows.len() || !rows.rejects.is_empty() {
        return Err(WireError::Inconsistent("origins"));
    }
    let covers =
        pairs.iter().map(|[start, end]| Range { start: Offset(from + start), end: Offset(from + end) });
    let frame = ReplayFrame {
        partition: Partition(partition),
        from: Offset(from),
        covers: covers.collect(),
        rows,
        origins: origins.into_iter().map(origin_from_wire).collect::<Result<_, _>>()?,
    };
    Ok((shard, frame))
}

fn origin_to_wire(origin: &Origin) -> v1::ReplayOrigin {
    v1::ReplayOrigin {
        partition: origin.partition.0,
        offset: origin.offset.0,
        reason: origin.reason.as_str().to_owned(),
        missed_from_ms: origin.missed.map(|(start, _)| start.millis()),
        missed_to_ms: origin.missed.map(|(_, end)| end.millis()),
    }
}

fn origin_from_wire(wire: v1::ReplayOrigin) -> Result<Origin, WireError> {
    Ok(Origin {
        partition: Partition(wire.partition),
        offset: Offset(wire.offset),
        reason: Reason::from_name(&wire.reason).ok_or(WireError::Inconsistent("reason"))?,
        missed: wire.missed_from_ms.map(EventTime).zip(wire.missed_to_ms.map(EventTime)),
    })
}

impl From<&ReplayFilter> for v1::ReplayFilter {
    fn from(filter: &ReplayFilter) -> Self {
        Self {
            reasons: filter.reasons.iter().map(|reason| reason.as_str().to_owned()).collect(),
            since_ms: filter.since.map(EventTime::millis),
            until_ms: filter.until.map(EventTime::millis),
            key: filter.key.clone().map(Into::into),
        }
    }
}

impl TryFrom<v1::ReplayFilter> for ReplayFilter {
    type Error = WireError;

    fn try_from(wire: v1::ReplayFilter) -> Result<Self, WireError> {
        let reasons = wire.reasons.iter().map(|name| Reason::from_name(name));
        Ok(Self {
            reasons: reasons.collect::<Option<_>>().ok_or(WireError::Inconsistent("reasons"))?,
            since: wire.since_ms.map(EventTime),
            until: wire.until_ms.map(EventTime),
            key: wire.key.map(Vec::from),
        })
    }
}

impl From<&ReplayRange> for v1::ReplayRange {
    fn from(range: &ReplayRange) -> Self {
        Self { partition: range.partition.0, from: range.from.0, to: range.to.0 }
    }
}

impl From<v1::ReplayRange> for ReplayRange {
    fn from(wire: v1::ReplayRange) -> Self {
        Self { partition: Partition(wire.partition), from: Offset(wire.from), to: Offset(wire.to) }
    }
}

impl From<ReplayTally> for v1::ReplayTally {
    fn from(tally: ReplayTally) -> Self {
        let ReplayTally { selected, applied, expired, known, failed, left_out, deleted } = tally;
        Self { selected, applied, expired, known, failed, left_out, deleted }
    }
}

impl From<v1::ReplayTally> for ReplayTally {
    fn from(wire: v1::ReplayTally) -> Self {
        let v1::ReplayTally { selected, applied, expired, known, failed, left_out, deleted } = wire;
        Self { selected, applied, expired, known, failed, left_out, deleted }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::{frame::Rows, job::ColumnSpec};

    fn frame() -> ReplayFrame {
        let mut rows = Rows::of(&[ColumnSpec::number("/n", 0)]);
        for offset in [2, 3, 9] {
            rows.push(offset, EventTime(-7), b"key", &[Some(5)], b"");
        }
        let origin = |offset, missed| Origin {
            partition: Partition(4),
            offset: Offset(offset),
            reason: Reason::Late,
            missed,
        };
        ReplayFrame {
            partition: Partition(3),
            from: Offset(100),
            covers: vec![Offset(100)..Offset(104), Offset(106)..Offset(110)],
            rows,
            origins: vec![origin(7, None), origin(8, Some((EventTime(-10), EventTime(0)))), origin(9, None)],
        }
    }

    #[test]
    fn a_frame_reads_back() {
        let wire = frame_to_wire(JobId([1; 16]), 5, Shard(6), frame());
        assert_eq!((wire.fingerprint, &wire.covers[..]), (5, &[0, 4, 6, 10][..]));
        assert_eq!(frame_from_wire(wire, 1), Ok((Shard(6), frame())));
    }

    #[test]
    fn a_frame_that_does_not_fit_is_refused() {
        let breaks: [fn(&mut v1::ReplayFrame); 8] = [
            |frame| frame.rows = None,
            |frame| frame.covers.truncate(3),
            |frame| frame.covers.truncate(2),
            |frame| frame.covers[1] = 3,
            |frame| frame.covers[2] = 3,
            |frame| frame.from = u64::MAX,
            |frame| frame.origins.truncate(2),
            |frame| frame.origins[0].reason = "bad".to_owned(),
        ];
        for (at, spoil) in breaks.into_iter().enumerate() {
            let mut wire = frame_to_wire(JobId([1; 16]), 5, Shard(6), frame());
            spoil(&mut wire);
            assert!(frame_from_wire(wire, 1).is_err(), "break {at}");
        }
    }

    #[test]
    fn a_filter_reads_back() {
        let filter =
            ReplayFilter { since: Some(EventTime(-1)), key: Some(b"k".to_vec()), ..ReplayFilter::late() };
        assert_eq!(ReplayFilter::try_from(v1::ReplayFilter::from(&filter)), Ok(filter));
        let unknown = v1::ReplayFilter { reasons: vec!["bad".to_owned()], ..v1::ReplayFilter::default() };
        assert!(ReplayFilter::try_from(unknown).is_err());
    }
}
