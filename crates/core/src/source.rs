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

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use crate::{
    announcement::{Announcement, AssignmentId, Observed, PartitionState, ReaderEpoch, Report, Term},
    dead_letter::Payload,
    frame::{Frame, SessionId},
    job::JobSpec,
    lane::{Lane, RejectedRecord, Row, WorkerRef},
    skew::Skew,
    time::{EventTime, Offset, Partition, Shard, Span, Tick, Watermark},
};
use align::Alignment;

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

#[derive(Debug)]
struct Activity {
    state: PartitionState,
    last_record: Tick,
    asked: Option<Tick>,
    held: bool,
    /// Since the start or an idle report, until an announcement counts the partition as active: it may be excluded meanwhile.
    maybe_excluded: bool,
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
            self.alignment.begins(want.shard, want.watermark);
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
    fn serve(&mut self, now: Tick, effects: &mut Vec<Effect>) {
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

    /// A record with a usable event time comes to a lane when the calibrated clock says `clock`. What catches up has been seen.
    #[inline]
    pub fn arrives(&mut self, kind: LaneKind, clock: EventTime, time: EventTime) {
        if kind == LaneKind::Main {
            self.skew.add(clock, time);
        }
    }

    /// The delay in force and the skew as of the last report interval.
    #[must_use]
    pub const fn observed(&self) -> Observed {
        self.observed.0
    }

    /// How event times compare with the clock.
    #[must_use]
    pub const fn skew(&self) -> &Skew {
        &self.skew
    }

    /// Takes the next record of a lane; false when the lane has ended and the rest of the batch is not wanted.
    #[inline]
    pub fn row(
        &mut self,
        kind: LaneKind,
        record: &Row<'_>,
        now: Tick,
        payload: impl FnOnce() -> Payload,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.accepts(kind, record.offset, now, effects) {
            Accepts::Takes => {}
            Accepts::Known => return true,
            Accepts::Ended => return false,
        }
        let announced = self.announced.as_ref().and_then(|announced| announced.watermark);
        let everything = self.activity.maybe_excluded;
        if let Some(lane) = self.lane_mut(kind) {
            lane.push_row(record, announced, everything, payload);
        }
        true
    }

    /// Takes the next record of a lane, which is no row; false as for [`SourcePartition::row`].
    pub fn reject(
        &mut self,
        kind: LaneKind,
        offset: Offset,
        record: RejectedRecord,
        now: Tick,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.accepts(kind, offset, now, effects) {
            Accepts::Takes => {}
            Accepts::Known => return true,
            Accepts::Ended => return false,
        }
        let shard = Shard::of_rejects(self.partition, self.job.shards);
        if let Some(lane) = self.lane_mut(kind) {
            lane.push_reject(offset, shard, record);
        }
        true
    }

    #[inline]
    fn accepts(&mut self, kind: LaneKind, offset: Offset, now: Tick, effects: &mut Vec<Effect>) -> Accepts {
        match kind {
            LaneKind::Main => {
                self.activity.last_record = now;
                if !self.activity.held {
                    self.activity.state = PartitionState::Active;
                }
            }
            LaneKind::CatchUp => {
                if self.joins_at(offset) {
                    self.join(effects);
                    return Accepts::Ended;
                }
            }
        }
        let Some(lane) = self.lane_mut(kind) else { return Accepts::Ended };
        if offset < lane.position() {
            return Accepts::Known;
        }
        if lane.must_cut(offset) {
            self.cut(kind, effects);
        }
        Accepts::Takes
    }

    fn lane_mut(&mut self, kind: LaneKind) -> Option<&mut Lane> {
        match kind {
            LaneKind::Main => self.main.as_mut(),
            LaneKind::CatchUp => self.catch_up.as_mut(),
        }
    }

    /// Whether a catch-up lane whose next record is at `offset` has covered all that the main lane has.
    fn joins_at(&self, offset: Offset) -> bool {
        self.main.as_ref().is_some_and(|main| offset >= main.position())
    }

    /// The catch-up lane has come to the main lane's position: both cut there, and its sessions are live.
    fn join(&mut self, effects: &mut Vec<Effect>) {
        let Some(position) = self.main.as_ref().map(Lane::position) else { return };
        if let Some(lane) = self.catch_up.as_mut() {
            lane.skip_to(position);
        }
        self.cut(LaneKind::CatchUp, effects);
        self.cut(LaneKind::Main, effects);
        if let (Some(main), Some(done)) = (self.main.as_mut(), self.catch_up.take()) {
            main.adopt(done);
            self.alignment.restarted();
            effects.push(Effect::Stop(LaneKind::CatchUp));
        }
    }

    /// The lane's reader has come to the end: `position` is its fetch position there.
    pub fn end(&mut self, kind: LaneKind, position: Offset, effects: &mut Vec<Effect>) {
        match kind {
            LaneKind::Main => {
                if let Some(main) = self.main.as_mut() {
                    main.skip_to(position);
                }
            }
            LaneKind::CatchUp => {
                if let Some(lane) = self.catch_up.as_mut() {
                    lane.skip_to(position);
                }
                if self.joins_at(position) {
                    self.join(effects);
                }
            }
        }
    }

    /// The lane cannot read on: the log begins at `start` now, behind its position, and what lay between is gone (design §5,
    /// `on_data_loss`). It goes on there, and the missing offsets are a gap like those of markers. Gives how many they are for
    /// this lane.
    pub fn lost_below(&mut self, kind: LaneKind, start: Offset, effects: &mut Vec<Effect>) -> u64 {
        // A catch-up lane ends where the main lane is, which finds out for itself.
        let start = match (kind, &self.main) {
            (LaneKind::CatchUp, Some(main)) => start.min(main.position()),
            _ => start,
        };
        let Some(lane) = self.lane_mut(kind) else { return 0 };
        let lost = start.0.saturating_sub(lane.position().0);
        self.end(kind, start, effects);
        if let Some(position) = self.lane_mut(kind).map(|lane| lane.position()) {
            if kind == LaneKind::CatchUp {
                self.alignment.restarted();
            }
            effects.push(Effect::Start(kind, position));
        }
        lost
    }

    /// Whether reading is held up: a worker gives no credit, or the coordinator paused the partition.
    pub fn set_held(&mut self, held: bool, now: Tick) {
        if self.activity.held && !held {
            self.activity.last_record = now;
        }
        self.activity.held = held;
        match (held, self.activity.state) {
            (true, _) => self.activity.state = PartitionState::Blocked,
            (false, PartitionState::Blocked) => self.activity.state = PartitionState::Active,
            (false, _) => {}
        }
    }

    /// A fetch has shown that the partition goes on to `high`: for the lag that is reported.
    pub fn see_end(&mut self, high: Offset) {
        self.end = self.end.max(high);
    }

    /// The answer to [`Effect::ProveEnd`]: the last stable offset and the high watermark, as asked for after `asked`.
    pub fn end_proven(&mut self, stable: Offset, high: Offset, now: Tick) {
        let asked = self.activity.asked.take();
        let Some(position) = self.main.as_ref().map(Lane::position) else { return };
        self.end = high;
        let quiet = now.since(self.activity.last_record) >= self.idle_timeout()
            && asked.is_some_and(|asked| asked.since(self.activity.last_record) >= self.idle_timeout());
        if self.activity.held || !quiet {
            return;
        }
        if position >= high {
            self.activity.state = PartitionState::Idle;
            self.activity.maybe_excluded = true;
        } else if position >= stable {
            self.activity.state = PartitionState::Lagging;
        }
    }

    fn idle_timeout(&self) -> u64 {
        u64::try_from(self.job.watermark.idle_timeout.0).unwrap_or(0)
    }

    /// The coordinator lifts the watermark of a quiet partition, behind its records: only if it is still idle at `at`.
    pub fn raise(&mut self, at: Offset, to: EventTime) {
        if self.activity.state == PartitionState::Idle
            && let Some(main) = self.main.as_mut().filter(|main| main.position() == at)
        {
            main.tracker_mut().raise(to);
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

    fn look_for_idleness(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let settled = matches!(self.activity.state, PartitionState::Idle | PartitionState::Blocked);
        let quiet = now.since(self.activity.last_record) >= self.idle_timeout();
        let asked_lately = self.activity.asked.is_some_and(|asked| now.since(asked) < 1_000);
        if self.main.is_some() && !settled && quiet && !asked_lately {
            self.activity.asked = Some(now);
            effects.push(Effect::ProveEnd);
        }
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

    /// Between the shards' positions a new lane knows less than the one before had seen: records that only a catch-up lane reads.
    fn take_up_what_was_left(&mut self) {
        if let (Some(main), Some((position, watermark))) = (self.main.as_mut(), self.left)
            && position <= main.position()
        {
            main.tracker_mut().raise(watermark);
            self.left = None;
        }
    }

    fn report(&mut self, now: Tick, effects: &mut Vec<Effect>) {
        let Some(main) = self.main.as_ref() else { return };
        let (observed, looked) = &mut self.observed;
        if observed.delay.is_none() || now.since(*looked) >= self.timing.report_interval {
            self.skew.turn(now);
            *looked = now;
            *observed = Observed { delay: Some(main.tracker().delay()), skew: self.skew.summary() };
        }
        let report = Report {
            partition: self.partition,
            epoch: self.epoch,
            watermark: main.tracker().watermark(),
            agreed: main.tracker().agreed(),
            position: main.position(),
            state: self.activity.state,
            max_event_time: main.tracker().max_seen(),
            lag: self.end.0.saturating_sub(main.position().0),
            observed: *observed,
        };
        let due = self
            .reported
            .as_ref()
            .is_none_or(|(last, at)| *last != report || now.since(*at) >= self.timing.report_interval);
        if due {
            self.reported = Some((report, now));
            effects.push(Effect::Report(report));
        }
    }
}

/// What a lane does with a record.
enum Accepts {
    Takes,
    /// It lies before the lane's position.
    Known,
    /// The lane is not there any more.
    Ended,
}

#[cfg(test)]
mod tests;
#[cfg(test)]
mod transitions;
