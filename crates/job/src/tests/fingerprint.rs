//! The fingerprint: frozen, blind to what may change, and able to say what has changed.

use super::{CLICKS, HOPPING, LEAST, TUMBLING, job, least_with};
use crate::{Difference, first_difference};

const GOLDEN: &str = include_str!("golden/clicks.txt");
/// As it was written when the event time was in it.
const GOLDEN_1: &str = include_str!("golden/clicks-1.txt");

#[test]
fn text_and_number_are_frozen() {
    assert_eq!(job(CLICKS).describe(), GOLDEN);
    let fingerprints = [CLICKS, TUMBLING, HOPPING].map(|text| job(text).fingerprint());
    assert_eq!(
        fingerprints,
        [0xda1a_7401_81e6_ae67, 0x1fb7_3d70_bcc6_5faf, 0x40e3_ec0f_791e_bac2],
        "{fingerprints:#018x?}"
    );
}

#[test]
fn it_changes_with_what_the_state_depends_on() {
    for (part, replacement, key) in [
        ("name: least", "name: other", "name"),
        ("topic: in", "topic: other", "source.topic"),
        ("key: record_key", "key: { field: /k }", "source.key"),
        ("size: 10s", "size: 20s", "window.size_ms"),
        ("size: 10s", "size: 10s, offset: 1s", "window.offset_ms"),
        ("size: 10s", "size: 1h, timezone: Asia/Kolkata", "window.size_ms"),
        ("tumbling: { size: 10s }", "hopping: { size: 10s, step: 5s }", "window.step_ms"),
        ("fn: count", "fn: count, field: /x", "aggregates[0]"),
        ("name: n", "name: m", "aggregates[0]"),
        (
            "dead_letter: { topic: dead }",
            "dead_letter: { topic: dead }\nstate: { shards: 8 }",
            "state.shards",
        ),
    ] {
        let (first, second) = (job(LEAST), job(&least_with(part, replacement)));
        assert_ne!(first.fingerprint(), second.fingerprint(), "{replacement}");
        let difference = first_difference(&first.describe(), &second.describe()).unwrap();
        assert_eq!(difference.key, key, "{replacement}");
    }
}

#[test]
fn it_stays_with_what_may_change() {
    for (part, replacement) in [
        (
            "delay: 2s",
            "delay: 3s\n  idle_timeout: 1s\n  on_quiet: finish\n  max_drift: 1m\n  max_future_skew: 1m",
        ),
        ("sink: { topic: out }", "sink: { topic: other }\nallowed_lateness: 1h\nearly: { every: 1s }"),
        ("{ topic: dead }", "{ topic: other, replay: { ttl: 1h } }"),
        (
            "topic: in",
            "topic: in\n  partitions: 7\n  start_from: latest\n  on_data_loss: skip\n  format: json",
        ),
        ("key: record_key", "key: record_key\n  event_time: [{ field: /at, unit: s }]"),
        ("{ topic: dead }", "{ topic: dead }\nstate: { memory: 1GiB, commit_interval: 1s }"),
    ] {
        assert_eq!(
            job(LEAST).fingerprint(),
            job(&least_with(part, replacement)).fingerprint(),
            "{replacement}"
        );
    }
}

#[test]
fn no_name_can_look_like_another_key() {
    let spoofed = job(&least_with("key: record_key", "key: { field: \"/k\\nwindow.size_ms: 1\" }"));
    assert_eq!(spoofed.describe().lines().count(), job(LEAST).describe().lines().count());
}

#[test]
fn a_difference_has_both_values() {
    let (first, second) = (job(LEAST), job(&least_with("size: 10s", "size: 1m")));
    let expected = Difference {
        key: "window.size_ms".to_owned(),
        first: Some("10000".to_owned()),
        second: Some("60000".to_owned()),
    };
    assert_eq!(first_difference(&first.describe(), &second.describe()), Some(expected));
    assert_eq!(first_difference(&first.describe(), &first.describe()), None);
}

#[test]
fn a_text_of_the_first_version_compares_without_its_event_times() {
    let now = job(CLICKS).describe();
    assert_eq!(first_difference(GOLDEN_1, &now), None);
    let other = CLICKS.replace("size: 10s", "size: 20s");
    let difference = first_difference(GOLDEN_1, &job(&other).describe()).unwrap();
    assert_eq!(difference.key, "window.size_ms");
    let newer = now.replacen(": 2\n", ": 3\n", 1);
    assert_eq!(first_difference(&newer, &now).unwrap().key, "tidegate job fingerprint");
}
