//! The last records of the source.

use std::collections::BTreeMap;

use tidegate_job::Job;

use super::super::facts::Facts;
use super::super::finding::Finding;
use super::super::sample::PartitionSample;
use super::text_of;

const GROUP: &str = "records";

pub(super) fn judge(job: &Job, facts: &Facts, findings: &mut Vec<Finding>) {
    if facts.source.found.is_none() {
        return;
    }
    let sample = match &facts.sample {
        Ok(sample) => sample,
        Err(why) => {
            findings.push(Finding::error(
                GROUP,
                "sample",
                format!("`{}` cannot be read: {why}", facts.source.name),
                "give ingest the right to read it",
            ));
            return;
        }
    };
    let records: u64 = sample.iter().map(|partition| partition.records).sum();
    if records == 0 {
        findings.push(Finding::ok(GROUP, "sample", "there are none yet: nothing could be tried on them"));
        return;
    }
    rejects(records, sample, findings);
    if sample.iter().all(|partition| partition.newest_ms.is_none() && partition.future == 0) {
        return;
    }
    future(job, records, sample, findings);
    disorder(job, records, sample, findings);
    let gaps: u64 = sample.iter().map(|partition| partition.offsets.saturating_sub(partition.records)).sum();
    if gaps > 0 {
        findings.push(Finding::ok(
            GROUP,
            "gaps",
            format!("{gaps} of {} offsets are no record: the source is written in transactions, or compacted; committed records are read", records + gaps),
        ));
    }
    let append = sample.iter().map(|partition| partition.append_times).sum::<u64>();
    if append > 0 && append < records {
        findings.push(Finding::warning(
            GROUP,
            "timestamps",
            format!("{append} of {records} carry LogAppendTime and the others CreateTime: message.timestamp.type was changed"),
            "take event time from a field or header",
        ));
    }
}

fn rejects(records: u64, sample: &[PartitionSample], findings: &mut Vec<Finding>) {
    let mut reasons: BTreeMap<&str, (u64, String)> = BTreeMap::new();
    for partition in sample {
        for (reason, (count, offset, detail)) in &partition.rejects {
            let first = || {
                let detail = if detail.is_empty() { String::new() } else { format!(": {detail}") };
                format!("partition {} offset {offset}{detail}", partition.partition)
            };
            reasons.entry(reason).or_insert_with(|| (0, first())).0 += count;
        }
    }
    let rejected: u64 = reasons.values().map(|(count, _)| count).sum();
    if rejected == 0 {
        findings.push(Finding::ok(GROUP, "sample", format!("all of the last {records} are taken")));
    }
    for (reason, (count, first)) in reasons {
        let text = format!(
            "{count} of the last {records} would be dead letters, reason `{reason}` (first: {first})"
        );
        let fix = match reason {
            "no_event_time" => "correct source.event_time, its unit above all",
            "no_key" => "correct source.key",
            "unreadable" => "correct source.format, and the fields and scales of the aggregates",
            _ => "nothing, if that is meant",
        };
        findings.push(if rejected == records {
            Finding::error(GROUP, "sample", text, fix)
        } else {
            Finding::warning(GROUP, "sample", text, fix)
        });
    }
}

fn future(job: &Job, records: u64, sample: &[PartitionSample], findings: &mut Vec<Finding>) {
    let future: u64 = sample.iter().map(|partition| partition.future).sum();
    let most = sample.iter().map(|partition| partition.most_ahead_ms).max().unwrap_or(0);
    let skew = job.core.watermark.max_future_skew.map(|skew| text_of(skew.millis()));
    findings.push(match (future, skew) {
        (0, Some(skew)) => Finding::ok(GROUP, "future", format!("none is more than {skew} ahead of the clock")),
        (0, None) => Finding::ok(GROUP, "future", "none is ahead of the clock by more than a minute"),
        (_, Some(skew)) => Finding::warning(
            GROUP,
            "future",
            format!("{future} of {records} are further ahead of the clock than watermark.max_future_skew ({skew}), by up to {}", text_of(most)),
            "correct the clocks of their producers, or source.event_time and its unit",
        ),
        (_, None) => Finding::error(
            GROUP,
            "future",
            format!("{future} of {records} are ahead of the clock, by up to {}: they close windows early, and all that follows is late", text_of(most)),
            "take out `on_future: accept`; correct the clocks of their producers, or source.event_time and its unit",
        ),
    });
}

fn disorder(job: &Job, records: u64, sample: &[PartitionSample], findings: &mut Vec<Finding>) {
    let late: u64 = sample.iter().map(|partition| partition.late).sum();
    let most = sample.iter().map(|partition| partition.most_behind_ms).max().unwrap_or(0);
    let delay = text_of(job.core.watermark.strategy.most_delay().millis());
    findings.push(if late == 0 {
        Finding::ok(GROUP, "disorder", format!("at most {} behind the newest before them; the watermark waits for {delay}", text_of(most)))
    } else {
        Finding::warning(
            GROUP,
            "disorder",
            format!("{late} of {records} are further behind the newest before them than the watermark waits for ({delay}), by up to {}", text_of(most)),
            "a longer watermark.delay, or allowed_lateness; else such records are late",
        )
    });
}
