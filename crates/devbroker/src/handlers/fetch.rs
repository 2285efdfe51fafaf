//! Fetch: batches as they lie in the log, at once or as soon as there are enough of them.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{AbortedTransaction, FetchableTopicResponse, PartitionData};
use kafka_protocol::messages::{FetchRequest, FetchResponse, ProducerId};
use tokio::time::Instant;

use crate::connection::Context;
use crate::log::{Aborted, Isolation, Log, Run};
use crate::state::State;

/// From this version on topics are asked for by id.
const BY_ID: i16 = 13;

/// What one look at the logs gave.
struct Look {
    topics: Vec<Vec<PartitionLook>>,
    bytes: usize,
    failed: bool,
}

struct PartitionLook {
    index: i32,
    outcome: Result<PartitionRead, ResponseError>,
}

struct PartitionRead {
    run: Run,
    end: i64,
    last_stable: i64,
    start: i64,
    aborted: Option<Vec<Aborted>>,
}

/// Answers when there are `min_bytes`, an error, or the client's patience is over.
pub(super) async fn fetch(context: &Context, version: i16, request: FetchRequest) -> FetchResponse {
    let patience = Duration::from_millis(u64::try_from(request.max_wait_ms).unwrap_or(0));
    let deadline = Instant::now() + patience;
    let enough = usize::try_from(request.min_bytes).unwrap_or(0);
    loop {
        let done = {
            let mut state = context.broker.state();
            let look = look(&state, version, &request);
            if look.failed || look.bytes >= enough || Instant::now() >= deadline {
                Some(look)
            } else {
                wait(&mut state, version, &request, context);
                None
            }
        };
        if let Some(look) = done {
            return respond(request, look);
        }
        _ = tokio::time::timeout_at(deadline, context.waiter.notified()).await;
    }
}

fn look(state: &State, version: i16, request: &FetchRequest) -> Look {
    let isolation = Isolation::from_wire(request.isolation_level);
    let mut look = Look { topics: Vec::with_capacity(request.topics.len()), bytes: 0, failed: false };
    let mut room = usize::try_from(request.max_bytes).unwrap_or(0);
    for topic in &request.topics {
        let name =
            if version >= BY_ID { state.topics.name_of(&topic.topic_id) } else { Ok(topic.topic.as_str()) };
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let log = name.and_then(|name| Ok(&state.topics.partition(name, asked.partition)?.log));
            let outcome = log.and_then(|log| read(log, asked, isolation, room, look.bytes == 0));
            match &outcome {
                Ok(read) => {
                    look.bytes += read.run.bytes;
                    room = room.saturating_sub(read.run.bytes);
                }
                Err(_) => look.failed = true,
            }
            partitions.push(PartitionLook { index: asked.partition, outcome });
        }
        look.topics.push(partitions);
    }
    look
}

/// The first batch of a response comes whatever its size, so that a client cannot get stuck (KIP-74).
fn read(
    log: &Log,
    asked: &FetchPartition,
    isolation: Isolation,
    room: usize,
    at_least_one: bool,
) -> Result<PartitionRead, ResponseError> {
    let from = asked.fetch_offset;
    if from < log.start() || from > log.end() {
        return Err(ResponseError::OffsetOutOfRange);
    }
    if asked.current_leader_epoch > crate::batch::LEADER_EPOCH {
        return Err(ResponseError::UnknownLeaderEpoch);
    }
    let until = log.readable_end(isolation);
    let max_bytes = usize::try_from(asked.partition_max_bytes).unwrap_or(0).min(room);
    let run = log.read(from, until, max_bytes, at_least_one);
    let aborted = match isolation {
        Isolation::ReadUncommitted => None,
        Isolation::ReadCommitted if run.batches.is_empty() => Some(Vec::new()),
        Isolation::ReadCommitted => Some(log.aborted(from, run.next).collect()),
    };
    Ok(PartitionRead { run, end: log.end(), last_stable: log.last_stable(), start: log.start(), aborted })
}

fn wait(state: &mut State, version: i16, request: &FetchRequest, context: &Context) {
    for topic in &request.topics {
        let by_id = state.topics.name_of(&topic.topic_id).map(str::to_owned);
        let name = if version >= BY_ID { by_id.unwrap_or_default() } else { topic.topic.to_string() };
        for asked in &topic.partitions {
            if let Ok(partition) = state.topics.partition_mut(&name, asked.partition) {
                partition.wait(context.number, &context.waiter);
            }
        }
    }
}

fn respond(request: FetchRequest, look: Look) -> FetchResponse {
    let topics = request.topics.into_iter().zip(look.topics).map(|(topic, partitions)| {
        FetchableTopicResponse::default()
            .with_topic(topic.topic)
            .with_topic_id(topic.topic_id)
            .with_partitions(partitions.into_iter().map(respond_partition).collect())
    });
    // Session id 0: fetch sessions are refused, every request names all its partitions.
    FetchResponse::default().with_responses(topics.collect())
}

fn respond_partition(look: PartitionLook) -> PartitionData {
    let response = PartitionData::default().with_partition_index(look.index);
    match look.outcome {
        Ok(read) => response
            .with_high_watermark(read.end)
            .with_last_stable_offset(read.last_stable)
            .with_log_start_offset(read.start)
            .with_aborted_transactions(read.aborted.map(|aborted| aborted.into_iter().map(skip).collect()))
            .with_records(Some(join(read.run))),
        Err(error) => response
            .with_error_code(error.code())
            .with_high_watermark(-1)
            .with_aborted_transactions(None)
            .with_records(Some(Bytes::new())),
    }
}

fn skip(aborted: Aborted) -> AbortedTransaction {
    AbortedTransaction::default()
        .with_producer_id(ProducerId(aborted.producer_id))
        .with_first_offset(aborted.first)
}

/// One batch goes out without a copy, several in one piece.
fn join(mut run: Run) -> Bytes {
    if run.batches.len() == 1 {
        return run.batches.pop().unwrap_or_default();
    }
    let mut joined = BytesMut::with_capacity(run.bytes);
    for batch in &run.batches {
        joined.extend_from_slice(batch);
    }
    joined.freeze()
}
