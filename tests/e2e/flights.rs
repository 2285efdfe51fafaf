//! A year of real departures, in the wrong order, against results that SQL computed: to the row.

use std::{collections::BTreeSet, fs::File, io::Read};

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::dev::{Broker, job_file, over_flights, root};

const TUMBLING: &str = "flights-tumbling.yaml";
const HOPPING: &str = "flights-hopping.yaml";
const SESSION: &str = "flights-session.yaml";

#[test]
fn tumbling_on_the_embedded_broker_with_one_worker() {
    equals_sql(TUMBLING, Broker::Embedded, 1, None);
}

#[test]
fn tumbling_on_the_embedded_broker_with_three_workers() {
    equals_sql(TUMBLING, Broker::Embedded, 3, None);
}

#[test]
fn hopping_on_the_embedded_broker_with_one_worker() {
    equals_sql(HOPPING, Broker::Embedded, 1, None);
}

#[test]
fn hopping_on_the_embedded_broker_with_three_workers() {
    equals_sql(HOPPING, Broker::Embedded, 3, None);
}

#[test]
fn tumbling_on_apache_kafka_with_one_worker() {
    equals_sql(TUMBLING, Broker::Apache, 1, None);
}

#[test]
fn tumbling_on_apache_kafka_with_three_workers() {
    equals_sql(TUMBLING, Broker::Apache, 3, None);
}

#[test]
fn hopping_on_apache_kafka_with_one_worker() {
    equals_sql(HOPPING, Broker::Apache, 1, None);
}

#[test]
fn hopping_on_apache_kafka_with_three_workers() {
    equals_sql(HOPPING, Broker::Apache, 3, None);
}

#[test]
fn sessions_on_the_embedded_broker_with_one_worker() {
    equals_sql(SESSION, Broker::Embedded, 1, None);
}

#[test]
fn sessions_on_the_embedded_broker_with_three_workers_of_which_one_is_killed() {
    equals_sql(SESSION, Broker::Embedded, 3, Some("worker-1"));
}

#[test]
fn sessions_on_apache_kafka_with_one_worker_that_is_killed() {
    equals_sql(SESSION, Broker::Apache, 1, Some("worker-0"));
}

#[test]
fn sessions_on_apache_kafka_with_three_workers() {
    equals_sql(SESSION, Broker::Apache, 3, None);
}

#[test]
fn a_worker_killed_in_the_middle_changes_nothing_on_the_embedded_broker() {
    equals_sql(TUMBLING, Broker::Embedded, 3, Some("worker-1"));
}

#[test]
fn a_worker_killed_in_the_middle_changes_nothing_on_apache_kafka() {
    equals_sql(HOPPING, Broker::Apache, 3, Some("worker-1"));
}

#[test]
fn an_ingest_killed_in_the_middle_changes_nothing() {
    equals_sql(TUMBLING, Broker::Embedded, 3, Some("ingest-0"));
}

#[test]
fn a_coordinator_killed_in_the_middle_changes_nothing() {
    equals_sql(HOPPING, Broker::Embedded, 3, Some("coordinator"));
}

fn equals_sql(job: &str, broker: Broker, workers: u32, killed: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("tests/data/flights");
    let (output, letters) = (folder.path().join("output.ndjson"), folder.path().join("letters.ndjson"));
    let file = job_file(folder.path(), job);
    let Some(ended) = over_flights(folder, &file, broker, workers, killed) else { return };
    let [records, windows, dead_letters] = ended.verified();

    let expected = match job {
        TUMBLING => "expected-tumbling-1h-carrier.csv.gz",
        HOPPING => "expected-hopping-6h-1h-origin.csv.gz",
        _ => "expected-session-2h-dest.csv.gz",
    };
    let (header, expected) = csv(&unzipped(&data.join(expected)));
    assert_eq!(rows_of(&output, &header), expected);
    assert_eq!((records, windows, dead_letters), (336_776, expected.len() as u64, 8_255));
    assert_eq!(
        letters_of(&letters),
        cancelled(&unzipped(&data.join("flights.ndjson.gz"))),
        "whole, each once"
    );
}

fn unzipped(path: &std::path::Path) -> String {
    let mut text = String::new();
    GzDecoder::new(File::open(path).unwrap()).read_to_string(&mut text).unwrap();
    text
}

fn csv(text: &str) -> (Vec<String>, BTreeSet<String>) {
    let mut lines = text.lines();
    let header = lines.next().unwrap().split(',').map(str::to_owned).collect();
    (header, lines.map(str::to_owned).collect())
}

/// The results as lines of the CSV; a line that is there twice fails.
fn rows_of(path: &std::path::Path, header: &[String]) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let result: Value = serde_json::from_str(line).unwrap();
        assert_eq!(
            (&result["pane"], &result["revision"]),
            (&Value::from("final"), &Value::from(0)),
            "nothing is late"
        );
        let fields: Vec<String> = header
            .iter()
            .map(|name| result[name].as_str().map_or_else(|| result[name].to_string(), str::to_owned))
            .collect();
        assert!(rows.insert(fields.join(",")), "twice: {line}");
    }
    rows
}

fn letters_of(path: &std::path::Path) -> Vec<String> {
    let mut values: Vec<String> = std::fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(|line| {
            let letter: Value = serde_json::from_str(line).unwrap();
            let reason = Value::from(vec!["tidegate-reason", "no_event_time"]);
            assert!(letter["headers"].as_array().unwrap().contains(&reason), "{letter}");
            letter["value"].as_str().unwrap().to_owned()
        })
        .collect();
    values.sort_unstable();
    values
}

fn cancelled(flights: &str) -> Vec<String> {
    let mut lines: Vec<String> =
        flights.lines().filter(|line| line.contains("\"departed\":null")).map(str::to_owned).collect();
    lines.sort_unstable();
    lines
}
