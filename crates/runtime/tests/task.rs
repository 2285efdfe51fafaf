//! Tasks end the process as they should: failures, panics, drains, signals.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::convert::Infallible;
use std::future::pending;
use std::io::{BufRead, BufReader, Lines};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

use tidegate_runtime::task::{self, DRAIN, Outcome, Reason, Shutdown, Tasks};

/// A task that drains: it ends once asked to.
async fn drains(shutdown: Shutdown) -> Result<(), Infallible> {
    shutdown.requested().await;
    Ok(())
}

#[tokio::test]
async fn a_group_whose_tasks_have_ended_is_finished() {
    let tasks = Tasks::new();
    tasks.spawn("one", async { Ok::<(), Infallible>(()) });
    assert_eq!(tasks.run_until_shutdown(DRAIN).await.unwrap(), Outcome::Finished);

    let tasks = Tasks::new();
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("waits", drains(shutdown.clone()));
    tasks.spawn("ends all", async move {
        shutdown.request(Reason::Done);
        Ok::<(), Infallible>(())
    });
    assert_eq!(tasks.run_until_shutdown(DRAIN).await.unwrap(), Outcome::Finished);
}

#[tokio::test]
async fn a_failed_task_drains_the_others_and_is_named() {
    let tasks = Tasks::new();
    tasks.spawn("waits", drains(tasks.shutdown().clone()));
    tasks.spawn("fails", async { Err("no such topic") });
    let outcome = tasks.run_until_shutdown(DRAIN).await.unwrap();
    let expected = Outcome::Failed { task: "fails".into(), error: "no such topic".into() };
    assert_eq!(outcome, expected);
    assert_eq!(outcome.code(), 1);
}

#[tokio::test]
async fn a_panic_in_a_task_or_in_one_it_started_shuts_the_group_down() {
    let tasks = Tasks::new();
    tasks.spawn("panics", async {
        if true {
            panic!("out of luck");
        }
        Ok::<(), Infallible>(())
    });
    let outcome = tasks.run_until_shutdown(DRAIN).await.unwrap();
    assert!(
        matches!(&outcome, Outcome::Failed { task, error } if task == "panics" && error.contains("out of luck"))
    );

    let tasks = Tasks::new();
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("parent", async {
        let child = task::spawn("child", async { task::spawn("grandchild", async { panic!("deep") }).await });
        assert!(child.await.unwrap().unwrap_err().is_panic());
        drains(shutdown).await
    });
    let outcome = tasks.run_until_shutdown(DRAIN).await.unwrap();
    assert!(matches!(&outcome, Outcome::Failed { task, error } if task == "grandchild" && error == "deep"));
}

#[tokio::test(start_paused = true)]
async fn a_task_that_does_not_drain_is_left_and_named() {
    let tasks = Tasks::new();
    tasks.spawn("stuck", pending::<Result<(), Infallible>>());
    tasks.spawn("drains", drains(tasks.shutdown().clone()));
    tasks.shutdown().request(Reason::Done);
    let outcome = tasks.run_until_shutdown(DRAIN).await.unwrap();
    assert_eq!(outcome, Outcome::Stuck(vec!["stuck".into()]));
    assert_eq!(outcome.code(), 1);
}

/// Not a test of its own: what the process signalled by the tests below runs.
#[tokio::test]
async fn child_that_runs_until_it_is_signalled() {
    let Ok(kind) = std::env::var("TIDEGATE_TASK_CHILD") else { return };
    let tasks = Tasks::new();
    let shutdown = tasks.shutdown().clone();
    tasks.spawn("main", async move {
        println!("\nready");
        shutdown.requested().await;
        println!("\ndraining");
        match kind.as_str() {
            "stuck" => pending::<()>().await,
            // As a client does whose broker does not answer.
            "blocked" => loop {
                std::thread::park();
            },
            _ => {}
        }
        Ok::<(), Infallible>(())
    });
    // The signals are listened for before the task above is first polled: this future runs first, on one thread.
    let drain = std::env::var("TIDEGATE_TASK_DRAIN_MS").map_or(60_000, |drain| drain.parse().unwrap());
    let outcome = tasks.run_until_shutdown(Duration::from_millis(drain)).await.unwrap();
    println!("\n{outcome:?}");
    outcome.exit()
}

struct Signalled {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Signalled {
    fn start(kind: &str) -> Self {
        Self::start_with(kind, 60_000)
    }

    fn start_with(kind: &str, drain_ms: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_runs_until_it_is_signalled", "--nocapture"])
            .env("TIDEGATE_TASK_CHILD", kind)
            .env("TIDEGATE_TASK_DRAIN_MS", drain_ms.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut started = Self { child, lines };
        started.wait_for("ready");
        started
    }

    fn wait_for(&mut self, wanted: &str) {
        assert!(self.lines.any(|line| line.unwrap() == wanted), "the child never said {wanted}");
    }

    fn send(&self, signal: &str) {
        let kill = format!("kill -{signal} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
    }
}

#[test]
fn a_signal_drains_the_process_and_ends_it_well() {
    let mut process = Signalled::start("drains");
    process.send("TERM");
    process.wait_for("draining");
    process.wait_for("Drained(Terminate)");
    assert_eq!(process.child.wait().unwrap().code(), Some(0));
}

#[test]
fn a_second_signal_ends_the_process_at_once() {
    for kind in ["stuck", "blocked"] {
        for (signal, code) in [("INT", 130), ("TERM", 143)] {
            let mut process = Signalled::start(kind);
            process.send("TERM");
            process.wait_for("draining");
            process.send(signal);
            assert_eq!(process.child.wait().unwrap().code(), Some(code));
        }
    }
}

#[test]
fn a_runtime_whose_only_thread_is_blocked_ends_by_the_bound_all_the_same() {
    let mut process = Signalled::start_with("blocked", 100);
    process.send("TERM");
    process.wait_for("draining");
    assert_eq!(process.child.wait().unwrap().code(), Some(1));
}
