//! From a Kafka record to event time, group key and columns: the per-record hot path of ingest.
//!
//! ```text
//!  record ──► utf-8 ──► pointers: one pass over the JSON ──► plan ──► Extracted { time, key, columns }
//!                       (grammar of every byte, ranges              └► Reject { reason, detail, event_time }
//!                        of the needed fields)
//! ```
//!
//! **Payload.** One JSON object in UTF-8, checked to its last byte; of duplicate keys the last wins, at each level.
//! Anything else is `unreadable`. No value at all is a `tombstone`.
//!
//! **Columns.** Numbers are read from their text, exactly, into units of 10^−scale; ties round to even. `null` or missing
//! is `None`. A value of another type, or one past 64 bits, is `unreadable`. A column that only counts use may hold
//! anything: it is `Some(1)` unless null or missing.
//!
//! **Event time.** The sources are tried in order; one that is missing, null, malformed or outside the years −9999 to 9999
//! gives way to the next. Numbers may be decimal and may stand in strings; they are floored to milliseconds. RFC 3339 is
//! read as jiff does. When no source is left: `no_event_time`, with what was wrong with each.
//!
//! **Key.** A string's unescaped UTF-8, or the text of a number or boolean as it is written (`1` and `1.0` are two keys),
//! or the record key. The empty key is a key. Null, missing, object or array: `no_key`.
//!
//! If several things are wrong, the reason is the first of `unreadable`, `tombstone`, `no_event_time`, `no_key`. Whether a
//! time is too far in the future is judged elsewhere, with a clock.
//!
//! **Cost.** 0.21 CPU-seconds per million 144-byte clicks records with three needed fields, by `examples/extract_rate.rs`.
//! Nothing is allocated for a record that is taken, except that `serde_json` keeps a stack of 8 bytes or more to pass over
//! a field with nested arrays or objects in it. Of that, the pass over the JSON alone, by several ways: this module's walk
//! over `serde_json` 0.14, a derived struct 0.12–0.14, skipping everything 0.08; sonic-rs into a struct 0.12, its object
//! iterator 0.21, `get_many` 0.13. sonic-rs gains nothing at this size, and its `get_many` stops reading at the last needed
//! field, so that a truncated record passes.

mod decimal;
mod plan;
mod pointers;
#[cfg(test)]
mod tests;
mod text;
mod time;

use tidegate_core::dead_letter::Reason;
use tidegate_core::record::RecordView;
use tidegate_core::time::EventTime;
use tidegate_job::Job;

use plan::{Fields, Payload, Plan};
use pointers::Found;

/// Takes out of records what one job needs. Keeps its buffers from record to record: one for each lane or thread.
#[derive(Debug)]
pub struct Extractor {
    plan: Plan,
    found: Found,
    key: String,
    time: String,
    columns: Vec<Option<i64>>,
}

/// What the job needs of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted<'a> {
    /// When it happened.
    pub time: EventTime,
    /// What it is grouped by.
    pub key: &'a [u8],
    /// The inputs of the aggregates, one for each of the job's columns, in units of 10^−scale; `None`: null or missing.
    pub columns: &'a [Option<i64>],
}

/// Why a record cannot be taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reject {
    /// `Unreadable`, `Tombstone`, `NoEventTime` or `NoKey`.
    pub reason: Reason,
    /// What exactly was wrong, and with which field; no values of the payload. Empty when the reason says it all.
    pub detail: String,
    /// The event time, where it could be told all the same.
    pub event_time: Option<EventTime>,
}

impl Extractor {
    /// An extractor for the records of `job`.
    #[must_use]
    pub fn new(job: &Job) -> Self {
        Self {
            plan: Plan::new(job),
            found: Found::default(),
            key: String::new(),
            time: String::new(),
            columns: Vec::with_capacity(job.core.columns.len()),
        }
    }

    /// What the job needs of `record`.
    ///
    /// # Errors
    /// The reason for which the record is a dead letter.
    pub fn extract<'a>(&'a mut self, record: &'a impl RecordView) -> Result<Extracted<'a>, Reject> {
        let Self { plan, found, key, time, columns } = self;
        let Some(value) = record.value() else {
            let event_time = plan.event_time(record, Payload::Absent, time);
            return Err(Reject { reason: Reason::Tombstone, detail: String::new(), event_time });
        };
        let unreadable = |detail, event_time| Reject { reason: Reason::Unreadable, detail, event_time };
        let document = match read(value, plan, found) {
            Ok(document) => document,
            Err(detail) => {
                return Err(unreadable(detail, plan.event_time(record, Payload::Unreadable, time)));
            }
        };
        let fields = Fields { document, found };
        let event_time = plan.event_time(record, Payload::Fields(fields), time);
        if let Err(detail) = plan.columns(fields, columns) {
            return Err(unreadable(detail, event_time));
        }
        match (plan.key(record, fields, key), event_time) {
            (Ok(key), Some(time)) => Ok(Extracted { time, key, columns }),
            (Err((Reason::Unreadable, detail)), event_time) => Err(unreadable(detail, event_time)),
            (_, None) => {
                let detail = plan.why_no_time(record, Payload::Fields(fields), time);
                Err(Reject { reason: Reason::NoEventTime, detail, event_time: None })
            }
            (Err((reason, detail)), event_time) => Err(Reject { reason, detail, event_time }),
        }
    }
}

/// The payload as text, with its needed fields in `found`; the error says why it is no JSON object.
fn read<'a>(value: &'a [u8], plan: &Plan, found: &mut Found) -> Result<&'a str, String> {
    let document = std::str::from_utf8(value).map_err(|error| error.to_string())?;
    if !document.trim_ascii_start().starts_with('{') {
        return Err("not a JSON object".to_owned());
    }
    plan.pointers.find(document, found).map_err(|error| error.to_string())?;
    Ok(document)
}
