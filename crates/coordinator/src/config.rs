//! The flags of the coordinator, and the checked values they become.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use serde::Serialize;
use tidegate_core::assignment::AssignmentConfig;
use tidegate_core::coordinator::WatermarkConfig;
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{Access, KafkaConfig};
use tidegate_runtime::config::{Common, as_text, duration};
use tidegate_runtime::tls::{self, Tls};

use crate::topics::Durability;

/// Where workers and ingests look for a coordinator unless told otherwise.
const LISTEN: &str = "127.0.0.1:7400";

/// Computes the global watermark of a job and assigns its shards to workers
#[derive(Clone, Debug, Parser, Serialize)]
#[command(name = "watermark-coordinator", version)]
pub struct Args {
    /// What every service is told.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
    /// How to get into the cluster.
    #[command(flatten)]
    #[serde(flatten)]
    pub access: Access,
    /// Address to serve gRPC on
    #[arg(long, value_name = "ADDRESS", default_value = LISTEN)]
    pub listen: SocketAddr,
    /// How often ingests report each partition at least; one that misses three is held to be gone
    #[arg(long, value_name = "TIME", default_value = "500ms", value_parser = duration)]
    #[serde(serialize_with = "as_text")]
    pub report_interval: Duration,
    /// How long the shards of a lost worker wait for its return
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration)]
    #[serde(serialize_with = "as_text")]
    pub worker_return_timeout: Duration,
    /// How long to wait after a start for workers that own shards, before any shard is given away
    #[arg(long, value_name = "TIME", default_value = "5s", value_parser = duration)]
    #[serde(serialize_with = "as_text")]
    pub grace: Duration,
    /// How long a coordinator that is not heard of keeps the lead before another takes over; brokers take 6 s at least by default
    #[arg(long, value_name = "TIME", default_value = "6s", value_parser = duration)]
    #[serde(serialize_with = "as_text")]
    pub session_timeout: Duration,
    /// Name of this coordinator, the same over restarts, different for each: one that led last leads again at once when it is
    /// started again [default: the machine's name and the port of --listen]
    #[arg(long, value_name = "NAME")]
    pub name: Option<String>,
    /// Folder of a savepoint that the job begins with, if it has not begun yet (`tidegate savepoint`)
    #[arg(long, value_name = "FOLDER")]
    pub from_savepoint: Option<PathBuf>,
    /// Copies of each partition of the topics that are made here [default: the cluster's]
    #[arg(long, value_name = "COPIES")]
    pub replication: Option<u16>,
    /// `min.insync.replicas` of the topics that are made here [default: the cluster's]
    #[arg(long, value_name = "COPIES")]
    pub min_insync: Option<u16>,
}

/// A job file, or another file that flags name, that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("--job {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// It is wrong.
    #[error(transparent)]
    Job(#[from] tidegate_job::Report),
    /// The way to Kafka cannot be used.
    #[error(transparent)]
    Kafka(#[from] tidegate_kafka::Error),
    /// The certificates cannot be used.
    #[error(transparent)]
    Tls(#[from] tls::Error),
}

/// What the coordinator works by.
#[derive(Clone, Debug)]
pub struct Config {
    /// The job.
    pub job: Job,
    /// The cluster.
    pub kafka: KafkaConfig,
    /// Mutual TLS with workers and ingests; without it, plain text.
    pub tls: Option<Tls>,
    /// Where gRPC is served.
    pub listen: SocketAddr,
    /// [`Args::report_interval`]
    pub report_interval: Duration,
    /// [`Args::worker_return_timeout`]
    pub worker_return_timeout: Duration,
    /// [`Args::grace`]
    pub grace: Duration,
    /// [`Args::session_timeout`]
    pub session_timeout: Duration,
    /// [`Args::name`]; `None` where there is none that is the same over restarts.
    pub instance: Option<String>,
    /// [`Args::from_savepoint`]
    pub from_savepoint: Option<PathBuf>,
    /// How topics are made.
    pub durability: Durability,
}

impl Config {
    /// Checks the flags and reads the job file.
    ///
    /// # Errors
    ///
    /// [`ConfigError`]
    pub fn load(args: &Args) -> Result<Self, ConfigError> {
        let path = &args.common.job;
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.clone(), source })?;
        Ok(Self {
            job: JobFile::parse(&text, &path.display().to_string())?,
            kafka: args.access.config(&args.common.kafka, "watermark-coordinator")?,
            tls: args.common.tls.load()?,
            listen: args.listen,
            report_interval: args.report_interval,
            worker_return_timeout: args.worker_return_timeout,
            grace: args.grace,
            session_timeout: args.session_timeout,
            instance: args.name.clone().or_else(|| instance_at(args.listen)),
            from_savepoint: args.from_savepoint.clone(),
            durability: Durability { replication: args.replication, min_insync: args.min_insync },
        })
    }

    pub(crate) fn watermarks(&self) -> WatermarkConfig {
        WatermarkConfig {
            max_drift: self.job.max_drift,
            report_interval_ms: millis(self.report_interval),
            ..WatermarkConfig::of(&self.job.core)
        }
    }

    pub(crate) fn assignment(&self) -> AssignmentConfig {
        let default = AssignmentConfig::default();
        let grace_ms = millis(self.grace);
        AssignmentConfig {
            grace_ms,
            settle_ms: default.settle_ms.min(grace_ms),
            return_timeout_ms: millis(self.worker_return_timeout),
            ..default
        }
    }
}

/// A process that listens there has no living forerunner of this name: only one at a time can have the port.
fn instance_at(listen: SocketAddr) -> Option<String> {
    let machine = std::fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    let machine = machine.trim();
    (listen.port() != 0 && !machine.is_empty()).then(|| format!("{machine}:{}", listen.port()))
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_flags_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_those_of_the_manual() {
        let args = Args::try_parse_from(["watermark-coordinator", "--job", "j.yaml"]).unwrap();
        let shown = serde_json::to_value(&args).unwrap();
        assert_eq!(shown["report_interval"], "500ms");
        assert_eq!(shown["worker_return_timeout"], "10s");
        assert_eq!(shown["grace"], "5s");
        assert_eq!(shown["session_timeout"], "6s");
        assert_eq!(shown["job"], "j.yaml");
    }
}
