//! State larger than memory: far more open rows than `state.memory` holds, with workers killed and disks lost in between.

use std::{
    fs,
    ops::Range,
    thread,
    time::{Duration, Instant},
};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use tidegate_tests::clients;

use crate::{job, services::Services};

const WINDOW_MS: i64 = 60_000;
const KEYS: i64 = 40_000;

/// A window of a minute, or for each key a session, which has ended when that window has.
const TUMBLING: &str = "tumbling: { size: 60s }";
const SESSION: &str = "session: { gap: 10s }";

fn job_with(name: &str, window: &str, state: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 100ms, idle_timeout: 500ms, on_quiet: hold }}
window: {{ {window} }}
allowed_lateness: 1s
aggregates:
  - {{ name: n, fn: count }}
  - {{ name: sum, fn: sum, field: /v, scale: 0 }}
state: {{ {state} }}"
    );
    job::text(name, &sections)
}

/// Sends a record for each of the keys, all in one window.
fn send(producer: &BaseProducer, topic: &str, round: i64, window: i64) {
    send_keys(producer, topic, round, window, 0..KEYS);
}

fn send_keys(producer: &BaseProducer, topic: &str, round: i64, window: i64, keys: Range<i64>) {
    for key in keys {
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
    covered_by(services, records, 4);
}

fn covered_by(services: &mut Services, records: i64, shards_owned: usize) {
    services.until(&format!("{records} records"), |status| {
        let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
        let shards: Vec<_> = stats.flat_map(|stats| &stats.shards).collect();
        let sum: u64 = shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
        (shards.len() == shards_owned && sum == u64::try_from(records).unwrap()).then_some(())
    });
}

fn spilled(services: &Services, worker: &str) -> f64 {
    let text = services.metrics(worker);
    let line = text.lines().find_map(|line| line.strip_prefix("tidegate_worker_spilled_bytes"));
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok()).unwrap_or_else(|| panic!("{text}"))
}

/// Rounds over all keys in one window; between them what `disturb` does. Then the window ends.
fn rounds(stem: &str, window: &str, workers: &[&str], disturb: impl Fn(&mut Services, usize)) {
    if let Some(broker) = tidegate_tests::apache_kafka() {
        rounds_on(broker.bootstrap(), stem, window, workers, disturb);
    }
}

fn rounds_on(
    bootstrap: &str,
    stem: &str,
    window: &str,
    workers: &[&str],
    disturb: impl Fn(&mut Services, usize),
) {
    let (name, topic) = job::new_source(bootstrap, stem, 2);
    let mut services = Services::new(bootstrap, &job_with(&name, window, "shards: 4, memory: 1MiB"));
    services.start("watermark-coordinator");
    services.start("ingest");
    workers.iter().for_each(|worker| services.start(worker));
    let producer: BaseProducer =
        clients::client_config(bootstrap).set("enable.idempotence", "true").create().unwrap();
    for round in 0..3 {
        send(&producer, &topic, i64::try_from(round).unwrap(), 0);
        covered(&mut services, (i64::try_from(round).unwrap() + 1) * KEYS);
        let bytes: f64 = workers.iter().map(|worker| spilled(&services, worker)).sum();
        assert!(bytes > 300_000.0, "{bytes} bytes of {KEYS} keys left memory in round {round}");
        disturb(&mut services, round);
    }
    // The window ends, and the next is as large.
    send(&producer, &topic, 0, 2);
    covered(&mut services, 4 * KEYS);
    verify(&mut services, KEYS);
}

/// Waits until the first window is out, and compares it with the batch answer.
fn verify(services: &mut Services, keys: i64) {
    let watermark = services.until("the window's results", |status| {
        let watermark =
            status.announcement.as_ref()?.watermark_ms.filter(|watermark| *watermark > WINDOW_MS)?;
        let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
        let mut shards = stats.clone().flat_map(|stats| &stats.shards);
        let results: u64 = stats.clone().map(|stats| stats.results_final).sum();
        let all = results == u64::try_from(keys).unwrap();
        (all && shards.all(|shard| shard.watermark_ms == Some(watermark))).then_some(watermark)
    });
    let said = services.verify(watermark);
    assert!(said.contains(&format!("windows={keys} ")) && said.contains(" mismatches=0"), "{said}");
}

#[test]
fn one_worker_killed_while_most_of_its_state_is_in_its_store_goes_on_from_there() {
    rounds("spill-one", TUMBLING, &["window-worker"], |services, round| {
        services.kill("window-worker");
        if round == 1 {
            // Its disk is lost: all is built anew from the changelog, and spilled again.
            fs::remove_dir_all(services.state_of("window-worker")).unwrap();
        }
        services.start("window-worker");
    });
}

#[test]
fn sessions_go_on_from_the_store_and_from_the_changelog_on_both_brokers_with_most_of_them_beyond_memory() {
    let apache = tidegate_tests::apache_kafka();
    let brokers = [Some(tidegate_tests::dev_kafka().bootstrap()), apache.map(|broker| broker.bootstrap())];
    for bootstrap in brokers.into_iter().flatten() {
        rounds_on(bootstrap, "spill-sessions", SESSION, &["window-worker"], |services, round| {
            services.kill("window-worker");
            if round == 1 {
                fs::remove_dir_all(services.state_of("window-worker")).unwrap();
            }
            services.start("window-worker");
        });
    }
}

#[test]
fn two_workers_of_which_one_is_lost_with_its_disk_share_a_state_larger_than_memory() {
    rounds("spill-two", TUMBLING, &["window-worker", "window-worker-2"], |services, round| {
        if round != 1 {
            return;
        }
        services.kill("window-worker-2");
        fs::remove_dir_all(services.state_of("window-worker-2")).unwrap();
        services.start("window-worker-2");
    });
}

/// A job with one worker on Apache Kafka, for a measurement.
fn measured(stem: &str, window: &str, state: &str) -> Option<(Services, BaseProducer, String)> {
    let broker = tidegate_tests::apache_kafka()?;
    let bootstrap = broker.bootstrap();
    let (name, topic) = job::new_source(bootstrap, stem, 2);
    let mut services = Services::new(bootstrap, &job_with(&name, window, state));
    services.start_all();
    let producer: BaseProducer =
        clients::client_config(bootstrap).set("enable.idempotence", "true").create().unwrap();
    Some((services, producer, topic))
}

/// A measurement: `cargo test -p tidegate-tests --test e2e measure_five -- --ignored --nocapture`
#[test]
#[ignore = "a measurement of minutes"]
fn measure_five_million_keys_in_64_mib() {
    five_million(TUMBLING);
}

/// A measurement: `cargo test -p tidegate-tests --test e2e measure_five -- --ignored --nocapture`
#[test]
#[ignore = "a measurement of minutes"]
fn measure_five_million_sessions_in_64_mib() {
    five_million(SESSION);
}

fn five_million(window: &str) {
    const MILLION: i64 = 1_000_000;
    let state = "shards: 16, memory: 64MiB";
    let Some((mut services, producer, topic)) = measured("spill-large", window, state) else { return };
    let begun = Instant::now();
    for millions in 1..=5 {
        send_keys(&producer, &topic, 0, 0, (millions - 1) * MILLION..millions * MILLION);
        covered_by(&mut services, millions * MILLION, 16);
        println!(
            "spill: keys={millions}M seconds={:.1} resident_mib={} spilled_mib={:.1}",
            begun.elapsed().as_secs_f64(),
            services.resident_kib("window-worker") / 1024,
            spilled(&services, "window-worker") / 1_048_576.0
        );
    }
    // All at once, a second time: now with a backlog.
    let begun = Instant::now();
    send_keys(&producer, &topic, 1, 0, 0..5 * MILLION);
    println!("spill: second round sent in {:.1} s", begun.elapsed().as_secs_f64());
    covered_by(&mut services, 10 * MILLION, 16);
    println!(
        "spill: second round covered after {:.1} s, resident_mib={}",
        begun.elapsed().as_secs_f64(),
        services.resident_kib("window-worker") / 1024
    );
    let begun = Instant::now();
    send_keys(&producer, &topic, 0, 2, 0..1_000);
    verify(&mut services, 5 * MILLION);
    println!(
        "spill: window closed and verified after {:.1} s, resident_mib={}",
        begun.elapsed().as_secs_f64(),
        services.resident_kib("window-worker") / 1024
    );
}

/// A measurement: `cargo test -p tidegate-tests --test e2e measure_restore -- --ignored --nocapture`
#[test]
#[ignore = "a measurement of minutes"]
fn measure_restore_of_a_million_windows_in_one_shard() {
    const KEYS: i64 = 1_000_000;
    for memory in ["512MiB", "64MiB"] {
        let state = format!("shards: 1, memory: {memory}");
        let Some((mut services, producer, topic)) = measured("restore", TUMBLING, &state) else { return };
        send_keys(&producer, &topic, 0, 0, 0..KEYS);
        covered_by(&mut services, KEYS, 1);
        for from in ["changelog", "store"] {
            services.kill("window-worker");
            if from == "changelog" {
                fs::remove_dir_all(services.state_of("window-worker")).unwrap();
            }
            let before = services.log("window-worker").matches("took the shard over").count();
            services.start("window-worker");
            let line = loop {
                let log = services.log("window-worker");
                let line = log.lines().filter(|line| line.contains("took the shard over")).nth(before);
                if let Some((_, facts)) = line.and_then(|line| line.split_once("open_rows")) {
                    break format!("open_rows{facts}");
                }
                thread::sleep(Duration::from_millis(20));
            };
            println!("restore: windows={KEYS} memory={memory} from={from} {line}");
        }
    }
}
