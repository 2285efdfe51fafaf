//! What a job asks of each record, compiled: where key, event time and columns are and how they are read.

use std::fmt::Write;

use tidegate_core::dead_letter::Reason;
use tidegate_core::job::{AggregateFn, ColumnKind, Condition, JobSpec};
use tidegate_core::record::RecordView;
use tidegate_core::time::EventTime;
use tidegate_job::{Job, KeySource, TimeSource, TimeUnit};

use crate::condition::Test;
use crate::pointers::{Pointers, Slot};
use crate::time::{self, NoTime};
use crate::value::{Fields, NoKey, NotNumber, Value};

/// The compiled job.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) pointers: Pointers,
    key: Key,
    times: Vec<Time>,
    columns: Vec<Column>,
}

/// How much of a record's payload can be asked for its event time.
#[derive(Clone, Copy)]
pub(crate) enum Payload<'a> {
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
    /// `None`: it counts records.
    slot: Option<Slot>,
    /// The records that it is of.
    only: Option<Test>,
    read: Read,
}

/// How a column's value is read.
#[derive(Clone, Copy, Debug)]
enum Read {
    /// As a number with so many decimal places.
    Number { scale: i32 },
    /// As it is.
    AsIs,
    /// Only whether there is one: nothing but counts uses it, so it may be of any type.
    Presence,
}

impl Plan {
    pub(crate) fn new(job: &Job) -> Self {
        let key = match &job.source.key {
            KeySource::Field(pointer) => Some(pointer),
            KeySource::RecordKey => None,
        };
        let times = job.source.event_time.iter().filter_map(|source| match source {
            TimeSource::Field { pointer, .. } => Some(pointer),
            TimeSource::Header { .. } | TimeSource::RecordTimestamp => None,
        });
        let columns = job.core.columns.iter().filter(|column| column.kind != ColumnKind::Records);
        let columns = columns.map(|column| &column.pointer);
        let conditions = job.core.columns.iter().filter_map(|column| column.only.as_ref());
        let compared = conditions.flat_map(Condition::pointers);
        let named = key.into_iter().chain(times).chain(columns).map(String::as_str);
        let pointers = Pointers::new(named.chain(compared));

        let times = job.source.event_time.iter().map(|source| match source {
            TimeSource::Header { name, unit } => Time::Header { name: name.clone(), unit: *unit },
            TimeSource::Field { pointer, unit } => Time::Field { slot: pointers.slot(pointer), unit: *unit },
            TimeSource::RecordTimestamp => Time::Record,
        });
        let columns = job.core.columns.iter().enumerate().map(|(index, column)| Column {
            slot: (column.kind != ColumnKind::Records).then(|| pointers.slot(&column.pointer)),
            only: column.only.as_ref().map(|condition| Test::new(condition, &pointers)),
            read: if only_counted(&job.core, index) {
                Read::Presence
            } else {
                match column.kind {
                    ColumnKind::Number { scale } => {
                        Read::Number { scale: i32::try_from(scale).unwrap_or(i32::MAX) }
                    }
                    ColumnKind::AsIs => Read::AsIs,
                    ColumnKind::Records => Read::Presence,
                }
            },
        });
        Self {
            key: key.map_or(Key::Record, |pointer| Key::Field(pointers.slot(pointer))),
            times: times.collect(),
            columns: columns.collect(),
            pointers,
        }
    }

    /// How many columns there are.
    pub(crate) fn width(&self) -> usize {
        self.columns.len()
    }

    /// The time of the first source that has a usable one.
    pub(crate) fn event_time(
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
    pub(crate) fn why_no_time(
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
    pub(crate) fn key<'a>(
        &self,
        record: &'a impl RecordView,
        fields: Fields<'a>,
        text: &'a mut String,
    ) -> Result<&'a [u8], (Reason, String)> {
        let Key::Field(slot) = self.key else {
            return record.key().ok_or_else(|| (Reason::NoKey, "the record's key is null".to_owned()));
        };
        let name = self.pointers.pointer(slot);
        let Some(value) = fields.value(slot) else {
            return Err((Reason::NoKey, format!("{name} is missing")));
        };
        value.key(text).map_err(|why| match why {
            NoKey::HalfPair => (Reason::Unreadable, format!("{name} escapes half of a surrogate pair")),
            NoKey::Kind(kind) => (Reason::NoKey, format!("{name} is {kind}")),
        })
    }

    /// The columns' values, those that are taken as they are in `text`; the error says what is wrong with one.
    pub(crate) fn columns(
        &self,
        fields: Fields<'_>,
        values: &mut Vec<Option<i64>>,
        text: &mut Vec<u8>,
        room: &mut String,
    ) -> Result<(), String> {
        values.clear();
        text.clear();
        for column in &self.columns {
            if column.only.as_ref().is_some_and(|only| !only.holds(fields, room)) {
                values.push(None);
                continue;
            }
            let Some(slot) = column.slot else {
                values.push(Some(1));
                continue;
            };
            let value = match fields.value(slot) {
                Some(value) => column
                    .read
                    .value(value, text, room)
                    .map_err(|why| format!("{} {why}", self.pointers.pointer(slot)))?,
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
                    time::of_value(fields.value(*slot).ok_or(NoTime::Missing)?, *unit, text)
                }
                Payload::Absent | Payload::Unreadable => Err(NoTime::Missing),
            },
            Self::Record => time::of_record(record.timestamp()),
        }
    }
}

/// So much of a value may be kept as it is: states and results hold many of them.
const MAX_AS_IS: usize = 1_024;

impl Read {
    #[inline]
    fn value(self, value: Value<'_>, text: &mut Vec<u8>, room: &mut String) -> Result<Option<i64>, String> {
        match self {
            Self::AsIs => {
                let before = text.len();
                let there = value.as_is(text, room).map_err(|why| why.to_text())?;
                if text.len() - before > MAX_AS_IS {
                    return Err(format!("is longer than {MAX_AS_IS} bytes"));
                }
                Ok(there.then(|| i64::try_from(text.len()).unwrap_or(i64::MAX)))
            }
            Self::Presence => Ok(if value.is_null() { None } else { Some(1) }),
            Self::Number { scale } => value.number(scale, room).map_err(|why| match why {
                NotNumber::NotANumber => "is not a number".to_owned(),
                NotNumber::Kind(kind) => format!("is {kind}, not a number"),
                NotNumber::OutOfRange => format!("does not fit 64 bits at scale {scale}"),
                NotNumber::NotFinite => "is infinite or not a number".to_owned(),
            }),
        }
    }
}

fn only_counted(job: &JobSpec, column: usize) -> bool {
    let mut users = job.aggregates.iter().filter(|aggregate| aggregate.column == Some(column)).peekable();
    users.peek().is_some() && users.all(|aggregate| aggregate.function == AggregateFn::Count)
}
