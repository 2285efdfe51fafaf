//! State larger than memory: far more open rows than `state.memory` holds, with workers killed and disks lost in between.

use std::{fs, time::Duration};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidegate_tests::clients;

use crate::services::Services;

const WINDOW_MS: i64 = 60_000;
const KEYS: i64 = 40_000;

fn job(name: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {name}-in
  key: {{ field: /user }}
  event_time: [{{ field: /ts, unit: ms }}]
watermark: {{ delay: 100ms, idle_timeout: 500ms, on_quiet: hold }}
window: {{ tumbling: {{ size: {WINDOW_MS}ms }} }}
allowed_lateness: 1s
aggregates:
  - {{ name: n, fn: count }}
  - {{ name: sum, fn: sum, field: /v, scale: 0 }}
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead }}
state: {{ shards: 4, memory: 1MiB }}
"
    )
}

/// Sends a record for each of the keys, all in one window.
fn send(producer: &BaseProducer, topic: &str, round: i64, window: i64) {
    for key in 0..KEYS {
        let ts = window * WINDOW_MS + round;
        let value = format!("{{\"user\":\"user-{key}\",\"ts\":{ts},\"v\":{}}}", key + round);
        let partition = i32::try_from(key % 2).unwrap();
        loop {
            let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&value);
            match producer.send(record) {
                Ok(()) => break,
                // The queue of the client is full.
                Err(_) => producer.poll(Duration::from_millis(10)),
            };
        }
    }
    producer.flush(Duration::from_secs(60)).unwrap();
}

fn covered(services: &mut Services, records: i64) {
    services.until(&format!("{records} records"), |status| {
        let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
        let shards: Vec<_> = stats.flat_map(|stats| &stats.shards).collect();
        let sum: u64 = shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
        (shards.len() == 4 && sum == u64::try_from(records).unwrap()).then_some(())
    });
}

fn spilled(services: &Services, worker: &str) -> f64 {
    let text = services.metrics(worker);
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_worker_spilled_bytes"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Rounds over all keys in one window; between them what `disturb` does. Then the window ends.
fn rounds(stem: &str, workers: &[&str], disturb: impl Fn(&mut Services, usize)) {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let name = clients::unique(stem);
    let topic = format!("{name}-in");
    clients::create_topic_named(bootstrap, &topic, 2, &[]).unwrap();
    let mut services = Services::new(bootstrap, &job(&name));
    services.start("watermark-coordinator");
    services.start("ingest");
    workers.iter().for_each(|worker| services.start(worker));
    let producer: BaseProducer =
        clients::client_config(bootstrap).set("enable.idempotence", "true").create().unwrap();
    for round in 0..3 {
        send(&producer, &topic, i64::try_from(round).unwrap(), 0);
        covered(&mut services, (i64::try_from(round).unwrap() + 1) * KEYS);
        disturb(&mut services, round);
    }
    covered(&mut services, 3 * KEYS);
    let bytes: f64 = workers.iter().map(|worker| spilled(&services, worker)).sum();
    assert!(bytes > 400_000.0, "{bytes} bytes of three rounds over {KEYS} keys left memory");
    // The window ends, and the next is as large.
    send(&producer, &topic, 0, 2);
    covered(&mut services, 4 * KEYS);
    let watermark = services.until("the window's results", |status| {
        let watermark =
            status.announcement.as_ref()?.watermark_ms.filter(|watermark| *watermark > WINDOW_MS)?;
        let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
        let mut shards = stats.clone().flat_map(|stats| &stats.shards);
        let results: u64 = stats.clone().map(|stats| stats.results_final).sum();
        let all = results == u64::try_from(KEYS).unwrap();
        (all && shards.all(|shard| shard.watermark_ms == Some(watermark))).then_some(watermark)
    });
    let said = services.verify(watermark);
    assert!(said.contains(&format!("windows={KEYS} ")) && said.contains(" mismatches=0"), "{said}");
}

#[test]
fn one_worker_killed_while_most_of_its_state_is_in_its_store_goes_on_from_there() {
    rounds("spill-one", &["window-worker"], |services, round| {
        services.kill("window-worker");
        if round == 1 {
            // Its disk is lost: all is built anew from the changelog, and spilled again.
            fs::remove_dir_all(services.state_of("window-worker")).unwrap();
        }
        services.start("window-worker");
    });
}

#[test]
fn two_workers_of_which_one_is_lost_with_its_disk_share_a_state_larger_than_memory() {
    rounds("spill-two", &["window-worker", "window-worker-2"], |services, round| {
        if round != 1 {
            return;
        }
        services.kill("window-worker-2");
        fs::remove_dir_all(services.state_of("window-worker-2")).unwrap();
        services.start("window-worker-2");
    });
}
