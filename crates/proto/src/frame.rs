//! Frames on the wire: columns as little-endian bytes, copied and not parsed (0.04 + 0.04 CPU-seconds per million records,
//! against 0.2 + 0.15 for a message a record; `docs/decisions/0002`).

use std::sync::Arc;

use bytes::Bytes;
use tidegate_core::{
    dead_letter::{Payload, Reason, Rejected},
    frame::{Column, Frame, Rows, SessionId, ShardFrame},
    source::Opening,
    time::{EventTime, Offset, Shard},
};

use crate::{WireError, v1};

/// A frame as a message.
#[must_use]
pub fn to_wire(frame: Frame) -> v1::Frame {
    v1::Frame {
        session: frame.session.0,
        from: frame.from.0,
        to: frame.to.0,
        watermark_ms: frame.watermark.map(EventTime::millis),
        state: v1::PartitionState::from(frame.state).into(),
        rows: frame.rows.into_iter().map(|(shard, rows)| rows_to_wire(shard, rows)).collect(),
    }
}

pub(crate) fn rows_to_wire(shard: Shard, rows: Rows) -> v1::ShardRows {
    let columns = rows
        .columns
        .into_iter()
        .map(|column| v1::Column {
            values: i64s_to_bytes(&column.values),
            nulls: column.nulls,
            text: column.text.map(Bytes::from),
        })
        .collect();
    let payloads = rows
        .payloads
        .into_iter()
        .map(|(row, payload)| v1::RowPayload { row, payload: Some(payload_to_wire(payload)) })
        .collect();
    v1::ShardRows {
        shard: shard.0,
        offsets: u32s_to_bytes(&rows.offsets),
        times: i64s_to_bytes(&rows.times),
        keys: rows.keys.into(),
        key_ends: u32s_to_bytes(&rows.key_ends),
        columns,
        payloads,
        rejects: rows.rejects.into_iter().map(reject_to_wire).collect(),
    }
}

fn reject_to_wire(reject: Rejected) -> v1::Reject {
    v1::Reject {
        offset_delta: reject.offset_delta,
        reason: reject.reason.as_str().to_owned(),
        detail: reject.detail,
        event_time_ms: reject.event_time.map(EventTime::millis),
        payload: Some(payload_to_wire(reject.payload)),
    }
}

fn payload_to_wire(payload: Arc<Payload>) -> v1::Payload {
    let payload = Arc::unwrap_or_clone(payload);
    let headers = payload
        .headers
        .into_iter()
        .map(|(name, value)| v1::Header { name, value: value.map(Bytes::from) })
        .collect();
    v1::Payload {
        key: payload.key.map(Bytes::from),
        value: payload.value.map(Bytes::from),
        headers,
        timestamp_ms: payload.timestamp,
    }
}

/// A frame as its shards see it: one for each shard of its session, those without rows included.
///
/// `ingest` is the process that sent it, `columns` the number of input columns of the job.
///
/// # Errors
/// [`WireError`] when columns do not fit each other, or rows are of a shard that the session does not have.
pub fn from_wire(
    frame: v1::Frame,
    opening: &Opening,
    ingest: u64,
    columns: usize,
) -> Result<Vec<(Shard, ShardFrame)>, WireError> {
    if frame.to < frame.from {
        return Err(WireError::Inconsistent("to"));
    }
    let mut by_shard = Vec::with_capacity(frame.rows.len());
    for rows in frame.rows {
        let shard = Shard(rows.shard);
        if !opening.shards.contains(&shard) {
            return Err(WireError::Inconsistent("shard"));
        }
        by_shard.push((shard, rows_from_wire(rows, columns)?));
    }
    let frames = opening.shards.iter().map(|shard| {
        let at = by_shard.iter().position(|(other, _)| other == shard);
        let rows = at.map_or_else(|| Rows::new(columns), |at| by_shard.swap_remove(at).1);
        let shard_frame = ShardFrame {
            session: (ingest, SessionId(frame.session)),
            partition: opening.partition,
            from: Offset(frame.from),
            to: Offset(frame.to),
            watermark: frame.watermark_ms.map(EventTime),
            rows,
        };
        (*shard, shard_frame)
    });
    Ok(frames.collect())
}

pub(crate) fn rows_from_wire(wire: v1::ShardRows, columns: usize) -> Result<Rows, WireError> {
    let mut rows = Rows {
        offsets: u32s_from_bytes(&wire.offsets).ok_or(WireError::Inconsistent("offsets"))?,
        times: i64s_from_bytes(&wire.times).ok_or(WireError::Inconsistent("times"))?,
        keys: wire.keys.into(),
        key_ends: u32s_from_bytes(&wire.key_ends).ok_or(WireError::Inconsistent("key_ends"))?,
        columns: Vec::with_capacity(columns),
        payloads: Vec::with_capacity(wire.payloads.len()),
        rejects: Vec::with_capacity(wire.rejects.len()),
    };
    for column in wire.columns {
        let values = i64s_from_bytes(&column.values).ok_or(WireError::Inconsistent("values"))?;
        rows.columns.push(Column { values, nulls: column.nulls, text: column.text.map(Vec::from) });
    }
    for payload in wire.payloads {
        let row = payload.row;
        rows.payloads.push((row, payload_from_wire(payload.payload)?));
    }
    for reject in wire.rejects {
        rows.rejects.push(reject_from_wire(reject)?);
    }
    if rows.columns.len() != columns || !rows.is_consistent() {
        return Err(WireError::Inconsistent("rows"));
    }
    Ok(rows)
}

fn reject_from_wire(wire: v1::Reject) -> Result<Rejected, WireError> {
    Ok(Rejected {
        offset_delta: wire.offset_delta,
        reason: Reason::from_name(&wire.reason).ok_or(WireError::Inconsistent("reason"))?,
        detail: wire.detail,
        event_time: wire.event_time_ms.map(EventTime),
        payload: payload_from_wire(wire.payload)?,
    })
}

fn payload_from_wire(wire: Option<v1::Payload>) -> Result<Arc<Payload>, WireError> {
    let wire = wire.ok_or(WireError::Missing("payload"))?;
    let headers = wire.headers.into_iter().map(|h| (h.name, h.value.map(Vec::from))).collect();
    Ok(Arc::new(Payload {
        key: wire.key.map(Vec::from),
        value: wire.value.map(Vec::from),
        headers,
        timestamp: wire.timestamp_ms,
    }))
}

fn u32s_to_bytes(values: &[u32]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn i64s_to_bytes(values: &[i64]) -> Bytes {
    values.iter().flat_map(|value| value.to_le_bytes()).collect::<Vec<u8>>().into()
}

fn u32s_from_bytes(bytes: &[u8]) -> Option<Vec<u32>> {
    let (values, rest) = bytes.as_chunks::<4>();
    rest.is_empty().then(|| values.iter().map(|value| u32::from_le_bytes(*value)).collect())
}

fn i64s_from_bytes(bytes: &[u8]) -> Option<Vec<i64>> {
    let (values, rest) = bytes.as_chunks::<8>();
    rest.is_empty().then(|| values.iter().map(|value| i64::from_le_bytes(*value)).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tidegate_core::{announcement::PartitionState, job::ColumnSpec, time::Partition};

    fn opening(shards: &[u32]) -> Opening {
        Opening {
            session: SessionId(3),
            partition: Partition(2),
            shards: shards.iter().copied().map(Shard).collect(),
            from: Offset(0),
        }
    }

    fn payload(text: &str) -> Arc<Payload> {
        Arc::new(Payload {
            key: None,
            value: Some(text.into()),
            headers: vec![("h".into(), None), ("h".into(), Some(b"x".to_vec()))],
            timestamp: Some(-4),
        })
    }

    fn rows(records: &[(i64, String, Option<i64>)]) -> Rows {
        let mut rows =
            Rows::of(&[ColumnSpec::number("/n", 0), ColumnSpec::as_is("/t"), ColumnSpec::as_is("/u")]);
        for (row, (time, key, value)) in (0u32..).zip(records) {
            let (text, other) = (value.map(|value| value.to_string()), key.clone() + "!");
            let end = text.as_ref().map(|text| text.len() as i64);
            let text = text.unwrap_or_default() + &other;
            let values = [*value, end, Some(text.len() as i64)];
            rows.push(row * 3, EventTime(*time), key.as_bytes(), &values, text.as_bytes());
            let at = row as usize;
            let shown = value.map(|value| value.to_string()).unwrap_or_default();
            assert_eq!(rows.columns[1].text_of(at), Some(shown.as_bytes()));
            assert_eq!(rows.columns[2].text_of(at), Some(other.as_bytes()));
            if value.is_none() {
                rows.payloads.push((row, payload(key)));
            }
        }
        rows.rejects.push(Rejected {
            offset_delta: 1,
            reason: Reason::NoKey,
            detail: "no /user".into(),
            event_time: None,
            payload: payload("reject"),
        });
        rows
    }

    proptest! {
        #[test]
        fn frames_read_back_and_cover_all_shards_of_their_session(
            records in prop::collection::vec((any::<i64>(), ".{0,9}", prop::option::of(any::<i64>())), 0..30)
        ) {
            let frame = Frame {
                session: SessionId(3), partition: Partition(2), from: Offset(10), to: Offset(200),
                watermark: Some(EventTime(-1)), state: PartitionState::Active, rows: vec![(Shard(5), rows(&records))],
            };
            let frames = from_wire(to_wire(frame), &opening(&[4, 5]), 77, 3).unwrap();
            prop_assert_eq!(frames.len(), 2);
            prop_assert!(frames[0].0 == Shard(4) && frames[0].1.rows.is_empty());
            prop_assert_eq!(&frames[1].1.rows, &rows(&records));
            prop_assert_eq!(frames[1].1.session, (77, SessionId(3)));
            prop_assert_eq!((frames[1].1.from, frames[1].1.to), (Offset(10), Offset(200)));
        }
    }

    #[test]
    fn a_frame_that_does_not_fit_is_refused() {
        let good = || {
            let rows = rows(&[(1, "a".into(), Some(1)), (2, "b".into(), None)]);
            v1::Frame { to: 10, state: 1, rows: vec![rows_to_wire(Shard(1), rows)], ..v1::Frame::default() }
        };
        let read = |frame| from_wire(frame, &opening(&[1]), 1, 3);
        assert!(read(good()).is_ok());
        let breaks: [fn(&mut v1::Frame); 10] = [
            |frame| frame.from = 11,
            |frame| frame.rows[0].shard = 9,
            |frame| frame.rows[0].times = frame.rows[0].times.slice(..8),
            |frame| frame.rows[0].times = frame.rows[0].times.slice(..7),
            |frame| frame.rows[0].keys = Bytes::from_static(b"abc"),
            |frame| frame.rows[0].columns.clear(),
            |frame| frame.rows[0].columns[0].nulls = vec![7],
            |frame| frame.rows[0].columns[1].text = Some(Bytes::from_static(b"longer than its values")),
            |frame| frame.rows[0].columns[1].values = [-8_i64, 1].map(i64::to_le_bytes).concat().into(),
            |frame| frame.rows[0].columns[1].values = [9_i64, 1].map(i64::to_le_bytes).concat().into(),
        ];
        for (at, spoil) in breaks.into_iter().enumerate() {
            let mut frame = good();
            spoil(&mut frame);
            assert!(read(frame).is_err(), "break {at}");
        }
    }
}
