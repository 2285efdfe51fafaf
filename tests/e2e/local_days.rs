//! Windows of local days over the days on which clocks change.

use std::fs;

use serde_json::Value;
use tidegate_tests::{clients, dev_kafka};

use crate::dev::Run;

const HALF_HOUR_MS: i64 = 1_800_000;
/// 2025-03-29T00:00+01:00 and 2025-10-25T00:00+02:00: the days before clocks change in Berlin.
const SPRING_MS: i64 = 1_743_202_800_000;
const AUTUMN_MS: i64 = 1_761_343_200_000;

/// Runs a job over a record each half hour of three days from each of these times; gives start, hours and count of each result.
fn days(window: &str) -> Vec<(i64, i64, i64)> {
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let name = clients::unique("local-days");
    let job = format!(
        "name: {name}
source:
  topic: {name}-in
  partitions: 1
  key: {{ field: /user }}
  event_time: [{{ field: /ts, unit: ms }}]
watermark: {{ delay: 1h, idle_timeout: 1s, on_quiet: finish }}
window: {{ {window} }}
aggregates: [{{ name: n, fn: count }}]
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead }}
state: {{ shards: 2 }}
"
    );
    fs::write(at("job.yaml"), job).unwrap();
    let times =
        [SPRING_MS, AUTUMN_MS].into_iter().flat_map(|from| (0..144).map(move |k| from + k * HALF_HOUR_MS));
    let lines: String = times.map(|ts| format!("{{\"user\":\"u\",\"ts\":{ts}}}\n")).collect();
    fs::write(at("in.ndjson"), lines).unwrap();
    let results = at("results.ndjson");
    let arguments = [
        ["--kafka", dev_kafka().bootstrap()],
        ["--job", &at("job.yaml")],
        ["--input", &at("in.ndjson")],
        ["--output", &results],
    ];
    let mut arguments: Vec<String> = arguments.concat().into_iter().map(str::to_owned).collect();
    arguments.extend(["--workers".to_owned(), "1".to_owned(), "--verify".to_owned()]);
    let kept = folder.path().join("results.ndjson");
    let ended = Run::start(folder, &arguments).end();
    assert_eq!(ended.code, Some(0), "{}", ended.lines.join("\n"));
    assert!(ended.lines.iter().any(|line| line.contains("mismatches=0")), "{}", ended.lines.join("\n"));
    let text = fs::read_to_string(kept).unwrap();
    let mut days: Vec<_> =
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()).map(day).collect();
    days.sort_unstable();
    days
}

fn day(value: Value) -> (i64, i64, i64) {
    let value = value.get("value").unwrap_or(&value);
    let number = |name: &str| value[name].as_i64().unwrap();
    let start = number("window_start");
    (start, (number("window_end") - start) / (2 * HALF_HOUR_MS), number("n"))
}

#[test]
fn a_local_day_has_23_hours_when_clocks_are_set_forward_and_25_when_they_are_set_back() {
    let hours = |hours: i64| hours * 2 * HALF_HOUR_MS;
    assert_eq!(
        days("tumbling: { size: 1d, timezone: Europe/Berlin }"),
        [
            (SPRING_MS, 24, 48),
            (SPRING_MS + hours(24), 23, 46),
            (SPRING_MS + hours(47), 24, 48),
            // An hour less of input than three such days have.
            (SPRING_MS + hours(71), 24, 2),
            (AUTUMN_MS, 24, 48),
            (AUTUMN_MS + hours(24), 25, 50),
            (AUTUMN_MS + hours(49), 24, 46),
        ]
    );
}

#[test]
fn hopping_windows_of_local_days_share_days_of_23_and_25_hours() {
    let windows = days("hopping: { size: 2d, step: 1d, timezone: Europe/Berlin }");
    let lengths: Vec<_> = windows.iter().map(|(_, hours, n)| (*hours, *n)).collect();
    assert_eq!(
        lengths,
        [(48, 48), (47, 94), (47, 94), (48, 50), (48, 2), (48, 48), (49, 98), (49, 96), (48, 46)]
    );
}
