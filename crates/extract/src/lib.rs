//! From a Kafka record to event time, group key and columns: the per-record hot path of ingest.
//!
//! ```text
//!  record ──► payload: one pass over it along the job's pointers ──► plan ──► Extracted { time, key, columns }
//!             (json, avro, protobuf, raw: ranges of the needed            └► Reject { reason, detail, event_time }
//!              fields, every byte accounted for)
//! ```
//!
//! **Payload.** One JSON object in UTF-8, checked to its last byte; of duplicate keys the last wins, at each level. Or one Avro
//! record or protobuf message, with a schema that all have or that each names ([`Extractor::wants`]). Anything else is
//! `unreadable`. No value at all is a `tombstone`.
//!
//! **Columns.** Numbers are read from their text, exactly, into units of 10^−scale; ties round to even. `null` or missing
//! is `None`. A value of another type, or one past 64 bits, is `unreadable`. A column that only counts use may hold
//! anything: it is `Some(1)` unless null or missing. What an aggregate takes as it is (text, a number or boolean as it is
//! written) lies in one buffer: text as `"` and its unescaped characters, the others as they are; at most 1,024 bytes.
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
//! **Cost.** 0.21 CPU-seconds per million 144-byte clicks records in JSON with three needed fields, by `examples/extract_rate.rs`,
//! 0.15 in Avro, 0.17 to 0.29 in protobuf.
//! Nothing is allocated for a record that is taken, except that `serde_json` keeps a stack of 8 bytes or more to pass over
//! a field with nested arrays or objects in it. Of that, the pass over the JSON alone, by several ways: this module's walk
//! over `serde_json` 0.14, a derived struct 0.12–0.14, skipping everything 0.08; sonic-rs into a struct 0.12, its object
//! iterator 0.21, `get_many` 0.13. sonic-rs gains nothing at this size, and its `get_many` stops reading at the last needed
//! field, so that a truncated record passes.

mod avro;
mod condition;
mod decimal;
mod json;
mod payload;
mod plan;
mod pointers;
mod protobuf;
mod schema;
#[cfg(test)]
mod tests;
mod text;
mod time;
mod value;
mod wire;

use tidegate_core::dead_letter::Reason;
use tidegate_core::record::RecordView;
use tidegate_core::time::EventTime;
use tidegate_job::{Format, Job, SchemaSource};

pub use schema::{Language, SchemaId, SchemaText};

use payload::Decoder;
use plan::{Payload, Plan};
use value::Found;

/// Takes out of records what one job needs. Keeps its buffers from record to record: one for each lane or thread.
#[derive(Debug)]
pub struct Extractor {
    plan: Plan,
    decoder: Decoder,
    found: Found,
    key: String,
    room: String,
    columns: Vec<Option<i64>>,
    text: Vec<u8>,
}

/// What the job needs of one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extracted<'a> {
    /// When it happened.
    pub time: EventTime,
    /// What it is grouped by.
    pub key: &'a [u8],
    /// The inputs of the aggregates, one for each of the job's columns, in units of 10^−scale, or where it ends in `text`; `None`:
    /// null or missing.
    pub columns: &'a [Option<i64>],
    /// The inputs that are taken as they are, one after another.
    pub text: &'a [u8],
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
    /// An extractor for the records of `job`, whose format needs no schema from a file.
    ///
    /// # Errors
    /// When it does.
    pub fn new(job: &Job) -> Result<Self, String> {
        let decoder = match &job.source.format {
            Format::Json => Decoder::Json,
            Format::Raw => Decoder::Raw,
            Format::Avro(SchemaSource::Registry(_)) | Format::Protobuf(SchemaSource::Registry(_)) => {
                Decoder::framed()
            }
            Format::Avro(SchemaSource::File(_)) | Format::Protobuf(SchemaSource::File(_)) => {
                return Err("the schema of the job was not read".to_owned());
            }
        };
        Ok(Self::with(Plan::new(job), decoder))
    }

    /// An extractor for the records of `job`, all written with `schema`.
    ///
    /// # Errors
    /// When the schema is none, or does not have a field that the job names.
    pub fn with_schema(job: &Job, schema: &SchemaText) -> Result<Self, String> {
        let plan = Plan::new(job);
        let message = match &job.source.format {
            Format::Protobuf(SchemaSource::File(file)) => file.message.as_deref(),
            _ => None,
        };
        let decoder = Decoder::of_one(schema, message, &plan.pointers)?;
        Ok(Self::with(plan, decoder))
    }

    fn with(plan: Plan, decoder: Decoder) -> Self {
        let columns = Vec::with_capacity(plan.width());
        Self {
            plan,
            decoder,
            found: Found::default(),
            key: String::new(),
            room: String::new(),
            columns,
            text: Vec::new(),
        }
    }

    /// The schema that has to be [learnt](Self::learn) before this record can be read.
    #[inline]
    #[must_use]
    pub fn wants(&self, record: &impl RecordView) -> Option<SchemaId> {
        self.decoder.wants(record)
    }

    /// Takes a schema of the registry, or the reason for which there is none: records that name it are then unreadable.
    pub fn learn(&mut self, id: SchemaId, schema: Result<&SchemaText, String>) {
        self.decoder.learn(id, schema, &self.plan.pointers);
    }

    /// What the job needs of `record`, whose schema is known.
    ///
    /// # Errors
    /// The reason for which the record is a dead letter.
    pub fn extract<'a>(&'a mut self, record: &'a impl RecordView) -> Result<Extracted<'a>, Reject> {
        let Self { plan, decoder, found, key, room, columns, text } = self;
        let Some(value) = record.value() else {
            let event_time = plan.event_time(record, Payload::Absent, room);
            return Err(Reject { reason: Reason::Tombstone, detail: String::new(), event_time });
        };
        let unreadable = |detail, event_time| Reject { reason: Reason::Unreadable, detail, event_time };
        let fields = match decoder.read(value, &plan.pointers, found) {
            Ok(fields) => fields,
            Err(detail) => {
                return Err(unreadable(detail, plan.event_time(record, Payload::Unreadable, room)));
            }
        };
        let event_time = plan.event_time(record, Payload::Fields(fields), room);
        if let Err(detail) = plan.columns(fields, columns, text, room) {
            return Err(unreadable(detail, event_time));
        }
        match (plan.key(record, fields, key), event_time) {
            (Ok(key), Some(time)) => Ok(Extracted { time, key, columns, text }),
            (Err((Reason::Unreadable, detail)), event_time) => Err(unreadable(detail, event_time)),
            (_, None) => {
                let detail = plan.why_no_time(record, Payload::Fields(fields), room);
                Err(Reject { reason: Reason::NoEventTime, detail, event_time: None })
            }
            (Err((reason, detail)), event_time) => Err(Reject { reason, detail, event_time }),
        }
    }
}
