//! The topics of a job, looked into: a record of the source, its dead letter, the results of a key.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tidegate_coordinator::replay_record::ReplayRecord;
use tidegate_core::time::{EventTime, Offset, Partition, Shard};
use tidegate_job::Job;
use tidegate_kafka::{Access, Admin, Between, KafkaConfig, PartitionEnds, Record, Step, between};

use super::record::Letter;
use crate::inputs::Inputs;

/// How long a read may wait for the next record.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the log holds at the record's place.
#[derive(Debug)]
pub(crate) enum Found {
    /// The record, as the job takes it.
    Taken { time: i64, key: Vec<u8> },
    /// The record, which the job rejects.
    Rejected { reason: &'static str, detail: String, time: Option<i64> },
    /// No record: why.
    Missing(String),
}

impl Default for Found {
    fn default() -> Self {
        Self::Missing(String::new())
    }
}

impl Found {
    /// The shard that covers it.
    pub(crate) fn shard(&self, partition: u32, shards: u32) -> Option<Shard> {
        match self {
            Self::Taken { key, .. } => Some(Shard::of(key, shards)),
            Self::Rejected { .. } => Some(Shard::of_rejects(Partition(partition), shards)),
            Self::Missing(_) => None,
        }
    }
}

/// The topics of a job, to be looked into.
#[derive(Clone)]
pub(crate) struct Topics {
    pub(crate) kafka: KafkaConfig,
    pub(crate) admin: Admin,
}

impl Topics {
    pub(crate) fn open(brokers: &str, access: &Access) -> Result<Self> {
        let kafka = access.config(brokers, "tidegate-why")?;
        Ok(Self { admin: Admin::open(&kafka)?, kafka })
    }

    /// What is at an offset of the source, as the job sees it.
    pub(crate) async fn source_record(
        &self,
        job: &Job,
        mut inputs: Inputs,
        partition: u32,
        offset: u64,
    ) -> Result<Found> {
        let topic = &job.source.topic;
        let ends = self.admin.ends(topic).await?;
        let Some(ends) = ends.into_iter().find(|ends| ends.partition.0 == partition) else {
            bail!("topic `{topic}` has no partition {partition}");
        };
        if let Some(why) = out_of_log(topic, &ends, offset) {
            return Ok(Found::Missing(why));
        }
        let at = Between { partition: Partition(partition), from: Offset(offset), to: Offset(offset + 1) };
        let mut found = Found::Missing(format!(
            "offset {offset} of partition {partition} is no record: a transaction's marker, an aborted record or one that \
             compaction removed"
        ));
        self.read(
            topic,
            vec![at],
            move |record, found: &mut Found| {
                *found = match inputs.extract(record) {
                    Err(error) => Found::Missing(format!("the record cannot be read: {error}")),
                    Ok(Ok(taken)) => Found::Taken { time: taken.time.millis(), key: taken.key.to_vec() },
                    Ok(Err(reject)) => Found::Rejected {
                        reason: reject.reason.as_str(),
                        detail: reject.detail,
                        time: reject.event_time.map(EventTime::millis),
                    },
                };
                Step::Stop
            },
            &mut found,
        )
        .await?;
        Ok(found)
    }

    /// The dead letter of a record: looked for in the partition of its shard and in that of the shard it had as long as the job could
    /// not read it; or in all.
    pub(crate) async fn dead_letter(
        &self,
        source: &str,
        topic: &str,
        (shard, shards): (Option<Shard>, u32),
        place: (u32, u64),
    ) -> Result<Option<Letter>> {
        let mut letter = None;
        let source = source.to_owned();
        let of_rejects = Shard::of_rejects(Partition(place.0), shards);
        let shards = shard.map(|shard| vec![shard, of_rejects]).unwrap_or_default();
        let stretches = self.whole(topic, &shards).await?;
        self.read(
            topic,
            stretches,
            move |record, letter: &mut Option<Letter>| {
                let number = |name: &str| text(record, name).and_then(|text| text.parse::<i64>().ok());
                let is_it = number("tidegate-partition") == Some(i64::from(place.0))
                    && number("tidegate-offset").and_then(|at| u64::try_from(at).ok()) == Some(place.1)
                    && text(record, "tidegate-topic").as_deref() == Some(source.as_str());
                if !is_it {
                    return Step::Continue;
                }
                *letter = Some(Letter {
                    reason: text(record, "tidegate-reason").unwrap_or_default(),
                    detail: text(record, "tidegate-detail"),
                    watermark_ms: number("tidegate-watermark"),
                    missed_from_ms: number("tidegate-window-start"),
                    missed_to_ms: number("tidegate-window-end"),
                    dead_partition: record.partition().0,
                    dead_offset: record.offset().0,
                });
                Step::Stop
            },
            &mut letter,
        )
        .await?;
        Ok(letter)
    }

    /// The replays that were asked for of the dead letters in a topic, and the number of that topic.
    pub(crate) async fn replays(
        &self,
        control: &str,
        dead_letters: &str,
    ) -> Result<(Vec<ReplayRecord>, u32)> {
        let id = self.admin.topic(dead_letters).await?.and_then(|topic| topic.id);
        let mut records = BTreeMap::new();
        let stretches = self.whole(control, &[]).await?;
        self.read(
            control,
            stretches,
            |record, records: &mut BTreeMap<u64, ReplayRecord>| {
                let number = record.key().and_then(ReplayRecord::number_of);
                let written = record.value().and_then(|value| ReplayRecord::decode(value).ok());
                if let Some((number, written)) = number.zip(written) {
                    records.insert(number, written);
                }
                Step::Continue
            },
            &mut records,
        )
        .await?;
        let number = |replay: &ReplayRecord| {
            let topic = usize::try_from(replay.topic).ok().and_then(|at| replay.topics.get(at))?;
            let same =
                topic.name == dead_letters && topic.id.is_none_or(|known| id.is_none_or(|id| id == known));
            same.then_some(replay.topic)
        };
        let topic = records.values().filter_map(number).max().unwrap_or_default();
        let replays = records.into_values().filter(|replay| number(replay) == Some(topic)).collect();
        Ok((replays, topic))
    }

    /// The results of a key that are out, early ones apart, with start and end, of the windows that `belongs` says.
    pub(crate) async fn results(
        &self,
        topic: &str,
        shard: Shard,
        key: &[u8],
        belongs: impl Fn((i64, i64)) -> bool + Send + 'static,
    ) -> Result<Vec<((i64, i64), Value)>> {
        let key = key.to_vec();
        let mut results = Vec::new();
        let stretches = self.whole(topic, &[shard]).await?;
        self.read(
            topic,
            stretches,
            move |record, results: &mut Vec<((i64, i64), Value)>| {
                if record.key() == Some(key.as_slice())
                    && let Ok(result) = serde_json::from_slice::<Value>(record.value().unwrap_or_default())
                    && let Some(start) = result.get("window_start").and_then(Value::as_i64)
                    && let Some(end) = result.get("window_end").and_then(Value::as_i64)
                    && belongs((start, end))
                    && result.get("pane").and_then(Value::as_str) != Some("early")
                {
                    results.push(((start, end), result));
                }
                Step::Continue
            },
            &mut results,
        )
        .await?;
        Ok(results)
    }

    /// All that is committed in a topic now: in the partitions of these shards, or, without any, in all.
    async fn whole(&self, topic: &str, shards: &[Shard]) -> Result<Vec<Between>> {
        let ends = self.admin.ends(topic).await?;
        let count = u32::try_from(ends.len()).unwrap_or(u32::MAX).max(1);
        let is_of = |partition: Partition| shards.iter().any(|shard| shard.0 % count == partition.0);
        let stretches = ends.iter().filter(|ends| shards.is_empty() || is_of(ends.partition));
        Ok(stretches
            .map(|ends| Between { partition: ends.partition, from: ends.log_start, to: ends.last_stable })
            .collect())
    }

    async fn read<T: Default + Send + 'static>(
        &self,
        topic: &str,
        stretches: Vec<Between>,
        mut on_record: impl FnMut(&Record<'_>, &mut T) -> Step + Send + 'static,
        into: &mut T,
    ) -> Result<()> {
        let (kafka, name) = (self.kafka.clone(), topic.to_owned());
        let mut gathered = std::mem::take(into);
        let read = move || {
            let done = between::<tidegate_kafka::Error>(&kafka, &name, &stretches, PATIENCE, |record| {
                Ok(on_record(&record, &mut gathered))
            });
            done.map(|()| gathered)
        };
        *into =
            tokio::task::spawn_blocking(read).await?.with_context(|| format!("reading topic `{topic}`"))?;
        Ok(())
    }
}

fn text(record: &Record<'_>, name: &str) -> Option<String> {
    record.header(name).flatten().map(|value| String::from_utf8_lossy(value).into_owned())
}

/// Why an offset cannot be read.
fn out_of_log(topic: &str, ends: &PartitionEnds, offset: u64) -> Option<String> {
    let PartitionEnds { partition, log_start, last_stable, high_watermark } = *ends;
    if offset < log_start.0 {
        return Some(format!(
            "topic `{topic}` partition {partition} begins at {log_start} now: the record is deleted"
        ));
    }
    if offset >= high_watermark.0 {
        return Some(format!(
            "topic `{topic}` partition {partition} ends at {high_watermark}: there is no such record yet"
        ));
    }
    (offset >= last_stable.0).then(|| {
        format!("a transaction is open at offset {last_stable} of partition {partition}: what is behind it cannot be read yet")
    })
}
