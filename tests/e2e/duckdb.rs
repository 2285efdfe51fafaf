//! Every kind of window over the readings of thirty sensors, against what DuckDB computed: to the row and to the last digit.

use std::{fs, fs::File, io::Read};

use flate2::read::GzDecoder;
use serde_json::{Map, Value};
use tidegate_tests::clients::unique;

use crate::dev::{Broker, over, root};

#[test]
fn tumbling_windows_off_the_epoch() {
    equal_duckdb("tumbling-7m", "tumbling: { size: 7m, offset: 30s }");
}

#[test]
fn days_of_berlin() {
    equal_duckdb("tumbling-1d-berlin", "tumbling: { size: 1d, timezone: Europe/Berlin }");
}

#[test]
fn hopping_windows_that_are_no_multiple_of_their_step() {
    equal_duckdb("hopping-25m-10m", "hopping: { size: 25m, step: 10m }");
}

#[test]
fn sliding_windows() {
    equal_duckdb("sliding-30m", "sliding: { size: 30m }");
}

#[test]
fn sessions_that_are_cut() {
    equal_duckdb("session-12m-cut-3h", "session: { gap: 12m, cut: 3h }");
}

fn equal_duckdb(expected: &str, window: &str) {
    let expected = lines_of_duckdb(expected);
    for (broker, workers, killed) in [(Broker::Embedded, 1, None), (Broker::Apache, 3, Some("worker-1"))] {
        let Some(results) = results(window, broker, workers, killed) else { continue };
        assert_eq!(results.len(), expected.len(), "{broker:?}, {workers} workers");
        for (result, expected) in results.iter().zip(&expected) {
            assert_eq!(result, expected, "{broker:?}, {workers} workers");
        }
    }
}

/// The results of a job with this window; `None` where there is no such broker here.
fn results(window: &str, broker: Broker, workers: u32, killed: Option<&str>) -> Option<Vec<String>> {
    let folder = tempfile::tempdir().unwrap();
    let name = unique("duckdb");
    let job = format!(
        "name: {name}
source:
  topic: {name}-readings
  partitions: 4
  key: {{ field: /sensor }}
  event_time: [{{ field: /taken }}]
watermark: {{ delay: 10m, idle_timeout: 1s, on_quiet: finish }}
window: {{ {window} }}
aggregates:
  - {{ name: readings, fn: count }}
  - {{ name: valued, fn: count, field: /value }}
  - {{ name: total, fn: sum, field: /value }}
  - {{ name: least, fn: min, field: /value }}
  - {{ name: most, fn: max, field: /value }}
  - {{ name: mean, fn: avg, field: /value }}
  - {{ name: warnings, fn: count, where: '/kind == \"warn\"' }}
  - {{ name: odd, fn: sum, field: /value, where: '/value < 0 or /kind == \"error\"' }}
sink: {{ topic: {name}-results }}
dead_letter: {{ topic: {name}-dead }}
state: {{ shards: 4 }}
"
    );
    let (file, output) = (folder.path().join("job.yaml"), folder.path().join("output.ndjson"));
    fs::write(&file, job).unwrap();
    let ended = over("readings/readings.ndjson.gz", folder, &file, broker, workers, killed)?;
    let [records, _, dead_letters] = ended.verified();
    assert_eq!((records, dead_letters), (17_132, 0));
    Some(comparable(&fs::read_to_string(output).unwrap()))
}

fn lines_of_duckdb(name: &str) -> Vec<String> {
    let file = root().join(format!("tests/data/readings/expected-{name}.ndjson.gz"));
    let mut text = String::new();
    GzDecoder::new(File::open(file).unwrap()).read_to_string(&mut text).unwrap();
    comparable(&text)
}

/// The rows in an order of their own, as text: two readings of one sensor and time have the same sliding window.
fn comparable(lines: &str) -> Vec<String> {
    let mut rows: Vec<_> = lines.lines().map(comparable_row).collect();
    rows.sort_unstable();
    rows
}

fn comparable_row(line: &str) -> String {
    let mut row: Map<String, Value> = serde_json::from_str(line).unwrap();
    let pane = row.remove("pane");
    assert!(pane.is_none_or(|pane| pane == "final"), "nothing is late: {line}");
    // What DuckDB's rows do not have: of which result this is, and of a sliding window its record.
    for name in ["revision", "source_partition", "source_offset"] {
        row.remove(name);
    }
    // `-12` and `-12.0` are one number.
    for value in row.values_mut().filter(|value| value.is_number()) {
        *value = format!("{:?}", value.as_f64()).into();
    }
    serde_json::to_string(&row).unwrap()
}
