//! A backlog whose partitions begin hours apart, on Apache Kafka: how many windows are open at once, with and without `max_drift`.

use std::{thread, time::Duration};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidegate_tests::clients;

use crate::{job, services::Services};

const PARTITIONS: i32 = 4;
const RECORDS: i64 = 80_000;
const KEYS: i64 = 40;
const WINDOW_MS: i64 = 60_000;
const HOUR_MS: i64 = 3_600_000;
/// Each partition holds so much, and begins where the one before ends.
const SPAN_MS: i64 = 8 * HOUR_MS;
/// What is under way between Kafka and the tracker still comes after a pause: 32 MiB, and what is read until the pause is there.
/// The backlog is to be far more.
const PADDING: usize = 1_500;

fn job(name: &str, topic: &str, max_drift: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 1s, idle_timeout: 2s, on_quiet: finish{max_drift} }}
window: {{ tumbling: {{ size: {WINDOW_MS}ms }} }}
aggregates: [{{ name: n, fn: count }}]
state: {{ shards: 4 }}"
    );
    job::text_over(topic, name, &sections)
}

fn send_backlog(bootstrap: &str, topic: &str) {
    let mut config = clients::client_config(bootstrap);
    config.set("linger.ms", "50").set("batch.size", "1000000");
    let producer: BaseProducer = config.create().unwrap();
    let padding = "x".repeat(PADDING);
    for at in 0..RECORDS {
        for partition in 0..PARTITIONS {
            let ts = i64::from(partition) * SPAN_MS + at * (SPAN_MS / RECORDS);
            let value = format!("{{\"user\":\"u{}\",\"ts\":{ts},\"text\":\"{padding}\"}}", at % KEYS);
            loop {
                let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&value);
                match producer.send(record) {
                    Ok(()) => break,
                    // The queue of the client is full.
                    Err(_) => producer.poll(Duration::from_millis(10)),
                };
            }
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

fn gauge(services: &Services, service: &str, name: &str) -> i64 {
    let text = services.metrics(service);
    let line = text.lines().find(|line| line.starts_with(name));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// The most open rows that were seen while the backlog was read, and whether everything came out right.
fn peak_of(bootstrap: &str, topic: &str, max_drift: &str) -> i64 {
    let name = clients::unique("drifting");
    let mut services = Services::new(bootstrap, &job(&name, topic, max_drift));
    services.start("watermark-coordinator");
    services.start("window-worker");
    services.until_logged("window-worker", "serving metrics address=");
    services.until("the shards to be owned", |status| {
        status.shards.iter().all(|shard| shard.state == "owned").then_some(())
    });
    services.start("ingest");
    let records = RECORDS * i64::from(PARTITIONS);
    let mut peak = 0;
    while gauge(&services, "window-worker", "tidegate_worker_applied_total") < records {
        peak = peak.max(gauge(&services, "window-worker", "tidegate_worker_open_rows"));
        let dead = services.dead();
        assert!(dead.is_empty(), "{dead:?} ended: {}", services.log(&dead[0]));
        thread::sleep(Duration::from_millis(5));
    }
    let watermark = services.until_covered(u64::try_from(records).unwrap(), WINDOW_MS);
    let said = services.verify(watermark);
    assert!(said.contains("dead_letters=0 mismatches=0"), "{said}");
    peak
}

#[test]
fn a_bound_on_drift_bounds_the_open_windows_of_a_backlog() {
    let Some(kafka) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = kafka.bootstrap();
    let topic = clients::unique("drifting-in");
    clients::create_topic_named(bootstrap, &topic, PARTITIONS, &[]).unwrap();
    send_backlog(bootstrap, &topic);
    let bound = peak_of(bootstrap, &topic, ", max_drift: 30m");
    let free = peak_of(bootstrap, &topic, "");
    println!("drifting: peak of open rows {free} without a bound, {bound} with max_drift 30m");
    assert!(bound * 2 < free, "{bound} with a bound, {free} without");
}
