//! A worker that is connected and takes nothing: the other one goes on.

use tempfile::TempDir;

use crate::dev::{Ended, Run, job_file, signal_to};

const EVENTS: u64 = 400_000;
/// What ingest logs when it goes on without a worker.
const PARKED: &str = "a worker has no credit left, reading goes on without it";

/// A backlog far beyond the credit of two workers, of which the second is halted as soon as reading begins.
fn halted(folder: TempDir) -> (Run, u32) {
    let job = job_file(folder.path(), "clicks.yaml");
    let events = EVENTS.to_string();
    let arguments =
        ["--job", job.to_str().unwrap(), "--events", &events, "--workers", "2", "--credit-mib", "1"];
    let mut arguments: Vec<String> = arguments.map(str::to_owned).into();
    arguments.push("--verify".into());
    let mut run = Run::start(folder, &arguments);
    let pid = run.pid_of("worker-1");
    run.until_reading();
    signal_to(pid, "-STOP");
    (run, pid)
}

fn windows(line: &str) -> Option<u64> {
    line.split(' ').find_map(|word| word.strip_prefix("windows="))?.parse().ok()
}

fn nothing_is_missing(ended: &Ended) {
    let [records, windows, _] = ended.verified();
    assert_eq!(records, EVENTS);
    assert!(windows >= 400, "{windows} windows of 100 users in a minute");
}

#[test]
fn a_worker_that_is_halted_for_a_moment_does_not_hold_the_other() {
    let (mut run, pid) = halted(tempfile::tempdir().unwrap());
    run.until_logged("ingest-0", &[PARKED]);
    run.catch_up();
    let before = run.seen.iter().rev().find_map(|line| windows(line)).unwrap_or(0);
    run.until("more windows", |line| windows(line).filter(|windows| *windows > before));
    signal_to(pid, "-CONT");
    nothing_is_missing(&run.end());
}

#[test]
fn a_worker_that_is_halted_until_it_is_replaced_changes_nothing() {
    let (run, pid) = halted(tempfile::tempdir().unwrap());
    run.until_logged("ingest-0", &[PARKED]);
    run.until_logged("coordinator", &["lost a worker", "assigned a shard"]);
    signal_to(pid, "-CONT");
    nothing_is_missing(&run.end());
}
