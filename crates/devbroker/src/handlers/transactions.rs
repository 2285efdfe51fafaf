//! Producer ids and transactions: InitProducerId, AddPartitionsToTxn, AddOffsetsToTxn, TxnOffsetCommit, EndTxn.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, AddPartitionsToTxnRequest, AddPartitionsToTxnResponse,
    EndTxnRequest, EndTxnResponse, InitProducerIdRequest, InitProducerIdResponse, ProducerId,
    TxnOffsetCommitRequest, TxnOffsetCommitResponse,
};
use tokio::time::Instant;

use super::code;
use crate::broker::{Broker, wall_clock_ms};
use crate::groups::Caller;
use crate::offsets::Committed;
use crate::state::State;
use crate::transactions::Producer;

pub(super) fn init_producer_id(
    broker: &Broker,
    version: i16,
    request: &InitProducerIdRequest,
) -> InitProducerIdResponse {
    let outcome = init(&mut broker.state(), request);
    let response = InitProducerIdResponse::default();
    match outcome {
        Ok(producer) => {
            response.with_producer_id(ProducerId(producer.id)).with_producer_epoch(producer.epoch)
        }
        Err(error) => response
            .with_error_code(fenced_as_known(error, version, 4).code())
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1),
    }
}

fn init(state: &mut State, request: &InitProducerIdRequest) -> Result<Producer, ResponseError> {
    let Some(transactional_id) = &request.transactional_id else {
        return Ok(state.transactions.new_producer());
    };
    if transactional_id.is_empty() {
        return Err(ResponseError::InvalidRequest);
    }
    let timeout = Duration::from_millis(u64::try_from(request.transaction_timeout_ms).unwrap_or(0));
    let current = (request.producer_id.0 >= 0)
        .then_some(Producer { id: request.producer_id.0, epoch: request.producer_epoch });
    let (producer, ended) = state.transactions.init(transactional_id, timeout, current)?;
    if let Some(ended) = ended {
        state.settle(&ended, wall_clock_ms());
    }
    Ok(producer)
}

pub(super) fn add_partitions(
    broker: &Broker,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let producer =
        Producer { id: request.v3_and_below_producer_id.0, epoch: request.v3_and_below_producer_epoch };
    let mut state = broker.state();
    let topics = request.v3_and_below_topics;
    let asked = || topics.iter().flat_map(|topic| topic.partitions.iter().map(|&index| (&topic.name, index)));
    // All or nothing: one unknown partition keeps the others out.
    let all_known = asked().all(|(name, index)| state.topics.partition(name, index).is_ok());
    let added = if all_known {
        let partitions = asked().map(|(name, index)| (name.to_string(), index));
        let transactional_id = &request.v3_and_below_transactional_id;
        state
            .transactions
            .add_partitions(transactional_id, producer, partitions, Instant::now())
            .map_err(|error| fenced_as_known(error, version, 2))
    } else {
        Err(ResponseError::OperationNotAttempted)
    };
    let results = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|&index| {
            let outcome = state.topics.partition(&topic.name, index).map(|_| ()).and(added);
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(index)
                .with_partition_error_code(code(&outcome))
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(partitions.collect())
    });
    AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(results.collect())
}

pub(super) fn add_offsets(
    broker: &Broker,
    version: i16,
    request: &AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    let outcome = broker
        .state()
        .transactions
        .add_group(&request.transactional_id, producer, &request.group_id, Instant::now())
        .map_err(|error| fenced_as_known(error, version, 2));
    AddOffsetsToTxnResponse::default().with_error_code(code(&outcome))
}

pub(super) fn commit_offsets(broker: &Broker, request: TxnOffsetCommitRequest) -> TxnOffsetCommitResponse {
    let mut guard = broker.state();
    let state = &mut *guard;
    let allowed = may_commit(state, &request);
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
                let group = state.groups.get_or_create(&request.group_id);
                group.offsets.commit_in_transaction(request.producer_id.0, partition, committed);
                Ok(())
            });
            let response = TxnOffsetCommitResponsePartition::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(code(&outcome));
            partitions.push(response);
        }
        let response =
            TxnOffsetCommitResponseTopic::default().with_name(topic.name.clone()).with_partitions(partitions);
        topics.push(response);
    }
    TxnOffsetCommitResponse::default().with_topics(topics)
}

fn may_commit(state: &mut State, request: &TxnOffsetCommitRequest) -> Result<(), ResponseError> {
    let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    state
        .transactions
        .check_offsets(&request.transactional_id, producer, &request.group_id)
        .map_err(|error| fenced_as_known(error, 0, 1))?;
    let caller = Caller {
        member_id: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    match state.groups.get(&request.group_id) {
        Some(group) => group.check_commit(caller, true),
        None if caller.generation < 0 => Ok(()),
        None => Err(ResponseError::IllegalGeneration),
    }
}

pub(super) fn end(broker: &Broker, version: i16, request: &EndTxnRequest) -> EndTxnResponse {
    let producer = Producer { id: request.producer_id.0, epoch: request.producer_epoch };
    let mut state = broker.state();
    let outcome = state
        .transactions
        .end(&request.transactional_id, producer, request.committed)
        .map_err(|error| fenced_as_known(error, version, 2));
    if let Ok(Some(ended)) = &outcome {
        state.settle(ended, wall_clock_ms());
    }
    EndTxnResponse::default().with_error_code(code(&outcome))
}

/// Clients older than version `since` of a request know a fenced producer by its epoch only.
fn fenced_as_known(error: ResponseError, version: i16, since: i16) -> ResponseError {
    match error {
        ResponseError::ProducerFenced if version < since => ResponseError::InvalidProducerEpoch,
        other => other,
    }
}
