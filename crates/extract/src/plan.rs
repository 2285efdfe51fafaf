//! What a job asks of each record, compiled: where key, event time and columns are and how they are read.

use std::fmt::Write;

use tidegate_core::dead_letter::Reason;
use tidegate_core::job::{AggregateFn, JobSpec};
use tidegate_core::record::RecordView;
use tidegate_core::time::EventTime;
use tidegate_job::{Job, KeySource, TimeSource, TimeUnit};

use super::decimal::{NotFixed, Round, fixed};
use super::pointers::{Found, Pointers, Slot};
use super::text;
use super::time::{self, NoTime};

/// The compiled job.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) pointers: Pointers,
    key: Key,
    times: Vec<Time>,
    columns: Vec<Column>,
}

/// A payload whose needed fields have been found.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    pub(super) document: &'a str,
    pub(super) found: &'a Found,
}

/// How much of a record's payload can be asked for its event time.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// There is none, so no field has a time.
    Absent,
    /// It cannot be read, so what comes behind the first field in the list of sources may not be asked either.
    Unreadable,
    /// It is read.
    Fields(Fields<'a>),
}

#[derive(Debug)]
enum Key {
    Record,
    Field(Slot),
}

#[derive(Debug)]
enum Time {
    Header { name: String, unit: TimeUnit },
    Field { slot: Slot, unit: TimeUnit },
    Record,
}

#[derive(Debug)]
struct Column {
    slot: Slot,
    read: Read,
}

/// How a column's value is read.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// As a number with so many decimal places.
    Number { scale: i32 },
    /// Only whether there is one: nothing but counts uses it, so it may be of any type.
    Presence,
}

impl Fields<'_> {
    fn text(&self, slot: Slot) -> Option<&str> {
        self.found.text(slot, self.document)
    }
}

impl Plan {
    pub(super) fn new(job: &Job) -> Self {
        let key = match &job.source.key {
            KeySource::Field(pointer) => Some(pointer),
            KeySource::RecordKey => None,
        };
        let times = job.source.event_time.iter().filter_map(|source| match source {
            TimeSource::Field { pointer, .. } => Some(pointer),
            TimeSource::Header { .. } | TimeSource::RecordTimestamp => None,
        });
        let columns = job.core.columns.iter().map(|column| &column.pointer);
        let pointers = Pointers::new(key.into_iter().chain(times).chain(columns).map(String::as_str));

        let times = job.source.event_time.iter().map(|source| match source {
            TimeSource::Header { name, unit } => Time::Header { name: name.clone(), unit: *unit },
            TimeSource::Field { pointer, unit } => Time::Field { slot: pointers.slot(pointer), unit: *unit },
            TimeSource::RecordTimestamp => Time::Record,
        });
        let columns = job.core.columns.iter().enumerate().map(|(index, column)| Column {
            slot: pointers.slot(&column.pointer),
            read: if only_counted(&job.core, index) {
                Read::Presence
            } else {
                Read::Number { scale: i32::try_from(column.scale).unwrap_or(i32::MAX) }
            },
        });
        Self {
            key: key.map_or(Key::Record, |pointer| Key::Field(pointers.slot(pointer))),
            times: times.collect(),
            columns: columns.collect(),
            pointers,
        }
    }

    /// The time of the first source that has a usable one.
    pub(super) fn event_time(
        &self,
        record: &impl RecordView,
        payload: Payload<'_>,
        text: &mut String,
    ) -> Option<EventTime> {
        for source in &self.times {
            if matches!((source, payload), (Time::Field { .. }, Payload::Unreadable)) {
                return None;
            }
            if let Ok(time) = source.read(record, payload, text) {
                return Some(time);
            }
        }
        None
    }

    /// What is wrong with each source, for a record without a usable one.
    pub(super) fn why_no_time(
        &self,
        record: &impl RecordView,
        payload: Payload<'_>,
        text: &mut String,
    ) -> String {
        let mut detail = String::new();
        for source in &self.times {
            if let Err(why) = source.read(record, payload, text) {
                if !detail.is_empty() {
                    detail.push_str("; ");
                }
                // Writing to a string does not fail.
                let _ = match source {
                    Time::Header { name, .. } => write!(detail, "header {name}: {}", why.as_str()),
                    Time::Field { slot, .. } => {
                        write!(detail, "{}: {}", self.pointers.pointer(*slot), why.as_str())
                    }
                    Time::Record => write!(detail, "record timestamp: {}", why.as_str()),
                };
            }
        }
        detail
    }

    /// The group key's bytes; `text` is room to unescape it.
    pub(super) fn key<'a>(
        &self,
        record: &'a impl RecordView,
        fields: Fields<'a>,
        text: &'a mut String,
    ) -> Result<&'a [u8], (Reason, String)> {
        let Key::Field(slot) = self.key else {
            return record.key().ok_or_else(|| (Reason::NoKey, "the record's key is null".to_owned()));
        };
        let name = self.pointers.pointer(slot);
        let Some(json) = fields.found.text(slot, fields.document) else {
            return Err((Reason::NoKey, format!("{name} is missing")));
        };
        match Kind::of(json) {
            Kind::String => match text::content(json, text) {
                Some(content) => Ok(content.as_bytes()),
                None => Err((Reason::Unreadable, format!("{name} escapes half of a surrogate pair"))),
            },
            Kind::Number | Kind::Bool => Ok(json.as_bytes()),
            kind @ (Kind::Null | Kind::Object | Kind::Array) => {
                Err((Reason::NoKey, format!("{name} is {}", kind.as_str())))
            }
        }
    }

    /// The columns' values; the error says what is wrong with one.
    pub(super) fn columns(&self, fields: Fields<'_>, values: &mut Vec<Option<i64>>) -> Result<(), String> {
        values.clear();
        for column in &self.columns {
            let value = match fields.text(column.slot) {
                Some(json) => column
                    .read
                    .value(json)
                    .map_err(|why| format!("{} {why}", self.pointers.pointer(column.slot)))?,
                None => None,
            };
            values.push(value);
        }
        Ok(())
    }
}

impl Time {
    fn read(
        &self,
        record: &impl RecordView,
        payload: Payload<'_>,
        text: &mut String,
    ) -> Result<EventTime, NoTime> {
        match self {
            Self::Header { name, unit } => time::of_text(record.header(name).ok_or(NoTime::Missing)?, *unit),
            Self::Field { slot, unit } => match payload {
                Payload::Fields(fields) => {
                    time::of_json(fields.text(*slot).ok_or(NoTime::Missing)?, *unit, text)
                }
                Payload::Absent | Payload::Unreadable => Err(NoTime::Missing),
            },
            Self::Record => time::of_record(record.timestamp()),
        }
    }
}

impl Read {
    fn value(self, json: &str) -> Result<Option<i64>, String> {
        match (self, Kind::of(json)) {
            (_, Kind::Null) => Ok(None),
            (Self::Presence, _) => Ok(Some(1)),
            (Self::Number { scale }, Kind::Number) => match fixed(json.as_bytes(), scale, Round::HalfEven) {
                Ok(value) => Ok(Some(value)),
                Err(NotFixed::OutOfRange) => Err(format!("does not fit 64 bits at scale {scale}")),
                Err(NotFixed::NotANumber) => Err("is not a number".to_owned()),
            },
            (Self::Number { .. }, kind) => Err(format!("is {}, not a number", kind.as_str())),
        }
    }
}

/// The type of a JSON value.
#[derive(Clone, Copy)]
enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    /// Of a value that is known as valid, which its first character tells.
    fn of(json: &str) -> Self {
        match json.as_bytes().first() {
            Some(b'n') => Self::Null,
            Some(b't' | b'f') => Self::Bool,
            Some(b'"') => Self::String,
            Some(b'[') => Self::Array,
            Some(b'{') => Self::Object,
            _ => Self::Number,
        }
    }

    const fn as_str(self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool => "a boolean",
            Self::Number => "a number",
            Self::String => "a string",
            Self::Array => "an array",
            Self::Object => "an object",
        }
    }
}

fn only_counted(job: &JobSpec, column: usize) -> bool {
    let mut users = job.aggregates.iter().filter(|aggregate| aggregate.column == Some(column)).peekable();
    users.peek().is_some() && users.all(|aggregate| aggregate.function == AggregateFn::Count)
}
