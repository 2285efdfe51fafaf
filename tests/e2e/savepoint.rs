//! A job is stopped in the middle of its windows, its state written as files, and another job goes on from there with other shards.

use std::{collections::BTreeMap, fs, path::Path, process::Output, thread, time::Duration};

use tidegate_tests::dev_kafka;

use crate::{
    broker::{plain, send, until_results},
    job,
    services::Services,
};

const PARTITIONS: [i32; 2] = [0, 1];
const USERS: usize = 7;

fn job(name: &str, source: &str, shards: i32) -> String {
    let sections = format!(
        "watermark: {{ delay: 100ms, idle_timeout: 500ms, on_quiet: hold }}
window: {{ tumbling: {{ size: 1s }} }}
aggregates:
  - {{ name: n, fn: count }}
  - {{ name: oldest, fn: min, field: /ts, scale: 0 }}
state: {{ shards: {shards} }}"
    );
    job::text_over(source, name, &sections)
}

/// The sums of `n` by start of window, once there are so many results; there are never more.
fn until_sums(bootstrap: &str, job: &str, shards: i32, wanted: usize) -> Vec<(i64, u64)> {
    let results = until_results(bootstrap, &format!("{job}-out"), shards, wanted);
    assert_eq!(results.len(), wanted, "{results:?}");
    let mut sums = BTreeMap::new();
    for result in &results {
        *sums.entry(result["window_start"].as_i64().unwrap()).or_default() += result["n"].as_u64().unwrap();
    }
    sums.into_iter().collect()
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// The coordinator of a job that is to begin with the savepoint ends, and says why.
fn refused(services: &mut Services, folder: &Path, why: &str) {
    services.start_with("watermark-coordinator", &["--from-savepoint", folder.to_str().unwrap()]);
    assert_eq!(services.ended("watermark-coordinator"), Some(1));
    let log = services.log("watermark-coordinator");
    assert!(log.contains(why), "{log}");
}

fn goes_on_from_a_savepoint(bootstrap: &str) {
    let (name, source) = job::new_source(bootstrap, "saved", 2);
    let before = job(&name, &source, 4);
    let mut services = Services::new(bootstrap, &before);
    services.start_all();
    let producer = plain(bootstrap);
    let feed = |times: std::ops::Range<i64>| {
        PARTITIONS.iter().for_each(|partition| send(&producer, &source, *partition, times.clone()));
    };
    feed(0..1_500);
    assert_eq!(until_sums(bootstrap, &name, 4, USERS), [(0, 2_000)]);

    let folder = services.folder.path().join("savepoint");
    let flags = ["--to", folder.to_str().unwrap()];
    thread::scope(|scope| {
        scope.spawn(|| {
            (1_500..1_600).for_each(|time| {
                feed(time..time + 1);
                thread::sleep(Duration::from_millis(80));
            })
        });
        let output = services.tidegate_on_topics("savepoint", &flags);
        assert!(!output.status.success() && said(&output).contains("is running"), "{}", said(&output));
    });
    services.until("all records", |status| {
        let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
        let shards: Vec<_> = stats.flat_map(|stats| &stats.shards).collect();
        let applied: u64 = shards.iter().map(|shard| shard.applied).sum();
        (applied == 3_200 && shards.iter().all(|shard| shard.watermark_ms == Some(1_499))).then_some(())
    });
    for name in ["ingest", "window-worker", "watermark-coordinator"] {
        services.stop(name);
    }
    let output = services.tidegate_on_topics("savepoint", &flags);
    assert!(output.status.success() && said(&output).contains("at the same place"), "{}", said(&output));
    let output = services.tidegate_on_topics("savepoint", &flags);
    assert!(!output.status.success() && said(&output).contains("not empty"), "{}", said(&output));

    let damaged = services.folder.path().join("damaged");
    fs::create_dir(&damaged).unwrap();
    for file in fs::read_dir(&folder).unwrap().map(Result::unwrap) {
        let mut bytes = fs::read(file.path()).unwrap();
        if file.file_name() == "shard-00002.blocks" {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        }
        fs::write(damaged.join(file.file_name()), bytes).unwrap();
    }
    let next = format!("{name}-next");
    services.set_job(&job(&next, &source, 3));
    refused(&mut services, &damaged, "shard-00002.blocks: damaged: the sum of its bytes does not fit");
    services.set_job(&job(&next, &source, 3).replace("size: 1s", "size: 2s"));
    refused(&mut services, &folder, "`window.size_ms` is 2000 in the job file, but 1000 in the savepoint");

    services.set_job(&job(&next, &source, 3));
    services.start_with("watermark-coordinator", &["--from-savepoint", folder.to_str().unwrap()]);
    services.start("ingest");
    services.start("window-worker-0");
    feed(1_600..1_800);
    services.kill("watermark-coordinator");
    services.start_with("watermark-coordinator", &["--from-savepoint", folder.to_str().unwrap()]);
    services.start("window-worker-1");
    feed(1_800..2_500);
    assert_eq!(
        until_sums(bootstrap, &next, 3, USERS),
        [(1_000, 2_000)],
        "the first window was put out before"
    );
}

#[test]
fn another_job_with_other_shards_goes_on_from_a_savepoint() {
    goes_on_from_a_savepoint(dev_kafka().bootstrap());
}

#[test]
fn another_job_with_other_shards_goes_on_from_a_savepoint_on_apache_kafka() {
    let Some(broker) = tidegate_tests::apache_kafka() else { return };
    goes_on_from_a_savepoint(broker.bootstrap());
}
