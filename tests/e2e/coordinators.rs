//! Two coordinators: what becomes of a job whose leader dies or halts.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use crate::dev::{Broker, PATIENCE, Run, job_file, program, root, signal_to};

/// The session that has to run out, and what a loaded machine needs for the rest.
const TAKEOVER: Duration = Duration::from_secs(20);

#[test]
fn the_leader_killed_in_the_middle_changes_nothing_on_the_embedded_broker() {
    leader_killed(Broker::Embedded);
}

#[test]
fn the_leader_killed_in_the_middle_changes_nothing_on_apache_kafka() {
    leader_killed(Broker::Apache);
}

fn leader_killed(broker: Broker) {
    let Some(mut arguments) = broker.arguments() else { return };
    let folder = tempfile::tempdir().unwrap();
    let job = job_file(folder.path(), "flights-tumbling.yaml");
    let input = root().join("tests/data/flights/flights.ndjson.gz");
    arguments.extend(["--job".into(), job.to_str().unwrap().into()]);
    arguments.extend(["--input".into(), input.to_str().unwrap().into()]);
    arguments.extend(["--workers", "2", "--coordinators", "2", "--verify"].map(str::to_owned));
    let mut run = Run::start(folder, &arguments);
    let pids = ["coordinator", "coordinator-1"].map(|name| (name, run.pid_of(name)));
    run.until_reading();
    let logs = run.folder.path().join("run");
    let log = |name: &str| fs::read_to_string(logs.join(format!("{name}.log"))).unwrap();
    let leaders: Vec<_> = pids.iter().filter(|(name, _)| log(name).contains("leading a new job")).collect();
    let &[&(leader, pid)] = leaders.as_slice() else { panic!("{leaders:?} lead") };
    signal_to(pid, "-KILL");
    run.until("again", |line| line.starts_with(&format!("started {leader} again")).then_some(()));
    let ended = run.end();
    assert_eq!(ended.verified()[0], 336_776);
    let took_over = pids.iter().filter(|(name, _)| log(name).contains("leading a job that goes on")).count();
    assert_eq!(took_over, 1, "one of them took over, once");
}

#[test]
fn a_halted_leader_is_replaced_and_stands_by_when_it_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let broker = tidegate_tests::dev_kafka();
    let job = job_file(folder.path(), "clicks.yaml");
    let start = |name: &str| Coordinator::start(folder.path(), name, &job, broker.bootstrap());
    let first = start("first");
    let term = first.until_it_leads();
    let second = start("second");
    second.until_it_says("on standby");
    let both = format!("{},{}", second.address, first.address);
    assert_eq!(term_of(&status(&both)), Some(term), "the list finds the one that leads");

    let halted = Instant::now();
    signal_to(first.child.id(), "-STOP");
    let later = second.until_it_leads();
    assert!(halted.elapsed() < TAKEOVER, "{:?}", halted.elapsed());
    println!("took over after {:?}", halted.elapsed());
    assert!(later > term);
    signal_to(first.child.id(), "-CONT");
    first.until_it_says("on standby");
    assert_eq!(term_of(&status(&both)), Some(later), "nobody was deposed by its return");
}

/// A process that ends with this value.
struct Coordinator {
    child: Child,
    address: String,
    log: PathBuf,
}

impl Coordinator {
    fn start(folder: &Path, name: &str, job: &Path, bootstrap: &str) -> Self {
        let address = format!("127.0.0.1:{}", tidegate_tests::free_port().unwrap());
        let log = folder.join(format!("{name}.log"));
        let child = Command::new(program("watermark-coordinator"))
            .args(["--job", job.to_str().unwrap(), "--kafka", bootstrap, "--listen", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, address, log }
    }

    /// Its term.
    fn until_it_leads(&self) -> u64 {
        self.until(term_of)
    }

    fn until_it_says(&self, words: &str) {
        self.until(|said| said.contains(words).then_some(()));
    }

    fn until<T>(&self, wanted: impl Fn(&str) -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            let said = status(&self.address);
            if let Some(found) = wanted(&said) {
                return found;
            }
            let log = || fs::read_to_string(&self.log).unwrap_or_default();
            assert!(started.elapsed() < PATIENCE, "last: {said}; its log:\n{}", log());
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What `tidegate status` says, well or not.
fn status(addresses: &str) -> String {
    let said =
        Command::new(program("tidegate")).args(["status", "--coordinator", addresses]).output().unwrap();
    String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned()
}

fn term_of(status: &str) -> Option<u64> {
    status.split_once("  term ")?.1.split(' ').next()?.parse().ok()
}
