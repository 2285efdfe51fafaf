//! `tidegate check` on both brokers: a job that may start, each kind of fault provoked, and that nothing is left behind.

use std::{fs, process::Command};

use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::Value;
use tempfile::TempDir;
use tidegate_tests::acls::{Operation, Resource, allow_only};
use tidegate_tests::clients::{self, Isolation};
use tidegate_tests::{ApacheKafka, apache_kafka, dev_kafka};

fn job(name: &str, source: &str) -> String {
    format!(
        "name: {name}
source: {{ topic: {name}-in, key: {{ field: /user }}, {source} }}
watermark: {{ delay: 2s, max_future_skew: 1m }}
window: {{ tumbling: {{ size: 10s }} }}
aggregates:
  - {{ name: n, fn: count }}
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead, replay: {{ mode: manual, ttl: 2h }} }}
state: {{ shards: 4 }}
"
    )
}

/// What `tidegate check` has found.
struct Checked {
    code: Option<i32>,
    findings: Vec<(String, String, String, String)>,
}

impl Checked {
    fn of(bootstrap: &str, job: &str, flags: &[&str]) -> Self {
        let folder = TempDir::new().unwrap();
        let file = folder.path().join("job.yaml");
        fs::write(&file, job).unwrap();
        let mut command = program();
        command.arg("check").arg(file).args(["--kafka", bootstrap, "--json"]).args(flags);
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        let found: Value =
            serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}{output:?}"));
        let text = |finding: &Value, key: &str| finding[key].as_str().unwrap_or_default().to_owned();
        let findings = found["findings"].as_array().unwrap().iter();
        let findings = findings
            .map(|f| {
                let words = format!("{}; {}", text(f, "text"), text(f, "fix"));
                (text(f, "group"), text(f, "name"), text(f, "level"), words)
            })
            .collect();
        Self { code: output.status.code(), findings }
    }

    /// All but what is fine, and what a cluster of one broker has in any case.
    fn faults(&self) -> Vec<&(String, String, String, String)> {
        self.findings.iter().filter(|(_, name, level, _)| level != "ok" && name != "copies").collect()
    }

    fn has(&self, group: &str, name: &str, level: &str, words: &str) {
        let found = self.findings.iter().any(|(in_group, of_name, at_level, text)| {
            (in_group.as_str(), of_name.as_str(), at_level.as_str()) == (group, name, level)
                && text.contains(words)
        });
        assert!(found, "{group} {name} {level} {words}: {:#?}", self.findings);
    }
}

fn program() -> Command {
    let test = std::env::current_exe().unwrap();
    let path = test.parent().and_then(std::path::Path::parent).unwrap().join("tidegate");
    assert!(path.exists(), "build the programs first: cargo build --workspace --bins (make test does)");
    Command::new(path)
}

fn now_ms() -> i64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    i64::try_from(now.as_millis()).unwrap()
}

fn send(producer: &BaseProducer, topic: &str, values: &[String]) {
    for value in values {
        let record = BaseRecord::<(), _>::to(topic).partition(0).payload(value).timestamp(now_ms());
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(clients::PATIENCE).unwrap();
}

fn topics(bootstrap: &str, of: &str) -> Vec<String> {
    let client: BaseConsumer = clients::client_config(bootstrap).create().unwrap();
    let metadata = client.fetch_metadata(None, clients::PATIENCE).unwrap();
    let mut names: Vec<_> = metadata.topics().iter().map(|topic| topic.name().to_owned()).collect();
    names.retain(|name| name.starts_with(of));
    names.sort();
    names
}

#[test]
fn a_job_that_may_start_is_told_so_and_nothing_is_left_behind_on_the_embedded_broker() {
    may_start(dev_kafka().bootstrap());
}

#[test]
fn a_job_that_may_start_is_told_so_and_nothing_is_left_behind_on_apache_kafka() {
    if let Some(kafka) = apache_kafka() {
        may_start(kafka.bootstrap());
    }
}

fn may_start(bootstrap: &str) {
    let name = clients::unique("check");
    let source = format!("{name}-in");
    let records = |from: i64| -> Vec<String> {
        (0..50).map(|i| format!("{{\"user\":\"u{i}\",\"ts\":{}}}", from + i)).collect()
    };
    let job = job(&name, "event_time: [{ field: /ts }], partitions: 2");
    let before = Checked::of(bootstrap, &job, &[]);
    before.has("source", "topic", "ok", "the coordinator will create it with 2 partitions");
    before.has("changelog", "copies", "warning", "--replication 3");
    assert_eq!((before.code, before.faults().len()), (Some(0), 0), "{:#?}", before.findings);
    assert_eq!(topics(bootstrap, &name), [""; 0]);

    let plain: BaseProducer = clients::client_config(bootstrap).create().unwrap();
    clients::create_topic_named(bootstrap, &source, 2, &[("retention.ms", "-1")]).unwrap();
    send(&plain, &source, &records(now_ms() - 5_000));
    for suffix in ["out", "dead"] {
        let settings = [("retention.ms", "-1"), ("max.message.bytes", "1200000")];
        clients::create_topic_named(bootstrap, &format!("{name}-{suffix}"), 4, &settings).unwrap();
    }
    let settings = [("retention.ms", "-1"), ("retention.bytes", "-1"), ("max.message.bytes", "1200000")];
    clients::create_topic_named(bootstrap, &format!("{name}-changelog"), 4, &settings).unwrap();
    clients::create_topic_named(bootstrap, &format!("{name}-control"), 1, &[("cleanup.policy", "compact")])
        .unwrap();
    let all = topics(bootstrap, &name);
    let checked = Checked::of(bootstrap, &job, &[]);
    assert_eq!((checked.code, checked.faults().len()), (Some(0), 0), "{:#?}", checked.findings);
    checked.has("records", "sample", "ok", "all of the last 50 are taken");
    checked.has("cluster", "clock", "ok", "agree with this machine's");
    checked.has("rights, each tried", "transaction", "ok", "transactional id");
    for topic in all.iter().filter(|topic| **topic != source) {
        checked.has("rights, each tried", "write", "ok", topic);
    }
    checked.has("rights, each tried", "delete", "ok", "none was");
    checked.has("rights, each tried", "group", "ok", &name);
    checked.has("rights, each tried", "read", "ok", &format!("`{name}-dead` can be read"));
    let keeps_nothing = job.replace(", replay: { mode: manual, ttl: 2h }", "");
    let checked = Checked::of(bootstrap, &keeps_nothing, &[]);
    assert!(checked.findings.iter().all(|found| found.1 != "read"), "nobody reads dead letters then");
    assert_eq!(Checked::of(bootstrap, &job, &["--strict"]).code, Some(1), "one copy is a warning");

    assert_eq!(topics(bootstrap, &name), all, "no topic was made or deleted");
    for topic in all.iter().filter(|topic| **topic != source) {
        let read = clients::read_to_end(bootstrap, topic, 0, Offset::Beginning, Isolation::ReadCommitted);
        assert_eq!(clients::values(&read.unwrap()), [""; 0], "{topic}");
    }
}

#[test]
fn what_is_wrong_is_found_on_the_embedded_broker() {
    what_is_wrong(dev_kafka().bootstrap());
}

#[test]
fn what_is_wrong_is_found_on_apache_kafka() {
    if let Some(kafka) = apache_kafka() {
        what_is_wrong(kafka.bootstrap());
    }
}

fn what_is_wrong(bootstrap: &str) {
    let name = clients::unique("check");
    let create = |suffix: &str, partitions: i32, settings: &[(&str, &str)]| {
        let topic = format!("{name}-{suffix}");
        clients::create_topic_named(bootstrap, &topic, partitions, settings).unwrap();
        topic
    };
    let checked = Checked::of(bootstrap, &job(&name, "start_from: earliest"), &[]);
    assert_eq!(checked.code, Some(1));
    checked.has("source", "topic", "error", "give source.partitions");

    let source = create("in", 1, &[("message.timestamp.type", "LogAppendTime"), ("retention.ms", "5000")]);
    let now = now_ms();
    let at = |ms: i64| format!("{{\"user\":\"u\",\"ts\":{}}}", now + ms);
    let plain: BaseProducer = clients::client_config(bootstrap).create().unwrap();
    let bad = ["no JSON".to_owned(), "{\"ts\":1}".to_owned()];
    send(&plain, &source, &[at(0), at(-9_000), at(86_400_000), bad[0].clone(), bad[1].clone()]);
    let open: BaseProducer =
        clients::client_config(bootstrap).set("transactional.id", clients::unique("open")).create().unwrap();
    open.init_transactions(clients::PATIENCE).unwrap();
    open.begin_transaction().unwrap();
    send(&open, &source, &[at(0)]);
    create("out", 2, &[("cleanup.policy", "compact")]);
    create("dead", 4, &[("cleanup.policy", "compact"), ("max.message.bytes", "100000")]);
    create("changelog", 3, &[("retention.ms", "1000")]);
    create("control", 1, &[]);

    let job = job(&name, "event_time: [{ field: /ts }, record_timestamp]");
    let checked = Checked::of(bootstrap, &job, &[]);
    assert_eq!(checked.code, Some(1));
    for (group, name, level, words) in [
        ("source", "timestamps", "warning", "time of arrival"),
        ("source", "retention", "warning", "less than delay + window"),
        ("source", "open", "warning", "a transaction is open in 1 of 1 partitions"),
        ("records", "sample", "warning", "1 of the last 5 would be dead letters, reason `unreadable`"),
        ("records", "sample", "warning", "reason `no_key`"),
        ("records", "future", "warning", "1 of 5 are further ahead of the clock"),
        (
            "records",
            "disorder",
            "warning",
            "further behind the newest before them than the watermark waits for (2s)",
        ),
        ("results", "topic", "warning", "2 partitions for 4 shards"),
        ("results", "compaction", "warning", "only the newest result"),
        ("dead letters", "compaction", "error", "without a key"),
        ("dead letters", "size", "warning", "come without their value"),
        ("changelog", "topic", "error", "has 3 partitions, must have 4"),
        ("changelog", "settings", "error", "set retention.ms=-1"),
        ("changelog", "copies", "warning", "in sync: 1; min.insync.replicas is 1"),
        ("control", "settings", "error", "set cleanup.policy=compact"),
    ] {
        checked.has(group, name, level, words);
    }
    open.abort_transaction(clients::PATIENCE).unwrap();
}

#[test]
fn a_broker_that_is_not_there_a_wrong_job_file_and_wrong_flags_are_told_apart() {
    let job = job("gone", "partitions: 1");
    let checked = Checked::of("127.0.0.1:1", &job, &[]);
    assert_eq!(checked.code, Some(1));
    checked.has("cluster", "brokers", "error", "no broker of `127.0.0.1:1` answers");

    let checked = Checked::of(dev_kafka().bootstrap(), &job.replace("delay: 2s", "delay: 2"), &[]);
    assert_eq!(checked.code, Some(1));
    checked.has("job", "file", "error", "job.yaml:3:21: watermark.delay: `2` has no unit");

    let missing = program().args(["check", "no-such-file.yaml"]).output().unwrap();
    let said = String::from_utf8_lossy(&missing.stderr).into_owned();
    assert!(
        missing.status.code() == Some(1) && said.contains("cannot read the job file no-such-file.yaml"),
        "{said}"
    );
    assert_eq!(program().arg("check").output().unwrap().status.code(), Some(2), "no job file named");
}

#[test]
fn rights_that_are_missing_are_found_by_trying() {
    if !ApacheKafka::can_run("the test of rights that are missing") {
        return;
    }
    let settings = "authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer\n\
                    allow.everyone.if.no.acl.found=true";
    let broker = ApacheKafka::start_with(settings).unwrap();
    let bootstrap = broker.bootstrap();
    let name = "rights";
    for (suffix, partitions) in [("in", 1), ("out", 4), ("dead", 4), ("control", 1)] {
        clients::create_topic_named(bootstrap, &format!("{name}-{suffix}"), partitions, &[]).unwrap();
    }
    clients::create_topic_named(bootstrap, "rights-changelog", 4, &[("retention.ms", "-1")]).unwrap();
    let plain: BaseProducer = clients::client_config(bootstrap).create().unwrap();
    send(&plain, "rights-in", &["{\"user\":\"u\"}".to_owned()]);
    let look = [Operation::Describe, Operation::DescribeConfigs];
    allow_only(bootstrap, Resource::Topic("rights-in"), &look).unwrap();
    allow_only(bootstrap, Resource::Topic("rights-out"), &look).unwrap();
    let write = [Operation::Describe, Operation::DescribeConfigs, Operation::Write];
    allow_only(bootstrap, Resource::Topic("rights-changelog"), &write).unwrap();
    allow_only(bootstrap, Resource::Topic("rights-dead"), &write).unwrap();
    // The broker takes the rules up in its own time.
    let checked = clients::until("the rules", || {
        let checked = Checked::of(bootstrap, &job(name, "start_from: earliest"), &[]);
        let refused = |name: &str| checked.findings.iter().any(|found| found.1 == name && found.2 == "error");
        let all = ["write", "delete", "sample", "read"].into_iter().all(refused);
        Ok(all.then_some(checked))
    })
    .unwrap();
    assert_eq!(checked.code, Some(1));
    checked.has("records", "sample", "error", "cannot be read");
    checked.has("rights, each tried", "write", "error", "`rights-out` (it was aborted): ");
    checked.has("rights, each tried", "write", "ok", "`rights-dead`");
    checked.has("rights, each tried", "write", "ok", "`rights-changelog`");
    checked.has("rights, each tried", "read", "error", "`rights-dead` can be read");
    checked.has("rights, each tried", "read", "error", "else no dead letter comes back");
    checked.has("rights, each tried", "delete", "error", "else it grows for ever");

    allow_only(bootstrap, Resource::TransactionalId("rights-check"), &[Operation::Describe]).unwrap();
    let refused = clients::until("the rule", || {
        let checked = Checked::of(bootstrap, &job(name, "start_from: earliest"), &[]);
        let tried =
            checked.findings.iter().any(|(_, name, level, _)| name == "transaction" && level == "error");
        Ok(tried.then_some(checked))
    });
    refused.unwrap().has("rights, each tried", "transaction", "error", "transactional ids `rights-*`");
}
