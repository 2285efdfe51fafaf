//! The program `ingest`: flags, telemetry, exit code.

use std::process::ExitCode;

use clap::Parser;
use tidegate_runtime::telemetry::{self, Settings};

use crate::config::Config;

/// Runs the service by the flags of this process, until a signal or a failure.
#[tokio::main]
pub async fn main() -> ExitCode {
    match start(Config::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("ingest: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(config: Config) -> anyhow::Result<ExitCode> {
    if config.common.print_config {
        println!("{}", serde_json::to_string_pretty(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    // The traces of records go on from those of their producers, who decide which are sent.
    let otlp = config.peers.otlp.clone();
    let telemetry = telemetry::init(&Settings { otlp, ..config.common.telemetry("ingest") })?;
    let outcome = crate::run(config).await?;
    drop(telemetry);
    // Calls that block on a broker that does not answer are not waited for.
    outcome.exit()
}
