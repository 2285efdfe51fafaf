//! Consumer groups: who reads which partition, and where a group goes on.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Offset, TopicPartitionList};
use tidegate_tests::clients::{
    Isolation, PATIENCE, TestProducer, consumer_config, create_topic, partition, read, unique, until, values,
};

pub(crate) fn members_share_the_partitions_and_inherit_them(bootstrap: &str) -> Result<()> {
    share_and_inherit(bootstrap, "range")
}

pub(crate) fn members_share_the_partitions_cooperatively(bootstrap: &str) -> Result<()> {
    share_and_inherit(bootstrap, "cooperative-sticky")
}

fn share_and_inherit(bootstrap: &str, strategy: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "shared", 4, &[])?;
    let group = unique("group");
    let join = || -> Result<BaseConsumer> {
        let member: BaseConsumer = consumer_config(bootstrap, &group, Isolation::ReadCommitted)
            .set("partition.assignment.strategy", strategy)
            .create()?;
        member.subscribe(&[&topic])?;
        Ok(member)
    };
    let all = BTreeSet::from([0, 1, 2, 3]);

    let first = join()?;
    until("the only member to have all partitions", || Ok((partitions(&first)? == all).then_some(())))?;
    let second = join()?;
    until("two members to have two partitions each", || {
        let (a, b) = (partitions(&first)?, partitions(&second)?);
        Ok((a.len() == 2 && b.len() == 2 && &a | &b == all).then_some(()))
    })?;

    // What is produced now is read once, each record by the member that has its partition.
    let producer = TestProducer::new(bootstrap, &[])?;
    for partition in 0..4 {
        producer.produce(&topic, partition, &[&partition.to_string()])?;
    }
    let mut read_by_both = values(&read(&first, 2)?);
    read_by_both.extend(values(&read(&second, 2)?));
    read_by_both.sort();
    assert_eq!(read_by_both, ["0", "1", "2", "3"]);

    drop(first);
    until("the one left to have all partitions", || Ok((partitions(&second)? == all).then_some(())))
}

/// What the member has now; polling is what lets it take part in a rebalance.
fn partitions(member: &BaseConsumer) -> Result<BTreeSet<i32>> {
    match member.poll(Duration::from_millis(1)) {
        None | Some(Err(KafkaError::PartitionEOF(_))) => {}
        Some(record) => panic!("nothing to read yet, but {:?}", record?.detach()),
    }
    Ok(member.assignment()?.elements().iter().map(|element| element.partition()).collect())
}

pub(crate) fn a_group_goes_on_at_its_commit(bootstrap: &str) -> Result<()> {
    let topic = create_topic(bootstrap, "resumed", 2, &[])?;
    TestProducer::new(bootstrap, &[])?.produce(&topic, 0, &["a", "b", "c"])?;
    let group = unique("group");
    let join = || -> Result<BaseConsumer> {
        let member: BaseConsumer = consumer_config(bootstrap, &group, Isolation::ReadCommitted).create()?;
        member.subscribe(&[&topic])?;
        Ok(member)
    };
    let both = || -> Result<TopicPartitionList> {
        let mut list = partition(&topic, 0, Offset::Invalid)?;
        list.add_partition(&topic, 1);
        Ok(list)
    };
    let offsets =
        |list: &TopicPartitionList| -> Vec<_> { list.elements().iter().map(|e| e.offset()).collect() };

    let member = join()?;
    assert_eq!(values(&read(&member, 3)?), ["a", "b", "c"]);
    assert_eq!(offsets(&member.committed_offsets(both()?, PATIENCE)?), [Offset::Invalid, Offset::Invalid]);
    member.commit(&partition(&topic, 0, Offset::Offset(2))?, CommitMode::Sync)?;
    drop(member);

    let member = join()?;
    assert_eq!(values(&read(&member, 1)?), ["c"]);
    assert_eq!(offsets(&member.committed_offsets(both()?, PATIENCE)?), [Offset::Offset(2), Offset::Invalid]);

    // Another group knows nothing of it.
    let stranger: BaseConsumer =
        consumer_config(bootstrap, &unique("group"), Isolation::ReadCommitted).create()?;
    assert_eq!(offsets(&stranger.committed_offsets(both()?, PATIENCE)?), [Offset::Invalid, Offset::Invalid]);
    Ok(())
}
