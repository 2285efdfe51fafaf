//! From one generation of a group to the next: who is waited for, which protocol they speak, who leads.

use std::collections::BTreeMap;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use tokio::time::Instant;

use super::{Group, Join, JoinRefused, Joined, JoinedMember, Phase, Protocol};

impl Group {
    /// Starts a rebalance, or goes on with the one under way.
    pub(super) fn prepare(&mut self, now: Instant) {
        for member in &mut self.members {
            if let Some(reply) = member.syncing.take() {
                member.expires = now + member.join.session_timeout;
                _ = reply.send(Err(ResponseError::RebalanceInProgress));
            }
        }
        let patience = self.members.iter().map(|member| member.join.rebalance_timeout).max();
        let deadline = now + patience.unwrap_or_default();
        match self.phase {
            Phase::Preparing { .. } => {}
            Phase::Empty => {
                let not_before = now + self.initial_delay;
                self.phase = Phase::Preparing { not_before, deadline };
            }
            Phase::Completing { .. } | Phase::Stable => {
                let not_before = now;
                self.phase = Phase::Preparing { not_before, deadline };
            }
        }
        self.complete_if_all_joined(now);
    }

    pub(super) fn complete_if_all_joined(&mut self, now: Instant) {
        if let Phase::Preparing { not_before, .. } = self.phase {
            let all = self.members.iter().all(|member| member.joining.is_some());
            if all && self.promised.is_empty() && not_before <= now {
                self.complete(now);
            }
        }
    }

    /// Begins the next generation with those who have joined.
    pub(super) fn complete(&mut self, now: Instant) {
        self.members.retain(|member| member.joining.is_some());
        self.generation += 1;
        if self.members.is_empty() {
            self.phase = Phase::Empty;
            self.leader.clear();
            self.protocol.clear();
            return;
        }
        self.protocol = self.elect_protocol();
        if self.index_of(&self.leader).is_none() {
            let first = self.members.first();
            self.leader = first.map(|member| member.id.clone()).unwrap_or_default();
        }
        let patience = self.members.iter().map(|member| member.join.rebalance_timeout).max();
        let deadline = now + patience.unwrap_or_default();
        self.phase = Phase::Completing { deadline };
        for index in 0..self.members.len() {
            let joined = self.joined(index);
            let Some(member) = self.members.get_mut(index) else { continue };
            member.assignment = Bytes::new();
            member.renew(now);
            if let Some(reply) = member.joining.take() {
                _ = reply.send(joined);
            }
        }
    }

    pub(super) fn assign(&mut self, mut assignments: BTreeMap<String, Bytes>, now: Instant) {
        self.phase = Phase::Stable;
        for member in &mut self.members {
            member.assignment = assignments.remove(&member.id).unwrap_or_default();
            member.renew(now);
            if let Some(reply) = member.syncing.take() {
                _ = reply.send(Ok(member.assignment.clone()));
            }
        }
    }

    pub(super) fn after_departure(&mut self, now: Instant) {
        match self.phase {
            Phase::Completing { .. } | Phase::Stable => self.prepare(now),
            Phase::Preparing { .. } => self.complete_if_all_joined(now),
            Phase::Empty => {}
        }
    }

    pub(super) fn joined(&self, index: usize) -> Result<Joined, JoinRefused> {
        let member_id = self.members.get(index).map(|member| member.id.clone()).unwrap_or_default();
        let is_leader = member_id == self.leader;
        let members = self.members.iter().filter(|_| is_leader).map(|member| JoinedMember {
            member_id: member.id.clone(),
            instance: member.join.instance.clone(),
            metadata: member.metadata(&self.protocol).cloned().unwrap_or_default(),
        });
        Ok(Joined {
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            members: members.collect(),
            member_id,
        })
    }

    /// Whether a protocol is left that every member, and this one, knows.
    pub(super) fn can_speak(&self, join: &Join) -> bool {
        let others = || self.members.iter().filter(|member| member.id != join.member_id);
        let same_type = others().next().is_none() || self.protocol_type == join.protocol_type;
        let known_to_all =
            |offered: &Protocol| others().all(|member| member.metadata(&offered.name).is_some());
        same_type && join.protocols.iter().any(known_to_all)
    }

    /// Each member votes for the first of its protocols that all know.
    fn elect_protocol(&self) -> String {
        let known_to_all = |name: &str| self.members.iter().all(|member| member.metadata(name).is_some());
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in &self.members {
            let names = member.join.protocols.iter().map(|offered| offered.name.as_str());
            if let Some(choice) = names.clone().find(|name| known_to_all(name)) {
                *votes.entry(choice).or_default() += 1;
            }
        }
        let winner = votes.into_iter().max_by_key(|&(_, count)| count);
        winner.map(|(name, _)| name.to_owned()).unwrap_or_default()
    }
}
