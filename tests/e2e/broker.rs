//! What Kafka may do to running services, on Apache Kafka: outages, transactions in the source, a source that is lost.

use std::{thread, time::Duration};

use rdkafka::{
    Message, Offset, TopicPartitionList,
    admin::{AlterConfig, ResourceSpecifier},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use tidegate_devbroker::{ApiKey, Fault};
use tidegate_tests::{
    ApacheKafka, DevKafka,
    clients::{self, Isolation},
};

use crate::{job, services::Services};

pub const WINDOW_MS: i64 = 1_000;

fn job(name: &str, window: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 100ms, idle_timeout: 500ms, on_quiet: finish }}
window: {{ tumbling: {{ size: {window} }} }}
aggregates: [{{ name: n, fn: count }}]
state: {{ shards: 4 }}"
    );
    job::text(name, &sections)
}

/// A job with its source on the broker, and its services, not started.
pub fn services(bootstrap: &str, stem: &str, partitions: i32) -> (Services, String) {
    let (name, topic) = job::new_source(bootstrap, stem, partitions);
    (Services::new(bootstrap, &job(&name, "1s")), topic)
}

fn transactional(bootstrap: &str, id: &str) -> BaseProducer {
    let mut config = clients::client_config(bootstrap);
    let producer: BaseProducer = config.set("transactional.id", id).create().unwrap();
    producer.init_transactions(clients::PATIENCE).unwrap();
    producer
}

/// Sends a record of each event time to a partition.
pub fn send(producer: &BaseProducer, topic: &str, partition: i32, times: impl IntoIterator<Item = i64>) {
    for time in times {
        let value = format!("{{\"user\":\"u{}\",\"ts\":{time}}}", time % 7);
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

/// Waits until there are so many results in a topic; gives them by start of window.
pub fn until_results(bootstrap: &str, topic: &str, partitions: i32, wanted: usize) -> Vec<Value> {
    // It is made by a service that may be starting.
    clients::await_partitions(bootstrap, topic, partitions).unwrap();
    for _ in 0..1_200 {
        let mut results = records_of(bootstrap, topic, partitions);
        if results.len() >= wanted {
            results.sort_by_key(|result| result["window_start"].as_i64());
            return results;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("there are never {wanted} results in {topic}");
}

pub fn plain(bootstrap: &str) -> BaseProducer {
    clients::client_config(bootstrap).set("enable.idempotence", "true").create().unwrap()
}

#[test]
fn a_broker_that_freezes_and_restarts_stops_nothing_and_is_complained_of_once() {
    if !ApacheKafka::can_run("the test of services over an outage") {
        return;
    }
    let mut broker = ApacheKafka::start().unwrap();
    let bootstrap = broker.bootstrap().to_owned();
    let (mut services, topic) = services(&bootstrap, "outage", 2);
    services.start_all();
    let producer = plain(&bootstrap);
    let mut sent = 0;
    let mut more = |services: &mut Services| {
        for partition in 0..2 {
            send(&producer, &topic, partition, sent..sent + 500);
        }
        sent += 500;
        services.until_covered(2 * u64::try_from(sent).unwrap(), WINDOW_MS)
    };
    more(&mut services);
    broker.freeze().unwrap();
    thread::sleep(Duration::from_secs(3));
    broker.resume().unwrap();
    more(&mut services);
    broker.stop().unwrap();
    thread::sleep(Duration::from_secs(3));
    broker.restart().unwrap();
    let watermark = more(&mut services);
    let said = services.verify(watermark);
    assert!(said.contains("records=3000") && said.contains("mismatches=0"), "{said}");
    for name in ["watermark-coordinator", "ingest", "window-worker"] {
        let log = services.log(name);
        let complaints = log.lines().filter(|line| line.contains(" librdkafka: ")).count();
        assert!(complaints <= 3, "{complaints} complaints of {name}:\n{log}");
    }
}

/// As librdkafka was seen once: the client is alive, and fetches no more.
#[test]
fn a_client_that_reads_nothing_although_records_wait_is_replaced() {
    let broker = DevKafka::start().unwrap();
    let (mut services, topic) = services(broker.bootstrap(), "standstill", 2);
    services.start_all();
    let producer = plain(broker.bootstrap());
    for partition in 0..2 {
        send(&producer, &topic, partition, 0..500);
    }
    services.until_covered(1_000, WINDOW_MS);
    // Longer than any patience: what is answered at last is of no use to anybody.
    broker.faults().always(ApiKey::Fetch, Fault::Delay(Duration::from_secs(600)));
    // Until no answer is under way that was asked for before: it would bring what is sent now.
    thread::sleep(Duration::from_secs(2));
    for partition in 0..2 {
        send(&producer, &topic, partition, 500..1_000);
    }
    services.until_logged("ingest", "the Kafka client reads nothing although records wait: it is replaced");
    broker.faults().clear(ApiKey::Fetch);
    let watermark = services.until_covered(2_000, WINDOW_MS);
    let said = services.verify(watermark);
    assert!(said.contains("records=2000") && said.contains("mismatches=0"), "{said}");
    assert!(services.metrics("ingest").contains("tidegate_ingest_replaced_clients_total{"));
}

#[test]
fn a_source_with_transactions_is_read_as_committed_and_an_open_one_holds_the_watermark() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let (mut services, topic) = services(bootstrap, "transactions", 2);
    let [writer, open] = ["writer", "open"].map(|id| transactional(bootstrap, &clients::unique(id)));
    writer.begin_transaction().unwrap();
    send(&writer, &topic, 0, 0..100);
    send(&writer, &topic, 1, 0..100);
    writer.commit_transaction(clients::PATIENCE).unwrap();
    writer.begin_transaction().unwrap();
    send(&writer, &topic, 0, 100..200);
    writer.abort_transaction(clients::PATIENCE).unwrap();
    open.begin_transaction().unwrap();
    send(&open, &topic, 1, 1_000..1_100);
    writer.begin_transaction().unwrap();
    send(&writer, &topic, 0, 9_000..9_100);
    send(&writer, &topic, 1, 2_000..2_100);
    writer.commit_transaction(clients::PATIENCE).unwrap();

    services.start_all();
    // Behind the open transaction lie records that were committed: they wait too.
    services.until("partition 0 idle at its end, partition 1 lagging", |status| {
        let [first, second] = &status.partitions[..] else { return None };
        (first.state == "idle" && second.state == "lagging" && second.position < 201).then_some(())
    });
    let watermark = services.until("a watermark", |status| status.announcement.as_ref()?.watermark_ms);
    assert!(watermark < 1_000, "{watermark} passes the open transaction");
    open.commit_transaction(clients::PATIENCE).unwrap();
    let watermark = services.until_covered(500, WINDOW_MS);
    let said = services.verify(watermark);
    assert!(said.contains("records=500") && said.contains("dead_letters=0"), "{said}");

    // The last thing in a partition may be what was aborted.
    writer.begin_transaction().unwrap();
    send(&writer, &topic, 0, 20_000..20_100);
    writer.abort_transaction(clients::PATIENCE).unwrap();
    services.until("both idle again", |status| {
        status
            .partitions
            .iter()
            .all(|partition| partition.state == "idle" && partition.lag == 0)
            .then_some(())
    });
    services.until_covered(500, WINDOW_MS);
}

#[test]
fn a_source_that_is_created_anew_ends_ingest_and_coordinator() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let (mut services, topic) = services(bootstrap, "anew", 1);
    send(&plain(bootstrap), &topic, 0, 0..3);
    services.start_all();
    services.until_covered(3, WINDOW_MS);
    let admin = clients::admin(bootstrap).unwrap();
    clients::wait(admin.delete_topics(&[&topic], &clients::admin_options())).unwrap().unwrap();
    let created = || clients::create_topic_named(bootstrap, &topic, 1, &[]);
    while created().is_err() {
        thread::sleep(Duration::from_millis(20));
    }
    // Its log may be shorter than the positions or not: both are another topic.
    for name in ["ingest", "watermark-coordinator"] {
        assert_eq!(services.ended(name), Some(1));
        let log = services.log(name);
        assert!(log.contains(&format!("`{topic}`")) && log.contains("give the job another name"), "{log}");
    }
    let log = services.log("ingest");
    assert!(log.contains("partition 0") && log.contains(" 3"), "{log}");
    // Neither comes back over it.
    send(&plain(bootstrap), &topic, 0, 0..10);
    services.start("watermark-coordinator");
    assert_eq!(services.ended("watermark-coordinator"), Some(1));
    let log = services.log("watermark-coordinator");
    assert!(log.contains("was deleted and created anew"), "{log}");
}

#[test]
fn a_source_truncated_below_a_position_ends_ingest_with_what_the_log_holds() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let (mut services, topic) = services(bootstrap, "truncated", 1);
    send(&plain(bootstrap), &topic, 0, 0..10);
    services.start_all();
    services.until_covered(10, WINDOW_MS);
    services.stop("ingest");
    send(&plain(bootstrap), &topic, 0, 5_000..5_020);
    let admin = clients::admin(bootstrap).unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(15)).unwrap();
    clients::wait(admin.delete_records(&before, &clients::admin_options())).unwrap().unwrap();
    services.start("ingest");
    assert_eq!(services.ended("ingest"), Some(1));
    let log = services.log("ingest");
    let expected =
        format!("topic `{topic}` partition 0: offset 10 is not in the log, which holds 15 to 30: records");
    assert!(log.contains(&expected), "{log}");
    services.until("nothing of it", |status| {
        let applied =
            status.workers.iter().filter_map(|worker| worker.stats.as_ref()).map(|stats| stats.applied);
        (applied.sum::<u64>() == 10).then_some(())
    });
}

#[test]
fn with_skip_reading_goes_on_behind_what_was_deleted_and_counts_it() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let (mut services, topic) = services(bootstrap, "skipped", 2);
    let text =
        job(topic.trim_end_matches("-in"), "1s").replace("source:\n", "source:\n  on_data_loss: skip\n");
    services.set_job(&text);
    let producer = plain(bootstrap);
    (0..2).for_each(|partition| send(&producer, &topic, partition, 0..10));
    services.start_all();
    services.until_covered(20, WINDOW_MS);
    services.stop("ingest");
    // Partition 0 loses some of what is not read yet, partition 1 all of it: its log is empty behind the deleted records.
    (0..2).for_each(|partition| send(&producer, &topic, partition, 5_000..5_020));
    let admin = clients::admin(bootstrap).unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic, 0, Offset::Offset(15)).unwrap();
    before.add_partition_offset(&topic, 1, Offset::Offset(30)).unwrap();
    clients::wait(admin.delete_records(&before, &clients::admin_options())).unwrap().unwrap();
    services.start("ingest");
    services.until_covered(20 + 15, WINDOW_MS);
    send(&producer, &topic, 1, 9_000..9_010);
    services.until_covered(20 + 15 + 10, WINDOW_MS);
    let skipped =
        services.until("the count", |status| (status.offsets_skipped > 0).then_some(status.offsets_skipped));
    assert_eq!(skipped, 5 + 20);
    let log = services.log("ingest");
    let said = log.lines().filter(|line| line.contains("deleted before they were read"));
    assert_eq!(said.count(), 2, "{log}");
    // The answer is that of the records that were there to be read: none of 5000 to 5004 in partition 0, none in 1.
    let results = records_of(bootstrap, &topic.replace("-in", "-out"), 4);
    let count = |window: i64| -> i64 {
        let of_window = results.iter().filter(|result| result["window_start"] == window);
        of_window.map(|result| result["n"].as_i64().unwrap()).sum()
    };
    assert_eq!([count(0), count(5_000), count(9_000)], [20, 15, 10]);
}

#[test]
fn a_compacted_source_is_read_as_what_is_left_of_it() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let name = clients::unique("compacted");
    let topic = format!("{name}-in");
    let settings =
        [("cleanup.policy", "compact"), ("min.cleanable.dirty.ratio", "0.01"), ("segment.ms", "200")];
    clients::create_topic_named(bootstrap, &topic, 2, &settings).unwrap();
    let producer = plain(bootstrap);
    let send_keyed = |times: std::ops::Range<i64>| {
        for (time, partition) in times.flat_map(|time| [(time, 0), (time, 1)]) {
            let value = format!("{{\"user\":\"u{}\",\"ts\":{time}}}", time % 7);
            let key = format!("k{}", time % 50);
            let record = BaseRecord::to(&topic).partition(partition).key(&key).payload(&value);
            producer.send(record).map_err(|(error, _)| error).unwrap();
        }
        producer.flush(clients::PATIENCE).unwrap();
    };
    let left = || records_of(bootstrap, &topic, 2).len();
    send_keyed(0..5_000);
    let mut sent = 5_000;
    let begun = std::time::Instant::now();
    while left() > 1_000 {
        assert!(begun.elapsed() < clients::PATIENCE * 4, "{} of {} records are left", left(), 2 * sent);
        // The segment that is written to is not compacted: a later record closes it.
        send_keyed(sent..sent + 1);
        sent += 1;
        thread::sleep(Duration::from_millis(200));
    }
    // What is left stays.
    let keep = AlterConfig::new(ResourceSpecifier::Topic(&topic))
        .set("cleanup.policy", "delete")
        .set("retention.ms", "-1");
    let admin = clients::admin(bootstrap).unwrap();
    clients::wait(admin.alter_configs(&[keep], &clients::admin_options()))
        .unwrap()
        .unwrap()
        .remove(0)
        .unwrap();

    let left = u64::try_from(left()).unwrap();
    let mut services = Services::new(bootstrap, &job(&name, "1s"));
    services.start_all();
    let watermark = services.until_covered(left, WINDOW_MS);
    let said = services.verify(watermark);
    assert!(said.contains(&format!("records={left}")) && said.contains("mismatches=0"), "{said}");
    services.until("positions behind the gaps", |status| {
        let at_end = |position: u64| position == u64::try_from(sent).unwrap();
        status
            .partitions
            .iter()
            .all(|partition| at_end(partition.position) && partition.lag == 0)
            .then_some(())
    });
}

/// The values of a topic as JSON.
fn records_of(bootstrap: &str, topic: &str, partitions: i32) -> Vec<Value> {
    let read = |partition| {
        clients::read_to_end(bootstrap, topic, partition, Offset::Beginning, Isolation::ReadCommitted)
            .unwrap()
    };
    let records = (0..partitions).flat_map(read);
    records.map(|record| serde_json::from_slice(record.payload().unwrap_or_default()).unwrap()).collect()
}

#[test]
fn a_worker_with_another_job_file_says_so_once() {
    let bootstrap = tidegate_tests::dev_kafka().bootstrap();
    let (mut services, topic) = services(bootstrap, "differs", 1);
    services.start("watermark-coordinator");
    services.until("a coordinator", |_| Some(()));
    services.set_job(&job(topic.trim_end_matches("-in"), "2s"));
    services.start("window-worker");
    assert_eq!(services.ended("window-worker"), Some(1));
    let log = services.log("window-worker");
    let errors: Vec<_> = log.lines().filter(|line| line.contains("ERROR")).collect();
    assert!(errors.len() == 1 && errors[0].contains("fingerprint"), "{log}");
}
