//! The program `watermark-coordinator`: flags, telemetry, metrics, exit code.

use std::process::ExitCode;

use clap::Parser;
use tidegate_runtime::{metrics, task, telemetry};

use crate::{Args, Config, Gauges, run};

/// Runs the service by the flags of this process, until a signal or a failure.
#[tokio::main]
pub async fn main() -> ExitCode {
    match start(Args::parse()).await {
        Ok(code) => code,
        Err(error) => {
            eprintln!("watermark-coordinator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn start(args: Args) -> anyhow::Result<ExitCode> {
    if args.common.print_config {
        println!("{}", serde_json::to_string_pretty(&args)?);
        return Ok(ExitCode::SUCCESS);
    }
    let config = Config::load(&args)?;
    let telemetry = telemetry::init(&args.common.telemetry("watermark-coordinator"))?;
    let (gauges, mut registry) = (Gauges::default(), metrics::registry(&config.job.name));
    gauges.register(&mut registry);
    let endpoint = metrics::Endpoint::bind(args.common.metrics).await?;
    tracing::info!(address = %endpoint.address(), "serving metrics");

    let tasks = task::Tasks::new();
    let shutdown = tasks.shutdown().clone();
    task::spawn("metrics", endpoint.serve(registry, gauges.readiness.clone(), shutdown.clone()));
    tasks.spawn("coordinator", run(config, gauges, shutdown));
    let outcome = tasks.run_until_shutdown(args.common.drain).await?;
    drop(telemetry);
    outcome.exit()
}
