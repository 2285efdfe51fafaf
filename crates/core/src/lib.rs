//! What event time means: trackers, windows, aggregates, the shard machine. No I/O, no async, no clock, no log.
