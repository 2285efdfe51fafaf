//! Whatever is slow, hot, wide or large: memory stays within what is configured, and something always moves.
//!
//! The backlogs are larger than what the services may hold together, but for the one of many partitions. The watchdog is in
//! [`Trial::until_done`].

use std::{
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    error::{KafkaError, RDKafkaErrorCode},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tidegate_devbroker::{ApiKey, Fault};
use tidegate_tests::{DevKafka, clients};

use crate::{dev::signal_to, job, services::Services};

const WINDOW_MS: i64 = 1_000;
/// With nothing new covered for so long, it does not go on by itself.
const STANDSTILL: Duration = Duration::from_secs(40);

/// What a process of ours is without any data: code, threads, a client for each shard.
const BASE_MIB: u64 = 64;
/// What the poll thread may have handed over, and the 16 MiB that librdkafka fetches ahead of that, with its own word on each
/// record, which small records make the larger part.
const READER_MIB: u64 = 32 + 6 * 16;
/// `--credit-mib`, of one worker.
const CREDIT_MIB: u64 = 2;
/// `state.memory` of the jobs here.
const STATE_MIB: u64 = 64;
/// Frames exist as rows, as columns and as messages: each byte of credit may be there so many times.
const FORMS: u64 = 3;
const INGEST_MIB: u64 = BASE_MIB + READER_MIB + FORMS * CREDIT_MIB;
const WORKER_MIB: u64 = BASE_MIB + STATE_MIB + FORMS * CREDIT_MIB;

fn job(name: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 100ms, idle_timeout: 1s, on_quiet: finish }}
window: {{ tumbling: {{ size: 1s }} }}
aggregates:
  - {{ name: n, fn: count }}
  - {{ name: most, fn: max, field: /ts }}
state: {{ shards: 4, memory: {STATE_MIB}MiB }}"
    );
    job::text(name, &sections)
}

/// A job whose source holds records before its services start.
struct Trial {
    services: Services,
    bootstrap: String,
    topic: String,
    records: u64,
}

impl Trial {
    fn new(bootstrap: &str, stem: &str, partitions: i32, settings: &[(&str, &str)]) -> Self {
        let name = clients::unique(stem);
        let topic = format!("{name}-in");
        clients::create_topic_named(bootstrap, &topic, partitions, settings).unwrap();
        let services = Services::new(bootstrap, &job(&name));
        Self { services, bootstrap: bootstrap.to_owned(), topic, records: 0 }
    }

    /// Puts records into partitions, in their order.
    fn fill(&mut self, records: impl Iterator<Item = (i32, String)>) {
        let mut config = clients::client_config(&self.bootstrap);
        config.set("enable.idempotence", "true").set("linger.ms", "5").set("message.max.bytes", "10000000");
        let producer: BaseProducer = config.create().unwrap();
        for (partition, value) in records {
            self.records += 1;
            let mut record = BaseRecord::<(), _>::to(&self.topic).partition(partition).payload(&value);
            while let Err((error, again)) = producer.send(record) {
                let full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
                assert_eq!(error, full);
                producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        producer.flush(Duration::from_secs(60)).unwrap();
    }

    fn start(&mut self) {
        self.services.start("watermark-coordinator");
        self.services.start_with("ingest", &["--credit-mib", &CREDIT_MIB.to_string()]);
        self.services.start("window-worker");
    }

    /// Waits until all has come out, and fails when nothing has moved for a while.
    fn until_done(&mut self) -> i64 {
        let (mut last, mut moved) = (0, Instant::now());
        let records = self.records;
        self.services.until(&format!("{records} records"), |status| {
            let stats: Vec<_> = status.workers.iter().filter_map(|worker| worker.stats.as_ref()).collect();
            let shards: Vec<_> = stats.iter().flat_map(|stats| &stats.shards).collect();
            let covered: u64 = shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
            if covered != last {
                (last, moved) = (covered, Instant::now());
            }
            assert!(
                moved.elapsed() < STANDSTILL,
                "nothing has moved for {STANDSTILL:?} at {last} of {records}: {status:#?}"
            );
            let watermark = status.announcement.as_ref()?.watermark_ms?;
            let latest =
                status.partitions.iter().filter_map(|partition| partition.max_event_time_ms).max()?;
            let closed = watermark >= latest + WINDOW_MS
                && shards.iter().all(|shard| shard.watermark_ms == Some(watermark));
            (covered == records && closed).then_some(watermark)
        })
    }

    /// Waits until all has come out; it has to be right, and no service may have had more memory than it is allowed.
    fn finish(mut self) -> String {
        let begun = Instant::now();
        let watermark = self.until_done();
        let bounds =
            [("ingest", INGEST_MIB), ("window-worker", WORKER_MIB), ("watermark-coordinator", BASE_MIB)];
        let most = bounds.map(|(name, bound)| (name, peak_mib(self.services.pid(name)), bound));
        println!("{} records in {:?}; most memory, MiB: {most:?}", self.records, begun.elapsed());
        for (name, peak, bound) in most {
            assert!(peak <= bound, "{name} has had {peak} MiB, may have {bound}");
        }
        let said = self.services.verify(watermark);
        assert!(
            said.contains(&format!("records={} ", self.records)) && said.contains("mismatches=0"),
            "{said}"
        );
        said
    }
}

/// The most memory that a process has had.
fn peak_mib(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse::<u64>().unwrap() / 1_024
}

/// Records over some users and partitions, each at its time and so large.
fn clicks(records: u64, users: u64, partitions: i32, bytes: usize) -> impl Iterator<Item = (i32, String)> {
    let pad = "x".repeat(bytes);
    let partitions = u64::try_from(partitions).unwrap();
    (0..records).map(move |at| {
        let user = at * 7 % users;
        let partition = i32::try_from(at % partitions).unwrap();
        (partition, format!("{{\"user\":\"user-{user}\",\"ts\":{},\"pad\":\"{pad}\"}}", at / 50))
    })
}

#[test]
fn a_slow_worker_slows_the_ingest_and_fills_no_memory() {
    let mut trial = Trial::new(tidegate_tests::dev_kafka().bootstrap(), "slow-worker", 4, &[]);
    trial.fill(clicks(450_000, 1_000, 4, 800));
    trial.start();
    let worker = trial.services.pid("window-worker");
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        // It runs a twentieth of the time.
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                signal_to(worker, "-STOP");
                thread::sleep(Duration::from_millis(190));
                signal_to(worker, "-CONT");
                thread::sleep(Duration::from_millis(10));
            }
        });
        let blocked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            trial.services.until("a partition that is blocked", |status| {
                status.partitions.iter().any(|partition| partition.state == "blocked").then_some(())
            });
        }));
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = blocked {
            std::panic::resume_unwind(panic);
        }
    });
    trial.finish();
}

#[test]
fn a_slow_broker_slows_everything_and_fills_no_memory() {
    let broker = DevKafka::start().unwrap();
    let mut trial = Trial::new(broker.bootstrap(), "slow-broker", 4, &[]);
    trial.fill(clicks(200_000, 20_000, 4, 1_700));
    for (api, millis) in [(ApiKey::Produce, 300), (ApiKey::EndTxn, 300), (ApiKey::Fetch, 50)] {
        broker.faults().always(api, Fault::Delay(Duration::from_millis(millis)));
    }
    trial.start();
    trial.services.until("half of it", |status| {
        let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
        (stats.map(|stats| stats.applied).sum::<u64>() > 100_000).then_some(())
    });
    broker.faults().clear_all();
    trial.finish();
}

#[test]
fn a_key_with_nine_records_in_ten_fills_no_memory() {
    let mut trial = Trial::new(tidegate_tests::dev_kafka().bootstrap(), "hot-key", 4, &[]);
    let hot = clicks(1_500_000, 5_000, 4, 170).enumerate().map(|(at, (partition, value))| {
        let of_it = at % 10 != 0;
        (partition, if of_it { value.replacen("user-", "hot\",\"was\":\"", 1) } else { value })
    });
    trial.fill(hot);
    trial.start();
    trial.finish();
}

#[test]
fn a_thousand_partitions_are_followed_each() {
    let mut trial = Trial::new(tidegate_tests::dev_kafka().bootstrap(), "wide", 1_000, &[]);
    trial.fill(clicks(200_000, 1_000, 1_000, 100));
    trial.start();
    trial.finish();
}

#[test]
fn records_of_five_megabytes_are_read_and_are_whole_dead_letters() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let mut trial = Trial::new(broker.bootstrap(), "large", 2, &[("max.message.bytes", "6000000")]);
    let large = clicks(80, 10, 2, 5_000_000).enumerate().map(|(at, (partition, value))| {
        // Without its time a record is no row: it travels whole.
        (partition, if at % 8 == 0 { value.replacen("\"ts\"", "\"no\"", 1) } else { value })
    });
    trial.fill(large);
    trial.start();
    let said = trial.finish();
    assert!(said.contains("dead_letters=10 "), "{said}");
}
