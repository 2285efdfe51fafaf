//! The log of one partition: batches as bytes, in memory, kept whole until DeleteRecords.
//!
//! ```text
//! start                       last stable offset            end (= high watermark: there is one replica)
//!   │ batch │ batch │ marker │ batch of an open transaction │ batch │
//! ```
//!
//! Promises: offsets are dense; a batch is found by binary search; readers of committed data stop at the
//! last stable offset, the first offset of the oldest open transaction. Compaction and retention are
//! not done, whatever the topic's configuration says.

use std::collections::{BTreeMap, HashMap, VecDeque};

use bytes::Bytes;
use kafka_protocol::ResponseError;

use crate::batch::{self, Batch};
use crate::sequences::{Check, Sequences};

/// How much of a log a reader may see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Isolation {
    ReadUncommitted,
    ReadCommitted,
}

impl Isolation {
    pub(crate) fn from_wire(level: i8) -> Self {
        if level == 1 { Self::ReadCommitted } else { Self::ReadUncommitted }
    }
}

/// A transaction that was aborted: `producer_id`'s records from `first` up to its marker at `last`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Aborted {
    pub(crate) producer_id: i64,
    pub(crate) first: i64,
    last: i64,
}

/// A record's offset and timestamp (ms).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Found {
    pub(crate) offset: i64,
    pub(crate) timestamp: i64,
}

/// Consecutive batches of the log.
#[derive(Debug, Default)]
pub(crate) struct Run {
    pub(crate) batches: Vec<Bytes>,
    pub(crate) bytes: usize,
    /// The offset after the last of them.
    pub(crate) next: i64,
}

#[derive(Debug, Default)]
pub(crate) struct Log {
    start: i64,
    end: i64,
    batches: VecDeque<Stored>,
    sequences: Sequences,
    /// First offset of the open transaction of each producer, and the same the other way round.
    open: HashMap<i64, i64>,
    open_from: BTreeMap<i64, i64>,
    /// In the order of their markers.
    aborted: Vec<Aborted>,
}

#[derive(Debug)]
struct Stored {
    base: i64,
    last: i64,
    max_timestamp: i64,
    bytes: Bytes,
}

impl Log {
    /// The first offset that can be read.
    pub(crate) fn start(&self) -> i64 {
        self.start
    }

    /// The offset that the next record will get.
    pub(crate) fn end(&self) -> i64 {
        self.end
    }

    /// Where readers of committed data stop.
    pub(crate) fn last_stable(&self) -> i64 {
        let first_open = self.open_from.keys().next().copied().unwrap_or(self.end);
        first_open.max(self.start)
    }

    /// Where a reader of this isolation stops.
    pub(crate) fn readable_end(&self, isolation: Isolation) -> i64 {
        match isolation {
            Isolation::ReadUncommitted => self.end,
            Isolation::ReadCommitted => self.last_stable(),
        }
    }

    /// Appends a batch, or recognises it as one that is there already; answers with its base offset.
    pub(crate) fn append(&mut self, batch: Batch) -> Result<i64, ResponseError> {
        let header = batch.header;
        let base = self.end;
        if let Some(stamp) = header.stamp {
            match self.sequences.check(stamp, header.count)? {
                Check::Append => {}
                Check::Duplicate { base_offset } => return Ok(base_offset),
            }
            self.sequences.appended(stamp, header.count, base);
            if header.transactional() && !self.open.contains_key(&stamp.producer_id) {
                self.open.insert(stamp.producer_id, base);
                self.open_from.insert(base, stamp.producer_id);
            }
        }
        self.push(header.count, header.max_timestamp, batch.place(base));
        Ok(base)
    }

    /// Ends the transaction of a producer in this partition. The marker takes an offset.
    pub(crate) fn end_transaction(&mut self, producer_id: i64, epoch: i16, commit: bool, now_ms: i64) {
        let marker = self.end;
        self.sequences.marked(producer_id, epoch);
        if let Some(first) = self.open.remove(&producer_id) {
            self.open_from.remove(&first);
            if !commit {
                self.aborted.push(Aborted { producer_id, first, last: marker });
            }
        }
        self.push(1, now_ms, batch::marker(marker, producer_id, epoch, commit, now_ms));
    }

    /// Whole batches from the one that holds `from`, below `until`. The first comes whatever its size if
    /// `at_least_one`, the rest while they fit into `max_bytes`.
    pub(crate) fn read(&self, from: i64, until: i64, max_bytes: usize, at_least_one: bool) -> Run {
        let first = self.batches.partition_point(|batch| batch.last < from);
        let mut run = Run::default();
        for batch in self.batches.range(first..).take_while(|batch| batch.base < until) {
            let must_come = at_least_one && run.batches.is_empty();
            if run.bytes + batch.bytes.len() > max_bytes && !must_come {
                break;
            }
            run.bytes += batch.bytes.len();
            run.next = batch.last + 1;
            run.batches.push(batch.bytes.clone());
        }
        run
    }

    /// The aborted transactions that a reader of `[from, until)` has to skip.
    pub(crate) fn aborted(&self, from: i64, until: i64) -> impl Iterator<Item = Aborted> {
        let first = self.aborted.partition_point(|aborted| aborted.last < from);
        self.aborted.iter().skip(first).filter(move |aborted| aborted.first < until).copied()
    }

    /// The first record at or after a time, among those below `until`.
    pub(crate) fn find_time(&self, timestamp: i64, until: i64) -> Option<Found> {
        let stored = self
            .batches
            .iter()
            .take_while(|batch| batch.base < until)
            .find(|batch| batch.max_timestamp >= timestamp && batch.last >= self.start)?;
        let records = batch::records(stored.bytes.clone()).unwrap_or_default();
        let record =
            records.iter().find(|record| record.timestamp >= timestamp && record.offset >= self.start);
        Some(Found {
            offset: record.map_or(stored.base, |record| record.offset),
            timestamp: record.map_or(stored.max_timestamp, |record| record.timestamp),
        })
    }

    /// The record with the largest time.
    pub(crate) fn find_latest_time(&self) -> Option<Found> {
        let largest = self.batches.iter().map(|batch| batch.max_timestamp).max()?;
        self.find_time(largest, self.end)
    }

    /// Forgets what lies below `offset`; answers with the new start.
    pub(crate) fn delete_before(&mut self, offset: i64) -> Result<i64, ResponseError> {
        if offset > self.end {
            return Err(ResponseError::OffsetOutOfRange);
        }
        self.start = self.start.max(offset);
        while self.batches.front().is_some_and(|batch| batch.last < self.start) {
            self.batches.pop_front();
        }
        self.aborted.retain(|aborted| aborted.last >= self.start);
        Ok(self.start)
    }

    fn push(&mut self, count: i32, max_timestamp: i64, bytes: Bytes) {
        let base = self.end;
        self.end += i64::from(count);
        self.batches.push_back(Stored { base, last: self.end - 1, max_timestamp, bytes });
    }
}

#[cfg(test)]
mod tests;
