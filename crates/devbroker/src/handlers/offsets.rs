//! Committed offsets of groups: OffsetCommit and OffsetFetch.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{
    OffsetCommitRequest, OffsetCommitResponse, OffsetFetchRequest, OffsetFetchResponse, TopicName,
};

use super::text;
use crate::broker::Broker;
use crate::groups::Caller;
use crate::offsets::{Committed, Offsets};
use crate::state::State;

/// From this version on one request asks for several groups (KIP-709).
const SEVERAL_GROUPS: i16 = 8;

pub(super) fn commit(broker: &Broker, request: OffsetCommitRequest) -> OffsetCommitResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id_or_member_epoch,
    };
    let mut guard = broker.state();
    let state = &mut *guard;
    let allowed = match state.groups.get(&request.group_id) {
        Some(group) => group.check_commit(caller, false),
        None if caller.generation < 0 => Ok(()),
        None => Err(ResponseError::IllegalGeneration),
    };
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in &request.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let outcome = allowed.and_then(|()| {
                state.topics.partition(&topic.name, asked.partition_index)?;
                let committed = Committed {
                    offset: asked.committed_offset,
                    leader_epoch: asked.committed_leader_epoch,
                    metadata: asked.committed_metadata.as_ref().map(ToString::to_string).unwrap_or_default(),
                };
                let partition = (topic.name.to_string(), asked.partition_index);
                state.groups.get_or_create(&request.group_id).offsets.commit(partition, committed);
                Ok(())
            });
            let response = OffsetCommitResponsePartition::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(super::code(&outcome));
            partitions.push(response);
        }
        let response =
            OffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions);
        topics.push(response);
    }
    OffsetCommitResponse::default().with_topics(topics)
}

/// One partition's answer, before it takes the shape of a version.
struct Fetched {
    index: i32,
    outcome: Result<Option<Committed>, ResponseError>,
}

impl Fetched {
    /// Offset, leader epoch, metadata, error code; -1 stands on the wire for none.
    fn wire(self) -> (i64, i32, String, i16) {
        match self.outcome {
            Ok(Some(committed)) => (committed.offset, committed.leader_epoch, committed.metadata, 0),
            Ok(None) => (-1, -1, String::new(), 0),
            Err(error) => (-1, -1, String::new(), error.code()),
        }
    }
}

pub(super) fn fetch(broker: &Broker, version: i16, request: OffsetFetchRequest) -> OffsetFetchResponse {
    let state = broker.state();
    let stable = request.require_stable;
    if version < SEVERAL_GROUPS {
        let asked = request.topics.as_ref().map(|topics| {
            topics.iter().map(|topic| (topic.name.as_str(), &topic.partition_indexes[..])).collect()
        });
        let topics =
            fetch_group(&state, &request.group_id, asked, stable).into_iter().map(|(name, fetched)| {
                let partitions = fetched.into_iter().map(|fetched| {
                    let response =
                        OffsetFetchResponsePartition::default().with_partition_index(fetched.index);
                    let (offset, leader_epoch, metadata, error) = fetched.wire();
                    response
                        .with_committed_offset(offset)
                        .with_committed_leader_epoch(leader_epoch)
                        .with_metadata(Some(text(&metadata)))
                        .with_error_code(error)
                });
                OffsetFetchResponseTopic::default()
                    .with_partitions(partitions.collect())
                    .with_name(TopicName(text(&name)))
            });
        return OffsetFetchResponse::default().with_topics(topics.collect());
    }
    let groups = request.groups.iter().map(|group| {
        let asked = group.topics.as_ref().map(|topics| {
            topics.iter().map(|topic| (topic.name.as_str(), &topic.partition_indexes[..])).collect()
        });
        let topics =
            fetch_group(&state, &group.group_id, asked, stable).into_iter().map(|(name, fetched)| {
                let partitions = fetched.into_iter().map(|fetched| {
                    let response =
                        OffsetFetchResponsePartitions::default().with_partition_index(fetched.index);
                    let (offset, leader_epoch, metadata, error) = fetched.wire();
                    response
                        .with_committed_offset(offset)
                        .with_committed_leader_epoch(leader_epoch)
                        .with_metadata(Some(text(&metadata)))
                        .with_error_code(error)
                });
                OffsetFetchResponseTopics::default()
                    .with_partitions(partitions.collect())
                    .with_name(TopicName(text(&name)))
            });
        OffsetFetchResponseGroup::default()
            .with_topics(topics.collect())
            .with_group_id(group.group_id.clone())
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

/// The offsets of a group: those asked for, or all that it has.
fn fetch_group(
    state: &State,
    group: &str,
    asked: Option<Vec<(&str, &[i32])>>,
    stable: bool,
) -> Vec<(String, Vec<Fetched>)> {
    let none = Offsets::default();
    let offsets = state.groups.get(group).map_or(&none, |group| &group.offsets);
    let fetch_one = |name: &str, index: i32| {
        let partition = (name.to_owned(), index);
        let outcome = if stable && offsets.is_pending(&partition) {
            Err(ResponseError::UnstableOffsetCommit)
        } else {
            Ok(offsets.get(&partition).cloned())
        };
        Fetched { index, outcome }
    };
    if let Some(asked) = asked {
        let topics = asked.into_iter().map(|(name, indexes)| {
            let fetched = indexes.iter().map(|&index| fetch_one(name, index));
            (name.to_owned(), fetched.collect())
        });
        return topics.collect();
    }
    let mut topics: Vec<(String, Vec<Fetched>)> = Vec::new();
    for ((name, index), _) in offsets.iter() {
        let fetched = fetch_one(name, *index);
        match topics.last_mut() {
            Some((last, partitions)) if last == name => partitions.push(fetched),
            _ => topics.push((name.clone(), vec![fetched])),
        }
    }
    topics
}
