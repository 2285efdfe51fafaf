//! `tidegate profile` on both brokers: the flights against figures that a script computed, and what it says where there is nothing
//! to measure.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::process::{Command, Output};
use std::time::Duration;

use flate2::read::GzDecoder;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tidegate_tests::{clients, dev_kafka};

use crate::dev::{program, root};

const PARTITIONS: usize = 4;

fn profile(bootstrap: &str, arguments: &[&str]) -> Output {
    Command::new(program("tidegate"))
        .args(["profile", "--kafka", bootstrap])
        .args(arguments)
        .output()
        .unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", said(output));
    serde_json::from_slice(&output.stdout).unwrap()
}

/// A topic with these payloads: partition, timestamp, value.
fn topic(bootstrap: &str, partitions: i32, records: impl IntoIterator<Item = (i32, i64, String)>) -> String {
    let topic = clients::unique("profile");
    clients::create_topic_named(bootstrap, &topic, partitions, &[("retention.ms", "-1")]).unwrap();
    let producer: BaseProducer =
        clients::client_config(bootstrap).set("queue.buffering.max.messages", "1000000").create().unwrap();
    for (partition, timestamp, value) in records {
        let record =
            BaseRecord::<(), _>::to(&topic).partition(partition).timestamp(timestamp).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    topic
}

fn flights(bootstrap: &str) -> String {
    let file = File::open(root().join("tests/data/flights/flights.ndjson.gz")).unwrap();
    let lines = BufReader::new(GzDecoder::new(file)).lines();
    let lines = lines.enumerate().map(|(number, line)| {
        ((number % PARTITIONS) as i32, 1_700_000_000_000 + number as i64, line.unwrap())
    });
    topic(bootstrap, PARTITIONS as i32, lines)
}

#[test]
fn the_flights_on_the_embedded_broker_are_as_the_script_says() {
    the_flights_are_as_the_script_says(dev_kafka().bootstrap());
}

#[test]
fn the_flights_on_apache_kafka_are_as_the_script_says() {
    if let Some(kafka) = tidegate_tests::apache_kafka() {
        the_flights_are_as_the_script_says(kafka.bootstrap());
    }
}

fn the_flights_are_as_the_script_says(bootstrap: &str) {
    let topic = flights(bootstrap);
    let folder = tempfile::tempdir().unwrap();
    let [svg, png] = ["a.svg", "a.png"].map(|name| folder.path().join(name).to_str().unwrap().to_owned());
    let places = ["--event-time", "field:/departed", "--all"];
    let report = json(&profile(bootstrap, &[&[&*topic, "--json", "--plot", &svg], &places[..]].concat()));
    let expected = std::fs::read_to_string(root().join("tests/data/flights/expected-profile.json")).unwrap();
    let expected: Vec<Value> = serde_json::from_str(&expected).unwrap();
    let found = report["partitions"].as_array().unwrap();
    assert_eq!(found.len(), expected.len());
    for (found, expected) in found.iter().zip(&expected) {
        for key in [
            "records",
            "event_times",
            "first_event_time",
            "last_event_time",
            "out_of_order",
            "lateness",
            "delay_for_target",
        ] {
            assert_eq!(found[key], expected[key], "{key} of partition {}", found["partition"]);
        }
        let late: Vec<_> =
            found["late"].as_array().unwrap().iter().map(|late| late["records"].clone()).collect();
        assert_eq!(Value::from(late), expected["late"], "partition {}", found["partition"]);
        let without = expected["records"].as_u64().unwrap() - expected["event_times"].as_u64().unwrap();
        assert_eq!(found["rejected"]["no_event_time"].as_u64(), Some(without));
        assert_eq!(found["create_time"], expected["records"]);
    }
    // The recommended delay keeps the target for the worst partition, and is no more than the next step above it.
    let needed =
        expected.iter().map(|partition| partition["delay_for_target"].as_i64().unwrap()).max().unwrap();
    let delay = report["recommended"]["delay"].as_i64().unwrap();
    assert!(delay >= needed && delay <= 2 * needed, "{delay} for {needed}");
    assert!(std::fs::read_to_string(&svg).unwrap().starts_with("<svg"));

    let text = profile(bootstrap, &[&[&*topic, "--plot", &png], &places[..]].concat());
    let text = said(&text);
    assert!(text.contains("336776 records of 4 partitions") && text.contains("watermark:\n"), "{text}");
    assert!(std::fs::read(&png).unwrap().starts_with(b"\x89PNG"));
}

#[test]
fn a_part_of_a_topic_is_its_newest_records_or_those_since_a_time() {
    let bootstrap = dev_kafka().bootstrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64;
    let records =
        (0..100).map(|at| (at % 2, now - 100_000 * (99 - i64::from(at)), format!("{{\"t\":{at}}}")));
    let topic = topic(bootstrap, 3, records);
    let records = |arguments: &[&str]| {
        let report = json(&profile(
            bootstrap,
            &[&[&*topic, "--json", "--event-time", "field:/t"], arguments].concat(),
        ));
        let partitions = report["partitions"].as_array().unwrap().clone();
        partitions.iter().map(|partition| partition["records"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    assert_eq!(records(&["--records", "20"]), [10, 10, 0]);
    assert_eq!(records(&["--last", "1000s"]), [5, 5, 0], "those of the last 1000 s, one every 100 s");
    assert_eq!(records(&["--all"]), [50, 50, 0]);
    let groups = clients::client_config(bootstrap);
    let consumer: rdkafka::consumer::BaseConsumer = groups.create().unwrap();
    let groups = rdkafka::consumer::Consumer::fetch_group_list(&consumer, None, clients::PATIENCE).unwrap();
    assert!(groups.groups().iter().all(|group| !group.name().contains("profile")), "no group is left behind");
}

#[test]
fn records_in_order_and_those_of_a_job_file_are_measured() {
    let bootstrap = dev_kafka().bootstrap();
    let topic = topic(bootstrap, 1, (0..10).map(|at| (0, at, format!("{{\"at\":{{\"t\":{at}}}}}"))));
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.yaml");
    let text = format!(
        "name: j\nsource: {{ topic: {topic}, key: {{ field: /none }}, event_time: [{{ field: /at/t }}] }}\n\
         watermark: {{ delay: 1s }}\nwindow: {{ tumbling: {{ size: 1s }} }}\n\
         aggregates: [{{ name: n, fn: sum, field: /at }}]\nsink: {{ topic: o }}\ndead_letter: {{ topic: d }}\n"
    );
    std::fs::write(&job, text).unwrap();
    let output = profile(bootstrap, &["--job", job.to_str().unwrap()]);
    let said = said(&output);
    assert!(output.status.success() && said.contains("strategy: ascending"), "{said}");
    assert!(said.contains("every record was in order"), "{said}");
}

#[test]
fn what_cannot_be_measured_is_told_in_clear_words() {
    let bootstrap = dev_kafka().bootstrap();
    let refused = |arguments: &[&str]| {
        let output = profile(bootstrap, arguments);
        assert!(!output.status.success(), "{}", said(&output));
        said(&output)
    };
    let words = refused(&["there-is-none"]);
    assert!(words.contains("topic `there-is-none` does not exist"), "{words}");
    let empty = topic(bootstrap, 2, []);
    let words = refused(&[&empty]);
    assert!(words.contains("has no records there"), "{words}");
    let timeless = topic(bootstrap, 1, [(0, 1, "{}".to_owned()), (0, 1, "no json".to_owned())]);
    let words = refused(&[&timeless, "--event-time", "field:/t"]);
    assert!(
        words.contains("none of the 2 records") && words.contains("1 no_event_time, 1 unreadable"),
        "{words}"
    );
    let far = topic(bootstrap, 1, [(0, 1, "{\"t\":9999999999999}".to_owned())]);
    let words = refused(&[&far, "--event-time", "field:/t"]);
    assert!(words.contains("1 future"), "{words}");
    let words = refused(&[&far, "--event-time", "t"]);
    assert!(words.contains("`t` is no place of an event time"), "{words}");
    let words = refused(&[&far, "--plot", "a.jpg"]);
    assert!(words.contains("ends neither in .svg nor in .png"), "{words}");
    let words = refused(&["--records", "5"]);
    assert!(words.contains("name a topic"), "{words}");
    let output = profile("127.0.0.1:1", &["x"]);
    assert!(said(&output).contains("127.0.0.1:1") && !output.status.success(), "{}", said(&output));
}
