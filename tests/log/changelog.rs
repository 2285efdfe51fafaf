//! Changelog, drain and tail: everything committed, nothing else, up to a definite end.

use std::cell::Cell;
use std::time::Duration;

use anyhow::Result;
use rdkafka::producer::Producer as _;
use tidegate_core::time::Offset;
use tidegate_kafka::{Admin, ChangelogEnd, ChangelogReader, Error, Step, drain, tail};
use tidegate_tests::clients::{Isolation, PATIENCE, TestProducer, await_end, unique};

use crate::support::{P0, P1, committed, config, produce, record, run, topic, transactional};

fn read(reader: &ChangelogReader, from: Option<u64>) -> Result<(Vec<(u64, String)>, ChangelogEnd), Error> {
    let mut entries = Vec::new();
    let end = reader.read(P0, from.map(Offset), PATIENCE, |entry| {
        let value = String::from_utf8_lossy(entry.value.unwrap_or_default()).into_owned();
        entries.push((entry.offset.0, value));
        Ok::<_, Error>(())
    })?;
    Ok((entries, end))
}

fn abort(bootstrap: &str, topic: &str, values: &[&str]) -> Result<()> {
    let producer = TestProducer::transactional(bootstrap, &unique("aborted"), &[])?;
    producer.client().begin_transaction()?;
    producer.produce(topic, 0, values)?;
    Ok(producer.client().abort_transaction(PATIENCE)?)
}

pub(crate) fn a_changelog_is_read_past_markers_and_aborted_records(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "changelog", 2).await?;
        let reader = ChangelogReader::open(&config(bootstrap), &topic)?;
        let (entries, end) = read(&reader, None)?;
        assert_eq!((entries.len(), end), (0, ChangelogEnd { log_start: Offset(0), end: Offset(0) }));

        let mut producer = transactional(bootstrap, &unique("changelog"))?;
        assert_eq!(committed(producer.commit(&[record(&topic, P0, "a"), record(&topic, P0, "b")]))?, [0, 1]);
        abort(bootstrap, &topic, &["x", "y"])?;
        // Offset 2 is a marker, 3 and 4 were aborted, 5 is a marker.
        assert_eq!(
            committed(producer.commit(&[record(&topic, P0, "c"), record(&topic, P1, "other")]))?,
            [6, 0]
        );
        abort(bootstrap, &topic, &["z"])?;
        await_end(bootstrap, &topic, 0, Isolation::ReadCommitted, 10)?;

        let expected = |from: u64| {
            let all = [(0, "a"), (1, "b"), (6, "c")];
            all.iter()
                .filter(|(offset, _)| *offset >= from)
                .map(|(at, v)| (*at, (*v).to_owned()))
                .collect::<Vec<_>>()
        };
        for from in [None, Some(0), Some(1), Some(2), Some(4), Some(6), Some(7), Some(10)] {
            let (entries, end) = read(&reader, from)?;
            assert_eq!(entries, expected(from.unwrap_or(0)), "from {from:?}");
            assert_eq!(end, ChangelogEnd { log_start: Offset(0), end: Offset(10) });
        }

        Admin::open(&config(bootstrap))?.delete_records(&topic, P0, Offset(6)).await?;
        let (entries, end) = read(&reader, None)?;
        assert_eq!((entries, end.log_start), (expected(6), Offset(6)));

        // What the callback returns ends the reading, and the reader stays usable.
        let failed = reader.read(P0, None, PATIENCE, |_| Err(anyhow::anyhow!("stop here")));
        assert_eq!(failed.expect_err("the callback failed").to_string(), "stop here");
        assert_eq!(read(&reader, None)?.0, expected(6));
        Ok(())
    })
}

pub(crate) fn a_changelog_ends_where_it_ended_when_reading_began(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "frozen", 1).await?;
        produce(bootstrap, &topic, P0, ["a", "b"])?;
        let reader = ChangelogReader::open(&config(bootstrap), &topic)?;
        let mut seen = 0;
        let end = reader.read(P0, None, PATIENCE, |_| {
            seen += 1;
            produce(bootstrap, &topic, P0, ["later"])
        })?;
        assert_eq!((seen, end.end), (2, Offset(2)));
        Ok(())
    })
}

pub(crate) fn an_open_transaction_is_named_with_its_place(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "open", 1).await?;
        produce(bootstrap, &topic, P0, ["a", "b"])?;
        let producer = TestProducer::transactional(bootstrap, &unique("open"), &[])?;
        producer.client().begin_transaction()?;
        producer.produce(&topic, 0, &["c"])?;
        produce(bootstrap, &topic, P0, ["d"])?;

        let reader = ChangelogReader::open(&config(bootstrap), &topic)?;
        let mut seen = 0;
        let stuck = reader.read(P0, None, Duration::from_millis(500), |_| {
            seen += 1;
            Ok::<_, Error>(())
        });
        match stuck {
            Err(error @ Error::OpenTransaction { position: Offset(2), high_watermark: Offset(4), .. }) => {
                assert!(error.is_retriable());
                assert!(error.to_string().contains(&topic), "{error}");
            }
            other => panic!("unexpected: {other:?}"),
        }
        assert_eq!(seen, 2);
        // It goes on when the transaction ends while it is waited for.
        let mut seen = Vec::new();
        let end = reader.read(P0, Some(Offset(1)), PATIENCE, |entry| {
            seen.push(entry.offset.0);
            if entry.offset == Offset(1) {
                producer.client().commit_transaction(PATIENCE)?;
            }
            Ok::<_, anyhow::Error>(())
        })?;
        assert_eq!((seen, end.end), (vec![1, 2, 3], Offset(4)));
        Ok(())
    })
}

pub(crate) fn a_position_outside_of_the_log_is_an_error(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "outside", 1).await?;
        produce(bootstrap, &topic, P0, ["a", "b", "c"])?;
        Admin::open(&config(bootstrap))?.delete_records(&topic, P0, Offset(2)).await?;
        let reader = ChangelogReader::open(&config(bootstrap), &topic)?;
        for outside in [1, 4] {
            match read(&reader, Some(outside)) {
                Err(Error::OffsetOutOfRange { offset, log_start, end, .. }) => {
                    assert_eq!((offset.0, log_start, end), (outside, Some(Offset(2)), Some(Offset(3))));
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        assert_eq!(read(&reader, Some(2))?.0, [(2, "c".to_owned())]);
        match reader.ends(P1) {
            Err(Error::UnknownPartition { partition: P1, .. }) => {}
            other => panic!("unexpected: {other:?}"),
        }
        Ok(())
    })
}

pub(crate) fn a_whole_topic_is_drained(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "drain", 3).await?;
        produce(bootstrap, &topic, P0, ["a", "b"])?;
        abort(bootstrap, &topic, &["x"])?;
        let mut producer = transactional(bootstrap, &unique("drain"))?;
        committed(producer.commit(&[record(&topic, P1, "c"), record(&topic, P0, "d")]))?;
        await_end(bootstrap, &topic, 0, Isolation::ReadCommitted, 6)?;
        await_end(bootstrap, &topic, 1, Isolation::ReadCommitted, 2)?;
        // Open: not to be seen, and not waited for.
        let open = TestProducer::transactional(bootstrap, &unique("drain"), &[])?;
        open.client().begin_transaction()?;
        open.produce(&topic, 2, &["open"])?;

        let mut seen = Vec::new();
        drain(&config(bootstrap), &topic, PATIENCE, |record| {
            let value = String::from_utf8_lossy(record.value().unwrap_or_default()).into_owned();
            seen.push((record.partition().0, record.offset().0, value));
            Ok::<_, Error>(())
        })?;
        seen.sort();
        let expected = [(0, 0, "a"), (0, 1, "b"), (0, 4, "d"), (1, 0, "c")];
        assert_eq!(seen, expected.map(|(partition, offset, value)| (partition, offset, value.to_owned())));

        let missing = drain(&config(bootstrap), "no-such-topic", PATIENCE, |_| Ok::<_, Error>(()));
        assert!(matches!(missing, Err(Error::UnknownTopic { .. })), "{missing:?}");
        Ok(())
    })
}

pub(crate) fn a_tail_goes_on_until_told_to_stop(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "tail", 2).await?;
        produce(bootstrap, &topic, P0, ["a"])?;
        let seen = Cell::new(0);
        tail(
            &config(bootstrap),
            &topic,
            |record| {
                // Each record brings the next, in the other partition.
                seen.set(seen.get() + 1);
                let other = if record.partition() == P0 { P1 } else { P0 };
                produce(bootstrap, &topic, other, ["next"])?;
                Ok::<_, anyhow::Error>(Step::Continue)
            },
            || Ok(if seen.get() >= 4 { Step::Stop } else { Step::Continue }),
        )?;
        assert!(seen.get() >= 4);
        // Stopped from within.
        let mut first = None;
        tail(
            &config(bootstrap),
            &topic,
            |record| {
                first.get_or_insert(record.offset());
                Ok::<_, Error>(Step::Stop)
            },
            || Ok(Step::Continue),
        )?;
        assert_eq!(first, Some(Offset(0)));
        Ok(())
    })
}
