//! What the controller of a StatefulSet does to workers, with real processes on Apache Kafka under load: ordinals, stable names,
//! addresses and disks, one after the other, SIGTERM and a grace period. Nothing is lost, nothing comes twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidegate_proto::v1;
use tidegate_tests::clients::{self, unique};
use tidegate_tests::{ApacheKafka, apache_kafka, free_port};

use crate::services::Services;

const SHARDS: u32 = 16;
const PARTITIONS: i32 = 4;
const WINDOW_MS: i64 = 1_000;
/// `terminationGracePeriodSeconds` of the manifests: then a pod is killed.
const GRACE: Duration = Duration::from_secs(30);

fn job(name: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {name}-in
  key: {{ field: /user }}
  event_time: [{{ field: /ts, unit: ms }}]
watermark: {{ delay: 500ms, idle_timeout: 1s, on_quiet: finish }}
window: {{ tumbling: {{ size: 1s }} }}
aggregates:
  - {{ name: n, fn: count }}
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead }}
state: {{ shards: {SHARDS} }}
"
    )
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

/// 2 → 5 → 3 → 5 workers under load; gives what each step took.
fn scaled(kafka: &ApacheKafka, rate: u64) -> Vec<(usize, Duration)> {
    let bootstrap = kafka.bootstrap();
    let name = unique("scaling");
    let topic = format!("{name}-in");
    clients::create_topic_named(bootstrap, &topic, PARTITIONS, &[]).unwrap();
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
    let sent = thread::scope(|scope| {
        let load = scope.spawn(|| load(&producer, &topic, rate, &stop));
        // Whatever fails below, the load is to end.
        let ended = Stop(&stop);
        set.scale(2);
        set.services.until("records under way", |status| {
            let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
            (stats.map(|stats| stats.results_final).sum::<u64>() > 0).then_some(())
        });
        for replicas in [5, 3] {
            steps.push((replicas, set.scale(replicas)));
        }
        assert!(set.keeps_disk(3));
        set.lose_disk(4);
        steps.push((5, set.scale(5)));
        drop(ended);
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
    scaled(kafka, 2_000);
}

#[test]
#[ignore = "a figure, not a test: cargo test -p tidegate-tests --test e2e measure_scaling -- --ignored --nocapture"]
fn measure_scaling_at_fifty_thousand_records_a_second() {
    let Some(kafka) = apache_kafka() else { return };
    scaled(kafka, 50_000);
}
