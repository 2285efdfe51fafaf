//! Topics as the command line uses them: made before a run, filled with input, read back after it.

use std::{
    fs::File,
    io::{BufRead, BufReader, Read, Write},
    path::Path,
    sync::LazyLock,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;
use tidegate_core::time::Partition;
use tidegate_job::Job;
use tidegate_kafka::{Admin, KafkaConfig, NewTopic, Producer, Record, Timestamp, drain};
use tidegate_runtime::clock::Clock;

/// How long a read may wait for the next record.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the last records may take to arrive.
const FLUSH: Duration = Duration::from_secs(60);
/// Partitions of a source topic for which the job names no number.
const DEFAULT_PARTITIONS: u32 = 4;

/// Milliseconds since the Unix epoch.
#[must_use]
pub(crate) fn unix_millis() -> i64 {
    static CLOCK: LazyLock<Clock> = LazyLock::new(Clock::start);
    CLOCK.now_millis()
}

/// Calls `on_record` for every record that a `read_committed` reader sees in `topic` now.
///
/// # Errors
/// When the topic cannot be read, or what `on_record` returns.
pub(crate) fn read_all(
    kafka: &KafkaConfig,
    topic: &str,
    on_record: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<()> {
    drain(kafka, topic, PATIENCE, on_record).with_context(|| format!("reading topic `{topic}`"))
}

/// The same of topics one after the other.
///
/// # Errors
/// As [`read_all`].
pub(crate) fn read_each<'a>(
    kafka: &KafkaConfig,
    topics: impl IntoIterator<Item = &'a String>,
    mut on_record: impl FnMut(Record<'_>) -> Result<()>,
) -> Result<()> {
    topics.into_iter().try_for_each(|topic| read_all(kafka, topic, &mut on_record))
}

/// Makes the source topic if it is not there; gives its number of partitions.
///
/// # Errors
/// When the broker does not answer or refuses.
pub(crate) async fn ensure_source(kafka: &KafkaConfig, job: &Job) -> Result<u32> {
    let admin = Admin::open(kafka)?;
    if let Some(topic) = admin.topic(&job.source.topic).await? {
        return Ok(topic.partitions);
    }
    let partitions = job.source.partitions.unwrap_or(DEFAULT_PARTITIONS);
    let topic = NewTopic {
        name: job.source.topic.clone(),
        partitions,
        replication: None,
        // Kafka counts retention from the record's timestamp, and generated or old data has old ones.
        configs: [("retention.ms".to_owned(), "-1".to_owned())].into(),
    };
    admin.create(&topic).await?;
    Ok(partitions)
}

/// Produces each line of an NDJSON file, gzipped or not, to the source topic, line n to partition n mod `partitions`.
/// Empty lines are left out. Gives the number of records.
///
/// # Errors
/// When the file cannot be read or a record not delivered.
pub(crate) fn produce_file(kafka: &KafkaConfig, topic: &str, partitions: u32, path: &Path) -> Result<u64> {
    let file = File::open(path).with_context(|| format!("cannot open the input {}", path.display()))?;
    let zipped = path.extension().is_some_and(|extension| extension == "gz");
    let reader: Box<dyn Read> = if zipped { Box::new(GzDecoder::new(file)) } else { Box::new(file) };
    let mut producer = Producer::open(kafka)?;
    let mut records = 0;
    for (line, number) in BufReader::with_capacity(1 << 16, reader).lines().zip(0u64..) {
        let line = line.with_context(|| format!("line {} of {}", number + 1, path.display()))?;
        if line.is_empty() {
            continue;
        }
        let partition = Partition(u32::try_from(number % u64::from(partitions.max(1)))?);
        producer.send(topic, partition, None, Some(line.as_bytes()), &[], None)?;
        records += 1;
    }
    producer.flush(FLUSH)?;
    Ok(records)
}

/// Writes every final result to `path`, a line each: of each (key, window) the highest revision, or the value of each reordered
/// record, in the order of the topic.
///
/// # Errors
/// When the topic cannot be read or the file not written.
pub(crate) fn write_results(kafka: &KafkaConfig, job: &Job, path: &Path) -> Result<u64> {
    let mut latest: std::collections::HashMap<(Vec<u8>, i64), (u64, usize)> =
        std::collections::HashMap::new();
    let mut lines: Vec<Option<Vec<u8>>> = Vec::new();
    read_all(kafka, &job.sink.topic, |record| {
        let Some(value) = record.value() else { return Ok(()) };
        if job.core.operator.buffers_records() {
            lines.push(Some(value.to_vec()));
            return Ok(());
        }
        let parsed: serde_json::Value = serde_json::from_slice(value).context("a result is not JSON")?;
        let number = |name: &str| parsed.get(name).and_then(serde_json::Value::as_i64);
        let (Some(end), Some(revision)) = (number("window_end"), number("revision")) else {
            bail!("a result without window_end or revision");
        };
        let revision = u64::try_from(revision)?;
        let window = (record.key().unwrap_or_default().to_vec(), end);
        if let Some((known, line)) = latest.get(&window) {
            if *known > revision {
                return Ok(());
            }
            if let Some(line) = lines.get_mut(*line) {
                *line = None;
            }
        }
        latest.insert(window, (revision, lines.len()));
        lines.push(Some(value.to_vec()));
        Ok(())
    })?;
    let mut out = create(path)?;
    let mut written = 0;
    for line in lines.into_iter().flatten() {
        out.write_all(&line)?;
        out.write_all(b"\n")?;
        written += 1;
    }
    out.flush()?;
    Ok(written)
}

/// Writes every dead letter to `path`, a JSON object a line: key, value, timestamp (ms), headers as pairs in their order; bytes
/// as text.
///
/// # Errors
/// When the topic cannot be read or the file not written.
pub(crate) fn write_dead_letters(kafka: &KafkaConfig, job: &Job, path: &Path) -> Result<u64> {
    let mut out = create(path)?;
    let mut written = 0;
    let text = |bytes: Option<&[u8]>| bytes.map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    read_all(kafka, &job.dead_letter.topic, |record| {
        let headers: Vec<_> = record.headers().map(|(name, value)| (name.to_owned(), text(value))).collect();
        let timestamp = match record.timestamp() {
            Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => Some(time.millis()),
            Timestamp::NotAvailable => None,
        };
        let line = serde_json::json!({
            "key": text(record.key()),
            "value": text(record.value()),
            "timestamp": timestamp,
            "headers": headers,
        });
        writeln!(out, "{line}")?;
        written += 1;
        Ok(())
    })?;
    out.flush()?;
    Ok(written)
}

fn create(path: &Path) -> Result<std::io::BufWriter<File>> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(std::io::BufWriter::new(file))
}
