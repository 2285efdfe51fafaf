//! A whole topic into a callback, on the calling thread: what a `read_committed` consumer sees.

use std::time::Duration;

use tidegate_core::time::{Offset, Partition};

use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::batch::Record;
use crate::scan::{Scan, Step, Stretch};

/// Reads every partition of `topic` from its start to the last stable offset of this moment.
///
/// Records of a partition come in order, those of different partitions as they arrive.
///
/// # Errors
///
/// When the broker does not answer, the topic does not exist, or nothing arrives for `patience`; what `on_record` returns.
pub fn drain<E: From<Error>>(
    config: &KafkaConfig,
    topic: &str,
    patience: Duration,
    mut on_record: impl FnMut(Record<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let scan = Scan::open(config, topic)?;
    let ends = scan.ends(&scan.partitions()?)?;
    let stretches: Vec<_> = ends
        .iter()
        .map(|ends| Stretch { partition: ends.partition, start: ends.log_start, end: Some(ends.last_stable) })
        .collect();
    scan.read(
        &stretches,
        patience,
        |record| {
            on_record(record)?;
            Ok(Step::Continue)
        },
        || Ok(Step::Continue),
    )
}

/// Reads every partition of `topic` from its start and goes on with what is added, until a callback says stop.
///
/// `between` is asked ten times a second or more often, also when nothing arrives.
///
/// # Errors
///
/// When the broker does not answer at the start, the topic does not exist, or reading fails for good; what the callbacks
/// return.
pub fn tail<E: From<Error>>(
    config: &KafkaConfig,
    topic: &str,
    on_record: impl FnMut(Record<'_>) -> Result<Step, E>,
    between: impl FnMut() -> Result<Step, E>,
) -> Result<(), E> {
    let scan = Scan::open(config, topic)?;
    let ends = scan.ends(&scan.partitions()?)?;
    let stretches: Vec<_> = ends
        .iter()
        .map(|ends| Stretch { partition: ends.partition, start: ends.log_start, end: None })
        .collect();
    scan.read(&stretches, Duration::MAX, on_record, between)
}

/// Offsets of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Between {
    /// The partition.
    pub partition: Partition,
    /// The first.
    pub from: Offset,
    /// Behind the last; at most the last stable offset.
    pub to: Offset,
}

/// Reads stretches of a topic, of different partitions, until all are at their end or `on_record` says stop.
///
/// # Errors
///
/// When the broker does not answer, a stretch is not in the log, or nothing arrives for `patience`; what `on_record` returns.
pub fn between<E: From<Error>>(
    config: &KafkaConfig,
    topic: &str,
    stretches: &[Between],
    patience: Duration,
    on_record: impl FnMut(Record<'_>) -> Result<Step, E>,
) -> Result<(), E> {
    let scan = Scan::open(config, topic)?;
    // Waits for a connection, and for the topic.
    scan.partitions()?;
    let stretches: Vec<_> = stretches
        .iter()
        .map(|between| Stretch { partition: between.partition, start: between.from, end: Some(between.to) })
        .collect();
    scan.read(&stretches, patience, on_record, || Ok(Step::Continue))
}
