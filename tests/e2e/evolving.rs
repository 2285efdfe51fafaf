//! A job goes on with aggregates added to it, in the middle of its windows.

use tidegate_tests::dev_kafka;

use crate::{
    broker::{plain, send, until_results},
    job,
    services::Services,
};

const SHARDS: i32 = 4;
const USERS: usize = 7;
const ADDED: &str = "  - { name: newest, fn: max, field: /ts, scale: 0 }\n";

fn job(name: &str, added: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 100ms, idle_timeout: 500ms, on_quiet: hold }}
window: {{ tumbling: {{ size: 1s }} }}
aggregates:
  - {{ name: n, fn: count }}
  - {{ name: oldest, fn: min, field: /ts, scale: 0 }}
{added}state: {{ shards: {SHARDS} }}"
    );
    job::text(name, &sections)
}

fn until_applied(services: &mut Services, records: u64) {
    services.until(&format!("{records} records"), |status| {
        let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
        let applied: u64 = stats.flat_map(|stats| &stats.shards).map(|shard| shard.applied).sum();
        (applied == records).then_some(())
    });
}

fn goes_on(bootstrap: &str) {
    let (name, source) = job::new_source(bootstrap, "evolves", 1);
    let sink = format!("{name}-out");
    let mut services = Services::new(bootstrap, &job(&name, ""));
    services.start_all();
    let producer = plain(bootstrap);
    send(&producer, &source, 0, 0..500);
    until_applied(&mut services, 500);

    // The coordinator first: what has the earlier file is refused, and says so.
    services.kill("watermark-coordinator");
    services.set_job(&job(&name, ADDED));
    services.start("watermark-coordinator");
    for name in ["ingest", "window-worker"] {
        assert_eq!(services.ended(name), Some(1));
        let log = services.log(name);
        assert!(log.contains("that of the coordinator counts"), "{log}");
    }
    services.start("ingest");
    services.start("window-worker");
    send(&producer, &source, 0, 500..900);
    until_applied(&mut services, 900);
    services.kill("window-worker");
    services.start("window-worker");
    send(&producer, &source, 0, 900..2_500);

    let results = until_results(bootstrap, &sink, SHARDS, 2 * USERS);
    let (first, second) = results.split_at(USERS);
    assert_eq!((first.len(), second.len()), (USERS, USERS), "{results:?}");
    for (window, start) in [(first, 0), (second, 1_000)] {
        let sum: u64 = window.iter().map(|result| result["n"].as_u64().unwrap()).sum();
        let oldest = window.iter().map(|result| result["oldest"].as_i64().unwrap()).min();
        assert_eq!((sum, oldest), (1_000, Some(start)), "{window:?}");
    }
    assert!(first.iter().all(|result| result["newest"].is_null()), "{first:?}");
    let newest = second.iter().map(|result| result["newest"].as_i64().unwrap()).max();
    assert_eq!(newest, Some(1_999), "{second:?}");
    let said = services.verify(2_399);
    assert!(said.contains("windows=14") && said.contains("mismatches=0 without=7"), "{said}");

    // There is no way back: results have the aggregate.
    services.kill("watermark-coordinator");
    services.set_job(&job(&name, ""));
    services.start("watermark-coordinator");
    assert_eq!(services.ended("watermark-coordinator"), Some(1));
    let log = services.log("watermark-coordinator");
    assert!(log.contains("`aggregates[2]` is not there in the job file"), "{log}");
}

/// Results and dead letters go to other topics from then on, and what is out in the earlier ones counts.
fn goes_on_in_other_topics(bootstrap: &str) {
    let (name, source) = job::new_source(bootstrap, "moves", 1);
    let [results, letters] = ["out", "dead"].map(|what| format!("{name}-{what}"));
    let kept = format!("dead_letter: {{ topic: {letters}, replay: {{ ttl: 1h }} }}");
    let before = job(&name, "").replace(&format!("dead_letter: {{ topic: {letters} }}"), &kept);
    let after = before.replace(&results, &format!("{results}-2")).replace(&letters, &format!("{letters}-2"));
    let mut services = Services::new(bootstrap, &before);
    services.start_all();
    let producer = plain(bootstrap);
    send(&producer, &source, 0, 0..2_500);
    until_results(bootstrap, &results, SHARDS, 2 * USERS);
    let comes_back = |services: &mut Services, late: std::ops::Range<i64>, wanted: u64| {
        send(&producer, &source, 0, late);
        services.until("the dead letters", |status| {
            let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
            let dead: u64 = stats.flat_map(|stats| &stats.shards).map(|shard| shard.dead_lettered).sum();
            (dead == wanted).then_some(())
        });
        let said = services.replay(&name, &["--wait"]);
        assert!(said.contains("applied 7, expired 0, known 0, failed 0"), "{said}");
    };
    comes_back(&mut services, 0..7, 7);

    ["ingest", "window-worker", "watermark-coordinator"].iter().for_each(|service| services.stop(service));
    services.set_job(&after);
    services.start_all();
    services.until("a coordinator", |_| Some(()));
    comes_back(&mut services, 7..14, 14);
    let corrected = until_results(bootstrap, &format!("{results}-2"), SHARDS, USERS);
    assert!(
        corrected.iter().all(|result| result["pane"] == "replay" && result["revision"] == 2),
        "{corrected:?}"
    );
    let sum: u64 = corrected.iter().map(|result| result["n"].as_u64().unwrap()).sum();
    assert_eq!(sum, 1_014, "{corrected:?}");

    let earlier = ["--earlier-results", &results, "--earlier-dead-letters", &letters];
    let said = services.verify_with(2_399, &earlier);
    assert!(said.contains("dead_letters=14") && said.contains("replayed=14"), "{said}");
    assert!(said.contains("mismatches=0"), "{said}");
    let alone = services.tidegate_on_topics("verify", &["--watermark", "2399"]);
    assert!(!alone.status.success(), "what is in the earlier topics is missing");
}

#[test]
fn topics_are_others_from_then_on_and_dead_letters_of_both_come_back() {
    goes_on_in_other_topics(dev_kafka().bootstrap());
}

#[test]
fn topics_are_others_from_then_on_and_dead_letters_of_both_come_back_on_apache_kafka() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    goes_on_in_other_topics(broker.bootstrap());
}

#[test]
fn an_aggregate_is_added_in_the_middle_of_a_window() {
    goes_on(dev_kafka().bootstrap());
}

#[test]
fn an_aggregate_is_added_in_the_middle_of_a_window_on_apache_kafka() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    goes_on(broker.bootstrap());
}
