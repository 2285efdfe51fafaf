//! A member of a consumer group: what it asks with, what it is answered, what the group keeps of it.

use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::sync::oneshot;
use tokio::time::Instant;

/// A subscription or whatever else the member says under one protocol (assignor).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Protocol {
    pub(crate) name: String,
    pub(crate) metadata: Bytes,
}

/// What a member asks with when it joins.
#[derive(Clone, Debug)]
pub(crate) struct Join {
    /// Empty for a new member.
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) client_id: String,
    pub(crate) client_host: String,
    pub(crate) session_timeout: Duration,
    pub(crate) rebalance_timeout: Duration,
    pub(crate) protocol_type: String,
    pub(crate) protocols: Vec<Protocol>,
    /// A new member first gets its id and joins again with it (KIP-394).
    pub(crate) id_first: bool,
}

/// The answer to a member that has joined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Joined {
    pub(crate) generation: i32,
    pub(crate) protocol: String,
    pub(crate) leader: String,
    pub(crate) member_id: String,
    /// All members, for the leader; empty for the others.
    pub(crate) members: Vec<JoinedMember>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinedMember {
    pub(crate) member_id: String,
    pub(crate) instance: Option<String>,
    pub(crate) metadata: Bytes,
}

/// A join that failed; `member_id` is the one to join again with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct JoinRefused {
    pub(crate) error: ResponseError,
    pub(crate) member_id: String,
}

pub(crate) type JoinReply = oneshot::Sender<Result<Joined, JoinRefused>>;
pub(crate) type SyncReply = oneshot::Sender<Result<Bytes, ResponseError>>;

/// Who a request says that it comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller<'a> {
    pub(crate) member_id: &'a str,
    pub(crate) instance: Option<&'a str>,
    pub(crate) generation: i32,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) join: Join,
    pub(super) assignment: Bytes,
    pub(super) expires: Instant,
    pub(super) joining: Option<JoinReply>,
    pub(super) syncing: Option<SyncReply>,
}

impl Member {
    /// A member that waits for an answer cannot send heartbeats.
    pub(super) fn waits(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    pub(super) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        let found = self.join.protocols.iter().find(|offered| offered.name == protocol);
        found.map(|offered| &offered.metadata)
    }

    pub(super) fn renew(&mut self, now: Instant) {
        self.expires = now + self.join.session_timeout;
    }
}
