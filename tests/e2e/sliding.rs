//! For each flight what its carrier had in the two hours before: against the definition, on both brokers, with a worker killed.

use crate::dev::{Broker, job_file, over_flights};

#[test]
fn on_the_embedded_broker_with_one_worker() {
    equals_the_definition(Broker::Embedded, 1, None);
}

#[test]
fn on_the_embedded_broker_with_a_worker_killed_in_the_middle() {
    equals_the_definition(Broker::Embedded, 3, Some("worker-1"));
}

#[test]
fn on_apache_kafka_with_a_worker_killed_in_the_middle() {
    equals_the_definition(Broker::Apache, 3, Some("worker-1"));
}

#[test]
fn on_the_embedded_broker_with_a_worker_killed_and_more_in_the_windows_than_memory_holds() {
    equals_the_definition_in_a_mebibyte(Broker::Embedded);
}

#[test]
fn on_apache_kafka_with_a_worker_killed_and_more_in_the_windows_than_memory_holds() {
    equals_the_definition_in_a_mebibyte(Broker::Apache);
}

/// For each flight what its number had in the 30 days before: of some 3,800 numbers.
fn equals_the_definition_in_a_mebibyte(broker: Broker) {
    let folder = tempfile::tempdir().unwrap();
    let job = job_file(folder.path(), "flights-tumbling.yaml");
    let mut text = std::fs::read_to_string(&job).unwrap();
    for (before, after) in [
        ("tumbling: { size: 1h }", "sliding: { size: 30d }"),
        ("key: { field: /carrier }", "key: { field: /flight }"),
    ] {
        assert!(text.contains(before), "the job has `{before}`");
        text = text.replace(before, after);
    }
    text.push_str("\nstate: { memory: 1MiB }\n");
    std::fs::write(&job, text).unwrap();
    let Some(ended) = over_flights(folder, &job, broker, 3, Some("worker-1")) else { return };
    assert_eq!(ended.verified(), [336_776, 328_521, 8_255], "a result for each flight that departed");
    for worker in ["worker-0", "worker-1", "worker-2"] {
        let log = std::fs::read_to_string(ended.folder().join("run").join(format!("{worker}.log"))).unwrap();
        assert!(log.contains("sliding windows span is beyond memory"), "{worker} kept all in memory: {log}");
    }
}

fn equals_the_definition(broker: Broker, workers: u32, killed: Option<&str>) {
    let folder = tempfile::tempdir().unwrap();
    let job = job_file(folder.path(), "flights-tumbling.yaml");
    let text = std::fs::read_to_string(&job).unwrap();
    let sliding = text.replace("tumbling: { size: 1h }", "sliding: { size: 2h }");
    assert_ne!(text, sliding, "the job's window is replaced");
    std::fs::write(&job, sliding).unwrap();
    let Some(ended) = over_flights(folder, &job, broker, workers, killed) else { return };
    assert_eq!(ended.verified(), [336_776, 328_521, 8_255], "a result for each flight that departed");
}
