//! The program `window-worker`: flags, telemetry, exit code.

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
            eprintln!("window-worker: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn start(config: Config) -> anyhow::Result<ExitCode> {
    if config.common.print_config {
        println!("{}", serde_json::to_string_pretty(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    let (otlp, sample) = (config.peers.otlp.clone(), config.otlp_sample);
    let telemetry = telemetry::init(&Settings { otlp, sample, ..config.common.telemetry("window-worker") })?;
    let outcome = crate::run(config).await?;
    drop(telemetry);
    // Calls that block on a broker that does not answer are not waited for.
    outcome.exit()
}
