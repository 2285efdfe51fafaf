//! Streams of the ingests: what comes on them, and where the shards want to be fed from.

use std::collections::BTreeMap;

use tidegate_core::{
    announcement::AssignmentId,
    frame::{Frame, Rows, SessionId, ShardFrame},
    shard::{Nack, ShardMachine},
    source::{Opening, Want},
    time::{Partition, Shard},
};

use super::{Phase, Worker};
use crate::{
    context::{Context, LinkId, Message},
    mutation::Mutation,
    violation::violated,
};

/// A stream of an ingest.
#[derive(Debug)]
pub(super) struct Feed {
    pub(super) ingest: u64,
    pub(super) partitions: Vec<Partition>,
    pub(super) sessions: BTreeMap<SessionId, Opening>,
}

impl Feed {
    /// A shard belongs to the session of its partition that was opened last.
    pub(super) fn open(&mut self, opening: Opening) {
        for other in self.sessions.values_mut().filter(|other| other.partition == opening.partition) {
            other.shards.retain(|shard| !opening.shards.contains(shard));
        }
        self.sessions.retain(|_, other| !other.shards.is_empty());
        self.sessions.insert(opening.session, opening);
    }
}

impl Worker {
    /// A stream begins with an ask, and with its own credit: what waits of those that have ended goes, or it would add up.
    /// The ingest sends it again, from where the shard is.
    pub(super) fn forget_ended_streams(&mut self, ctx: &mut Context) {
        self.streams = self.feeds.len() as u64;
        if ctx.is_mutated(Mutation::EndedStreamsWait) {
            return;
        }
        for slot in self.shards.values_mut() {
            if let Phase::Owning(owning) = &mut slot.phase {
                let before = owning.inbox.len();
                owning.inbox.retain(|(link, _, _)| self.feeds.contains_key(link));
                (owning.inbox.len()..before).for_each(|_| ctx.count("frames of ended streams"));
            }
        }
    }

    pub(super) fn credit(&self, link: LinkId, bytes: u64, ctx: &mut Context) {
        if bytes > 0 && self.feeds.contains_key(&link) {
            ctx.send(link, self.process(), Message::Credit(bytes));
        }
    }

    pub(super) fn send_wants(&self, link: LinkId, shards: &[Shard], ctx: &mut Context) {
        let Some(feed) = self.feeds.get(&link) else { return };
        let mut wants = Vec::new();
        for shard in shards {
            for partition in &feed.partitions {
                wants.extend(self.want(*shard, *partition).map(|want| (*partition, want)));
            }
        }
        if !wants.is_empty() {
            ctx.send(link, self.process(), Message::Wants(wants));
        }
    }

    fn want(&self, shard: Shard, partition: Partition) -> Option<Want> {
        let slot = self.shards.get(&shard).filter(|slot| !slot.releasing)?;
        let Phase::Owning(owning) = &slot.phase else { return None };
        let next = owning.machine.input(partition).next;
        let payloads = owning.machine.needs_payloads(partition);
        Some(want_of(&owning.machine, slot.assignment, Nack { partition, next, payloads }))
    }

    /// Hands a frame's rows to the shards of its session.
    pub(super) fn take_frame(&mut self, link: LinkId, frame: Frame, ctx: &mut Context) {
        let Some(feed) = self.feeds.get(&link) else { return };
        let Some(opening) = feed.sessions.get(&frame.session) else {
            violated("a frame is of a session that is open", format!("worker {}: {frame:?}", self.id))
        };
        let session = (feed.ingest, frame.session);
        let mut rows: BTreeMap<Shard, Rows> = frame.rows.into_iter().collect();
        let mut dropped = 0;
        for shard in &opening.shards {
            let columns = ctx.scenario.job.columns.len();
            let rows = rows.remove(shard).unwrap_or_else(|| Rows::new(columns));
            let cost = rows.cost();
            let slot = self.shards.get_mut(shard).filter(|slot| !slot.releasing);
            let Some(Phase::Owning(owning)) = slot.map(|slot| &mut slot.phase) else {
                dropped += cost;
                continue;
            };
            let (from, to, partition) = (frame.from, frame.to, frame.partition);
            let watermark = if ctx.is_mutated(Mutation::AnnouncementsAlone) {
                self.announced.as_ref().and_then(|announced| announced.watermark).max(frame.watermark)
            } else {
                frame.watermark
            };
            let frame = ShardFrame { session, partition, from, to, watermark, rows };
            owning.inbox.push_back((link, frame, cost));
        }
        let stray: u64 = rows.values().map(Rows::cost).sum();
        self.credit(link, dropped + stray, ctx);
    }
}

/// Where the shard wants to be fed from.
pub(super) fn want_of(machine: &ShardMachine, assignment: AssignmentId, nack: Nack) -> Want {
    Want {
        shard: machine.shard(),
        assignment,
        next: nack.next,
        in_band: machine.input(nack.partition).watermark,
        watermark: machine.state().watermark(),
        payloads: nack.payloads,
    }
}
