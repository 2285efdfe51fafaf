//! Readers: positions, ends, rebalances, back-pressure.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use rdkafka::consumer::Consumer;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset as RawOffset, TopicPartitionList};
use tidegate_core::time::{EventTime, Offset, Partition};
use tidegate_kafka::{
    Error, GroupReader, PartitionEnds, PartitionReader, Producer, ReaderEvent, ReaderOptions, RecordBatch,
    Timestamp,
};
use tidegate_tests::clients::{Isolation, PATIENCE, TestProducer, consumer_config, unique, until};

use crate::support::{
    P0, P1, assigned, committed, config, next, produce, read_until, record, run, silence, started, topic,
    transactional,
};

fn numbers(range: std::ops::Range<u64>) -> Vec<String> {
    range.map(|number| number.to_string()).collect()
}

fn group(bootstrap: &str, topic: &str) -> Result<GroupReader> {
    Ok(GroupReader::join(&config(bootstrap), topic, &unique("group"), ReaderOptions::default())?)
}

pub(crate) fn a_partition_is_read_from_where_it_is_started(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "start", 2).await?;
        produce(bootstrap, &topic, P0, numbers(0..10))?;
        produce(bootstrap, &topic, P1, numbers(0..4))?;
        let mut reader = group(bootstrap, &topic)?;
        let (mut partitions, generation) = assigned(&mut reader).await?;
        partitions.sort();
        assert_eq!(partitions, [P0, P1]);
        assert!(generation > 0);

        reader.control().start(P0, Offset(7));
        assert_eq!(started(&mut reader).await?, (P0, Offset(7)));
        let seen = read_until(&mut reader, P0, 10).await?;
        assert_eq!((seen.values, seen.offsets, seen.end), (numbers(7..10), vec![7, 8, 9], 10));
        // The other one has not been started, and so read nothing until now.
        reader.control().start(P1, Offset(0));
        assert_eq!(started(&mut reader).await?, (P1, Offset(0)));
        assert_eq!(read_until(&mut reader, P1, 4).await?.values, numbers(0..4));
        // Both go on.
        produce(bootstrap, &topic, P0, ["more"])?;
        assert_eq!(read_until(&mut reader, P0, 11).await?.values, ["more"]);
        reader.close().await;
        Ok(())
    })
}

pub(crate) fn a_record_comes_whole(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "whole", 1).await?;
        let mut producer = Producer::open(&config(bootstrap))?;
        let headers = [
            ("one", Some(&b"1"[..])),
            ("none", None),
            ("one", Some(&b"last"[..])),
            ("empty", Some(&b""[..])),
        ];
        producer.send(
            &topic,
            P0,
            Some(b"key"),
            Some(b"value"),
            &headers,
            Some(EventTime(1_700_000_000_123)),
        )?;
        producer.send(&topic, P0, Some(b""), None, &[], Some(EventTime(5)))?;
        producer.send(&topic, P0, None, Some(b""), &[], None)?;
        producer.flush(PATIENCE)?;

        let mut reader =
            PartitionReader::open(&config(bootstrap), &topic, "whole", ReaderOptions::default())?;
        reader.assign(P0, Offset(0));
        started(&mut reader).await?;
        let ReaderEvent::Batch(batch) = next(&mut reader).await? else { bail!("no batch") };
        // It may be freed on another thread, after its reader.
        reader.close().await;
        std::thread::spawn(move || {
            let records: Vec<_> = batch.iter().collect();
            assert_eq!(batch.len(), 3);
            assert!(batch.bytes() > 13);
            assert_eq!((records[0].partition(), records[0].offset()), (P0, Offset(0)));
            assert_eq!((records[0].key(), records[0].value()), (Some(&b"key"[..]), Some(&b"value"[..])));
            assert_eq!(records[0].timestamp(), Timestamp::CreateTime(EventTime(1_700_000_000_123)));
            assert_eq!(records[0].headers().collect::<Vec<_>>(), headers);
            assert_eq!(records[0].header("one"), Some(Some(&b"last"[..])));
            assert_eq!(records[0].header("none"), Some(None));
            assert_eq!(records[0].header("other"), None);
            assert_eq!((records[1].key(), records[1].value()), (Some(&b""[..]), None));
            assert_eq!(records[1].timestamp(), Timestamp::CreateTime(EventTime(5)));
            assert_eq!((records[2].key(), records[2].value()), (None, Some(&b""[..])));
            assert_eq!(records[2].headers().count(), 0);
        })
        .join()
        .expect("the assertions hold");
        Ok(())
    })
}

pub(crate) fn a_partition_started_again_is_read_from_there(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "again", 1).await?;
        produce(bootstrap, &topic, P0, numbers(0..5000))?;
        let mut reader = group(bootstrap, &topic)?;
        assigned(&mut reader).await?;
        reader.control().start(P0, Offset(0));
        started(&mut reader).await?;
        // In the middle of the flow, back and forth.
        for start in [3000_u64, 10, 4990, 0] {
            reader.control().start(P0, Offset(start));
            let mut before = Vec::new();
            let at = loop {
                match next(&mut reader).await? {
                    ReaderEvent::Batch(batch) => before.extend(batch.iter().map(|record| record.offset().0)),
                    ReaderEvent::Started { offset, .. } => break offset.0,
                    ReaderEvent::EndOfPartition { .. } => {}
                    other => bail!("unexpected: {other:?}"),
                }
            };
            assert_eq!(at, start);
            assert!(before.windows(2).all(|pair| pair[0] + 1 == pair[1]), "in order up to the new start");
        }
        let seen = read_until(&mut reader, P0, 5000).await?;
        assert_eq!(seen.offsets, (0..5000).collect::<Vec<_>>());
        Ok(())
    })
}

/// librdkafka's own pause would skip the record: see `tidegate_kafka`'s `native`.
pub(crate) fn nothing_is_lost_or_doubled_by_a_pause_at_the_end(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "pause", 1).await?;
        produce(bootstrap, &topic, P0, numbers(0..3))?;
        let mut reader = group(bootstrap, &topic)?;
        assigned(&mut reader).await?;
        reader.control().start(P0, Offset(0));
        started(&mut reader).await?;
        read_until(&mut reader, P0, 3).await?;
        for round in 3..6_u64 {
            reader.control().pause(P0);
            produce(bootstrap, &topic, P0, [round.to_string()])?;
            silence(&mut reader, Duration::from_millis(200)).await?;
            reader.control().resume(P0);
            let seen = read_until(&mut reader, P0, round + 1).await?;
            assert_eq!((seen.offsets, seen.values), (vec![round], vec![round.to_string()]));
        }
        // Resumed without a pause, paused twice: no harm.
        reader.control().resume(P0);
        reader.control().pause(P0);
        reader.control().pause(P0);
        reader.control().resume(P0);
        produce(bootstrap, &topic, P0, ["last"])?;
        assert_eq!(read_until(&mut reader, P0, 7).await?.offsets, [6]);
        Ok(())
    })
}

pub(crate) fn a_record_that_follows_an_end_survives_a_rebalance(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "follow", 2).await?;
        let group = unique("group");
        let join = || GroupReader::join(&config(bootstrap), &topic, &group, ReaderOptions::default());
        let mut first = join()?;
        assert_eq!(assigned(&mut first).await?.0.len(), 2);
        for partition in [P0, P1] {
            first.control().start(partition, Offset(0));
            started(&mut first).await?;
            read_until(&mut first, partition, 0).await?;
        }
        let mut second = join()?;
        let (given, _) = await_revoked(&mut first).await?;
        assert_eq!(assigned(&mut second).await?.0, given);
        let kept = if given == [P0] { P1 } else { P0 };
        produce(bootstrap, &topic, kept, ["a", "b"])?;
        let seen = read_until(&mut first, kept, 2).await;
        assert_eq!(seen?.offsets, [0, 1]);
        Ok(())
    })
}

fn sorted(partitions: &[Partition]) -> Vec<Partition> {
    let mut sorted = partitions.to_vec();
    sorted.sort();
    sorted
}

/// The partitions revoked, and the generations seen on the way.
async fn await_revoked(reader: &mut GroupReader) -> Result<(Vec<Partition>, Vec<u32>)> {
    let mut revoked = Vec::new();
    let mut generations = Vec::new();
    loop {
        match next(reader).await? {
            ReaderEvent::Revoked { partitions } => revoked.extend(partitions),
            ReaderEvent::Assigned { partitions, generation } => {
                ensure!(partitions.is_empty(), "{partitions:?}");
                generations.push(generation);
                // A rebalance that takes something away is followed by another, in which its new owner gets it.
                if !revoked.is_empty() && generations.len() > 1 {
                    return Ok((revoked, generations));
                }
            }
            ReaderEvent::EndOfPartition { .. } => {}
            other => bail!("unexpected: {other:?}"),
        }
    }
}

pub(crate) fn partitions_move_between_members_and_the_generation_rises(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "move", 4).await?;
        let group = unique("group");
        let join = || GroupReader::join(&config(bootstrap), &topic, &group, ReaderOptions::default());
        let mut first = join()?;
        let (all, one) = assigned(&mut first).await?;
        assert_eq!(all.len(), 4);
        for partition in &all {
            first.control().start(*partition, Offset(0));
            started(&mut first).await?;
        }

        let mut second = join()?;
        let (given, generations) = await_revoked(&mut first).await?;
        let (taken, two) = assigned(&mut second).await?;
        assert_eq!((given.len(), &sorted(&given)), (2, &sorted(&taken)));
        assert!(
            generations.is_sorted_by(|left, right| left < right) && generations[0] > one,
            "{one} {generations:?}"
        );
        assert!(two > one, "{one} {two}");
        // What was taken away does not start any more.
        first.control().start(given[0], Offset(0));
        silence(&mut first, Duration::from_millis(200)).await?;

        second.close().await;
        let (back, three) = assigned(&mut first).await?;
        assert_eq!(sorted(&back), sorted(&given));
        assert!(three > two && Some(&three) > generations.last(), "{two} {three}");
        // It waits for a start.
        produce(bootstrap, &topic, back[0], ["x"])?;
        silence(&mut first, Duration::from_millis(200)).await?;
        first.control().start(back[0], Offset(0));
        started(&mut first).await?;
        assert_eq!(read_until(&mut first, back[0], 1).await?.values, ["x"]);
        Ok(())
    })
}

pub(crate) fn the_end_of_a_partition_lies_behind_markers_and_aborted_records(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "markers", 1).await?;
        let mut reader = group(bootstrap, &topic)?;
        assigned(&mut reader).await?;
        reader.control().start(P0, Offset(0));
        started(&mut reader).await?;
        assert_eq!(read_until(&mut reader, P0, 0).await?.end, 0);

        let mut producer = transactional(bootstrap, &unique("markers"))?;
        let outcome = producer.commit(&[record(&topic, P0, "a"), record(&topic, P0, "b")]);
        assert_eq!(committed(outcome)?, [0, 1]);
        let seen = read_until(&mut reader, P0, 3).await?;
        assert_eq!((seen.values, seen.end), (vec!["a".to_owned(), "b".to_owned()], 3));

        let aborting = TestProducer::transactional(bootstrap, &unique("markers"), &[])?;
        aborting.client().begin_transaction()?;
        aborting.produce(&topic, 0, &["x", "y"])?;
        aborting.client().abort_transaction(PATIENCE)?;
        let seen = read_until(&mut reader, P0, 6).await?;
        assert_eq!((seen.values.len(), seen.end), (0, 6));
        Ok(())
    })
}

pub(crate) fn the_end_by_request_shows_an_open_transaction(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "request", 2).await?;
        produce(bootstrap, &topic, P1, ["a", "b", "c"])?;
        let mut reader = group(bootstrap, &topic)?;
        assigned(&mut reader).await?;
        let ends = |ends: PartitionEnds| (ends.log_start.0, ends.last_stable.0, ends.high_watermark.0);
        assert_eq!(ends(reader.control().end_of(P0).await?), (0, 0, 0));
        assert_eq!(ends(reader.control().end_of(P1).await?), (0, 3, 3));

        let producer = TestProducer::transactional(bootstrap, &unique("request"), &[])?;
        producer.client().begin_transaction()?;
        producer.produce(&topic, 1, &["open"])?;
        assert_eq!(ends(reader.control().end_of(P1).await?), (0, 3, 4));
        reader.control().start(P1, Offset(0));
        started(&mut reader).await?;
        assert_eq!(read_until(&mut reader, P1, 3).await?.end, 3);
        producer.client().commit_transaction(PATIENCE)?;
        assert_eq!(read_until(&mut reader, P1, 5).await?.values, ["open"]);
        assert_eq!(ends(reader.control().end_of(P1).await?), (0, 5, 5));

        let unknown = reader.control().end_of(Partition(9)).await;
        assert!(
            matches!(unknown, Err(Error::UnknownPartition { partition: Partition(9), .. })),
            "{unknown:?}"
        );
        Ok(())
    })
}

/// Takes batches and holds them until none has come for longer than the second after which fetching stops.
async fn hold(reader: &mut GroupReader) -> Result<Vec<RecordBatch>> {
    let mut held = Vec::new();
    while let Ok(event) = tokio::time::timeout(Duration::from_millis(1300), reader.next()).await {
        match event {
            Some(ReaderEvent::Batch(batch)) => held.push(batch),
            other => bail!("unexpected: {other:?}"),
        }
    }
    Ok(held)
}

fn offsets(batch: &RecordBatch) -> Vec<u64> {
    batch.iter().map(|record| record.offset().0).collect()
}

pub(crate) fn an_owner_that_holds_its_batches_stops_the_flow_and_loses_nothing(
    bootstrap: &str,
) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "hold", 1).await?;
        produce(bootstrap, &topic, P0, numbers(0..2000))?;
        let options = ReaderOptions { max_bytes: 30_000, max_records: 10 };
        let mut reader = GroupReader::join(&config(bootstrap), &topic, &unique("group"), options)?;
        assigned(&mut reader).await?;
        reader.control().start(P0, Offset(0));
        started(&mut reader).await?;

        let held = hold(&mut reader).await?;
        let bytes: usize = held.iter().map(RecordBatch::bytes).sum();
        assert!((30_000..34_000).contains(&bytes), "{bytes}");
        let mut seen: Vec<u64> = held.iter().flat_map(offsets).collect();
        // The permits alone hold back as well.
        let permits: Vec<_> = held.into_iter().map(RecordBatch::into_permit).collect();
        silence(&mut reader, Duration::from_millis(200)).await?;
        drop(permits);
        loop {
            match next(&mut reader).await? {
                ReaderEvent::Batch(batch) => seen.extend(offsets(&batch)),
                ReaderEvent::EndOfPartition { position, .. } if position.0 == 2000 => break,
                other => bail!("unexpected: {other:?}"),
            }
        }
        assert_eq!(seen, (0..2000).collect::<Vec<_>>());
        Ok(())
    })
}

pub(crate) fn an_owner_that_holds_its_batches_stays_in_its_group(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "stay", 2).await?;
        produce(bootstrap, &topic, P0, numbers(0..2000))?;
        produce(bootstrap, &topic, P1, numbers(0..2000))?;
        let options = ReaderOptions { max_bytes: 30_000, max_records: 10 };
        let group = unique("group");
        let mut reader = GroupReader::join(&config(bootstrap), &topic, &group, options)?;
        assigned(&mut reader).await?;
        reader.control().start(P0, Offset(0));
        started(&mut reader).await?;
        reader.control().start(P1, Offset(0));
        let mut held = Vec::new();
        loop {
            match next(&mut reader).await? {
                ReaderEvent::Batch(batch) => held.push(batch),
                ReaderEvent::Started { partition: P1, .. } => break,
                other => bail!("unexpected: {other:?}"),
            }
        }
        held.extend(hold(&mut reader).await?);

        let mut second = GroupReader::join(&config(bootstrap), &topic, &group, options)?;
        let (given, _) = await_revoked(&mut reader).await?;
        assert_eq!(assigned(&mut second).await?.0, given);
        let kept = if given == [P0] { P1 } else { P0 };
        let of_kept = |batch: &RecordBatch| {
            let of = batch.iter().filter(|record| record.partition() == kept);
            of.map(|record| record.offset().0).collect::<Vec<_>>()
        };
        let mut seen: Vec<u64> = held.iter().flat_map(of_kept).collect();
        drop(held);
        loop {
            match next(&mut reader).await? {
                ReaderEvent::Batch(batch) => seen.extend(of_kept(&batch)),
                ReaderEvent::EndOfPartition { position, .. } if position.0 == 2000 => break,
                other => bail!("unexpected: {other:?}"),
            }
        }
        assert_eq!(seen, (0..2000).collect::<Vec<_>>());
        Ok(())
    })
}

pub(crate) fn a_position_that_is_gone_is_an_error(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "gone", 1).await?;
        produce(bootstrap, &topic, P0, numbers(0..5))?;
        let mut reader = group(bootstrap, &topic)?;
        assigned(&mut reader).await?;
        reader.control().start(P0, Offset(50));
        started(&mut reader).await?;
        match next(&mut reader).await? {
            ReaderEvent::Failed(
                error @ Error::OffsetOutOfRange { partition: P0, offset: Offset(50), .. },
            ) => {
                assert!(!error.is_retriable());
                let expected =
                    format!("topic `{topic}` partition 0: offset 50 is not in the log, which holds 0 to 5");
                assert_eq!(error.to_string(), expected);
            }
            other => bail!("unexpected: {other:?}"),
        }
        // The reader goes on from elsewhere.
        reader.control().start(P0, Offset(3));
        started(&mut reader).await?;
        assert_eq!(read_until(&mut reader, P0, 5).await?.offsets, [3, 4]);
        Ok(())
    })
}

pub(crate) fn a_missing_topic_is_an_error(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = unique("missing");
        let mut reader = group(bootstrap, &topic)?;
        match next(&mut reader).await? {
            ReaderEvent::Failed(Error::UnknownTopic { topic: named }) => assert_eq!(named, topic),
            other => bail!("unexpected: {other:?}"),
        }
        Ok(())
    })
}

pub(crate) fn chosen_partitions_are_read_without_a_group(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "chosen", 3).await?;
        produce(bootstrap, &topic, P0, numbers(0..3))?;
        produce(bootstrap, &topic, P1, numbers(10..13))?;
        let mut reader =
            PartitionReader::open(&config(bootstrap), &topic, "chosen", ReaderOptions::default())?;
        reader.assign(P1, Offset(1));
        assert_eq!(started(&mut reader).await?, (P1, Offset(1)));
        assert_eq!(read_until(&mut reader, P1, 3).await?.values, ["11", "12"]);
        reader.unassign(P1);
        reader.assign(P0, Offset(0));
        assert_eq!(started(&mut reader).await?, (P0, Offset(0)));
        produce(bootstrap, &topic, P1, ["unseen"])?;
        assert_eq!(read_until(&mut reader, P0, 3).await?.values, ["0", "1", "2"]);
        silence(&mut reader, Duration::from_millis(200)).await?;
        reader.close().await;
        Ok(())
    })
}

pub(crate) fn a_group_learns_positions(bootstrap: &str) -> Result<()> {
    run(async {
        let topic = topic(bootstrap, "positions", 2).await?;
        produce(bootstrap, &topic, P0, numbers(0..10))?;
        let group = unique("group");
        let mut reader = GroupReader::join(&config(bootstrap), &topic, &group, ReaderOptions::default())?;
        assigned(&mut reader).await?;
        reader.control().commit(&[(P0, Offset(7)), (P1, Offset(0))]);
        let tool: rdkafka::consumer::BaseConsumer =
            consumer_config(bootstrap, &group, Isolation::ReadCommitted).create()?;
        until("the group to know the positions", || {
            let mut asked = TopicPartitionList::new();
            asked.add_partition_range(&topic, 0, 1);
            let found = tool.committed_offsets(asked, PATIENCE)?;
            let found: Vec<_> = found.elements().iter().map(|element| element.offset()).collect();
            Ok((found == [RawOffset::Offset(7), RawOffset::Offset(0)]).then_some(()))
        })
    })
}
