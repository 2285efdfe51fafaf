//! `tidegate bench`: what a million records cost, and how soon a result can be read.
//!
//! Two phases, each a job of its own, the three services as processes:
//! 1. *Cost*: N records lie in the topic; CPU of each service by its process's own accounting, from its start until all is committed.
//! 2. *Visible*: records at a pace. For each result: from the moment the last record that its window needed was sent (on each
//!    partition, the first with event time ≥ end + δ) to the moment a `read_committed` consumer has the result.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tidegate_core::time::{EventTime, Partition};
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{KafkaConfig, Producer, Step, tail};
use tidegate_proto::v1;

use crate::{
    clicks::{Clicks, ClicksSpec},
    services::{self, Deployment, Service},
    status::{self, StatusClient},
    topics,
};

/// Measures cost and latency against an existing cluster.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// The cluster
    #[arg(long, value_name = "BROKERS")]
    kafka: String,
    /// Records that lie in the topic when the services start
    #[arg(long, value_name = "N", default_value_t = 5_000_000)]
    events: u64,
    /// Group keys
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    keys: u32,
    /// Partitions of the source topic
    #[arg(long, value_name = "N", default_value_t = 8)]
    partitions: u32,
    /// Number of workers
    #[arg(long, value_name = "N", default_value_t = 1)]
    workers: u32,
    /// Records a second of the second phase
    #[arg(long, value_name = "N", default_value_t = 20_000)]
    rate: u64,
    /// Seconds of the second phase; 0 leaves it out
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u64,
    /// Run this job file's window instead of the 10 s tumbling one; the source must be clicks
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
}

/// Event time that the preloaded records span: 100,000 records a second of it.
const RECORDS_PER_SECOND: u64 = 100_000;

/// Runs `tidegate bench` and prints its line.
///
/// # Errors
/// When something cannot be started, or does not end.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    let folder = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
    let kafka = KafkaConfig::new(&args.kafka, "tidegate-bench");
    let cost = cost(&args, &kafka, folder.path()).await?;
    let visible = if args.seconds > 0 { visible(&args, &kafka, folder.path()).await? } else { Vec::new() };
    let cpu = |seconds: f64| seconds * 1e6 / cost_records(&args);
    println!(
        "bench: records={} records_per_s={:.0} cpu_s_per_million ingest={:.3} worker={:.3} coordinator={:.3} total={:.3} visible_ms p50={} p99={}",
        args.events,
        cost_records(&args) / cost.wall_seconds,
        cpu(cost.ingest),
        cpu(cost.workers),
        cpu(cost.coordinator),
        cpu(cost.ingest + cost.workers + cost.coordinator),
        percentile(&visible, 50),
        percentile(&visible, 99),
    );
    Ok(())
}

#[allow(clippy::cast_precision_loss, reason = "a count of records as a divisor")]
fn cost_records(args: &BenchArgs) -> f64 {
    args.events as f64
}

#[derive(Debug)]
struct Cost {
    ingest: f64,
    workers: f64,
    coordinator: f64,
    wall_seconds: f64,
}

struct Services {
    coordinator: Service,
    ingest: Service,
    workers: Vec<Service>,
    status: StatusClient,
}

impl Services {
    fn start(deployment: &Deployment, workers: u32) -> Result<Self> {
        Ok(Self {
            coordinator: deployment.start_coordinator()?,
            ingest: deployment.start_ingest("ingest-0")?,
            workers: (0..workers)
                .map(|number| deployment.start_worker(&format!("worker-{number}")))
                .collect::<Result<Vec<_>>>()?,
            status: StatusClient::new(&deployment.coordinator.to_string())?,
        })
    }

    /// The next status; an error when a service has ended.
    async fn glance(&mut self) -> Result<Option<v1::JobStatus>> {
        for service in [&mut self.coordinator, &mut self.ingest].into_iter().chain(&mut self.workers) {
            if service.was_killed()? {
                bail!("{} was killed", service.name);
            }
        }
        Ok(self.status.get().await.ok())
    }

    async fn stop(self) -> Result<()> {
        for service in std::iter::once(self.ingest).chain(self.workers).chain([self.coordinator]) {
            service.stop().await?;
        }
        Ok(())
    }
}

fn job_of(args: &BenchArgs, phase: &str) -> Result<(Job, String)> {
    let stamp = topics::unix_millis();
    let text = match &args.job {
        Some(path) => {
            std::fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?
        }
        None => include_str!("bench.yaml").to_owned(),
    };
    let text = text
        .replace("NAME", &format!("bench-{phase}-{stamp}"))
        .replace("PARTITIONS", &args.partitions.to_string());
    Ok((JobFile::parse(&text, "bench.yaml")?, text))
}

fn deployment(args: &BenchArgs, folder: &std::path::Path, phase: &str, text: &str) -> Result<Deployment> {
    let folder = folder.join(phase);
    std::fs::create_dir_all(&folder)?;
    let job = folder.join("job.yaml");
    std::fs::write(&job, text)?;
    Ok(Deployment {
        job,
        kafka: args.kafka.clone(),
        folder,
        coordinator: services::free_address()?,
        log: "warn".to_owned(),
    })
}

fn clicks(args: &BenchArgs) -> Clicks {
    Clicks::new(ClicksSpec { partitions: args.partitions, users: args.keys, trouble: false, seed: 7 })
}

async fn cost(args: &BenchArgs, kafka: &KafkaConfig, folder: &std::path::Path) -> Result<Cost> {
    let (job, text) = job_of(args, "cost")?;
    topics::ensure_source(kafka, &job).await?;
    preload(args, kafka, &job).await?;
    let deployment = deployment(args, folder, "cost", &text)?;
    let started = std::time::Duration::from_millis(u64::try_from(topics::unix_millis())?);
    let mut services = Services::start(&deployment, args.workers)?;
    let deadline = topics::unix_millis() + 600_000;
    loop {
        tokio::time::sleep(Duration::from_millis(50)).await;
        if topics::unix_millis() > deadline {
            bail!("the services did not cover {} records within ten minutes", args.events);
        }
        let Some(status) = services.glance().await? else { continue };
        let covered: u64 =
            status::totals(&status).shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
        if covered >= args.events {
            break;
        }
    }
    let wall = Duration::from_millis(u64::try_from(topics::unix_millis())?).saturating_sub(started);
    let cost = Cost {
        ingest: cpu(&services.ingest)?,
        workers: services.workers.iter().map(cpu).sum::<Result<f64>>()?,
        coordinator: cpu(&services.coordinator)?,
        wall_seconds: wall.as_secs_f64(),
    };
    services.stop().await?;
    Ok(cost)
}

fn cpu(service: &Service) -> Result<f64> {
    let pid = service.pid().context("the service has ended")?;
    Ok(tidegate_runtime::process::cpu_seconds_of(pid)?)
}

async fn preload(args: &BenchArgs, kafka: &KafkaConfig, job: &Job) -> Result<()> {
    let (kafka, topic, events) = (kafka.clone(), job.source.topic.clone(), args.events);
    let mut clicks = clicks(args);
    tokio::task::spawn_blocking(move || {
        let mut producer = Producer::open(&kafka)?;
        let start = topics::unix_millis() - i64::try_from(events * 1_000 / RECORDS_PER_SECOND)?;
        for made in 0..events {
            let now = start + i64::try_from(made * 1_000 / RECORDS_PER_SECOND)?;
            let click = clicks.next(now);
            producer.send(
                &topic,
                Partition(click.partition),
                None,
                Some(click.value.as_bytes()),
                &[],
                Some(EventTime(now)),
            )?;
        }
        producer.flush(Duration::from_secs(300))?;
        Ok(())
    })
    .await?
}

/// When, of each partition, the first record with at least some event time was sent; by event time.
type Sent = Arc<Mutex<Vec<BTreeMap<i64, i64>>>>;

async fn visible(args: &BenchArgs, kafka: &KafkaConfig, folder: &std::path::Path) -> Result<Vec<i64>> {
    let (job, text) = job_of(args, "visible")?;
    topics::ensure_source(kafka, &job).await?;
    let deployment = deployment(args, folder, "visible", &text)?;
    let mut services = Services::start(&deployment, args.workers)?;
    while services.glance().await?.is_none_or(|status| status.owners.len() < job.core.shards as usize) {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sent: Sent = Arc::new(Mutex::new(vec![BTreeMap::new(); args.partitions as usize]));
    let done = Arc::new(AtomicBool::new(false));
    let reader = {
        let (kafka, job, sent, done) = (kafka.clone(), job.clone(), Arc::clone(&sent), Arc::clone(&done));
        tokio::task::spawn_blocking(move || read_results(&kafka, &job, &sent, &done))
    };
    {
        let (kafka, topic, clicks) = (kafka.clone(), job.source.topic.clone(), clicks(args));
        let (rate, seconds) = (args.rate, args.seconds);
        tokio::task::spawn_blocking(move || pace(&kafka, &topic, clicks, rate, seconds, &sent)).await??;
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    done.store(true, Ordering::Relaxed);
    let delays = reader.await??;
    services.stop().await?;
    if delays.is_empty() {
        bail!("no result came out in {} s", args.seconds);
    }
    Ok(delays)
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
fn note(sent: &Sent, click: &crate::clicks::Click, now: i64) {
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
            let needed = sent.lock().ok().and_then(|sent| {
                let times = sent.iter().map(|largest| largest.range(end + delay..).next().map(|(_, at)| *at));
                times.collect::<Option<Vec<_>>>()?.into_iter().max()
            });
            // The last windows close by no record of ours.
            delays.extend(needed.map(|needed| now - needed));
            Ok::<_, anyhow::Error>(Step::Continue)
        },
        || Ok(if done.load(Ordering::Relaxed) { Step::Stop } else { Step::Continue }),
    )?;
    delays.sort_unstable();
    Ok(delays)
}

fn percentile(sorted: &[i64], percent: usize) -> String {
    let at = (sorted.len() * percent / 100).min(sorted.len().saturating_sub(1));
    sorted.get(at).map_or_else(|| "-".to_owned(), ToString::to_string)
}
