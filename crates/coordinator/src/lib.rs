//! The watermark coordinator: leads a job, computes its global watermark from the ingests' reports, assigns its shards to
//! workers.
//!
//! Of several for a job one leads and the others stand by (`election`, `candidate`).
//!
//! Its state is soft, but for the job record, its term and the replays that were asked for, which lie in the control topic
//! ([`job_record`], [`replay_record`], `control`, `leader`). The machines are those of `tidegate_core::{coordinator, assignment}`; [`service`] is the shell around them.

mod candidate;
pub mod config;
mod control;
mod election;
mod error;
mod event;
mod fence;
pub mod job_record;
mod leader;
mod metrics;
mod owner;
pub mod program;
mod replay_desk;
pub mod replay_record;
mod replays;
pub mod savepoint;
mod scribe;
mod seat;
pub mod service;
mod status;
mod streams;
mod topics;
mod watch;

pub use config::{Args, Config};
pub use error::Error;
pub use service::{Gauges, run, serve};
pub use topics::Durability;
