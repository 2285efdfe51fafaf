//! The flags of `window-worker`.

use std::{net::SocketAddr, path::PathBuf};

use serde::Serialize;
use tidegate_kafka::Access;
use tidegate_runtime::config::Common;

/// Owns shards: applies frames, closes windows, commits results.
#[derive(clap::Parser, Clone, Debug, Serialize)]
#[command(name = "window-worker", version)]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
    /// How to get into the cluster.
    #[command(flatten)]
    #[serde(flatten)]
    pub access: Access,
    /// Address to serve gRPC on; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub listen: SocketAddr,
    /// Name of this worker, the same over restarts: its shards come back to it
    #[arg(long, value_name = "NAME", default_value = "worker-0")]
    pub name: String,
    /// Directory of the local stores [default: ./state/<job>/<name>]
    #[arg(long, value_name = "DIR")]
    pub state: Option<PathBuf>,
    /// Address at which ingests reach this worker [default: where it listens]
    #[arg(long, value_name = "ADDRESS")]
    pub advertise: Option<String>,
}

impl Config {
    /// Where the local stores of this worker lie.
    #[must_use]
    pub fn state_directory(&self, job: &str) -> PathBuf {
        self.state.clone().unwrap_or_else(|| ["state", job, &self.name].iter().collect())
    }
}
