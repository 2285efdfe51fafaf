//! Topics: creation, settings, deletion, growth.

use std::time::Duration;

use anyhow::{Context, Result};
use rdkafka::Offset;
use rdkafka::admin::{NewPartitions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::Message;
use tidegate_tests::clients::{
    Isolation, PATIENCE, TestProducer, admin, admin_options, await_partitions, bounds, client_config,
    consumer_config, create_topic, create_topic_named, read, read_to_end, unique, until, values, wait,
};

pub(crate) fn a_created_topic_shows_its_partitions_and_settings(bootstrap: &str) -> Result<()> {
    let settings = [("cleanup.policy", "compact"), ("retention.ms", "123456")];
    let topic = create_topic(bootstrap, "settings", 3, &settings)?;

    let client: BaseConsumer = client_config(bootstrap).create()?;
    let metadata = client.fetch_metadata(Some(&topic), PATIENCE)?;
    let broker = metadata.brokers().first().context("no broker")?;
    assert_eq!(format!("{}:{}", broker.host(), broker.port()), bootstrap);
    let described = metadata.topics().first().context("no topic")?;
    let mut partitions: Vec<_> = described.partitions().iter().map(|p| (p.id(), p.leader())).collect();
    partitions.sort_unstable();
    assert_eq!(partitions, [0, 1, 2].map(|id| (id, broker.id())));
    for partition in described.partitions() {
        assert_eq!(partition.replicas(), [broker.id()]);
        assert_eq!(partition.isr(), [broker.id()]);
    }
    assert_eq!(bounds(bootstrap, &topic, 2, Isolation::ReadUncommitted)?, (0, 0));

    let all = client.fetch_metadata(None, PATIENCE)?;
    assert!(all.topics().iter().any(|other| other.name() == topic), "{topic} is not among all topics");

    let resources = [ResourceSpecifier::Topic(&topic)];
    let described = wait(admin(bootstrap)?.describe_configs(&resources, &admin_options()))??;
    let config = described.into_iter().next().context("no answer")?.map_err(KafkaError::AdminOp)?;
    let value = |name| config.get(name).and_then(|entry| entry.value.clone());
    assert_eq!(value("cleanup.policy").as_deref(), Some("compact"));
    assert_eq!(value("retention.ms").as_deref(), Some("123456"));
    // Not set by us: the default is described too.
    assert_eq!(value("message.timestamp.type").as_deref(), Some("CreateTime"));
    assert!(value("max.message.bytes").is_some());
    Ok(())
}

pub(crate) fn a_topic_is_not_created_twice(bootstrap: &str) -> Result<()> {
    let name = create_topic(bootstrap, "twice", 1, &[])?;
    let again = NewTopic::new(&name, 2, TopicReplication::Fixed(1));
    let results = wait(admin(bootstrap)?.create_topics([&again], &admin_options()))??;
    assert_eq!(results, [Err((name.clone(), RDKafkaErrorCode::TopicAlreadyExists))]);
    await_partitions(bootstrap, &name, 1)
}

pub(crate) fn an_unknown_topic_is_an_error_and_is_not_created(bootstrap: &str) -> Result<()> {
    let name = unique("unknown");
    let client: BaseConsumer = client_config(bootstrap).create()?;
    for _ in 0..2 {
        let metadata = client.fetch_metadata(Some(&name), PATIENCE)?;
        let topic = metadata.topics().first().context("no topic in the answer")?;
        assert_eq!(
            topic.error().map(RDKafkaErrorCode::from),
            Some(RDKafkaErrorCode::UnknownTopicOrPartition)
        );
        assert!(topic.partitions().is_empty());
    }

    let producer = TestProducer::new(bootstrap, &[("topic.metadata.propagation.max.ms", "50")])?;
    let error = producer.produce(&name, 0, &["lost"]).expect_err("there is no such topic");
    let code = error.downcast::<KafkaError>()?.rdkafka_error_code();
    assert!(
        matches!(code, Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition)),
        "unexpected error {code:?}"
    );

    let resources = [ResourceSpecifier::Topic(&name)];
    let described = wait(admin(bootstrap)?.describe_configs(&resources, &admin_options()))??;
    // rdkafka drops the error that the broker gives for the resource: what is left is a topic without any setting.
    let config = described.into_iter().next().context("no answer")?;
    assert!(config.is_ok_and(|config| config.entries.is_empty()), "{name} is described");
    Ok(())
}

pub(crate) fn a_deleted_topic_is_gone_and_comes_back_empty(bootstrap: &str) -> Result<()> {
    let name = create_topic(bootstrap, "deleted", 1, &[])?;
    TestProducer::new(bootstrap, &[])?.produce(&name, 0, &["old"])?;

    let deleted = wait(admin(bootstrap)?.delete_topics(&[&name], &admin_options()))??;
    assert_eq!(deleted, [Ok(name.clone())]);
    let client: BaseConsumer = client_config(bootstrap).create()?;
    until("the topic to be gone", || {
        let metadata = client.fetch_metadata(Some(&name), PATIENCE)?;
        Ok(metadata.topics().first().and_then(|topic| topic.error()).map(RDKafkaErrorCode::from))
    })?;
    let again = wait(admin(bootstrap)?.delete_topics(&[&name], &admin_options()))??;
    assert_eq!(again, [Err((name.clone(), RDKafkaErrorCode::UnknownTopicOrPartition))]);

    create_topic_named(bootstrap, &name, 1, &[])?;
    let offsets = TestProducer::new(bootstrap, &[])?.produce(&name, 0, &["new"])?;
    assert_eq!(offsets, [0]);
    let records = read_to_end(bootstrap, &name, 0, Offset::Beginning, Isolation::ReadCommitted)?;
    assert_eq!(values(&records), ["new"]);
    Ok(())
}

pub(crate) fn new_partitions_show_up_and_take_records(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "grown", 1, &[])?;
    let member: BaseConsumer = consumer_config(bootstrap, &unique("growing"), Isolation::ReadCommitted)
        .set("topic.metadata.refresh.interval.ms", "100")
        .create()?;
    member.subscribe(&[&topic])?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["before"])?;
    assert_eq!(values(&read(&member, 1)?), ["before"]);

    let grown =
        wait(admin(bootstrap)?.create_partitions([&NewPartitions::new(&topic, 3)], &admin_options()))??;
    assert_eq!(grown, [Ok(topic.clone())]);
    await_partitions(bootstrap, &topic, 3)?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 2, &["after"])?;
    // A member of a group is given the new partition without asking; it may see a record again after the rebalance.
    let found = until("the record of the new partition", || {
        let record = member.poll(Duration::from_millis(10)).transpose().ok().flatten();
        Ok(record.filter(|record| record.partition() == 2).map(|record| record.detach()))
    })?;
    assert_eq!(values(&[found]), ["after"]);

    let shrunk =
        wait(admin(bootstrap)?.create_partitions([&NewPartitions::new(&topic, 2)], &admin_options()))??;
    assert_eq!(shrunk, [Err((topic, RDKafkaErrorCode::InvalidPartitions))]);
    Ok(())
}
