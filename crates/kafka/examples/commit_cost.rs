//! What transactions cost: time to commit, and CPU of this process for each.
//!
//! ```text
//! cargo run --release -p tidegate-kafka --example commit_cost -- BROKERS [PRODUCERS [RECORDS [COMMITS]]]
//! ```
//!
//! Each producer has a thread and commits once in 100 ms: RECORDS results of 200 bytes to one topic and one block of 4 KiB to
//! another, COMMITS times.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tidegate_core::time::Partition;
use tidegate_kafka::{
    Admin, KafkaConfig, NewTopic, Outcome, OutputRecord, TransactionOptions, TransactionalProducer,
};

const TICK: Duration = Duration::from_millis(100);

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let brokers = arguments.next().ok_or("usage: commit_cost BROKERS [PRODUCERS [RECORDS [COMMITS]]]")?;
    let producers: u32 = arguments.next().map_or(Ok(16), |text| text.parse())?;
    let records: usize = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let commits: u32 = arguments.next().map_or(Ok(100), |text| text.parse())?;
    let config = KafkaConfig::new(brokers, "commit-cost");

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let admin = Admin::open(&config)?;
    let topics = ["results", "blocks"].map(|stem| format!("commit-cost-{stem}-{}", std::process::id()));
    for name in &topics {
        let topic =
            NewTopic { name: name.clone(), partitions: producers, replication: None, configs: [].into() };
        runtime.block_on(admin.create(&topic))?;
    }
    let [results, blocks] = topics.each_ref().map(|name| Arc::<str>::from(name.as_str()));

    let mut opened = Vec::new();
    for number in 0..producers {
        let id = format!("{results}-{number}");
        let mut producer = TransactionalProducer::open(&config, &id, TransactionOptions::default())?;
        producer.init(Duration::from_secs(30))?;
        opened.push((number, producer));
    }
    let cpu = cpu_seconds()?;
    let threads: Vec<_> = opened
        .into_iter()
        .map(|(number, mut producer)| {
            let record = |topic: &Arc<str>, size: usize| OutputRecord {
                topic: Arc::clone(topic),
                partition: Partition(number),
                key: Some(Bytes::from_static(b"key")),
                value: Some(Bytes::from(vec![b'v'; size])),
                headers: Vec::new(),
                timestamp: None,
            };
            let mut output = vec![record(&results, 200); records];
            output.push(record(&blocks, 4096));
            std::thread::spawn(move || commit(&mut producer, &output, commits))
        })
        .collect();
    let mut times = Vec::new();
    for thread in threads {
        times.extend(thread.join().map_err(|_| "a producer panicked")??);
    }
    let cpu = cpu_seconds()? - cpu;
    times.sort();
    let at =
        |part: usize| times.get(times.len() * part / 100).copied().unwrap_or_default().as_secs_f64() * 1e3;
    let done = f64::from(producers * commits);
    println!(
        "producers={producers} commits={done} records_each={} p50_ms={:.1} p99_ms={:.1} cpu_ms_per_commit={:.2}",
        records + 1,
        at(50),
        at(99),
        cpu * 1e3 / done,
    );
    for name in &topics {
        runtime.block_on(admin.delete(name))?;
    }
    Ok(())
}

#[allow(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn commit(
    producer: &mut TransactionalProducer,
    output: &[OutputRecord],
    commits: u32,
) -> Result<Vec<Duration>, String> {
    let mut times = Vec::new();
    for _ in 0..commits {
        let started = Instant::now();
        match producer.commit(output) {
            Outcome::Committed { .. } => times.push(started.elapsed()),
            other => return Err(format!("{other:?}")),
        }
        std::thread::sleep(TICK.saturating_sub(started.elapsed()));
    }
    Ok(times)
}

/// User and system time of this process. The kernel counts in hundredths.
fn cpu_seconds() -> Result<f64, Box<dyn Error>> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').ok_or("an odd /proc/self/stat")?.1;
    let ticks: Vec<f64> =
        fields.split_whitespace().skip(11).take(2).map(str::parse).collect::<Result<_, _>>()?;
    Ok(ticks.iter().sum::<f64>() / 100.0)
}
