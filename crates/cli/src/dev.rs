//! `tidegate dev`: broker, coordinator, ingest and workers as real processes on loopback, one command.

use std::{
    io::{IsTerminal, Write},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tidegate_core::job::OnQuiet;
use tidegate_devbroker::DevBroker;
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{Access, Admin, KafkaConfig, PartitionEnds};
use tidegate_proto::v1;
use tidegate_runtime::tls;
use tokio_util::sync::CancellationToken;

use crate::{
    clicks::ClicksSpec,
    feeder, screen,
    services::{self, Deployment, Service},
    status::{self, StatusClient},
    topics,
    verify::{self, Earlier, Verdict},
};

/// The demo's job, used when none is given.
const CLICKS: &str = include_str!("../../../docs/jobs/clicks.yaml");
/// How often the screen is drawn and the end looked for.
const GLANCE: Duration = Duration::from_millis(250);
/// Glances without any progress after which a finite run is over although the counts do not say so.
const STILL_GLANCES: u32 = 40;

/// Runs a job on this machine.
#[derive(Args, Debug)]
pub(crate) struct DevArgs {
    /// Job file; without it the generated clicks stream runs
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// Produce each line of this file to the source topic, spread over the partitions by line number; ends when all has come out
    #[arg(long, value_name = "FILE.ndjson[.gz]", conflicts_with = "events")]
    input: Option<PathBuf>,
    /// Produce so many generated clicks, and end when all has come out
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Write every final result, read back from the sink topic
    #[arg(long, value_name = "FILE.ndjson")]
    output: Option<PathBuf>,
    /// Write every dead letter, read back from the dead-letter topic
    #[arg(long, value_name = "FILE.ndjson")]
    dead_letters: Option<PathBuf>,
    /// Number of workers
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    workers: u32,
    /// Number of coordinators: one leads, the others stand by
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=8))]
    coordinators: u32,
    /// MiB of frames that may be under way to one worker before reading waits, or goes on without it [default: that of ingest]
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(1..=1024))]
    credit_mib: Option<u64>,
    /// An existing cluster instead of the embedded broker
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    #[command(flatten)]
    access: Access,
    #[command(flatten)]
    tls: tls::Flags,
    /// Compute the job in batch from the source topic and compare; the exit code is 0 only if nothing differs
    #[arg(long)]
    verify: bool,
    /// Keep logs and state in this folder instead of a temporary one
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What the services log, to a file each in the folder
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// Runs `tidegate dev`; true when nothing differs.
///
/// # Errors
/// When something cannot be started, read or written.
pub(crate) async fn run(args: DevArgs) -> Result<bool> {
    let folder = Folder::new(args.folder.as_deref())?;
    let (job, job_file) = load_job(args.job.as_deref(), folder.path())?;
    if args.job.is_some() && args.input.is_none() && args.events.is_none() && args.kafka.is_none() {
        bail!("job `{}` has no input: give --input FILE, --events N or --kafka BROKERS", job.name);
    }
    if args.verify && args.input.is_none() && args.events.is_none() {
        bail!(
            "--verify compares a run that ends: give --input FILE or --events N (--events 0 for what is in the topic already)"
        );
    }
    if args.kafka.is_none() && args.access != Access::default() {
        bail!("the embedded broker speaks plain text to everyone: --kafka-… flags go with --kafka BROKERS");
    }
    let broker = match args.kafka {
        Some(_) => None,
        None => Some(DevBroker::start(tidegate_devbroker::Config::default()).await?),
    };
    let brokers = match (&args.kafka, &broker) {
        (Some(brokers), _) => brokers.clone(),
        (None, Some(broker)) => broker.address().to_string(),
        (None, None) => String::new(),
    };
    let kafka = args.access.config(&brokers, "tidegate-dev")?;
    let partitions = topics::ensure_source(&kafka, &job).await?;
    println!("broker {brokers}  logs and state in {}", folder.path().display());
    produce(&args, &kafka, &job, partitions).await?;
    let stop = CancellationToken::new();
    let finite = args.input.is_some() || args.events.is_some();
    let feeder = (args.job.is_none() && !finite)
        .then(|| {
            feeder::start(kafka.clone(), job.source.topic.clone(), ClicksSpec::demo(partitions), stop.clone())
        })
        .transpose()?;

    let deployment = Deployment {
        job: job_file,
        kafka: brokers.clone(),
        tls: args.tls.clone(),
        access: args.access.clone(),
        folder: folder.path().to_owned(),
        coordinators: (0..args.coordinators).map(|_| services::free_address()).collect::<Result<_>>()?,
        log: args.log.clone(),
        credit_mib: args.credit_mib,
        otlp: None,
    };
    let mut run = Run::start(deployment, args.workers, job.clone(), kafka.clone(), finite).await?;
    let last = run.watch().await;
    stop.cancel();
    if let Some(feeder) = feeder {
        let _ = feeder.await;
    }
    let stopped = run.stop().await;
    let last = last?;
    stopped?;
    let verdict = finish(&args, &job, &kafka, last).await?;
    if let Some(broker) = broker {
        broker.stop().await;
    }
    Ok(verdict)
}

fn load_job(file: Option<&Path>, folder: &Path) -> Result<(Job, PathBuf)> {
    let path = match file {
        Some(file) => file.to_owned(),
        None => {
            let path = folder.join("clicks.yaml");
            std::fs::write(&path, CLICKS)?;
            path
        }
    };
    let text = std::fs::read_to_string(&path)
        .with_context(|| format!("cannot read the job file {}", path.display()))?;
    Ok((JobFile::parse(&text, &path.display().to_string())?, path))
}

async fn produce(args: &DevArgs, kafka: &KafkaConfig, job: &Job, partitions: u32) -> Result<()> {
    let (kafka, topic) = (kafka.clone(), job.source.topic.clone());
    let records = if let Some(input) = args.input.clone() {
        tokio::task::spawn_blocking(move || topics::produce_file(&kafka, &topic, partitions, &input))
            .await??
    } else if let Some(events) = args.events {
        tokio::task::spawn_blocking(move || {
            feeder::produce(&kafka, &topic, ClicksSpec::demo(partitions), events)
        })
        .await??
    } else {
        return Ok(());
    };
    println!("produced {records} records to topic {} ({partitions} partitions)", job.source.topic);
    Ok(())
}

async fn finish(args: &DevArgs, job: &Job, kafka: &KafkaConfig, last: Option<v1::JobStatus>) -> Result<bool> {
    let (job, kafka) = (job.clone(), kafka.clone());
    let (output, letters, verify) = (args.output.clone(), args.dead_letters.clone(), args.verify);
    tokio::task::spawn_blocking(move || {
        if let Some(path) = output {
            println!("wrote {} results to {}", topics::write_results(&kafka, &job, &path)?, path.display());
        }
        if let Some(path) = letters {
            println!(
                "wrote {} dead letters to {}",
                topics::write_dead_letters(&kafka, &job, &path)?,
                path.display()
            );
        }
        if !verify {
            return Ok(true);
        }
        let verdict: Verdict =
            verify::verify(&job, &kafka, &Earlier::default(), last.as_ref().and_then(status::watermark))?;
        println!("{verdict}");
        Ok(verdict.mismatches() == 0)
    })
    .await?
}

/// A running deployment under watch.
struct Run {
    deployment: Deployment,
    job: Job,
    kafka: KafkaConfig,
    finite: bool,
    status: StatusClient,
    coordinators: Vec<Service>,
    ingest: Service,
    workers: Vec<Service>,
}

impl Run {
    async fn start(
        deployment: Deployment,
        workers: u32,
        job: Job,
        kafka: KafkaConfig,
        finite: bool,
    ) -> Result<Self> {
        let coordinators = deployment.start_coordinators()?;
        let ingest = deployment.start_ingest("ingest-0")?;
        let workers = (0..workers)
            .map(|number| deployment.start_worker(&format!("worker-{number}")))
            .collect::<Result<Vec<_>>>()?;
        for service in coordinators.iter().chain([&ingest]).chain(&workers) {
            println!("started {} pid {}", service.name, service.pid().unwrap_or_default());
        }
        let status = StatusClient::new(&deployment.coordinators, &deployment.tls)?;
        Ok(Self { deployment, job, kafka, finite, status, coordinators, ingest, workers })
    }

    /// Shows the job until it has ended or Ctrl-C; gives the last status.
    async fn watch(&mut self) -> Result<Option<v1::JobStatus>> {
        let admin = Admin::open(&self.kafka)?;
        let mut screen = screen::Screen::start(&self.kafka, &self.job, std::io::stdout().is_terminal())?;
        let mut glance = tokio::time::interval(GLANCE);
        glance.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let (mut last, mut still) = (None, 0);
        let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => return Ok(last),
                _ = terminate.recv() => return Ok(last),
                _ = glance.tick() => {}
            }
            self.supervise().await?;
            // The coordinator may be starting, or starting again.
            let Ok(status) = self.status.get().await else { continue };
            screen.show(&status)?;
            if self.finite {
                still = if last.as_ref() == Some(&status) { still + 1 } else { 0 };
                // Brokers that are away for a moment hold up the services, and end nothing.
                match admin.ends(&self.job.source.topic).await {
                    Ok(ends) if self.has_ended(&ends, &status, still) => return Ok(Some(status)),
                    Err(error) if !error.is_retriable() => return Err(error.into()),
                    _ => {}
                }
            }
            last = Some(status);
        }
    }

    /// Whether everything that can come out has: all read, all covered, all that W closes committed.
    fn has_ended(&self, ends: &[PartitionEnds], status: &v1::JobStatus, still: u32) -> bool {
        let at_end = status.partitions.len() == ends.len()
            && status.partitions.iter().zip(ends).all(|(partition, end)| {
                partition.state == "idle" && partition.position >= end.high_watermark.0
            });
        let watermark = status::watermark(status);
        let last_event = status.partitions.iter().filter_map(|partition| partition.max_event_time_ms).max();
        let finished = match (self.job.core.watermark.on_quiet, last_event) {
            (OnQuiet::Finish, Some(last)) => watermark.is_some_and(|watermark| {
                watermark >= last.saturating_add(self.job.core.operator.reach().millis())
            }),
            _ => true,
        };
        let totals = status::totals(status);
        let all_shards = totals.shards.len() == self.job.core.shards as usize;
        let committed = all_shards && totals.shards.iter().all(|shard| shard.watermark_ms == watermark);
        let covered: u64 = totals.shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
        let records: u64 = ends.iter().map(|end| end.high_watermark.0.saturating_sub(end.log_start.0)).sum();
        at_end && finished && committed && (covered == records || still >= STILL_GLANCES)
    }

    /// Starts again what a signal killed; an exit by itself is an error, with the end of the log.
    async fn supervise(&mut self) -> Result<()> {
        for coordinator in &mut self.coordinators {
            if coordinator.was_killed()? {
                *coordinator = again(self.deployment.start_coordinator(&coordinator.name)?);
            }
        }
        if self.ingest.was_killed()? {
            self.ingest = again(self.deployment.start_ingest("ingest-0")?);
        }
        for worker in &mut self.workers {
            if worker.was_killed()? {
                *worker = again(self.deployment.start_worker(&worker.name)?);
            }
        }
        Ok(())
    }

    async fn stop(self) -> Result<()> {
        let mut failed = None;
        for service in std::iter::once(self.ingest).chain(self.workers).chain(self.coordinators) {
            let name = service.name.clone();
            match service.stop().await {
                Ok(status) if status.success() => {}
                Ok(status) => failed = Some(anyhow::anyhow!("{name} stopped with {status}")),
                Err(error) => failed = Some(error),
            }
        }
        failed.map_or(Ok(()), Err)
    }
}

fn again(service: Service) -> Service {
    println!("started {} again, pid {}", service.name, service.pid().unwrap_or_default());
    let _ = std::io::stdout().flush();
    service
}

/// The folder of logs and state: temporary unless named.
enum Folder {
    Named(PathBuf),
    Temporary(tempfile::TempDir),
}

impl Folder {
    fn new(named: Option<&Path>) -> Result<Self> {
        Ok(match named {
            Some(path) => {
                std::fs::create_dir_all(path)
                    .with_context(|| format!("cannot make the folder {}", path.display()))?;
                Self::Named(path.to_owned())
            }
            None => Self::Temporary(tempfile::Builder::new().prefix("tidegate-").tempdir()?),
        })
    }

    fn path(&self) -> &Path {
        match self {
            Self::Named(path) => path,
            Self::Temporary(folder) => folder.path(),
        }
    }
}
