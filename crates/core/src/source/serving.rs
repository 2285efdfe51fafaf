//! Whom the lanes feed: sessions for the shards where they want to be fed, and the lanes that begin and end with them.

use std::collections::{BTreeMap, BTreeSet};

use super::{Effect, LaneKind, Opening, SourcePartition, Want};
use crate::{
    announcement::{AssignmentId, PartitionState, Term},
    frame::SessionId,
    lane::{Lane, WorkerRef},
    time::{Offset, Shard, Tick, Watermark},
};

impl SourcePartition {
    /// Workers say where their shards are, or refuse a session.
    pub fn wants(&mut self, worker: WorkerRef, wants: &[Want], now: Tick) -> Vec<Effect> {
        let mut effects = self.cut_all();
        let mut moves = BTreeSet::new();
        for want in wants {
            if self.known.get(&want.shard).is_some_and(|known| want.assignment < *known) {
                continue;
            }
            self.known.insert(want.shard, want.assignment);
            self.wants.insert(want.shard, (worker, *want));
            self.alignment.begins(want.shard, want.watermark, want.next);
            moves.insert(want.shard);
        }
        self.close(|_, shard| moves.contains(&shard), &mut effects);
        self.serve(now, &mut effects);
        effects
    }

    /// The coordinator of `term` says by which assignments the shards are owned. Where that is a lower one than known, an earlier
    /// coordinator had given the shard on and nothing came of it: the lower one is in force again. True when the workers
    /// have to be asked again, since what they wanted was ignored.
    pub fn owned(&mut self, term: Term, owners: &[(Shard, AssignmentId)]) -> bool {
        let mut lowered = false;
        for (shard, assignment) in owners {
            if let Some(known) = self.known.get_mut(shard)
                && *assignment < *known
                && known.term < term
            {
                *known = *assignment;
                lowered = true;
            }
        }
        lowered
    }

    /// The connection to a worker is gone, or it is parked: its shards are fed no more.
    pub fn worker_gone(&mut self, worker: WorkerRef, now: Tick) -> Vec<Effect> {
        let mut effects = self.cut_all();
        self.wants.retain(|_, (owner, _)| *owner != worker);
        self.close(|other, _| other == worker, &mut effects);
        self.serve(now, &mut effects);
        effects
    }

    fn close(&mut self, leaves: impl Fn(WorkerRef, Shard) -> bool, effects: &mut Vec<Effect>) {
        let sessions = &mut self.sessions;
        let mut number = || {
            *sessions += 1;
            SessionId(*sessions)
        };
        for lane in [&mut self.main, &mut self.catch_up].into_iter().flatten() {
            let renewed = lane.close(&leaves, &mut number);
            effects.extend(renewed.into_iter().map(|(worker, opening)| Effect::Open(worker, opening)));
        }
    }

    /// Starts the main lane when it can start, opens sessions for wants, ends lanes that feed nobody.
    pub(super) fn serve(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if self.main.as_ref().is_some_and(|lane| lane.sessions().is_empty()) {
            self.leave_main(now, effects);
        }
        if self.main.is_none() {
            self.start_main(now, effects);
        }
        self.open_sessions(effects);
        if self.catch_up.as_ref().is_some_and(|lane| lane.sessions().is_empty()) {
            self.catch_up = None;
            self.alignment.restarted();
            effects.push(Effect::Stop(LaneKind::CatchUp));
        }
    }

    /// Nobody is fed live: reading on would only widen the gap. A catch-up lane, if there is one, becomes the main lane.
    fn leave_main(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        if let Some(lane) = self.main.take() {
            let promise = lane.tracker().watermark().map(|watermark| (lane.position(), watermark));
            self.left = self.left.or(promise);
        }
        self.assigned_at = now;
        effects.push(Effect::Stop(LaneKind::Main));
        if let Some(lane) = self.catch_up.take() {
            self.alignment.restarted();
            effects.push(Effect::Stop(LaneKind::CatchUp));
            if !lane.sessions().is_empty() {
                self.begin_main(lane, now, effects);
            }
        }
    }

    fn begin_main(&mut self, lane: Lane, now: Tick, effects: &mut Vec<Effect>) {
        self.activity.last_record = now;
        self.activity.maybe_excluded = true;
        if self.activity.state != PartitionState::Blocked {
            self.activity.state = PartitionState::Active;
        }
        effects.push(Effect::Start(LaneKind::Main, lane.position()));
        self.main = Some(lane);
    }

    fn start_main(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let all_known = self.wants.len() >= self.job.shards as usize;
        if !all_known && now.since(self.assigned_at) < self.timing.start_grace {
            return;
        }
        let wants = self.wants.values().map(|(_, want)| want);
        let Some(start) = wants.clone().map(|want| want.next).max() else { return };
        // What holds at a lower position holds here too.
        let seed = wants.map(|want| want.in_band).max().flatten();
        let lane = Lane::new(&self.job, self.partition, start, seed);
        self.begin_main(lane, now, effects);
    }

    fn open_sessions(&mut self, effects: &mut Vec<Effect>) {
        let Some(main_position) = self.main.as_ref().map(Lane::position) else { return };
        let mut groups: BTreeMap<(WorkerRef, Offset, bool), Vec<Want>> = BTreeMap::new();
        for (worker, want) in std::mem::take(&mut self.wants).into_values() {
            groups.entry((worker, want.next, want.payloads)).or_default().push(want);
        }
        for ((worker, from, payloads), wants) in groups {
            let shards: Vec<Shard> = wants.iter().map(|want| want.shard).collect();
            let floor = wants.iter().map(|want| want.watermark).max().flatten();
            self.sessions += 1;
            let session = SessionId(self.sessions);
            let opening = Opening { session, partition: self.partition, shards: shards.clone(), from };
            effects.push(Effect::Open(worker, opening));
            let seed = wants.iter().map(|want| want.in_band).max().flatten();
            let lane = if from >= main_position {
                self.main.as_mut()
            } else {
                Some(self.catch_up_from(from, seed, effects))
            };
            if let Some(lane) = lane {
                lane.open(session, worker, shards, from, floor, payloads);
            }
        }
    }

    /// The catch-up lane, reading at or before `from`.
    fn catch_up_from(&mut self, from: Offset, seed: Watermark, effects: &mut Vec<Effect>) -> &mut Lane {
        let behind = self.catch_up.as_ref().is_none_or(|lane| from < lane.position());
        let lane = self.catch_up.get_or_insert_with(|| Lane::new(&self.job, self.partition, from, seed));
        if behind {
            lane.rewind(&self.job, from, seed);
            self.alignment.restarted();
            effects.push(Effect::Start(LaneKind::CatchUp, from));
        }
        lane
    }

    /// Between the shards' positions a new lane knows less than the one before had seen: records that only a catch-up lane reads.
    pub(super) fn take_up_what_was_left(&mut self) {
        if let (Some(main), Some((position, watermark))) = (self.main.as_mut(), self.left)
            && position <= main.position()
        {
            main.tracker_mut().raise(watermark);
            self.left = None;
        }
    }
}
