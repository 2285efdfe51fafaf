//! CreateTopics, DeleteTopics, CreatePartitions.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{
    CreatePartitionsRequest, CreatePartitionsResponse, CreateTopicsRequest, CreateTopicsResponse,
    DeleteTopicsRequest, DeleteTopicsResponse,
};

use super::{code, text};
use crate::broker::Broker;
use crate::state::State;
use crate::topic_config::TopicConfig;

/// An error code and the sentence that the client shows with it.
type Refusal = (ResponseError, String);

pub(super) fn create_topics(broker: &Broker, request: CreateTopicsRequest) -> CreateTopicsResponse {
    let mut state = broker.state();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let outcome = create(&mut state, broker, &topic, request.validate_only);
        let result = CreatableTopicResult::default().with_name(topic.name);
        results.push(match outcome {
            Ok(()) => result,
            Err((error, message)) => {
                result.with_error_code(error.code()).with_error_message(Some(text(&message)))
            }
        });
    }
    CreateTopicsResponse::default().with_topics(results)
}

fn create(
    state: &mut State,
    broker: &Broker,
    topic: &CreatableTopic,
    validate_only: bool,
) -> Result<(), Refusal> {
    let name = topic.name.as_str();
    state.topics.check_new(name).map_err(|error| match error {
        ResponseError::TopicAlreadyExists => (error, format!("Topic '{name}' already exists.")),
        _ => (error, format!("Topic name '{name}' is invalid.")),
    })?;
    let partitions = match (topic.num_partitions, topic.assignments.len()) {
        (-1, 0) => usize::from(broker.config.default_partitions),
        (-1, assigned) => assigned,
        (count, _) => usize::try_from(count).ok().filter(|&count| count > 0).ok_or_else(|| {
            let message = "Number of partitions must be larger than 0.".to_owned();
            (ResponseError::InvalidPartitions, message)
        })?,
    };
    if ![-1, 1].contains(&topic.replication_factor) {
        let message = format!(
            "Unable to replicate the partition {} time(s): only 1 broker(s) are registered.",
            topic.replication_factor
        );
        return Err((ResponseError::InvalidReplicationFactor, message));
    }
    let set: BTreeMap<String, String> = topic
        .configs
        .iter()
        .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())))
        .collect();
    let config = TopicConfig::new(set).map_err(|message| (ResponseError::InvalidConfig, message))?;
    if validate_only {
        return Ok(());
    }
    state.topics.create(name, partitions, config).map_err(|error| (error, error.to_string()))?;
    tracing::debug!(topic = name, partitions, "topic created");
    Ok(())
}

pub(super) fn delete_topics(broker: &Broker, request: DeleteTopicsRequest) -> DeleteTopicsResponse {
    let mut state = broker.state();
    let results = request.topic_names.into_iter().map(|name| {
        let outcome = state.delete_topic(&name);
        DeletableTopicResult::default().with_error_code(code(&outcome)).with_name(Some(name))
    });
    let results = results.collect();
    DeleteTopicsResponse::default().with_responses(results)
}

pub(super) fn create_partitions(
    broker: &Broker,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let mut state = broker.state();
    let mut results = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let outcome = grow(&mut state, &topic, request.validate_only);
        let result = CreatePartitionsTopicResult::default().with_name(topic.name);
        results.push(match outcome {
            Ok(()) => result,
            Err((error, message)) => {
                result.with_error_code(error.code()).with_error_message(Some(text(&message)))
            }
        });
    }
    CreatePartitionsResponse::default().with_results(results)
}

fn grow(state: &mut State, asked: &CreatePartitionsTopic, validate_only: bool) -> Result<(), Refusal> {
    let unknown = |error| (error, "This server does not host this topic-partition.".to_owned());
    let topic = state.topics.get_mut(&asked.name).map_err(unknown)?;
    let current = topic.partition_count();
    let wanted = usize::try_from(asked.count).unwrap_or(0);
    if wanted <= current {
        let message = format!(
            "The topic {} currently has {current} partition(s); {} would not be an increase.",
            asked.name.as_str(),
            asked.count
        );
        return Err((ResponseError::InvalidPartitions, message));
    }
    if !validate_only {
        topic.grow(wanted);
    }
    Ok(())
}
