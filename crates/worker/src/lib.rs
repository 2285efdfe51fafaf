//! Owns shards: applies frames, closes windows, commits.
//!
//! In the order of a record's walk:
//!
//! ```text
//! registration ─► roster ─► actor          who owns which shard
//! feed ─► replies                          frames come in, credit goes back
//! actor ─► owner ─► commit ─► render        applied, planned, written as one transaction
//! restore, cache, caution                  taken over again after whatever happened
//! ```

mod actor;
mod cache;
mod caution;
mod commit;
pub mod config;
mod error;
mod feed;
mod ground;
mod inspect;
mod owner;
pub mod program;
mod progress;
mod registration;
mod render;
mod replay;
mod replies;
mod restore;
mod roster;
mod scratch;
mod service;
mod stats;
mod traces;

pub use error::Error;
pub use service::{Settings, run, start};
