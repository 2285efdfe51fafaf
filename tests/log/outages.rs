//! Brokers that stop answering: outcomes stay honest, readers go on.

use std::time::Duration;

use anyhow::Result;
use tidegate_core::time::Offset;
use tidegate_kafka::{
    GroupReader, Outcome, ReaderEvent, ReaderOptions, TransactionOptions, TransactionalProducer,
};
use tidegate_tests::ApacheKafka;
use tidegate_tests::clients::{PATIENCE, unique};

use crate::support::{
    P0, assigned, committed, config, next, produce, record, run, started, topic, transactional,
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
