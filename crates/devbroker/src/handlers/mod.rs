//! The requests, one file per area: wire messages in, state changed, wire messages out.

mod configs;
mod fetch;
mod groups;
mod list_offsets;
mod metadata;
mod offsets;
mod produce;
mod topics;
mod transactions;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::{RequestKind, ResponseKind};
use kafka_protocol::protocol::StrBytes;

use crate::api;
use crate::connection::Context;

/// Applies a request. `None` if the client expects no response.
pub(crate) async fn handle(
    context: &Context,
    version: i16,
    client_id: &str,
    request: RequestKind,
) -> Option<ResponseKind> {
    use RequestKind as Q;
    use ResponseKind as A;
    let broker = &*context.broker;
    Some(match request {
        Q::ApiVersions(_) => A::ApiVersions(api::versions(None)),
        Q::Metadata(request) => A::Metadata(metadata::metadata(context, request)),
        Q::FindCoordinator(request) => A::FindCoordinator(metadata::find_coordinator(context, &request)),

        Q::Produce(request) => return produce::produce(broker, request).map(A::Produce),
        Q::Fetch(request) => A::Fetch(fetch::fetch(context, version, request).await),
        Q::ListOffsets(request) => A::ListOffsets(list_offsets::list_offsets(broker, version, request)),
        Q::OffsetForLeaderEpoch(request) => {
            A::OffsetForLeaderEpoch(list_offsets::offset_for_leader_epoch(broker, request))
        }
        Q::DeleteRecords(request) => A::DeleteRecords(list_offsets::delete_records(broker, request)),

        Q::CreateTopics(request) => A::CreateTopics(topics::create_topics(broker, request)),
        Q::DeleteTopics(request) => A::DeleteTopics(topics::delete_topics(broker, request)),
        Q::CreatePartitions(request) => A::CreatePartitions(topics::create_partitions(broker, request)),
        Q::DescribeConfigs(request) => A::DescribeConfigs(configs::describe(broker, request)),
        Q::AlterConfigs(request) => A::AlterConfigs(configs::alter(broker, request)),
        Q::IncrementalAlterConfigs(request) => {
            A::IncrementalAlterConfigs(configs::alter_some(broker, request))
        }

        Q::JoinGroup(request) => A::JoinGroup(groups::join(context, version, client_id, request).await),
        Q::SyncGroup(request) => A::SyncGroup(groups::sync(broker, request).await),
        Q::Heartbeat(request) => A::Heartbeat(groups::heartbeat(broker, &request)),
        Q::LeaveGroup(request) => A::LeaveGroup(groups::leave(broker, version, &request)),
        Q::ListGroups(request) => A::ListGroups(groups::list(broker, &request)),
        Q::DescribeGroups(request) => A::DescribeGroups(groups::describe(broker, request)),
        Q::DeleteGroups(request) => A::DeleteGroups(groups::delete(broker, request)),
        Q::OffsetCommit(request) => A::OffsetCommit(offsets::commit(broker, request)),
        Q::OffsetFetch(request) => A::OffsetFetch(offsets::fetch(broker, version, request)),

        Q::InitProducerId(request) => {
            A::InitProducerId(transactions::init_producer_id(broker, version, &request))
        }
        Q::AddPartitionsToTxn(request) => {
            A::AddPartitionsToTxn(transactions::add_partitions(broker, version, request))
        }
        Q::AddOffsetsToTxn(request) => {
            A::AddOffsetsToTxn(transactions::add_offsets(broker, version, &request))
        }
        Q::TxnOffsetCommit(request) => A::TxnOffsetCommit(transactions::commit_offsets(broker, request)),
        Q::EndTxn(request) => A::EndTxn(transactions::end(broker, version, &request)),

        // The table of versions lets nothing else come here.
        other => {
            tracing::error!(request = ?std::mem::discriminant(&other), "no handler");
            return None;
        }
    })
}

/// The error code of an outcome; 0 is none.
fn code<T>(outcome: &Result<T, ResponseError>) -> i16 {
    match outcome {
        Ok(_) => 0,
        Err(error) => error.code(),
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
