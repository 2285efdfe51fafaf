//! The flags of `window-worker`.

use std::{net::SocketAddr, path::PathBuf};

use serde::Serialize;
use tidegate_kafka::Access;
use tidegate_runtime::config::{Common, Peers, share};

/// Owns shards: applies frames, closes windows, commits results.
#[derive(clap::Parser, Clone, Debug, Serialize)]
#[command(name = "window-worker", version)]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
    /// Coordinators and the collector of traces.
    #[command(flatten)]
    #[serde(flatten)]
    pub peers: Peers,
    /// Share of the commits that get a trace, 0 to 1; of records their producers decide
    #[arg(long, value_name = "SHARE", default_value_t = 0.01, value_parser = share)]
    pub otlp_sample: f64,
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
