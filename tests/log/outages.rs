//! Brokers that stop answering: outcomes stay honest, readers go on.

use std::time::Duration;

use anyhow::Result;
use tidegate_core::time::Offset;
use tidegate_devbroker::{ApiKey, Fault};
use tidegate_kafka::{
    Admin, Error, GroupReader, Outcome, PartitionReader, ReaderEvent, ReaderOptions, TransactionOptions,
    TransactionalProducer, drain,
};
use tidegate_tests::clients::{PATIENCE, unique};
use tidegate_tests::{ApacheKafka, DevKafka};

use crate::support::{
    P0, assigned, committed, config, next, produce, read_until, record, run, started, topic, transactional,
};

#[test]
fn a_commit_on_a_broker_that_halts_is_unknown_and_the_log_tells() -> Result<()> {
    if !ApacheKafka::can_run("the test of a broker that halts") {
        return Ok(());
    }
    let mut broker = ApacheKafka::start()?;
    let bootstrap = broker.bootstrap().to_owned();
    run(async {
        let topic = topic(&bootstrap, "halt", 1).await?;
        let id = unique("halt");
        let options = TransactionOptions {
            transaction_timeout: Duration::from_secs(2),
            commit_patience: Duration::from_secs(1),
            ..TransactionOptions::default()
        };
        let mut producer = TransactionalProducer::open(&config(&bootstrap), &id, options)?;
        producer.init(PATIENCE)?;
        committed(producer.commit(&[record(&topic, P0, "before")]))?;

        let group = unique("group");
        let mut reader = GroupReader::join(&config(&bootstrap), &topic, &group, ReaderOptions::default())?;
        assigned(&mut reader).await?;
        reader.control().start(P0, Offset(0));
        started(&mut reader).await?;

        broker.freeze()?;
        let outcome = producer.commit(&[record(&topic, P0, "lost")]);
        assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
        broker.resume()?;
        drop(producer);
        // The next owner ends what is left, whatever it was, and goes on.
        let mut successor = transactional(&bootstrap, &id)?;
        committed(successor.commit(&[record(&topic, P0, "after")]))?;

        broker.restart()?;
        committed(successor.commit(&[record(&topic, P0, "restarted")]))?;
        produce(&bootstrap, &topic, P0, ["plain"])?;
        // One reader over all of it: each committed record once, in order.
        let mut values = Vec::new();
        let mut last = None;
        while values.last().is_none_or(|value| value != "plain") {
            match next(&mut reader).await? {
                ReaderEvent::Batch(batch) => {
                    for record in batch.iter() {
                        assert!(Some(record.offset()) > last, "rising");
                        last = Some(record.offset());
                        values.push(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
                    }
                }
                // Where the outage lasted too long for the group, the partition comes anew.
                ReaderEvent::Assigned { partitions, .. } if partitions == [P0] => {
                    reader.control().start(P0, last.map_or(Offset(0), Offset::next));
                }
                ReaderEvent::Failed(error) => assert!(error.is_retriable(), "{error}"),
                _ => {}
            }
        }
        values.retain(|value| value != "lost");
        assert_eq!(values, ["before", "after", "restarted", "plain"]);
        Ok(())
    })
}

fn drained(bootstrap: &str, topic: &str) -> Result<Vec<String>> {
    let mut values = Vec::new();
    drain(&config(bootstrap), topic, PATIENCE, |record| {
        values.push(String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned());
        Ok::<_, Error>(())
    })?;
    Ok(values)
}

#[test]
fn an_answer_lost_on_the_way_changes_no_outcome() -> Result<()> {
    let broker = DevKafka::start()?;
    run(async {
        let topic = topic(broker.bootstrap(), "lost", 1).await?;
        let mut producer = transactional(broker.bootstrap(), &unique("lost"))?;
        let mut written = Vec::new();
        for api in [ApiKey::EndTxn, ApiKey::Produce, ApiKey::AddPartitionsToTxn] {
            for fault in [Fault::Disconnect, Fault::DropResponseAfterApply] {
                broker.faults().once(api, fault);
                let value = format!("{api:?} {fault:?}");
                let outcome = producer.commit(&[record(&topic, P0, value.clone())]);
                assert!(matches!(outcome, Outcome::Committed { .. }), "{value}: {outcome:?}");
                assert_eq!(broker.faults().fired(api), if fault == Fault::Disconnect { 1 } else { 2 });
                written.push(value);
            }
        }
        assert_eq!(drained(broker.bootstrap(), &topic)?, written);
        Ok(())
    })
}

/// To the producer both look alike; only the log knows.
#[test]
fn a_commit_that_is_never_answered_is_unknown_whether_it_was_made_or_not() -> Result<()> {
    let broker = DevKafka::start()?;
    run(async {
        let topic = topic(broker.bootstrap(), "never", 1).await?;
        let mut expected = Vec::new();
        for (fault, made) in [(Fault::Disconnect, false), (Fault::DropResponseAfterApply, true)] {
            let id = unique("never");
            let options = TransactionOptions {
                commit_patience: Duration::from_secs(1),
                ..TransactionOptions::default()
            };
            let mut producer = TransactionalProducer::open(&config(broker.bootstrap()), &id, options)?;
            producer.init(PATIENCE)?;
            broker.faults().always(ApiKey::EndTxn, fault);
            let value = format!("{fault:?}");
            let outcome = producer.commit(&[record(&topic, P0, value.clone())]);
            assert!(matches!(outcome, Outcome::Unknown { .. }), "{outcome:?}");
            broker.faults().clear_all();
            drop(producer);
            transactional(broker.bootstrap(), &id)?;
            if made {
                expected.push(value);
            }
            assert_eq!(drained(broker.bootstrap(), &topic)?, expected);
        }
        Ok(())
    })
}

#[test]
fn a_reader_goes_on_over_lost_answers() -> Result<()> {
    let broker = DevKafka::start()?;
    run(async {
        let topic = topic(broker.bootstrap(), "fetch", 1).await?;
        produce(broker.bootstrap(), &topic, P0, (0..3000).map(|number| number.to_string()))?;
        for fault in [Fault::Disconnect, Fault::DropResponseAfterApply] {
            broker.faults().times(ApiKey::Fetch, 2, fault);
        }
        let options = ReaderOptions::default();
        let mut reader = PartitionReader::open(&config(broker.bootstrap()), &topic, "fetch", options)?;
        reader.assign(P0, Offset(0));
        started(&mut reader).await?;
        let seen = read_until(&mut reader, P0, 3000).await?;
        assert_eq!(seen.offsets, (0..3000).collect::<Vec<_>>());
        assert_eq!(broker.faults().fired(ApiKey::Fetch), 4);
        Ok(())
    })
}

/// librdkafka gives no error of it, but offsets that are none.
#[test]
fn the_ends_of_a_topic_are_asked_for_again_where_the_connection_ends_before_the_answer() -> Result<()> {
    let broker = DevKafka::start()?;
    run(async {
        let topic = topic(broker.bootstrap(), "ends", 2).await?;
        produce(broker.bootstrap(), &topic, P0, (0..7).map(|number| number.to_string()))?;
        let admin = Admin::open(&config(broker.bootstrap()))?;
        for fault in [Fault::Disconnect, Fault::DropResponseAfterApply] {
            broker.faults().once(ApiKey::ListOffsets, fault);
            let ends: Vec<_> = admin.ends(&topic).await?.iter().map(|end| end.high_watermark).collect();
            assert_eq!(ends, [Offset(7), Offset(0)], "{fault:?}");
        }
        assert_eq!(broker.faults().fired(ApiKey::ListOffsets), 2);
        Ok(())
    })
}
