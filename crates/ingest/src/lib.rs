//! Reads the source, takes event times, frames records by shard.
