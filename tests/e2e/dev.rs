//! Runs `tidegate dev` and looks at what it prints.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_tests::clients::unique;

/// No run takes longer, however slow the machine.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Which broker a run is on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broker {
    Embedded,
    Apache,
}

impl Broker {
    /// The arguments for it; `None` where Apache Kafka is skipped (which has been said).
    pub fn arguments(self) -> Option<Vec<String>> {
        match self {
            Self::Embedded => Some(vec![]),
            Self::Apache => Some(vec!["--kafka".into(), tidegate_tests::apache_kafka()?.bootstrap().into()]),
        }
    }
}

/// A job of the documentation under names of its own, so that runs on one broker do not meet.
pub fn job_file(folder: &Path, job: &str) -> PathBuf {
    let text = fs::read_to_string(root().join("docs/jobs").join(job)).unwrap();
    let own = unique("e2e");
    let renamed: Vec<String> = text
        .lines()
        .map(|line| {
            let Some(at) = ["name: ", "topic: "].iter().find_map(|key| {
                let at = line.find(key)?;
                // Names of aggregates are `- { name: …`.
                (!line.contains("fn:")).then_some(at + key.len())
            }) else {
                return line.to_owned();
            };
            format!("{}{own}-{}", &line[..at], &line[at..])
        })
        .collect();
    let path = folder.join("job.yaml");
    fs::write(&path, renamed.join("\n")).unwrap();
    path
}

pub fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// A program of the workspace.
pub fn program(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let binary = test.parent().and_then(Path::parent).unwrap().join(name);
    assert!(binary.exists(), "build the programs first: cargo build --workspace --bins (make test does)");
    binary
}

/// A run under way.
pub struct Run {
    child: Child,
    lines: mpsc::Receiver<String>,
    pub seen: Vec<String>,
    pub folder: TempDir,
    started: Instant,
}

/// A run that has ended.
pub struct Ended {
    pub code: Option<i32>,
    pub lines: Vec<String>,
    /// Kept until the test has read what the run wrote.
    folder: TempDir,
}

impl Run {
    /// Starts `tidegate dev` with its logs in a folder of the test.
    pub fn start(folder: TempDir, arguments: &[String]) -> Self {
        let mut child = Command::new(program("tidegate"))
            .arg("dev")
            .args(["--folder", folder.path().join("run").to_str().unwrap()])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let out: Box<dyn Read + Send> = Box::new(child.stdout.take().unwrap());
        let err: Box<dyn Read + Send> = Box::new(child.stderr.take().unwrap());
        for pipe in [out, err] {
            let sender = sender.clone();
            thread::spawn(move || {
                for line in BufReader::new(pipe).lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            });
        }
        Self { child, lines, seen: Vec::new(), folder, started: Instant::now() }
    }

    /// Waits for a line that `wanted` takes.
    pub fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&str) -> Option<T>) -> T {
        loop {
            match self.lines.recv_timeout(PATIENCE.saturating_sub(self.started.elapsed())) {
                Ok(line) => {
                    let found = wanted(&line);
                    self.seen.push(line);
                    if let Some(found) = found {
                        return found;
                    }
                }
                Err(_) => {
                    let _ = self.child.kill();
                    panic!("no line with {what}; the lines were:\n{}\n{}", self.seen.join("\n"), self.logs())
                }
            }
        }
    }

    /// Waits until ingest has begun to read: from then on frames, commits and results are under way.
    pub fn until_reading(&self) {
        self.until_logged("ingest-0", &["reading from here"]);
    }

    /// Where a service shows its metrics.
    pub fn metrics_of(&self, name: &str) -> String {
        self.logged(name, "serving metrics address=")
    }

    /// The word that a service has last logged after `said`.
    pub fn logged(&self, name: &str, said: &str) -> String {
        self.until_logged(name, &[said, "\n"]);
        let log = fs::read_to_string(self.folder.path().join("run").join(format!("{name}.log"))).unwrap();
        let (_, word) = log.rsplit_once(said).unwrap();
        word.split_whitespace().next().unwrap().to_owned()
    }

    /// Waits until the service of this name has logged these, one after another.
    pub fn until_logged(&self, name: &str, texts: &[&str]) {
        let log = self.folder.path().join("run").join(format!("{name}.log"));
        let logged =
            |log: &str| texts.iter().try_fold(log, |rest, text| Some(rest.split_once(text)?.1)).is_some();
        while !logged(&fs::read_to_string(&log).unwrap_or_default()) {
            assert!(self.started.elapsed() < PATIENCE, "{name} does not log {texts:?}: {}", self.logs());
            thread::sleep(Duration::from_millis(2));
        }
    }

    /// Takes the lines that have been printed by now.
    pub fn catch_up(&mut self) {
        self.seen.extend(self.lines.try_iter());
    }

    /// The process id that the line "started NAME pid N" tells.
    pub fn pid_of(&mut self, name: &str) -> u32 {
        let start = format!("started {name} pid ");
        self.until(&start, |line| line.strip_prefix(&start)?.parse().ok())
    }

    /// Sends a signal to `tidegate dev` itself.
    pub fn signal(&self, signal: &str) {
        signal_to(self.child.id(), signal);
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        while let Ok(line) = self.lines.recv_timeout(PATIENCE.saturating_sub(self.started.elapsed())) {
            self.seen.push(line);
        }
        if self.child.try_wait().unwrap().is_none() && self.started.elapsed() >= PATIENCE {
            let _ = self.child.kill();
            panic!("the run did not end; the lines were:\n{}\n{}", self.seen.join("\n"), self.logs());
        }
        let code = self.child.wait().unwrap().code();
        Ended { code, lines: self.seen, folder: self.folder }
    }

    fn logs(&self) -> String {
        logs(self.folder.path())
    }
}

/// The ends of the services' logs.
fn logs(folder: &Path) -> String {
    let mut text = String::new();
    for entry in fs::read_dir(folder.join("run")).into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "log") {
            let log = fs::read_to_string(entry.path()).unwrap_or_default();
            let tail: Vec<_> = log.lines().rev().take(15).collect();
            text += &format!("--- {}\n", entry.path().display());
            text += &tail.into_iter().rev().collect::<Vec<_>>().join("\n");
            text.push('\n');
        }
    }
    text
}

impl Ended {
    /// Where the run has written.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Asserts a clean end with nothing different, and gives `records`, `windows`, `dead_letters` of the last line.
    pub fn verified(&self) -> [u64; 3] {
        let last = self.lines.iter().rfind(|line| line.starts_with("verified: "));
        let all = self.lines.join("\n");
        let last = last.unwrap_or_else(|| panic!("no verdict:\n{all}\n{}", logs(self.folder.path())));
        assert!(last.ends_with(" mismatches=0"), "{all}");
        assert_eq!(self.code, Some(0), "{all}");
        ["records=", "windows=", "dead_letters="]
            .map(|name| last.split(' ').find_map(|word| word.strip_prefix(name)?.parse().ok()).unwrap())
    }
}

/// Sends a signal to one process.
pub fn signal_to(pid: u32, signal: &str) {
    let status = Command::new("kill").args([signal, &pid.to_string()]).status().unwrap();
    assert!(status.success(), "kill {signal} {pid}");
}

/// Whether the process is there.
pub fn is_running(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
    state.is_some_and(|state| state != 'Z')
}

/// Runs a job over the flights, as [`over`] does.
pub fn over_flights(
    folder: TempDir,
    job: &Path,
    broker: Broker,
    workers: u32,
    killed: Option<&str>,
) -> Option<Ended> {
    over("flights/flights.ndjson.gz", folder, job, broker, workers, killed)
}

/// Runs a job over a file of `tests/data` to its end and verifies it, a process killed in the middle; `None` where there is no such
/// broker here. Results and dead letters are in `output.ndjson` and `letters.ndjson` of the folder, which is there as long as the answer is.
pub fn over(
    input: &str,
    folder: TempDir,
    job: &Path,
    broker: Broker,
    workers: u32,
    killed: Option<&str>,
) -> Option<Ended> {
    let mut arguments = broker.arguments()?;
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let input = root().join("tests/data").join(input);
    let (output, letters) = (folder.path().join("output.ndjson"), folder.path().join("letters.ndjson"));
    arguments.extend(["--job".into(), text(job), "--input".into(), text(&input)]);
    arguments.extend(["--output".into(), text(&output), "--dead-letters".into(), text(&letters)]);
    arguments.extend(["--workers".into(), workers.to_string(), "--verify".into()]);
    let mut run = Run::start(folder, &arguments);
    if let Some(name) = killed {
        let pid = run.pid_of(name);
        run.until_reading();
        signal_to(pid, "-KILL");
        run.until("again", |line| line.starts_with(&format!("started {name} again")).then_some(()));
    }
    Some(run.end())
}
