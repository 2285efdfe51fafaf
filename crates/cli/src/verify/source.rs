//! A record of the source as the batch reads it: group key, event time and payload, or why it has none.

use serde_json::Value;
use tidegate_core::job::{AggregateFn, ColumnKind};
use tidegate_job::{Format, Job, KeySource, TimeSource, TimeUnit};
use tidegate_kafka::{Record, Timestamp};

use super::condition;
use crate::topics;

#[derive(Debug)]
pub(super) struct Parsed {
    pub(super) key: String,
    pub(super) time: i64,
    pub(super) value: Value,
}

pub(super) fn read(job: &Job, record: &Record<'_>) -> Result<Parsed, &'static str> {
    let payload = record.value().ok_or("tombstone")?;
    let value = match job.source.format {
        Format::Raw => Value::Null,
        _ => serde_json::from_slice(payload).map_err(|_| "unreadable")?,
    };
    if job.source.format != Format::Raw && !value.is_object() {
        return Err("unreadable");
    }
    for column in &job.core.columns {
        if column.only.as_ref().is_some_and(|only| !condition::holds(only, &value)) {
            continue;
        }
        let found = value.pointer(&column.pointer).unwrap_or(&Value::Null);
        let only_counted = job.core.aggregates.iter().all(|aggregate| {
            aggregate.function == AggregateFn::Count
                || aggregate.column.and_then(|at| job.core.columns.get(at)) != Some(column)
        });
        let is_scalar = !found.is_object() && !found.is_array();
        if !(only_counted
            || found.is_null()
            || found.is_number()
            || column.kind == ColumnKind::AsIs && is_scalar)
        {
            return Err("unreadable");
        }
    }
    let time = event_time(job, record, &value).ok_or("no_event_time")?;
    let now = topics::unix_millis();
    if job.core.watermark.max_future_skew.is_some_and(|skew| time > now.saturating_add(skew.millis())) {
        return Err("future");
    }
    let key = match &job.source.key {
        KeySource::RecordKey => String::from_utf8_lossy(record.key().ok_or("no_key")?).into_owned(),
        KeySource::Field(pointer) => match value.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar.to_string(),
            _ => return Err("no_key"),
        },
    };
    Ok(Parsed { key, time, value })
}

fn event_time(job: &Job, record: &Record<'_>, value: &Value) -> Option<i64> {
    job.source.event_time.iter().find_map(|source| match source {
        TimeSource::Header { name, unit } => {
            let text = String::from_utf8(record.header(name)??.to_vec()).ok()?;
            text_time(&text, *unit)
        }
        TimeSource::Field { pointer, unit } => match value.pointer(pointer)? {
            Value::String(text) => text_time(text, *unit),
            Value::Number(number) => text_time(&number.to_string(), *unit),
            _ => None,
        },
        TimeSource::RecordTimestamp => match record.timestamp() {
            Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => Some(time.millis()),
            Timestamp::NotAvailable => None,
        },
    })
}

/// The oracle reads integers; what else the job may take is left to the tests of the extraction.
fn text_time(text: &str, unit: TimeUnit) -> Option<i64> {
    let number = || text.trim().parse::<i64>().ok();
    match unit {
        TimeUnit::Seconds => number()?.checked_mul(1_000),
        TimeUnit::Millis => number(),
        TimeUnit::Micros => Some(number()?.div_euclid(1_000)),
        TimeUnit::Nanos => Some(number()?.div_euclid(1_000_000)),
        TimeUnit::Rfc3339 => None,
    }
}
