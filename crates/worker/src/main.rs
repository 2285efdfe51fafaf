//! `window-worker`: see the library's documentation.

use std::process::ExitCode;

use clap::Parser;
use tidegate_runtime::telemetry;
use tidegate_worker::config::Config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[tokio::main]
async fn main() -> anyhow::Result<ExitCode> {
    let config = Config::parse();
    if config.common.print_config {
        println!("{}", serde_json::to_string_pretty(&config)?);
        return Ok(ExitCode::SUCCESS);
    }
    let _telemetry = telemetry::init(&config.common.telemetry("window-worker"))?;
    tidegate_worker::run(config).await
}
