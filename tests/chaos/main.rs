//! `chaos`: the whole system as processes on Apache Kafka, under load and a seeded schedule of faults; then the batch oracle.
//!
//! ```text
//! load ──► source ──► ingest ×2 ──► worker ×3(+1) ──► results, dead letters ──► tidegate verify
//!                        └──► coordinator ×2 ◄──┘       the schedule hits each of these, the broker, and the links between them
//! ```
//! Prints what it does as it does it, and at last
//! `chaos: faults=… records=… windows=… lost=… duplicated=… wrong=…`. The exit code is 0 only if the last three are 0 and
//! everything came out in time.
//! The broker is stopped and halted, never killed: see `ApacheKafka::kill`.

#![allow(clippy::disallowed_methods, reason = "this program measures real time and makes chaos with it")]

mod cast;
mod load;
mod network;
mod progress;
mod run;
mod schedule;
mod system;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context, Result, bail};
use clap::{Parser, ValueEnum};
use tidegate_tests::ApacheKafka;

use crate::{
    cast::{BROKER, SERVICES},
    network::Network,
    run::{Run, Verdict},
};

/// Runs tidegate under faults and checks what comes out.
#[derive(Parser, Debug)]
struct Args {
    /// How long faults go on
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = tidegate_runtime::config::duration)]
    duration: Duration,
    /// Seed of the schedule and the load
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Records a second
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    rate: u64,
    /// The longest time from one fault to the next; an eighth of it is the shortest
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = tidegate_runtime::config::duration)]
    gap: Duration,
    /// Only faults of targets whose name starts so, or of all
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Folder of logs and state; emptied first [default: target/chaos/seed-<N>]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What the services log
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
    /// The network between the processes
    #[arg(long, value_enum, default_value_t = Networks::Auto, overrides_with = "network")]
    network: Networks,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Networks {
    /// Namespaces where the machine allows them, else loopback
    Auto,
    /// Loopback: no faults of the network
    Loopback,
    /// Namespaces or nothing
    Namespaces,
    /// This process is in the namespace already
    #[value(hide = true)]
    Inside,
    /// Only lays the network, to see whether it can
    #[value(hide = true)]
    Probe,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    let hosts = [&[BROKER], SERVICES].concat();
    let network = match args.network {
        Networks::Probe => {
            Network::lay(&hosts)?;
            return Ok(ExitCode::SUCCESS);
        }
        Networks::Inside => Some(Network::lay(&hosts)?),
        Networks::Loopback => None,
        Networks::Auto | Networks::Namespaces => {
            if !ApacheKafka::can_run("chaos") {
                bail!("no Apache Kafka on this machine");
            }
            // From inside there is no way out.
            ApacheKafka::prepare()?;
            let with = |network: &str| {
                let arguments = std::env::args().skip(1);
                arguments.chain(["--network".to_owned(), network.to_owned()]).collect::<Vec<_>>()
            };
            let why = network::enter(&with("inside"), &with("probe"))?;
            if args.network == Networks::Namespaces {
                bail!("no network namespaces on this machine: {why}");
            }
            println!(
                "NO FAULTS OF THE NETWORK in this run: this machine allows no network namespaces ({why})"
            );
            None
        }
    };
    chaos(&args, network)
}

fn chaos(args: &Args, network: Option<Network>) -> Result<ExitCode> {
    let folder =
        args.folder.clone().unwrap_or_else(|| PathBuf::from(format!("target/chaos/seed-{}", args.seed)));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)?;
    let mut targets = cast::processes();
    if let Some(network) = &network {
        println!("the broker and each service have a network namespace; a slow link: {}", network.slowness());
        targets.extend(cast::network());
    }
    targets.retain(|(target, _)| target.to_string().starts_with(&args.only));
    let steps = schedule::draw(args.seed, args.duration, args.gap, &targets);

    let mut run = Run::start(&folder, network, &args.log, args.rate, args.seed)?;
    let faults = run.make_chaos(steps, args.duration)?;
    let standing = run.finish()?;
    let mut verdict = run.verify(standing.watermark)?;
    // Conservation: what the shards have counted of each partition is what it holds.
    let (missing, surplus) = standing.imbalance();
    verdict.lost += missing;
    verdict.duplicated += surplus;
    // No partition was idle, so no watermark may have passed a record within the delay.
    verdict.wrong += verdict.overtaken;
    let Verdict { records, windows, dead_letters, overtaken, lost, duplicated, wrong } = verdict;
    println!("most memory, MiB: {}", run.system.memory());
    println!(
        "seed={} covered={:?} dead_letters={dead_letters} overtaken={overtaken} surprises={}  logs in {}",
        args.seed,
        standing.covered,
        run.system.surprises,
        folder.display()
    );
    let least = args.rate * args.duration.as_secs() / 2;
    if records < least {
        println!("the load was to write at least {least} records: this run shows nothing");
    }
    let good = standing.missing.is_none() && lost + duplicated + wrong == 0 && records >= least;
    if !good {
        run.keep_broker();
    }
    // The last line.
    println!(
        "chaos: faults={faults} records={records} windows={windows} lost={lost} duplicated={duplicated} wrong={wrong}"
    );
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
