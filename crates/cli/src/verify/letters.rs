//! The dead letters of a job, and whether each deserves to be one.

use std::collections::HashMap;

use anyhow::{Result, bail};
use tidegate_core::{
    job::OperatorSpec,
    replay_request::partition_of_topic,
    time::{Offset, Partition},
};
use tidegate_job::Job;
use tidegate_kafka::{KafkaConfig, Record};

use super::{
    Difference, Earlier, Parsed, Returned, Verdict,
    windows::{session_end, windows_of},
};
use crate::topics;

#[derive(Debug)]
pub(super) struct Letter {
    /// Where it is in the dead-letter topics, as shards name it.
    pub(super) at: (Partition, Offset),
    pub(super) reason: String,
    pub(super) watermark: Option<i64>,
    pub(super) missed: Option<(i64, i64)>,
    pub(super) key: Option<Vec<u8>>,
    pub(super) value: Option<Vec<u8>>,
}

pub(super) fn dead_letters(
    job: &Job,
    kafka: &KafkaConfig,
    (earlier, returned): (&Earlier, &Returned),
    verdict: &mut Verdict,
) -> Result<HashMap<(u32, u64), Letter>> {
    let mut letters = HashMap::new();
    for topic in earlier.dead_letters(job) {
        let number = returned.number_of(topic);
        letters_of(job, kafka, (topic, number), verdict, &mut letters)?;
    }
    Ok(letters)
}

/// The dead letters in the topic that has this number among those of the job.
fn letters_of(
    job: &Job,
    kafka: &KafkaConfig,
    (topic, topic_number): (&str, u32),
    verdict: &mut Verdict,
    letters: &mut HashMap<(u32, u64), Letter>,
) -> Result<()> {
    topics::read_all(kafka, topic, |record| {
        let text = |name: &str| {
            record.header(name).flatten().map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        // Jobs may share a dead-letter topic, and a source.
        let is_of_another_job = text("tidegate-job").is_some_and(|name| name != job.name);
        if is_of_another_job || text("tidegate-topic").as_deref() != Some(job.source.topic.as_str()) {
            return Ok(());
        }
        verdict.dead_letters += 1;
        let place = (number("tidegate-partition"), number("tidegate-offset"));
        let (Some(partition), Some(offset)) = place else {
            bail!("a dead letter without partition and offset")
        };
        let letter = Letter {
            at: (partition_of_topic(topic_number, record.partition()), record.offset()),
            reason: text("tidegate-reason").unwrap_or_default(),
            watermark: number("tidegate-watermark"),
            missed: number("tidegate-window-start").zip(number("tidegate-window-end")),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
        };
        let place = (u32::try_from(partition)?, u64::try_from(offset)?);
        if letters.insert(place, letter).is_some() {
            verdict.differ(Difference::Duplicated, format_args!("{place:?} is a dead letter twice"));
        }
        Ok(())
    })
}

pub(super) fn check_late(
    job: &Job,
    place: (u32, u64),
    parsed: &Parsed,
    (letter, returned): (&Letter, bool),
    record: &Record<'_>,
    verdict: &mut Verdict,
) {
    if letter.value.as_deref() != record.value() || letter.key.as_deref() != record.key() {
        verdict.differ(Difference::Wrong, format_args!("the dead letter of {place:?} is not whole"));
    }
    let lateness = job.core.allowed_lateness.millis();
    let ends = match &job.core.operator {
        OperatorSpec::Windows(spec) => {
            windows_of(spec, parsed.time).into_iter().map(|(_, end)| end).collect()
        }
        OperatorSpec::Sessions(spec) => vec![session_end(spec, parsed.time)],
        // Late is what the watermark has passed.
        OperatorSpec::Reorder | OperatorSpec::Sliding(_) => vec![parsed.time.saturating_add(1)],
    };
    let gone = |end: i64| letter.watermark.is_some_and(|watermark| end.saturating_add(lateness) <= watermark);
    let deserved = match letter.reason.as_str() {
        "late" => ends.iter().all(|end| gone(*end)),
        "late_partial" => ends.iter().any(|end| gone(*end)) && !ends.iter().all(|end| gone(*end)),
        // The clock has moved on since: what was too far ahead then need not be now.
        "future" => job.core.watermark.max_future_skew.is_some(),
        // The job has been corrected since.
        _ => returned,
    };
    if !deserved {
        verdict.differ(
            Difference::Wrong,
            format_args!(
                "{place:?} (event time {}) should not be a dead letter for {}",
                parsed.time, letter.reason
            ),
        );
    }
}
