//! The demo: a stream with late records, a clock that jumps and a partition that falls silent.

use crate::dev::{Broker, Run, is_running};

#[test]
fn a_backlog_of_generated_clicks_verifies_on_the_embedded_broker() {
    backlog(Broker::Embedded);
}

#[test]
fn a_backlog_of_generated_clicks_verifies_on_apache_kafka() {
    backlog(Broker::Apache);
}

fn backlog(broker: Broker) {
    let Some(mut arguments) = broker.arguments() else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = crate::dev::job_file(folder.path(), "clicks.yaml");
    arguments.extend(["--job".into(), job.to_str().unwrap().into()]);
    arguments.extend(["--events", "60000", "--workers", "2", "--verify"].map(str::to_owned));
    let [records, windows, dead_letters] = Run::start(folder, &arguments).end().verified();
    assert_eq!(records, 60_000);
    assert!(windows >= 400, "{windows} windows of 100 users in a minute");
    // One record in 400 is half a minute late, one in 5,000 from a clock ten minutes ahead.
    assert!((12..=162).contains(&dead_letters), "{dead_letters} dead letters");
}

#[test]
fn the_demo_closes_windows_past_its_idle_partition_and_stops_on_ctrl_c() {
    let mut run = Run::start(tempfile::tempdir().unwrap(), &["--workers".to_owned(), "2".to_owned()]);
    let pids: Vec<u32> =
        ["coordinator", "ingest-0", "worker-0", "worker-1"].map(|name| run.pid_of(name)).into();
    run.until("windows", |line| {
        let windows = line.split(' ').find_map(|word| word.strip_prefix("windows="))?;
        windows.parse::<u64>().ok().filter(|windows| *windows > 0)
    });
    run.signal("-INT");
    let ended = run.end();
    assert_eq!(ended.code, Some(0), "{}", ended.lines.join("\n"));
    for pid in pids {
        assert!(!is_running(pid), "process {pid} is left behind");
    }
}
