//! A year of real departures in the wrong order comes out in the right one, whole; so do large records, and what is larger than memory.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io::Read,
    path::Path,
};

use flate2::read::GzDecoder;
use serde_json::Value;

use crate::dev::{Broker, job_file, over_flights, root};

/// Those of the job file.
const PARTITIONS: usize = 8;

#[test]
fn flights_on_the_embedded_broker_with_one_worker() {
    are_in_order(Broker::Embedded, 1, None, "");
}

#[test]
fn flights_on_the_embedded_broker_with_three_workers() {
    are_in_order(Broker::Embedded, 3, None, "");
}

#[test]
fn flights_on_apache_kafka_with_one_worker() {
    are_in_order(Broker::Apache, 1, None, "");
}

#[test]
fn flights_on_apache_kafka_with_three_workers() {
    are_in_order(Broker::Apache, 3, None, "");
}

#[test]
fn flights_on_the_embedded_broker_with_a_worker_killed_in_the_middle() {
    are_in_order(Broker::Embedded, 3, Some("worker-1"), "");
}

#[test]
fn flights_on_apache_kafka_with_a_worker_killed_in_the_middle() {
    are_in_order(Broker::Apache, 3, Some("worker-1"), "");
}

#[test]
fn flights_on_apache_kafka_with_the_only_worker_killed_in_the_middle() {
    are_in_order(Broker::Apache, 1, Some("worker-0"), "");
}

/// A delay of a month, and memory for a small part of it.
#[test]
fn flights_that_wait_in_runs() {
    are_in_order(Broker::Embedded, 1, Some("worker-0"), "state: { shards: 4, memory: 1MiB }\n");
}

fn are_in_order(broker: Broker, workers: u32, killed: Option<&str>, state: &str) {
    let folder = tempfile::tempdir().unwrap();
    let input = root().join("tests/data/flights/flights.ndjson.gz");
    let (output, letters) = (folder.path().join("output.ndjson"), folder.path().join("letters.ndjson"));
    let job = job_file(folder.path(), "flights-reorder.yaml");
    if !state.is_empty() {
        let text = std::fs::read_to_string(&job).unwrap();
        std::fs::write(&job, format!("{}\n{state}", text.replace("delay: 24h", "delay: 30d"))).unwrap();
    }
    let Some(ended) = over_flights(folder, &job, broker, workers, killed) else { return };
    let verified = ended.verified();

    let (expected, cancelled) = sorted(&input);
    let records: usize = expected.values().map(Vec::len).sum();
    assert_eq!(verified, [336_776, records as u64, cancelled.len() as u64]);
    assert_eq!((records, cancelled.len()), (328_521, 8_255));
    for (carrier, came) in by_carrier(&output) {
        assert!(expected.get(&carrier) == Some(&came), "carrier {carrier} is in order and whole");
    }
    let dead: BTreeSet<String> = std::fs::read_to_string(&letters)
        .unwrap()
        .lines()
        .map(|line| {
            let letter: Value = serde_json::from_str(line).unwrap();
            letter["value"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(dead, cancelled, "whole, each once");
}

/// The flights of each carrier, sorted by departure, partition and offset; and those that never departed.
fn sorted(input: &Path) -> (BTreeMap<String, Vec<String>>, BTreeSet<String>) {
    let mut text = String::new();
    GzDecoder::new(File::open(input).unwrap()).read_to_string(&mut text).unwrap();
    let mut flights: BTreeMap<String, Vec<(i64, usize, usize, String)>> = BTreeMap::new();
    let mut cancelled = BTreeSet::new();
    // `--input` puts line n into partition n mod 8.
    for (number, line) in text.lines().enumerate() {
        let flight: Value = serde_json::from_str(line).unwrap();
        let Some(departed) = flight["departed"].as_i64() else {
            cancelled.insert(line.to_owned());
            continue;
        };
        let carrier = flight["carrier"].as_str().unwrap().to_owned();
        let place = (departed, number % PARTITIONS, number / PARTITIONS, line.to_owned());
        flights.entry(carrier).or_default().push(place);
    }
    let lines = flights.into_iter().map(|(carrier, mut flights)| {
        flights.sort_unstable();
        (carrier, flights.into_iter().map(|(.., line)| line).collect())
    });
    (lines.collect(), cancelled)
}

/// The values of the results, in the order of the topic.
fn by_carrier(output: &Path) -> BTreeMap<String, Vec<String>> {
    let mut came: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in std::fs::read_to_string(output).unwrap().lines() {
        let flight: Value = serde_json::from_str(line).unwrap();
        came.entry(flight["carrier"].as_str().unwrap().to_owned()).or_default().push(line.to_owned());
    }
    assert_eq!(came.len(), 16, "all carriers are there");
    came
}
