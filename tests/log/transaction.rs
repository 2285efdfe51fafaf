//! Transactions: each outcome, and what the log holds after it.

use std::borrow::Cow;

use anyhow::Result;
use bytes::Bytes;
use rdkafka::producer::Producer as _;
use tidegate_core::time::{EventTime, Partition};
use tidegate_kafka::{
    Admin, Error, Header, KafkaConfig, Outcome, OutputRecord, Producer, Timestamp, TransactionOptions,
    TransactionalProducer, drain,
};
use tidegate_tests::clients::{Isolation, PATIENCE, TestProducer, await_end, read_to_end, unique, values};

use crate::support::{P0, P1, committed, config, new_topic, record, run, topic, transactional};

/// The values of partition 0 that a committed reader sees once the partition ends at `end`.
fn seen(bootstrap: &str, topic: &str, end: i64) -> Result<Vec<String>> {
    await_end(bootstrap, topic, 0, Isolation::ReadCommitted, end)?;
    Ok(values(&read_to_end(bootstrap, topic, 0, rdkafka::Offset::Beginning, Isolation::ReadCommitted)?))
}

pub(crate) fn a_commit_shows_its_records_at_the_offsets_it_names(bootstrap: &str) -> Result<()> {
    run(async {
        let results = topic(bootstrap, "results", 2).await?;
        let letters = topic(bootstrap, "letters", 1).await?;
        let mut producer = transactional(bootstrap, &unique("commit"))?;
        let whole = OutputRecord {
            key: Some(Bytes::from_static(b"key")),
            headers: vec![
                Header { name: Cow::Borrowed("pane"), value: Some(Bytes::from_static(b"final")) },
                Header { name: Cow::Borrowed("none"), value: None },
            ],
            timestamp: Some(EventTime(-5)),
            ..record(&results, P0, "a")
        };
        let records = [
            whole.clone(),
            record(&letters, P0, "letter"),
            OutputRecord { value: None, ..whole },
            record(&results, P1, "b"),
            record(&results, P0, ""),
        ];
        assert_eq!(committed(producer.commit(&records))?, [0, 0, 1, 0, 2]);
        assert_eq!(committed(producer.commit(&[]))?, Vec::<u64>::new());
        assert_eq!(committed(producer.commit(&records[1..2]))?, [2]);
        assert_eq!(seen(bootstrap, &letters, 4)?, ["letter", "letter"]);

        await_end(bootstrap, &results, 0, Isolation::ReadCommitted, 4)?;
        await_end(bootstrap, &results, 1, Isolation::ReadCommitted, 2)?;
        let mut count = 0;
        drain(&config(bootstrap), &results, PATIENCE, |record| {
            count += 1;
            if record.partition() == P0 && record.offset().0 == 0 {
                assert_eq!((record.key(), record.value()), (Some(&b"key"[..]), Some(&b"a"[..])));
                assert_eq!(record.timestamp(), Timestamp::CreateTime(EventTime(1)));
                let headers: Vec<_> = record.headers().collect();
                assert_eq!(headers, [("pane", Some(&b"final"[..])), ("none", None)]);
            }
            if record.partition() == P0 && record.offset().0 == 1 {
                assert_eq!(record.value(), None);
            }
            Ok::<_, Error>(())
        })?;
        assert_eq!(count, 4);
        Ok(())
    })
}

pub(crate) fn a_commit_of_several_requests_is_whole_and_in_order(bootstrap: &str) -> Result<()> {
    run(async {
        let results = topic(bootstrap, "results", 1).await?;
        let letters = topic(bootstrap, "letters", 1).await?;
        let mut producer = transactional(bootstrap, &unique("large"))?;
        let value = |number: u64| format!("{number:01000}");
        let mut records: Vec<_> = (0..3_000)
            .map(|number| OutputRecord {
                key: Some(Bytes::from(number.to_string())),
                timestamp: Some(EventTime(1_000 + i64::try_from(number).unwrap_or_default())),
                value: (number != 2_999).then(|| value(number).into()),
                ..record(&results, P0, "")
            })
            .collect();
        records.push(record(&letters, P0, "letter"));
        let offsets = committed(producer.commit(&records))?;
        assert!(offsets.iter().copied().eq((0..3_000).chain([0])), "{offsets:?}");

        await_end(bootstrap, &results, 0, Isolation::ReadCommitted, 3_001)?;
        let mut number = 0;
        drain(&config(bootstrap), &results, PATIENCE, |record| {
            assert_eq!(record.key(), Some(number.to_string().as_bytes()));
            let value = (number != 2_999).then(|| value(number));
            assert_eq!(record.value(), value.as_deref().map(str::as_bytes));
            let time = 1_000 + i64::try_from(number).unwrap_or_default();
            assert_eq!(record.timestamp(), Timestamp::CreateTime(EventTime(time)));
            number += 1;
            Ok::<_, Error>(())
        })?;
        assert_eq!(number, 3_000);
        Ok(())
    })
}

pub(crate) fn a_later_producer_fences_and_ends_what_was_open(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "fence", 1).await?;
        let id = unique("fence");
        let mut first = transactional(bootstrap, &id)?;
        assert_eq!(committed(first.commit(&[record(&topic, P0, "first")]))?, [0]);
        let mut second = transactional(bootstrap, &id)?;
        assert_eq!(first.commit(&[record(&topic, P0, "zombie")]), Outcome::Fenced);
        // It stays fenced, and taking over again is up to its owner.
        assert_eq!(first.commit(&[record(&topic, P0, "zombie")]), Outcome::Fenced);
        assert!(first.init(PATIENCE).is_err());
        committed(second.commit(&[record(&topic, P0, "second")]))?;

        // A transaction that hangs is ended by the one who takes over.
        let hanging = TestProducer::transactional(bootstrap, &id, &[])?;
        hanging.client().begin_transaction()?;
        hanging.produce(&topic, 0, &["hanging"])?;
        let mut third = transactional(bootstrap, &id)?;
        let last = committed(third.commit(&[record(&topic, P0, "third")]))?;
        let end = i64::try_from(last[0])? + 2;
        assert_eq!(seen(bootstrap, &topic, end)?, ["first", "second", "third"]);
        Ok(())
    })
}

fn refused(outcome: &Outcome) -> (usize, &str) {
    match outcome {
        Outcome::RecordRefused { index, reason } => (*index, reason),
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn a_record_too_large_for_its_topic_is_named_and_nothing_is_written(
    bootstrap: &str,
) -> Result<()> {
    run(async {
        let small = new_topic("small", 1, &[("max.message.bytes", "2000")]);
        Admin::open(&config(bootstrap))?.create(&small).await?;
        let mut producer = transactional(bootstrap, &unique("small"))?;
        let large = vec![b'x'; 3000];
        let outcome = producer.commit(&[
            record(&small.name, P0, "a"),
            record(&small.name, P0, large),
            record(&small.name, P0, "b"),
        ]);
        let (index, reason) = refused(&outcome);
        assert_eq!(index, 1, "{reason}");
        assert!(reason.contains(&small.name) && reason.contains("3000"), "{reason}");
        // The producer can go on.
        let offsets = committed(producer.commit(&[record(&small.name, P0, "c")]))?;
        let end = i64::try_from(offsets[0])? + 2;
        assert_eq!(seen(bootstrap, &small.name, end)?, ["c"]);
        Ok(())
    })
}

pub(crate) fn a_record_too_large_for_the_client_is_named_and_the_next_commit_succeeds(
    bootstrap: &str,
) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "limit", 1).await?;
        let options = TransactionOptions { max_message_bytes: 5000, ..TransactionOptions::default() };
        let mut producer = TransactionalProducer::open(&config(bootstrap), &unique("limit"), options)?;
        producer.init(PATIENCE)?;
        let outcome = producer.commit(&[record(&topic, P0, "a"), record(&topic, P0, vec![0; 6000])]);
        assert_eq!(refused(&outcome).0, 1);
        let offsets = committed(producer.commit(&[record(&topic, P0, "b")]))?;
        let end = i64::try_from(offsets[0])? + 2;
        assert_eq!(seen(bootstrap, &topic, end)?, ["b"]);
        Ok(())
    })
}

pub(crate) fn a_missing_topic_or_partition_is_named(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "there", 1).await?;
        let mut producer = transactional(bootstrap, &unique("missing"))?;
        let missing = unique("missing");
        let outcome = producer.commit(&[record(&topic, P0, "a"), record(&missing, P0, "b")]);
        let (index, reason) = refused(&outcome);
        assert_eq!(index, 1);
        assert!(reason.contains(&missing), "{reason}");
        let outcome = producer.commit(&[record(&topic, Partition(7), "a"), record(&topic, P0, "b")]);
        assert_eq!(refused(&outcome).0, 0);
        assert!(Admin::open(&config(bootstrap))?.topic(&missing).await?.is_none(), "it was not created");
        let offsets = committed(producer.commit(&[record(&topic, P0, "c")]))?;
        let end = i64::try_from(offsets[0])? + 2;
        assert_eq!(seen(bootstrap, &topic, end)?, ["c"]);
        Ok(())
    })
}

pub(crate) fn a_large_commit_succeeds(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "large", 2).await?;
        let mut producer = transactional(bootstrap, &unique("large"))?;
        // More records than the client's queue takes.
        let value = Bytes::from(vec![b'v'; 50]);
        let records: Vec<_> =
            (0..120_000_u32).map(|n| record(&topic, Partition(n % 2), value.clone())).collect();
        let offsets = committed(producer.commit(&records))?;
        assert_eq!(offsets.len(), records.len());
        assert!(offsets.iter().zip(0_u64..).all(|(offset, n)| *offset == n / 2), "in order, without gaps");
        Ok(())
    })
}

pub(crate) fn a_plain_producer_keeps_what_it_sends(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "plain", 1).await?;
        let mut slow = KafkaConfig::new(bootstrap, "log-test");
        // Less room than there are records: `send` waits.
        slow.extra.insert("queue.buffering.max.messages".to_owned(), "100".to_owned());
        let mut producer = Producer::open(&slow)?;
        let sent: Vec<_> = (0..3000).map(|number| number.to_string()).collect();
        for value in &sent {
            producer.send(&topic, P0, None, Some(value.as_bytes()), &[], None)?;
        }
        producer.flush(PATIENCE)?;
        assert_eq!(seen(bootstrap, &topic, 3000)?, sent);

        let refused = producer.send(&topic, P0, None, Some(&vec![0; 2_000_000]), &[], None);
        assert!(matches!(refused, Err(Error::Client { .. })), "{refused:?}");
        Ok(())
    })
}
