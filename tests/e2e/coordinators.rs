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
    // The killed one leads again as soon as it is there; what the group decides afterwards may be for the other.
    assert!((1..=2).contains(&took_over), "{took_over} took over");
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

/// The time of the return is printed; before the record named its writer it was the 6 s of the session and what follows it.
#[test]
fn a_lone_leader_that_is_killed_leads_again_as_soon_as_it_is_started_on_both_brokers() {
    let brokers = [Some(tidegate_tests::dev_kafka().bootstrap()), apache_bootstrap()];
    for bootstrap in brokers.into_iter().flatten() {
        let folder = tempfile::tempdir().unwrap();
        let job = job_file(folder.path(), "clicks.yaml");
        let mut first = Coordinator::start(folder.path(), "first", &job, bootstrap);
        let term = first.until_it_leads();
        first.child.kill().unwrap();
        first.child.wait().unwrap();
        let killed = Instant::now();
        let again = Coordinator::start_at(folder.path(), "again", &job, bootstrap, &first.address);
        let later = again.until_it_leads();
        let took = killed.elapsed();
        println!("leads again {took:?} after it was started again");
        assert!(later > term, "a new leader record");
        // The session of the dead one runs 6 s.
        assert!(took < Duration::from_secs(4), "{took:?}");
        // The group elects it later, without another record.
        again.until_it_logs("elected");
        assert_eq!(term_of(&status(&again.address)), Some(later), "it goes on leading");
    }
}

/// Where a standby was there, it is the group that decides in the end, and there is one leader.
#[test]
fn a_leader_that_returns_beside_a_standby_comes_to_rest_with_one_leader() {
    let folder = tempfile::tempdir().unwrap();
    let bootstrap = tidegate_tests::dev_kafka().bootstrap();
    let job = job_file(folder.path(), "clicks.yaml");
    let mut first = Coordinator::start(folder.path(), "first", &job, bootstrap);
    first.until_it_leads();
    let second = Coordinator::start(folder.path(), "second", &job, bootstrap);
    second.until_it_says("on standby");
    first.child.kill().unwrap();
    first.child.wait().unwrap();
    let again = Coordinator::start_at(folder.path(), "again", &job, bootstrap, &first.address);
    again.until_it_leads();
    // The session of the dead one runs out, and the group elects one of the two.
    let started = Instant::now();
    let elected = |one: &Coordinator| one.logged().contains("elected");
    while !elected(&again) && !elected(&second) {
        assert!(started.elapsed() < PATIENCE, "nobody is elected: {}", again.logged());
        thread::sleep(Duration::from_millis(20));
    }
    let (leads, stands_by) = if elected(&again) { (&again, &second) } else { (&second, &again) };
    let term = leads.until_it_leads();
    stands_by.until_it_says("on standby");
    assert_eq!(leads.until_it_leads(), term, "and there it rests");
}

fn apache_bootstrap() -> Option<&'static str> {
    Some(tidegate_tests::apache_kafka()?.bootstrap())
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
        Self::start_at(folder, name, job, bootstrap, &address)
    }

    fn start_at(folder: &Path, name: &str, job: &Path, bootstrap: &str, address: &str) -> Self {
        let log = folder.join(format!("{name}.log"));
        let child = Command::new(program("watermark-coordinator"))
            .args(["--job", job.to_str().unwrap(), "--kafka", bootstrap, "--listen", address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        Self { child, address: address.to_owned(), log }
    }

    fn logged(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    fn until_it_logs(&self, words: &str) {
        let started = Instant::now();
        while !self.logged().contains(words) {
            assert!(started.elapsed() < PATIENCE, "it never says `{words}`: {}", self.logged());
            thread::sleep(Duration::from_millis(20));
        }
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
            assert!(started.elapsed() < PATIENCE, "last: {said}; its log:\n{}", self.logged());
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
