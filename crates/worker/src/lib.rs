//! Owns shards: applies frames, closes windows, commits.
