//! What users really send, and what they really mistype.

use std::{fs, time::Duration};

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use tidegate_tests::{clients, dev_kafka};

use crate::dev::Run;

const JOB: &str = "
name: NAME
source:
  topic: NAME-in
  partitions: 2
  key: { field: /user }
  event_time: [{ field: /ts, unit: ms }]
watermark: { delay: 1s, idle_timeout: 1s, on_quiet: finish, max_future_skew: 1m }
window: { tumbling: { size: 10s } }
aggregates:
  - { name: n, fn: count }
  - { name: sum, fn: sum, field: /v }
sink: { topic: NAME-out }
dead_letter: { topic: NAME-dead }
";

#[test]
fn bad_records_become_whole_dead_letters_on_the_embedded_broker() {
    bad_records(dev_kafka().bootstrap());
}

#[test]
fn bad_records_become_whole_dead_letters_on_apache_kafka() {
    if let Some(kafka) = tidegate_tests::apache_kafka() {
        bad_records(kafka.bootstrap());
    }
}

fn bad_records(bootstrap: &str) {
    let name = clients::unique("bad");
    let topic = format!("{name}-in");
    clients::create_topic_named(bootstrap, &topic, 2, &[("max.message.bytes", "3000000")]).unwrap();
    clients::create_topic_named(bootstrap, &format!("{name}-dead"), 4, &[]).unwrap();
    let big = format!("{{\"user\":\"big\",\"ts\":null,\"pad\":\"{}\"}}", "x".repeat(1_000_000));
    // Larger than what the dead-letter topic takes by default: headers and a reference stay.
    let huge = format!("{{\"user\":\"huge\",\"ts\":null,\"pad\":\"{}\"}}", "y".repeat(1_200_000));
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis();
    let future = format!("{{\"user\":\"f\",\"ts\":{}}}", now + 3_600_000);
    let records: Vec<(Option<&str>, &str)> = vec![
        (Some("{\"user\":\"a\",\"ts\":1000,\"v\":1.5}"), ""),
        (Some("{\"user\":\"a\",\"ts\":2000,\"v\":null}"), ""),
        (Some("{\"user\":\"\\u00e9\",\"ts\":-5,\"v\":-2}"), ""),
        (Some("not json"), "unreadable"),
        (Some("{\"user\":\"a\",\"ts\":3000,\"v\":1"), "unreadable"),
        (Some("[1,2]"), "unreadable"),
        (Some(""), "unreadable"),
        (Some("{\"user\":\"a\",\"ts\":3000,\"v\":\"seven\"}"), "unreadable"),
        (Some("{\"user\":\"a\",\"v\":1}"), "no_event_time"),
        (Some("{\"user\":\"a\",\"ts\":\"soon\",\"v\":1}"), "no_event_time"),
        (Some("{\"user\":\"a\",\"ts\":9000000000000000000,\"v\":1}"), "no_event_time"),
        (Some("{\"ts\":3000,\"v\":1}"), "no_key"),
        (Some("{\"user\":{},\"ts\":3000}"), "no_key"),
        (Some(&future), "future"),
        (Some(&big), "no_event_time"),
        (Some(&huge), "no_event_time"),
        (None, "tombstone"),
    ];
    let producer: BaseProducer =
        clients::client_config(bootstrap).set("message.max.bytes", "3000000").create().unwrap();
    for (at, (value, _)) in records.iter().enumerate() {
        let headers = OwnedHeaders::new()
            .insert(Header { key: "trace", value: Some("one") })
            .insert(Header { key: "trace", value: None::<&str> });
        let key = format!("k{at}");
        let mut record =
            BaseRecord::to(&topic).key(&key).partition((at % 2) as i32).headers(headers).timestamp(77);
        if let Some(value) = value {
            record = record.payload(*value);
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();

    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.yaml");
    fs::write(&job, JOB.replace("NAME", &name)).unwrap();
    let arguments = ["--kafka", bootstrap, "--job", job.to_str().unwrap(), "--events", "0", "--workers", "1"];
    let arguments: Vec<String> = arguments.map(str::to_owned).into();
    let letters_file = folder.path().join("letters.ndjson");
    let output = folder.path().join("output.ndjson");
    let mut all = arguments.clone();
    all.extend(["--dead-letters".into(), letters_file.to_str().unwrap().into()]);
    all.extend(["--output".into(), output.to_str().unwrap().into()]);
    let ended = Run::start(folder, &all).end();
    assert_eq!(ended.code, Some(0), "{}", ended.lines.join("\n"));

    let mut expected: Vec<(String, String, Option<String>)> = records
        .iter()
        .enumerate()
        .filter(|(_, (_, reason))| !reason.is_empty())
        .map(|(at, (value, reason))| {
            let whole = value.filter(|value| value.len() <= 1_100_000).map(str::to_owned);
            (format!("k{at}"), (*reason).to_owned(), whole)
        })
        .collect();
    expected.sort();
    let mut found: Vec<(String, String, Option<String>)> = fs::read_to_string(&letters_file)
        .unwrap()
        .lines()
        .map(|line| {
            let letter: Value = serde_json::from_str(line).unwrap();
            let headers = |name: &str| -> Vec<Value> {
                let all = letter["headers"].as_array().unwrap().iter();
                all.filter(|pair| pair[0] == name).map(|pair| pair[1].clone()).collect()
            };
            assert_eq!(headers("tidegate-topic"), [Value::from(topic.clone())]);
            assert_eq!(headers("trace"), [Value::from("one"), Value::Null], "both, in their order");
            assert_eq!(letter["timestamp"], 77);
            if letter["key"] == "k15" {
                assert_eq!(headers("tidegate-payload"), ["omitted"]);
            }
            let text = |value: &Value| value.as_str().map(str::to_owned);
            (
                text(&letter["key"]).unwrap(),
                text(&headers("tidegate-reason")[0]).unwrap(),
                text(&letter["value"]),
            )
        })
        .collect();
    found.sort();
    assert_eq!(found, expected);
    let results = fs::read_to_string(&output).unwrap();
    assert!(results.contains("\"n\":2,\"sum\":1.5"), "null is no value: {results}");
    assert!(results.contains("\"key\":\"é\",\"window_start\":-10000,\"window_end\":0"), "{results}");
}

#[test]
fn a_mistyped_job_says_where_and_what() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.yaml");
    fs::write(&job, JOB.replace("partitions", "partitons")).unwrap();
    let ended = run(folder, &["--job", job.to_str().unwrap(), "--events", "1"]);
    assert_ne!(ended.code, Some(0));
    let said = ended.lines.join("\n");
    assert!(said.contains("did you mean `partitions`") && said.contains("job.yaml:5:"), "{said}");
}

#[test]
fn a_broker_that_is_not_there_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(folder, &["--kafka", "127.0.0.1:1", "--events", "1"]);
    assert_ne!(ended.code, Some(0));
    let said = ended.lines.join("\n");
    assert!(said.contains("127.0.0.1:1"), "{said}");
}

#[test]
fn a_job_that_contradicts_its_record_is_refused_with_the_difference() {
    let bootstrap = dev_kafka().bootstrap();
    let name = clients::unique("contradiction");
    let start = |text: String| {
        let folder = tempfile::tempdir().unwrap();
        let job = folder.path().join("job.yaml");
        fs::write(&job, text).unwrap();
        run(
            folder,
            &["--kafka", bootstrap, "--job", job.to_str().unwrap(), "--events", "0", "--workers", "1"],
        )
    };
    let text = JOB.replace("NAME", &name);
    assert_eq!(start(text.clone()).code, Some(0));
    let other = start(text.replace("size: 10s", "size: 20s"));
    assert_ne!(other.code, Some(0));
    let said = other.lines.join("\n");
    assert!(
        said.contains("window.size") && said.contains("20000 in the job file, but 10000 in the record"),
        "both values are named: {said}"
    );
}

fn run(folder: tempfile::TempDir, arguments: &[&str]) -> crate::dev::Ended {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    Run::start(folder, &arguments).end()
}
