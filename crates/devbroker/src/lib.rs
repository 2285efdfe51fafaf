//! An in-memory Kafka-compatible development broker, with faults on purpose.
