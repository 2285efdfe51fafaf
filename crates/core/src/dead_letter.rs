//! Records that no window can take, whole, with the reason.

use std::sync::Arc;

use crate::{
    aggregate::put_varint,
    block::{put_bytes, take_bytes},
    entry::{put_watermark, take_u64, take_watermark},
    time::{EventTime, Offset, Partition, Watermark},
};

/// Why a record is a dead letter. `as_str` is what the header `tidegate-reason` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// Every window that would contain it has been purged.
    Late,
    /// Applied to the windows still open, too late for the ones named.
    LatePartial,
    /// The payload cannot be read.
    Unreadable,
    /// The record has no value.
    Tombstone,
    /// No usable event time.
    NoEventTime,
    /// No usable group key.
    NoKey,
    /// The event time is further ahead of the clock than the job allows.
    Future,
}

impl Reason {
    /// All reasons, for counters.
    pub const ALL: [Self; 7] = [
        Self::Late,
        Self::LatePartial,
        Self::Unreadable,
        Self::Tombstone,
        Self::NoEventTime,
        Self::NoKey,
        Self::Future,
    ];

    /// The reason's name on the wire and in metrics.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Late => "late",
            Self::LatePartial => "late_partial",
            Self::Unreadable => "unreadable",
            Self::Tombstone => "tombstone",
            Self::NoEventTime => "no_event_time",
            Self::NoKey => "no_key",
            Self::Future => "future",
        }
    }

    /// The reason of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == name)
    }
}

/// A source record as it was: key, value, headers, timestamp.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Payload {
    /// The record's key.
    pub key: Option<Vec<u8>>,
    /// The record's value.
    pub value: Option<Vec<u8>>,
    /// The record's headers, in order, repeated names kept.
    pub headers: Vec<(String, Option<Vec<u8>>)>,
    /// The record's timestamp in ms, where it has one.
    pub timestamp: Option<i64>,
}

impl Payload {
    /// Bytes this takes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + length(value) + 48).sum();
        64 + length(&self.key) + length(&self.value) + headers
    }

    /// Appends the record's bytes to `out`. Frozen by `tests/golden`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        put_optional(out, self.key.as_deref());
        put_optional(out, self.value.as_deref());
        put_varint(out, self.headers.len() as u128);
        for (name, value) in &self.headers {
            put_bytes(out, name.as_bytes());
            put_optional(out, value.as_deref());
        }
        put_watermark(out, self.timestamp.map(EventTime));
    }

    /// Takes a record from the front of `bytes`; `None` when there is none.
    #[must_use]
    pub fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (key, value) = (take_optional(bytes)?, take_optional(bytes)?);
        let mut headers = Vec::new();
        for _ in 0..take_u64(bytes)? {
            let name = String::from_utf8(take_bytes(bytes)?.to_vec()).ok()?;
            headers.push((name, take_optional(bytes)?));
        }
        let timestamp = take_watermark(bytes)?.map(EventTime::millis);
        Some(Self { key, value, headers, timestamp })
    }
}

fn put_optional(out: &mut Vec<u8>, bytes: Option<&[u8]>) {
    match bytes {
        None => out.push(0),
        Some(bytes) => {
            out.push(1);
            put_bytes(out, bytes);
        }
    }
}

#[allow(clippy::option_option, reason = "what does not read, and what is not there")]
fn take_optional(bytes: &mut &[u8]) -> Option<Option<Vec<u8>>> {
    let (flag, rest) = bytes.split_first()?;
    *bytes = rest;
    match *flag {
        0 => Some(None),
        1 => take_bytes(bytes).map(|taken| Some(taken.to_vec())),
        _ => None,
    }
}

/// A record that ingest could not turn into a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Offset relative to the frame's `from`.
    pub offset_delta: u32,
    /// Why.
    pub reason: Reason,
    /// What exactly was wrong, for people.
    pub detail: String,
    /// The event time, where there was one.
    pub event_time: Option<EventTime>,
    /// The record.
    pub payload: Arc<Payload>,
}

/// A record on its way to the dead-letter topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetter {
    /// Where the record is in the source topic.
    pub partition: Partition,
    /// Where the record is in the partition.
    pub offset: Offset,
    /// Why it is here.
    pub reason: Reason,
    /// What exactly was wrong; empty when the reason says it all.
    pub detail: String,
    /// Its event time, where it has one.
    pub event_time: Option<EventTime>,
    /// The shard's watermark when this was decided.
    pub watermark: Watermark,
    /// Start of the earliest and end of the last window that it missed.
    pub missed: Option<(EventTime, EventTime)>,
    /// The record.
    pub payload: Arc<Payload>,
}
