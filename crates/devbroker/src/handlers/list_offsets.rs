//! What lies where in a log: ListOffsets and OffsetForLeaderEpoch; and DeleteRecords, which moves its start.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{
    DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};

use crate::batch::LEADER_EPOCH;
use crate::broker::Broker;
use crate::log::{Isolation, Log};

/// Times that stand for a place (protocol constants).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;

pub(super) fn list_offsets(
    broker: &Broker,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let isolation = Isolation::from_wire(request.isolation_level);
    let state = broker.state();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let response =
                ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            match state.topics.partition(&topic.name, asked.partition_index) {
                Ok(partition) => {
                    let (offset, timestamp) = place(&partition.log, asked.timestamp, isolation);
                    response
                        .with_offset(offset)
                        .with_timestamp(timestamp)
                        .with_leader_epoch(if version >= 4 && offset >= 0 { LEADER_EPOCH } else { -1 })
                }
                Err(error) => response.with_error_code(error.code()).with_offset(-1).with_timestamp(-1),
            }
        });
        ListOffsetsTopicResponse::default()
            .with_partitions(partitions.collect())
            .with_name(topic.name.clone())
    });
    ListOffsetsResponse::default().with_topics(topics.collect())
}

/// Offset and time of what was asked for; -1 stands on the wire for none.
fn place(log: &Log, timestamp: i64, isolation: Isolation) -> (i64, i64) {
    let until = log.readable_end(isolation);
    let found = match timestamp {
        LATEST => return (until, -1),
        EARLIEST => return (log.start(), -1),
        MAX_TIMESTAMP => log.find_latest_time(),
        timestamp => log.find_time(timestamp, until),
    };
    found.map_or((-1, -1), |found| (found.offset, found.timestamp))
}

pub(super) fn offset_for_leader_epoch(
    broker: &Broker,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let state = broker.state();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let response = EpochEndOffset::default().with_partition(asked.partition);
            match state.topics.partition(&topic.topic, asked.partition) {
                Ok(_) if asked.leader_epoch > LEADER_EPOCH => {
                    response.with_leader_epoch(-1).with_end_offset(-1)
                }
                Ok(partition) => {
                    response.with_leader_epoch(LEADER_EPOCH).with_end_offset(partition.log.end())
                }
                Err(error) => {
                    response.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1)
                }
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic.clone())
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics.collect())
}

pub(super) fn delete_records(broker: &Broker, request: DeleteRecordsRequest) -> DeleteRecordsResponse {
    let mut state = broker.state();
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let outcome =
                state.topics.partition_mut(&topic.name, asked.partition_index).and_then(|partition| {
                    // -1 asks for everything.
                    let offset = if asked.offset == -1 { partition.log.end() } else { asked.offset };
                    if offset < 0 {
                        return Err(ResponseError::OffsetOutOfRange);
                    }
                    let start = partition.log.delete_before(offset)?;
                    // A fetch that waits below the new start has to hear of it.
                    partition.wake();
                    Ok(start)
                });
            DeleteRecordsPartitionResult::default()
                .with_partition_index(asked.partition_index)
                .with_error_code(super::code(&outcome))
                .with_low_watermark(outcome.unwrap_or(-1))
        });
        let partitions = partitions.collect();
        DeleteRecordsTopicResult::default().with_partitions(partitions).with_name(topic.name)
    });
    let topics = topics.collect();
    DeleteRecordsResponse::default().with_topics(topics)
}
