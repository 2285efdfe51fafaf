//! The first phase: what records cost that lie in the topic.

use std::{path::Path, time::Duration};

use anyhow::{Result, bail};
use tidegate_job::Job;
use tidegate_kafka::{KafkaConfig, Producer};

use super::{
    BenchArgs, clicks, deployment, job_of, paced,
    running::{Cpu, Running, broker_cpu},
};
use crate::{status, topics};

/// Event time that the preloaded records span: 100,000 records a second of it.
const RECORDS_PER_SECOND: u64 = 100_000;
/// How long the services may take, ms.
const PATIENCE: i64 = 600_000;

/// What the records cost.
#[derive(Debug)]
pub(super) struct Cost {
    records: f64,
    /// CPU seconds per million records.
    per_million: Cpu,
    seconds: f64,
    commits: u64,
    results: u64,
}

impl Cost {
    pub(super) fn summary(&self) -> String {
        let Cpu { ingest, workers, coordinator, .. } = self.per_million;
        format!(
            " records_per_s={:.0} cpu_s_per_million ingest={ingest:.3} worker={workers:.3} coordinator={coordinator:.3} total={:.3}",
            self.records / self.seconds,
            self.per_million.services(),
        )
    }

    pub(super) fn details(&self) -> String {
        format!(
            "  cost: seconds={:.1} transactions={} results={}{}\n",
            self.seconds,
            self.commits,
            self.results,
            self.per_million
                .broker
                .map(|broker| format!(" broker_cpu_s_per_million={broker:.3}"))
                .unwrap_or_default(),
        )
    }
}

/// Runs the phase.
pub(super) async fn measure(args: &BenchArgs, kafka: &KafkaConfig, folder: &Path) -> Result<Cost> {
    let (job, text) = job_of(args, "cost")?;
    topics::ensure_source(kafka, &job).await?;
    preload(args, kafka, &job).await?;
    let deployment = deployment(args, folder, "cost", &text)?;
    let before = Cpu { ingest: 0.0, workers: 0.0, coordinator: 0.0, broker: broker_cpu(args.broker_pid)? };
    let started = topics::unix_millis();
    let mut services = Running::start(&deployment, args.workers, args.broker_pid)?;
    let totals = loop {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if topics::unix_millis() - started > PATIENCE {
            bail!("the services did not cover {} records within ten minutes", args.events);
        }
        let Some(status) = services.glance().await? else { continue };
        let totals = status::totals(&status);
        let covered: u64 = totals.shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
        if covered >= args.events {
            break totals;
        }
    };
    let seconds = Duration::from_millis(u64::try_from(topics::unix_millis() - started)?).as_secs_f64();
    #[allow(clippy::cast_precision_loss, reason = "a count of records as a divisor")]
    let records = args.events as f64;
    let per_million = services.cpu()?.since(&before, records / 1e6);
    services.stop().await?;
    let dead: u64 = totals.dead_letters.values().sum();
    if dead > 0 {
        bail!("{dead} records became dead letters: this was no measurement of records that are applied");
    }
    Ok(Cost { records, per_million, seconds, commits: totals.commits, results: totals.results_final })
}

/// Sends the records that lie in the topic when the services start.
pub(super) async fn preload(args: &BenchArgs, kafka: &KafkaConfig, job: &Job) -> Result<()> {
    let (kafka, topic, events) = (kafka.clone(), job.source.topic.clone(), args.events);
    let mut clicks = clicks(args);
    tokio::task::spawn_blocking(move || {
        let mut producer = Producer::open(&kafka)?;
        let start = topics::unix_millis() - i64::try_from(events * 1_000 / RECORDS_PER_SECOND)?;
        for made in 0..events {
            let now = start + i64::try_from(made * 1_000 / RECORDS_PER_SECOND)?;
            let click = clicks.next(now);
            paced::send(&mut producer, &topic, &click, now, &[])?;
        }
        producer.flush(Duration::from_secs(300))?;
        Ok(())
    })
    .await?
}
