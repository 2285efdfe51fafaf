//! What Kafka may do to running services, on Apache Kafka: outages, transactions in the source, a source that is lost.

use std::{thread, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    producer::{BaseProducer, BaseRecord, Producer},
};
use tidegate_tests::{ApacheKafka, clients};

use crate::services::Services;

pub const WINDOW_MS: i64 = 1_000;

fn job(name: &str, window: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {name}-in
  key: {{ field: /user }}
  event_time: [{{ field: /ts, unit: ms }}]
watermark: {{ delay: 100ms, idle_timeout: 500ms, on_quiet: finish }}
window: {{ tumbling: {{ size: {window} }} }}
aggregates:
  - {{ name: n, fn: count }}
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead }}
state: {{ shards: 4 }}
"
    )
}

/// A job with its source on the broker, and its services, not started.
pub fn services(bootstrap: &str, stem: &str, partitions: i32) -> (Services, String) {
    let name = clients::unique(stem);
    let topic = format!("{name}-in");
    clients::create_topic_named(bootstrap, &topic, partitions, &[]).unwrap();
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
