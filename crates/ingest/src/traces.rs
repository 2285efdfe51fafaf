//! Traces of records: a span for each record whose producer sampled it, from which its results go on.
//!
//! Telemetry and no part of the protocol: what is lost here, or sent twice, changes no result. Without a collector there is no
//! [`Traces`], and a record costs nothing; with one, a record without headers costs the look that finds none, and records beyond
//! what a second allows are not looked at.

use std::sync::Arc;

use tidegate_core::time::{Partition, Shard, Tick};
use tidegate_extract::Extractor;
use tidegate_kafka::Record;
use tidegate_proto::v1;
use tidegate_runtime::{
    span::{Attributes, Span, SpanKind},
    trace::{Allowance, BAGGAGE, TRACEPARENT, TRACESTATE, TraceContext},
};

/// Traced records a second; of those beyond, only the dead letters show that they were sampled.
const EACH_SECOND: u32 = 200;
/// Bytes of baggage and tags that go along with a record.
const TAGS_LIMIT: usize = 8192;

/// The traced records of this process.
#[derive(Debug)]
pub(crate) struct Traces {
    topic: Arc<str>,
    group: Arc<str>,
    /// `<topic> receive`
    name: String,
    /// Headers that go along, besides those of the standard.
    tags: Vec<String>,
    allowance: Allowance,
    /// Not yet told to the workers.
    untold: Vec<v1::RecordTrace>,
}

impl Traces {
    /// Of a source topic that is read in a group; headers named in `tags` go on to the results.
    pub(crate) fn new(topic: &str, group: &str, tags: Vec<String>) -> Self {
        Self {
            topic: topic.into(),
            group: group.into(),
            name: format!("{topic} receive"),
            tags,
            allowance: Allowance::new(EACH_SECOND),
            untold: Vec::new(),
        }
    }

    /// Begins a span for a record that has been taken, if its producer sampled it.
    pub(crate) fn took(
        &mut self,
        record: &Record<'_>,
        partition: Partition,
        extractor: &mut Extractor,
        shards: u32,
        now: Tick,
    ) {
        // librdkafka parses and copies all headers of a record that is asked for one.
        if !self.allowance.is_left(now.0) {
            return;
        }
        let Some(Some(parent)) = record.header(TRACEPARENT) else { return };
        if TraceContext::is_unsampled(parent) {
            return;
        }
        let Some(parent) = TraceContext::sampled(parent, record.header(TRACESTATE).flatten()) else { return };
        self.allowance.take(now.0);
        let offset = record.offset().0;
        let attributes = Attributes::with_capacity(7)
            .with("messaging.system", "kafka")
            .with("messaging.operation.name", "receive")
            .with("messaging.operation.type", "receive")
            .with("messaging.destination.name", Arc::clone(&self.topic))
            .with("messaging.destination.partition.id", partition.0.to_string())
            .with("messaging.kafka.offset", i64::try_from(offset).unwrap_or(i64::MAX))
            .with("messaging.consumer.group.name", Arc::clone(&self.group));
        let span = Span::child(&parent, [], self.name.clone(), SpanKind::Consumer, attributes);
        let here = span.map_or(parent, |span| span.context());
        if tracing::enabled!(tracing::Level::DEBUG) {
            here.in_scope(|| tracing::debug!(partition = partition.0, offset, "took a record of a trace"));
        }
        // What is rejected is a dead letter, and carries its own headers.
        let Ok(extracted) = extractor.extract(record) else { return };
        self.untold.push(v1::RecordTrace {
            shard: Shard::of(extracted.key, shards).0,
            time_ms: extracted.time.millis(),
            key: extracted.key.to_vec().into(),
            traceparent: here.traceparent(),
            tracestate: here.tracestate(),
            headers: self.tags_of(record),
        });
    }

    /// What the workers are to be told, with the frames of the same records.
    pub(crate) fn drain(&mut self) -> Vec<v1::RecordTrace> {
        std::mem::take(&mut self.untold)
    }

    fn tags_of(&self, record: &Record<'_>) -> Vec<v1::Header> {
        let mut left = TAGS_LIMIT;
        let goes_along = |name: &str| name == BAGGAGE || self.tags.iter().any(|tag| tag == name);
        let tags = record.headers().filter(|(name, _)| goes_along(name)).filter(|(name, value)| {
            let bytes = name.len() + value.map_or(0, <[u8]>::len);
            let fits = bytes <= left;
            left -= if fits { bytes } else { 0 };
            fits
        });
        tags.map(|(name, value)| v1::Header {
            name: name.to_owned(),
            value: value.map(|value| value.to_vec().into()),
        })
        .collect()
    }
}
