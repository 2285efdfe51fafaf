//! Every aggregate over a year of real departures, against what DuckDB computed: to the row, floats and quantiles within what is stated.

use std::{collections::BTreeMap, fs::File, io::Read};

use flate2::read::GzDecoder;
use serde_json::{Map, Value};

use crate::dev::{Broker, job_file, over_flights, root};

/// A carrier and the start of a day.
type Window = (String, i64);

#[test]
fn they_are_those_of_duckdb_on_the_embedded_broker_with_one_worker() {
    equal_duckdb(Broker::Embedded, 1, None);
}

#[test]
fn they_are_those_of_duckdb_on_apache_kafka_with_three_workers_of_which_one_is_killed() {
    equal_duckdb(Broker::Apache, 3, Some("worker-1"));
}

fn equal_duckdb(broker: Broker, workers: u32, killed: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let data = root().join("tests/data/flights");
    let output = folder.path().join("output.ndjson");
    let job = job_file(folder.path(), "flights-aggregates.yaml");
    let Some(ended) = over_flights(folder, &job, broker, workers, killed) else { return };
    let [records, ..] = ended.verified();
    assert_eq!(records, 336_776);

    let mut expected = String::new();
    let file = File::open(data.join("expected-aggregates-1d-carrier.ndjson.gz")).unwrap();
    GzDecoder::new(file).read_to_string(&mut expected).unwrap();
    let (expected, results) = (by_window(&expected), by_window(&std::fs::read_to_string(&output).unwrap()));
    assert!(expected.len() > 5_000);
    assert_eq!(results.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    for (window, expected) in &expected {
        let result = &results[window];
        for (name, expected) in expected {
            assert!(
                is_same(name, &result[name], expected),
                "{window:?} {name}: {} for {expected}",
                result[name]
            );
        }
        assert_eq!(result.len(), expected.len() + 2, "with pane and revision");
    }
}

fn by_window(lines: &str) -> BTreeMap<Window, Map<String, Value>> {
    let mut windows = BTreeMap::new();
    for line in lines.lines() {
        let result: Map<String, Value> = serde_json::from_str(line).unwrap();
        let window = (result["key"].as_str().unwrap().to_owned(), result["window_start"].as_i64().unwrap());
        assert!(windows.insert(window, result).is_none(), "twice: {line}");
    }
    windows
}

fn is_same(name: &str, got: &Value, expected: &Value) -> bool {
    let within = |got: &Value, expected: &Value, share: f64| match (got.as_f64(), expected.as_f64()) {
        (Some(got), Some(expected)) => (got - expected).abs() <= expected.abs() * share,
        (got, expected) => got == expected,
    };
    match (name, got, expected) {
        ("variance" | "deviation", got, expected) => within(got, expected, 1e-9),
        ("median", got, expected) => within(got, expected, 0.01),
        ("distances", Value::Array(got), Value::Array(expected)) => {
            got.len() == expected.len()
                && got.iter().zip(expected).all(|(got, expected)| within(got, expected, 0.01))
        }
        _ => got == expected,
    }
}
