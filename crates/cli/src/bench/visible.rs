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
use tidegate_kafka::KafkaConfig;

use super::{
    BenchArgs, clicks, deployment, job_of,
    paced::{self, Load, Sent},
    running::{Cpu, Memory, Running},
};
use crate::{status, topics};

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
            "  visible: results={} max={} transactions_per_s={:.0} cpu_percent ingest={:.1} worker={:.1} coordinator={:.1}{}\n",
            self.delays.len(),
            self.percentile(100),
            self.transactions_per_s,
            ingest * 100.0,
            workers * 100.0,
            coordinator * 100.0,
            broker.map(|broker| format!(" broker={:.1}", broker * 100.0)).unwrap_or_default(),
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
        paced::percentile(&self.delays, percent).unwrap_or_default()
    }
}

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
        tokio::task::spawn_blocking(move || paced::read_results(&kafka, &job, &sent, &done))
    };
    let (cpu_before, commits_before) = (services.cpu()?, commits(&mut services).await?);
    let mut pacing = {
        let (kafka, topic, clicks) = (kafka.clone(), job.source.topic.clone(), clicks(args));
        let load = Load { rate: args.rate, seconds: args.seconds, sampled: None };
        tokio::task::spawn_blocking(move || paced::pace(&kafka, &topic, clicks, load, &sent))
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
    let mut delays: Vec<i64> = reader.await??.into_iter().map(|seen| seen.delay).collect();
    delays.sort_unstable();
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
