//! Produce: batches are checked outside the lock, then appended as the bytes they are.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};

use crate::batch::Batch;
use crate::broker::{Broker, wall_clock_ms};
use crate::state::State;
use crate::topic_config::TopicConfig;
use crate::transactions::{Producer, TopicPartition};

/// What the client is told of an appended batch.
struct Appended {
    base_offset: i64,
    append_time: Option<i64>,
    log_start: i64,
}

/// Where a batch goes and on whose behalf.
struct Target<'a> {
    partition: TopicPartition,
    transactional_id: Option<&'a str>,
    acks: i16,
    now_ms: i64,
}

/// `None` if the client asked for no acknowledgement.
pub(super) fn produce(broker: &Broker, request: ProduceRequest) -> Option<ProduceResponse> {
    let now_ms = wall_clock_ms();
    let transactional_id = request.transactional_id.as_ref().map(|id| id.as_str());
    let mut responses = Vec::with_capacity(request.topic_data.len());
    for topic in request.topic_data {
        let mut partitions = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let target = Target {
                partition: (topic.name.to_string(), data.index),
                transactional_id,
                acks: request.acks,
                now_ms,
            };
            let batch = Batch::parse(&data.records.unwrap_or_default());
            let outcome = batch.and_then(|batch| append(&mut broker.state(), &target, batch));
            if let Err(error) = outcome {
                tracing::debug!(partition = ?target.partition, %error, "batch refused");
            }
            partitions.push(respond(data.index, outcome));
        }
        let response =
            TopicProduceResponse::default().with_name(topic.name).with_partition_responses(partitions);
        responses.push(response);
    }
    (request.acks != 0).then(|| ProduceResponse::default().with_responses(responses))
}

fn append(state: &mut State, target: &Target<'_>, mut batch: Batch) -> Result<Appended, ResponseError> {
    let (topic, index) = &target.partition;
    let config = &state.topics.get(topic)?.config;
    state.topics.partition(topic, *index)?;
    check(config, target, &batch)?;
    let append_time = config.log_append_time.then_some(target.now_ms);
    if let Some(now_ms) = append_time {
        batch.set_append_time(now_ms);
    }
    if let (true, Some(stamp)) = (batch.header.transactional(), batch.header.stamp) {
        let producer = Producer { id: stamp.producer_id, epoch: stamp.epoch };
        let transactional_id = target.transactional_id.ok_or(ResponseError::InvalidTxnState)?;
        state.transactions.check_produce(transactional_id, producer, &target.partition).map_err(|error| {
            match error {
                ResponseError::ProducerFenced => ResponseError::InvalidProducerEpoch,
                other => other,
            }
        })?;
    }
    let partition = state.topics.partition_mut(topic, *index)?;
    let base_offset = partition.log.append(batch)?;
    let log_start = partition.log.start();
    partition.wake();
    Ok(Appended { base_offset, append_time, log_start })
}

/// What the topic's configuration demands of a batch.
fn check(config: &TopicConfig, target: &Target<'_>, batch: &Batch) -> Result<(), ResponseError> {
    if ![-1, 0, 1].contains(&target.acks) {
        return Err(ResponseError::InvalidRequiredAcks);
    }
    if target.acks == -1 && config.min_insync_replicas > 1 {
        return Err(ResponseError::NotEnoughReplicas);
    }
    if batch.len() > config.max_message_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    let latest = target.now_ms.saturating_add(config.timestamp_after_max_ms);
    if !config.log_append_time && batch.header.max_timestamp > latest {
        return Err(ResponseError::InvalidTimestamp);
    }
    if config.compact && batch.records()?.iter().any(|record| record.key.is_none()) {
        return Err(ResponseError::InvalidRecord);
    }
    Ok(())
}

fn respond(index: i32, outcome: Result<Appended, ResponseError>) -> PartitionProduceResponse {
    let response = PartitionProduceResponse::default().with_index(index);
    match outcome {
        Ok(appended) => response
            .with_base_offset(appended.base_offset)
            .with_log_append_time_ms(appended.append_time.unwrap_or(-1))
            .with_log_start_offset(appended.log_start),
        Err(error) => response.with_error_code(error.code()).with_base_offset(-1),
    }
}
