//! `tidegate check`: may this job be started on this cluster?
//!
//! ```text
//! job file ──► gather: ask, sample, try (and take back) ──► Facts ──► judge (pure) ──► Findings ──► text, JSON, exit code
//! ```

mod facts;
mod finding;
mod gather;
mod judge;
mod sample;

use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Args;
use tidegate_job::{JobFile, Problem};
use tidegate_kafka::Access;

use crate::inputs::Inputs;
use finding::{Finding, Findings};

/// Checks a job and the cluster before a start: topics, settings, rights, clocks, and whether the records fit. Leaves nothing behind.
#[derive(Args, Debug)]
pub(crate) struct CheckArgs {
    /// Job file
    #[arg(value_name = "JOB")]
    job: PathBuf,
    /// Kafka brokers, separated by commas
    #[arg(long, value_name = "BROKERS", default_value = "127.0.0.1:9092")]
    kafka: String,
    #[command(flatten)]
    access: Access,
    /// How many of the last records of each partition are tried
    #[arg(long, value_name = "RECORDS", default_value_t = 200)]
    sample: u64,
    /// Warnings count as errors
    #[arg(long)]
    strict: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs `tidegate check`; true where the job may be started.
///
/// # Errors
/// When the job file cannot be read, or the cluster fails in the middle.
pub(crate) async fn run(args: CheckArgs) -> Result<bool> {
    let findings = Findings::of(find(&args).await?);
    if args.json {
        println!("{}", serde_json::to_string(&findings)?);
    } else {
        print!("{}", findings.render());
    }
    Ok(findings.passes(args.strict))
}

async fn find(args: &CheckArgs) -> Result<Vec<Finding>> {
    let path = args.job.display();
    let text =
        std::fs::read_to_string(&args.job).with_context(|| format!("cannot read the job file {path}"))?;
    let job = match JobFile::parse(&text, &path.to_string()) {
        Ok(job) => job,
        Err(report) => {
            return Ok(report.problems.iter().map(|problem| wrong(&report.file, problem)).collect());
        }
    };
    let mut findings =
        vec![Finding::ok("job", "file", format!("{path}: job `{}`, {} shards", job.name, job.core.shards))];
    let kafka = args.access.config(&args.kafka, "tidegate-check")?;
    let inputs = Inputs::open(&job, &args.job).map_err(|error| format!("{error:#}"));
    match gather::gather(&job, inputs, &kafka, args.sample).await {
        Ok(facts) => findings.extend(judge::judge(&job, &facts)),
        Err(error) => findings.push(Finding::error(
            "cluster",
            "brokers",
            format!("{error:#}"),
            "nothing else could be looked at",
        )),
    }
    Ok(findings)
}

/// A thing that is wrong with the job file.
fn wrong(file: &str, problem: &Problem) -> Finding {
    let Problem { line, column, path, what, fix } = problem;
    let path = if path.is_empty() { String::new() } else { format!("{path}: ") };
    Finding::error("job", "file", format!("{file}:{line}:{column}: {path}{what}"), fix)
}
