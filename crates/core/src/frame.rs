//! Frames: what ingest sends to workers, as structs of arrays grouped by shard.
//!
//! A frame of a session covers the offsets `[from, to)` of one partition for exactly the session's shards. Each shard's rows
//! lie together, so that the worker hands them to the shard's actor without looking at a record (docs/decisions/0002).
//!
//! ```text
//! session 7, partition 3, [100, 140), watermark 17:00:05
//!   shard 2:  offsets 0 4 9 …   times …   keys "ab" "c" …   columns [12, 7, …]
//!   shard 5:  offsets 1 2 …     …
//! ```

use std::sync::Arc;

use crate::{
    aggregate::Given,
    announcement::PartitionState,
    dead_letter::{Payload, Rejected},
    job::{ColumnKind, ColumnSpec},
    time::{EventTime, Offset, Partition, Shard, Watermark},
};

/// Names a session within one ingest process: the flow of one partition's records to one worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SessionId(pub u64);

/// What a session covers since its last frame.
#[derive(Clone, Debug, PartialEq)]
pub struct Frame {
    /// The session.
    pub session: SessionId,
    /// The partition.
    pub partition: Partition,
    /// First offset covered.
    pub from: Offset,
    /// The fetch position: first offset not covered.
    pub to: Offset,
    /// The partition's watermark as of `to`.
    pub watermark: Watermark,
    /// The partition's state as of `to`.
    pub state: PartitionState,
    /// The rows, by shard; shards of the session without rows are covered too.
    pub rows: Vec<(Shard, Rows)>,
}

/// What the rows of a shard cost of the credit beside their bytes: what is allocated for a small frame on both sides.
const ROWS_COST: u64 = 256;

impl Frame {
    /// What this costs of the credit of its worker: its shards give back exactly this. A frame without rows costs nothing, or
    /// to say that credit ran out would itself cost credit, and the partition would never come to rest.
    #[must_use]
    pub fn cost(&self) -> u64 {
        self.rows.iter().map(|(_, rows)| rows.cost()).sum()
    }
}

/// A frame as one shard sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardFrame {
    /// The ingest process the session belongs to, and the session.
    pub session: (u64, SessionId),
    /// The partition.
    pub partition: Partition,
    /// First offset covered.
    pub from: Offset,
    /// First offset not covered.
    pub to: Offset,
    /// The partition's watermark as of `to`.
    pub watermark: Watermark,
    /// The shard's rows.
    pub rows: Rows,
}

/// Records of one shard, a column per attribute.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Rows {
    /// Offset of each record, relative to the frame's `from`.
    pub offsets: Vec<u32>,
    /// Event time of each record, ms.
    pub times: Vec<i64>,
    /// All group keys, one after another.
    pub keys: Vec<u8>,
    /// Where each key ends in `keys`.
    pub key_ends: Vec<u32>,
    /// The inputs of the aggregates.
    pub columns: Vec<Column>,
    /// The payloads that may be needed for a dead letter, by row, ascending.
    pub payloads: Vec<(u32, Arc<Payload>)>,
    /// Records that could not become rows; only shards write dead letters.
    pub rejects: Vec<Rejected>,
}

/// One input of the aggregates: an integer in units of 10^−scale for each row, or a value as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Column {
    /// A value for each row, 0 where it is null. Of values as they are: where each ends in `text`.
    pub values: Vec<i64>,
    /// Values as they are, one after another.
    pub text: Option<Vec<u8>>,
    /// The rows whose value is null or missing, ascending.
    pub nulls: Vec<u32>,
}

impl Rows {
    /// No rows, with `columns` empty columns of numbers.
    #[must_use]
    pub fn new(columns: usize) -> Self {
        Self { columns: vec![Column::default(); columns], ..Self::default() }
    }

    /// No rows, with the columns of a job.
    #[must_use]
    pub fn of(columns: &[ColumnSpec]) -> Self {
        let column = |spec: &ColumnSpec| Column {
            text: (spec.kind == ColumnKind::AsIs).then(Vec::new),
            ..Column::default()
        };
        Self { columns: columns.iter().map(column).collect(), ..Self::default() }
    }

    /// No rows, with the same columns.
    #[must_use]
    pub fn emptied(&self) -> Self {
        let column =
            |column: &Column| Column { text: column.text.as_ref().map(|_| Vec::new()), ..Column::default() };
        Self { columns: self.columns.iter().map(column).collect(), ..Self::default() }
    }

    /// Number of rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len()
    }

    /// Whether there is neither a row nor a reject.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.offsets.is_empty() && self.rejects.is_empty()
    }

    /// The group key of a row.
    #[must_use]
    pub fn key(&self, row: usize) -> &[u8] {
        let end = |row: usize| self.key_ends.get(row).map_or(0, |end| *end as usize);
        let start = row.checked_sub(1).map_or(0, end);
        self.keys.get(start..end(row)).unwrap_or_default()
    }

    /// What this costs of the credit; nothing where there is nothing.
    #[must_use]
    pub fn cost(&self) -> u64 {
        if self.is_empty() { 0 } else { ROWS_COST + self.bytes() as u64 }
    }

    /// Bytes of the records, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let payloads: usize = self.payloads.iter().map(|(_, payload)| payload.bytes()).sum();
        let rejects: usize = self.rejects.iter().map(|reject| 64 + reject.payload.bytes()).sum();
        let text: usize = self.columns.iter().filter_map(|column| column.text.as_ref()).map(Vec::len).sum();
        self.keys.len() + self.len() * (16 + 8 * self.columns.len()) + text + payloads + rejects
    }

    /// Appends a row; the caller bounds the frame so that offsets and keys fit. A value as it is lies in `text` behind the one before,
    /// up to the end that stands for it in `values`.
    #[inline]
    pub fn push(
        &mut self,
        offset_delta: u32,
        time: EventTime,
        key: &[u8],
        values: &[Option<i64>],
        text: &[u8],
    ) {
        let row = u32::try_from(self.offsets.len()).unwrap_or(u32::MAX);
        self.offsets.push(offset_delta);
        self.times.push(time.0);
        self.keys.extend_from_slice(key);
        self.key_ends.push(u32::try_from(self.keys.len()).unwrap_or(u32::MAX));
        let mut text_start = 0;
        for (column, value) in self.columns.iter_mut().zip(values) {
            if value.is_none() {
                column.nulls.push(row);
            }
            let Some(column_text) = &mut column.text else {
                column.values.push(value.unwrap_or(0));
                continue;
            };
            if let Some(end) = value.and_then(|end| usize::try_from(end).ok()) {
                column_text.extend_from_slice(text.get(text_start..end).unwrap_or_default());
                text_start = end;
            }
            column.values.push(i64::try_from(column_text.len()).unwrap_or(i64::MAX));
        }
    }

    /// Whether all columns have one value a row, keys lie in order, and row numbers exist: checked once where bytes become rows.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let rows = self.len();
        let keys_end = self.key_ends.last().map_or(0, |end| *end as usize);
        self.times.len() == rows
            && self.key_ends.len() == rows
            && keys_end == self.keys.len()
            && self.key_ends.is_sorted()
            && self.offsets.is_sorted()
            && self.columns.iter().all(|column| column.is_consistent(rows))
            && are_rows(self.payloads.iter().map(|(row, _)| *row), rows)
    }
}

/// Goes over rows, their keys and their values.
#[derive(Debug)]
pub struct RowReader<'a> {
    rows: &'a Rows,
    next: usize,
    key_start: usize,
    /// Of each column, the place of the first null that is not behind.
    nulls: Vec<usize>,
}

impl<'a> RowReader<'a> {
    /// Begins with the first row whose offset is at least `from` behind that of the frame.
    #[must_use]
    pub fn new(rows: &'a Rows, from: u32) -> Self {
        let next = rows.offsets.partition_point(|delta| *delta < from);
        let key_start = next.checked_sub(1).and_then(|last| rows.key_ends.get(last));
        Self {
            rows,
            next,
            key_start: key_start.map_or(0, |end| *end as usize),
            nulls: vec![0; rows.columns.len()],
        }
    }

    /// Number, event time and group key of the next row.
    #[inline]
    pub fn next_row(&mut self) -> Option<(usize, EventTime, &'a [u8])> {
        let row = self.next;
        let (time, key_end) = (self.rows.times.get(row)?, *self.rows.key_ends.get(row)? as usize);
        let key = self.rows.keys.get(self.key_start..key_end).unwrap_or_default();
        (self.next, self.key_start) = (row + 1, key_end);
        Some((row, EventTime(*time), key))
    }

    /// Gives `take` column and value of each input of the row that came last, those that are null left out.
    #[inline]
    pub fn values(&mut self, mut take: impl FnMut(usize, Given<'a>)) {
        let Some(row) = self.next.checked_sub(1) else { return };
        for ((at, column), passed) in self.rows.columns.iter().enumerate().zip(&mut self.nulls) {
            while column.nulls.get(*passed).is_some_and(|null| (*null as usize) < row) {
                *passed += 1;
            }
            if column.nulls.get(*passed).is_none_or(|null| *null as usize != row)
                && let Some(value) = column.values.get(row)
            {
                take(
                    at,
                    match &column.text {
                        None => Given::Number(*value),
                        Some(_) => Given::AsIs(column.text_of(row).unwrap_or_default()),
                    },
                );
            }
        }
    }
}

impl Column {
    /// The value as it is of a row.
    #[inline]
    #[must_use]
    pub fn text_of(&self, row: usize) -> Option<&[u8]> {
        let end = |row: usize| self.values.get(row).and_then(|end| usize::try_from(*end).ok());
        let start = row.checked_sub(1).map_or(Some(0), end)?;
        self.text.as_ref()?.get(start..end(row)?)
    }

    fn is_consistent(&self, rows: usize) -> bool {
        let fits = self.text.as_ref().is_none_or(|text| {
            let end = self.values.last().copied().unwrap_or(0);
            let first = self.values.first().copied().unwrap_or(0);
            usize::try_from(end) == Ok(text.len()) && first >= 0 && self.values.is_sorted()
        });
        fits && self.values.len() == rows && are_rows(self.nulls.iter().copied(), rows)
    }
}

/// Whether `named` are row numbers below `rows`, strictly ascending.
fn are_rows(mut named: impl Iterator<Item = u32>, rows: usize) -> bool {
    let mut next = 0u64;
    named.all(|row| {
        let fits = u64::from(row) >= next && (row as usize) < rows;
        next = u64::from(row) + 1;
        fits
    })
}
