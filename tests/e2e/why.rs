//! `tidegate why` and `tidegate query` of services that run, on Apache Kafka.

use std::time::{SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tidegate_tests::clients;

use crate::{job, services::Services};

fn job(name: &str, idle: &str) -> String {
    let sections = format!(
        "watermark: {{ delay: 100ms, idle_timeout: {idle}, on_quiet: hold, max_future_skew: 1h }}
window: {{ tumbling: {{ size: 1s }} }}
aggregates: [{{ name: n, fn: count }}]
state: {{ shards: 4 }}"
    );
    job::text(name, &sections)
}

fn services(bootstrap: &str, idle: &str, partitions: i32) -> (Services, String) {
    let (name, topic) = job::new_source(bootstrap, "why", partitions);
    (Services::new(bootstrap, &job(&name, idle)), topic)
}

fn producer(bootstrap: &str, settings: &[(&str, &str)]) -> BaseProducer {
    let mut config = clients::client_config(bootstrap);
    settings.iter().for_each(|(key, value)| {
        config.set(*key, *value);
    });
    config.create().unwrap()
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, value: &str) {
    let record = BaseRecord::<(), _>::to(topic).partition(partition).payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    producer.flush(clients::PATIENCE).unwrap();
}

fn click(user: &str, time: i64) -> String {
    format!("{{\"user\":\"{user}\",\"ts\":{time}}}")
}

fn why(services: &Services, arguments: &[&str]) -> Value {
    let output = services.tidegate(&[&["why", "--json"], arguments].concat());
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&said).unwrap()
}

fn refused(services: &Services, arguments: &[&str]) -> String {
    let output = services.tidegate(arguments);
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// What is said of the partitions that hold W: partition, state, why.
fn holders(answer: &Value) -> Vec<(u64, &str, &str)> {
    let holders = answer["watermark"]["holders"].as_array().unwrap().iter();
    holders
        .map(|h| (h["partition"].as_u64().unwrap(), h["state"].as_str().unwrap(), h["why"].as_str().unwrap()))
        .collect()
}

#[test]
fn why_names_the_partition_that_holds_the_watermark_and_what_releases_it() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let (mut services, topic) = services(bootstrap, "1h", 3);
    let said = refused(&services, &["why"]);
    assert!(said.contains("the job does not run here") && said.contains("no coordinator"), "{said}");

    services.start("watermark-coordinator");
    services.until("a coordinator that leads", |status| (status.partitions.len() == 3).then_some(()));
    let answer = why(&services, &[]);
    assert_eq!(answer["watermark"]["watermark_ms"], Value::Null);
    assert!(holders(&answer).iter().all(|h| h.1 == "unknown" && h.2.contains("no ingest")), "{answer:#}");
    assert!(answer["notes"][0].as_str().unwrap().contains("no worker"), "{answer:#}");
    let answer = why(&services, &["somebody"]);
    let verdict = answer["shard"]["verdict"].as_str().unwrap();
    assert!(verdict.contains("nobody has its state now") && answer.get("key").is_none(), "{answer:#}");

    let plain = producer(bootstrap, &[]);
    send(&plain, &topic, 0, &click("a", 9_000));
    send(&plain, &topic, 1, &click("a", 5_000));
    services.start("ingest");
    services.start("window-worker");
    services.until("partitions 0 and 1 to have been read", |status| {
        let read = |partition: usize| status.partitions[partition].position == 1;
        (read(0) && read(1) && status.partitions[2].state == "active" && !status.workers.is_empty())
            .then_some(())
    });
    let answer = why(&services, &[]);
    let [(2, "active", never)] = holders(&answer)[..] else { panic!("{answer:#}") };
    assert!(never.contains("never had a record"), "{answer:#}");
    let text = services.tidegate(&["why"]);
    let text = String::from_utf8_lossy(&text.stdout);
    for part in
        ["watermark W is undefined", "partition 2: active for", "watermark.idle_timeout", "released by"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }

    send(&plain, &topic, 2, &click("a", 7_000));
    services.until("W from all three", |status| {
        (status.announcement.as_ref()?.watermark_ms == Some(4_900)).then_some(())
    });
    let answer = why(&services, &["--window", "5000"]);
    let [(1, "active", why)] = holders(&answer)[..] else { panic!("{answer:#}") };
    assert!(why.contains("at its end"), "{answer:#}");
    assert_eq!(answer["window"]["end_ms"], 6_000, "{answer:#}");
}

#[test]
fn why_names_the_open_transaction_that_holds_the_watermark() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let (mut services, topic) = services(bootstrap, "500ms", 2);
    let plain = producer(bootstrap, &[]);
    let open = producer(bootstrap, &[("transactional.id", &clients::unique("open"))]);
    open.init_transactions(clients::PATIENCE).unwrap();
    send(&plain, &topic, 0, &click("a", 9_000));
    send(&plain, &topic, 1, &click("a", 5_000));
    open.begin_transaction().unwrap();
    send(&open, &topic, 1, &click("a", 6_000));
    services.start_all();
    services.until("partition 1 behind a transaction", |status| {
        let states: Vec<_> = status.partitions.iter().map(|p| p.state.as_str()).collect();
        // Long enough for a watermark that is said to wait and not to move.
        let stands = status.watermark_risen_ms.is_some_and(|stands| stands > 2_000);
        (states == ["idle", "lagging"] && stands).then_some(())
    });
    let answer = why(&services, &[]);
    let [(1, "lagging", behind)] = holders(&answer)[..] else { panic!("{answer:#}") };
    assert!(behind.contains("nothing behind offset 1 can be read, 1 offsets wait"), "{answer:#}");
    let text = services.tidegate(&["why"]);
    let text = String::from_utf8_lossy(&text.stdout);
    for part in
        ["W waits for 1 of 2 partitions", "partition 1: lagging for", "describe-producers", "--partition 1"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    open.commit_transaction(clients::PATIENCE).unwrap();
    services.until("W behind the transaction", |status| {
        (status.announcement.as_ref()?.watermark_ms? >= 5_900).then_some(())
    });
}

#[test]
fn why_says_where_a_record_went_and_query_what_a_key_has() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    let bootstrap = broker.bootstrap();
    let (mut services, topic) = services(bootstrap, "500ms", 1);
    services.start_all();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis();
    let base = i64::try_from(now).unwrap() / 1_000 * 1_000 - 60_000;
    let plain = producer(bootstrap, &[]);
    let values = [
        click("a", base + 100),
        click("b", base + 5_000),
        click("a", base + 200),
        "no JSON".to_owned(),
        click("b", base + 5_200),
    ];
    for (covered, value) in (1_u64..).zip(&values) {
        send(&plain, &topic, 0, value);
        // One after the other, so that each meets the watermark that the one before has left.
        services.until("a record to be covered, and the watermark everywhere", |status| {
            let watermark = status.announcement.as_ref()?.watermark_ms?;
            let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
            let shards: Vec<_> = stats.flat_map(|stats| &stats.shards).collect();
            let all: u64 = shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
            (all == covered && shards.iter().all(|shard| shard.watermark_ms == Some(watermark))).then_some(())
        });
    }
    let topics = services.topics();
    let record = |offset: &str| {
        let place = ["--partition", "0", "--offset", offset];
        let topics = topics.each_ref().map(String::as_str);
        why(&services, &[&place[..], &topics[..]].concat())["record"].clone()
    };
    let applied = record("0");
    assert_eq!((&applied["key"], &applied["event_time_ms"]), (&Value::from("a"), &Value::from(base + 100)));
    assert_eq!(applied["windows"][0]["results"][0]["n"], 1, "{applied:#}");
    let late = record("2");
    assert_eq!(late["dead_letter"]["reason"], "late", "{late:#}");
    assert_eq!(late["dead_letter"]["watermark_ms"], base + 4_900, "{late:#}");
    assert_eq!(late["dead_letter"]["missed_to_ms"], base + 1_000, "{late:#}");
    let unreadable = record("3");
    assert_eq!(unreadable["dead_letter"]["reason"], "unreadable", "{unreadable:#}");
    let open = record("4");
    assert_eq!(
        (&open["covered"], &open["windows"][0]["open_records"]),
        (&true.into(), &2.into()),
        "{open:#}"
    );
    let future = record("99");
    assert!(future["verdict"].as_str().unwrap().contains("no such record yet"), "{future:#}");

    let answer = why(&services, &["b"]);
    let window = &answer["key"]["windows"][0];
    assert_eq!((&window["state"], &window["values"]["n"]), (&"open".into(), &2.into()), "{answer:#}");
    assert_eq!(answer["shard"]["worker"], "window-worker");
    let start = base.to_string();
    let answer = why(&services, &["a", "--window", &start, "--kafka", &topics[1]]);
    assert_eq!(answer["key"]["windows"][0]["state"], "gone", "{answer:#}");
    assert_eq!(answer["window"]["results"][0]["n"], 1, "{answer:#}");
    let never = why(&services, &["nobody"]);
    assert!(never["key"]["verdict"].as_str().unwrap().contains("it has never come"), "{never:#}");
    let between = refused(&services, &["why", "--window", &(base + 1).to_string()]);
    assert!(between.contains("no window starts at") && between.contains(&start), "{between}");

    let query = services.tidegate(&["query", "b"]);
    assert!(
        query.status.success() && String::from_utf8_lossy(&query.stdout).contains("open  n=2"),
        "{query:?}"
    );
    assert!(refused(&services, &["query", "nobody"]).contains("holds no record of key `nobody`"));

    services.until("the partition to be idle", |status| (status.partitions[0].state == "idle").then_some(()));
    let quiet = why(&services, &[]);
    assert!(quiet["watermark"]["verdict"].as_str().unwrap().contains("on_quiet: hold"), "{quiet:#}");
    send(&plain, &topic, 0, &click("b", base + 60_000 + 1_800_000));
    services.until("the watermark to follow a clock that runs ahead", |status| {
        (status.announcement.as_ref()?.watermark_ms? > base + 1_000_000).then_some(())
    });
    let poisoned = why(&services, &[]);
    let note = poisoned["notes"][0].as_str().unwrap();
    assert!(note.contains("ahead of the clock") && note.contains("max_future_skew is 1 h"), "{poisoned:#}");
}
