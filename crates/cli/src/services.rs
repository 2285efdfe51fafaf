//! The three services as processes of this machine, on loopback.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use tidegate_kafka::Access;
use tidegate_runtime::tls;
use tokio::process::{Child, Command};

/// How long a service may take to stop cleanly before it is killed: more than its own bound.
const STOP: Duration = Duration::from_secs(25);

/// What the services of one job have in common.
#[derive(Clone, Debug)]
pub(crate) struct Deployment {
    /// The job file.
    pub(crate) job: PathBuf,
    /// The brokers.
    pub(crate) kafka: String,
    /// How to get into the cluster.
    pub(crate) access: Access,
    /// Mutual TLS between the services.
    pub(crate) tls: tls::Flags,
    /// Where logs and state go.
    pub(crate) folder: PathBuf,
    /// The coordinators' addresses, once they run.
    pub(crate) coordinators: Vec<SocketAddr>,
    /// What the services log.
    pub(crate) log: String,
    /// MiB of frames under way to a worker, if not ingest's own default.
    pub(crate) credit_mib: Option<u64>,
    /// Where ingests and workers send traces.
    pub(crate) otlp: Option<String>,
}

/// A running service.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its name, which is that of its log file.
    pub(crate) name: String,
    /// Where it serves its metrics.
    pub(crate) metrics: SocketAddr,
    child: Child,
    log: PathBuf,
}

impl Deployment {
    /// Starts the coordinators: `coordinator`, `coordinator-1`, …
    ///
    /// # Errors
    /// When a process cannot be started.
    pub(crate) fn start_coordinators(&self) -> Result<Vec<Service>> {
        (0..self.coordinators.len())
            .map(|number| match number {
                0 => self.start_coordinator("coordinator"),
                number => self.start_coordinator(&format!("coordinator-{number}")),
            })
            .collect()
    }

    /// Starts the coordinator of this name.
    ///
    /// # Errors
    /// When there is none, or the process cannot be started.
    pub(crate) fn start_coordinator(&self, name: &str) -> Result<Service> {
        let number = name.rsplit('-').next().and_then(|number| number.parse().ok()).unwrap_or(0_usize);
        let listen = self.coordinators.get(number).with_context(|| format!("there is no {name}"))?;
        self.start(name, "watermark-coordinator", &[format!("--listen={listen}")])
    }

    /// The flags that ingests and workers have in common.
    fn peers(&self) -> Vec<String> {
        let coordinators: Vec<_> = self.coordinators.iter().map(ToString::to_string).collect();
        let otlp = self.otlp.iter().map(|url| format!("--otlp={url}"));
        otlp.chain([format!("--coordinator={}", coordinators.join(","))]).collect()
    }

    /// Starts an ingest.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start_ingest(&self, name: &str) -> Result<Service> {
        let credit = self.credit_mib.map(|mib| format!("--credit-mib={mib}"));
        let arguments: Vec<_> = self.peers().into_iter().chain(credit).collect();
        self.start(name, "ingest", &arguments)
    }

    /// Starts a worker, which keeps its state in a folder of its name.
    ///
    /// # Errors
    /// When the process cannot be started.
    pub(crate) fn start_worker(&self, name: &str) -> Result<Service> {
        let state = self.folder.join("state").join(name);
        let state = state.to_str().context("the folder's name is not Unicode")?;
        let own = [format!("--name={name}"), format!("--state={state}")];
        let arguments: Vec<_> = self.peers().into_iter().chain(own).collect();
        self.start(name, "window-worker", &arguments)
    }

    fn start(&self, name: &str, binary: &str, arguments: &[String]) -> Result<Service> {
        let path = beside_this_program(binary)?;
        let metrics = free_address()?;
        let log = self.folder.join(format!("{name}.log"));
        let out = File::options().create(true).append(true).open(&log)?;
        let child = Command::new(&path)
            .args(arguments)
            .arg("--job")
            .arg(&self.job)
            .args(["--kafka", &self.kafka, "--log", &self.log])
            .args(["--metrics", &metrics.to_string()])
            .args(self.tls.arguments())
            .args(self.access.arguments())
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            // Ctrl-C reaches this program, which then stops the services in order.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", path.display()))?;
        Ok(Service { name: name.to_owned(), metrics, child, log })
    }
}

impl Service {
    /// The process id, while it runs.
    #[must_use]
    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Whether a signal has killed the process, as a crash or an operator does.
    ///
    /// # Errors
    /// When it has ended by itself, with the end of its log.
    pub(crate) fn was_killed(&mut self) -> Result<bool> {
        match self.child.try_wait()? {
            None => Ok(false),
            Some(status) if status.signal().is_some() => Ok(true),
            Some(status) => bail!("{} ended ({status}); the end of its log:\n{}", self.name, self.tail()),
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(12).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    /// Kills the process (`kill -9`), and waits; gives its name.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub(crate) async fn kill(mut self) -> Result<String> {
        self.child.kill().await?;
        Ok(self.name)
    }

    /// Asks the process to stop, and waits.
    ///
    /// # Errors
    /// When it cannot be signalled, or had to be killed.
    pub(crate) async fn stop(mut self) -> Result<ExitStatus> {
        if let Some(pid) = self.child.id() {
            let asked = Command::new("kill").args(["-TERM", &pid.to_string()]).status().await?;
            if !asked.success() {
                tracing::debug!(pid, "the service had ended already");
            }
        }
        match tokio::time::timeout(STOP, self.child.wait()).await {
            Ok(status) => Ok(status?),
            Err(_) => {
                self.child.kill().await?;
                bail!("{} did not stop within {} s and was killed", self.name, STOP.as_secs())
            }
        }
    }
}

/// A loopback address that was free a moment ago.
///
/// # Errors
/// When there is none.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?)
}

fn beside_this_program(binary: &str) -> Result<PathBuf> {
    let this = std::env::current_exe()?;
    let path = this.parent().map(|folder: &Path| folder.join(binary)).unwrap_or_default();
    if !path.exists() {
        bail!(
            "{} is missing: build all programs first, with `cargo build --workspace --bins`",
            path.display()
        );
    }
    Ok(path)
}
