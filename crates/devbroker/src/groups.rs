//! Consumer groups of the classic protocol: one state machine per group.
//!
//! ```text
//! Empty ─join─► Preparing ─all joined or deadline─► Completing ─leader synced─► Stable
//!                  ▲                                    │                         │
//!                  └── join with a change, leave, session expired ◄───────────────┘
//! ```
//!
//! Joins and syncs are answered through a channel when the machine gets there. Time is an argument:
//! [`Group::tick`] does what became due. Static members keep their assignment over a restart.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::time::Instant;

use crate::offsets::Offsets;

mod member;
mod rebalance;
mod registry;

use member::Member;
pub(crate) use member::{Caller, Join, JoinRefused, JoinReply, Joined, JoinedMember, Protocol, SyncReply};
pub(crate) use registry::Groups;

#[derive(Debug)]
pub(crate) struct Group {
    phase: Phase,
    generation: i32,
    protocol_type: String,
    protocol: String,
    leader: String,
    /// In the order in which they joined.
    members: Vec<Member>,
    /// Ids given out and not yet joined with, and until when.
    promised: BTreeMap<String, Instant>,
    named: u64,
    initial_delay: Duration,
    pub(crate) offsets: Offsets,
}

/// Where a joining member belongs.
enum Place {
    New,
    Again(usize),
    /// In the place of the static member that has its instance id.
    InsteadOf(usize),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Empty,
    Preparing { not_before: Instant, deadline: Instant },
    Completing { deadline: Instant },
    Stable,
}

impl Group {
    /// An empty group. Its first rebalance waits `initial_delay` for more members.
    pub(crate) fn new(initial_delay: Duration) -> Self {
        Self {
            phase: Phase::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: String::new(),
            leader: String::new(),
            members: Vec::new(),
            promised: BTreeMap::new(),
            named: 0,
            initial_delay,
            offsets: Offsets::default(),
        }
    }

    /// JoinGroup. `reply` is answered at once or when the rebalance completes.
    pub(crate) fn join(&mut self, mut join: Join, reply: JoinReply, now: Instant) {
        match self.place(&mut join, now) {
            Ok(Place::New) => self.admit(join, reply, now),
            Ok(Place::Again(index)) => self.rejoin(index, join, reply, now),
            Ok(Place::InsteadOf(index)) => self.replace_static(index, join, reply, now),
            Err(error) => {
                let member_id = join.member_id;
                _ = reply.send(Err(JoinRefused { error, member_id }));
            }
        }
    }

    /// SyncGroup. The leader brings the assignments; the others wait for them.
    pub(crate) fn sync(
        &mut self,
        caller: Caller<'_>,
        assignments: BTreeMap<String, Bytes>,
        reply: SyncReply,
        now: Instant,
    ) {
        let index = match self.check_member(caller) {
            Ok(index) => index,
            Err(error) => {
                _ = reply.send(Err(error));
                return;
            }
        };
        let is_leader = caller.member_id == self.leader;
        let phase = self.phase;
        let Some(member) = self.members.get_mut(index) else { return };
        member.renew(now);
        match phase {
            Phase::Stable => _ = reply.send(Ok(member.assignment.clone())),
            Phase::Completing { .. } => {
                member.syncing = Some(reply);
                if is_leader {
                    self.assign(assignments, now);
                }
            }
            Phase::Empty | Phase::Preparing { .. } => _ = reply.send(Err(ResponseError::RebalanceInProgress)),
        }
    }

    pub(crate) fn heartbeat(&mut self, caller: Caller<'_>, now: Instant) -> Result<(), ResponseError> {
        let index = self.check_member(caller)?;
        if let Some(member) = self.members.get_mut(index) {
            member.renew(now);
        }
        match self.phase {
            Phase::Preparing { .. } => Err(ResponseError::RebalanceInProgress),
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => Ok(()),
        }
    }

    pub(crate) fn leave(
        &mut self,
        member_id: &str,
        instance: Option<&str>,
        now: Instant,
    ) -> Result<(), ResponseError> {
        if self.promised.remove(member_id).is_some() {
            self.complete_if_all_joined(now);
            return Ok(());
        }
        let leaves = |member: &Member| match instance {
            Some(instance) => member.join.instance.as_deref() == Some(instance),
            None => member.id == member_id,
        };
        if !self.members.iter().any(leaves) {
            return Err(ResponseError::UnknownMemberId);
        }
        self.members.retain(|member| !leaves(member));
        self.after_departure(now);
        Ok(())
    }

    /// Whether the caller may commit offsets.
    pub(crate) fn check_commit(&self, caller: Caller<'_>, in_transaction: bool) -> Result<(), ResponseError> {
        let anonymous = caller.generation < 0 && caller.member_id.is_empty() && caller.instance.is_none();
        if caller.generation < 0 && (in_transaction && anonymous || self.phase == Phase::Empty) {
            return Ok(());
        }
        self.check_member(caller)?;
        match self.phase {
            Phase::Completing { .. } if !in_transaction => Err(ResponseError::RebalanceInProgress),
            _ => Ok(()),
        }
    }

    /// Does what became due: expired sessions, deadlines of a rebalance.
    pub(crate) fn tick(&mut self, now: Instant) {
        let before = self.members.len() + self.promised.len();
        self.members.retain(|member| member.waits() || member.expires > now);
        self.promised.retain(|_, until| *until > now);
        if self.members.len() + self.promised.len() < before {
            self.after_departure(now);
        }
        match self.phase {
            Phase::Preparing { deadline, .. } if deadline <= now => self.complete(now),
            Phase::Preparing { .. } => self.complete_if_all_joined(now),
            Phase::Completing { deadline } if deadline <= now => {
                self.members.retain(|member| member.syncing.is_some());
                self.prepare(now);
            }
            Phase::Empty | Phase::Completing { .. } | Phase::Stable => {}
        }
    }

    /// Whether the group has no members.
    pub(crate) fn is_empty(&self) -> bool {
        self.members.is_empty() && self.promised.is_empty()
    }

    /// The state by the name that Kafka gives it.
    pub(crate) fn state_name(&self) -> &'static str {
        match self.phase {
            Phase::Empty => "Empty",
            Phase::Preparing { .. } => "PreparingRebalance",
            Phase::Completing { .. } => "CompletingRebalance",
            Phase::Stable => "Stable",
        }
    }

    pub(crate) fn protocol_type(&self) -> &str {
        &self.protocol_type
    }

    pub(crate) fn protocol(&self) -> &str {
        &self.protocol
    }

    /// Each member's id, what it joined with, its metadata and its assignment.
    pub(crate) fn members(&self) -> impl Iterator<Item = (&str, &Join, Bytes, Bytes)> {
        self.members.iter().map(|member| {
            let metadata = member.metadata(&self.protocol).cloned().unwrap_or_default();
            (member.id.as_str(), &member.join, metadata, member.assignment.clone())
        })
    }

    /// Finds the place of a joining member; one without an id gets its id here.
    fn place(&mut self, join: &mut Join, now: Instant) -> Result<Place, ResponseError> {
        if join.protocols.is_empty() || !self.can_speak(join) {
            return Err(ResponseError::InconsistentGroupProtocol);
        }
        let namesake = self.index_of_instance(join.instance.as_deref());
        if join.member_id.is_empty() {
            join.member_id = self.new_member_id(join);
            if let Some(index) = namesake {
                return Ok(Place::InsteadOf(index));
            }
            if join.id_first && join.instance.is_none() {
                self.promised.insert(join.member_id.clone(), now + join.session_timeout);
                return Err(ResponseError::MemberIdRequired);
            }
            return Ok(Place::New);
        }
        if self.promised.remove(&join.member_id).is_some() {
            return Ok(Place::New);
        }
        match (self.index_of(&join.member_id), namesake) {
            (Some(index), Some(namesake)) if index != namesake => Err(ResponseError::FencedInstanceId),
            (None, Some(_)) => Err(ResponseError::FencedInstanceId),
            (Some(index), _) => Ok(Place::Again(index)),
            (None, None) => Err(ResponseError::UnknownMemberId),
        }
    }

    fn admit(&mut self, join: Join, reply: JoinReply, now: Instant) {
        self.protocol_type.clone_from(&join.protocol_type);
        self.members.push(Member {
            id: join.member_id.clone(),
            expires: now + join.session_timeout,
            join,
            assignment: Bytes::new(),
            joining: Some(reply),
            syncing: None,
        });
        self.prepare(now);
    }

    fn rejoin(&mut self, index: usize, join: Join, reply: JoinReply, now: Instant) {
        let is_leader = join.member_id == self.leader;
        let Some(member) = self.members.get_mut(index) else { return };
        let changed = member.join.protocols != join.protocols;
        let answer_again = match self.phase {
            // A follower whose answer was lost, or who only asks again.
            Phase::Stable => !changed && !is_leader,
            Phase::Completing { .. } => !changed,
            Phase::Empty | Phase::Preparing { .. } => false,
        };
        member.renew(now);
        member.join = join;
        if answer_again {
            let joined = self.joined(index);
            _ = reply.send(joined);
            return;
        }
        member.joining = Some(reply);
        self.prepare(now);
    }

    /// A static member that came back under its instance id: it takes over, and if it asks for the same as
    /// before it gets its assignment without a rebalance (KIP-345).
    fn replace_static(&mut self, index: usize, join: Join, reply: JoinReply, now: Instant) {
        let new_id = join.member_id.clone();
        let Some(member) = self.members.get_mut(index) else { return };
        let old_id = std::mem::replace(&mut member.id, new_id.clone());
        if let Some(old) = member.joining.take() {
            let error = ResponseError::FencedInstanceId;
            let member_id = old_id.clone();
            _ = old.send(Err(JoinRefused { error, member_id }));
        }
        if let Some(old) = member.syncing.take() {
            _ = old.send(Err(ResponseError::FencedInstanceId));
        }
        let unchanged = member.join.protocols == join.protocols;
        member.join = join;
        member.renew(now);
        let was_leader = self.leader == old_id;
        if was_leader {
            self.leader.clone_from(&new_id);
        }
        if self.phase == Phase::Stable && unchanged {
            let joined = self.joined(index).map(|mut joined| {
                if was_leader {
                    // Not named leader, it does not assign again.
                    joined.leader = old_id;
                    joined.members.clear();
                }
                joined
            });
            _ = reply.send(joined);
            return;
        }
        if let Some(member) = self.members.get_mut(index) {
            member.joining = Some(reply);
        }
        self.prepare(now);
    }

    fn check_member(&self, caller: Caller<'_>) -> Result<usize, ResponseError> {
        if let Some(index) = self.index_of_instance(caller.instance)
            && self.members.get(index).is_some_and(|member| member.id != caller.member_id)
        {
            return Err(ResponseError::FencedInstanceId);
        }
        let index = self.index_of(caller.member_id).ok_or(ResponseError::UnknownMemberId)?;
        if caller.generation == self.generation { Ok(index) } else { Err(ResponseError::IllegalGeneration) }
    }

    fn index_of(&self, member_id: &str) -> Option<usize> {
        self.members.iter().position(|member| member.id == member_id)
    }

    fn index_of_instance(&self, instance: Option<&str>) -> Option<usize> {
        let instance = instance?;
        self.members.iter().position(|member| member.join.instance.as_deref() == Some(instance))
    }

    fn new_member_id(&mut self, join: &Join) -> String {
        self.named += 1;
        let base = join.instance.as_deref().unwrap_or(&join.client_id);
        format!("{base}-{}-{}", self.named, uuid::Uuid::new_v4())
    }
}

#[cfg(test)]
mod tests;
