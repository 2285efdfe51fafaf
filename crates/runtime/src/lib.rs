//! Process plumbing that knows no events: the clock, named tasks and the end of the process, telemetry, metrics and
//! health over HTTP, the flags every service has, back-off, addresses in turn.

pub mod backoff;
pub mod clock;
mod collector;
pub mod config;
pub mod grpc;
pub mod metrics;
pub mod process;
pub mod rounds;
pub mod span;
pub mod task;
pub mod telemetry;
pub mod tls;
pub mod trace;

use std::io;
use std::net::SocketAddr;

/// What can go wrong in the plumbing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The operating system does not let us listen for SIGINT and SIGTERM.
    #[error("cannot listen for SIGINT and SIGTERM: {0}")]
    Signals(#[source] io::Error),
    /// The metrics endpoint cannot be opened.
    #[error("cannot serve metrics on {address}: {source}; choose another address with --metrics")]
    Bind {
        /// What was asked for.
        address: SocketAddr,
        /// Why not.
        source: io::Error,
    },
    /// The log filter cannot be read.
    #[error(
        "the log filter `{filter}` is not valid: {reason}; write for example `info` or `info,tidegate_ingest=debug`"
    )]
    Filter {
        /// What was given.
        filter: String,
        /// Where it is wrong.
        reason: String,
    },
    /// The exporter of traces cannot be built.
    #[error("cannot send traces to {endpoint}: {reason}; --otlp takes a URL such as http://127.0.0.1:4317")]
    Otlp {
        /// What was given.
        endpoint: String,
        /// Why not.
        reason: String,
    },
    /// Telemetry was set up twice.
    #[error("the log of this process is set up already")]
    LogTwice,
    /// A figure of a process cannot be read.
    #[error("cannot read {what} of process {process}: {source}")]
    Process {
        /// The figure.
        what: &'static str,
        /// Its id, or `self`.
        process: String,
        /// Why not.
        source: io::Error,
    },
}
