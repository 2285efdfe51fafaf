//! Early results: what open windows hold, until their final results are out.

use std::{collections::BTreeMap, thread, time::Duration};

use rdkafka::{Message, Offset};
use serde_json::Value;
use tidegate_tests::{
    clients::{self, Isolation},
    dev_kafka,
};

use crate::{
    broker::{plain, send},
    job,
    services::Services,
};

const SHARDS: i32 = 4;

fn job(name: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 100ms, idle_timeout: 500ms, on_quiet: hold }}
window: {{ tumbling: {{ size: 1s }} }}
early: {{ every: 100ms }}
aggregates: [{{ name: n, fn: count }}]
state: {{ shards: {SHARDS} }}"
    );
    job::text(name, &sections)
}

/// What has come out so far: of each partition, in order.
fn results(bootstrap: &str, topic: &str) -> Vec<Value> {
    let read = |partition| {
        clients::read_to_end(bootstrap, topic, partition, Offset::Beginning, Isolation::ReadCommitted)
            .unwrap()
    };
    let records = (0..SHARDS).flat_map(read);
    records.map(|record| serde_json::from_slice(record.payload().unwrap()).unwrap()).collect()
}

/// Waits until the last results of the first window with this pane count so many records in all; gives everything that has come
/// out by then.
fn until(bootstrap: &str, topic: &str, pane: &str, records: u64) -> Vec<Value> {
    for _ in 0..1_200 {
        let results = results(bootstrap, topic);
        let mut last: BTreeMap<&str, u64> = BTreeMap::new();
        for result in results.iter().filter(|result| result["pane"] == pane && result["window_start"] == 0) {
            last.insert(result["key"].as_str().unwrap(), result["n"].as_u64().unwrap());
        }
        if last.values().sum::<u64>() == records {
            return results;
        }
        thread::sleep(Duration::from_millis(100));
    }
    panic!("{records} records are never in {pane} results: {:?}", results(bootstrap, topic));
}

fn shows_open_windows(bootstrap: &str) {
    let (name, source) = job::new_source(bootstrap, "early", 1);
    let sink = format!("{name}-out");
    let mut services = Services::new(bootstrap, &job(&name));
    services.start_all();
    let producer = plain(bootstrap);
    services.until("a coordinator", |_| Some(()));
    send(&producer, &source, 0, 0..500);
    let early = until(bootstrap, &sink, "early", 500);
    assert!(early.iter().all(|result| result["pane"] == "early" && result["revision"] == 0), "{early:?}");

    // Over the death of the worker the state is what they said.
    services.kill("window-worker");
    services.start("window-worker");
    send(&producer, &source, 0, 500..900);
    until(bootstrap, &sink, "early", 900);
    send(&producer, &source, 0, 900..2_000);
    let all = until(bootstrap, &sink, "final", 1_000);
    let mut over = Vec::new();
    for result in all.iter().filter(|result| result["window_start"] == 0) {
        assert!(!over.contains(&&result["key"]), "{result} comes behind the final result");
        if result["pane"] == "final" {
            over.push(&result["key"]);
        }
    }
    assert_eq!(over.len(), 7);
    let said = services.verify(1_899);
    assert!(
        said.contains("windows=7") && said.contains("mismatches=0") && said.contains(" early="),
        "{said}"
    );
}

#[test]
fn open_windows_show_what_they_hold_and_their_final_result_is_the_last() {
    shows_open_windows(dev_kafka().bootstrap());
}

#[test]
fn open_windows_show_what_they_hold_on_apache_kafka() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    shows_open_windows(broker.bootstrap());
}
