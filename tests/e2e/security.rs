//! Kafka over TLS with SASL, on a real Apache Kafka: a job runs, a wrong password is an error, and nothing shows the right one. The
//! same with the tokens of an identity provider.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use tempfile::TempDir;
use tidegate_kafka::{Access, Error, TransactionOptions, TransactionalProducer};
use tidegate_tests::{ApacheKafka, Authority, IdentityProvider, Pem, Secured};

use crate::dev::{Run, job_file, program, signal_to};

const USER: &str = "tidegate-user";
const PASSWORD: &str = "a-word-that-nobody-is-to-read";
const CLIENT: &str = "tidegate-client";
const SECRET: &str = "a-secret-that-nobody-is-to-read";
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// Whatever a command waits for, it is not to be refused for longer.
const NO_HANG: Duration = Duration::from_secs(60);

/// A broker that lets in who has the password, and the files that go with it.
struct Fortress {
    folder: TempDir,
    pem: Pem,
    tokens: IdentityProvider,
    broker: ApacheKafka,
}

impl Fortress {
    fn start(what: &str) -> Option<Self> {
        if !ApacheKafka::can_run(what) {
            return None;
        }
        let folder = tempfile::tempdir().unwrap();
        let pem = Authority::new("brokers").issue(&folder.path().join("broker"), HERE);
        let tokens = IdentityProvider::start(&pem, CLIENT, SECRET).unwrap();
        let secured = Secured { pem: &pem, user: USER, password: PASSWORD, tokens: &tokens };
        let broker = ApacheKafka::start_secured(&secured).unwrap();
        Some(Self { folder, pem, tokens, broker })
    }

    fn file(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// The flags of a client that is let in where `password` is the right one.
    fn flags(&self, mechanism: &str, password: &str) -> Vec<String> {
        let file = self.file(&format!("password-{}", password.len()), &format!("{password}\n"));
        let mut flags = self.sasl(mechanism);
        flags.extend(["--kafka-sasl-username", USER, "--kafka-sasl-password-file", &file].map(str::to_owned));
        flags
    }

    /// The flags of a client that gets its tokens at `endpoint`, where `secret` is the right one.
    fn token_flags(&self, endpoint: &str, secret: &str) -> Vec<String> {
        let file = self.file(&format!("secret-{}", secret.len()), &format!("{secret}\n"));
        let ca = self.pem.ca.display().to_string();
        let mut flags = self.sasl("OAUTHBEARER");
        let more =
            ["--kafka-oauth-endpoint", endpoint, "--kafka-oauth-ca", &ca, "--kafka-oauth-scope", "streams"];
        flags.extend(more.map(str::to_owned));
        let who = ["--kafka-oauth-client-id", CLIENT, "--kafka-oauth-client-secret-file", &file];
        flags.extend(who.map(str::to_owned));
        flags
    }

    fn sasl(&self, mechanism: &str) -> Vec<String> {
        [
            "--kafka",
            self.broker.secured_bootstrap(),
            "--kafka-security-protocol",
            "sasl_ssl",
            "--kafka-tls-ca",
            &self.pem.ca.display().to_string(),
            "--kafka-sasl-mechanism",
            mechanism,
        ]
        .map(str::to_owned)
        .to_vec()
    }

    /// A producer with these flags.
    fn producer(flags: &[String]) -> TransactionalProducer {
        let flags = Flags::try_parse_from(["client"].into_iter().chain(flags.iter().map(String::as_str)));
        let Flags { kafka, access } = flags.unwrap();
        let config = access.config(&kafka, "client").unwrap();
        TransactionalProducer::open(&config, "client", TransactionOptions::default()).unwrap()
    }

    fn job(&self) -> String {
        job_file(self.folder.path(), "clicks.yaml").display().to_string()
    }
}

#[derive(Parser)]
struct Flags {
    #[arg(long)]
    kafka: String,
    #[command(flatten)]
    access: Access,
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
    let tokens = fortress.token_flags(&fortress.tokens.endpoint(), SECRET);
    let said = text(&run("tidegate", &["check", &job], &tokens));
    assert!(said.contains("broker answers"), "OAUTHBEARER: {said}");
    // One that nobody has signed.
    let token = fortress.file(
        "token.properties",
        "enable.sasl.oauthbearer.unsecure.jwt=true\nsasl.oauthbearer.config=principal=tidegate\n",
    );
    let mut unsigned = fortress.sasl("OAUTHBEARER");
    unsigned.extend(["--kafka-config".to_owned(), token]);
    let output = run("tidegate", &["check", &job], &unsigned);
    let said = text(&output);
    assert!(!output.status.success() && said.contains("--kafka-oauth-"), "{said}");

    let flags = fortress.flags("SCRAM-SHA-512", PASSWORD);
    for service in ["watermark-coordinator", "ingest", "window-worker"] {
        let said = text(&run(service, &["--job", &job, "--print-config"], &flags));
        let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(shown["kafka_sasl_username"], USER);
        assert_eq!(shown["kafka_security_protocol"], "sasl_ssl");
        assert!(!said.contains(PASSWORD), "{said}");
        let said = text(&run(service, &["--job", &job, "--print-config"], &tokens));
        let shown: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(shown["kafka_oauth_endpoint"], fortress.tokens.endpoint());
        assert_eq!(shown["kafka_oauth_client_id"], CLIENT);
        assert!(!said.contains(SECRET), "{said}");
    }
}

#[test]
fn a_job_runs_on_tokens_that_run_out_and_are_renewed_and_nothing_shows_secret_or_token() {
    let Some(fortress) = Fortress::start("the test of tokens of an identity provider") else { return };
    const LIFETIME: Duration = Duration::from_secs(3);
    fortress.tokens.set_lifetime(LIFETIME);
    let job = fortress.job();
    let config = fortress.file("kafka.properties", "debug=security,broker\n");
    let mut arguments: Vec<String> =
        ["--job", &job, "--verify", "--events", "400000", "--kafka-config", &config, "--log", "debug"]
            .map(str::to_owned)
            .to_vec();
    arguments.extend(fortress.token_flags(&fortress.tokens.endpoint(), SECRET));
    let begun = Instant::now();
    let ended = Run::start(TempDir::new().unwrap(), &arguments).end();
    let took = begun.elapsed();
    let [records, ..] = ended.verified();
    assert_eq!(records, 400_000);
    let lines = ended.lines.join("\n");
    assert!(took > LIFETIME * 2, "it took {took:?}: no token had to be renewed");
    assert!(fortress.tokens.requests().iter().all(|body| body.contains("scope=streams")));
    let all = everything_in(ended.folder());
    assert!(all.contains("OAUTHBEARER"), "the logs tell of the handshakes");
    // Every JSON Web Token begins so.
    for (what, secret) in [("secret", SECRET), ("token", "eyJ")] {
        assert!(
            !all.contains(secret) && !lines.contains(secret),
            "a log or a file of the run shows a {what}"
        );
    }
}

#[test]
fn a_refused_token_is_a_refusal_only_where_a_new_one_is_refused_too() {
    let Some(fortress) = Fortress::start("the test of a token that brokers refuse") else { return };
    const LIFETIME: Duration = Duration::from_secs(30);
    const PATIENCE: Duration = Duration::from_secs(3);
    fortress.tokens.set_lifetime(LIFETIME);
    fortress.tokens.set_issuer("https://elsewhere.example");
    let flags = fortress.token_flags(&fortress.tokens.endpoint(), SECRET);
    let refused = Fortress::producer(&flags).init(PATIENCE).unwrap_err();
    assert!(matches!(refused, Error::Denied { .. }) && !refused.is_retriable(), "{refused:?}");

    let (given, begun) = (fortress.tokens.given(), Instant::now());
    let mut producer = Fortress::producer(&flags);
    while fortress.tokens.given() == given {
        assert!(begun.elapsed() < NO_HANG, "no token was asked for");
        thread::sleep(Duration::from_millis(10));
    }
    // The producer has a token of the wrong issuer, and whoever asks for one now gets a right one.
    fortress.tokens.set_issuer(IdentityProvider::ISSUER);
    let passing = producer.init(PATIENCE).unwrap_err();
    assert!(matches!(passing, Error::Unreachable { .. }) && passing.is_retriable(), "{passing:?}");
    while let Err(error) = producer.init(PATIENCE) {
        assert!(error.is_retriable() && begun.elapsed() < NO_HANG, "{error:?}");
    }
}

#[test]
fn a_token_endpoint_that_refuses_ends_a_process_and_one_that_is_down_is_waited_for() {
    let Some(fortress) = Fortress::start("the test of a token endpoint that gives no tokens") else { return };
    let (job, endpoint) = (fortress.job(), fortress.tokens.endpoint());
    let coordinator = ["--job", &job, "--listen", "127.0.0.1:0"];

    let wrong = fortress.token_flags(&endpoint, "not-the-secret");
    let output = run("watermark-coordinator", &coordinator, &wrong);
    let said = text(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    let told = [endpoint.as_str(), "HTTP status 401", "invalid_client", "--kafka-oauth-"];
    assert!(told.iter().all(|part| said.contains(part)) && !said.contains("not-the-secret"), "{said}");
    for arguments in [vec!["check", &job], vec!["verify", "--job", &job, "--watermark", "0"]] {
        let output = run("tidegate", &arguments, &wrong);
        let said = text(&output);
        assert!(
            !output.status.success() && told.iter().all(|part| said.contains(part)),
            "{arguments:?}: {said}"
        );
    }

    fortress.tokens.answer(Some((200, "{\"no\": \"token\"}")));
    let output = run("watermark-coordinator", &coordinator, &fortress.token_flags(&endpoint, SECRET));
    let said = text(&output);
    assert!(output.status.code() == Some(1) && said.contains("access_token"), "{said}");
    fortress.tokens.answer(None);

    // Nobody is there.
    fortress.tokens.set_down(true);
    let flags = fortress.token_flags(&endpoint, SECRET);
    let output = run("tidegate", &["check", &job], &flags);
    let said = text(&output);
    assert!(
        !output.status.success() && said.contains(&endpoint) && said.contains("--kafka-oauth-"),
        "{said}"
    );
    let mut waiting = Command::new(program("watermark-coordinator"))
        .args(coordinator)
        .args(&flags)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(waiting.stderr.take().unwrap()).lines().map_while(Result::ok);
    let tries = lines.find(|line| line.contains("cannot lead the job yet")).unwrap();
    assert!(tries.contains(&endpoint), "{tries}");
    fortress.tokens.set_down(false);
    let leads = lines.find(|line| line.contains("leading a new job") || line.contains("ERROR")).unwrap();
    signal_to(waiting.id(), "-KILL");
    waiting.wait().unwrap();
    assert!(leads.contains("leading a new job"), "{leads}");
}
