//! How fast and how cheaply a [`GroupReader`] reads: records, seconds, CPU-seconds per million records.
//!
//! ```text
//! cargo run --release -p tidegate-kafka --example read_rate -- BROKERS [RECORDS [BYTES [PARTITIONS]]]
//! ```
//!
//! Fills a topic of its own first, in the same process but before the clocks start; deletes it afterwards. CPU is what the
//! kernel counted for this process (`/proc/self/stat`), librdkafka's threads included.

use std::error::Error;
use std::time::{Duration, Instant};

use tidegate_core::time::{EventTime, Offset, Partition};
use tidegate_kafka::{Admin, GroupReader, KafkaConfig, NewTopic, Producer, ReaderEvent, ReaderOptions};

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().ok_or("usage: read_rate BROKERS [RECORDS [BYTES [PARTITIONS]]]")?;
    let records: u64 = arguments.next().map_or(Ok(5_000_000), |text| text.parse())?;
    let bytes: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let partitions: u32 = arguments.next().map_or(Ok(10), |text| text.parse())?;
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(measure(
        &KafkaConfig::new(brokers, "read-rate"),
        records,
        bytes,
        partitions,
    ))
}

async fn measure(
    config: &KafkaConfig,
    records: u64,
    bytes: usize,
    partitions: u32,
) -> Result<(), Box<dyn Error>> {
    let admin = Admin::open(config)?;
    let name = format!("read-rate-{}", std::process::id());
    // The records are dated 2023: without this the broker deletes them for their age while they are read.
    let configs = [("retention.ms".to_owned(), "-1".to_owned())].into();
    let topic = NewTopic { name, partitions, replication: None, configs };
    admin.create(&topic).await?;
    let mut producer = Producer::open(config)?;
    let value = vec![b'v'; bytes];
    for number in 0..records {
        let partition = Partition(u32::try_from(number % u64::from(partitions))?);
        let time = EventTime(1_700_000_000_000 + i64::try_from(number)?);
        producer.send(&topic.name, partition, None, Some(&value), &[], Some(time))?;
    }
    producer.flush(Duration::from_secs(60))?;
    drop(producer);

    #[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    let started = Instant::now();
    let cpu = cpu_seconds()?;
    let mut reader = GroupReader::join(config, &topic.name, &topic.name, ReaderOptions::default())?;
    let (mut seen, mut size, mut batches) = (0_u64, 0_usize, 0_u64);
    while seen < records {
        match reader.next().await {
            Some(ReaderEvent::Assigned { partitions, .. }) => {
                for partition in partitions {
                    reader.control().start(partition, Offset(0));
                }
            }
            Some(ReaderEvent::Batch(batch)) => {
                batches += 1;
                for run in batch.runs() {
                    for record in run.records() {
                        seen += 1;
                        size +=
                            record.value().map_or(0, <[u8]>::len) + usize::from(record.offset() == Offset(0));
                    }
                }
            }
            Some(ReaderEvent::Failed(error)) => return Err(error.into()),
            Some(_) => {}
            None => return Err("the reader ended".into()),
        }
    }
    let (wall, cpu) = (started.elapsed().as_secs_f64(), cpu_seconds()? - cpu);
    #[allow(clippy::cast_precision_loss, reason = "for display")]
    let millions = seen as f64 / 1e6;
    println!(
        "records={seen} bytes={size} batches={batches} wall_s={wall:.2} records_per_s={:.0} cpu_s={cpu:.2} cpu_s_per_million={:.3}",
        millions * 1e6 / wall,
        cpu / millions,
    );
    reader.close().await;
    admin.delete(&topic.name).await?;
    Ok(())
}

/// User and system time of this process. The kernel counts in hundredths.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("an odd /proc/self/stat")?.1;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
