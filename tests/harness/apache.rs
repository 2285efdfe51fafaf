//! A real Apache Kafka: one node, broker and controller in one process, on loopback.
//!
//! The jars come from Maven Central by name (`fetch-kafka.sh`); the process runs under `keeper.sh` and ends when the test
//! process ends, however that happens.

use std::fs;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tempfile::TempDir;

use crate::clients::client_config;
use crate::{IdentityProvider, Pem, Requirement};

const HARNESS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/harness");
const SETTINGS: &str = include_str!("kafka/server.properties");
const CLUSTER_ID: &str = "dGlkZWdhdGUtdGVzdHMtMA";
/// Start-up takes 1.5 to 2 seconds; this is for a machine busy with something else.
const START_TIMEOUT: Duration = Duration::from_secs(90);

/// Where a broker runs: on loopback, unless told otherwise.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it listens.
    pub address: IpAddr,
    /// The command that goes there and becomes the command behind it, with the same process id; none: it is here.
    pub enter: Vec<String>,
}

impl Default for Place {
    fn default() -> Self {
        Self { address: Ipv4Addr::LOCALHOST.into(), enter: Vec::new() }
    }
}

/// A second listener, over TLS, where clients have to show who they are.
#[derive(Clone, Debug)]
pub struct Secured<'a> {
    /// Its certificate and key.
    pub pem: &'a Pem,
    /// Who is let in, by SCRAM-SHA-256, SCRAM-SHA-512 or PLAIN.
    pub user: &'a str,
    /// Its password.
    pub password: &'a str,
    /// Whose tokens are good, by OAUTHBEARER, for as long as each says.
    pub tokens: &'a IdentityProvider,
}

/// A broker of its own for one test, which may stop it and start it again. Most tests share [`apache_kafka`].
#[derive(Debug)]
pub struct ApacheKafka {
    directory: TempDir,
    place: Place,
    libs: PathBuf,
    bootstrap: String,
    secured: Option<String>,
    /// Where the keys of the identity provider are.
    keys: Option<String>,
    process: Option<Process>,
}

/// The running broker. Dropping `leash` kills it.
#[derive(Debug)]
struct Process {
    keeper: Child,
    leash: ChildStdin,
    pid: u32,
}

/// The broker that the tests of one binary share, or `None` where the machine cannot run it (and that has been said).
///
/// # Panics
///
/// When it should run here and does not.
pub fn apache_kafka() -> Option<&'static ApacheKafka> {
    static SHARED: OnceLock<Result<Option<ApacheKafka>, String>> = OnceLock::new();
    let shared = SHARED.get_or_init(|| {
        if !ApacheKafka::can_run("the tests against Apache Kafka") {
            return Ok(None);
        }
        ApacheKafka::start().map(Some).map_err(|error| format!("{error:#}"))
    });
    match shared {
        Ok(broker) => broker.as_ref(),
        Err(error) => panic!("Apache Kafka did not start: {error}"),
    }
}

impl ApacheKafka {
    /// Whether the machine has what [`start`](Self::start) needs; if not, says that `what` is skipped.
    pub fn can_run(what: &str) -> bool {
        Requirement::all_met(&[Requirement::Java, Requirement::Maven], what)
    }

    /// Fetches what [`start`](Self::start) runs, where it is not there yet: the only step that needs a way to the outside.
    pub fn prepare() -> Result<()> {
        fetch().map(drop)
    }

    /// Starts an empty broker and returns once it answers.
    pub fn start() -> Result<Self> {
        Self::start_in(Place::default())
    }

    /// Starts an empty broker with further settings, a line each.
    pub fn start_with(settings: &str) -> Result<Self> {
        Self::start_as(Place::default(), settings, None)
    }

    /// Starts an empty broker that has a secured listener as well: [`secured_bootstrap`](Self::secured_bootstrap).
    pub fn start_secured(secured: &Secured<'_>) -> Result<Self> {
        Self::start_as(Place::default(), "", Some(secured))
    }

    /// The same in another place.
    pub fn start_in(place: Place) -> Result<Self> {
        Self::start_as(place, "", None)
    }

    fn start_as(place: Place, settings: &str, secured: Option<&Secured<'_>>) -> Result<Self> {
        let libs = fetch()?;
        let directory = tempfile::Builder::new().prefix("tidegate-kafka-").tempdir()?;
        let [port, controller] = [free_port()?, free_port()?];
        let bootstrap = format!("{}:{port}", place.address);
        let secured_bootstrap = match secured {
            Some(_) => Some(format!("{}:{}", place.address, free_port()?)),
            None => None,
        };
        let (settings, secured_listener) = match (secured, &secured_bootstrap) {
            (Some(secured), Some(address)) => {
                (secured.settings(directory.path())?, format!(",SASL_SSL://{address}"))
            }
            _ => (settings.to_owned(), String::new()),
        };
        let properties = format!(
            "{SETTINGS}\n{settings}\n\
             listeners=PLAINTEXT://{bootstrap}{secured_listener},CONTROLLER://127.0.0.1:{controller}\n\
             advertised.listeners=PLAINTEXT://{bootstrap}{secured_listener}\n\
             controller.quorum.voters=1@127.0.0.1:{controller}\n\
             log.dirs={}\n",
            directory.path().join("data").display(),
        );
        fs::write(directory.path().join("server.properties"), properties)?;

        let keys = secured.map(|secured| secured.tokens.keys_url());
        let mut broker =
            Self { directory, place, libs, bootstrap, secured: secured_bootstrap, keys, process: None };
        broker.format(secured)?;
        broker.run()?;
        broker.wait_until_ready()?;
        Ok(broker)
    }

    /// `host:port` for clients; stays the same over [`restart`](Self::restart).
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// `host:port` of the listener that [`start_secured`](Self::start_secured) adds; without it, the plain one.
    pub fn secured_bootstrap(&self) -> &str {
        self.secured.as_deref().unwrap_or(&self.bootstrap)
    }

    /// The process id of the Java process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(|process| process.pid)
    }

    /// What the broker warned of so far.
    pub fn log(&self) -> String {
        fs::read_to_string(self.directory.path().join("log")).unwrap_or_default()
    }

    /// Its data and log outlive it; gives the folder.
    pub fn keep(&mut self) -> &Path {
        self.directory.disable_cleanup(true);
        self.directory.path()
    }

    /// Asks the broker to shut down and waits until it has; may take some seconds.
    pub fn stop(&mut self) -> Result<()> {
        self.end("TERM")
    }

    /// Kills the broker as `kill -9` does.
    ///
    /// A single node that is killed between the answer to a commit and the writing of its markers, and started again, may
    /// forget the markers (4.3.1: in 4 of 12 trials of a commit right after [`resume`](Self::resume); the coordinator finds
    /// no leader for the partition while its forerunner's session runs out, takes the topic for deleted and calls the
    /// transaction complete). The last stable offset of the partition then stands still for good. A test that is not
    /// about this waits until a committed reader has seen the records.
    pub fn kill(&mut self) -> Result<()> {
        self.end("KILL")
    }

    /// Starts the broker again on the same port and data, after killing it if it still runs.
    pub fn restart(&mut self) -> Result<()> {
        self.restart_without_waiting()?;
        self.wait_until_ready()
    }

    /// The same, and does not wait for it to answer: it may be where nobody hears it.
    pub fn restart_without_waiting(&mut self) -> Result<()> {
        if self.process.is_some() {
            self.kill()?;
        }
        self.run()
    }

    /// Halts the process: connections stay open and nothing answers.
    pub fn freeze(&self) -> Result<()> {
        self.signal("STOP")
    }

    /// Lets a frozen process go on.
    pub fn resume(&self) -> Result<()> {
        self.signal("CONT")
    }

    fn format(&self, secured: Option<&Secured<'_>>) -> Result<()> {
        let mut java = self.java("kafka.tools.StorageTool");
        java.arg("format");
        if let Some(Secured { user, password, .. }) = secured {
            for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
                java.arg("--add-scram").arg(format!("{mechanism}=[name={user},password={password}]"));
            }
        }
        let output = java
            .args(["--cluster-id", CLUSTER_ID, "--config"])
            .arg(self.directory.path().join("server.properties"))
            .output()
            .context("run java")?;
        ensure!(output.status.success(), "format the storage: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let java = self.java("kafka.Kafka");
        let mut keeper = Command::new("sh")
            .arg(Path::new(HARNESS).join("keeper.sh"))
            .arg(self.directory.path())
            .args(&self.place.enter)
            .arg(java.get_program())
            .args(java.get_args())
            .arg(self.directory.path().join("server.properties"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // A group of its own: Ctrl-C is for the tests, which take the broker with them.
            .process_group(0)
            .spawn()
            .context("run sh")?;
        let leash = keeper.stdin.take().context("the keeper has no standard input")?;
        let stdout = keeper.stdout.take().context("the keeper has no standard output")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let pid = line.trim().parse().with_context(|| format!("process id of the broker: {line:?}"))?;
        self.process = Some(Process { keeper, leash, pid });
        Ok(())
    }

    /// Waits until the broker answers.
    pub fn wait_until_ready(&mut self) -> Result<()> {
        let client: BaseConsumer = client_config(&self.bootstrap).create()?;
        let deadline = Instant::now() + START_TIMEOUT;
        loop {
            let answer = client.fetch_metadata(None, Duration::from_millis(500));
            if answer.is_ok_and(|metadata| !metadata.brokers().is_empty()) {
                return Ok(());
            }
            let process = self.process.as_mut().context("the broker is stopped")?;
            if let Some(status) = process.keeper.try_wait()? {
                self.process = None;
                bail!("the broker ended by itself ({status}): {}", self.log());
            }
            ensure!(
                Instant::now() < deadline,
                "no answer from the broker in {START_TIMEOUT:?}: {}",
                self.log()
            );
        }
    }

    fn end(&mut self, signal: &str) -> Result<()> {
        let mut process = self.process.take().context("the broker is stopped already")?;
        writeln!(process.leash, "{signal}\nCONT")?;
        // The leash must outlive the process, or the keeper takes the data for abandoned.
        process.keeper.wait()?;
        Ok(())
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let pid = self.pid().context("the broker is stopped")?;
        let status = Command::new("kill").arg(format!("-{signal}")).arg(pid.to_string()).status()?;
        ensure!(status.success(), "kill -{signal} {pid}: {status}");
        Ok(())
    }

    /// `java` with the class path of the broker, set to start quickly and stay small.
    fn java(&self, class: &str) -> Command {
        let mut command = Command::new("java");
        command
            .args(["-Xms64m", "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto"])
            .arg("-Dorg.slf4j.simpleLogger.defaultLogLevel=warn")
            // The brokers go to no place that is not named here.
            .args(
                self.keys
                    .iter()
                    .map(|keys| format!("-Dorg.apache.kafka.sasl.oauthbearer.allowed.urls={keys}")),
            )
            .arg("-cp")
            .arg(self.libs.join("*"))
            .arg(class);
        command
    }
}

impl Secured<'_> {
    fn settings(&self, directory: &Path) -> Result<String> {
        const SECURITY: &str = "org.apache.kafka.common.security";
        let keystore = directory.join("keystore.pem");
        let both = format!("{}{}", fs::read_to_string(&self.pem.key)?, fs::read_to_string(&self.pem.cert)?);
        fs::write(&keystore, both)?;
        let (user, password, tokens) = (self.user, self.password, self.tokens);
        let listener = "listener.name.sasl_ssl";
        let bearer = "listener.name.sasl_ssl.oauthbearer";
        Ok([
            "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL".to_owned(),
            "sasl.enabled.mechanisms=SCRAM-SHA-256,SCRAM-SHA-512,PLAIN,OAUTHBEARER".to_owned(),
            format!("{listener}.scram-sha-256.sasl.jaas.config={SECURITY}.scram.ScramLoginModule required;"),
            format!("{listener}.scram-sha-512.sasl.jaas.config={SECURITY}.scram.ScramLoginModule required;"),
            format!(
                "{listener}.plain.sasl.jaas.config={SECURITY}.plain.PlainLoginModule required user_{user}=\"{password}\";"
            ),
            format!("{bearer}.sasl.jaas.config={SECURITY}.oauthbearer.OAuthBearerLoginModule required;"),
            format!("{bearer}.sasl.server.callback.handler.class={SECURITY}.oauthbearer.OAuthBearerValidatorCallbackHandler"),
            format!("{bearer}.sasl.oauthbearer.jwks.endpoint.url={}", tokens.keys_url()),
            format!("{bearer}.sasl.oauthbearer.expected.issuer={}", IdentityProvider::ISSUER),
            format!("{bearer}.sasl.oauthbearer.expected.audience={}", IdentityProvider::AUDIENCE),
            format!("{bearer}.sasl.oauthbearer.clock.skew.seconds=0"),
            // Whoever does not show a new token before the old one has run out is cut off.
            format!("{bearer}.connections.max.reauth.ms=3600000"),
            "ssl.keystore.type=PEM".to_owned(),
            format!("ssl.keystore.location={}", keystore.display()),
        ]
        .join("\n"))
    }
}

impl Drop for ApacheKafka {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.leash);
            let _ = process.keeper.wait();
        }
    }
}

fn fetch() -> Result<PathBuf> {
    let output =
        Command::new("sh").arg(Path::new(HARNESS).join("fetch-kafka.sh")).output().context("run sh")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "fetch Apache Kafka through Maven: {said}");
    // Maven may print on standard output as well; the folder is the last line.
    let stdout = String::from_utf8(output.stdout)?;
    stdout.lines().last().map(PathBuf::from).context("fetch-kafka.sh named no folder")
}

/// A port below the range that outgoing connections are given: there, a client that keeps trying to reconnect to a stopped
/// broker would some day be connected to itself, and hold the port.
pub fn free_port() -> Result<u16> {
    let taken = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_err();
    let random = || 15_000 + u16::try_from(RandomState::new().hash_one(()) % 15_000).unwrap_or(0);
    std::iter::repeat_with(random)
        .take(100)
        .find(|port| !taken(port))
        .context("no free port between 15000 and 30000")
}
