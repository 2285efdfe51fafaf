//! Records: what goes in comes out, in order, or is refused.

use anyhow::Result;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Headers, Message, OwnedHeaders, OwnedMessage};
use rdkafka::{Offset, Timestamp};
use tidegate_tests::clients::{
    Isolation, Record, TestProducer, assign, bounds, consumer_config, create_topic, offsets, read,
    read_to_end, unique, values,
};

const MEGABYTE: usize = 1_000_000;

fn all(bootstrap: &str, topic: &str) -> Result<Vec<OwnedMessage>> {
    read_to_end(bootstrap, topic, 0, Offset::Beginning, Isolation::ReadCommitted)
}

pub(crate) fn a_record_comes_back_whole(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "whole", 2, &[])?;
    let producer = TestProducer::new(bootstrap, &[])?;
    let headers = OwnedHeaders::new()
        .insert(Header { key: "text", value: Some("one") })
        .insert(Header { key: "text", value: Some("two") })
        .insert(Header { key: "empty", value: Some("") })
        .insert(Header { key: "null", value: None::<&str> })
        .insert(Header { key: "bytes", value: Some(&[0_u8, 255, 7][..]) });
    let key = [0_u8, 159, 146, 150];
    producer.send(
        Record::to(&topic)
            .partition(1)
            .key(&key[..])
            .payload(&b"value"[..])
            .timestamp(1_234_567_890_123)
            .headers(headers),
    )?;
    // No key and no value; an empty key and an empty value; a time before the epoch is not a time in Kafka, 0 is.
    producer.send(Record::to(&topic).partition(1).timestamp(5))?;
    producer.send(Record::to(&topic).partition(1).key(&b""[..]).payload(&b""[..]).timestamp(3))?;
    assert_eq!(producer.flush()?, [0, 1, 2]);

    let records = read_to_end(bootstrap, &topic, 1, Offset::Beginning, Isolation::ReadCommitted)?;
    let [full, null, empty] = &records[..] else { panic!("{} records", records.len()) };
    assert_eq!((full.topic(), full.partition(), full.offset()), (topic.as_str(), 1, 0));
    assert_eq!((full.key(), full.payload()), (Some(&key[..]), Some(&b"value"[..])));
    assert_eq!(full.timestamp(), Timestamp::CreateTime(1_234_567_890_123));
    let headers: Vec<_> =
        full.headers().into_iter().flat_map(Headers::iter).map(|h| (h.key, h.value)).collect();
    let expected: [(&str, Option<&[u8]>); 5] = [
        ("text", Some(b"one")),
        ("text", Some(b"two")),
        ("empty", Some(b"")),
        ("null", None),
        ("bytes", Some(&[0, 255, 7])),
    ];
    assert_eq!(headers, expected);

    assert_eq!((null.key(), null.payload(), null.timestamp()), (None, None, Timestamp::CreateTime(5)));
    assert!(null.headers().is_none_or(|headers| headers.count() == 0));
    assert_eq!((empty.key(), empty.payload()), (Some(&b""[..]), Some(&b""[..])));
    // Times need not rise.
    assert_eq!(empty.timestamp(), Timestamp::CreateTime(3));
    // The other partition saw nothing of it.
    assert_eq!(bounds(bootstrap, &topic, 0, Isolation::ReadUncommitted)?, (0, 0));
    Ok(())
}

pub(crate) fn the_broker_stamps_records_where_the_topic_says_so(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "stamped", 1, &[("message.timestamp.type", "LogAppendTime")])?;
    let before = Timestamp::now().to_millis();
    let producer = TestProducer::new(bootstrap, &[])?;
    producer.send(Record::to(&topic).partition(0).payload(&b"x"[..]).timestamp(1_000))?;
    producer.flush()?;
    let after = Timestamp::now().to_millis();

    let records = all(bootstrap, &topic)?;
    let Timestamp::LogAppendTime(stamp) = records[0].timestamp() else {
        panic!("{:?}", records[0].timestamp())
    };
    assert!(before <= Some(stamp) && Some(stamp) <= after, "{before:?} <= {stamp} <= {after:?}");
    Ok(())
}

pub(crate) fn every_codec_comes_back_as_it_went(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "codecs", 1, &[])?;
    let mut expected = Vec::new();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer = TestProducer::new(bootstrap, &[("compression.codec", codec), ("linger.ms", "50")])?;
        let sent: Vec<_> = (0..100).map(|n| format!("{codec} {n} {}", "and so on ".repeat(n))).collect();
        let borrowed: Vec<_> = sent.iter().map(String::as_str).collect();
        producer.produce(&topic, 0, &borrowed)?;
        expected.extend(sent);
    }
    let records = all(bootstrap, &topic)?;
    assert_eq!(values(&records), expected);
    assert_eq!(offsets(&records), (0..500).collect::<Vec<i64>>());
    Ok(())
}

pub(crate) fn a_record_too_large_for_its_topic_is_refused(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "small", 1, &[("max.message.bytes", "2000")])?;
    let producer = TestProducer::new(bootstrap, &[])?;
    let error =
        producer.produce(&topic, 0, &[&"x".repeat(3_000)]).expect_err("3000 bytes where 2000 are allowed");
    let code = error.downcast::<KafkaError>()?.rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::MessageSizeTooLarge));

    producer.produce(&topic, 0, &[&"y".repeat(1_000)])?;
    assert_eq!(offsets(&all(bootstrap, &topic)?), [0]);
    Ok(())
}

pub(crate) fn a_compacted_topic_takes_no_record_without_a_key(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "compacted", 1, &[("cleanup.policy", "compact")])?;
    let producer = TestProducer::new(bootstrap, &[])?;
    let error = producer.produce(&topic, 0, &["keyless"]).expect_err("nothing to compact by");
    let code = error.downcast::<KafkaError>()?.rdkafka_error_code();
    assert_eq!(code, Some(RDKafkaErrorCode::InvalidRecord));

    producer.send(Record::to(&topic).partition(0).key(&b"key"[..]))?;
    assert_eq!(producer.flush()?, [0]);
    Ok(())
}

pub(crate) fn a_megabyte_comes_back(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "large", 1, &[("max.message.bytes", "1100000")])?;
    let producer = TestProducer::new(bootstrap, &[("message.max.bytes", "1100000")])?;
    let payload = |n: u8| -> Vec<u8> { (0..MEGABYTE).map(|i| n.wrapping_add((i % 251) as u8)).collect() };
    for n in 0..4 {
        producer.send(Record::to(&topic).partition(0).payload(&payload(n)))?;
    }
    producer.flush()?;

    // A fetch gives at least one batch, however small its limits.
    let reader: BaseConsumer = consumer_config(bootstrap, &unique("large"), Isolation::ReadCommitted)
        .set("fetch.message.max.bytes", "1000")
        .set("fetch.max.bytes", "1100000")
        .create()?;
    assign(&reader, &topic, 0, Offset::Beginning)?;
    for (n, record) in (0..).zip(read(&reader, 4)?) {
        assert!(record.payload() == Some(&payload(n)), "record {n} came back different");
    }
    Ok(())
}

pub(crate) fn an_idempotent_producer_keeps_order_without_gaps(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "idempotent", 1, &[])?;
    let producer =
        TestProducer::new(bootstrap, &[("enable.idempotence", "true"), ("batch.num.messages", "7")])?;
    let sent: Vec<_> = (0..1_000).map(|n| n.to_string()).collect();
    producer.produce(&topic, 0, &sent.iter().map(String::as_str).collect::<Vec<_>>())?;
    let records = all(bootstrap, &topic)?;
    assert_eq!(values(&records), sent);
    assert_eq!(offsets(&records), (0..1_000).collect::<Vec<i64>>());
    Ok(())
}
