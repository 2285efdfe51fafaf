//! How fast dead letters are replayed under load, and what live records notice of it.
//!
//! ```text
//! 0 s           25 s
//! ├── before ───┼── N dead letters are replayed ──┼── …
//! ```
//! The dead letters are written as a worker would, for the windows of the last hour; the services never saw the records before. The
//! rate is that of the whole replay, from the request to its end, as the coordinator says.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tidegate_core::time::{EventTime, Partition, Shard};
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{KafkaConfig, Producer};
use tidegate_proto::v1;

use super::{
    BenchArgs, deployment, job_of,
    paced::{self, Load, Seen, Sent, percentile},
    running::Running,
};
use crate::topics;

/// Seconds before the replay, and the most it may take.
const BEFORE: u64 = 25;
const DURING: u64 = 60;
/// The first seconds are not counted: caches are cold.
const WARM_UP_MS: i64 = 5_000;
/// The windows that the dead letters are of.
const SPAN_MS: u64 = 3_600_000;
const WINDOW_MS: i64 = 10_000;

/// What was seen.
#[derive(Debug)]
pub(super) struct Replayed {
    entries: u64,
    tally: v1::ReplayTally,
    millis: i64,
    before: Vec<i64>,
    during: Vec<i64>,
}

impl Replayed {
    pub(super) fn line(&self) -> String {
        let of = |delays: &[i64]| match (percentile(delays, 50), percentile(delays, 99)) {
            (Some(p50), Some(p99)) => format!("p50={p50} p99={p99} n={}", delays.len()),
            _ => "none".to_owned(),
        };
        let rate = self.entries.saturating_mul(1_000) / u64::try_from(self.millis).unwrap_or(1).max(1);
        format!(
            "replay: entries={} seconds={}.{} entries_per_s={rate} applied={}  live_visible_ms before: {} during: {}",
            self.entries,
            self.millis / 1_000,
            self.millis % 1_000 / 100,
            self.tally.applied,
            of(&self.before),
            of(&self.during),
        )
    }
}

/// Runs the phase.
pub(super) async fn measure(
    args: &BenchArgs,
    entries: u64,
    kafka: &KafkaConfig,
    folder: &Path,
) -> Result<Replayed> {
    let (_, text) = job_of(args, "replay")?;
    let text = text.replace("-dead }", "-dead, replay: { ttl: 2h } }");
    let job = JobFile::parse(&text, "bench.yaml")?;
    topics::ensure_source(kafka, &job).await?;
    let deployment = deployment(args, folder, "replay", &text)?;
    let mut services = Running::start(&deployment, args.workers, args.broker_pid)?;
    while services.glance().await?.is_none_or(|status| status.owners.len() < job.core.shards as usize) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let written = {
        let (kafka, job, keys) = (kafka.clone(), job.clone(), args.keys);
        tokio::task::spawn_blocking(move || write(&kafka, &job, entries, keys))
    };
    written.await??;
    let sent: Sent = Arc::new(Mutex::new(vec![BTreeMap::new(); args.partitions as usize]));
    let done = Arc::new(AtomicBool::new(false));
    let results = {
        let (kafka, job, sent, done) = (kafka.clone(), job.clone(), Arc::clone(&sent), Arc::clone(&done));
        tokio::task::spawn_blocking(move || paced::read_results(&kafka, &job, &sent, &done))
    };
    let begun = topics::unix_millis();
    let pacing = {
        let (kafka, topic, clicks) = (kafka.clone(), job.source.topic.clone(), super::clicks(args));
        let load = Load { rate: args.rate, seconds: BEFORE + DURING, sampled: None };
        tokio::task::spawn_blocking(move || paced::pace(&kafka, &topic, clicks, load, &sent))
    };
    tokio::time::sleep(Duration::from_secs(BEFORE)).await;
    let request = v1::ReplayRequest { job: job.name.clone(), token: 1, filter: None, dry_run: false };
    services.status_client().ask(async |client| client.replay(request.clone()).await).await?;
    pacing.await??;
    done.store(true, Ordering::Relaxed);
    let results = results.await??;
    let status = services.glance().await?.context("the coordinator gives no status")?;
    let replay = status.replays.first().context("the coordinator does not know the replay")?.clone();
    services.stop().await?;
    let Some(ended) = replay.ended_ms else { bail!("the replay has not ended after {DURING} s: {replay:?}") };
    let delays = |from: i64, to: i64| {
        let mut delays: Vec<i64> = results
            .iter()
            .filter(|seen: &&Seen| (from..to).contains(&seen.at))
            .map(|seen| seen.delay)
            .collect();
        delays.sort_unstable();
        delays
    };
    Ok(Replayed {
        entries,
        tally: replay.tally.unwrap_or_default(),
        millis: ended - replay.requested_ms,
        before: delays(begun + WARM_UP_MS, replay.requested_ms),
        during: delays(replay.requested_ms, ended.max(replay.requested_ms + WINDOW_MS)),
    })
}

/// Writes dead letters of the clicks of many users over the last hour.
fn write(kafka: &KafkaConfig, job: &Job, entries: u64, keys: u32) -> Result<()> {
    let mut producer = Producer::open(kafka)?;
    let first = topics::unix_millis() - i64::try_from(SPAN_MS)? - 60_000;
    for entry in 0..entries {
        let time = first + i64::try_from(entry * SPAN_MS / entries.max(1))?;
        let key = format!("user-{}", entry % u64::from(keys));
        let value = format!(
            "{{\"user\":\"{key}\",\"ts\":{time},\"amount\":{}.25,\"page\":\"/shop/item/1\"}}",
            entry % 90
        );
        let (offset, time_text) = (entry.to_string(), time.to_string());
        let headers = [
            ("tidegate-reason", "late"),
            ("tidegate-job", &job.name),
            ("tidegate-topic", &job.source.topic),
            ("tidegate-partition", "0"),
            ("tidegate-offset", &offset),
            ("tidegate-event-time", &time_text),
        ]
        .map(|(name, value)| (name, Some(value.as_bytes())));
        let partition = Partition(Shard::of(key.as_bytes(), job.core.shards).0);
        let topic = &job.dead_letter.topic;
        producer.send(topic, partition, None, Some(value.as_bytes()), &headers, Some(EventTime(time)))?;
    }
    Ok(producer.flush(Duration::from_secs(60))?)
}
