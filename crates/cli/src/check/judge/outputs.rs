//! The topics that the job writes: results, dead letters, and its own two.

use tidegate_job::Job;
use tidegate_kafka::TopicRole;

use super::super::facts::{Facts, FoundTopic, Topic};
use super::super::finding::Finding;
use super::super::sample::PartitionSample;
use super::{retention, text_of};

/// Kafka's own default.
const DEFAULT_MAX_MESSAGE: i64 = 1_048_588;
/// Room for the headers of a dead letter.
const HEADERS: i64 = 64 << 10;
const MAX_MESSAGE: &str = "max.message.bytes";

pub(super) fn judge(job: &Job, facts: &Facts, findings: &mut Vec<Finding>) {
    let oldest = oldest_age(facts);
    results(job, facts, oldest, findings);
    dead_letters(job, facts, oldest, findings);
    internal("changelog", &facts.changelog, job.core.shards, TopicRole::Changelog, facts, findings);
    internal("control", &facts.control, 1, TopicRole::Control, facts, findings);
}

/// How old the oldest record of the sample is by its event time: what comes out of it carries that time.
fn oldest_age(facts: &Facts) -> Option<i64> {
    let sample = facts.sample.as_ref().ok()?;
    let oldest = sample.iter().filter_map(|partition: &PartitionSample| partition.oldest_ms).min()?;
    Some(facts.now_ms.saturating_sub(oldest))
}

/// The topic, where it exists; else whether it will.
fn existing<'a>(
    group: &'static str,
    topic: &'a Topic,
    partitions: u32,
    findings: &mut Vec<Finding>,
) -> Option<&'a FoundTopic> {
    let name = &topic.name;
    match (&topic.found, &topic.creatable) {
        (Some(found), _) => return Some(found),
        (None, Some(Err(why))) => findings.push(Finding::error(
            group,
            "topic",
            format!("`{name}` does not exist, and cannot be created with {partitions} partitions: {why}"),
            "create it, or give the coordinator the right to",
        )),
        (None, _) => findings.push(Finding::ok(
            group,
            "topic",
            format!("`{name}` does not exist; the coordinator will create it with {partitions} partitions"),
        )),
    }
    None
}

fn unreadable(group: &'static str, topic: &Topic, found: &FoundTopic, findings: &mut Vec<Finding>) -> bool {
    let Err(why) = &found.configs else { return false };
    findings.push(Finding::warning(
        group,
        "settings",
        format!("the configuration of `{}` cannot be read: {why}", topic.name),
        "give the right to describe its configuration: coordinator and workers need it too",
    ));
    true
}

fn results(job: &Job, facts: &Facts, oldest: Option<i64>, findings: &mut Vec<Finding>) {
    const GROUP: &str = "results";
    let topic = &facts.sink;
    let Some(found) = existing(GROUP, topic, job.core.shards, findings) else { return };
    findings.push(spread(GROUP, topic, found, job.core.shards));
    if unreadable(GROUP, topic, found, findings) {
        return;
    }
    if found.has_policy("compact") {
        findings.push(Finding::warning(
            GROUP,
            "compaction",
            format!(
                "`{}` is compacted: of each key only the newest result is kept, not one of each window",
                topic.name
            ),
            "cleanup.policy=delete, unless that is meant",
        ));
    }
    findings.extend(ages(GROUP, topic, found, oldest, "results"));
    findings.push(size(GROUP, topic, found, facts));
}

fn dead_letters(job: &Job, facts: &Facts, oldest: Option<i64>, findings: &mut Vec<Finding>) {
    const GROUP: &str = "dead letters";
    let topic = &facts.dead_letter;
    let Some(found) = existing(GROUP, topic, job.core.shards, findings) else { return };
    findings.push(spread(GROUP, topic, found, job.core.shards));
    if unreadable(GROUP, topic, found, findings) {
        return;
    }
    if found.has_policy("compact") {
        findings.push(Finding::error(
            GROUP,
            "compaction",
            format!("`{}` is compacted: it refuses records without a key, and loses letters whose keys come again", topic.name),
            "cleanup.policy=delete",
        ));
    }
    if found.setting("message.timestamp.type") == Some("LogAppendTime") {
        findings.push(Finding::warning(
            GROUP,
            "timestamps",
            format!(
                "`{}` keeps LogAppendTime: dead letters lose the timestamps of their records",
                topic.name
            ),
            "message.timestamp.type=CreateTime",
        ));
    }
    let replay = job.dead_letter.replay_ttl.map(|ttl| ttl.millis());
    match (retention(found), replay) {
        (Some(kept), Some(ttl)) if kept < ttl => findings.push(Finding::warning(
            GROUP,
            "retention",
            format!(
                "letters stay for {}, less than dead_letter.replay.ttl ({})",
                text_of(kept),
                text_of(ttl)
            ),
            format!(
                "retention.ms={ttl} at least; -1 is best, as Kafka counts from the record's own timestamp"
            ),
        )),
        _ => findings.extend(ages(GROUP, topic, found, oldest, "letters")),
    }
    findings.push(size(GROUP, topic, found, facts));
}

/// Partitions of a topic that each shard writes to.
fn spread(group: &'static str, topic: &Topic, found: &FoundTopic, shards: u32) -> Finding {
    let text = format!("`{}` has {} partitions for {shards} shards", topic.name, found.partitions);
    if found.partitions < shards {
        let fix = format!(
            "{shards} partitions, so that a transaction of one shard makes no reader of another wait"
        );
        return Finding::warning(group, "topic", text, fix);
    }
    Finding::ok(group, "topic", text)
}

/// Kafka counts retention from a record's timestamp, which here is event time.
fn ages(
    group: &'static str,
    topic: &Topic,
    found: &FoundTopic,
    oldest: Option<i64>,
    what: &str,
) -> Option<Finding> {
    let name = &topic.name;
    let bound = found.number("message.timestamp.before.max.ms").filter(|bound| *bound >= 0);
    if let (Some(age), Some(bound)) = (oldest, bound)
        && age > bound
    {
        return Some(Finding::error(
            group,
            "timestamps",
            format!(
                "message.timestamp.before.max.ms of `{name}` is {}, and records are up to {} old: it refuses {what} of them",
                text_of(bound),
                text_of(age)
            ),
            "raise it",
        ));
    }
    let Some(kept) = retention(found) else {
        return Some(Finding::ok(group, "retention", format!("{what} stay for ever")));
    };
    Some(match oldest {
        Some(age) if age > kept => Finding::warning(
            group,
            "retention",
            format!(
                "{what} stay until they are {} old by event time, and records are up to {} old: such {what} are deleted at once",
                text_of(kept),
                text_of(age)
            ),
            "retention.ms=-1, or longer than the data are old",
        ),
        _ => Finding::ok(
            group,
            "retention",
            format!("{what} stay until they are {} old by event time", text_of(kept)),
        ),
    })
}

/// Whether the largest source record fits, as a dead letter.
fn size(group: &'static str, topic: &Topic, found: &FoundTopic, facts: &Facts) -> Finding {
    let limit = found.number(MAX_MESSAGE).unwrap_or(DEFAULT_MAX_MESSAGE);
    let source = facts.source.found.as_ref().and_then(|source| source.number(MAX_MESSAGE));
    let need = source.unwrap_or(DEFAULT_MAX_MESSAGE).saturating_add(HEADERS);
    let text = format!("max.message.bytes of `{}` is {limit}", topic.name);
    if limit < need {
        return Finding::warning(
            group,
            "size",
            format!(
                "{text}, less than that of the source and room for headers: the largest dead letters come without their value"
            ),
            format!("max.message.bytes={need}; the smallest of results, dead letters and changelog counts"),
        );
    }
    Finding::ok(group, "size", format!("{text}: the largest record of the source fits, as a dead letter too"))
}

fn internal(
    group: &'static str,
    topic: &Topic,
    partitions: u32,
    role: TopicRole,
    facts: &Facts,
    findings: &mut Vec<Finding>,
) {
    let name = &topic.name;
    let Some(found) = existing(group, topic, partitions, findings) else {
        findings.push(future_copies(group, facts));
        return;
    };
    if found.partitions != partitions {
        findings.push(Finding::error(
            group,
            "topic",
            format!("`{name}` has {} partitions, must have {partitions}", found.partitions),
            "delete it, if it is not of a job that has run: the coordinator makes it anew; else restore state.shards",
        ));
    }
    if !unreadable(group, topic, found, findings) {
        let wrong = role.required().iter().filter(|(key, wanted)| found.setting(key) != Some(wanted));
        let wrong: Vec<_> = wrong
            .map(|(key, wanted)| {
                let text = format!(
                    "`{key}` of `{name}` is `{}`: state would be lost",
                    found.setting(key).unwrap_or("")
                );
                Finding::error(
                    group,
                    "settings",
                    text,
                    format!("set {key}={wanted}: the coordinator does not start otherwise"),
                )
            })
            .collect();
        if wrong.is_empty() {
            findings.push(Finding::ok(group, "settings", format!("`{name}` is kept as it has to be")));
        }
        findings.extend(wrong);
        if group == "changelog" {
            findings.push(size(group, topic, found, facts));
        }
    }
    findings.push(copies(group, topic, found));
}

/// The copies of a topic that is the state.
fn copies(group: &'static str, topic: &Topic, found: &FoundTopic) -> Finding {
    let name = &topic.name;
    let replicas = found.copies.iter().map(|copies| copies.replicas).min().unwrap_or(0);
    let in_sync = found.copies.iter().map(|copies| copies.in_sync).min().unwrap_or(0);
    let min_insync = found.number("min.insync.replicas").and_then(|least| usize::try_from(least).ok());
    let least = min_insync.unwrap_or(1);
    let text = format!(
        "copies of `{name}`: {replicas}, of which in sync: {in_sync}; min.insync.replicas is {least}"
    );
    if in_sync < least {
        return Finding::error(group, "copies", text, "bring its brokers back: nothing can be committed");
    }
    if replicas < 2 || least < 2 {
        let fix = "3 copies and min.insync.replicas=2 in production: this topic is the state";
        return Finding::warning(group, "copies", text, fix);
    }
    if least >= replicas {
        let fix = "min.insync.replicas below the number of copies: else nothing can be committed while one broker is away";
        return Finding::warning(group, "copies", text, fix);
    }
    Finding::ok(group, "copies", text)
}

/// The copies that a topic would get.
fn future_copies(group: &'static str, facts: &Facts) -> Finding {
    let setting = |key: &str| {
        let settings = facts.broker.as_ref().ok()?;
        settings.get(key)?.parse::<i64>().ok()
    };
    let (copies, least) = (setting("default.replication.factor"), setting("min.insync.replicas"));
    let shown = |value: Option<i64>| value.map_or_else(|| "unknown".to_owned(), |value| value.to_string());
    let text = format!(
        "the cluster's defaults: default.replication.factor is {}, min.insync.replicas {}",
        shown(copies),
        shown(least)
    );
    match (copies, least) {
        (Some(copies), Some(least)) if copies > 2 && least > 1 && least < copies => {
            Finding::ok(group, "copies", text)
        }
        _ => Finding::warning(
            group,
            "copies",
            text,
            "start the coordinator with `--replication 3 --min-insync 2` in production: this topic is the state",
        ),
    }
}
