//! The faults of the development broker, and how librdkafka comes through them. Apache Kafka has none to order.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::Offset;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use tidegate_devbroker::{ApiKey, Fault};
use tidegate_tests::DevKafka;
use tidegate_tests::clients::{
    Isolation, PATIENCE, TestProducer, assign, bounds, consumer, create_topic, offsets, partition, read,
    read_to_end, values,
};

const ID: &str = "faulty";

fn seen(broker: &DevKafka, topic: &str) -> Result<Vec<String>> {
    Ok(values(&read_to_end(broker.bootstrap(), topic, 0, Offset::Beginning, Isolation::ReadCommitted)?))
}

fn assert_outcome_unknown(error: &KafkaError) {
    let KafkaError::Transaction(cause) = error else { panic!("not an error of the transaction: {error:?}") };
    assert!(cause.is_retriable() && cause.code() == RDKafkaErrorCode::OperationTimedOut, "{cause:?}");
}

#[test]
fn a_commit_whose_answer_is_lost_resolves_to_committed() -> Result<()> {
    let broker = DevKafka::start()?;
    let topic = create_topic(broker.bootstrap(), "lost", 1, &[])?;
    let producer = TestProducer::transactional(broker.bootstrap(), ID, &[])?;
    for (value, fault) in [("applied", Fault::DropResponseAfterApply), ("not applied", Fault::Disconnect)] {
        producer.client().begin_transaction()?;
        producer.produce(&topic, 0, &[value])?;
        let fired = broker.faults().fired(ApiKey::EndTxn);
        broker.faults().once(ApiKey::EndTxn, fault);
        producer.client().commit_transaction(PATIENCE)?;
        assert_eq!(broker.faults().fired(ApiKey::EndTxn), fired + 1);
    }
    assert_eq!(seen(&broker, &topic)?, ["applied", "not applied"]);
    // Each commit left one marker.
    assert_eq!(bounds(broker.bootstrap(), &topic, 0, Isolation::ReadCommitted)?, (0, 4));
    Ok(())
}

#[test]
fn a_commit_that_is_never_answered_is_unknown_until_it_is() -> Result<()> {
    let broker = DevKafka::start()?;
    let topic = create_topic(broker.bootstrap(), "unanswered", 1, &[])?;
    let producer = TestProducer::transactional(broker.bootstrap(), ID, &[])?;
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["first"])?;
    broker.faults().always(ApiKey::EndTxn, Fault::DropResponseAfterApply);
    let error = producer
        .client()
        .commit_transaction(Duration::from_millis(300))
        .expect_err("no answer comes through");
    assert_outcome_unknown(&error);
    broker.faults().clear(ApiKey::EndTxn);
    producer.client().commit_transaction(PATIENCE)?;

    // Whoever gives up instead and lets a successor take over may find it committed.
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["second"])?;
    broker.faults().always(ApiKey::EndTxn, Fault::DropResponseAfterApply);
    let error = producer
        .client()
        .commit_transaction(Duration::from_millis(300))
        .expect_err("no answer comes through");
    assert_outcome_unknown(&error);
    drop(producer);
    broker.faults().clear_all();
    let _successor = TestProducer::transactional(broker.bootstrap(), ID, &[])?;
    assert_eq!(seen(&broker, &topic)?, ["first", "second"]);

    // Or aborted, if the request never arrived.
    let producer = TestProducer::transactional(broker.bootstrap(), ID, &[])?;
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["third"])?;
    broker.faults().always(ApiKey::EndTxn, Fault::Disconnect);
    let error = producer
        .client()
        .commit_transaction(Duration::from_millis(300))
        .expect_err("no request comes through");
    assert_outcome_unknown(&error);
    drop(producer);
    broker.faults().clear_all();
    let _successor = TestProducer::transactional(broker.bootstrap(), ID, &[])?;
    assert_eq!(seen(&broker, &topic)?, ["first", "second"]);
    Ok(())
}

#[test]
fn a_slow_commit_is_unknown_and_then_committed() -> Result<()> {
    let broker = DevKafka::start()?;
    let topic = create_topic(broker.bootstrap(), "slow", 1, &[])?;
    let producer = TestProducer::transactional(broker.bootstrap(), ID, &[])?;
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["slow"])?;
    let delay = Duration::from_millis(500);
    broker.faults().once(ApiKey::EndTxn, Fault::Delay(delay));
    let start = Instant::now();
    let error =
        producer.client().commit_transaction(Duration::from_millis(100)).expect_err("the answer is late");
    assert_outcome_unknown(&error);
    producer.client().commit_transaction(PATIENCE)?;
    assert!(start.elapsed() >= delay, "committed after {:?}", start.elapsed());
    assert_eq!(seen(&broker, &topic)?, ["slow"]);
    Ok(())
}

#[test]
fn records_whose_answer_is_lost_are_written_once_by_idempotent_producers_only() -> Result<()> {
    let broker = DevKafka::start()?;
    for (idempotence, expected) in [("true", &["a", "b"][..]), ("false", &["a", "b", "b"][..])] {
        let topic = create_topic(broker.bootstrap(), "resent", 1, &[])?;
        let producer = TestProducer::new(broker.bootstrap(), &[("enable.idempotence", idempotence)])?;
        producer.produce(&topic, 0, &["a"])?;
        broker.faults().once(ApiKey::Produce, Fault::DropResponseAfterApply);
        let offsets = producer.produce(&topic, 0, &["b"])?;
        if idempotence == "true" {
            assert_eq!(offsets, [1], "the offset of the first attempt");
        }
        assert_eq!(seen(&broker, &topic)?, expected, "enable.idempotence={idempotence}");
    }
    assert_eq!(broker.faults().fired(ApiKey::Produce), 2);
    Ok(())
}

#[test]
fn a_reader_that_is_cut_off_reads_on_where_it_was() -> Result<()> {
    let broker = DevKafka::start()?;
    let topic = create_topic(broker.bootstrap(), "cut", 1, &[])?;
    let producer = TestProducer::new(broker.bootstrap(), &[])?;
    let reader = consumer(broker.bootstrap(), Isolation::ReadCommitted)?;
    assign(&reader, &topic, 0, Offset::Beginning)?;
    for round in 0..4 {
        let fault = if round % 2 == 0 { Fault::Disconnect } else { Fault::DropResponseAfterApply };
        broker.faults().once(ApiKey::Fetch, fault);
        producer.produce(&topic, 0, &["x", "y"])?;
        assert_eq!(offsets(&read(&reader, 2)?), [2 * round, 2 * round + 1]);
    }
    assert_eq!(broker.faults().fired(ApiKey::Fetch), 4);
    Ok(())
}

#[test]
fn starting_up_comes_through_lost_answers() -> Result<()> {
    let broker = DevKafka::start()?;
    for api in [ApiKey::Metadata, ApiKey::FindCoordinator, ApiKey::InitProducerId, ApiKey::AddPartitionsToTxn]
    {
        broker.faults().once(api, Fault::DropResponseAfterApply);
    }
    let topic = create_topic(broker.bootstrap(), "started", 1, &[])?;
    let producer = TestProducer::transactional(broker.bootstrap(), ID, &[])?;
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["started"])?;
    producer.client().commit_transaction(PATIENCE)?;
    assert_eq!(seen(&broker, &topic)?, ["started"]);
    for api in [ApiKey::Metadata, ApiKey::FindCoordinator, ApiKey::InitProducerId, ApiKey::AddPartitionsToTxn]
    {
        assert_eq!(broker.faults().fired(api), 1, "{api:?}");
    }
    Ok(())
}

#[test]
fn an_offset_commit_whose_answer_is_lost_is_made() -> Result<()> {
    let broker = DevKafka::start()?;
    let topic = create_topic(broker.bootstrap(), "offsets", 1, &[])?;
    let reader = consumer(broker.bootstrap(), Isolation::ReadCommitted)?;
    broker.faults().once(ApiKey::OffsetCommit, Fault::DropResponseAfterApply);
    // The client may give the lost answer as an error: the commit is made either way.
    let answer = reader.commit(&partition(&topic, 0, Offset::Offset(7))?, CommitMode::Sync);
    let committed = reader.committed_offsets(partition(&topic, 0, Offset::Invalid)?, PATIENCE)?;
    let committed = committed.find_partition(&topic, 0).context("asked for")?.offset();
    assert_eq!(committed, Offset::Offset(7), "after {answer:?}");
    assert_eq!(broker.faults().fired(ApiKey::OffsetCommit), 1);
    Ok(())
}
