//! Short ways to do what every check does.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use tidegate_core::time::{Offset, Partition};
use tidegate_kafka::{
    Admin, GroupReader, KafkaConfig, NewTopic, Outcome, OutputRecord, PartitionReader, Producer, ReaderEvent,
    TransactionOptions, TransactionalProducer,
};
use tidegate_tests::clients::{PATIENCE, unique};

pub(crate) const P0: Partition = Partition(0);
pub(crate) const P1: Partition = Partition(1);

pub(crate) fn config(bootstrap: &str) -> KafkaConfig {
    KafkaConfig::new(bootstrap, "log-test")
}

pub(crate) fn run<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
}

pub(crate) fn new_topic(stem: &str, partitions: u32, configs: &[(&str, &str)]) -> NewTopic {
    let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    NewTopic { name: unique(stem), partitions, replication: None, configs }
}

pub(crate) async fn topic(bootstrap: &str, stem: &str, partitions: u32) -> Result<String> {
    let topic = new_topic(stem, partitions, &[]);
    Admin::open(&config(bootstrap))?.create(&topic).await?;
    Ok(topic.name)
}

/// Plain records with the values given.
pub(crate) fn produce<V: AsRef<str>>(
    bootstrap: &str,
    topic: &str,
    partition: Partition,
    values: impl IntoIterator<Item = V>,
) -> Result<()> {
    let mut producer = Producer::open(&config(bootstrap))?;
    for value in values {
        producer.send(topic, partition, None, Some(value.as_ref().as_bytes()), &[], None)?;
    }
    Ok(producer.flush(PATIENCE)?)
}

pub(crate) fn transactional(bootstrap: &str, id: &str) -> Result<TransactionalProducer> {
    let mut producer = TransactionalProducer::open(&config(bootstrap), id, TransactionOptions::default())?;
    producer.init(PATIENCE)?;
    Ok(producer)
}

pub(crate) fn record(topic: &str, partition: Partition, value: impl Into<Bytes>) -> OutputRecord {
    let (topic, value) = (Arc::from(topic), Some(value.into()));
    OutputRecord { topic, partition, key: None, value, headers: Vec::new(), timestamp: None }
}

pub(crate) fn committed(outcome: Outcome) -> Result<Vec<u64>> {
    match outcome {
        Outcome::Committed { offsets } => {
            offsets.into_iter().map(|offset| Ok(offset.context("an offset")?.0)).collect()
        }
        other => bail!("not committed: {other:?}"),
    }
}

/// Both kinds of reader.
pub(crate) trait Events {
    async fn event(&mut self) -> Option<ReaderEvent>;
}

impl Events for GroupReader {
    async fn event(&mut self) -> Option<ReaderEvent> {
        self.next().await
    }
}

impl Events for PartitionReader {
    async fn event(&mut self) -> Option<ReaderEvent> {
        self.next().await
    }
}

pub(crate) async fn next(reader: &mut impl Events) -> Result<ReaderEvent> {
    let event = tokio::time::timeout(PATIENCE, reader.event()).await.context("no event came")?;
    event.context("the reader ended")
}

/// What was read of one partition.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) offsets: Vec<u64>,
    pub(crate) values: Vec<String>,
    pub(crate) end: u64,
}

/// Reads `partition` until its end lies at `end` or above; everything else that comes must be of it too.
pub(crate) async fn read_until(reader: &mut impl Events, partition: Partition, end: u64) -> Result<Seen> {
    let mut seen = Seen::default();
    loop {
        match next(reader).await? {
            ReaderEvent::Batch(batch) => {
                for run in batch.runs() {
                    ensure!(run.partition() == partition, "records of partition {}", run.partition());
                    for record in run.records() {
                        seen.offsets.push(record.offset().0);
                        seen.values
                            .push(String::from_utf8_lossy(record.value().unwrap_or(b"-")).into_owned());
                    }
                }
            }
            ReaderEvent::EndOfPartition { partition: of, position }
                if of == partition && position.0 >= end =>
            {
                seen.end = position.0;
                return Ok(seen);
            }
            // Ends of before, and of others.
            ReaderEvent::EndOfPartition { .. } => {}
            other => bail!("unexpected: {other:?}"),
        }
    }
}

pub(crate) async fn started(reader: &mut impl Events) -> Result<(Partition, Offset)> {
    match next(reader).await? {
        ReaderEvent::Started { partition, offset } => Ok((partition, offset)),
        other => bail!("not started: {other:?}"),
    }
}

/// The next assignment that adds something.
pub(crate) async fn assigned(reader: &mut impl Events) -> Result<(Vec<Partition>, u32)> {
    loop {
        match next(reader).await? {
            ReaderEvent::Assigned { partitions, generation } if !partitions.is_empty() => {
                return Ok((partitions, generation));
            }
            ReaderEvent::Assigned { .. } | ReaderEvent::EndOfPartition { .. } => {}
            other => bail!("not assigned: {other:?}"),
        }
    }
}

/// Nothing but ends of partitions comes for a while.
pub(crate) async fn silence(reader: &mut impl Events, duration: Duration) -> Result<()> {
    let event = tokio::time::timeout(duration, async {
        loop {
            match reader.event().await {
                Some(ReaderEvent::EndOfPartition { .. }) => {}
                other => return other,
            }
        }
    });
    match event.await {
        Err(_) => Ok(()),
        Ok(event) => bail!("not silent: {event:?}"),
    }
}
