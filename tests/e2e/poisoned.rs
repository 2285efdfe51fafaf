//! One wrong producer clock on one of eight partitions, on Apache Kafka, while records flow: no window waits for it, none closes
//! early, and the record is a dead letter.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rdkafka::{
    Message,
    consumer::{BaseConsumer, Consumer},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use tidegate_tests::clients::{self, Isolation};

use crate::{job, services::Services};

const PARTITIONS: i32 = 8;
const POISONED: i32 = 3;
const WINDOW_MS: i64 = 500;
/// `max_future_skew`: no window may wait longer than that for a wrong clock.
const BOUND_MS: i64 = 3_000;
const ROUNDS: usize = 500;
const TEN_YEARS_MS: i64 = 10 * 365 * 86_400_000;

#[test]
fn a_record_ten_years_ahead_delays_no_window_by_more_than_the_skew_bound() {
    let Some(kafka) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = kafka.bootstrap();
    let (name, topic) = job::new_source(bootstrap, "poisoned", PARTITIONS);
    let mut services = Services::new(bootstrap, &job(&name));
    services.start_all();
    services.until("every partition to be read", |status| {
        let read = status.partitions.iter().filter(|partition| partition.state != "unknown").count();
        (read == PARTITIONS as usize).then_some(())
    });

    let done = AtomicBool::new(false);
    let (poisoned_at, results) = thread::scope(|scope| {
        let reader = scope.spawn(|| results(bootstrap, &format!("{name}-out"), &done));
        let poisoned_at = produce(bootstrap, &topic);
        let records = ROUNDS as u64 * PARTITIONS as u64 + 2;
        let watermark = services.until_covered(records, WINDOW_MS);
        let said = services.verify(watermark);
        done.store(true, Ordering::Relaxed);
        assert!(said.contains(&format!("records={records} ")), "{said}");
        assert!(
            said.contains("dead_letters=1 mismatches=0"),
            "only the record from the future is left out: {said}"
        );
        (poisoned_at, reader.join().unwrap())
    });

    // The last windows close when the input has ended, not by a record.
    let last = results.iter().map(|(end, _)| *end).max().unwrap() - BOUND_MS - 2 * WINDOW_MS;
    let longest = |of: &dyn Fn(i64) -> bool| {
        results.iter().filter(|(end, _)| of(*end) && *end < last).map(|(_, waited)| *waited).max().unwrap()
    };
    let before = longest(&|end| end < poisoned_at);
    let after = longest(&|end| end >= poisoned_at);
    println!("poisoned: windows came out at most {before} ms after their end before, {after} ms after it");
    assert!(after <= before + BOUND_MS, "{after} ms after the poisoned records, {before} ms before");
}

fn job(name: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 200ms, idle_timeout: 5s, on_quiet: finish, max_future_skew: {BOUND_MS}ms }}
window: {{ tumbling: {{ size: {WINDOW_MS}ms }} }}
aggregates: [{{ name: n, fn: count }}]
state: {{ shards: 4 }}"
    );
    job::text(name, &sections)
}

fn now_ms() -> i64 {
    i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()).unwrap()
}

/// Records of now to all partitions, every 20 ms; half way one from ten years ahead, and one from just within the bound.
fn produce(bootstrap: &str, topic: &str) -> i64 {
    let producer: BaseProducer = clients::client_config(bootstrap).set("linger.ms", "1").create().unwrap();
    let send = |partition: i32, time: i64| {
        let value = format!("{{\"user\":\"u{}\",\"ts\":{time}}}", time % 5);
        let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(&value);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    };
    let mut poisoned_at = 0;
    for round in 0..ROUNDS {
        if round == ROUNDS / 2 {
            poisoned_at = now_ms();
            send(POISONED, poisoned_at + TEN_YEARS_MS);
            send(POISONED, poisoned_at + BOUND_MS - 200);
        }
        (0..PARTITIONS).for_each(|partition| send(partition, now_ms()));
        producer.poll(Duration::from_millis(20));
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    poisoned_at
}

/// End of each result's window, and how long after it the result could be read.
fn results(bootstrap: &str, sink: &str, done: &AtomicBool) -> Vec<(i64, i64)> {
    let consumer: BaseConsumer =
        clients::consumer_config(bootstrap, sink, Isolation::ReadCommitted).create().unwrap();
    consumer.subscribe(&[sink]).unwrap();
    let mut results = Vec::new();
    while !done.load(Ordering::Relaxed) {
        // What is no record is the news of an end.
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let result: Value = serde_json::from_slice(record.payload().unwrap()).unwrap();
        let end = result["window_end"].as_i64().unwrap();
        results.push((end, now_ms() - end));
    }
    results
}
