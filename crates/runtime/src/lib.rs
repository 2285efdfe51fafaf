//! Process plumbing that knows no events: telemetry, named tasks, clock, health, backoff.
