use std::collections::BTreeMap;

use tidegate_core::time::{Offset, Partition};
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{AppendTime, Copies, PartitionEnds};

use super::super::facts::{Attempt, Facts, FoundTopic, Topic};
use super::super::finding::{Finding, Level};
use super::super::sample::PartitionSample;
use super::judge;

const NOW: i64 = 1_700_000_000_000;
const DAY: &str = "86400000";
const WEEK: &str = "604800000";

fn job(watermark: &str) -> Job {
    let text = format!(
        "name: clicks
source: {{ topic: in, key: {{ field: /user }} }}
watermark: {{ {watermark} }}
window: {{ tumbling: {{ size: 10s }} }}
aggregates: [{{ name: n, fn: count }}]
sink: {{ topic: out }}
dead_letter: {{ topic: dead, replay: {{ mode: manual, ttl: 2h }} }}
state: {{ shards: 4 }}
"
    );
    JobFile::parse(&text, "job.yaml").unwrap()
}

fn usual() -> Job {
    job("delay: 2s, max_future_skew: 1m")
}

fn topic(name: &str, partitions: u32, settings: &[(&str, &str)]) -> Topic {
    let settings = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    let all = (0..partitions).map(Partition);
    let ends = |partition| PartitionEnds {
        partition,
        log_start: Offset(0),
        last_stable: Offset(50),
        high_watermark: Offset(50),
    };
    let found = FoundTopic {
        partitions,
        configs: Ok(settings.collect()),
        copies: all.clone().map(|partition| Copies { partition, replicas: 3, in_sync: 3 }).collect(),
        ends: all.map(ends).collect(),
    };
    Topic { name: name.to_owned(), found: Some(found), creatable: None }
}

/// A cluster on which nothing is to be found.
fn facts() -> Facts {
    let big = ("max.message.bytes", "2000000");
    let kept = ("retention.ms", "-1");
    let sample = PartitionSample {
        partition: 0,
        offsets: 50,
        records: 50,
        most_behind_ms: 1_500,
        oldest_ms: Some(NOW - 60_000),
        newest_ms: Some(NOW - 500),
        ..PartitionSample::default()
    };
    let min = ("min.insync.replicas", "2");
    let broker = [("transaction.max.timeout.ms", "900000"), ("group.min.session.timeout.ms", "6000")];
    Facts {
        address: "b:9092".to_owned(),
        brokers: vec![1, 2, 3],
        broker: Ok(broker.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        source: topic(
            "in",
            2,
            &[kept, ("message.timestamp.type", "CreateTime"), ("cleanup.policy", "delete")],
        ),
        sink: topic("out", 4, &[kept, big]),
        dead_letter: topic("dead", 4, &[kept, big]),
        changelog: topic(
            "clicks-changelog",
            4,
            &[kept, big, min, ("cleanup.policy", "delete"), ("retention.bytes", "-1")],
        ),
        control: topic("clicks-control", 1, &[min, ("cleanup.policy", "compact")]),
        attempts: vec![Attempt {
            name: "write",
            what: "a transaction can write to `out`".to_owned(),
            outcome: Ok(()),
            fix: "give the right".to_owned(),
        }],
        clocks: Ok(vec![AppendTime {
            partition: Partition(0),
            sent_ms: NOW,
            appended_ms: NOW + 1,
            answered_ms: NOW + 3,
        }]),
        now_ms: NOW,
        sample: Ok(vec![sample]),
    }
}

fn set(topic: &mut Topic, key: &str, value: &str) {
    let found = topic.found.as_mut().unwrap();
    found.configs.as_mut().unwrap().insert(key.to_owned(), value.to_owned());
}

fn sampled(facts: &mut Facts) -> &mut PartitionSample {
    facts.sample.as_mut().unwrap().first_mut().unwrap()
}

/// What is found besides what is fine.
fn found(job: &Job, facts: &Facts) -> Vec<(&'static str, &'static str, Level, String)> {
    let findings = judge(job, facts).into_iter().filter(|finding| finding.level != Level::Ok);
    findings
        .map(|Finding { group, name, level, text, fix }| {
            (group, name, level, format!("{text}; {}", fix.unwrap()))
        })
        .collect()
}

#[test]
fn where_all_is_well_there_is_nothing_but_ok() {
    assert_eq!(found(&usual(), &facts()), []);
    let said: Vec<_> = judge(&usual(), &facts()).into_iter().map(|finding| finding.text).collect();
    assert!(
        said.iter().any(|text| text.contains("clocks agree with this machine's within 3 ms")),
        "{said:#?}"
    );
}

/// A change to the cluster, and what has to be found then: group, name, level, words.
type Case = (fn(&mut Facts), &'static str, &'static str, Level, &'static str);

#[test]
fn each_thing_that_is_wrong_is_found_alone() {
    use Level::{Error, Warning};
    let cases: &[Case] = &[
        (|f| f.broker = Err("denied".into()), "cluster", "timeouts", Warning, "denied"),
        (
            |f| {
                f.broker.as_mut().unwrap().insert("transaction.max.timeout.ms".into(), "5000".into());
            },
            "cluster",
            "timeouts",
            Error,
            "is 5s",
        ),
        (
            |f| {
                f.broker.as_mut().unwrap().insert("group.min.session.timeout.ms".into(), "9000".into());
            },
            "cluster",
            "timeouts",
            Warning,
            "--session-timeout 9s",
        ),
        (|f| f.clocks = Err("no right".into()), "cluster", "clock", Warning, "no right"),
        (
            |f| f.clocks.as_mut().unwrap()[0].appended_ms = NOW + 2_003,
            "cluster",
            "clock",
            Warning,
            "2s ahead of",
        ),
        (
            |f| f.clocks.as_mut().unwrap()[0].appended_ms = NOW - 120_000,
            "cluster",
            "clock",
            Error,
            "2m behind this machine's: more than watermark.max_future_skew",
        ),
        (
            |f| set(&mut f.source, "message.timestamp.type", "LogAppendTime"),
            "source",
            "timestamps",
            Warning,
            "time of arrival",
        ),
        (
            |f| set(&mut f.source, "cleanup.policy", "compact,delete"),
            "source",
            "compaction",
            Warning,
            "compacted",
        ),
        (
            |f| {
                set(&mut f.source, "retention.ms", "5000");
                set(&mut f.source, "segment.ms", "1000");
            },
            "source",
            "retention",
            Warning,
            "less than delay + window + allowed_lateness (12s)",
        ),
        (
            |f| {
                set(&mut f.source, "retention.ms", WEEK);
                set(&mut f.source, "segment.ms", WEEK);
            },
            "source",
            "retention",
            Warning,
            "retention.ms=1209600000 at least",
        ),
        (
            |f| set(&mut f.source, "retention.bytes", "1000"),
            "source",
            "retention",
            Warning,
            "retention.bytes is 1000",
        ),
        (
            |f| f.source.found.as_mut().unwrap().ends[1].high_watermark = Offset(60),
            "source",
            "open",
            Warning,
            "partition 1 at offset 50",
        ),
        (
            |f| f.source.found.as_mut().unwrap().configs = Err("denied".into()),
            "source",
            "settings",
            Warning,
            "denied",
        ),
        (|f| f.sample = Err("denied".into()), "records", "sample", Error, "denied"),
        (
            |f| {
                sampled(f).rejects.insert("no_key", (3, 17, "/user is null".into()));
            },
            "records",
            "sample",
            Warning,
            "3 of the last 50 would be dead letters, reason `no_key` (first: partition 0 offset 17: /user is null); correct source.key",
        ),
        (
            |f| {
                sampled(f).rejects.insert("unreadable", (50, 1, "line 1".into()));
            },
            "records",
            "sample",
            Error,
            "correct source.format",
        ),
        (
            |f| {
                sampled(f).future = 2;
                sampled(f).most_ahead_ms = 86_400_000;
            },
            "records",
            "future",
            Warning,
            "by up to 1d",
        ),
        (
            |f| {
                sampled(f).late = 5;
                sampled(f).most_behind_ms = 9_000;
            },
            "records",
            "disorder",
            Warning,
            "5 of 50 are further behind",
        ),
        (|f| sampled(f).append_times = 7, "records", "timestamps", Warning, "7 of 50 carry LogAppendTime"),
        (
            |f| f.sink.found.as_mut().unwrap().partitions = 2,
            "results",
            "topic",
            Warning,
            "2 partitions for 4 shards",
        ),
        (
            |f| set(&mut f.sink, "cleanup.policy", "compact"),
            "results",
            "compaction",
            Warning,
            "only the newest result",
        ),
        (
            |f| set(&mut f.sink, "message.timestamp.before.max.ms", "1000"),
            "results",
            "timestamps",
            Error,
            "refuses results",
        ),
        (
            |f| {
                sampled(f).oldest_ms = Some(NOW - 100 * 86_400_000);
                set(&mut f.sink, "retention.ms", DAY);
            },
            "results",
            "retention",
            Warning,
            "records are up to 100d old",
        ),
        (
            |f| set(&mut f.sink, "max.message.bytes", "1000"),
            "results",
            "size",
            Warning,
            "max.message.bytes=1114124",
        ),
        (
            |f| set(&mut f.dead_letter, "cleanup.policy", "compact"),
            "dead letters",
            "compaction",
            Error,
            "without a key",
        ),
        (
            |f| set(&mut f.dead_letter, "message.timestamp.type", "LogAppendTime"),
            "dead letters",
            "timestamps",
            Warning,
            "lose the timestamps",
        ),
        (
            |f| set(&mut f.dead_letter, "retention.ms", "60000"),
            "dead letters",
            "retention",
            Warning,
            "less than dead_letter.replay.ttl (2h)",
        ),
        (
            |f| set(&mut f.dead_letter, "max.message.bytes", "1048588"),
            "dead letters",
            "size",
            Warning,
            "come without their value",
        ),
        (|f| f.changelog.found.as_mut().unwrap().partitions = 3, "changelog", "topic", Error, "must have 4"),
        (
            |f| set(&mut f.changelog, "retention.ms", DAY),
            "changelog",
            "settings",
            Error,
            "set retention.ms=-1",
        ),
        (
            |f| set(&mut f.control, "cleanup.policy", "delete"),
            "control",
            "settings",
            Error,
            "set cleanup.policy=compact",
        ),
        (
            |f| f.changelog.found.as_mut().unwrap().copies[2].in_sync = 1,
            "changelog",
            "copies",
            Error,
            "nothing can be committed",
        ),
        (
            |f| f.control.found.as_mut().unwrap().copies[0].replicas = 1,
            "control",
            "copies",
            Warning,
            "this topic is the state",
        ),
        (
            |f| set(&mut f.changelog, "min.insync.replicas", "3"),
            "changelog",
            "copies",
            Warning,
            "below the number of copies",
        ),
        (
            |f| f.attempts[0].outcome = Err("Topic authorization failed".into()),
            "rights, each tried",
            "write",
            Error,
            "give the right",
        ),
    ];
    for (change, group, name, level, words) in cases {
        let mut facts = facts();
        change(&mut facts);
        let found = found(&usual(), &facts);
        let [(got_group, got_name, got_level, text)] = &found[..] else {
            panic!("{group} {name} {words}: {found:#?}")
        };
        assert_eq!((got_group, got_name, got_level), (group, name, level), "{text}");
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn topics_that_do_not_exist_are_made_or_missed() {
    let mut facts = facts();
    facts.source.found = None;
    let [(_, "topic", Level::Error, text)] = &found(&usual(), &facts)[..] else { panic!() };
    assert!(text.contains("give source.partitions"), "{text}");
    let mut facts = self::facts();
    for topic in [&mut facts.sink, &mut facts.dead_letter, &mut facts.changelog, &mut facts.control] {
        topic.found = None;
        topic.creatable = Some(Ok(()));
    }
    let copies = found(&usual(), &facts);
    assert!(
        copies.len() == 2
            && copies.iter().all(|(_, name, level, text)| {
                (*name, *level) == ("copies", Level::Warning) && text.contains("--replication 3")
            }),
        "{copies:?}"
    );
    let broker = facts.broker.as_mut().unwrap();
    broker.extend(
        [("default.replication.factor", "3"), ("min.insync.replicas", "2")]
            .map(|(k, v)| (k.to_owned(), v.to_owned())),
    );
    assert_eq!(found(&usual(), &facts), []);
    facts.changelog.creatable = Some(Err("Cluster authorization failed".to_owned()));
    let [("changelog", "topic", Level::Error, text)] = &found(&usual(), &facts)[..] else { panic!() };
    assert!(text.contains("Cluster authorization failed"), "{text}");
}

#[test]
fn without_a_bound_on_future_times_one_of_them_is_an_error() {
    let mut job = usual();
    job.core.watermark.max_future_skew = None;
    let mut facts = facts();
    sampled(&mut facts).future = 1;
    sampled(&mut facts).most_ahead_ms = 3_600_000;
    let [("records", "future", Level::Error, text)] = &found(&job, &facts)[..] else { panic!() };
    assert!(text.contains("take out `on_future: accept`"), "{text}");
}

#[test]
fn an_empty_source_is_fine_and_gaps_are_told_of() {
    let mut facts = facts();
    facts.sample = Ok(vec![PartitionSample::default()]);
    assert_eq!(found(&usual(), &facts), []);
    let mut facts = self::facts();
    sampled(&mut facts).offsets = 60;
    let said: BTreeMap<_, _> =
        judge(&usual(), &facts).into_iter().map(|f| ((f.group, f.name), f.text)).collect();
    assert!(said[&("records", "gaps")].starts_with("10 of 60 offsets are no record"), "{said:#?}");
}
