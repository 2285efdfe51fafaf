//! What the others notice of a worker's death, and how long a shard stands still when it moves.
//!
//! ```text
//! 0 s            20 s                     50 s                    70 s
//! ├── before ────┼── one worker is dead ──┼── it is back ─────────┤
//!                kill -9                  started again: its shards come back to it, planned
//! ```
//! Delays are those of results of shards that the dead worker never had. A pause is the time between the last block of a
//! shard's old owner and the first block of its new one, as their timestamps in the changelog say.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tidegate_core::{
    block::Assembler,
    time::{Partition, Shard},
};
use tidegate_job::Job;
use tidegate_kafka::{KafkaConfig, Record, Step, Timestamp, tail};

use super::{
    BenchArgs, clicks, cost, deployment, job_of,
    paced::{self, Load, Seen, Sent, percentile},
    running::Running,
};
use crate::{status, topics};

/// Seconds before the kill, of the absence, and after the return.
const BEFORE: u64 = 20;
const AWAY: u64 = 30;
const AFTER: u64 = 20;
/// The first seconds are not counted: caches are cold.
const WARM_UP_MS: i64 = 5_000;

/// What was seen.
#[derive(Debug)]
pub(super) struct Recovery {
    before: Vec<i64>,
    during: Vec<i64>,
    open_rows_per_shard: u64,
    /// Pauses of moves after a kill, and of planned ones, ms, ascending.
    killed: Vec<i64>,
    planned: Vec<i64>,
}

impl Recovery {
    pub(super) fn line(&self) -> String {
        let of = |delays: &[i64]| match (percentile(delays, 50), percentile(delays, 99)) {
            (Some(p50), Some(p99)) => format!("p50={p50} p99={p99} n={}", delays.len()),
            _ => "none".to_owned(),
        };
        format!(
            "recovery: others_visible_ms before: {} during: {}  open_rows_per_shard={} pause_ms planned: {} killed: {}",
            of(&self.before),
            of(&self.during),
            self.open_rows_per_shard,
            of(&self.planned),
            of(&self.killed),
        )
    }
}

/// Runs the phase.
pub(super) async fn measure(args: &BenchArgs, kafka: &KafkaConfig, folder: &Path) -> Result<Recovery> {
    let (job, text) = job_of(args, "recovery")?;
    topics::ensure_source(kafka, &job).await?;
    cost::preload(args, kafka, &job).await?;
    let deployment = deployment(args, folder, "recovery", &text)?;
    let mut services = Running::start(&deployment, args.workers.max(2), args.broker_pid)?;
    wait_for_balance(&mut services, &job, args.events).await?;
    let sent: Sent = Arc::new(Mutex::new(vec![BTreeMap::new(); args.partitions as usize]));
    let done = Arc::new(AtomicBool::new(false));
    let results = {
        let (kafka, job, sent, done) = (kafka.clone(), job.clone(), Arc::clone(&sent), Arc::clone(&done));
        tokio::task::spawn_blocking(move || paced::read_results(&kafka, &job, &sent, &done))
    };
    let handovers = {
        let (kafka, topic, done) = (kafka.clone(), job.changelog_topic(), Arc::clone(&done));
        tokio::task::spawn_blocking(move || read_handovers(&kafka, &topic, &done))
    };
    let pacing = {
        let (kafka, topic, clicks) = (kafka.clone(), job.source.topic.clone(), clicks(args));
        let load = Load { rate: args.rate, seconds: BEFORE + AWAY + AFTER, sampled: None };
        tokio::task::spawn_blocking(move || paced::pace(&kafka, &topic, clicks, load, &sent))
    };
    let begun = topics::unix_millis();
    tokio::time::sleep(Duration::from_secs(BEFORE)).await;
    let status = services.glance().await?.context("the coordinator gives no status")?;
    let open_rows_per_shard = status::totals(&status).open_rows / u64::from(job.core.shards.max(1));
    let killed = services.kill_last_worker().await?;
    let killed_at = topics::unix_millis();
    let touched: BTreeSet<Shard> =
        status.owners.iter().filter(|owner| owner.worker == killed).map(|owner| Shard(owner.shard)).collect();
    tokio::time::sleep(Duration::from_secs(AWAY)).await;
    services.start_worker(&deployment, &killed)?;
    let back_at = topics::unix_millis();
    pacing.await??;
    done.store(true, Ordering::Relaxed);
    let (results, handovers) = (results.await??, handovers.await??);
    services.stop().await?;
    let delays = |from: i64, to: i64| {
        let others = |seen: &&Seen| (from..to).contains(&seen.at) && !touched.contains(&seen.shard);
        ascending(results.iter().filter(others).map(|seen| seen.delay))
    };
    let pauses = |from: i64, to: i64| {
        let within = |handover: &&Handover| (from..to).contains(&handover.resumed);
        ascending(handovers.iter().filter(within).map(|handover| handover.resumed - handover.left))
    };
    Ok(Recovery {
        before: delays(begun + WARM_UP_MS, killed_at),
        during: delays(killed_at, back_at),
        open_rows_per_shard,
        killed: pauses(killed_at, back_at),
        planned: pauses(back_at, i64::MAX),
    })
}

fn ascending(values: impl Iterator<Item = i64>) -> Vec<i64> {
    let mut values: Vec<i64> = values.collect();
    values.sort_unstable();
    values
}

/// Waits until every worker has shards and what was preloaded is covered.
async fn wait_for_balance(services: &mut Running, job: &Job, events: u64) -> Result<()> {
    for _ in 0..6_000 {
        tokio::time::sleep(Duration::from_millis(100)).await;
        let Some(status) = services.glance().await? else { continue };
        let owned = status.owners.len() >= job.core.shards as usize;
        let all_own =
            status.workers.iter().all(|worker| status.owners.iter().any(|owner| owner.worker == worker.name));
        let shards = status::totals(&status).shards;
        let covered: u64 = shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
        if owned && all_own && status.workers.len() >= services.workers() && covered >= events {
            return Ok(());
        }
    }
    bail!("the workers did not share the shards and cover {events} records within ten minutes")
}

/// A change of a shard's owner, ms since the epoch.
#[derive(Clone, Copy, Debug)]
struct Handover {
    /// The last block of the one before.
    left: i64,
    /// The first block of the new one.
    resumed: i64,
}

fn read_handovers(kafka: &KafkaConfig, topic: &str, done: &AtomicBool) -> Result<Vec<Handover>> {
    let mut logs: BTreeMap<Partition, (Assembler, Option<(u64, i64)>)> = BTreeMap::new();
    let mut handovers = Vec::new();
    let on_record = |record: Record<'_>| {
        let (Timestamp::CreateTime(at) | Timestamp::LogAppendTime(at)) = record.timestamp() else {
            return Ok(Step::Continue);
        };
        let (assembler, last) = logs.entry(record.partition()).or_default();
        if let Some(block) = assembler.push(record.value().unwrap_or_default())? {
            // The genesis block has no owner.
            if let Some((owner, left)) = *last
                && owner != 0
                && owner != block.incarnation
            {
                handovers.push(Handover { left, resumed: at.millis() });
            }
            *last = Some((block.incarnation, at.millis()));
        }
        Ok::<_, anyhow::Error>(Step::Continue)
    };
    tail(kafka, topic, on_record, || {
        Ok(if done.load(Ordering::Relaxed) { Step::Stop } else { Step::Continue })
    })?;
    Ok(handovers)
}
