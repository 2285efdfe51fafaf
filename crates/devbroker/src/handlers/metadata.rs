//! Where things are: Metadata and FindCoordinator. Everything is on the one broker.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, FindCoordinatorRequest, FindCoordinatorResponse, MetadataRequest, MetadataResponse, TopicName,
};
use uuid::Uuid;

use super::text;
use crate::Config;
use crate::batch::LEADER_EPOCH;
use crate::broker::NODE_ID;
use crate::connection::Context;
use crate::topic_config::TopicConfig;
use crate::topics::{Topic, Topics};

pub(super) fn metadata(context: &Context, request: MetadataRequest) -> MetadataResponse {
    let mut state = context.broker.state();
    let topics = &mut state.topics;
    let described = match &request.topics {
        None => topics.iter().map(|(name, topic)| describe(name, topic)).collect(),
        Some(asked) => {
            let create = request.allow_auto_topic_creation && context.broker.config.auto_create_topics;
            asked.iter().map(|asked| find(topics, asked, create.then_some(&context.broker.config))).collect()
        }
    };
    let node = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(&context.local.ip().to_string()))
        .with_port(i32::from(context.local.port()));
    MetadataResponse::default()
        .with_brokers(vec![node])
        .with_cluster_id(Some(text(&context.broker.cluster_id)))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(described)
}

pub(super) fn find_coordinator(
    context: &Context,
    request: &FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let response = FindCoordinatorResponse::default();
    if request.key.is_empty() {
        return response
            .with_error_code(ResponseError::InvalidRequest.code())
            .with_node_id(BrokerId(-1))
            .with_port(-1);
    }
    response
        .with_node_id(BrokerId(NODE_ID))
        .with_host(text(&context.local.ip().to_string()))
        .with_port(i32::from(context.local.port()))
}

fn find(topics: &mut Topics, asked: &MetadataRequestTopic, create: Option<&Config>) -> MetadataResponseTopic {
    let name = match &asked.name {
        Some(name) => name.to_string(),
        None => match topics.name_of(&asked.topic_id) {
            Ok(name) => name.to_owned(),
            Err(error) => return failed(None, asked.topic_id, error),
        },
    };
    if let Some(config) = create {
        // A topic that cannot be created is reported as unknown below.
        let partitions = usize::from(config.default_partitions);
        let defaults = TopicConfig::new(BTreeMap::new());
        if let (Ok(()), Ok(defaults)) = (topics.check_new(&name), defaults) {
            _ = topics.create(&name, partitions, defaults);
        }
    }
    match topics.get(&name) {
        Ok(topic) => describe(&name, topic),
        Err(unknown) => {
            let error = topics.check_new(&name).err().unwrap_or(unknown);
            failed(Some(TopicName(text(&name))), Uuid::nil(), error)
        }
    }
}

fn failed(name: Option<TopicName>, id: Uuid, error: ResponseError) -> MetadataResponseTopic {
    // Before v12 a name is required.
    MetadataResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(name.unwrap_or_default()))
        .with_topic_id(id)
}

fn describe(name: &str, topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0i32..).take(topic.partition_count()).map(|index| {
        MetadataResponsePartition::default()
            .with_partition_index(index)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(LEADER_EPOCH)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
    });
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(text(name))))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}
