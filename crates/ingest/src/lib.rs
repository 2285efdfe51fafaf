//! The ingest service: a member of the job's consumer group that takes event time, key and columns out of each record, runs the
//! partitions' watermark trackers, and sends frames to the workers that own the shards.
//!
//! The walk of a record through this crate: [`reading`] (poll thread → batch) → `tidegate_extract` → `tidegate_core::source` →
//! [`outbox`] → gRPC. Beside it, on order of the coordinator: dead letters back to the shards ([`replay`]).

mod ahead;
pub mod config;
mod coordinator_link;
mod error;
mod event;
mod links;
mod metrics;
mod outbox;
pub mod program;
mod reading;
mod replay;
mod schema_desk;
mod service;
mod skew_metric;
mod source_watch;
mod standstill;
mod timestamps;
mod traces;
mod worker_link;

pub use error::Error;
pub use service::run;
