//! For each flight what its carrier had in the two hours before: against the definition, on both brokers, with a worker killed.

use crate::dev::{Broker, Run, job_file, root, signal_to};

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
    let Some(mut arguments) = broker.arguments() else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = job_file(folder.path(), "flights-tumbling.yaml");
    let text = std::fs::read_to_string(&job).unwrap();
    let sliding = text.replace("tumbling: { size: 1h }", "sliding: { size: 2h }");
    assert_ne!(text, sliding, "the job's window is replaced");
    std::fs::write(&job, sliding).unwrap();
    let input = root().join("tests/data/flights/flights.ndjson.gz");
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    arguments.extend(["--job".into(), path(&job), "--input".into(), path(&input)]);
    arguments.extend(["--workers".into(), workers.to_string(), "--verify".into()]);
    let mut run = Run::start(folder, &arguments);
    if let Some(name) = killed {
        let pid = run.pid_of(name);
        run.until_reading();
        signal_to(pid, "-KILL");
        run.until("again", |line| line.starts_with(&format!("started {name} again")).then_some(()));
    }
    assert_eq!(run.end().verified(), [336_776, 328_521, 8_255], "a result for each flight that departed");
}
