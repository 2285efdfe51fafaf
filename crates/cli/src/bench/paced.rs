//! Records at a pace, and the results as they become readable.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use tidegate_core::time::{EventTime, Partition, Shard};
use tidegate_job::Job;
use tidegate_kafka::{KafkaConfig, Producer, Step, tail};
use tidegate_runtime::trace::TRACEPARENT;

use crate::{
    clicks::{Click, Clicks},
    topics,
};

/// When, of each partition, the first record with at least some event time was sent; by event time.
pub(super) type Sent = Arc<Mutex<Vec<BTreeMap<i64, i64>>>>;

/// A result that a `read_committed` consumer got.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen {
    /// The shard of its key.
    pub(super) shard: Shard,
    /// When, ms since the epoch.
    pub(super) at: i64,
    /// How long after the last record that its window needed was sent, ms.
    pub(super) delay: i64,
}

/// The value below which `percent` of the ascending `delays` lie; `None` of none.
pub(super) fn percentile(delays: &[i64], percent: usize) -> Option<i64> {
    let at = (delays.len() * percent / 100).min(delays.len().checked_sub(1)?);
    delays.get(at).copied()
}

/// What is sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    /// Records a second.
    pub(super) rate: u64,
    /// For how long.
    pub(super) seconds: u64,
    /// Every record carries a `traceparent`, and one of so many is sampled; `None`: no record has headers.
    pub(super) sampled: Option<u64>,
}

/// Sends clicks as they happen.
pub(super) fn pace(
    kafka: &KafkaConfig,
    topic: &str,
    mut clicks: Clicks,
    load: Load,
    sent: &Sent,
) -> Result<()> {
    let mut producer = Producer::open(kafka)?;
    let started = topics::unix_millis();
    let mut made = 0;
    loop {
        let now = topics::unix_millis();
        let elapsed = u64::try_from(now - started)?;
        if elapsed > load.seconds * 1_000 {
            break;
        }
        while made < elapsed * load.rate / 1_000 {
            made += 1;
            let click = clicks.next(now);
            match load.sampled {
                None => send(&mut producer, topic, &click, now, &[])?,
                Some(every) => {
                    let flags = u8::from(made % every == 0);
                    let parent = format!("00-{:032x}-{made:016x}-{flags:02x}", u128::from(made));
                    let headers = [(TRACEPARENT, Some(parent.as_bytes()))];
                    send(&mut producer, topic, &click, now, &headers)?;
                }
            }
            note(sent, &click, now);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(())
}

/// Sends a click whose record timestamp is `now`.
pub(super) fn send(
    producer: &mut Producer,
    topic: &str,
    click: &Click,
    now: i64,
    headers: &[(&str, Option<&[u8]>)],
) -> Result<()> {
    let value = Some(click.value.as_bytes());
    Ok(producer.send(topic, Partition(click.partition), None, value, headers, Some(EventTime(now)))?)
}

/// Keeps, of each partition, the send times of the records that raised its largest event time.
fn note(sent: &Sent, click: &Click, now: i64) {
    let time = click.time;
    if let Ok(mut sent) = sent.lock()
        && let Some(largest) = sent.get_mut(click.partition as usize)
        && largest.last_key_value().is_none_or(|(known, _)| *known < time)
    {
        largest.insert(time, now);
    }
}

/// Reads results until `done`.
pub(super) fn read_results(
    kafka: &KafkaConfig,
    job: &Job,
    sent: &Sent,
    done: &AtomicBool,
) -> Result<Vec<Seen>> {
    let delay = job.core.watermark.strategy.most_delay().millis();
    let mut results = Vec::new();
    let mut needed_by_end = BTreeMap::new();
    tail(
        kafka,
        &job.sink.topic,
        |record| {
            let now = topics::unix_millis();
            let result: serde_json::Value = serde_json::from_slice(record.value().unwrap_or_default())?;
            if result.get("pane").and_then(serde_json::Value::as_str) == Some("replay") {
                return Ok(Step::Continue);
            }
            let end = result
                .get("window_end")
                .and_then(serde_json::Value::as_i64)
                .context("a result without its end")?;
            let needed = *needed_by_end.entry(end).or_insert_with(|| last_needed(sent, end + delay));
            // Windows that close by no record of ours are not counted.
            let shard = Shard::of(record.key().unwrap_or_default(), job.core.shards);
            results.extend(needed.map(|needed| Seen { shard, at: now, delay: now - needed }));
            Ok::<_, anyhow::Error>(Step::Continue)
        },
        || Ok(if done.load(Ordering::Relaxed) { Step::Stop } else { Step::Continue }),
    )?;
    Ok(results)
}

/// When the last partition got its first record of at least `time`; `None` where one has none.
fn last_needed(sent: &Sent, time: i64) -> Option<i64> {
    let sent = sent.lock().ok()?;
    let first = sent.iter().map(|largest| largest.range(time..).next().map(|(_, at)| *at));
    first.collect::<Option<Vec<_>>>()?.into_iter().max()
}
