//! Lines of the services' logs that belong to a trace, in both of their forms.

use std::io::BufRead;

use anyhow::Result;
use jiff::Timestamp;
use serde_json::Value;

use super::TraceId;

/// A line of a log.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Line {
    /// When it was written.
    #[serde(serialize_with = "super::as_text")]
    pub(crate) time: Timestamp,
    /// Its trace.
    pub(crate) trace_id: TraceId,
    /// Its span.
    pub(crate) span_id: String,
    /// The log it is from.
    pub(crate) log: String,
    /// Its number in the process.
    pub(crate) event_seq: u64,
    /// `INFO` and the like.
    pub(crate) level: String,
    /// The sentence, with its fields.
    pub(crate) message: String,
}

/// Calls `on_line` for each line of a trace.
///
/// # Errors
/// When the log cannot be read.
pub(crate) fn read(log: impl BufRead, name: &str, mut on_line: impl FnMut(Line)) -> Result<()> {
    for line in log.lines() {
        let line = line?;
        let found = if line.starts_with('{') { json(&line, name) } else { pretty(&line, name) };
        found.into_iter().for_each(&mut on_line);
    }
    Ok(())
}

fn json(line: &str, log: &str) -> Option<Line> {
    let value: Value = serde_json::from_str(line).ok()?;
    let text = |name: &str| value.get(name)?.as_str();
    let fields = value.get("fields")?.as_object()?;
    let mut message = fields.get("message").and_then(Value::as_str).unwrap_or_default().to_owned();
    for (name, value) in fields.iter().filter(|(name, _)| *name != "message") {
        message += &format!(" {name}={}", value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    }
    Some(Line {
        time: text("timestamp")?.parse().ok()?,
        trace_id: TraceId::parse(text("trace_id")?).ok()?,
        span_id: text("span_id")?.to_owned(),
        log: log.to_owned(),
        event_seq: value.get("event_seq")?.as_u64()?,
        level: text("level")?.to_owned(),
        message,
    })
}

/// `TIME LEVEL target: sentence field=… event_seq=N trace_id=… span_id=…`
fn pretty(line: &str, log: &str) -> Option<Line> {
    let (start, ids) = line.rsplit_once(" event_seq=")?;
    let mut ids = ids.split(' ');
    let event_seq = ids.next()?.parse().ok()?;
    let trace_id = TraceId::parse(ids.next()?.strip_prefix("trace_id=")?).ok()?;
    let span_id = ids.next()?.strip_prefix("span_id=")?.to_owned();
    let (time, rest) = start.split_once(' ')?;
    let (level, message) = rest.trim_start().split_once(' ')?;
    Some(Line {
        time: time.parse().ok()?,
        trace_id,
        span_id,
        log: log.to_owned(),
        event_seq,
        level: level.to_owned(),
        message: message.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_line_say_the_same_and_others_are_left_out() {
        let log = "\
2026-01-02T03:04:05.678901Z  WARN task{task=\"x\"}: tidegate_worker: too late partition=3 event_seq=7 trace_id=4bf92f3577b34da6a3ce929d0e0e4736 span_id=00f067aa0ba902b7
2026-01-02T03:04:05.678901Z  INFO tidegate_worker: no trace event_seq=8
{\"event_seq\":7,\"trace_id\":\"4bf92f3577b34da6a3ce929d0e0e4736\",\"span_id\":\"00f067aa0ba902b7\",\"timestamp\":\"2026-01-02T03:04:05.678901Z\",\"level\":\"WARN\",\"fields\":{\"message\":\"too late\",\"partition\":3},\"target\":\"tidegate_worker\"}
{\"event_seq\":9,\"timestamp\":\"2026-01-02T03:04:05.678901Z\",\"level\":\"INFO\",\"fields\":{\"message\":\"no trace\"}}
a panic's line
";
        let mut lines = Vec::new();
        read(log.as_bytes(), "worker-0", |line| lines.push(line)).unwrap();
        assert_eq!(lines.len(), 2);
        assert!(lines[0].message.ends_with("tidegate_worker: too late partition=3"), "{lines:?}");
        assert_eq!(lines[1].message, "too late partition=3");
        let json = Line { message: lines[1].message.clone(), ..lines[0].clone() };
        assert_eq!(json, lines[1]);
        assert_eq!((json.event_seq, json.level.as_str(), json.log.as_str()), (7, "WARN", "worker-0"));
    }
}
