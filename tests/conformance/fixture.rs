//! The fixture itself: a broker that is frozen, killed and started again, and that never outlives its test.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::Offset;
use rdkafka::consumer::Consumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use tidegate_tests::ApacheKafka;
use tidegate_tests::clients::{
    Isolation, PATIENCE, TestProducer, consumer, create_topic, read_to_end, unique, until, values,
};

/// Names the test below to the process it starts.
const VICTIM: &str = "TIDEGATE_FIXTURE_VICTIM";

#[test]
fn a_broker_may_be_frozen_killed_and_started_again() -> Result<()> {
    if !ApacheKafka::can_run("the test of the Apache Kafka fixture") {
        return Ok(());
    }
    let mut broker = ApacheKafka::start()?;
    let bootstrap = broker.bootstrap().to_owned();
    let topic = create_topic(&bootstrap, "survivor", 1, &[])?;
    let producer = TestProducer::transactional(&bootstrap, &unique("survivor"), &[])?;

    // A commit on a frozen broker times out with its outcome unknown, and resolves when it is asked for again.
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["frozen"])?;
    broker.freeze()?;
    let error = producer.client().commit_transaction(Duration::from_millis(200)).expect_err("nobody answers");
    let KafkaError::Transaction(cause) = &error else { panic!("{error:?}") };
    assert!(cause.is_retriable() && cause.code() == RDKafkaErrorCode::OperationTimedOut, "{cause:?}");
    broker.resume()?;
    producer.client().commit_transaction(PATIENCE)?;

    // Known by the values, not by the end of the partition: a marker may be written a second time after the crash.
    let await_values = |expected: &[&str]| {
        until(&format!("{expected:?}"), || {
            let records = read_to_end(&bootstrap, &topic, 0, Offset::Beginning, Isolation::ReadCommitted)?;
            Ok((values(&records) == expected).then_some(()))
        })
    };
    await_values(&["frozen"])?;
    let pid = broker.pid();
    broker.restart()?;
    assert_ne!(broker.pid(), pid);
    await_values(&["frozen"])?;

    // The same producer goes on over the restart.
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["killed"])?;
    producer.client().commit_transaction(PATIENCE)?;
    await_values(&["frozen", "killed"])?;

    broker.stop()?;
    assert!(
        consumer(&bootstrap, Isolation::ReadCommitted)?
            .fetch_metadata(None, Duration::from_millis(200))
            .is_err()
    );
    Ok(())
}

#[test]
fn a_broker_dies_with_its_test_process() -> Result<()> {
    if !ApacheKafka::can_run("the test that Apache Kafka dies with its test process") {
        return Ok(());
    }
    if std::env::var_os(VICTIM).is_some() {
        let broker = ApacheKafka::start()?;
        println!("\npid {}", broker.pid().context("it runs")?);
        std::thread::park();
    }
    let mut victim = Command::new(std::env::current_exe()?)
        .args(["--exact", "--nocapture", "fixture::a_broker_dies_with_its_test_process"])
        .env(VICTIM, "1")
        .stdout(Stdio::piped())
        .spawn()?;
    let lines = BufReader::new(victim.stdout.take().context("piped")?).lines();
    let pid = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("pid ").map(str::to_owned));
    let pid = pid.context("the victim ended without starting a broker")?;
    let alive = || -> Result<bool> {
        Ok(Command::new("kill").args(["-0", &pid]).stderr(Stdio::null()).status()?.success())
    };
    assert!(alive()?);
    victim.kill()?;
    victim.wait()?;
    until("the broker to die", || Ok((!alive()?).then_some(())))
}
