//! Bad files and the exact words in which they are refused.

use super::{CLICKS, LEAST, least_with};
use crate::JobFile;

#[track_caller]
fn refused(text: &str, expected: &str) {
    let report = JobFile::parse(text, "job.yaml").expect_err("accepted");
    assert_eq!(report.to_string(), expected, "in\n{text}");
}

/// `LEAST` with `part` replaced is refused.
#[track_caller]
fn replaced(part: &str, replacement: &str, expected: &str) {
    refused(&least_with(part, replacement), expected);
}

#[track_caller]
fn appended(line: &str, expected: &str) {
    refused(&format!("{LEAST}{line}\n"), expected);
}

const COUNT: &str = "  - { name: n, fn: count }";
const WINDOW: &str = "window:\n  tumbling: { size: 10s }";
const KEYS: &str =
    "name, source, watermark, window, reorder, early, allowed_lateness, aggregates, sink, dead_letter, state";

#[test]
fn what_is_not_one_mapping_in_yaml() {
    refused("", "job.yaml:1:1: the file holds no job; start from one of docs/jobs");
    refused("# nothing\n", "job.yaml:1:1: the file holds no job; start from one of docs/jobs");
    refused(
        "- a\n",
        &format!("job.yaml:1:1: expected a mapping with the keys {KEYS}, found a list; see docs/job.md"),
    );
    refused(
        "a: [\n",
        "job.yaml:1:4: this is not YAML: unclosed bracket '['; mend the line, mind indentation and quotes",
    );
    refused(
        "name: x\n\tsource: y\n",
        "job.yaml:1:7: this is not YAML: while scanning a plain scalar, found a tab; mend the line, mind indentation and quotes",
    );
    appended("---\nname: b", "job.yaml:14:1: a second YAML document begins here; keep one job to a file");
    appended(
        "name: b",
        "job.yaml:13:1: key `name` is here a second time, first at line 1; keep one of the two",
    );
    refused("[a]: b\n", "job.yaml:1:1: a key must be a word; write `key: value`");
    refused(&"- ".repeat(5_000), "job.yaml:1:67: nested deeper than 32 levels; make it flatter");
}

#[test]
fn anchors_aliases_and_tags() {
    let text = "YAML anchors, aliases and tags have no meaning in a job file; write the value itself";
    replaced("name: least", "name: &n least", &format!("job.yaml:1:10: {text}"));
    replaced("name: least", "name: !!str least", &format!("job.yaml:1:13: {text}"));
}

#[test]
fn unknown_keys_at_every_depth_name_the_nearest_known_one() {
    refused(
        &CLICKS.replace("partitions", "partitons"),
        "job.yaml:4:3: source.partitons: unknown key `partitons` at line 4; did you mean `partitions`?",
    );
    refused(
        &CLICKS.replace("unit: ms", "unti: ms"),
        "job.yaml:9:21: source.event_time[1].unti: unknown key `unti` at line 9; did you mean `unit`?",
    );
    refused(
        &CLICKS.replace("fn: sum", "fun: sum"),
        "job.yaml:24:20: aggregates[1].fun: unknown key `fun` at line 24; did you mean `fn`?",
    );
    refused(
        &CLICKS.replace("tumbling", "tumblin"),
        "job.yaml:20:3: window.tumblin: unknown key `tumblin` at line 20; did you mean `tumbling`?",
    );
    appended(
        "\"a\\nb\": 5",
        &format!("job.yaml:13:1: a\\nb: unknown key `a\\nb` at line 13; known here: {KEYS}"),
    );
}

#[test]
fn all_unknown_keys_and_all_bad_values_are_named_at_once() {
    refused(
        &CLICKS.replace("on_quiet", "on_quit").replace("10s", "10").replace("shards", "shard"),
        "\
job.yaml:15:3: watermark.on_quit: unknown key `on_quit` at line 15; did you mean `on_quiet`?
job.yaml:20:21: window.tumbling.size: `10` has no unit; write a whole number and a unit, as in `250ms`, `5s`, `24h`
job.yaml:31:3: state.shard: unknown key `shard` at line 31; did you mean `shards`?",
    );
}

#[test]
fn missing_keys() {
    replaced(
        "  topic: in\n",
        "",
        "job.yaml:2:1: source: key `topic` is missing; add `topic: …`, see docs/job.md",
    );
    replaced(
        "sink: { topic: out }\n",
        "",
        "job.yaml:1:1: key `sink` is missing; add `sink: …`, see docs/job.md",
    );
    replaced(
        "size: 10s",
        "",
        "job.yaml:8:3: window.tumbling: key `size` is missing; add `size: …`, see docs/job.md",
    );
    replaced(WINDOW, "", "job.yaml:1:1: key `window` is missing; add `window: { tumbling: { size: … } }`");
    replaced(
        "  delay: 2s",
        "  idle_timeout: 2s",
        "job.yaml:5:1: watermark: `bounded_out_of_orderness` needs a `delay`; add `delay: …`, the bound on the disorder, as in `delay: 5s`",
    );
    replaced(
        "fn: count",
        "fn: sum",
        "job.yaml:10:5: aggregates[0]: `n` has no `field`; say what it is computed of, as in `field: /amount`",
    );
}

#[test]
fn wrong_types() {
    replaced(
        "topic: in",
        "topic: [in]",
        "job.yaml:3:3: source.topic: expected text, found a list; see docs/job.md",
    );
    replaced("topic: in", "topic:", "job.yaml:3:3: source.topic: has no value; give text, or remove the key");
    replaced(
        "sink: { topic: out }",
        "sink: out",
        "job.yaml:11:7: sink: expected a mapping with the keys topic, found `out`; see docs/job.md",
    );
    for (number, column) in [("many", 15), ("-1", 15), ("4.5", 15), ("99999999999", 15)] {
        replaced(
            "topic: in",
            &format!("topic: in\n  partitions: {number}"),
            &format!(
                "job.yaml:4:{column}: source.partitions: expected a whole number, found `{number}`; see docs/job.md"
            ),
        );
    }
    replaced(
        "window:\n  tumbling: { size: 10s }",
        "window: tumbling",
        "job.yaml:7:9: window: `tumbling` needs a value; write `tumbling: …`, see docs/job.md",
    );
    replaced(
        WINDOW,
        "window: { tumbling: { size: 1s }, hopping: { size: 2s, step: 1s } }",
        "job.yaml:7:1: window: expected exactly one of tumbling, hopping, sliding, session, found 2 keys; see docs/job.md",
    );
    replaced(
        WINDOW,
        "window: [tumbling]",
        "job.yaml:7:1: window: expected one of tumbling, hopping, sliding, session, found a list; see docs/job.md",
    );
    replaced(
        "key: record_key",
        "key: { record_key: yes }",
        "job.yaml:4:22: source.key.record_key: `record_key` takes no value; write `record_key` alone",
    );
    replaced(
        "key: record_key",
        "key: record_key\n  event_time: [[a]]",
        "job.yaml:5:16: source.event_time[0]: expected `record_timestamp`, `{ header: … }` or `{ field: … }`, found a list; see docs/job.md",
    );
    replaced(COUNT, "  count", "job.yaml:10:3: aggregates: expected a list, found `count`; see docs/job.md");
}

#[test]
fn unknown_words() {
    replaced(
        "key: record_key",
        "key: recordkey",
        "job.yaml:4:8: source.key: unknown value `recordkey`; did you mean `record_key`?",
    );
    replaced(
        "delay: 2s",
        "delay: 2s\n  on_quiet: stop",
        "job.yaml:7:13: watermark.on_quiet: unknown value `stop`; known here: hold, advance, finish",
    );
    replaced(
        "fn: count",
        "fn: median",
        "job.yaml:10:20: aggregates[0].fn: unknown value `median`; known here: count, sum, min, max, avg, variance, stddev, first, last, quantile, distinct, top_k, collect",
    );
    replaced(
        "topic: in",
        "topic: in\n  format: xml",
        "job.yaml:4:11: source.format: unknown value `xml`; known here: json, raw, avro, protobuf",
    );
}

#[test]
fn bad_durations_and_sizes() {
    let advice = "write a whole number and a unit, as in `250ms`, `5s`, `24h`";
    for (text, what) in [
        ("2", format!("`2` has no unit; {advice}")),
        ("fast", format!("`fast` is not a duration; {advice}")),
        ("-2s", format!("`-2s` is not a duration; {advice}")),
        ("1.5s", format!("`1.5s` is not a duration; {advice}")),
        ("2sec", "`sec` is not a unit of a duration; use one of ms, s, m, h, d".to_owned()),
        ("99999999d", "`99999999d` is too large; the largest duration is `36525d`".to_owned()),
    ] {
        let expected = format!("job.yaml:6:10: watermark.delay: {what}");
        replaced("delay: 2s", &format!("delay: {text}"), &expected);
    }
    replaced(
        "delay: 2s",
        "delay: 2s\n  idle_timeout: 0s",
        "job.yaml:7:17: watermark.idle_timeout: must be more than zero; give a longer duration",
    );
    appended(
        "state: { memory: 5MB, commit_interval: 1ms }",
        "\
job.yaml:13:18: state.memory: `MB` is not a unit of a size; use one of B, KiB, MiB, GiB, TiB
job.yaml:13:40: state.commit_interval: is out of range; use 10ms to 10s",
    );
    appended(
        "state: { memory: 5KiB, commit_interval: 1m }",
        "\
job.yaml:13:18: state.memory: is too small; use at least `1MiB`
job.yaml:13:41: state.commit_interval: is out of range; use 10ms to 10s",
    );
}

#[test]
fn numbers_out_of_range() {
    for shards in [0, 4097] {
        let expected =
            format!("job.yaml:13:18: state.shards: {shards} is out of range; use a number from 1 to 4096");
        appended(&format!("state: {{ shards: {shards} }}"), &expected);
    }
    replaced(
        "topic: in",
        "topic: in\n  partitions: 0",
        "job.yaml:4:15: source.partitions: 0 is out of range; use a number from 1 to 10000",
    );
    replaced(
        "delay: 2s",
        "delay: 2s\n  reanchor_after: 0",
        "job.yaml:7:19: watermark.reanchor_after: 0 is out of range; use a number from 1 to 1000000",
    );
    replaced(
        "fn: count",
        "fn: sum, field: /a, scale: 19",
        "job.yaml:10:43: aggregates[0].scale: 19 is out of range; use a number from 0 to 18",
    );
}

#[test]
fn sliding_with_lateness() {
    replaced(
        "tumbling: { size: 10s }",
        "sliding: { size: 0s }\nallowed_lateness: 1s",
        "\
job.yaml:8:20: window.sliding.size: must be more than zero; give a longer duration
job.yaml:9:19: allowed_lateness: with `sliding` a late record would change the results of all that came within `size` after it; remove it; a larger `watermark.delay` waits longer",
    );
}

#[test]
fn reordering_with_what_it_cannot_have() {
    replaced(
        WINDOW,
        "reorder: {}\nallowed_lateness: 1s\nwindow:\n  tumbling: { size: 10s }",
        "\
job.yaml:8:19: allowed_lateness: with `reorder` a late record cannot be put where it belongs: those behind it are out; remove it; a larger `watermark.delay` waits longer
job.yaml:9:1: window: a reordered record is in no window; remove `window`, or `reorder`
job.yaml:11:1: aggregates: nothing is computed of a reordered record; remove `aggregates`, or `reorder`",
    );
    replaced(
        &format!("{WINDOW}\naggregates:\n{COUNT}"),
        "reorder: { by: time }",
        "job.yaml:7:12: reorder.by: unknown key `by` at line 7; no key is known here: write `{}`",
    );
}

#[test]
fn sessions() {
    replaced(
        "tumbling: { size: 10s }",
        "session: { gap: 0s }",
        "job.yaml:8:19: window.session.gap: must be more than zero; give a longer duration",
    );
    replaced(
        "tumbling: { size: 10s }",
        "session: { gap: 2h, cut: 1h }",
        "job.yaml:8:28: window.session.cut: 1h is less than `gap` 2h; use at least `gap`: each session ends that long after a record",
    );
}

#[test]
fn early_results() {
    appended("early: { every: 5ms }", "job.yaml:13:17: early.every: is too short; use at least `10ms`");
    replaced(
        "tumbling: { size: 10s }",
        "sliding: { size: 10s }\nearly: { every: 1s }",
        "job.yaml:9:1: early: a sliding window ends with its record: none is ever open; remove `early`",
    );
}

#[test]
fn what_is_not_supported_yet() {
    replaced(
        "fn: count",
        "fn: wasm",
        "job.yaml:10:20: aggregates[0].fn: not supported yet: the aggregate `wasm` at line 10; use one of those in docs/job.md",
    );
}

#[test]
fn an_automatic_replay_that_would_read_all_the_time() {
    replaced(
        "{ topic: dead }",
        "{ topic: dead, replay: { mode: auto, every: 10ms } }",
        "job.yaml:12:58: dead_letter.replay.every: is too short; use at least `1s`",
    );
}

#[test]
fn keys_of_another_aggregate_and_bad_quantiles() {
    replaced(
        "fn: count",
        "fn: max, field: /a, k: 3, limit: 4",
        "\
job.yaml:10:39: aggregates[0].k: `k` belongs to `top_k`; remove `k`, or use `fn: top_k`
job.yaml:10:49: aggregates[0].limit: `limit` belongs to `collect`; remove `limit`, or use `fn: collect`",
    );
    replaced(
        "fn: count",
        "fn: top_k, field: /a, k: 101",
        "job.yaml:10:41: aggregates[0].k: 101 is out of range; use a number from 1 to 100",
    );
    replaced(
        "fn: count",
        "fn: max, field: /a, q: 0.5, accuracy: 1%",
        "\
job.yaml:10:39: aggregates[0].q: `q` belongs to `quantile`; remove `q`, or use `fn: quantile`
job.yaml:10:54: aggregates[0].accuracy: `accuracy` belongs to `quantile`; remove `accuracy`, or use `fn: quantile`",
    );
    replaced(
        "fn: count",
        "fn: quantile, field: /a",
        "job.yaml:10:5: aggregates[0]: `quantile` needs a `q`; say which, as in `q: 0.99` or `q: [0.5, 0.99]`",
    );
    replaced(
        "fn: count",
        "fn: quantile, field: /a, q: 0.5, accuracy: 0.01%",
        "job.yaml:10:59: aggregates[0].accuracy: must be from 0.1% to 20%; use `1%`, or leave it out",
    );
    replaced(
        "fn: count",
        "fn: quantile, field: /a, q: []",
        "job.yaml:10:41: aggregates[0].q: must be a number, or a list of 1 to 20 of them; write it as in `q: 0.99` or `q: [0.5, 0.99]`",
    );
    for rank in ["1.1", "99%", "-1", "0.1234567", ".5", "1."] {
        replaced(
            "fn: count",
            &format!("fn: quantile, field: /a, q: [0, {rank}]"),
            &format!(
                "job.yaml:10:48: aggregates[0].q[1]: `{rank}` is not a number from 0 to 1 with at most six decimal places; write it as in `0.99`; the median is `0.5`"
            ),
        );
    }
}

#[test]
fn conditions_that_do_not_read() {
    let example = "write it as in `/status >= 500 and not /type == \"test\"`";
    for (condition, what) in [
        ("status > 5", "expected a field as in `/status`, found `status`"),
        ("/a = 5", "expected ==, !=, <, <=, > or >= behind `/a`, found `=`"),
        ("/a == null", "expected a number of at most 18 digits, \"text\", true or false, found `null`"),
        ("/a == 1.", "expected a number of at most 18 digits, \"text\", true or false, found `1.`"),
        ("/a == 1 /b == 2", "does not go on with `/b`"),
        ("(/a == 1", "expected `)`, found the end"),
        ("/a > true", "`/a` is compared with true or false by `<` or `>`"),
        ("exists", "expected a field as in `/status`, found the end"),
    ] {
        replaced(
            "fn: count",
            &format!("fn: count, where: '{condition}'"),
            &format!("job.yaml:10:34: aggregates[0].where: `{}` {what}; {example}", condition.escape_debug()),
        );
    }
    let deep = "(".repeat(5_000);
    refused(
        &least_with("fn: count", &format!("fn: count, where: '{deep}'")),
        &format!(
            "job.yaml:10:34: aggregates[0].where: `{deep}` is nested deeper than 32 levels; make it flatter"
        ),
    );
}

#[test]
fn keys_of_another_strategy() {
    replaced(
        "delay: 2s",
        "strategy: adaptive\n  delay: 2s\n  span: 1s\n  max_delay: 1m",
        "\
job.yaml:7:10: watermark.delay: `adaptive` has no `delay`; remove `delay`, or use `bounded_out_of_orderness`
job.yaml:8:9: watermark.span: `adaptive` has no `span`; remove `span`, or use `sliding_min`",
    );
    replaced(
        "delay: 2s",
        "delay: 2s\n  late_share: 1%",
        "job.yaml:7:15: watermark.late_share: `bounded_out_of_orderness` has no `late_share`; remove `late_share`, or use `adaptive`",
    );
    replaced(
        "delay: 2s",
        "strategy: sliding_min",
        "job.yaml:5:1: watermark: `sliding_min` needs a `span`; add `span: …`, how far behind the largest event time a record counts, as in `span: 5s`",
    );
    replaced(
        "delay: 2s",
        "strategy: adaptive",
        "job.yaml:5:1: watermark: `adaptive` needs a `max_delay`; add `max_delay: …`, the longest that results may wait for late records, as in `max_delay: 1m`",
    );
    replaced(
        "delay: 2s",
        "strategy: adaptive\n  min_delay: 2m\n  max_delay: 1m",
        "job.yaml:7:14: watermark.min_delay: is longer than `max_delay`, 1m; use at most `max_delay`",
    );
    for (share, what) in [
        ("0.1", "has no `%`"),
        ("0%", "is not above 0% and at most 50%"),
        ("51%", "is not above 0% and at most 50%"),
        ("0.00001%", "is not a share with at most four decimal places"),
        (".5%", "is not a share with at most four decimal places"),
        ("-1%", "is not a share with at most four decimal places"),
        ("99999999999999999999%", "is not above 0% and at most 50%"),
    ] {
        replaced(
            "delay: 2s",
            &format!("strategy: adaptive\n  max_delay: 1m\n  late_share: \"{share}\""),
            &format!("job.yaml:8:15: watermark.late_share: `{share}` {what}; write it as in `0.1%`, `5%`"),
        );
    }
    replaced(
        "delay: 2s",
        "delay: 2s\n  on_future: accept\n  max_future_skew: 1m",
        "job.yaml:8:20: watermark.max_future_skew: `on_future: accept` has no bound; remove one of the two",
    );
}

#[test]
fn contradictions() {
    replaced(
        "delay: 2s",
        "delay: 2s\n  strategy: ascending",
        "job.yaml:6:10: watermark.delay: `ascending` has no `delay`; remove `delay`, or use `bounded_out_of_orderness`",
    );
    replaced(
        "tumbling: { size: 10s }",
        "hopping: { size: 10s, step: 20s }",
        "job.yaml:8:31: window.hopping.step: `step` 20s is larger than `size` 10s; records between two windows would be lost: use at most `size`",
    );
    replaced(
        "size: 10s",
        "size: 10s, offset: 25s",
        "job.yaml:8:34: window.tumbling.offset: must be less than 10s, the distance of two windows; the same grid has `5s`",
    );
    replaced(
        "size: 10s",
        "size: 1d, timezone: Europe/Berln",
        "job.yaml:8:35: window.tumbling.timezone: `Europe/Berln` is no time zone; did you mean `Europe/Berlin`?",
    );
    replaced(
        "size: 10s",
        "size: 1d, timezone: here",
        "job.yaml:8:35: window.tumbling.timezone: `here` is no time zone; use an IANA name, as in `Europe/Berlin`",
    );
    replaced(
        "size: 10s",
        "size: 5h, timezone: Europe/Berlin",
        "job.yaml:8:21: window.tumbling.size: `5h` with a `timezone` is neither a whole number of days nor hours that a day divides into; write `1d`, `1h`, `2h`, `3h`, `4h`, `6h`, `8h` or `12h`, or remove `timezone`",
    );
    replaced(
        "tumbling: { size: 10s }",
        "hopping: { size: 1d, step: 1h, timezone: Europe/Berlin }",
        "job.yaml:8:30: window.hopping.step: `1h` with a `timezone` is no whole number of days; write days, as in `7d`, or remove `timezone`",
    );
    replaced(
        "fn: count",
        "fn: count, scale: 2",
        "job.yaml:10:34: aggregates[0].scale: a count has no decimal places; remove `scale`",
    );
    replaced(
        "{ topic: dead }",
        "{ topic: dead, replay: { every: 10m } }",
        "job.yaml:12:46: dead_letter.replay.every: a manual replay has no interval; remove `every`, or write `mode: auto`",
    );
    replaced(
        "key: record_key",
        "key: record_key\n  event_time: [{}, { header: a, field: /b }]",
        "\
job.yaml:5:16: source.event_time[0]: neither `header` nor `field` is given; name one of them
job.yaml:5:20: source.event_time[1]: both `header` and `field` are given; make two entries of it, in order",
    );
}

#[test]
fn empty_lists() {
    replaced(
        "key: record_key",
        "key: record_key\n  event_time: []",
        "job.yaml:5:3: source.event_time: the list is empty; name a header, a field or `record_timestamp`",
    );
    replaced(
        &format!("\n{COUNT}"),
        " []",
        "job.yaml:9:1: aggregates: the list is empty; add one, as in `{ name: count, fn: count }`",
    );
}

#[test]
fn names_that_cannot_be() {
    let characters = "use only a-z, A-Z, 0-9, `.`, `_` and `-`";
    replaced(
        "name: least",
        "name: -x",
        &format!(
            "job.yaml:1:7: name: `-x` cannot be the name of a job; begin with a letter or digit and {characters}"
        ),
    );
    replaced(
        "name: least",
        "name: a b",
        &format!("job.yaml:1:7: name: `a b` cannot be the name of a job; {characters}"),
    );
    replaced(
        "name: least",
        &format!("name: {}", "x".repeat(240)),
        "job.yaml:1:7: name: the name of the job has 240 characters; use at most 239, topics are named after it",
    );
    replaced(
        "topic: in",
        "topic: in put",
        &format!("job.yaml:3:10: source.topic: `in put` cannot be the name of a Kafka topic; {characters}"),
    );
    replaced(
        "topic: out",
        &format!("topic: {}", "t".repeat(250)),
        "job.yaml:11:16: sink.topic: the name of the topic has 250 characters; use at most 249",
    );
    replaced(
        "name: n,",
        "name: pane,",
        "job.yaml:10:13: aggregates[0].name: results already have a field `pane`; choose another name",
    );
    replaced(
        "name: n,",
        "name: a b,",
        "job.yaml:10:13: aggregates[0].name: `a b` cannot be the name of an aggregate; begin with a letter, use only a-z, A-Z, 0-9 and `_`, at most 64 characters",
    );
    replaced(
        COUNT,
        &format!("{COUNT}\n{COUNT}"),
        "job.yaml:11:13: aggregates[1].name: `n` is already the name of aggregates[0]; choose another name",
    );
}

#[test]
fn pointers_that_are_none() {
    replaced(
        "key: record_key",
        "key: { field: user }",
        "job.yaml:4:17: source.key.field: `user` is not a JSON pointer; begin with `/`, as in `/user`",
    );
    replaced(
        "key: record_key",
        "key: { field: /us~er }",
        "job.yaml:4:17: source.key.field: `/us~er` is not a JSON pointer; write `~` as `~0` and a `/` within a name as `~1`",
    );
}

#[test]
fn topics_that_collide() {
    replaced(
        "topic: out",
        "topic: in",
        "job.yaml:11:16: sink.topic: collides with the source, `in`; use another topic",
    );
    replaced(
        "topic: out",
        "topic: least-changelog",
        "job.yaml:11:16: sink.topic: collides with the changelog of the job, `least-changelog`; use another topic",
    );
    refused(
        &least_with("topic: out", "topic: o_ut").replace("topic: dead", "topic: o.ut"),
        "job.yaml:12:23: dead_letter.topic: collides with the sink, `o_ut`; use another topic",
    );
}
