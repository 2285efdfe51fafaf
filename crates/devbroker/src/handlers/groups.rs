//! Consumer groups: JoinGroup, SyncGroup, Heartbeat, LeaveGroup, and their listing, description, deletion.

use std::time::Duration;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse, GroupId,
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::{code, text};
use crate::broker::Broker;
use crate::connection::Context;
use crate::groups::{Caller, Group, Join, JoinRefused, Protocol};

/// From this version on a new member first gets its id (KIP-394).
const ID_FIRST: i16 = 4;

pub(super) async fn join(
    context: &Context,
    version: i16,
    client_id: &str,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    if request.group_id.is_empty() {
        return JoinGroupResponse::default()
            .with_error_code(ResponseError::InvalidGroupId.code())
            .with_protocol_name(Some(StrBytes::default()));
    }
    let session_timeout = milliseconds(request.session_timeout_ms);
    let protocols = request
        .protocols
        .iter()
        .map(|protocol| Protocol { name: protocol.name.to_string(), metadata: protocol.metadata.clone() });
    let join = Join {
        member_id: request.member_id.to_string(),
        instance: request.group_instance_id.as_ref().map(ToString::to_string),
        client_id: client_id.to_owned(),
        client_host: format!("/{}", context.peer.ip()),
        session_timeout,
        // Version 0 has none.
        rebalance_timeout: if version >= 1 {
            milliseconds(request.rebalance_timeout_ms)
        } else {
            session_timeout
        },
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        id_first: version >= ID_FIRST,
    };
    let (reply, joined) = oneshot::channel();
    context.broker.state().groups.get_or_create(&request.group_id).join(join, reply, Instant::now());
    let response = JoinGroupResponse::default();
    let outcome = joined.await.unwrap_or_else(|_| {
        // The member was removed while it waited.
        Err(JoinRefused { error: ResponseError::UnknownMemberId, member_id: request.member_id.to_string() })
    });
    match outcome {
        Ok(joined) => {
            let members = joined.members.iter().map(|member| {
                JoinGroupResponseMember::default()
                    .with_member_id(text(&member.member_id))
                    .with_group_instance_id(member.instance.as_deref().map(text))
                    .with_metadata(member.metadata.clone())
            });
            response
                .with_generation_id(joined.generation)
                .with_protocol_name(Some(text(&joined.protocol)))
                .with_leader(text(&joined.leader))
                .with_members(members.collect())
                .with_member_id(text(&joined.member_id))
        }
        Err(refused) => response
            .with_error_code(refused.error.code())
            .with_generation_id(-1)
            .with_protocol_name(Some(StrBytes::default()))
            .with_member_id(text(&refused.member_id)),
    }
}

pub(super) async fn sync(broker: &Broker, request: SyncGroupRequest) -> SyncGroupResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let assignments = request
        .assignments
        .iter()
        .map(|assignment| (assignment.member_id.to_string(), assignment.assignment.clone()));
    let (reply, synced) = oneshot::channel();
    match broker.state().groups.get_mut(&request.group_id) {
        Some(group) => group.sync(caller, assignments.collect(), reply, Instant::now()),
        None => _ = reply.send(Err(ResponseError::UnknownMemberId)),
    }
    // A member removed while it waited is not known any more.
    let outcome = synced.await.unwrap_or(Err(ResponseError::UnknownMemberId));
    SyncGroupResponse::default().with_error_code(code(&outcome)).with_assignment(outcome.unwrap_or_default())
}

pub(super) fn heartbeat(broker: &Broker, request: &HeartbeatRequest) -> HeartbeatResponse {
    let caller = Caller {
        member_id: &request.member_id,
        instance: request.group_instance_id.as_deref(),
        generation: request.generation_id,
    };
    let outcome = match broker.state().groups.get_mut(&request.group_id) {
        Some(group) => group.heartbeat(caller, Instant::now()),
        None => Err(ResponseError::UnknownMemberId),
    };
    HeartbeatResponse::default().with_error_code(code(&outcome))
}

pub(super) fn leave(broker: &Broker, version: i16, request: &LeaveGroupRequest) -> LeaveGroupResponse {
    let mut state = broker.state();
    let mut group = state.groups.get_mut(&request.group_id);
    let mut leave = |member_id: &str, instance: Option<&str>| match &mut group {
        Some(group) => group.leave(member_id, instance, Instant::now()),
        None => Err(ResponseError::UnknownMemberId),
    };
    if version < 3 {
        let outcome = leave(&request.member_id, None);
        return LeaveGroupResponse::default().with_error_code(code(&outcome));
    }
    let members = request.members.iter().map(|member| {
        let outcome = leave(&member.member_id, member.group_instance_id.as_deref());
        MemberResponse::default()
            .with_member_id(member.member_id.clone())
            .with_group_instance_id(member.group_instance_id.clone())
            .with_error_code(code(&outcome))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

pub(super) fn list(broker: &Broker, request: &ListGroupsRequest) -> ListGroupsResponse {
    let state = broker.state();
    let wanted = |group: &Group| {
        let name = group.state_name();
        request.states_filter.is_empty() || request.states_filter.iter().any(|state| state.as_str() == name)
    };
    let listed = state.groups.iter().filter(|(_, group)| wanted(group)).map(|(id, group)| {
        ListedGroup::default()
            .with_group_id(GroupId(text(id)))
            .with_protocol_type(text(group.protocol_type()))
            .with_group_state(text(group.state_name()))
    });
    ListGroupsResponse::default().with_groups(listed.collect())
}

pub(super) fn describe(broker: &Broker, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let state = broker.state();
    let groups = request.groups.into_iter().map(|id| {
        let described = DescribedGroup::default();
        let described = match state.groups.get(&id) {
            None => described.with_group_state(text("Dead")),
            Some(group) => {
                let members = group.members().map(|(id, join, metadata, assignment)| {
                    DescribedGroupMember::default()
                        .with_member_id(text(id))
                        .with_group_instance_id(join.instance.as_deref().map(text))
                        .with_client_id(text(&join.client_id))
                        .with_client_host(text(&join.client_host))
                        .with_member_metadata(metadata)
                        .with_member_assignment(assignment)
                });
                described
                    .with_group_state(text(group.state_name()))
                    .with_protocol_type(text(group.protocol_type()))
                    .with_protocol_data(text(group.protocol()))
                    .with_members(members.collect())
            }
        };
        described.with_group_id(id)
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

pub(super) fn delete(broker: &Broker, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut state = broker.state();
    let results = request.groups_names.into_iter().map(|id| {
        let outcome = state.groups.delete(&id);
        DeletableGroupResult::default().with_error_code(code(&outcome)).with_group_id(id)
    });
    let results = results.collect();
    DeleteGroupsResponse::default().with_results(results)
}

fn milliseconds(value: i32) -> Duration {
    Duration::from_millis(u64::try_from(value).unwrap_or(0))
}
