//! Kafka over TLS with SASL, on a real Apache Kafka: a job runs, a wrong password is an error, and nothing shows the right one.

use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tidegate_tests::{ApacheKafka, Authority, Pem, Secured};

use crate::dev::{Run, job_file, program};

const USER: &str = "tidegate-user";
const PASSWORD: &str = "a-word-that-nobody-is-to-read";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Whatever a command waits for, it is not to be refused for longer.
const NO_HANG: Duration = Duration::from_secs(60);

/// A broker that lets in who has the password, and the files that go with it.
struct Fortress {
    folder: TempDir,
    pem: Pem,
    broker: ApacheKafka,
}

impl Fortress {
    fn start(what: &str) -> Option<Self> {
        if !ApacheKafka::can_run(what) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let pem = Authority::new("brokers").issue(&folder.path().join("broker"), HERE);
        let secured = Secured { pem: &pem, user: USER, password: PASSWORD };
        let broker = ApacheKafka::start_secured(&secured).unwrap();
        Some(Self { folder, pem, broker })
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The flags of a client that is let in where `password` is the right one.
    fn flags(&self, mechanism: &str, password: &str) -> Vec<String> {
        let file = self.file(&format!("password-{}", password.len()), &format!("{password}\n"));
        [
            "--kafka",
            self.broker.secured_bootstrap(),
            "--kafka-security-protocol",
            "sasl_ssl",
            "--kafka-tls-ca",
            &self.pem.ca.display().to_string(),
            "--kafka-sasl-mechanism",
            mechanism,
            "--kafka-sasl-username",
            USER,
            "--kafka-sasl-password-file",
            &file,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    fn job(&self) -> String {
        job_file(self.folder.path(), "clicks.yaml").display().to_string()
    }
}

fn run(binary: &str, arguments: &[&str], flags: &[String]) -> Output {
    let begun = Instant::now();
    let output = Command::new(program(binary)).args(arguments).args(flags).stdin(Stdio::null()).output();
    assert!(begun.elapsed() < NO_HANG, "{binary} took {:?}", begun.elapsed());
    output.unwrap()
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// All that is written in a folder and below.
fn everything_in(folder: &Path) -> String {
    let mut all = String::new();
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let path = entry.path();
        if path.is_dir() {
            all.push_str(&everything_in(&path));
        } else {
            all.push_str(&String::from_utf8_lossy(&fs::read(&path).unwrap()));
        }
    }
    all
}

#[test]
fn a_job_runs_over_tls_and_scram_between_services_with_certificates_and_nothing_shows_the_password() {
    let Some(fortress) = Fortress::start("the test of Kafka over TLS and SASL") else { return };
    let job = fortress.job();
    let folder = TempDir::new().unwrap();
    let certificates = Authority::new("services").issue(&fortress.folder.path().join("services"), HERE);
    // As talkative as it gets.
    let config = fortress.file("kafka.properties", "debug=security,broker\n");
    let mut arguments: Vec<String> =
        ["--job", &job, "--events", "20000", "--verify", "--kafka-config", &config, "--log", "debug"]
            .map(str::to_owned)
            .to_vec();
    arguments.extend(fortress.flags("SCRAM-SHA-512", PASSWORD));
    arguments.extend(certificates.arguments());
    let run = Run::start(folder, &arguments);
    let ended = run.end();
    let all = everything_in(ended.folder());
    assert!(all.contains("SCRAM-SHA-512"), "the logs tell of the handshakes");
    assert!(!all.contains(PASSWORD), "a log or a file of the run shows the password");
    assert_eq!(ended.code, Some(0), "{}", ended.lines.join("\n"));
    assert!(ended.lines.iter().any(|line| line.contains("mismatches=0")), "{}", ended.lines.join("\n"));
    assert!(!ended.lines.join("\n").contains(PASSWORD));
}

#[test]
fn whoever_is_not_let_in_hears_why_at_once_whatever_the_command() {
    let Some(fortress) = Fortress::start("the test of a wrong password") else { return };
    let job = fortress.job();
    for (mechanism, said) in [("SCRAM-SHA-256", "SCRAM-SHA-256"), ("PLAIN", "Invalid username or password")] {
        let wrong = fortress.flags(mechanism, "not-the-password");
        let output = run("watermark-coordinator", &["--job", &job, "--listen", "127.0.0.1:0"], &wrong);
        let said_all = text(&output);
        assert_eq!(output.status.code(), Some(1), "{said_all}");
        assert!(said_all.contains("--kafka-sasl-") && said_all.contains(said), "{said_all}");
    }
    let wrong = fortress.flags("SCRAM-SHA-512", "not-the-password");
    for arguments in [
        vec!["check", &job],
        vec!["verify", "--job", &job, "--watermark", "0"],
        vec!["profile", "clicks", "--event-time", "record_timestamp"],
        vec!["clicks"],
        vec!["dev", "--job", &job, "--events", "10"],
    ] {
        let output = run("tidegate", &arguments, &wrong);
        let said = text(&output);
        assert!(!output.status.success() && said.contains("--kafka-sasl-"), "{arguments:?}: {said}");
        assert!(!said.contains("not-the-password"), "{arguments:?}: {said}");
    }

    // The right password, and brokers that we have no reason to trust.
    let mut strange = fortress.flags("SCRAM-SHA-512", PASSWORD);
    let other = Authority::new("others").issue(&fortress.folder.path().join("others"), HERE);
    strange[5] = other.ca.display().to_string();
    let output = run("watermark-coordinator", &["--job", &job, "--listen", "127.0.0.1:0"], &strange);
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("certificate"), "{said}");
    assert!(!said.contains(PASSWORD), "{said}");
}

#[test]
fn every_mechanism_lets_in_and_print_config_shows_no_password() {
    let Some(fortress) = Fortress::start("the test of SASL mechanisms") else { return };
    let job = fortress.job();
    for mechanism in ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] {
        let flags = fortress.flags(mechanism, PASSWORD);
        let said = text(&run("tidegate", &["check", &job], &flags));
        assert!(said.contains("broker answers"), "{mechanism}: {said}");
    }
    // By a token that librdkafka makes itself: what signs tokens is beyond this test.
    let token = fortress.file(
        "token.properties",
        "enable.sasl.oauthbearer.unsecure.jwt=true\nsasl.oauthbearer.config=principal=tidegate\n",
    );
    let mut flags = fortress.flags("OAUTHBEARER", PASSWORD);
    flags.truncate(8);
    flags.extend(["--kafka-config".to_owned(), token]);
    let said = text(&run("tidegate", &["check", &job], &flags));
    assert!(said.contains("broker answers"), "OAUTHBEARER: {said}");

    let flags = fortress.flags("SCRAM-SHA-512", PASSWORD);
    for service in ["watermark-coordinator", "ingest", "window-worker"] {
        let said = text(&run(service, &["--job", &job, "--print-config"], &flags));
        let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(shown["kafka_sasl_username"], USER);
        assert_eq!(shown["kafka_security_protocol"], "sasl_ssl");
        assert!(!said.contains(PASSWORD), "{said}");
    }
}
