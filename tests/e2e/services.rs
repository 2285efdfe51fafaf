//! The services one by one, as an operator runs them.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    path::PathBuf,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use tempfile::TempDir;
use tidegate_proto::v1::{self, coordinator_client::CoordinatorClient};
use tidegate_tests::free_port;

use crate::dev::signal_to;

/// No wait takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(120);
const TICK: Duration = Duration::from_millis(50);

/// The programs of one job; those that run are killed with this value.
pub struct Services {
    pub folder: TempDir,
    bootstrap: String,
    coordinator: String,
    children: BTreeMap<String, Child>,
    runtime: tokio::runtime::Runtime,
}

impl Services {
    /// Nothing runs yet; the job file is `job`.
    pub fn new(bootstrap: &str, job: &str) -> Self {
        let services = Self {
            folder: tempfile::tempdir().unwrap(),
            bootstrap: bootstrap.to_owned(),
            coordinator: format!("127.0.0.1:{}", free_port().unwrap()),
            children: BTreeMap::new(),
            runtime: tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap(),
        };
        services.set_job(job);
        services
    }

    /// Replaces the job file: for services that are started from now on.
    pub fn set_job(&self, job: &str) {
        fs::write(self.job(), job).unwrap();
    }

    fn job(&self) -> PathBuf {
        self.folder.path().join("job.yaml")
    }

    fn program(&self, binary: &str) -> Command {
        // For figures: those of another profile than the test's.
        let folder = std::env::var_os("PROGRAMS").map(PathBuf::from).unwrap_or_else(|| {
            let test = std::env::current_exe().unwrap();
            test.parent().and_then(std::path::Path::parent).unwrap().to_owned()
        });
        let path = folder.join(binary);
        assert!(path.exists(), "build the programs first: cargo build --workspace --bins (make test does)");
        let mut command = Command::new(path);
        command.stdin(Stdio::null());
        command
    }

    /// Starts coordinator, ingest and one worker.
    pub fn start_all(&mut self) {
        for name in ["watermark-coordinator", "ingest", "window-worker"] {
            self.start(name);
        }
    }

    /// Starts a service; workers are told apart by what follows `window-worker`.
    pub fn start(&mut self, name: &str) {
        self.start_with(name, &[]);
    }

    /// Starts a service with further flags.
    pub fn start_with(&mut self, name: &str, flags: &[&str]) {
        let is_worker = name.starts_with("window-worker");
        let mut command = self.program(if is_worker { "window-worker" } else { name });
        command.arg("--job").arg(self.job()).args(["--kafka", &self.bootstrap]);
        if name == "watermark-coordinator" {
            command.args(["--listen", &self.coordinator]);
        } else {
            command.args(["--coordinator", &self.coordinator]);
        }
        if is_worker {
            command.args(["--name", name]).arg("--state").arg(self.state_of(name));
        }
        command.args(flags);
        let log = File::options().create(true).append(true).open(self.log_of(name)).unwrap();
        let child = command.stdout(log.try_clone().unwrap()).stderr(log).spawn().unwrap();
        self.children.insert(name.to_owned(), child);
    }

    /// The directory of a worker's local store.
    pub fn state_of(&self, worker: &str) -> PathBuf {
        self.folder.path().join(format!("state-{worker}"))
    }

    /// Bytes of memory that a service has.
    pub fn resident_kib(&self, name: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.children[name].id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    /// Kills a service at once.
    pub fn kill(&mut self, name: &str) {
        let mut child = self.children.remove(name).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// What a service shows of itself.
    pub fn metrics(&self, name: &str) -> String {
        let log = self.log(name);
        let (_, address) = log.rsplit_once("serving metrics address=").unwrap();
        let mut connection = TcpStream::connect(address.split_whitespace().next().unwrap()).unwrap();
        connection.write_all(b"GET /metrics HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        connection.read_to_string(&mut text).unwrap();
        text
    }

    fn log_of(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// What a service has logged so far.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.log_of(name)).unwrap_or_default()
    }

    /// Where the coordinator listens.
    pub fn coordinator(&self) -> &str {
        &self.coordinator
    }

    /// The word that a service has last logged after `said`: an address.
    pub fn listens(&self, name: &str, said: &str) -> String {
        self.until_logged(name, said);
        let log = self.log(name);
        let (_, address) = log.rsplit_once(said).unwrap();
        address.split_whitespace().next().unwrap().to_owned()
    }

    /// Asks a service to stop; it has to do so well.
    pub fn stop(&mut self, name: &str) {
        signal_to(self.children[name].id(), "-TERM");
        assert_eq!(self.ended(name), Some(0), "{}", self.log(name));
    }

    /// Sends a service SIGTERM.
    pub fn terminate(&self, name: &str) {
        signal_to(self.children[name].id(), "-TERM");
    }

    /// Waits until a service has logged `text`.
    pub fn until_logged(&self, name: &str, text: &str) {
        let begun = Instant::now();
        while !self.log(name).contains(text) {
            assert!(begun.elapsed() < PATIENCE, "{name} never says `{text}`: {}", self.log(name));
            thread::sleep(TICK);
        }
    }

    /// Waits until a service has ended; its exit code.
    pub fn ended(&mut self, name: &str) -> Option<i32> {
        let begun = Instant::now();
        let mut child = self.children.remove(name).unwrap();
        loop {
            if let Some(status) = child.try_wait().unwrap() {
                return status.code();
            }
            if begun.elapsed() > PATIENCE {
                let _ = child.kill();
                panic!("{name} does not end; its log is\n{}", self.log(name));
            }
            thread::sleep(TICK);
        }
    }

    /// The process id of a service that runs.
    pub fn pid(&self, name: &str) -> u32 {
        self.children[name].id()
    }

    /// The services that have ended by themselves.
    pub fn dead(&mut self) -> Vec<String> {
        let children = self.children.iter_mut();
        children.filter_map(|(name, child)| child.try_wait().unwrap().map(|_| name.clone())).collect()
    }

    /// What the coordinator says, once it says something in which `wanted` finds something.
    pub fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(&v1::JobStatus) -> Option<T>) -> T {
        let begun = Instant::now();
        let mut last = None;
        while begun.elapsed() < PATIENCE {
            let dead = self.dead();
            assert!(dead.is_empty(), "{dead:?} ended: {}", self.log(&dead[0]));
            if let Some(status) = self.status() {
                if let Some(found) = wanted(&status) {
                    return found;
                }
                last = Some(status);
            }
            thread::sleep(TICK);
        }
        panic!("waited for {what}; the last status is {last:#?}\n{}", self.log("ingest"));
    }

    fn status(&self) -> Option<v1::JobStatus> {
        let address = format!("http://{}", self.coordinator);
        let asked = async {
            let mut client = CoordinatorClient::connect(address).await.ok()?;
            Some(client.status(v1::StatusRequest {}).await.ok()?.into_inner())
        };
        let bounded = async { tokio::time::timeout(Duration::from_secs(2), asked).await.ok()? };
        self.runtime.block_on(bounded)
    }

    /// Waits until so many records are covered and all that the watermark closes is committed; gives the watermark.
    pub fn until_covered(&mut self, records: u64, window_ms: i64) -> i64 {
        self.until(&format!("{records} records"), |status| {
            let watermark = status.announcement.as_ref()?.watermark_ms?;
            let shards: Vec<_> = status
                .workers
                .iter()
                .filter_map(|worker| worker.stats.as_ref())
                .flat_map(|s| &s.shards)
                .collect();
            let covered: u64 = shards.iter().map(|shard| shard.applied + shard.dead_lettered).sum();
            let last = status.partitions.iter().filter_map(|partition| partition.max_event_time_ms).max()?;
            let finished = watermark >= last + window_ms
                && shards.iter().all(|shard| shard.watermark_ms == Some(watermark));
            (covered == records && finished).then_some(watermark)
        })
    }

    /// Runs `tidegate` as an operator does, with the address of the coordinator.
    pub fn tidegate(&self, arguments: &[&str]) -> Output {
        self.program("tidegate").args(arguments).args(["--coordinator", &self.coordinator]).output().unwrap()
    }

    /// Runs `tidegate` on what the cluster holds of the job.
    pub fn tidegate_on_topics(&self, command: &str, flags: &[&str]) -> Output {
        self.program("tidegate").arg(command).args(self.topics()).args(flags).output().unwrap()
    }

    /// Flags that name the cluster and the job file.
    pub fn topics(&self) -> [String; 4] {
        let job = self.job().display().to_string();
        ["--kafka".to_owned(), self.bootstrap.clone(), "--job".to_owned(), job]
    }

    /// Compares with the batch answer; gives the verdict.
    pub fn verify(&self, watermark: i64) -> String {
        self.verify_with(watermark, &[])
    }

    /// The same with further flags.
    pub fn verify_with(&self, watermark: i64, flags: &[&str]) -> String {
        let watermark = watermark.to_string();
        let output = self.tidegate_on_topics("verify", &[&["--watermark", &watermark], flags].concat());
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{said}{}", String::from_utf8_lossy(&output.stderr));
        said
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        for child in self.children.values_mut() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
