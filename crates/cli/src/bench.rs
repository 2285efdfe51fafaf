//! `tidegate bench`: what a million records cost, and how soon a result can be read.
//!
//! Two phases, each a job of its own, the three services as processes:
//! 1. *Cost* ([`cost`]): N records lie in the topic; CPU of each service by its process's own accounting, all threads, from its
//!    start until all is committed.
//! 2. *Visible* ([`visible`]): records at a pace. For each result: from the moment the last record that its window needed was
//!    sent (on each partition, the first with event time ≥ end + δ) to the moment a `read_committed` consumer has the result.
//!    Sent, not stored: the producer's linger counts too, so that the figure is an upper bound.
//!
//! With `--recovery` another phase instead ([`recovery`]): a worker is killed and comes back. With `--compare` another
//! ([`compare`]): what traces or metrics cost. With `--replay` another ([`replay`]): dead letters are
//! replayed under the load of the second phase.
//!
//! The first line has the figures of the project's targets; the others what else was seen.

mod compare;
mod cost;
mod paced;
mod recovery;
mod replay;
mod running;
mod visible;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;
use tidegate_job::{Job, JobFile};
use tidegate_kafka::Access;
use tidegate_runtime::tls;

use crate::{
    clicks::{Clicks, ClicksSpec},
    services::{self, Deployment},
    topics,
};

/// Measures cost and latency against an existing cluster.
#[derive(Args, Debug)]
pub(crate) struct BenchArgs {
    /// The cluster
    #[arg(long, value_name = "BROKERS")]
    kafka: String,
    #[command(flatten)]
    access: Access,
    /// Records that lie in the topic when the services start; 0 leaves the first phase out
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
    /// Instead of both phases: kills a worker (of at least two) for 30 s under the load of the second phase, with N records
    /// preloaded as state, and shows what the others notice of it and how long shards stand still as they move
    #[arg(long)]
    recovery: bool,
    /// Instead of both phases: what this costs, under the load of the second phase, by two jobs at once that differ in nothing else
    #[arg(long, value_name = "WHAT", value_enum, conflicts_with = "recovery")]
    compare: Option<compare::Compared>,
    /// Rounds of `--compare`
    #[arg(long, value_name = "N", default_value_t = 4)]
    rounds: u32,
    /// Instead of both phases: replays N dead letters under the load of the second phase, and shows how fast, and what live
    /// records notice of it
    #[arg(long, value_name = "N", conflicts_with_all = ["recovery", "compare"])]
    replay: Option<u64>,
    /// Runs this job file instead of the one of 10 s tumbling windows: clicks as its source, `NAME` as the job's name and in its
    /// topics, `PARTITIONS` as their number
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// A process whose CPU is shown beside that of the services: the broker
    #[arg(long, value_name = "PID")]
    broker_pid: Option<u32>,
    #[command(flatten)]
    tls: tls::Flags,
    /// Keeps the logs and job files of the run in this folder
    #[arg(long, value_name = "FOLDER")]
    folder: Option<PathBuf>,
    /// What the services log
    #[arg(long, value_name = "FILTER", default_value = "warn")]
    log: String,
}

/// Runs `tidegate bench` and prints its lines.
///
/// # Errors
/// When something cannot be started, or does not end.
pub(crate) async fn run(args: BenchArgs) -> Result<()> {
    let temporary = tempfile::Builder::new().prefix("tidegate-bench-").tempdir()?;
    let folder = args.folder.clone().unwrap_or_else(|| temporary.path().to_owned());
    let kafka = args.access.config(&args.kafka, "tidegate-bench")?;
    if args.recovery {
        println!("{}", recovery::measure(&args, &kafka, &folder).await?.line());
        return Ok(());
    }
    if let Some(what) = args.compare {
        return compare::measure(&args, &kafka, &folder, what).await;
    }
    if let Some(entries) = args.replay {
        println!("{}", replay::measure(&args, entries, &kafka, &folder).await?.line());
        return Ok(());
    }
    let cost = if args.events > 0 { Some(cost::measure(&args, &kafka, &folder).await?) } else { None };
    let visible = if args.seconds > 0 { Some(visible::measure(&args, &kafka, &folder).await?) } else { None };
    let mut line = format!("bench: records={}", args.events);
    if let Some(cost) = &cost {
        line += &cost.summary();
    }
    if let Some(visible) = &visible {
        line += &visible.summary();
    }
    println!("{line}");
    for detail in cost.iter().map(cost::Cost::details).chain(visible.iter().map(visible::Visible::details)) {
        print!("{detail}");
    }
    Ok(())
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

fn deployment(args: &BenchArgs, folder: &Path, phase: &str, text: &str) -> Result<Deployment> {
    let folder = folder.join(phase);
    std::fs::create_dir_all(&folder)?;
    let job = folder.join("job.yaml");
    std::fs::write(&job, text)?;
    Ok(Deployment {
        job,
        kafka: args.kafka.clone(),
        tls: args.tls.clone(),
        access: args.access.clone(),
        folder,
        coordinators: vec![services::free_address()?],
        log: args.log.clone(),
        credit_mib: None,
        otlp: None,
    })
}

fn clicks(args: &BenchArgs) -> Clicks {
    Clicks::new(ClicksSpec { partitions: args.partitions, users: args.keys, trouble: false, seed: 7 })
}
