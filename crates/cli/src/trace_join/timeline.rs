//! Packets and lines of each trace in order of time, for people and for machines.

use std::fmt::Write;

use anyhow::Result;
use jiff::Timestamp;

use super::{TraceId, capture::Packet, logs::Line};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, serde::Serialize)]
#[serde(tag = "source", rename_all = "lowercase")]
pub(crate) enum Entry {
    /// On the wire.
    Capture(Packet),
    /// In a log.
    Log(Line),
}

impl Entry {
    const fn time(&self) -> Timestamp {
        match self {
            Self::Capture(packet) => packet.time,
            Self::Log(line) => line.time,
        }
    }

    const fn trace(&self) -> &TraceId {
        match self {
            Self::Capture(packet) => &packet.trace_id,
            Self::Log(line) => &line.trace_id,
        }
    }

    /// Lines of one moment in their own order, after packets.
    const fn rank(&self) -> u64 {
        match self {
            Self::Capture(_) => 0,
            Self::Log(line) => line.event_seq,
        }
    }
}

/// Everything read so far.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    entries: Vec<Entry>,
}

impl Timeline {
    /// Adds a packet.
    pub(crate) fn packet(&mut self, packet: Packet) {
        self.entries.push(Entry::Capture(packet));
    }

    /// Adds a line.
    pub(crate) fn line(&mut self, line: Line) {
        self.entries.push(Entry::Log(line));
    }

    /// One trace or all, each in order of time, the one that began first first.
    pub(crate) fn of(mut self, trace: Option<&TraceId>) -> Vec<Entry> {
        self.entries.retain(|entry| trace.is_none_or(|trace| entry.trace() == trace));
        self.entries.sort_by_key(|entry| (entry.time(), entry.rank()));
        let mut begun = std::collections::HashMap::new();
        for entry in &self.entries {
            begun.entry(entry.trace().clone()).or_insert_with(|| entry.time());
        }
        // Stable: within a trace the order of time stays.
        self.entries.sort_by_key(|entry| (begun.get(entry.trace()).copied(), entry.trace().clone()));
        self.entries
    }
}

/// An object a line.
///
/// # Errors
/// None that are expected.
pub(crate) fn json(entries: &[Entry]) -> Result<String> {
    let mut text = String::new();
    for entry in entries {
        writeln!(text, "{}", serde_json::to_string(entry)?)?;
    }
    Ok(text)
}

/// A heading for each trace, then a line for each entry with its milliseconds since the first.
pub(crate) fn text(entries: &[Entry]) -> String {
    let mut text = String::new();
    let mut last: Option<(&TraceId, Timestamp)> = None;
    for entry in entries {
        let begun = match last {
            Some((trace, begun)) if trace == entry.trace() => begun,
            _ => {
                let _ = writeln!(text, "trace {} from {}", entry.trace(), entry.time());
                entry.time()
            }
        };
        last = Some((entry.trace(), begun));
        let since = entry.time().duration_since(begun).as_secs_f64() * 1000.0;
        let _ = match entry {
            Entry::Capture(packet) => writeln!(
                text,
                "{since:>12.3} ms  {:<5}  {} > {}  {}{}{}",
                packet.protocol,
                packet.from,
                packet.to,
                packet.what,
                packet.response_ms.map(|time| format!("  after {time:.3} ms")).unwrap_or_default(),
                packet.network_latency_ms.map(|time| format!("  network {time:.3} ms")).unwrap_or_default(),
            ),
            Entry::Log(line) => {
                writeln!(text, "{since:>12.3} ms  log    {} {} {}", line.log, line.level, line.message)
            }
        };
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(trace: char, millis: i64, event_seq: u64) -> Line {
        Line {
            time: Timestamp::from_millisecond(millis).unwrap(),
            trace_id: TraceId::parse(&String::from(trace).repeat(32)).unwrap(),
            span_id: "00f067aa0ba902b7".to_owned(),
            log: "worker-0".to_owned(),
            event_seq,
            level: "INFO".to_owned(),
            message: format!("line {event_seq}"),
        }
    }

    #[test]
    fn traces_come_in_order_of_their_beginning_and_lines_of_one_moment_by_their_number() {
        let mut timeline = Timeline::default();
        for line in [line('a', 20, 5), line('b', 10, 9), line('a', 20, 4), line('b', 30, 1)] {
            timeline.line(line);
        }
        let text = text(&timeline.of(None));
        let expected = format!(
            "trace {} from 1970-01-01T00:00:00.01Z\n       0.000 ms  log    worker-0 INFO line 9\n      20.000 ms  log    worker-0 INFO line 1\n\
             trace {} from 1970-01-01T00:00:00.02Z\n       0.000 ms  log    worker-0 INFO line 4\n       0.000 ms  log    worker-0 INFO line 5\n",
            "b".repeat(32),
            "a".repeat(32)
        );
        assert_eq!(text, expected);
    }

    #[test]
    fn one_trace_can_be_asked_for() {
        let mut timeline = Timeline::default();
        timeline.line(line('a', 1, 1));
        timeline.line(line('b', 1, 2));
        let entries = timeline.of(Some(&TraceId::parse(&"b".repeat(32)).unwrap()));
        assert_eq!(entries, [Entry::Log(line('b', 1, 2))]);
        assert!(
            json(&entries)
                .unwrap()
                .starts_with(r#"{"source":"log","time":"1970-01-01T00:00:00.001Z","trace_id":"bbbb"#)
        );
    }
}
