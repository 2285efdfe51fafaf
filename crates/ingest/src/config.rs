//! The flags of `ingest`.

use serde::Serialize;
use tidegate_kafka::Access;
use tidegate_runtime::config::{Common, Peers};

/// Reads the source topic of a job, follows its watermarks and sends frames to the workers.
#[derive(clap::Parser, Clone, Debug, Serialize)]
#[command(name = "ingest", version)]
pub struct Config {
    /// What every service has.
    #[command(flatten)]
    #[serde(flatten)]
    pub common: Common,
    /// Coordinators and the collector of traces.
    #[command(flatten)]
    #[serde(flatten)]
    pub peers: Peers,
    /// How to get into the cluster.
    #[command(flatten)]
    #[serde(flatten)]
    pub access: Access,
    /// MiB of frames that may be under way to one worker before reading waits, or goes on without it
    #[arg(long, value_name = "MIB", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=1024))]
    pub credit_mib: u64,
    /// Headers of a traced record that go on to its results, besides `baggage`, separated by commas
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub trace_tags: Vec<String>,
}
