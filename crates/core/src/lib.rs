//! What event time means: trackers, windows, aggregates, the shard machine, lanes, the coordinator, assignment.
//!
//! No I/O, no async, no clock, no log: input in, effects out, time passed in (design §8). The invariants I1–I7 that the
//! comments and `debug_assert!`s name are those of the README and `docs/design.md` §6.

pub mod announcement;
pub mod assignment;
pub mod coordinator;
pub mod job;
pub mod time;
