//! DescribeConfigs, AlterConfigs, IncrementalAlterConfigs, for topics; the broker's own are only described.

use std::collections::BTreeMap;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::alter_configs_response::AlterConfigsResourceResponse;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult,
};
use kafka_protocol::messages::incremental_alter_configs_request::AlterableConfig;
use kafka_protocol::messages::incremental_alter_configs_response;
use kafka_protocol::messages::{
    AlterConfigsRequest, AlterConfigsResponse, DescribeConfigsRequest, DescribeConfigsResponse,
    IncrementalAlterConfigsRequest, IncrementalAlterConfigsResponse,
};

use super::text;
use crate::broker::{Broker, NODE_ID};
use crate::topic_config::TopicConfig;

/// Kinds of resource, sources of a value and operations on it (protocol constants).
const TOPIC: i8 = 2;
const BROKER: i8 = 4;
const SET_ON_TOPIC: i8 = 1;
const SET_AT_START: i8 = 4;
const DEFAULT: i8 = 5;
const SET: i8 = 0;
const DELETE: i8 = 1;
const APPEND: i8 = 2;
const SUBTRACT: i8 = 3;

/// An error code and the sentence that the client shows with it.
type Refusal = (ResponseError, String);

pub(super) fn describe(broker: &Broker, request: DescribeConfigsRequest) -> DescribeConfigsResponse {
    let results = request.resources.into_iter().map(|resource| {
        let outcome = match resource.resource_type {
            TOPIC => describe_topic(broker, &resource),
            BROKER if resource.resource_name.as_str() == NODE_ID.to_string() => Ok(describe_broker(broker)),
            _ => Err((
                ResponseError::InvalidRequest,
                "no such kind of resource, or not this broker".to_owned(),
            )),
        };
        let result = DescribeConfigsResult::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match outcome {
            Ok(configs) => {
                let asked = |config: &DescribeConfigsResourceResult| match &resource.configuration_keys {
                    None => true,
                    Some(keys) => keys.contains(&config.name),
                };
                result.with_configs(configs.into_iter().filter(asked).collect())
            }
            Err((error, message)) => {
                result.with_error_code(error.code()).with_error_message(Some(text(&message)))
            }
        }
    });
    DescribeConfigsResponse::default().with_results(results.collect())
}

fn describe_topic(
    broker: &Broker,
    resource: &DescribeConfigsResource,
) -> Result<Vec<DescribeConfigsResourceResult>, Refusal> {
    let state = broker.state();
    let topic = state.topics.get(&resource.resource_name).map_err(|error| (error, error.to_string()))?;
    let entries = topic.config.entries().map(|entry| {
        let source = if entry.is_default { DEFAULT } else { SET_ON_TOPIC };
        described(entry.name, entry.value, source)
    });
    Ok(entries.collect())
}

fn describe_broker(broker: &Broker) -> Vec<DescribeConfigsResourceResult> {
    let config = &broker.config;
    let milliseconds = |duration: std::time::Duration| duration.as_millis().to_string();
    [
        ("auto.create.topics.enable", config.auto_create_topics.to_string()),
        ("default.replication.factor", "1".to_owned()),
        ("group.initial.rebalance.delay.ms", milliseconds(config.group_initial_rebalance_delay)),
        ("min.insync.replicas", "1".to_owned()),
        ("num.partitions", config.default_partitions.to_string()),
        ("transaction.max.timeout.ms", milliseconds(config.transaction_max_timeout)),
    ]
    .into_iter()
    .map(|(name, value)| described(name, &value, SET_AT_START).with_read_only(true))
    .collect()
}

fn described(name: &str, value: &str, source: i8) -> DescribeConfigsResourceResult {
    DescribeConfigsResourceResult::default()
        .with_name(text(name))
        .with_value(Some(text(value)))
        .with_config_source(source)
}

pub(super) fn alter(broker: &Broker, request: AlterConfigsRequest) -> AlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        // What is not named goes back to its default.
        let set = resource
            .configs
            .iter()
            .filter_map(|config| Some((config.name.to_string(), config.value.as_ref()?.to_string())));
        let set: BTreeMap<String, String> = set.collect();
        let outcome =
            replace(broker, resource.resource_type, &resource.resource_name, request.validate_only, |_| {
                Ok(set)
            });
        let response = AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match outcome {
            Ok(()) => response,
            Err((error, message)) => {
                response.with_error_code(error.code()).with_error_message(Some(text(&message)))
            }
        }
    });
    AlterConfigsResponse::default().with_responses(responses.collect())
}

pub(super) fn alter_some(
    broker: &Broker,
    request: IncrementalAlterConfigsRequest,
) -> IncrementalAlterConfigsResponse {
    let responses = request.resources.into_iter().map(|resource| {
        let outcome = replace(
            broker,
            resource.resource_type,
            &resource.resource_name,
            request.validate_only,
            |config| changed(config, &resource.configs),
        );
        let response = incremental_alter_configs_response::AlterConfigsResourceResponse::default()
            .with_resource_type(resource.resource_type)
            .with_resource_name(resource.resource_name.clone());
        match outcome {
            Ok(()) => response,
            Err((error, message)) => {
                response.with_error_code(error.code()).with_error_message(Some(text(&message)))
            }
        }
    });
    IncrementalAlterConfigsResponse::default().with_responses(responses.collect())
}

fn replace(
    broker: &Broker,
    kind: i8,
    name: &str,
    validate_only: bool,
    set: impl FnOnce(&TopicConfig) -> Result<BTreeMap<String, String>, Refusal>,
) -> Result<(), Refusal> {
    if kind != TOPIC {
        let message = "only the configuration of topics can be changed".to_owned();
        return Err((ResponseError::InvalidRequest, message));
    }
    let mut state = broker.state();
    let topic = state.topics.get_mut(name).map_err(|error| (error, error.to_string()))?;
    let config =
        TopicConfig::new(set(&topic.config)?).map_err(|message| (ResponseError::InvalidConfig, message))?;
    if !validate_only {
        topic.config = config;
    }
    Ok(())
}

fn changed(config: &TopicConfig, changes: &[AlterableConfig]) -> Result<BTreeMap<String, String>, Refusal> {
    let mut set = config.set().clone();
    for change in changes {
        let name = change.name.to_string();
        let value = change.value.as_ref().map(|value| value.as_str()).unwrap_or_default();
        let listed = || config.get(&name).split(',').filter(|item| !item.is_empty());
        match change.config_operation {
            SET => _ = set.insert(name, value.to_owned()),
            DELETE => _ = set.remove(&name),
            APPEND if TopicConfig::is_list(&name) => {
                let items: Vec<&str> = listed().filter(|item| *item != value).chain([value]).collect();
                let items = items.join(",");
                set.insert(name, items);
            }
            SUBTRACT if TopicConfig::is_list(&name) => {
                let items = listed().filter(|item| *item != value).collect::<Vec<_>>().join(",");
                set.insert(name, items);
            }
            operation => {
                let message = format!("operation {operation} cannot be done on configuration {name}");
                return Err((ResponseError::InvalidConfig, message));
            }
        }
    }
    Ok(set)
}
