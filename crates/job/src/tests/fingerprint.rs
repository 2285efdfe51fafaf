//! The fingerprint: frozen, blind to what may change, and able to say what has changed.

use super::{CLICKS, HOPPING, LEAST, TUMBLING, job, least_with};
use crate::{Difference, continues};
use tidegate_core::aggregate::{At, Layout, RowBuf};
use tidegate_core::time::{EventTime, Offset, Partition};

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
        let difference = continues(&first.describe(), &second.describe()).unwrap_err();
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
    assert_eq!(continues(&first.describe(), &second.describe()), Err(expected));
    assert_eq!(continues(&first.describe(), &first.describe()), Ok(1));
}

#[test]
fn a_text_of_the_first_version_compares_without_its_event_times() {
    let now = job(CLICKS).describe();
    assert_eq!(continues(GOLDEN_1, &now), Ok(3));
    let other = CLICKS.replace("size: 10s", "size: 20s");
    let difference = continues(GOLDEN_1, &job(&other).describe()).unwrap_err();
    assert_eq!(difference.key, "window.size_ms");
    let newer = now.replacen(": 2\n", ": 3\n", 1);
    assert_eq!(continues(&newer, &now).unwrap_err().key, "tidegate job fingerprint");
}

/// The text of a job with these aggregates.
fn of(aggregates: &str) -> String {
    let text = least_with("{ name: n, fn: count }", aggregates);
    job(&text).describe()
}

#[test]
fn a_job_continues_where_aggregates_were_added_behind_the_others() {
    let sum = "{ name: s, fn: sum, field: /x, scale: 2 }";
    let counted = "{ name: c, fn: count, field: /x, where: /y > 1 }";
    let added = "{ name: m, fn: max, field: /x, scale: 4, where: /y > 1 }";
    assert_eq!(continues(&of(sum), &of(&format!("{sum}\n  - {counted}"))), Ok(1));
    let (two, three) = (format!("{sum}\n  - {counted}"), format!("{sum}\n  - {counted}\n  - {added}"));
    assert_eq!(
        continues(&of(&two), &of(&three)),
        Ok(2),
        "what is only counted shares the column of the new one"
    );
    for (earlier, later, key) in [
        (three.as_str(), two.as_str(), "aggregates[2]"),
        (&two, &format!("{counted}\n  - {sum}"), "aggregates[0]"),
        (sum, "{ name: s, fn: sum, field: /x, scale: 3 }", "aggregates[0]"),
        (sum, "{ name: t, fn: sum, field: /x, scale: 2 }", "aggregates[0]"),
        (counted, "{ name: c, fn: count, field: /x, where: /y > 2 }", "aggregates[0]"),
        (counted, "{ name: c, fn: count, where: /y > 1 }", "aggregates[0]"),
    ] {
        assert_eq!(continues(&of(earlier), &of(later)).unwrap_err().key, key, "{later}");
    }
}

#[test]
fn the_columns_of_a_job_are_in_the_order_in_which_its_layout_has_them_once_others_are_added() {
    let first = "{ name: c, fn: count, field: /z }\n  - { name: a, fn: avg, field: /x }\n  - { name: b, fn: max, field: /y }";
    let whole = format!(
        "{first}\n  - {{ name: d, fn: min, field: /z, scale: 1 }}\n  - {{ name: e, fn: sum, field: /x }}"
    );
    let [first, whole] = [first, &whole].map(|text| job(&least_with("{ name: n, fn: count }", text)).core);
    let (layout, grown) = (Layout::new(&first), Layout::grown(&whole, &[3]));
    let at = At { time: EventTime(0), partition: Partition(0), offset: Offset(0) };
    let mut row = RowBuf::new(&layout);
    layout.add_record(&mut row.row_mut());
    for (column, spec) in first.columns.iter().enumerate() {
        let value = match spec.pointer.as_str() {
            "/x" => 3_000_000,
            "/y" => 5_000_000,
            _ => 7,
        };
        layout.add_value(&mut row.row_mut(), column, value, &at);
    }
    let mut written = Vec::new();
    layout.encode(row.row(), &mut written);
    let mut read = RowBuf::new(&grown);
    grown.decode(&written, &mut read.row_mut()).unwrap();
    let shown: Vec<String> = grown.results(read.row()).iter().map(ToString::to_string).collect();
    assert_eq!(shown, ["1", "3", "5", "null", "null"]);
}
