//! `tidegate`: the command line, as a library, so that the program of the image has it too.

mod bench;
mod check;
mod clicks;
mod dev;
mod feeder;
mod inputs;
mod inspect;
mod moment;
mod profile;
mod query;
mod ready;
mod replay;
mod savepoint;
mod screen;
mod services;
mod status;
mod topics;
mod trace_join;
mod verify;
mod why;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Event-time windows over Kafka without a Flink cluster.
#[derive(Parser, Debug)]
#[command(name = "tidegate", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run a job on this machine: broker, coordinator, ingest and workers as processes on loopback
    Dev(Box<dev::DevArgs>),
    /// Measure CPU per million records and latency against an existing cluster
    Bench(bench::BenchArgs),
    /// Compute a job in batch from its source topic and compare that with what it has put out
    Verify(verify::VerifyArgs),
    /// Show a running job: watermark, partitions, workers and their shards
    Status {
        /// Addresses of the coordinators, separated by commas
        #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:7400", value_delimiter = ',')]
        coordinator: Vec<String>,
        #[command(flatten)]
        tls: tidegate_runtime::tls::Flags,
    },
    /// Produce the demo's clicks to a topic, as they happen, until it is told to stop
    Clicks(feeder::ClicksArgs),
    /// Ask a service whether it does its work; the exit code is 0 only if it does
    Ready {
        /// The service's `--metrics`
        #[arg(value_name = "ADDRESS", default_value = "127.0.0.1:9100")]
        address: String,
    },
    /// Join a capture of tshark and the services' logs by trace into one timeline
    TraceJoin(trace_join::TraceJoinArgs),
    /// Check a job and the cluster before a start: topics, settings, rights, clocks, records
    Check(check::CheckArgs),
    /// Say why nothing comes out: who holds the watermark, what a key waits for, where a record went
    Why(why::WhyArgs),
    /// Show the open windows of a group key with their present values
    Query(query::QueryArgs),
    /// Give dead letters back to the windows that they missed: each corrects its result, once
    Replay(replay::ReplayArgs),
    /// Write the whole state of a job that has stopped as files, for another job to begin with
    Savepoint(savepoint::SavepointArgs),
    /// Measure how far out of order a topic is, and say which watermark suits it
    Profile(profile::ProfileArgs),
    /// Print the JSON Schema of job files
    Schema,
}

/// Runs what the command line of this process says.
#[tokio::main]
pub async fn main() -> ExitCode {
    match run(Cli::parse().command).await {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> Result<bool> {
    match command {
        Command::Dev(args) => return dev::run(*args).await,
        Command::Verify(args) => return verify::run(args).await,
        Command::TraceJoin(args) => return trace_join::run(args).await,
        Command::Ready { address } => return ready::run(&address).await,
        Command::Clicks(args) => feeder::run(args).await?,
        Command::Check(args) => return check::run(args).await,
        Command::Query(args) => return query::run(args).await,
        Command::Replay(args) => return replay::run(args).await,
        Command::Why(args) => why::run(args).await?,
        Command::Bench(args) => bench::run(args).await?,
        Command::Savepoint(args) => savepoint::run(args).await?,
        Command::Profile(args) => profile::run(args).await?,
        Command::Status { coordinator, tls } => {
            let status = status::StatusClient::new(&coordinator, &tls)?.get().await?;
            print!("{}", status::render(&status));
        }
        Command::Schema => print!("{}", tidegate_job::json_schema()),
    }
    Ok(true)
}
