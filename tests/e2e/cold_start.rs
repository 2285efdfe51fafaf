//! How long a job with an empty state takes from the start of its processes to its first commit, on Apache Kafka.

use std::thread;
use std::time::{Duration, Instant};

use tidegate_tests::{ApacheKafka, apache_kafka};

use crate::broker::{WINDOW_MS, plain, send, services};

/// 3 s are wanted on a machine that has nothing else to do: this is for one that has.
const BOUND: Duration = Duration::from_secs(30);
const RECORDS: i64 = 1_000;

/// The services are started together; the topics are not there yet, but for the source.
fn cold_start(kafka: &ApacheKafka) -> Duration {
    let (mut services, topic) = services(kafka.bootstrap(), "cold", 4);
    send(&plain(kafka.bootstrap()), &topic, 0, 1_000..1_000 + RECORDS);
    let begun = Instant::now();
    services.start_all();
    services.until_logged("window-worker", "serving metrics address=");
    let first = loop {
        let metrics = services.metrics("window-worker");
        let commits = metrics.lines().find(|line| line.starts_with("tidegate_worker_commits_total"));
        if commits.is_some_and(|line| !line.ends_with(" 0")) {
            break begun.elapsed();
        }
        assert!(begun.elapsed() < BOUND, "no commit yet: {}", services.log("window-worker"));
        thread::sleep(Duration::from_millis(10));
    };
    let watermark = services.until_covered(u64::try_from(RECORDS).unwrap(), WINDOW_MS);
    assert!(services.verify(watermark).contains("mismatches=0"));
    first
}

#[test]
fn a_job_with_an_empty_state_commits_soon_after_its_start() {
    let Some(kafka) = apache_kafka() else { return };
    println!("cold start to the first commit: {:.2} s", cold_start(kafka).as_secs_f64());
}

#[test]
#[ignore = "a figure, not a test: cargo test -p tidegate-tests --test e2e measure_cold_start -- --ignored --nocapture"]
fn measure_cold_starts() {
    let Some(kafka) = apache_kafka() else { return };
    for _ in 0..5 {
        println!("cold start to the first commit: {:.2} s", cold_start(kafka).as_secs_f64());
    }
}
