//! The source topic.

use tidegate_job::{Job, TimeSource};

use super::super::facts::{Facts, FoundTopic};
use super::super::finding::Finding;
use super::{retention, text_of};

const GROUP: &str = "source";

pub(super) fn judge(job: &Job, facts: &Facts, findings: &mut Vec<Finding>) {
    let name = &facts.source.name;
    let Some(topic) = &facts.source.found else {
        findings.push(missing(job, facts));
        return;
    };
    let partitions = topic.partitions;
    findings.push(Finding::ok(
        GROUP,
        "topic",
        format!(
            "`{name}` has {partitions} {}: so many ingests can share it, and {} workers its {} shards",
            if partitions == 1 { "partition" } else { "partitions" },
            job.core.shards,
            job.core.shards
        ),
    ));
    let settings = match &topic.configs {
        Ok(_) => topic,
        Err(why) => {
            findings.push(Finding::warning(
                GROUP,
                "settings",
                format!("the configuration of `{name}` cannot be read: {why}"),
                "give the right to describe its configuration: coordinator and workers need it too",
            ));
            return;
        }
    };
    findings.push(timestamps(job, settings, name));
    keeping(job, settings, name, findings);
    if settings.has_policy("compact") {
        findings.push(Finding::warning(
            GROUP,
            "compaction",
            format!("`{name}` is compacted: records that are compacted away before they are read count nowhere, and `tidegate verify` sees only what is left"),
            "a source with cleanup.policy=delete, unless only the last record of a key matters",
        ));
    }
    let stuck: Vec<_> = topic.ends.iter().filter(|ends| ends.last_stable < ends.high_watermark).collect();
    if let Some(first) = stuck.first() {
        findings.push(Finding::warning(
            GROUP,
            "open",
            format!(
                "a transaction is open in {} of {partitions} partitions (partition {} at offset {}): nothing behind it can be read, and the watermark waits",
                stuck.len(),
                first.partition,
                first.last_stable
            ),
            format!("if it lasts, end it: kafka-transactions.sh find-hanging --topic {name} --partition {}", first.partition),
        ));
    }
}

fn missing(job: &Job, facts: &Facts) -> Finding {
    let name = &facts.source.name;
    match (job.source.partitions, &facts.source.creatable) {
        (Some(partitions), Some(Err(why))) => Finding::error(
            GROUP,
            "topic",
            format!("`{name}` does not exist, and cannot be created with {partitions} partitions: {why}"),
            "create it, or give the coordinator the right to",
        ),
        (Some(partitions), _) => Finding::ok(
            GROUP,
            "topic",
            format!("`{name}` does not exist; the coordinator will create it with {partitions} partitions"),
        ),
        (None, _) => Finding::error(
            GROUP,
            "topic",
            format!("`{name}` does not exist"),
            "create it, correct source.topic, or give source.partitions so that the coordinator creates it",
        ),
    }
}

fn timestamps(job: &Job, topic: &FoundTopic, name: &str) -> Finding {
    let kind = topic.setting("message.timestamp.type").unwrap_or("CreateTime");
    let place = job.source.event_time.iter().position(|source| *source == TimeSource::RecordTimestamp);
    let text = format!("`{name}` keeps {kind}");
    match place {
        Some(place) if kind == "LogAppendTime" => {
            let when = if place == 0 { "" } else { " where the entries before it give none" };
            Finding::warning(
                GROUP,
                "timestamps",
                format!(
                    "{text}, and source.event_time takes the record's timestamp{when}: that is the time of arrival, not event time"
                ),
                "take event time from a field or header, or set message.timestamp.type=CreateTime",
            )
        }
        Some(_) => Finding::ok(
            GROUP,
            "timestamps",
            format!("{text}: the producers' times, as source.event_time takes them"),
        ),
        None => Finding::ok(GROUP, "timestamps", format!("{text}; source.event_time does not use it")),
    }
}

/// Whether records stay until they are read.
fn keeping(job: &Job, topic: &FoundTopic, name: &str, findings: &mut Vec<Finding>) {
    if let Some(bytes) = topic.number("retention.bytes").filter(|bytes| *bytes >= 0) {
        findings.push(Finding::warning(
            GROUP,
            "retention",
            format!("retention.bytes is {bytes} a partition: records may go before their time"),
            "retention.bytes=-1, unless that much holds the longest outage",
        ));
    }
    let core = &job.core;
    let need = [core.watermark.strategy.most_delay(), core.operator.reach(), core.allowed_lateness]
        .into_iter()
        .fold(0_i64, |sum, span| sum.saturating_add(span.millis()));
    let Some(kept) = retention(topic) else {
        findings.push(Finding::ok(GROUP, "retention", format!("`{name}` keeps its records for ever")));
        return;
    };
    let segment = topic.number("segment.ms").unwrap_or(i64::MAX);
    let least = segment.saturating_mul(2).max(need);
    let fix = format!("retention.ms={least} at least, or a shorter segment.ms");
    findings.push(if kept < need {
        Finding::warning(
            GROUP,
            "retention",
            format!(
                "retention.ms is {}, less than delay + window + allowed_lateness ({}): a short outage loses records of windows that are open",
                text_of(kept),
                text_of(need)
            ),
            fix,
        )
    } else if kept < segment.saturating_mul(2) {
        Finding::warning(
            GROUP,
            "retention",
            format!(
                "retention.ms ({}) is less than 2 × segment.ms ({}): records go whole segments at a time, so that when a record goes depends on its neighbours",
                text_of(kept),
                text_of(segment)
            ),
            fix,
        )
    } else {
        Finding::ok(GROUP, "retention", format!("records stay for {}: an outage may last that long", text_of(kept)))
    });
}
