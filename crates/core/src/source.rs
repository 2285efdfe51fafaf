//! One partition of the source as its reader runs it: when to start, whom to feed, who catches up, whether it is idle.
//!
//! ```text
//! Waiting ── positions of the shards known ──► Reading ── no session left ──► Waiting
//!              main lane starts at the highest position; shards behind it are fed by the catch-up lane,
//!              which ends at the main lane's position: from there on its sessions are live (design §5)
//! ```
//!
//! Effects come back from each call; the shell performs them. Records of a lane must come in order from the offset named in its
//! start effect; a new start of the catch-up reader replaces the one before.

mod align;
mod idleness;
mod reading;
mod reporting;
mod serving;

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    announcement::{Announcement, AssignmentId, Observed, PartitionState, ReaderEpoch, Report},
    frame::{Frame, SessionId},
    job::JobSpec,
    lane::{Lane, WorkerRef},
    skew::Skew,
    time::{EventTime, Offset, Partition, Shard, Span, Tick, Watermark},
};
use align::Alignment;
use idleness::Activity;

/// What a worker says of one shard and this partition: feed it from `next` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Want {
    /// The shard.
    pub shard: Shard,
    /// The assignment under which the worker owns it; a lower one than known is ignored.
    pub assignment: AssignmentId,
    /// The smallest offset not covered.
    pub next: Offset,
    /// The in-band watermark at `next`.
    pub in_band: Watermark,
    /// W_s.
    pub watermark: Watermark,
    /// Whether every record has to bring its payload.
    pub payloads: bool,
}

/// Which of a partition's lanes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LaneKind {
    /// Feeds live sessions, and the tracker that is reported.
    Main,
    /// Feeds shards that are behind.
    CatchUp,
}

/// What the shell has to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// Read the lane from this offset on, instead of where it read before.
    Start(LaneKind, Offset),
    /// Stop reading the lane.
    Stop(LaneKind),
    /// Read the catch-up lane no further for now, or read it on. A start or a stop ends the waiting too.
    HoldCatchUp(bool),
    /// Ask the broker for the end of the partition, and give the answer to [`SourcePartition::end_proven`].
    ProveEnd,
    /// Tell the worker of a session before its first frame.
    Open(WorkerRef, Opening),
    /// Send to the worker.
    Frame(WorkerRef, Frame),
    /// Send to the coordinator.
    Report(Report),
}

/// A session, told to its worker: it covers these shards as long as it has frames.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opening {
    /// The session.
    pub session: SessionId,
    /// The partition.
    pub partition: Partition,
    /// The shards it covers.
    pub shards: Vec<Shard>,
    /// Its first offset.
    pub from: Offset,
}

/// The reader of one partition.
#[derive(Debug)]
pub struct SourcePartition {
    job: Arc<JobSpec>,
    partition: Partition,
    epoch: ReaderEpoch,
    timing: Timing,
    assigned_at: Tick,
    wants: BTreeMap<Shard, (WorkerRef, Want)>,
    known: BTreeMap<Shard, AssignmentId>,
    committed: BTreeMap<Shard, Offset>,
    main: Option<Lane>,
    catch_up: Option<Lane>,
    /// Where a main lane that was left had come to, and its watermark there: it holds again once the next one has come as far.
    left: Option<(Offset, EventTime)>,
    sessions: u64,
    alignment: Alignment,
    announced: Option<Announcement>,
    activity: Activity,
    reported: Option<(Report, Tick)>,
    end: Offset,
    skew: Skew,
    observed: (Observed, Tick),
}

/// Spans of the reader: of its own time in ms, but for the drift, which is of event time.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long to wait for the positions of shards that have not been heard of.
    pub start_grace: u64,
    /// A report is repeated this often without a change.
    pub report_interval: u64,
    /// How far what catches up may be above the shards that it feeds; `None`: as far as it comes.
    pub max_drift: Option<Span>,
}

impl Default for Timing {
    fn default() -> Self {
        Self { start_grace: 3_000, report_interval: 500, max_drift: None }
    }
}

impl SourcePartition {
    /// The reader of `partition`, which the consumer group gave it in `epoch`.
    #[must_use]
    pub fn new(
        job: Arc<JobSpec>,
        partition: Partition,
        epoch: ReaderEpoch,
        timing: Timing,
        now: Tick,
    ) -> Self {
        let activity = Activity {
            state: PartitionState::Active,
            last_record: now,
            asked: None,
            held: false,
            maybe_excluded: true,
        };
        Self {
            job,
            partition,
            epoch,
            timing,
            assigned_at: now,
            wants: BTreeMap::new(),
            known: BTreeMap::new(),
            committed: BTreeMap::new(),
            main: None,
            catch_up: None,
            left: None,
            sessions: 0,
            alignment: Alignment::default(),
            announced: None,
            activity,
            reported: None,
            end: Offset(0),
            skew: Skew::default(),
            observed: (Observed::default(), now),
        }
    }

    /// Numbers its sessions from behind `last` on: they have to be unique among all partitions that a process ever reads.
    #[must_use]
    pub fn with_sessions_behind(mut self, last: SessionId) -> Self {
        self.sessions = last.0;
        self
    }

    /// A rebalance gave the partition again: it goes on under the new generation.
    pub fn set_epoch(&mut self, epoch: ReaderEpoch) {
        self.epoch = self.epoch.max(epoch);
        self.reported = None;
    }

    /// The main lane, while reading.
    #[must_use]
    pub const fn main(&self) -> Option<&Lane> {
        self.main.as_ref()
    }

    /// The catch-up lane, while some shard is behind.
    #[must_use]
    pub const fn catch_up(&self) -> Option<&Lane> {
        self.catch_up.as_ref()
    }

    /// The workers that a lane feeds, each as often as it has sessions there.
    pub fn fed(&self, kind: LaneKind) -> impl Iterator<Item = WorkerRef> {
        let lane = match kind {
            LaneKind::Main => self.main.as_ref(),
            LaneKind::CatchUp => self.catch_up.as_ref(),
        };
        lane.into_iter().flat_map(|lane| lane.sessions().iter().map(|session| session.worker))
    }

    /// The partition's state as last decided.
    #[must_use]
    pub const fn state(&self) -> PartitionState {
        self.activity.state
    }

    fn lane_mut(&mut self, kind: LaneKind) -> Option<&mut Lane> {
        match kind {
            LaneKind::Main => self.main.as_mut(),
            LaneKind::CatchUp => self.catch_up.as_mut(),
        }
    }

    /// Takes a newer announcement.
    pub fn announce(&mut self, announcement: &Announcement) {
        if self.announced.as_ref().is_some_and(|known| !announcement.newer_than(known)) {
            return;
        }
        let excluded = announcement.excluded.iter().any(|(partition, _)| *partition == self.partition);
        self.activity.maybe_excluded =
            excluded || self.activity.state == PartitionState::Idle || self.reported.is_none();
        self.announced = Some(announcement.clone());
    }

    /// A shard has committed W_s: of interest while something catches up.
    pub fn reached(&mut self, shard: Shard, watermark: Watermark) {
        if self.catch_up.is_some() {
            self.alignment.reached(shard, watermark);
        }
    }

    /// A shard's commit made everything below `next` durable.
    pub fn committed(&mut self, shard: Shard, next: Offset) {
        let known = self.committed.entry(shard).or_default();
        *known = next.max(*known);
    }

    /// The offset that all shards have committed, for the group's lag; `None` until each has said so.
    #[must_use]
    pub fn group_offset(&self) -> Option<Offset> {
        let all = self.committed.len() >= self.job.shards as usize;
        self.committed.values().min().copied().filter(|_| all)
    }

    /// Time passes: frames close, reports go, idleness is looked at. Call every few ms, and after each batch.
    pub fn tick(&mut self, now: Tick) -> Vec<Effect> {
        let mut effects = Vec::new();
        if self.main.is_none() {
            self.serve(now, &mut effects);
        }
        self.look_for_idleness(now, &mut effects);
        self.cut(LaneKind::CatchUp, &mut effects);
        self.cut(LaneKind::Main, &mut effects);
        effects.extend(self.align().map(Effect::HoldCatchUp));
        self.report(now, &mut effects);
        effects
    }

    fn cut_all(&mut self) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.cut(LaneKind::CatchUp, &mut effects);
        self.cut(LaneKind::Main, &mut effects);
        effects
    }

    fn cut(&mut self, kind: LaneKind, effects: &mut Vec<Effect>) {
        let state = self.activity.state;
        if kind == LaneKind::Main {
            self.take_up_what_was_left();
        }
        if let Some(lane) = self.lane_mut(kind) {
            effects.extend(lane.cut(state).into_iter().map(|(worker, frame)| Effect::Frame(worker, frame)));
        }
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transitions;
