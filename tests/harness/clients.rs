//! Plain librdkafka clients with short timeouts, and the few steps every broker test makes with them.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, DeliveryResult, Producer, ProducerContext};
use rdkafka::{ClientConfig, ClientContext, Offset, TopicPartitionList};

/// How long any single step of a test may take before the test fails.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A name nobody else uses on this broker.
pub fn unique(stem: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{stem}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// What consumers, producers and admin clients have in common.
pub fn client_config(bootstrap: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", bootstrap)
        .set("reconnect.backoff.ms", "10")
        .set("reconnect.backoff.max.ms", "50")
        .set("retry.backoff.ms", "10")
        .set("retry.backoff.max.ms", "50")
        .set("topic.metadata.refresh.fast.interval.ms", "20")
        .set("topic.metadata.propagation.max.ms", "1000");
    config
}

/// A consumer's settings: no automatic commit, an event at each end of partition, from the beginning.
pub fn consumer_config(bootstrap: &str, group: &str, isolation: Isolation) -> ClientConfig {
    let mut config = client_config(bootstrap);
    config
        .set("group.id", group)
        .set("isolation.level", isolation.as_str())
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "100")
        .set("fetch.wait.max.ms", "20")
        .set("fetch.queue.backoff.ms", "2")
        .set("fetch.error.backoff.ms", "10");
    config
}

/// Which records a consumer sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Isolation {
    /// All up to the high watermark.
    ReadUncommitted,
    /// Those not of an aborted transaction, up to the last stable offset.
    ReadCommitted,
}

impl Isolation {
    fn as_str(self) -> &'static str {
        match self {
            Self::ReadUncommitted => "read_uncommitted",
            Self::ReadCommitted => "read_committed",
        }
    }
}

/// Waits for the outcome of an administrative call.
pub fn wait<T>(call: impl Future<Output = T>) -> Result<T> {
    Ok(tokio::runtime::Builder::new_current_thread().enable_time().build()?.block_on(call))
}

/// An administrative client.
pub fn admin(bootstrap: &str) -> Result<AdminClient<DefaultClientContext>> {
    Ok(client_config(bootstrap).create()?)
}

/// The options all administrative calls of tests are made with.
pub fn admin_options() -> AdminOptions {
    AdminOptions::new().request_timeout(Some(PATIENCE)).operation_timeout(Some(PATIENCE))
}

/// Creates a topic with a name of its own, and returns the name once the broker serves the topic.
pub fn create_topic(bootstrap: &str, stem: &str, partitions: i32, config: &[(&str, &str)]) -> Result<String> {
    let name = unique(stem);
    create_topic_named(bootstrap, &name, partitions, config)?;
    Ok(name)
}

/// Creates the topic and returns once the broker serves it.
pub fn create_topic_named(
    bootstrap: &str,
    name: &str,
    partitions: i32,
    config: &[(&str, &str)],
) -> Result<()> {
    let topic = config
        .iter()
        .fold(NewTopic::new(name, partitions, TopicReplication::Fixed(1)), |topic, (key, value)| {
            topic.set(key, value)
        });
    let results = wait(admin(bootstrap)?.create_topics([&topic], &admin_options()))??;
    for result in results {
        result
            .map_err(|(_, code)| KafkaError::AdminOp(code))
            .with_context(|| format!("create topic {name}"))?;
    }
    await_partitions(bootstrap, name, partitions)
}

/// Waits until the broker's metadata shows the topic with this many partitions, each with a leader.
pub fn await_partitions(bootstrap: &str, topic: &str, partitions: i32) -> Result<()> {
    let client: BaseConsumer = client_config(bootstrap).create()?;
    until(&format!("{partitions} partitions of {topic}"), || {
        let metadata = client.fetch_metadata(Some(topic), PATIENCE)?;
        let topic = metadata.topics().first().context("no topic in the answer")?;
        let led = topic.partitions().iter().filter(|partition| partition.leader() >= 0).count();
        Ok((led == usize::try_from(partitions)?).then_some(()))
    })
}

/// Asks until the answer is there. For what the broker does in its own time and tells nobody about.
pub fn until<T>(what: &str, mut ask: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(answer) = ask()? {
            return Ok(answer);
        }
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// One partition as an assignment that starts at `offset`.
pub fn partition(topic: &str, partition: i32, offset: Offset) -> Result<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(topic, partition, offset)?;
    Ok(list)
}

/// A consumer in a group of its own, nothing assigned yet.
pub fn consumer(bootstrap: &str, isolation: Isolation) -> Result<BaseConsumer> {
    Ok(consumer_config(bootstrap, &unique("reader"), isolation).create()?)
}

/// The next `count` records, in the order in which they come.
pub fn read(consumer: &BaseConsumer, count: usize) -> Result<Vec<OwnedMessage>> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::with_capacity(count);
    while records.len() < count {
        match consumer.poll(Duration::from_millis(100)) {
            None | Some(Err(KafkaError::PartitionEOF(_))) => {}
            Some(Err(error)) if is_lost_connection(&error) => {}
            Some(record) => records.push(record?.detach()),
        }
        ensure!(Instant::now() < deadline, "waited {PATIENCE:?} for {count} records, got {}", records.len());
    }
    Ok(records)
}

/// What a consumer is told for its information while it connects again by itself.
fn is_lost_connection(error: &KafkaError) -> bool {
    use RDKafkaErrorCode::{AllBrokersDown, BrokerTransportFailure};
    matches!(error.rdkafka_error_code(), Some(AllBrokersDown | BrokerTransportFailure))
}

/// All records of a partition from `from` to where a reader of this isolation finds its end.
pub fn read_to_end(
    bootstrap: &str,
    topic: &str,
    partition: i32,
    from: Offset,
    isolation: Isolation,
) -> Result<Vec<OwnedMessage>> {
    let consumer = consumer(bootstrap, isolation)?;
    assign(&consumer, topic, partition, from)?;
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    while Instant::now() < deadline {
        match consumer.poll(Duration::from_millis(100)) {
            None => {}
            Some(Err(KafkaError::PartitionEOF(_))) => return Ok(records),
            Some(record) => records.push(record?.detach()),
        }
    }
    bail!("waited {PATIENCE:?} for the end of {topic}/{partition}, got {} records", records.len())
}

/// First offset of the partition, and the end that a reader of this isolation would find.
pub fn bounds(bootstrap: &str, topic: &str, partition: i32, isolation: Isolation) -> Result<(i64, i64)> {
    Ok(consumer(bootstrap, isolation)?.fetch_watermarks(topic, partition, PATIENCE)?)
}

/// Waits until a reader of this isolation finds the end of the partition at `end`.
///
/// The answer to a commit says that the commit is decided. Its marker is written after that, so that a committed reader
/// who looks at once may still find the end before the transaction.
pub fn await_end(bootstrap: &str, topic: &str, partition: i32, isolation: Isolation, end: i64) -> Result<()> {
    let reader = consumer(bootstrap, isolation)?;
    let mut seen = None;
    until(&format!("the end of {topic}/{partition} to be {end}"), || {
        let (_, high) = reader.fetch_watermarks(topic, partition, PATIENCE)?;
        seen = Some(high);
        ensure!(high <= end, "the end of {topic}/{partition} is {high}, past {end}");
        Ok((high == end).then_some(()))
    })
    .with_context(|| format!("last seen: {seen:?}"))
}

/// The payloads as text.
pub fn values(records: &[OwnedMessage]) -> Vec<String> {
    let text =
        |record: &OwnedMessage| String::from_utf8_lossy(record.payload().unwrap_or_default()).into_owned();
    records.iter().map(text).collect()
}

/// The offsets of the records.
pub fn offsets(records: &[OwnedMessage]) -> Vec<i64> {
    records.iter().map(Message::offset).collect()
}

/// Has the consumer read one partition from `from` on.
pub fn assign(consumer: &BaseConsumer, topic: &str, partition: i32, from: Offset) -> Result<()> {
    // A consumer that is given a topic before it knows its leader asks again after half a second only.
    consumer.fetch_metadata(Some(topic), PATIENCE)?;
    consumer.assign(&self::partition(topic, partition, from)?)?;
    Ok(())
}

/// A record of bytes.
pub type Record<'a> = BaseRecord<'a, [u8], [u8]>;

/// A producer that remembers what became of its records.
pub struct TestProducer {
    inner: BaseProducer<Deliveries>,
}

/// Offset or error of each record, in the order of the answers.
#[derive(Debug, Default)]
pub struct Deliveries(Mutex<Vec<Result<i64, KafkaError>>>);

impl ClientContext for Deliveries {}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        let outcome = match result {
            Ok(message) => Ok(message.offset()),
            Err((error, _)) => Err(error.clone()),
        };
        self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).push(outcome);
    }
}

impl TestProducer {
    /// A producer that is neither idempotent nor transactional unless `settings` say so.
    pub fn new(bootstrap: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let mut config = client_config(bootstrap);
        config.set("linger.ms", "0");
        for (key, value) in settings {
            config.set(*key, *value);
        }
        Ok(Self { inner: config.create_with_context(Deliveries::default())? })
    }

    /// A transactional producer that has run `init_transactions`.
    pub fn transactional(bootstrap: &str, id: &str, settings: &[(&str, &str)]) -> Result<Self> {
        let settings = [&[("transactional.id", id)], settings].concat();
        let producer = Self::new(bootstrap, &settings)?;
        producer.inner.init_transactions(PATIENCE)?;
        Ok(producer)
    }

    /// The client underneath, for transactions.
    pub fn client(&self) -> &BaseProducer<Deliveries> {
        &self.inner
    }

    /// Hands a record to the client.
    pub fn send(&self, record: Record<'_>) -> Result<()> {
        self.inner.send(record).map_err(|(error, _)| error)?;
        Ok(())
    }

    /// Waits for everything sent so far; the offsets in the order of the answers, or the first error.
    pub fn flush(&self) -> Result<Vec<i64>, KafkaError> {
        // The client's own flush takes at least 100 ms; its poll takes all the time it is given.
        let deadline = Instant::now() + PATIENCE;
        while self.inner.in_flight_count() > 0 && Instant::now() < deadline {
            self.inner.poll(Duration::from_millis(2));
        }
        std::mem::take(&mut *self.inner.context().0.lock().unwrap_or_else(|poisoned| poisoned.into_inner()))
            .into_iter()
            .collect()
    }

    /// Produces one record for each value, without keys, and returns the offsets.
    pub fn produce(&self, topic: &str, partition: i32, values: &[&str]) -> Result<Vec<i64>> {
        for value in values {
            self.send(Record::to(topic).partition(partition).payload(value.as_bytes()))?;
        }
        Ok(self.flush()?)
    }
}
