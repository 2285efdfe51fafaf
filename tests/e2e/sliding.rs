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
