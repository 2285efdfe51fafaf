//! Transactions: what readers see of them, who may commit, and how they end.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::Producer;
use tidegate_tests::clients::{
    Isolation, PATIENCE, TestProducer, assign, await_end, bounds, consumer, consumer_config, create_topic,
    offsets, partition, read, read_to_end, unique, until, values,
};

fn seen(bootstrap: &str, topic: &str, isolation: Isolation) -> Result<Vec<String>> {
    Ok(values(&read_to_end(bootstrap, topic, 0, Offset::Beginning, isolation)?))
}

pub(crate) fn a_commit_shows_and_an_abort_hides(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "visible", 1, &[])?;
    let producer = TestProducer::transactional(bootstrap, &unique("visible"), &[])?;
    let client = producer.client();

    client.begin_transaction()?;
    assert_eq!(producer.produce(&topic, 0, &["a", "b"])?, [0, 1]);
    client.commit_transaction(PATIENCE)?;
    client.begin_transaction()?;
    // The marker of the commit took offset 2.
    assert_eq!(producer.produce(&topic, 0, &["x", "y"])?, [3, 4]);
    client.abort_transaction(PATIENCE)?;
    // Nothing was written: no marker either.
    client.begin_transaction()?;
    client.commit_transaction(PATIENCE)?;
    client.begin_transaction()?;
    assert_eq!(producer.produce(&topic, 0, &["c"])?, [6]);
    client.commit_transaction(PATIENCE)?;
    await_end(bootstrap, &topic, 0, Isolation::ReadCommitted, 8)?;
    // A record outside of any transaction.
    assert_eq!(TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["d"])?, [8]);

    let committed = read_to_end(bootstrap, &topic, 0, Offset::Beginning, Isolation::ReadCommitted)?;
    assert_eq!(values(&committed), ["a", "b", "c", "d"]);
    assert_eq!(offsets(&committed), [0, 1, 6, 8]);
    assert_eq!(seen(bootstrap, &topic, Isolation::ReadUncommitted)?, ["a", "b", "x", "y", "c", "d"]);
    assert_eq!(bounds(bootstrap, &topic, 0, Isolation::ReadCommitted)?, (0, 9));
    assert_eq!(bounds(bootstrap, &topic, 0, Isolation::ReadUncommitted)?, (0, 9));

    // Starting among the aborted ones, or on a marker, hides them just the same.
    for start in [2, 4, 5] {
        let records = read_to_end(bootstrap, &topic, 0, Offset::Offset(start), Isolation::ReadCommitted)?;
        assert_eq!(values(&records), ["c", "d"], "from offset {start}");
    }
    Ok(())
}

pub(crate) fn a_transaction_spans_partitions(bootstrap: &str) -> Result<()> {
    let results = create_topic(bootstrap, "results", 2, &[])?;
    let letters = create_topic(bootstrap, "letters", 1, &[])?;
    let producer = TestProducer::transactional(bootstrap, &unique("span"), &[])?;
    let places = [(&results, 0), (&results, 1), (&letters, 0)];
    for (value, commit) in [("hidden", false), ("shown", true)] {
        producer.client().begin_transaction()?;
        for (topic, partition) in places {
            producer.produce(topic, partition, &[value])?;
        }
        match commit {
            true => producer.client().commit_transaction(PATIENCE)?,
            false => producer.client().abort_transaction(PATIENCE)?,
        }
    }
    for (topic, partition) in places {
        await_end(bootstrap, topic, partition, Isolation::ReadCommitted, 4)?;
        let records = read_to_end(bootstrap, topic, partition, Offset::Beginning, Isolation::ReadCommitted)?;
        assert_eq!(values(&records), ["shown"], "{topic}/{partition}");
    }
    Ok(())
}

pub(crate) fn an_open_transaction_holds_back_committed_readers(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "held", 1, &[])?;
    let slow = TestProducer::transactional(bootstrap, &unique("slow"), &[])?;
    let quick = TestProducer::transactional(bootstrap, &unique("quick"), &[])?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["before"])?;
    slow.client().begin_transaction()?;
    slow.produce(&topic, 0, &["slow"])?;
    quick.client().begin_transaction()?;
    quick.produce(&topic, 0, &["quick"])?;
    quick.client().commit_transaction(PATIENCE)?;

    // The end of the partition, for a committed reader, is the last stable offset: it comes to it and goes no further.
    await_end(bootstrap, &topic, 0, Isolation::ReadUncommitted, 4)?;
    assert_eq!(bounds(bootstrap, &topic, 0, Isolation::ReadCommitted)?, (0, 1));
    assert_eq!(seen(bootstrap, &topic, Isolation::ReadUncommitted)?, ["before", "slow", "quick"]);
    let reader = consumer(bootstrap, Isolation::ReadCommitted)?;
    assign(&reader, &topic, 0, Offset::Beginning)?;
    assert_eq!(values(&read(&reader, 1)?), ["before"]);
    let end = until("the end of the partition", || Ok(reader.poll(Duration::from_millis(10))))?;
    assert!(matches!(end, Err(KafkaError::PartitionEOF(0))), "{end:?}");

    slow.client().commit_transaction(PATIENCE)?;
    let released = read(&reader, 2)?;
    assert_eq!(values(&released), ["slow", "quick"]);
    assert_eq!(offsets(&released), [1, 2]);
    await_end(bootstrap, &topic, 0, Isolation::ReadCommitted, 5)
}

pub(crate) fn a_second_producer_fences_the_first(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "fenced", 1, &[])?;
    let id = unique("owner");
    let zombie = TestProducer::transactional(bootstrap, &id, &[])?;
    zombie.client().begin_transaction()?;
    zombie.produce(&topic, 0, &["zombie"])?;
    let owner = TestProducer::transactional(bootstrap, &id, &[])?;

    let error = zombie.client().commit_transaction(PATIENCE).expect_err("the second producer owns the id");
    assert_fenced(&error);
    // The first stays out for good, the second goes on.
    let error = zombie.client().begin_transaction().expect_err("fenced is fatal");
    assert!(error.rdkafka_error_code().is_some(), "{error}");
    owner.client().begin_transaction()?;
    owner.produce(&topic, 0, &["owner"])?;
    owner.client().commit_transaction(PATIENCE)?;
    await_end(bootstrap, &topic, 0, Isolation::ReadCommitted, 4)?;
    assert_eq!(seen(bootstrap, &topic, Isolation::ReadCommitted)?, ["owner"]);

    // A zombie that is between transactions, and only now begins to write, gets nothing in.
    let heir = TestProducer::transactional(bootstrap, &id, &[])?;
    owner.client().begin_transaction()?;
    let produced = owner.produce(&topic, 0, &["late"]);
    let error = owner.client().commit_transaction(PATIENCE).expect_err("the third producer owns the id");
    assert_fenced(&error);
    assert!(produced.is_err(), "a fenced producer's record was accepted at {produced:?}");
    drop(heir);
    assert_eq!(seen(bootstrap, &topic, Isolation::ReadUncommitted)?, ["zombie", "owner"]);
    Ok(())
}

fn assert_fenced(error: &KafkaError) {
    let KafkaError::Transaction(cause) = error else { panic!("not an error of the transaction: {error:?}") };
    let fenced =
        [RDKafkaErrorCode::Fenced, RDKafkaErrorCode::ProducerFenced, RDKafkaErrorCode::InvalidProducerEpoch];
    assert!(cause.is_fatal() && fenced.contains(&cause.code()), "not fenced: {cause:?}");
}

pub(crate) fn the_successor_aborts_the_open_transaction(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "dangling", 1, &[])?;
    let id = unique("heir");
    let dead = TestProducer::transactional(bootstrap, &id, &[])?;
    dead.client().begin_transaction()?;
    dead.produce(&topic, 0, &["dangling"])?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["behind"])?;
    assert_eq!(seen(bootstrap, &topic, Isolation::ReadCommitted)?, [""; 0]);

    let _heir = TestProducer::transactional(bootstrap, &id, &[])?;
    await_end(bootstrap, &topic, 0, Isolation::ReadCommitted, 3)?;
    assert_eq!(seen(bootstrap, &topic, Isolation::ReadCommitted)?, ["behind"]);
    Ok(())
}

pub(crate) fn a_transaction_that_takes_too_long_is_aborted(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "timeout", 1, &[])?;
    let producer =
        TestProducer::transactional(bootstrap, &unique("slow"), &[("transaction.timeout.ms", "1000")])?;
    producer.client().begin_transaction()?;
    producer.produce(&topic, 0, &["too slow"])?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["behind"])?;

    await_end(bootstrap, &topic, 0, Isolation::ReadCommitted, 3)?;
    // To its producer this looks the same as being fenced by another.
    let error = producer.client().commit_transaction(PATIENCE).expect_err("aborted by the broker");
    assert_fenced(&error);
    assert_eq!(seen(bootstrap, &topic, Isolation::ReadCommitted)?, ["behind"]);
    Ok(())
}

pub(crate) fn a_timeout_longer_than_the_broker_allows_is_refused(bootstrap: &str) -> Result<()> {
    let sixteen_minutes = [("transaction.timeout.ms", "960000")];
    let Err(error) = TestProducer::transactional(bootstrap, &unique("patient"), &sixteen_minutes) else {
        panic!("a transaction of 16 minutes where 15 are allowed");
    };
    let KafkaError::Transaction(cause) = error.downcast::<KafkaError>()? else {
        panic!("not of the transaction")
    };
    assert_eq!(cause.code(), RDKafkaErrorCode::InvalidTransactionTimeout);
    Ok(())
}

pub(crate) fn group_offsets_move_with_the_transaction(bootstrap: &str) -> Result<()> {
    let source = create_topic(bootstrap, "source", 1, &[])?;
    let sink = create_topic(bootstrap, "sink", 1, &[])?;
    TestProducer::new(bootstrap, &[])?.produce(&source, 0, &["a", "b", "c"])?;
    let group = unique("mover");
    let member: BaseConsumer = consumer_config(bootstrap, &group, Isolation::ReadCommitted).create()?;
    member.subscribe(&[&source])?;
    read(&member, 3)?;
    let committed = || -> Result<Offset> {
        let list = member.committed_offsets(partition(&source, 0, Offset::Invalid)?, PATIENCE)?;
        Ok(list.elements()[0].offset())
    };

    let producer = TestProducer::transactional(bootstrap, &unique("mover"), &[])?;
    let metadata = member.group_metadata().context("the member has joined")?;
    for (offset, commit) in [(1, true), (2, false), (3, true)] {
        producer.client().begin_transaction()?;
        producer.produce(&sink, 0, &[&offset.to_string()])?;
        producer.client().send_offsets_to_transaction(
            &partition(&source, 0, Offset::Offset(offset))?,
            &metadata,
            PATIENCE,
        )?;
        match commit {
            true => producer.client().commit_transaction(PATIENCE)?,
            false => producer.client().abort_transaction(PATIENCE)?,
        }
        let expected = if commit { offset } else { 1 };
        assert_eq!(committed()?, Offset::Offset(expected), "after offset {offset}, commit {commit}");
    }
    await_end(bootstrap, &sink, 0, Isolation::ReadCommitted, 6)?;
    assert_eq!(seen(bootstrap, &sink, Isolation::ReadCommitted)?, ["1", "3"]);
    Ok(())
}
