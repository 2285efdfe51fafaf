//! What event time means: trackers, windows, aggregates, the shard machine, lanes, the coordinator, assignment.
//!
//! No I/O, no async, no clock, no log: input in, effects out, time passed in (design §8). The invariants I1–I7 that the
//! comments and `debug_assert!`s name are those of the README and `docs/design.md` §6.

pub mod aggregate;
pub mod announcement;
pub mod assignment;
pub mod block;
pub mod coordinator;
pub mod credit;
pub mod dead_letter;
pub mod drift;
pub mod entry;
mod fragments;
pub mod frame;
pub mod future;
pub mod job;
pub mod lane;
pub mod ordered;
pub mod pacing;
pub mod record;
pub mod replay;
pub mod replay_request;
pub mod runs;
pub mod scratch;
pub mod sessions;
pub mod shard;
pub mod sketch;
pub mod skew;
pub mod slices;
pub mod source;
mod spans;
pub mod time;
pub mod tracker;
pub mod window;
pub mod zone;
