//! `tidegate savepoint`: the whole state of a job as files.

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tidegate_coordinator::savepoint::Savepoint;
use tidegate_job::JobFile;
use tidegate_kafka::Access;

/// Writes the whole state of a job that has stopped as files, for another job to begin with.
#[derive(Args, Debug)]
pub(crate) struct SavepointArgs {
    /// Job file
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// The cluster it runs on
    #[arg(long, value_name = "BROKERS")]
    kafka: String,
    #[command(flatten)]
    access: Access,
    /// Folder to write to; it must not be there yet, or be empty
    #[arg(long, value_name = "FOLDER")]
    to: PathBuf,
    /// The job may be running: a copy of what is committed now
    #[arg(long)]
    running: bool,
}

/// Runs `tidegate savepoint`.
///
/// # Errors
/// When the job has not run here, runs still, its changelog does not read, or the files cannot be written.
pub(crate) async fn run(args: SavepointArgs) -> Result<()> {
    let text = std::fs::read_to_string(&args.job)
        .with_context(|| format!("cannot read the job file {}", args.job.display()))?;
    let job = JobFile::parse(&text, &args.job.display().to_string())?;
    let kafka = args.access.config(&args.kafka, "tidegate-savepoint")?;
    let SavepointArgs { to, running, .. } = args;
    let folder = to.clone();
    let write = move || {
        let savepoint = Savepoint::take(&kafka, &job, running)?;
        let written = savepoint.write(&folder)?;
        Ok::<_, tidegate_coordinator::savepoint::Error>((savepoint.shards(), savepoint.unaligned(), written))
    };
    let (shards, unaligned, written) =
        tokio::task::spawn_blocking(write).await.context("reading the state")??;
    println!("wrote {written} bytes of {shards} shards to {}", to.display());
    match unaligned {
        None => {
            println!("all shards are at the same place: a job with another `state.shards` may begin with it")
        }
        Some(why) => println!("only a job with `state.shards: {shards}` may begin with it: {why}"),
    }
    Ok(())
}
