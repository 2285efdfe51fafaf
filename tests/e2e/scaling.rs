//! What the controller of a StatefulSet does to workers, with real processes on Apache Kafka under load: ordinals, stable names,
//! addresses and disks, one after the other, SIGTERM and a grace period. Nothing is lost, nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};
use tidegate_proto::v1;
use tidegate_tests::clients;
use tidegate_tests::{ApacheKafka, apache_kafka, free_port};

use crate::{job, services::Services};

const SHARDS: u32 = 16;
const PARTITIONS: i32 = 4;
const WINDOW_MS: i64 = 1_000;
/// `watermark.delay`
const DELAY_MS: i64 = 500;
/// `terminationGracePeriodSeconds` of the manifests: then a pod is killed.
const GRACE: Duration = Duration::from_secs(30);

fn job(name: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 500ms, idle_timeout: 1s, on_quiet: finish }}
window: {{ tumbling: {{ size: 1s }} }}
aggregates: [{{ name: n, fn: count }}]
state: {{ shards: {SHARDS} }}"
    );
    job::text(name, &sections)
}

/// The workers, as their controller sees them.
struct StatefulSet {
    services: Services,
    ports: Vec<u16>,
    replicas: usize,
}

impl StatefulSet {
    fn new(services: Services, most: usize) -> Self {
        let ports = (0..most).map(|_| free_port().unwrap()).collect();
        Self { services, ports, replicas: 0 }
    }

    fn name(ordinal: usize) -> String {
        format!("window-worker-{ordinal}")
    }

    /// Ordinals come from the lowest up and go from the highest down; gives the time until the shards are in balance.
    fn scale(&mut self, replicas: usize) -> Duration {
        let begun = Instant::now();
        for ordinal in self.replicas..replicas {
            let address = format!("127.0.0.1:{}", self.ports[ordinal]);
            self.services.start_with(&Self::name(ordinal), &["--listen", &address, "--advertise", &address]);
        }
        for ordinal in (replicas..self.replicas).rev() {
            let name = Self::name(ordinal);
            let asked = Instant::now();
            self.services.terminate(&name);
            assert_eq!(self.services.ended(&name), Some(0), "{}", self.services.log(&name));
            assert!(asked.elapsed() < GRACE, "{name} took {:?}", asked.elapsed());
        }
        self.replicas = replicas;
        self.services.until(&format!("balance over {replicas} workers"), |status| balanced(status, replicas));
        begun.elapsed()
    }

    /// Each shard and its owner.
    fn owners(&mut self) -> BTreeSet<(u32, String)> {
        self.services.until("owners", |status| {
            Some(status.owners.iter().map(|owner| (owner.shard, owner.worker.clone())).collect())
        })
    }

    /// The disk of an ordinal that does not run is lost, and it had one.
    fn lose_disk(&self, ordinal: usize) {
        fs::remove_dir_all(self.services.state_of(&Self::name(ordinal))).unwrap();
    }

    fn keeps_disk(&self, ordinal: usize) -> bool {
        self.services.state_of(&Self::name(ordinal)).exists()
    }
}

/// Every shard is owned by a worker that says so, and no worker has two more than another.
fn balanced(status: &v1::JobStatus, replicas: usize) -> Option<()> {
    let mut owned: BTreeMap<&str, BTreeSet<u32>> = BTreeMap::new();
    for owner in &status.owners {
        owned.entry(&owner.worker).or_default().insert(owner.shard);
    }
    let live: BTreeMap<&str, BTreeSet<u32>> = status
        .workers
        .iter()
        .filter(|worker| worker.state == "live")
        .filter_map(|worker| Some((worker.name.as_str(), worker.stats.as_ref()?)))
        .map(|(name, stats)| (name, stats.shards.iter().map(|shard| shard.shard).collect()))
        .collect();
    let counts: Vec<usize> = owned.values().map(BTreeSet::len).collect();
    let all = counts.iter().sum::<usize>() == SHARDS as usize;
    let even = counts.iter().max()? - counts.iter().min()? <= 1;
    (owned.len() == replicas && all && even && owned == live).then_some(())
}

/// Records as they happen, so many a second, until told to stop; gives how many there were.
fn load(producer: &BaseProducer, topic: &str, rate: u64, stop: &AtomicBool) -> u64 {
    const TICK: Duration = Duration::from_millis(10);
    let begun = Instant::now();
    let mut sent = 0_u64;
    while !stop.load(Ordering::Relaxed) {
        let due = u64::try_from(begun.elapsed().as_millis()).unwrap() * rate / 1_000;
        let now = SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
        for number in sent..due {
            let value = format!("{{\"user\":\"u{}\",\"ts\":{now}}}", number % 997);
            let partition = i32::try_from(number % 4).unwrap();
            let mut record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&value);
            while let Err((error, again)) = producer.send(record) {
                assert_eq!(error.rdkafka_error_code(), Some(rdkafka::types::RDKafkaErrorCode::QueueFull));
                producer.poll(Duration::from_millis(10));
                record = again;
            }
        }
        sent = due.max(sent);
        producer.poll(TICK);
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    sent
}

/// A result that a `read_committed` reader got.
#[derive(Clone, Copy)]
struct Seen {
    shard: u32,
    /// When, ms since the epoch.
    at: i64,
    /// How long after the last record that its window needed.
    delay: i64,
}

fn now() -> i64 {
    i64::try_from(SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis()).unwrap()
}

/// Reads results as they become visible, until told to stop. A window needs, on each partition, the first record with its end
/// and the delay as event time, which is when the record is sent: the load's tick of 10 ms counts too.
fn watch(bootstrap: &str, topic: &str, stop: &AtomicBool) -> Vec<Seen> {
    let shards = i32::try_from(SHARDS).unwrap();
    clients::await_partitions(bootstrap, topic, shards).unwrap();
    let consumer = clients::consumer(bootstrap, clients::Isolation::ReadCommitted).unwrap();
    let mut all = TopicPartitionList::new();
    for shard in 0..shards {
        all.add_partition_offset(topic, shard, Offset::Beginning).unwrap();
    }
    consumer.assign(&all).unwrap();
    let mut seen = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(20)) else { continue };
        let at = now();
        let result: serde_json::Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
        let end = result["window_end"].as_i64().unwrap();
        // Each shard writes to its own partition.
        let shard = u32::try_from(record.partition()).unwrap();
        seen.push(Seen { shard, at, delay: at - end - DELAY_MS });
    }
    seen
}

/// How soon results could be read of shards that kept their owner, before a step and during it.
fn print_delays(seen: &[Seen], stayed: &BTreeSet<u32>, from: i64, begun: i64, until: i64) {
    let of = |shards: &dyn Fn(u32) -> bool, span: std::ops::Range<i64>| {
        let inside = seen.iter().filter(|result| shards(result.shard) && span.contains(&result.at));
        let mut delays: Vec<i64> = inside.map(|result| result.delay).collect();
        delays.sort_unstable();
        let at = |percent: usize| delays.get((delays.len() * percent / 100).min(delays.len().max(1) - 1));
        format!("p50 {:?} p99 {:?} ms of {} results", at(50), at(99), delays.len())
    };
    let (stays, moves) = (|shard: u32| stayed.contains(&shard), |shard: u32| !stayed.contains(&shard));
    println!("visible before, shards that stay: {}", of(&stays, from..begun));
    println!("visible during, shards that stay: {}", of(&stays, begun..until));
    println!("visible during, shards that move: {}", of(&moves, begun..until));
}

/// 2 → 5 → 3 → 5 workers under load, after so long with two; gives what each step took.
fn scaled(kafka: &ApacheKafka, rate: u64, before: Duration) -> Vec<(usize, Duration)> {
    let bootstrap = kafka.bootstrap();
    let (name, topic) = job::new_source(bootstrap, "scaling", PARTITIONS);
    let mut services = Services::new(bootstrap, &job(&name));
    services.start("watermark-coordinator");
    services.start("ingest");
    let mut set = StatefulSet::new(services, 5);
    let mut steps = Vec::new();
    let producer: BaseProducer = clients::client_config(bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "5")
        .set("queue.buffering.max.messages", "200000")
        .create()
        .unwrap();
    let stop = AtomicBool::new(false);
    let results = format!("{name}-out");
    let sent = thread::scope(|scope| {
        let load = scope.spawn(|| load(&producer, &topic, rate, &stop));
        let watch = scope.spawn(|| watch(bootstrap, &results, &stop));
        // Whatever fails below, the load is to end.
        let ended = Stop(&stop);
        set.scale(2);
        set.services.until("records under way", |status| {
            let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
            (stats.map(|stats| stats.results_final).sum::<u64>() > 0).then_some(())
        });
        // What the start itself costs is not to count as before.
        thread::sleep(before / 4);
        let from = now();
        thread::sleep(before);
        let (owned, begun) = (set.owners(), now());
        steps.push((5, set.scale(5)));
        // The windows that were open in the last move come out too.
        thread::sleep(Duration::from_millis(2 * 1_000));
        let (stayed, until) = (set.owners().intersection(&owned).map(|(shard, _)| *shard).collect(), now());
        steps.push((3, set.scale(3)));
        assert!(set.keeps_disk(3));
        set.lose_disk(4);
        steps.push((5, set.scale(5)));
        drop(ended);
        print_delays(&watch.join().unwrap(), &stayed, from, begun, until);
        load.join().unwrap()
    });
    let watermark = set.services.until_covered(sent, WINDOW_MS);
    let verdict = set.services.verify(watermark);
    assert!(verdict.contains("mismatches=0") && verdict.contains(&format!("records={sent} ")), "{verdict}");
    for (replicas, took) in &steps {
        println!("{replicas} workers: balanced after {:.1} s at {rate} records a second", took.as_secs_f64());
    }
    println!("{verdict}");
    steps
}

struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn workers_are_scaled_up_and_down_under_load_as_a_stateful_set_is_and_nothing_is_lost() {
    let Some(kafka) = apache_kafka() else { return };
    scaled(kafka, 2_000, Duration::ZERO);
}

#[test]
#[ignore = "a figure, not a test: cargo test -p tidegate-tests --test e2e measure_scaling -- --ignored --nocapture"]
fn measure_scaling_at_fifty_thousand_records_a_second() {
    let Some(kafka) = apache_kafka() else { return };
    scaled(kafka, 50_000, Duration::from_secs(20));
}
