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
    if batch.len() > config.max_message_bytes {
        return Err(ResponseError::MessageTooLarge);
    }
    if !config.log_append_time {
        check_times(config, target.now_ms, batch)?;
    }
    if config.compact && batch.records()?.iter().any(|record| record.key.is_none()) {
        return Err(ResponseError::InvalidRecord);
    }
    Ok(())
}

/// A record from too far ahead or too long ago is refused, unless the broker gives the time.
fn check_times(config: &TopicConfig, now_ms: i64, batch: &Batch) -> Result<(), ResponseError> {
    let latest = now_ms.saturating_add(config.timestamp_after_max_ms);
    if batch.header.max_timestamp > latest {
        return Err(ResponseError::InvalidTimestamp);
    }
    if let Some(limit) = config.timestamp_before_max_ms {
        let earliest = now_ms.saturating_sub(limit);
        if batch.records()?.iter().any(|record| record.timestamp < earliest) {
            return Err(ResponseError::InvalidTimestamp);
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::tests::encoded;

    fn outcome(set: &[(&str, &str)], acks: i16, timestamps: &[i64]) -> Result<(), ResponseError> {
        let set = set.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let config = TopicConfig::new(set.collect()).unwrap();
        let partition = ("topic".to_owned(), 0);
        let target = Target { partition, transactional_id: None, acks, now_ms: 10_000_000 };
        check(&config, &target, &Batch::parse(&encoded(timestamps, None, false)).unwrap())
    }

    #[test]
    fn times_out_of_bounds_are_refused_unless_the_broker_gives_the_time() {
        let hour = 3_600_000;
        let future = [10_000_000, 10_000_001 + hour];
        assert_eq!(outcome(&[], -1, &[0, 10_000_000 + hour]), Ok(()));
        assert_eq!(outcome(&[], -1, &future), Err(ResponseError::InvalidTimestamp));
        assert_eq!(outcome(&[("message.timestamp.type", "LogAppendTime")], -1, &future), Ok(()));
        let bounded = [("message.timestamp.before.max.ms", "1000")];
        assert_eq!(outcome(&bounded, -1, &[9_999_000]), Ok(()));
        assert_eq!(outcome(&bounded, -1, &[10_000_000, 9_998_999]), Err(ResponseError::InvalidTimestamp));
    }

    #[test]
    fn size_and_acks_are_checked() {
        let size = encoded(&[0], None, false).len();
        let fits = size.to_string();
        let too_small = (size - 1).to_string();
        assert_eq!(outcome(&[("max.message.bytes", &fits)], 1, &[0]), Ok(()));
        assert_eq!(
            outcome(&[("max.message.bytes", &too_small)], 1, &[0]),
            Err(ResponseError::MessageTooLarge)
        );
        assert_eq!(outcome(&[], 2, &[0]), Err(ResponseError::InvalidRequiredAcks));
    }
}
