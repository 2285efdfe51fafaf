//! Traces of results: a result goes on from the first sampled record in it, and is linked to more of them.
//!
//! ```text
//! ingest ── RecordTrace ──► Contributions of the shard ── by key and window ──► Traced results ── spans, headers ──► sink
//! ```
//! Telemetry and no part of the state: bounded by bytes, lost when the shard is restored, never a reason for a commit to fail.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use tidegate_core::{
    shard::{Pane, ResultRow},
    time::{EventTime, Shard},
};
use tidegate_kafka::{Header, OutputRecord};
use tidegate_proto::v1;
use tidegate_runtime::{
    span::{Attributes, Span, SpanKind},
    trace::{TRACEPARENT, TRACESTATE, TraceContext},
};

/// Bytes of contributions that a shard remembers; more are not traced.
const LIMIT: usize = 1 << 20;
/// Records that a result is linked to.
const LINKS: usize = 8;
/// Dead letters of a commit that get a span.
const DEAD_LETTERS: usize = 32;
/// Forgetting looks at all that is remembered: not more often than that.
const FORGET_EVERY_MS: i64 = 1_000;
/// What an entry takes beside what it holds, about.
const OVERHEAD: usize = 256;
/// Bytes that are left of the largest record when headers are added.
const MARGIN: usize = 512;

/// A sampled record.
#[derive(Clone, Debug, PartialEq)]
struct Contribution {
    time: EventTime,
    context: TraceContext,
    headers: Vec<(String, Option<Bytes>)>,
    bytes: usize,
}

/// Sampled records of open windows, by group key.
#[derive(Debug, Default)]
pub(crate) struct Contributions {
    by_key: HashMap<Vec<u8>, Vec<Contribution>>,
    bytes: usize,
    forgotten_before: Option<EventTime>,
}

/// A result that sampled records are in.
#[derive(Debug)]
pub(crate) struct TracedResult {
    /// Its place among the results of the commit.
    index: usize,
    start: EventTime,
    end: EventTime,
    pane: &'static str,
    records: Vec<Contribution>,
}

impl Contributions {
    /// Remembers a record, where there is room and its trace can be read.
    pub(crate) fn add(&mut self, trace: v1::RecordTrace) {
        let state = Some(trace.tracestate.as_bytes()).filter(|state| !state.is_empty());
        let Some(context) = TraceContext::sampled(trace.traceparent.as_bytes(), state) else { return };
        let headers: Vec<_> = trace.headers.into_iter().map(|header| (header.name, header.value)).collect();
        let of_headers: usize =
            headers.iter().map(|(name, value)| name.len() + value.as_ref().map_or(0, Bytes::len)).sum();
        let bytes = OVERHEAD + trace.key.len() + of_headers;
        if self.bytes + bytes > LIMIT {
            return;
        }
        self.bytes += bytes;
        let contribution = Contribution { time: EventTime(trace.time_ms), context, headers, bytes };
        self.by_key.entry(trace.key.to_vec()).or_default().push(contribution);
    }

    /// The results among `rows` that remembered records are in; early ones are not where a trace ends.
    pub(crate) fn of(&self, rows: &[ResultRow]) -> Vec<TracedResult> {
        if self.by_key.is_empty() {
            return Vec::new();
        }
        let counts = rows.iter().enumerate().filter(|(_, row)| row.pane != Pane::Early);
        let traced = counts.filter_map(|(index, row)| {
            let known = self.by_key.get(row.key.as_slice())?;
            let is_inside = |time: EventTime| match row.record {
                Some(_) => row.start < time && time <= row.end,
                None => row.start <= time && time < row.end,
            };
            let inside = known.iter().filter(|record| is_inside(record.time));
            let records: Vec<_> = inside.take(LINKS).cloned().collect();
            (!records.is_empty()).then(|| TracedResult {
                index,
                start: row.start,
                end: row.end,
                pane: row.pane.as_str(),
                records,
            })
        });
        traced.collect()
    }

    /// Forgets records whose windows are all purged: those before `time`.
    pub(crate) fn forget_before(&mut self, time: EventTime) {
        let is_soon = |before: EventTime| time.millis().saturating_sub(before.millis()) < FORGET_EVERY_MS;
        if self.by_key.is_empty() || self.forgotten_before.is_some_and(is_soon) {
            return;
        }
        self.forgotten_before = Some(time);
        self.by_key.retain(|_, records| {
            records.retain(|record| record.time >= time);
            !records.is_empty()
        });
        self.bytes = self.by_key.values().flatten().map(|record| record.bytes).sum();
    }
}

/// Spans of a commit's records; they end when this is dropped, which is when the commit's end is known.
#[derive(Debug, Default)]
pub(crate) struct CommitSpans(Vec<Span>);

impl CommitSpans {
    /// Begins a span for each traced result among `records`, and gives the result its headers, where it has room for them below
    /// `limit` bytes.
    pub(crate) fn results(
        &mut self,
        shard: Shard,
        traced: Vec<TracedResult>,
        records: &mut [OutputRecord],
        limit: usize,
    ) {
        for result in traced {
            let Some(record) = records.get_mut(result.index) else { continue };
            let Some((first, others)) = result.records.split_first() else { continue };
            let attributes = sent(record, shard)
                .with("tidegate.window.start_ms", result.start.millis())
                .with("tidegate.window.end_ms", result.end.millis())
                .with("tidegate.pane", result.pane);
            let links = others.iter().map(|other| &other.context);
            let name = format!("{} send", record.topic);
            let span = Span::child(&first.context, links, name, SpanKind::Producer, attributes);
            let here = span.as_ref().map_or_else(|| first.context.clone(), Span::context);
            let mut headers = vec![header(TRACEPARENT, here.traceparent())];
            let state = here.tracestate();
            headers.extend((!state.is_empty()).then(|| header(TRACESTATE, state)));
            headers.extend(
                first
                    .headers
                    .iter()
                    .map(|(name, value)| Header { name: name.clone().into(), value: value.clone() }),
            );
            if bytes_of(record, &headers) + MARGIN <= limit {
                record.headers.extend(headers);
            }
            self.0.extend(span);
        }
    }

    /// Begins a span for each dead letter among `records` that its producer sampled; its headers are those of its record.
    pub(crate) fn dead_letters(&mut self, shard: Shard, records: &[OutputRecord]) {
        let value = |record: &OutputRecord, name: &str| {
            record.headers.iter().find(|header| header.name == name).and_then(|header| header.value.clone())
        };
        let traced = records.iter().filter_map(|record| {
            let state = value(record, TRACESTATE);
            Some((record, TraceContext::sampled(&value(record, TRACEPARENT)?, state.as_deref())?))
        });
        for (record, context) in traced.take(DEAD_LETTERS) {
            let reason = value(record, "tidegate-reason").unwrap_or_default();
            let reason = String::from_utf8_lossy(&reason).into_owned();
            let attributes = sent(record, shard).with("tidegate.reason", reason);
            let name = format!("{} send", record.topic);
            let Some(span) = Span::child(&context, [], name, SpanKind::Producer, attributes) else { return };
            if tracing::enabled!(tracing::Level::DEBUG) {
                let log = || tracing::debug!(shard = shard.0, "wrote a dead letter of a trace");
                span.context().in_scope(log);
            }
            self.0.push(span);
        }
    }
}

/// What the span of any record that a commit writes says.
fn sent(record: &OutputRecord, shard: Shard) -> Attributes {
    Attributes::with_capacity(9)
        .with("messaging.system", "kafka")
        .with("messaging.operation.name", "send")
        .with("messaging.operation.type", "send")
        .with("messaging.destination.name", Arc::clone(&record.topic))
        .with("messaging.destination.partition.id", record.partition.0.to_string())
        .with("tidegate.shard", i64::from(shard.0))
}

fn header(name: &'static str, value: String) -> Header {
    Header { name: name.into(), value: Some(value.into()) }
}

fn bytes_of(record: &OutputRecord, headers: &[Header]) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    let of_headers: usize = headers
        .iter()
        .chain(&record.headers)
        .map(|header| header.name.len() + length(&header.value) + 10)
        .sum();
    length(&record.key) + length(&record.value) + of_headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::time::{Offset, Partition};

    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn trace(key: &str, time_ms: i64) -> v1::RecordTrace {
        v1::RecordTrace {
            shard: 0,
            time_ms,
            key: key.as_bytes().to_vec().into(),
            traceparent: TRACE.to_owned(),
            tracestate: "vendor=1".to_owned(),
            headers: vec![v1::Header {
                name: "baggage".to_owned(),
                value: Some(b"tenant=a".to_vec().into()),
            }],
        }
    }

    fn row(key: &str, start: i64, end: i64) -> ResultRow {
        ResultRow {
            key: key.as_bytes().to_vec(),
            start: EventTime(start),
            end: EventTime(end),
            pane: Pane::Final,
            revision: 0,
            values: Vec::new(),
            record: None,
        }
    }

    fn record(value: usize) -> OutputRecord {
        OutputRecord {
            topic: "out".into(),
            partition: Partition(0),
            key: Some(Bytes::from_static(b"k")),
            value: Some(vec![b'x'; value].into()),
            headers: Vec::new(),
            timestamp: None,
        }
    }

    #[test]
    fn a_result_has_the_records_of_its_key_and_window_and_no_others() {
        let mut known = Contributions::default();
        for (key, time) in [("a", 0), ("a", 9), ("a", 10), ("b", 5)] {
            known.add(trace(key, time));
        }
        let times = |rows: &[ResultRow]| -> Vec<(usize, Vec<i64>)> {
            let traced = known.of(rows).into_iter();
            traced
                .map(|result| (result.index, result.records.iter().map(|record| record.time.0).collect()))
                .collect()
        };
        let rows = [row("a", 0, 10), row("c", 0, 10), row("b", 10, 20), row("a", 10, 20)];
        assert_eq!(times(&rows), [(0, vec![0, 9]), (3, vec![10])]);
        // A window that ends with its record: (0, 10].
        let sliding = ResultRow { record: Some((Partition(0), Offset(7))), ..row("a", 0, 10) };
        assert_eq!(times(&[sliding]), [(0, vec![9, 10])]);
    }

    #[test]
    fn memory_is_bounded_and_comes_back() {
        let mut known = Contributions::default();
        for time in 0..1_000_000 {
            known.add(trace("a", time));
        }
        let kept = known.by_key.values().flatten().count();
        assert!(known.bytes <= LIMIT && kept < 10_000, "{kept}");
        assert_eq!(known.of(&[row("a", 0, 1_000)])[0].records.len(), LINKS);
        known.forget_before(EventTime(1_000_000));
        assert_eq!((known.bytes, known.by_key.len()), (0, 0));
        known.add(trace("a", 5));
        assert_eq!(known.of(&[row("a", 0, 10)]).len(), 1);
    }

    #[test]
    fn a_result_carries_trace_state_and_baggage_of_its_first_record_unless_it_is_too_large() {
        let mut known = Contributions::default();
        known.add(trace("k", 1));
        let rows = [row("k", 0, 10)];
        let mut records = [record(10)];
        CommitSpans::default().results(Shard(0), known.of(&rows), &mut records, 4096);
        let headers: Vec<_> = records[0]
            .headers
            .iter()
            .map(|header| (header.name.as_ref(), header.value.clone().unwrap()))
            .collect();
        let expected: [(&str, &[u8]); 3] =
            [("traceparent", TRACE.as_bytes()), ("tracestate", b"vendor=1"), ("baggage", b"tenant=a")];
        assert!(headers.iter().map(|(name, value)| (*name, value.as_ref())).eq(expected), "{headers:?}");

        let mut records = [record(4000)];
        CommitSpans::default().results(Shard(0), known.of(&rows), &mut records, 4096);
        assert_eq!(records[0].headers, []);
    }
}
