//! `with-kafka COMMAND …`: starts an Apache Kafka, runs the command with `--kafka ADDRESS --broker-pid PID` added, stops the broker.

use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail};
use tidegate_tests::ApacheKafka;

fn main() -> Result<ExitCode> {
    let mut arguments = std::env::args_os().skip(1);
    let program = arguments.next().context("usage: with-kafka COMMAND …")?;
    if !ApacheKafka::can_run("the command") {
        bail!("no Apache Kafka on this machine");
    }
    let kafka = ApacheKafka::start()?;
    let pid = kafka.pid().context("the broker has ended")?.to_string();
    let added = ["--kafka", kafka.bootstrap(), "--broker-pid", &pid];
    let status = Command::new(program).args(arguments).args(added).status()?;
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
