//! The content of a commit as the records of its transaction.
//!
//! ```text
//! results        key = group key     value = {"key":…,"window_start":ms,"window_end":ms,"pane":…,"revision":…,"<aggregate>":…};
//!                                    of sliding windows also "source_partition" and "source_offset" of the record
//! reordered      the record as it was, nothing added
//! dead letters   the record as it was, and headers that say why it is here
//! changelog      the chunks of the block
//! ```
//! All values of the results lie in one buffer that the records share. What goes to a shard's partition of a topic with fewer
//! partitions goes to `shard mod partitions`.

use std::{io::Write, sync::Arc};

use bytes::Bytes;
use tidegate_core::{
    aggregate::Value,
    block::Block,
    dead_letter::{DeadLetter, Payload},
    shard::{Commit, Reordered, ResultRow},
    time::{EventTime, Partition, Shard},
};
use tidegate_kafka::{Header, OutputRecord};

/// Bytes that a record takes in a batch beside key, value and headers, at most.
const RECORD_OVERHEAD: usize = 160;
/// Bytes that a header takes beside name and value, at most.
const HEADER_OVERHEAD: usize = 10;
/// A chunk of the changelog is at most this long, whatever the topic would take.
const MAX_CHUNK: usize = 900 << 10;
/// 10 to the power of this is a `u64`.
const MOST_PLACES: u32 = 19;

/// A topic that shards write to.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    /// Its name.
    pub(crate) topic: Arc<str>,
    /// How many partitions it has.
    pub(crate) partitions: u32,
}

impl Target {
    fn partition(&self, shard: Shard) -> Partition {
        Partition(shard.0 % self.partitions.max(1))
    }
}

/// Where and how a job's output is written.
#[derive(Clone, Debug)]
pub(crate) struct Renderer {
    /// The job's name.
    pub(crate) job: Arc<str>,
    /// The topic that the records come from.
    pub(crate) source: Arc<str>,
    /// Results.
    pub(crate) sink: Target,
    /// Dead letters.
    pub(crate) dead_letter: Target,
    /// Blocks, a partition for each shard.
    pub(crate) changelog: Arc<str>,
    /// The largest record that all of the topics take.
    pub(crate) message_bytes: usize,
    /// `,"<name>":` for each aggregate.
    pub(crate) fields: Vec<String>,
}

/// The records of a transaction.
#[derive(Debug)]
pub(crate) struct Rendered {
    /// Results, dead letters, then chunks.
    pub(crate) records: Vec<OutputRecord>,
    /// Index of the first chunk: its offset is the block's.
    pub(crate) first_chunk: usize,
    /// The block, for the local store.
    pub(crate) block: Block,
}

impl Renderer {
    /// The names of the aggregates as they stand in a result.
    pub(crate) fn fields<'a>(names: impl Iterator<Item = &'a str>) -> Vec<String> {
        names.map(|name| format!(",{}:", serde_json::Value::from(name))).collect()
    }

    /// The records of `commit`.
    pub(crate) fn render(&self, shard: Shard, commit: Commit) -> Rendered {
        let Commit { results, reordered, dead_letters, block, spilled: _ } = commit;
        let mut records = Vec::with_capacity(results.len() + reordered.len() + dead_letters.len() + 1);
        self.results(shard, results, &mut records);
        let partition = self.sink.partition(shard);
        let as_it_was = |record: Reordered| as_it_was(&self.sink.topic, partition, record.payload);
        records.extend(reordered.into_iter().map(as_it_was));
        records.extend(dead_letters.into_iter().map(|letter| self.dead_letter(shard, letter)));
        let first_chunk = records.len();
        let limit = self.message_bytes.saturating_sub(RECORD_OVERHEAD).min(MAX_CHUNK);
        records.extend(block.chunks(limit).into_iter().map(|chunk| OutputRecord {
            topic: Arc::clone(&self.changelog),
            partition: Partition(shard.0),
            key: None,
            value: Some(chunk.into()),
            headers: Vec::new(),
            timestamp: None,
        }));
        Rendered { records, first_chunk, block }
    }

    fn results(&self, shard: Shard, rows: Vec<ResultRow>, records: &mut Vec<OutputRecord>) {
        let mut values = Vec::with_capacity(rows.len() * (112 + 24 * self.fields.len()));
        let ends: Vec<usize> = rows
            .iter()
            .map(|row| {
                self.write_value(row, &mut values);
                values.len()
            })
            .collect();
        let values = Bytes::from(values);
        let mut start = 0;
        for (row, end) in rows.into_iter().zip(ends) {
            // The last moment in the window.
            let timestamp =
                if row.record.is_some() { row.end } else { EventTime(row.end.0.saturating_sub(1)) };
            records.push(OutputRecord {
                topic: Arc::clone(&self.sink.topic),
                partition: self.sink.partition(shard),
                key: Some(row.key.into()),
                value: Some(values.slice(start..end)),
                headers: Vec::new(),
                timestamp: Some(timestamp),
            });
            start = end;
        }
    }

    fn write_value(&self, row: &ResultRow, out: &mut Vec<u8>) {
        out.extend_from_slice(b"{\"key\":");
        write_text(&row.key, out);
        out.extend_from_slice(b",\"window_start\":");
        write_integer(row.start.0, out);
        out.extend_from_slice(b",\"window_end\":");
        write_integer(row.end.0, out);
        out.extend_from_slice(b",\"pane\":\"");
        out.extend_from_slice(row.pane.as_str().as_bytes());
        out.extend_from_slice(b"\",\"revision\":");
        write_integer(i64::from(row.revision), out);
        if let Some((partition, offset)) = row.record {
            out.extend_from_slice(b",\"source_partition\":");
            out.extend_from_slice(itoa::Buffer::new().format(partition.0).as_bytes());
            out.extend_from_slice(b",\"source_offset\":");
            out.extend_from_slice(itoa::Buffer::new().format(offset.0).as_bytes());
        }
        for (field, value) in self.fields.iter().zip(&row.values) {
            out.extend_from_slice(field.as_bytes());
            write_result(value, out);
        }
        out.push(b'}');
    }

    fn dead_letter(&self, shard: Shard, letter: DeadLetter) -> OutputRecord {
        let why = self.why(&letter);
        let partition = self.dead_letter.partition(shard);
        let mut record = as_it_was(&self.dead_letter.topic, partition, letter.payload);
        let limit = self.message_bytes.saturating_sub(header_bytes(&why));
        if record_bytes(&record) > limit {
            omit_payload(&mut record, limit);
        }
        record.headers.extend(why);
        record
    }

    /// The headers that say where a dead letter comes from and why it is one.
    fn why(&self, letter: &DeadLetter) -> Vec<Header> {
        let mut headers = vec![
            header("tidegate-reason", letter.reason.as_str()),
            header("tidegate-job", &*self.job),
            header("tidegate-topic", &*self.source),
            header("tidegate-partition", letter.partition.to_string()),
            header("tidegate-offset", letter.offset.to_string()),
        ];
        let mut time = |name, time: Option<EventTime>| {
            headers.extend(time.map(|time| header(name, time.to_string())));
        };
        time("tidegate-event-time", letter.event_time);
        time("tidegate-watermark", letter.watermark);
        time("tidegate-window-start", letter.missed.map(|(start, _)| start));
        time("tidegate-window-end", letter.missed.map(|(_, end)| end));
        if !letter.detail.is_empty() {
            headers.push(header("tidegate-detail", letter.detail.as_str()));
        }
        headers
    }
}

/// A record of the source, whole.
fn as_it_was(topic: &Arc<str>, partition: Partition, payload: Arc<Payload>) -> OutputRecord {
    let Payload { key, value, headers, timestamp } = Arc::unwrap_or_clone(payload);
    let headers = headers
        .into_iter()
        .map(|(name, value)| Header { name: name.into(), value: value.map(Bytes::from) })
        .collect();
    OutputRecord {
        topic: Arc::clone(topic),
        partition,
        key: key.map(Bytes::from),
        value: value.map(Bytes::from),
        headers,
        timestamp: timestamp.map(EventTime),
    }
}

/// Takes the value out of a record that is too large, and key and headers too where that is not enough: topic, partition and
/// offset among the headers refer to it.
fn omit_payload(record: &mut OutputRecord, limit: usize) {
    let size = record.value.as_ref().map_or(0, Bytes::len);
    record.value = None;
    let notes = vec![header("tidegate-payload", "omitted"), header("tidegate-size", size.to_string())];
    if record_bytes(record) + header_bytes(&notes) > limit {
        record.key = None;
        record.headers.clear();
    }
    record.headers.extend(notes);
}

fn record_bytes(record: &OutputRecord) -> usize {
    let length = |bytes: &Option<Bytes>| bytes.as_ref().map_or(0, Bytes::len);
    RECORD_OVERHEAD + length(&record.key) + length(&record.value) + header_bytes(&record.headers)
}

fn header_bytes(headers: &[Header]) -> usize {
    let bytes =
        |header: &Header| HEADER_OVERHEAD + header.name.len() + header.value.as_ref().map_or(0, Bytes::len);
    headers.iter().map(bytes).sum()
}

fn header(name: &'static str, value: impl Into<String>) -> Header {
    Header { name: name.into(), value: Some(value.into().into()) }
}

/// Text as JSON; what is not UTF-8 in it is replaced.
fn write_text(text: &[u8], out: &mut Vec<u8>) {
    let is_plain = |byte: &u8| matches!(byte, 0x20..0x7f) && !matches!(byte, b'"' | b'\\');
    if text.iter().all(is_plain) {
        out.push(b'"');
        out.extend_from_slice(text);
        out.push(b'"');
    } else {
        // Writing to a Vec cannot fail.
        let _ = serde_json::to_writer(out, &String::from_utf8_lossy(text));
    }
}

fn write_result(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Count(count) => write_unsigned(*count, out),
        Value::Decimal { units, scale } if *scale <= MOST_PLACES => match i64::try_from(*units) {
            Ok(units) => write_decimal(units, *scale, out),
            Err(_) => drop(write!(out, "{value}")),
        },
        other => drop(write!(out, "{other}")),
    }
}

/// As [`Value`] displays it: a result has several, and formatting them is a tenth of what a result costs.
fn write_decimal(units: i64, scale: u32, out: &mut Vec<u8>) {
    let one = 10_u64.pow(scale);
    let (whole, mut fraction) = (units.unsigned_abs() / one, units.unsigned_abs() % one);
    if units < 0 {
        out.push(b'-');
    }
    write_unsigned(whole, out);
    if fraction == 0 {
        return;
    }
    let mut places = scale as usize;
    while fraction.is_multiple_of(10) {
        (fraction, places) = (fraction / 10, places - 1);
    }
    let mut digits = itoa::Buffer::new();
    let digits = digits.format(fraction);
    out.push(b'.');
    out.extend(std::iter::repeat_n(b'0', places.saturating_sub(digits.len())));
    out.extend_from_slice(digits.as_bytes());
}

fn write_unsigned(value: u64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

fn write_integer(value: i64, out: &mut Vec<u8>) {
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::{block::BlockError, dead_letter::Reason, ordered::Place, shard::Pane, time::Offset};

    fn renderer() -> Renderer {
        Renderer {
            job: "count".into(),
            source: "clicks".into(),
            sink: Target { topic: "results".into(), partitions: 4 },
            dead_letter: Target { topic: "dead".into(), partitions: 1 },
            changelog: "job-changelog".into(),
            message_bytes: 2_000,
            fields: Renderer::fields(["clicks", "amount", "mean"].into_iter()),
        }
    }

    fn render(results: Vec<ResultRow>, dead_letters: Vec<DeadLetter>, block: Block) -> Rendered {
        renderer()
            .render(Shard(6), Commit { results, reordered: Vec::new(), dead_letters, block, spilled: None })
    }

    fn row(key: &[u8], pane: Pane, revision: u32, values: Vec<Value>) -> ResultRow {
        ResultRow {
            key: key.to_vec(),
            start: EventTime(-10_000),
            end: EventTime(0),
            pane,
            revision,
            values,
            record: None,
        }
    }

    fn letter(payload: Payload) -> DeadLetter {
        DeadLetter {
            partition: Partition(3),
            offset: Offset(77),
            reason: Reason::Late,
            detail: String::new(),
            event_time: Some(EventTime(-5)),
            watermark: Some(EventTime(30)),
            missed: Some((EventTime(-10), EventTime(0))),
            payload: Arc::new(payload),
        }
    }

    fn text(bytes: Option<&Bytes>) -> &str {
        bytes.map_or("-", |bytes| std::str::from_utf8(bytes).unwrap())
    }

    fn headers(record: &OutputRecord) -> String {
        let pairs: Vec<_> = record
            .headers
            .iter()
            .map(|header| format!("{}={}", header.name, text(header.value.as_ref())))
            .collect();
        pairs.join(" ")
    }

    #[test]
    fn decimals_are_written_as_they_display() {
        let all = [0, 1, -1, 9, 10, 1_200, -1_250, 12_345, 100_000, i64::MAX.into(), i64::MIN.into()];
        let large = [i128::from(i64::MAX) + 1, i128::MIN];
        for (units, scale) in
            all.into_iter().chain(large).flat_map(|units| (0..40).map(move |at| (units, at)))
        {
            let value = Value::Decimal { units, scale };
            let mut written = Vec::new();
            write_result(&value, &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), value.to_string());
        }
    }

    #[test]
    fn keys_are_written_as_serde_writes_them() {
        for key in ["", "u-1", "a b", "\"", "\\", "\u{7f}", "\n", "ü", "u-\0"] {
            let mut written = Vec::new();
            write_text(key.as_bytes(), &mut written);
            assert_eq!(written, serde_json::to_vec(key).unwrap(), "{key:?}");
        }
    }

    #[test]
    fn results_are_lines_of_json_under_their_group_key() {
        let values = vec![Value::Count(3), Value::Decimal { units: -1_250, scale: 2 }, Value::Float(0.5)];
        let rendered = render(
            vec![
                row(b"u-1", Pane::Final, 0, values),
                row(b"q\"\n\xff", Pane::Late, 2, vec![Value::Count(1), Value::Null, Value::Null]),
            ],
            vec![],
            Block::default(),
        );
        let [first, second, chunk] = rendered.records.as_slice() else { panic!("{:?}", rendered.records) };
        assert_eq!(
            text(first.value.as_ref()),
            r#"{"key":"u-1","window_start":-10000,"window_end":0,"pane":"final","revision":0,"clicks":3,"amount":-12.5,"mean":0.5}"#
        );
        assert_eq!(
            text(second.value.as_ref()),
            "{\"key\":\"q\\\"\\n\u{fffd}\",\"window_start\":-10000,\"window_end\":0,\"pane\":\"late\",\"revision\":2,\"clicks\":1,\"amount\":null,\"mean\":null}"
        );
        assert_eq!(second.key.as_deref(), Some(b"q\"\n\xff".as_slice()), "the bytes as they are");
        assert_eq!((&*first.topic, first.partition), ("results", Partition(2)), "6 mod 4");
        assert_eq!(first.timestamp, Some(EventTime(-1)), "the last moment of the window");
        assert_eq!((&*chunk.topic, chunk.partition), ("job-changelog", Partition(6)));
    }

    #[test]
    fn the_result_of_a_sliding_window_names_its_record() {
        let record = Some((Partition(3), Offset(u64::MAX)));
        let result = ResultRow { record, ..row(b"u", Pane::Final, 0, vec![Value::Count(u64::MAX)]) };
        let rendered = render(vec![result], vec![], Block::default());
        assert_eq!(
            text(rendered.records[0].value.as_ref()),
            r#"{"key":"u","window_start":-10000,"window_end":0,"pane":"final","revision":0,"source_partition":3,"source_offset":18446744073709551615,"clicks":18446744073709551615}"#
        );
        assert_eq!(rendered.records[0].timestamp, Some(EventTime(0)), "when the record was");
    }

    #[test]
    fn a_dead_letter_is_whole_and_says_why_it_is_one() {
        let payload = Payload {
            key: Some(b"k".to_vec()),
            value: Some(b"{}".to_vec()),
            headers: vec![("h".into(), None), ("h".into(), Some(b"2".to_vec()))],
            timestamp: Some(5),
        };
        let noted = DeadLetter {
            reason: Reason::Unreadable,
            detail: "line 1".into(),
            event_time: None,
            watermark: None,
            missed: None,
            ..letter(payload.clone())
        };
        let rendered = render(vec![], vec![letter(payload), noted], Block::default());
        let record = &rendered.records[0];
        assert_eq!((text(record.key.as_ref()), text(record.value.as_ref())), ("k", "{}"));
        assert_eq!(
            (&*record.topic, record.partition, record.timestamp),
            ("dead", Partition(0), Some(EventTime(5)))
        );
        assert_eq!(
            headers(record),
            "h=- h=2 tidegate-reason=late tidegate-job=count tidegate-topic=clicks tidegate-partition=3 tidegate-offset=77 \
             tidegate-event-time=-5 tidegate-watermark=30 tidegate-window-start=-10 tidegate-window-end=0"
        );
        assert_eq!(
            headers(&rendered.records[1]),
            "h=- h=2 tidegate-reason=unreadable tidegate-job=count tidegate-topic=clicks tidegate-partition=3 tidegate-offset=77 tidegate-detail=line 1"
        );
    }

    #[test]
    fn a_dead_letter_too_large_for_its_topic_refers_to_the_record() {
        let headers_of = |payload| {
            let rendered = render(vec![], vec![letter(payload)], Block::default());
            let record = &rendered.records[0];
            assert!(record_bytes(record) <= renderer().message_bytes);
            assert_eq!(record.value, None);
            (record.key.clone(), headers(record))
        };
        let value = Some(vec![b'x'; 1_990]);
        let (key, found) = headers_of(Payload {
            key: Some(b"k".to_vec()),
            value: value.clone(),
            headers: vec![("h".into(), None)],
            timestamp: None,
        });
        assert_eq!(key.as_deref(), Some(b"k".as_slice()));
        assert!(
            found.starts_with("h=- tidegate-payload=omitted tidegate-size=1990 tidegate-reason=late"),
            "{found}"
        );

        let (key, found) =
            headers_of(Payload { key: value.clone(), value: None, headers: vec![], timestamp: None });
        assert_eq!(key, None);
        assert!(
            found.starts_with("tidegate-payload=omitted tidegate-size=0 tidegate-reason=late"),
            "{found}"
        );
    }

    #[test]
    fn a_reordered_record_leaves_as_it_came() {
        let headers = vec![("h".to_owned(), Some(b"1".to_vec())), ("h".to_owned(), None)];
        let payload = Payload { key: None, value: Some(b"v".to_vec()), headers, timestamp: Some(-4) };
        let place = Place { time: EventTime(9), partition: Partition(1), offset: Offset(2) };
        let reordered =
            vec![Reordered { place, key: b"group".as_slice().into(), payload: Arc::new(payload) }];
        let commit = Commit {
            results: Vec::new(),
            reordered,
            dead_letters: Vec::new(),
            block: Block::default(),
            spilled: None,
        };
        let rendered = renderer().render(Shard(6), commit);
        let record = &rendered.records[0];
        assert_eq!((&*record.topic, record.partition, rendered.first_chunk), ("results", Partition(2), 1));
        assert_eq!((record.key.as_deref(), text(record.value.as_ref())), (None, "v"));
        assert_eq!(record.timestamp, Some(EventTime(-4)));
        let headers: Vec<_> = record.headers.iter().map(|h| (&*h.name, text(h.value.as_ref()))).collect();
        assert_eq!(headers, [("h", "1"), ("h", "-")], "none is added");
    }

    #[test]
    fn a_block_follows_the_output_in_chunks_that_the_topic_takes() -> Result<(), BlockError> {
        let mut block = Block { incarnation: 4, sequence: 9, ..Block::default() };
        for entry in 0..500u32 {
            block.entries.upsert(&entry.to_be_bytes(), b"value");
        }
        let results = vec![row(b"a", Pane::Final, 0, vec![Value::Count(1)])];
        let rendered = render(results, vec![letter(Payload::default())], block.clone());
        assert_eq!(rendered.first_chunk, 2);
        assert!(rendered.records.len() > 4);
        let mut assembler = tidegate_core::block::Assembler::default();
        let mut read = None;
        for record in &rendered.records[rendered.first_chunk..] {
            assert!(record_bytes(record) <= renderer().message_bytes);
            assert_eq!(read, None);
            read = assembler.push(record.value.as_ref().unwrap())?;
        }
        assert_eq!(read, Some(block));
        Ok(())
    }
}
