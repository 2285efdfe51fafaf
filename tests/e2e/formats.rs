//! Payloads other than JSON, from the topic to the results: Avro and protobuf with a schema registry, bytes without fields.

use std::fs;
use std::time::{Duration, Instant};

use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tidegate_tests::{SchemaRegistry, clients, dev_kafka};

use crate::{
    dev::{Run, program},
    job,
};

fn job(name: &str, source: &str, aggregates: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {name}-in
  partitions: 2
{source}
watermark: {{ delay: 1s, idle_timeout: 1s, on_quiet: finish }}
window: {{ tumbling: {{ size: 10s }} }}
aggregates:
  - {{ name: n, fn: count }}
{aggregates}
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead }}
state: {{ shards: 4 }}
"
    )
}

/// A run of a job over what is in its source topic.
struct Job {
    run: Run,
    folder: std::path::PathBuf,
}

fn start(bootstrap: &str, text: &str, files: &[(&str, &str)]) -> Job {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("job.yaml"), text).unwrap();
    for (name, content) in files {
        fs::write(at(name), content).unwrap();
    }
    let path = |name: &str| at(name).to_str().unwrap().to_owned();
    let arguments = [
        ["--kafka".to_owned(), bootstrap.to_owned()],
        ["--job".to_owned(), path("job.yaml")],
        ["--events".to_owned(), "0".to_owned()],
        ["--workers".to_owned(), "1".to_owned()],
        ["--output".to_owned(), path("results.ndjson")],
        ["--dead-letters".to_owned(), path("letters.ndjson")],
    ];
    let kept = folder.path().to_owned();
    Job { run: Run::start(folder, &arguments.concat()), folder: kept }
}

impl Job {
    /// Results, and reason and detail of the dead letters, sorted.
    fn end(self) -> (Vec<String>, Vec<(String, String)>) {
        // It keeps the folder until the files are read.
        let ended = self.run.end();
        assert_eq!(ended.code, Some(0), "{}", ended.lines.join("\n"));
        let read = |name: &str| -> Vec<Value> {
            let text = fs::read_to_string(self.folder.join(name)).unwrap();
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
        };
        let mut results: Vec<_> = read("results.ndjson").iter().map(result).collect();
        results.sort();
        let mut letters: Vec<_> = read("letters.ndjson").iter().map(letter).collect();
        letters.sort();
        (results, letters)
    }
}

fn result(value: &Value) -> String {
    let value = value.get("value").unwrap_or(value);
    format!(
        "{} {} n={} sum={}",
        value["key"].as_str().unwrap(),
        value["window_start"],
        value["n"],
        value["sum"]
    )
}

fn letter(value: &Value) -> (String, String) {
    let header = |name: &str| {
        let headers = value["headers"].as_array().unwrap().iter();
        let found = headers.rev().find(|pair| pair[0] == name);
        found.and_then(|pair| pair[1].as_str()).unwrap_or_default().to_owned()
    };
    (header("tidegate-reason"), header("tidegate-detail"))
}

fn send(bootstrap: &str, topic: &str, payloads: &[Vec<u8>]) {
    clients::create_topic_named(bootstrap, topic, 2, &[]).unwrap();
    let producer: BaseProducer = clients::client_config(bootstrap).create().unwrap();
    for (at, payload) in payloads.iter().enumerate() {
        let partition = i32::try_from(at % 2).unwrap();
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(payload);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
}

/// The zero byte and the id of a registry's framing.
fn framed(id: u32, content: &[u8]) -> Vec<u8> {
    [&[0][..], &id.to_be_bytes(), content].concat()
}

fn avro_long(value: i64) -> Vec<u8> {
    let mut rest = (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned();
    let mut bytes = Vec::new();
    while rest >= 0x80 {
        bytes.push(u8::try_from(rest & 0x7f).unwrap() | 0x80);
        rest >>= 7;
    }
    bytes.push(u8::try_from(rest).unwrap());
    bytes
}

fn avro_text(text: &str) -> Vec<u8> {
    [avro_long(i64::try_from(text.len()).unwrap()), text.as_bytes().to_vec()].concat()
}

const FIRST: &str = r#"{"type":"record","name":"Click","namespace":"shop","fields":[
    {"name":"user","type":"string"},
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
/// The same click, later: other fields, another order, another unit.
const SECOND: &str = r#"{"type":"record","name":"Click","namespace":"shop","fields":[
    {"name":"ts","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"amount","type":["null",{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}]},
    {"name":"user","type":"string"}]}"#;

#[test]
fn avro_with_a_registry_waits_for_it_and_reads_each_record_with_its_own_schema() {
    let bootstrap = dev_kafka().bootstrap();
    let name = clients::unique("avro");
    let registry = SchemaRegistry::start().unwrap();
    registry.put(1, "AVRO", FIRST, &[]);
    registry.put(2, "AVRO", SECOND, &[]);
    registry.set_down(true);
    let first = |user: &str, ts: i64| framed(1, &[avro_text(user), avro_long(ts)].concat());
    let second = |user: &str, ts: i64, cents: i16| {
        let amount = [avro_long(1), avro_long(2), cents.to_be_bytes().to_vec()].concat();
        framed(2, &[avro_long(ts * 1000 + 999), amount, avro_text(user)].concat())
    };
    let payloads = [
        first("a", 1_000),
        second("a", 2_000, 1234),
        second("a", 3_000, -34),
        first("b", 12_000),
        second("b", -5, 1),
        framed(1, &[4, b'x']),
        framed(99, b"what this is nobody knows"),
        b"{\"user\":\"a\"}".to_vec(),
        b"".to_vec(),
    ];
    send(bootstrap, &format!("{name}-in"), &payloads);
    let source = format!(
        "  format: {{ avro: {{ registry: \"{}\", unknown_schema: dead_letter }} }}
  key: {{ field: /user }}
  event_time: [{{ field: /ts }}]",
        registry.url()
    );
    let job = start(bootstrap, &job(&name, &source, "  - { name: sum, fn: sum, field: /amount }"), &[]);
    // Nothing of it is a dead letter while the registry does not answer: it is asked again.
    let deadline = Instant::now() + Duration::from_secs(120);
    while registry.requests().iter().filter(|path| *path == "/schemas/ids/1").count() < 3 {
        assert!(Instant::now() < deadline, "the registry is not asked again: {:?}", registry.requests());
        std::thread::sleep(Duration::from_millis(20));
    }
    registry.set_down(false);
    let (results, letters) = job.end();
    assert_eq!(
        results,
        ["a 0 n=3 sum=12", "b -10000 n=1 sum=0.01", "b 10000 n=1 sum=null"],
        "exact, and each with its own unit"
    );
    let said: Vec<_> = letters.iter().map(|(reason, detail)| format!("{reason}: {detail}")).collect();
    assert_eq!(
        said,
        [
            "unreadable: it does not begin with the zero byte of a registry's framing",
            "unreadable: it is empty",
            "unreadable: not an Avro record of its schema: it ends within a field",
            "unreadable: schema 99: the registry does not know it",
        ]
    );
    let asked = registry.requests().iter().filter(|path| *path == "/schemas/ids/2").count();
    assert!(asked <= registry.requests().len() / 2, "a schema is asked for once: {:?}", registry.requests());
}

#[test]
fn avro_with_a_schema_in_a_file_has_no_framing() {
    let bootstrap = dev_kafka().bootstrap();
    let name = clients::unique("avro-file");
    let click = |user: &str, ts: i64| [avro_text(user), avro_long(ts)].concat();
    send(bootstrap, &format!("{name}-in"), &[click("a", 1_000), click("b", 2_000), click("a", 11_000)]);
    let source = "  format: { avro: { schema: click.avsc } }
  key: { field: /user }
  event_time: [{ field: /ts }]";
    let (results, letters) = start(bootstrap, &job(&name, source, ""), &[("click.avsc", FIRST)]).end();
    assert_eq!(results, ["a 0 n=1 sum=null", "a 10000 n=1 sum=null", "b 0 n=1 sum=null"]);
    assert_eq!(letters, []);
}

#[derive(Clone, PartialEq, prost::Message)]
struct Click {
    #[prost(message, optional, tag = "1")]
    who: Option<Who>,
    #[prost(message, optional, tag = "2")]
    at: Option<At>,
    #[prost(double, optional, tag = "3")]
    amount: Option<f64>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Who {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct At {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[test]
fn protobuf_with_a_registry_on_the_embedded_broker() {
    protobuf(dev_kafka().bootstrap());
}

#[test]
fn protobuf_with_a_registry_on_apache_kafka() {
    if let Some(kafka) = tidegate_tests::apache_kafka() {
        protobuf(kafka.bootstrap());
    }
}

fn protobuf(bootstrap: &str) {
    let name = clients::unique("protobuf");
    let registry = SchemaRegistry::start().unwrap();
    let text = r#"syntax = "proto3"; package shop; import "google/protobuf/timestamp.proto"; import "who.proto";
        message Other { int32 n = 1; }
        message Click { shop.Who who = 1; google.protobuf.Timestamp at = 2; optional double amount = 3; }"#;
    registry.put(300, "PROTOBUF", text, &[("who.proto", "who", 4)]);
    let who = r#"syntax = "proto3"; package shop; message Who { string name = 1; }"#;
    registry.put_subject("who", 4, "PROTOBUF", who, &[]);
    let click = |who: &str, seconds: i64, amount: Option<f64>| {
        use prost::Message;
        let who = Who { name: who.to_owned() };
        let click = Click { who: Some(who), at: Some(At { seconds, nanos: 999_999_999 }), amount };
        // Of the second message of the file.
        framed(300, &[vec![2, 2], click.encode_to_vec()].concat())
    };
    let payloads = [
        click("a", 1, Some(0.1)),
        click("a", 2, Some(0.2)),
        click("a", 3, None),
        click("b", -1, Some(-1.5)),
        framed(300, &[0, 8, 1]),
        framed(300, &[2, 2, 0x0a, 9]),
        framed(300, &[2, 8]),
    ];
    send(bootstrap, &format!("{name}-in"), &payloads);
    let source = format!(
        "  format: {{ protobuf: {{ registry: \"{}\" }} }}
  key: {{ field: /who/name }}
  event_time: [{{ field: /at }}]",
        registry.url()
    );
    let (results, letters) =
        start(bootstrap, &job(&name, &source, "  - { name: sum, fn: sum, field: /amount }"), &[]).end();
    assert_eq!(results, ["a 0 n=3 sum=0.3", "b -10000 n=1 sum=-1.5"], "exact sums of doubles");
    let reasons: Vec<_> = letters.iter().map(|(reason, _)| reason.as_str()).collect();
    assert_eq!(reasons, ["no_event_time", "unreadable", "unreadable"], "{letters:?}");
}

#[test]
fn bytes_without_fields_are_counted_by_their_records_key() {
    let bootstrap = dev_kafka().bootstrap();
    let (name, topic) = job::new_source(bootstrap, "raw", 2);
    let producer: BaseProducer = clients::client_config(bootstrap).create().unwrap();
    let send = |key: Option<&str>, header: Option<&str>, timestamp: i64| {
        let mut record = BaseRecord::to(&topic).partition(0).payload(&[0xff, 0xfe][..]).timestamp(timestamp);
        if let Some(key) = key {
            record = record.key(key);
        }
        if let Some(value) = header {
            record = record.headers(OwnedHeaders::new().insert(Header { key: "at", value: Some(value) }));
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    };
    send(Some("a"), Some("1970-01-01T00:00:01+00:00"), 50_000);
    send(Some("a"), Some("1970-01-01T01:00:02+01:00"), 50_000);
    send(Some("b"), None, 3_000);
    send(None, None, 3_000);
    producer.flush(Duration::from_secs(20)).unwrap();
    let source = "  format: raw
  key: record_key
  event_time: [{ header: at, unit: rfc3339 }, record_timestamp]";
    let (results, letters) = start(bootstrap, &job(&name, source, ""), &[]).end();
    assert_eq!(results, ["a 0 n=2 sum=null", "b 0 n=1 sum=null"]);
    assert_eq!(letters, [("no_key".to_owned(), "the record's key is null".to_owned())]);
}

#[test]
fn a_schema_that_lacks_a_field_of_the_job_ends_it_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = "  format: { avro: { schema: click.avsc } }
  key: { field: /client }";
    let path = |name: &str| folder.path().join(name);
    fs::write(path("job.yaml"), job("lacks", source, "")).unwrap();
    fs::write(path("click.avsc"), FIRST).unwrap();
    let mut command = std::process::Command::new(program("ingest"));
    let ended = command.arg("--job").arg(path("job.yaml")).args(["--kafka", "127.0.0.1:1"]).output().unwrap();
    assert_eq!(ended.status.code(), Some(1));
    let said = String::from_utf8_lossy(&ended.stderr).into_owned();
    assert!(said.contains("click.avsc: it has no field /client"), "{said}");
}
