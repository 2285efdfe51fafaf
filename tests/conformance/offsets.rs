//! Offsets: where reading starts, by name, by number, by time, and what is out of range.

use std::time::Duration;

use anyhow::Result;
use rdkafka::Offset;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use tidegate_tests::clients::{
    Isolation, PATIENCE, Record, TestProducer, admin, admin_options, assign, bounds, consumer,
    consumer_config, create_topic, offsets, partition, read, read_to_end, unique, until, values, wait,
};

const ISOLATION: Isolation = Isolation::ReadCommitted;

pub(crate) fn earliest_and_latest_are_the_ends_of_the_partition(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "ends", 1, &[])?;
    let producer = TestProducer::new(bootstrap, &[])?;
    producer.produce(&topic, 0, &["a", "b", "c"])?;
    assert_eq!(bounds(bootstrap, &topic, 0, ISOLATION)?, (0, 3));
    assert_eq!(values(&read_to_end(bootstrap, &topic, 0, Offset::Beginning, ISOLATION)?), ["a", "b", "c"]);
    assert_eq!(values(&read_to_end(bootstrap, &topic, 0, Offset::End, ISOLATION)?), [""; 0]);
    assert_eq!(values(&read_to_end(bootstrap, &topic, 0, Offset::OffsetTail(1), ISOLATION)?), ["c"]);

    // A reader that stands at the end is given what comes next.
    let reader = consumer(bootstrap, ISOLATION)?;
    assign(&reader, &topic, 0, Offset::End)?;
    let end = until("the end of the partition", || Ok(reader.poll(Duration::from_millis(10))))?;
    assert!(matches!(end, Err(KafkaError::PartitionEOF(0))), "{end:?}");
    producer.produce(&topic, 0, &["d"])?;
    assert_eq!(offsets(&read(&reader, 1)?), [3]);
    Ok(())
}

pub(crate) fn reading_starts_in_the_middle_of_a_batch(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "middle", 1, &[])?;
    for codec in ["none", "lz4"] {
        // All in one batch: they wait for each other.
        let producer = TestProducer::new(bootstrap, &[("linger.ms", "200"), ("compression.codec", codec)])?;
        let sent: Vec<_> = (0..100).map(|n| n.to_string()).collect();
        producer.produce(&topic, 0, &sent.iter().map(String::as_str).collect::<Vec<_>>())?;
    }
    for start in [37, 99, 100, 163] {
        let records = read_to_end(bootstrap, &topic, 0, Offset::Offset(start), ISOLATION)?;
        assert_eq!(offsets(&records), (start..200).collect::<Vec<i64>>());
    }
    Ok(())
}

pub(crate) fn offsets_are_found_by_time(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "times", 1, &[])?;
    let producer = TestProducer::new(bootstrap, &[("linger.ms", "50")])?;
    for batch in [[1_000, 3_000, 2_000], [5_000, 4_000, 6_000]] {
        for time in batch {
            producer.send(Record::to(&topic).partition(0).payload(&b"x"[..]).timestamp(time))?;
        }
        producer.flush()?;
    }
    let reader = consumer(bootstrap, ISOLATION)?;
    let at = |time| -> Result<Offset> {
        let found = reader.offsets_for_times(partition(&topic, 0, Offset::Offset(time))?, PATIENCE)?;
        found.elements()[0].error()?;
        Ok(found.elements()[0].offset())
    };
    // The first offset whose time is not before the one asked for, whatever comes later.
    for (time, offset) in
        [(0, 0), (1_000, 0), (1_001, 1), (2_500, 1), (3_001, 3), (4_000, 3), (5_001, 5), (6_000, 5)]
    {
        assert_eq!(at(time)?, Offset::Offset(offset), "at time {time}");
    }
    assert_eq!(at(6_001)?, Offset::End);
    Ok(())
}

pub(crate) fn deleted_records_are_out_of_range(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "truncated", 1, &[])?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["a", "b", "c", "d", "e"])?;
    let deleted =
        wait(admin(bootstrap)?.delete_records(&partition(&topic, 0, Offset::Offset(3))?, &admin_options()))??;
    let low = deleted.find_partition(&topic, 0).map(|partition| partition.offset());
    assert_eq!(low, Some(Offset::Offset(3)));

    assert_eq!(bounds(bootstrap, &topic, 0, ISOLATION)?, (3, 5));
    assert_eq!(offsets(&read_to_end(bootstrap, &topic, 0, Offset::Beginning, ISOLATION)?), [3, 4]);
    assert_out_of_range(bootstrap, &topic, 2)
}

pub(crate) fn reading_past_the_end_is_out_of_range(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "beyond", 1, &[])?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["a"])?;
    assert_eq!(offsets(&read_to_end(bootstrap, &topic, 0, Offset::Offset(1), ISOLATION)?), [0; 0]);
    assert_out_of_range(bootstrap, &topic, 7)
}

/// A reader that has no rule for it is told; one that has starts from there.
fn assert_out_of_range(bootstrap: &str, topic: &str, offset: i64) -> Result<()> {
    let strict: BaseConsumer = consumer_config(bootstrap, &unique("strict"), ISOLATION)
        .set("auto.offset.reset", "error")
        .create()?;
    assign(&strict, topic, 0, Offset::Offset(offset))?;
    let answer = until("an answer to the fetch", || Ok(strict.poll(Duration::from_millis(10))))?;
    let code = answer.map(|record| record.detach()).expect_err("out of range").rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::AutoOffsetReset));

    let (start, end) = bounds(bootstrap, topic, 0, ISOLATION)?;
    let records = read_to_end(bootstrap, topic, 0, Offset::Offset(offset), ISOLATION)?;
    assert_eq!(offsets(&records), (start..end).collect::<Vec<i64>>(), "auto.offset.reset=earliest");
    Ok(())
}
