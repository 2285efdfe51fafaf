//! The second phase: records at a pace, and how soon their results can be read.

use std::{
    collections::BTreeMap,
    fmt::Write,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tidegate_core::time::{EventTime, Partition};
use tidegate_job::Job;
use tidegate_kafka::{KafkaConfig, Producer, Step, tail};

use super::{
    BenchArgs, clicks, deployment, job_of,
    running::{Cpu, Memory, Running},
};
use crate::{
    clicks::{Click, Clicks},
    status, topics,
};

/// Memory is looked at every so many seconds.
const SAMPLE_EVERY: u64 = 10;
/// How many of the samples are shown, evenly spaced, the last among them.
const SAMPLES_SHOWN: usize = 6;

/// What was seen.
#[derive(Debug)]
pub(super) struct Visible {
    /// Of each result, ms, ascending.
    delays: Vec<i64>,
    /// CPU seconds a second.
    cpu: Cpu,
    memory: Vec<Memory>,
    transactions_per_s: f64,
}

impl Visible {
    pub(super) fn summary(&self) -> String {
        format!(" visible_ms p50={} p99={}", self.percentile(50), self.percentile(99))
    }

    pub(super) fn details(&self) -> String {
        let Cpu { ingest, workers, coordinator, broker } = self.cpu;
        let mut text = format!(
            "  visible: results={} max={} transactions_per_s={:.0} cpu_percent ingest={:.1} worker={:.1} coordinator={:.1} broker={:.1}\n",
            self.delays.len(),
            self.percentile(100),
            self.transactions_per_s,
            ingest * 100.0,
            workers * 100.0,
            coordinator * 100.0,
            broker * 100.0,
        );
        let step = self.memory.len().div_ceil(SAMPLES_SHOWN).max(1);
        let shown: Vec<_> = self.memory.iter().rev().step_by(step).collect();
        let row = |of: fn(&Memory) -> u64| {
            shown.iter().rev().map(|sample| of(sample).to_string()).collect::<Vec<_>>().join(",")
        };
        // Writing to a string does not fail.
        let _ = writeln!(
            text,
            "  memory_mib: every_s={} ingest={} worker={} coordinator={}",
            SAMPLE_EVERY * step as u64,
            row(|sample| sample.ingest),
            row(|sample| sample.workers),
            row(|sample| sample.coordinator),
        );
        text
    }

    fn percentile(&self, percent: usize) -> i64 {
        let at = (self.delays.len() * percent / 100).min(self.delays.len().saturating_sub(1));
        self.delays.get(at).copied().unwrap_or_default()
    }
}

/// When, of each partition, the first record with at least some event time was sent; by event time.
type Sent = Arc<Mutex<Vec<BTreeMap<i64, i64>>>>;

/// Runs the phase.
pub(super) async fn measure(args: &BenchArgs, kafka: &KafkaConfig, folder: &Path) -> Result<Visible> {
    let (job, text) = job_of(args, "visible")?;
    topics::ensure_source(kafka, &job).await?;
    let deployment = deployment(args, folder, "visible", &text)?;
    let mut services = Running::start(&deployment, args.workers, args.broker_pid)?;
    while services.glance().await?.is_none_or(|status| status.owners.len() < job.core.shards as usize) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent: Sent = Arc::new(Mutex::new(vec![BTreeMap::new(); args.partitions as usize]));
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (kafka, job, sent, done) = (kafka.clone(), job.clone(), Arc::clone(&sent), Arc::clone(&done));
        tokio::task::spawn_blocking(move || read_results(&kafka, &job, &sent, &done))
    };
    let (cpu_before, commits_before) = (services.cpu()?, commits(&mut services).await?);
    let mut pacing = {
        let (kafka, topic, clicks) = (kafka.clone(), job.source.topic.clone(), clicks(args));
        let (rate, seconds) = (args.rate, args.seconds);
        tokio::task::spawn_blocking(move || pace(&kafka, &topic, clicks, rate, seconds, &sent))
    };
    let mut memory = Vec::new();
    loop {
        tokio::select! {
            paced = &mut pacing => break paced??,
            () = tokio::time::sleep(Duration::from_secs(SAMPLE_EVERY)) => memory.push(services.memory()?),
        }
    }
    memory.push(services.memory()?);
    #[allow(clippy::cast_precision_loss, reason = "seconds and commits as quotients")]
    let (seconds, commits) =
        (args.seconds as f64, commits(&mut services).await?.saturating_sub(commits_before) as f64);
    let cpu = services.cpu()?.since(&cpu_before, seconds);
    // The last windows whose records are complete have come out by then; a slower one would be left out, and is looked for.
    tokio::time::sleep(Duration::from_secs(2)).await;
    done.store(true, Ordering::Relaxed);
    let delays = reader.await??;
    services.stop().await?;
    if delays.is_empty() {
        bail!("no result came out in {} s", args.seconds);
    }
    Ok(Visible { delays, cpu, memory, transactions_per_s: commits / seconds })
}

async fn commits(services: &mut Running) -> Result<u64> {
    let status = services.glance().await?.context("the coordinator gives no status")?;
    Ok(status::totals(&status).commits)
}

fn pace(
    kafka: &KafkaConfig,
    topic: &str,
    mut clicks: Clicks,
    rate: u64,
    seconds: u64,
    sent: &Sent,
) -> Result<()> {
    let mut producer = Producer::open(kafka)?;
    let started = topics::unix_millis();
    let mut made = 0;
    loop {
        let now = topics::unix_millis();
        let elapsed = u64::try_from(now - started)?;
        if elapsed > seconds * 1_000 {
            break;
        }
        while made < elapsed * rate / 1_000 {
            made += 1;
            let click = clicks.next(now);
            producer.send(
                topic,
                Partition(click.partition),
                None,
                Some(click.value.as_bytes()),
                &[],
                Some(EventTime(now)),
            )?;
            note(sent, &click, now);
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    producer.flush(Duration::from_secs(30))?;
    Ok(())
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

fn read_results(kafka: &KafkaConfig, job: &Job, sent: &Sent, done: &AtomicBool) -> Result<Vec<i64>> {
    let delay = job.core.watermark.delay.millis();
    let mut delays = Vec::new();
    let mut needed_by_end = BTreeMap::new();
    tail(
        kafka,
        &job.sink.topic,
        |record| {
            let now = topics::unix_millis();
            let result: serde_json::Value = serde_json::from_slice(record.value().unwrap_or_default())?;
            let end = result
                .get("window_end")
                .and_then(serde_json::Value::as_i64)
                .context("a result without its end")?;
            let needed = *needed_by_end.entry(end).or_insert_with(|| last_needed(sent, end + delay));
            // Windows that close by no record of ours are not counted.
            delays.extend(needed.map(|needed| now - needed));
            Ok::<_, anyhow::Error>(Step::Continue)
        },
        || Ok(if done.load(Ordering::Relaxed) { Step::Stop } else { Step::Continue }),
    )?;
    delays.sort_unstable();
    Ok(delays)
}

/// When the last partition got its first record of at least `time`; `None` where one has none.
fn last_needed(sent: &Sent, time: i64) -> Option<i64> {
    let sent = sent.lock().ok()?;
    let first = sent.iter().map(|largest| largest.range(time..).next().map(|(_, at)| *at));
    first.collect::<Option<Vec<_>>>()?.into_iter().max()
}
