//! A worker process: the shell around the [`ShardMachine`]s of the shards it owns.
//!
//! ```text
//! Assign ─► Initialising ── epoch ──► Restoring ── log read ──► Owning ── released, fenced ──► gone
//!                ▲                                                │
//!                └────────── outcome not known committed ─────────┘
//! ```

use std::collections::{BTreeMap, VecDeque};

use tidegate_core::{
    announcement::{Announcement, AssignmentId, Term},
    assignment::{Registration, StreamId, WorkerId},
    block::Block,
    frame::{Frame, Rows, SessionId, ShardFrame},
    job::OperatorSpec,
    pacing::{CommitPacer, Urgency},
    shard::{Applied, Commit, Nack, Pane, ShardMachine, Spilled},
    source::{Opening, Want},
    time::{Offset, Partition, Shard, Tick, Watermark},
};

use crate::{
    changelog::CommitOutcome,
    context::{CommitRequest, Context, Event, LinkId, Message, Process, Replayed},
    mutation::Mutation,
    replay::Asked,
    store::{Found, restore},
    violation::{ensure, violated},
};

/// The stores of a worker's volume, by shard; they outlive the process.
pub type Volume = BTreeMap<Shard, crate::store::LocalStore>;

#[derive(Debug)]
pub struct Worker {
    pub id: u64,
    pub name: String,
    coordinator: Option<LinkId>,
    announced: Option<Announcement>,
    pub shards: BTreeMap<Shard, Slot>,
    feeds: BTreeMap<LinkId, Feed>,
    /// How many streams there were when one last asked: what waits is of those.
    streams: u64,
    pub draining: bool,
    /// Applies and commits nothing until then, although it is there: it is slow.
    pub slow_until: u64,
}

/// A stream of an ingest.
#[derive(Debug)]
struct Feed {
    ingest: u64,
    partitions: Vec<Partition>,
    sessions: BTreeMap<SessionId, Opening>,
}

impl Feed {
    /// A shard belongs to the session of its partition that was opened last.
    fn open(&mut self, opening: Opening) {
        for other in self.sessions.values_mut().filter(|other| other.partition == opening.partition) {
            other.shards.retain(|shard| !opening.shards.contains(shard));
        }
        self.sessions.retain(|_, other| !other.shards.is_empty());
        self.sessions.insert(opening.session, opening);
    }
}

/// A shard that was assigned to this worker.
#[derive(Debug)]
pub struct Slot {
    pub assignment: AssignmentId,
    phase: Phase,
    /// Names the request under way: answers to others are void.
    attempt: u64,
    since: u64,
    releasing: bool,
    /// What the local store was given does not read.
    distrusts: bool,
    /// W_s as last known committed.
    committed: Watermark,
}

#[derive(Debug)]
enum Phase {
    Initialising,
    Restoring,
    Owning(Box<Owning>),
}

#[derive(Debug)]
struct Owning {
    machine: ShardMachine,
    epoch: u64,
    pacer: CommitPacer,
    /// When the last commit began.
    begun: Option<u64>,
    /// With what each costs of the credit.
    inbox: VecDeque<(LinkId, ShardFrame, u64)>,
    /// Credit of frames applied since the last commit was planned, and of those in the commit.
    applied: BTreeMap<LinkId, u64>,
    committing: Option<(Box<CommitRequest>, BTreeMap<LinkId, u64>)>,
    retried: bool,
    /// Dead letters that came back, and wait; those applied since the last commit was planned; and where answers are due, of these and of
    /// those in the commit.
    asked: VecDeque<Asked>,
    replayed: Vec<Replayed>,
    answers: [Vec<(u64, usize)>; 2],
    /// Committed blocks that the local store has not taken in.
    unstored: Vec<(Block, Option<Box<Spilled>>)>,
    /// Sessions joined, as counted.
    joined: u64,
}

/// An answer that takes longer is taken for lost.
const PATIENCE: u64 = 300;

impl Worker {
    pub fn new(id: u64, name: String) -> Self {
        Self {
            id,
            name,
            coordinator: None,
            announced: None,
            shards: BTreeMap::new(),
            feeds: BTreeMap::new(),
            streams: 0,
            draining: false,
            slow_until: 0,
        }
    }

    const fn process(&self) -> Process {
        Process::Worker(self.id)
    }

    pub fn tick(&mut self, coordinator: Option<u64>, ctx: &mut Context) {
        if self.coordinator.is_none()
            && let Some(link) = coordinator.and_then(|c| ctx.connect(self.process(), Process::Coordinator(c)))
        {
            self.coordinator = Some(link);
            self.say_hello(link, ctx);
        }
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            let Some(slot) = self.shards.get_mut(&shard) else { continue };
            let waits = matches!(slot.phase, Phase::Initialising | Phase::Restoring);
            if waits && ctx.now > slot.since + PATIENCE {
                self.initialise(shard, ctx);
            }
            self.pump(shard, ctx);
        }
    }

    fn say_hello(&self, link: LinkId, ctx: &mut Context) {
        let registration = Registration {
            worker: WorkerId(self.name.clone()),
            stream: StreamId(link.0),
            address: self.id.to_string(),
            incarnation: self.id,
            claims: self.shards.iter().map(|(shard, slot)| (*shard, slot.assignment)).collect(),
        };
        let committed = self.shards.values().map(|slot| slot.committed).max().flatten();
        let hello = Box::new((registration, committed, self.announced.clone()));
        ctx.send(link, self.process(), Message::WorkerHello(hello));
        if self.draining {
            ctx.send(link, self.process(), Message::Draining);
        }
    }

    fn tell_coordinator(&self, message: Message, ctx: &mut Context) {
        if let Some(link) = self.coordinator {
            ctx.send(link, self.process(), message);
        }
    }

    /// Leaves all shards, each with its commit; takes none any more.
    pub fn drain(&mut self, ctx: &mut Context) {
        self.draining = true;
        self.tell_coordinator(Message::Draining, ctx);
        let shards: Vec<_> = self.shards.iter().map(|(shard, slot)| (*shard, slot.assignment)).collect();
        shards.into_iter().for_each(|(shard, assignment)| self.release(shard, assignment, ctx));
    }

    pub fn down(&mut self, link: LinkId) {
        if self.coordinator == Some(link) {
            self.coordinator = None;
        }
        self.feeds.remove(&link);
    }

    pub fn receive(&mut self, link: LinkId, from: Process, message: Message, ctx: &mut Context) {
        match message {
            Message::Assign(shard, assignment) => self.assign(shard, assignment, ctx),
            Message::Release(shard, assignment) => self.release(shard, assignment, ctx),
            Message::Announcement(announcement) => self.announce(announcement, ctx),
            Message::Ask(partitions) => {
                let Process::Ingest(ingest) = from else { return };
                // An ingest has one stream, the newest.
                if self.feeds.iter().any(|(other, feed)| feed.ingest == ingest && *other > link) {
                    return;
                }
                let feed = Feed { ingest, partitions, sessions: BTreeMap::new() };
                let feed = match self.feeds.remove(&link) {
                    Some(known) => Feed { sessions: known.sessions, ..feed },
                    None => feed,
                };
                let process = self.process();
                self.feeds.retain(|other, feed| {
                    let ended = feed.ingest == ingest;
                    if ended {
                        ctx.close(*other, process);
                    }
                    !ended
                });
                self.feeds.insert(link, feed);
                self.forget_ended_streams(ctx);
                let shards: Vec<_> = self.shards.keys().copied().collect();
                self.send_wants(link, &shards, ctx);
            }
            Message::Open(opening) => {
                if let Some(feed) = self.feeds.get_mut(&link) {
                    feed.open(opening);
                }
            }
            Message::Frames(frames) => {
                for frame in frames {
                    self.take_frame(link, frame, ctx);
                }
                let shards: Vec<_> = self.shards.keys().copied().collect();
                shards.into_iter().for_each(|shard| self.pump(shard, ctx));
            }
            _ => {}
        }
    }

    /// A stream begins with an ask, and with its own credit: what waits of those that have ended goes, or it would add up.
    /// The ingest sends it again, from where the shard is.
    fn forget_ended_streams(&mut self, ctx: &mut Context) {
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

    fn announce(&mut self, announcement: Announcement, ctx: &mut Context) {
        if self.announced.as_ref().is_none_or(|known| announcement.newer_than(known)) {
            self.announced = Some(announcement.clone());
        }
        let shards: Vec<_> = self.shards.keys().copied().collect();
        for shard in shards {
            if let Some(Phase::Owning(owning)) = self.shards.get_mut(&shard).map(|slot| &mut slot.phase) {
                owning.machine.announce(&mutated(&announcement, ctx));
                self.pump(shard, ctx);
            }
        }
    }

    fn assign(&mut self, shard: Shard, assignment: AssignmentId, ctx: &mut Context) {
        if self.draining || self.shards.get(&shard).is_some_and(|slot| slot.assignment >= assignment) {
            return;
        }
        self.drop_shard(shard, ctx);
        let slot = Slot {
            assignment,
            phase: Phase::Initialising,
            attempt: 0,
            since: 0,
            releasing: false,
            distrusts: false,
            committed: None,
        };
        self.shards.insert(shard, slot);
        self.initialise(shard, ctx);
    }

    fn release(&mut self, shard: Shard, assignment: AssignmentId, ctx: &mut Context) {
        match self.shards.get_mut(&shard) {
            // Void: this worker has it by another one.
            Some(slot) if slot.assignment != assignment => {}
            Some(slot) if matches!(slot.phase, Phase::Owning(_)) => {
                slot.releasing = true;
                self.pump(shard, ctx);
            }
            Some(_) => self.leave(shard, ctx),
            None => self.tell_coordinator(Message::Released(shard, assignment), ctx),
        }
    }

    fn leave(&mut self, shard: Shard, ctx: &mut Context) {
        if let Some(assignment) = self.drop_shard(shard, ctx) {
            self.tell_coordinator(Message::Released(shard, assignment), ctx);
        }
    }

    /// Fenced, or not the owner any more: asks for assignment again.
    fn stand_down(&mut self, shard: Shard, ctx: &mut Context) {
        ctx.count("owners that stood down");
        ctx.note(|| format!("worker {} stands down from shard {shard}", self.id));
        if let Some(assignment) = self.drop_shard(shard, ctx) {
            self.tell_coordinator(Message::Fenced(shard, assignment), ctx);
        }
    }

    fn drop_shard(&mut self, shard: Shard, ctx: &mut Context) -> Option<AssignmentId> {
        let slot = self.shards.remove(&shard)?;
        self.forget(slot.phase, ctx);
        Some(slot.assignment)
    }

    /// Gives back the credit of what is dropped with a machine.
    fn forget(&self, phase: Phase, ctx: &mut Context) {
        let Phase::Owning(owning) = phase else { return };
        let Owning { inbox, applied, committing, .. } = *owning;
        for (link, _, cost) in inbox {
            self.credit(link, cost, ctx);
        }
        let committing = committing.into_iter().flat_map(|(_, credit)| credit);
        for (link, bytes) in applied.into_iter().chain(committing) {
            self.credit(link, bytes, ctx);
        }
    }

    fn credit(&self, link: LinkId, bytes: u64, ctx: &mut Context) {
        if bytes > 0 && self.feeds.contains_key(&link) {
            ctx.send(link, self.process(), Message::Credit(bytes));
        }
    }

    /// Takes the shard's transactional id, or takes it again after an outcome that is not known: drops all state.
    fn initialise(&mut self, shard: Shard, ctx: &mut Context) {
        let attempt = ctx.number();
        let Some(slot) = self.shards.get_mut(&shard) else { return };
        (slot.attempt, slot.since) = (attempt, ctx.now);
        let phase = std::mem::replace(&mut slot.phase, Phase::Initialising);
        self.forget(phase, ctx);
        let latency = ctx.latency();
        ctx.note(|| format!("worker {} initialises shard {shard}", self.id));
        ctx.after(latency, Event::Init { by: self.process(), shard, attempt });
    }

    pub fn initialised(&mut self, shard: Shard, attempt: u64, epoch: u64, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        slot.phase = Phase::Restoring;
        let latency = ctx.latency();
        ctx.after(latency, Event::Restored { worker: self.id, shard, attempt, epoch });
    }

    /// The changelog has been read: takes the shard over, or stands down.
    pub fn restored(
        &mut self,
        shard: Shard,
        attempt: u64,
        epoch: u64,
        volume: &mut Volume,
        ctx: &mut Context,
    ) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        let mut log = ctx.changelog.blocks(shard);
        if ctx.is_mutated(Mutation::RestoreStopsEarly) && log.len() > 1 {
            log.pop();
        }
        if ctx.is_mutated(Mutation::ClosingsAreForgotten) {
            log.iter_mut().for_each(|(_, block)| block.scalars.closing = None);
        }
        if ctx.is_mutated(Mutation::PurgesAreForgotten) {
            log.iter_mut().for_each(|(_, block)| block.scalars.purged = None);
        }
        let believes = ctx.is_mutated(Mutation::StoreIsBelieved);
        let mut store = volume.remove(&shard).filter(|_| !std::mem::take(&mut slot.distrusts));
        let (state, found) = restore(&ctx.scenario.job, &mut store, &log, believes);
        volume.extend(store.map(|store| (shard, store)));
        ctx.note(|| {
            format!("worker {} restored shard {shard} at {:?}: {found:?}", self.id, state.identity())
        });
        if state.canonical().unreadable.is_some() {
            return self.distrust(shard, ctx);
        }
        ensure(state.canonical() == ctx.ledger.state(shard).canonical(), "rebuild = owner", || {
            format!("shard {shard}: a restore ({found:?}) gives {:?}", state.canonical())
        });
        ctx.count(match found {
            Found::Store => "stores used",
            Found::LogAlone => "logs restored",
            Found::Ahead => "stores ahead of the log",
        });
        let incarnation = ctx.dice.bits();
        slot.committed = state.watermark();
        let (spec, mut limits) = (&ctx.scenario.job, ctx.scenario.limits);
        if ctx.is_mutated(Mutation::CommitsAreUnbounded) {
            limits.commit_bytes = usize::MAX;
        }
        let taken = ShardMachine::take_over(shard, spec, limits, state, incarnation, slot.assignment);
        let Some(mut machine) = taken else { return self.stand_down(shard, ctx) };
        if let Some(announced) = &self.announced {
            machine.announce(&mutated(announced, ctx));
        }
        machine.set_memory(ctx.scenario.memory);
        // A restart may come with another job file.
        let early = ctx.scenario.early.filter(|_| ctx.dice.chance(800));
        machine.set_early(early, Tick(ctx.now));
        slot.phase = Phase::Owning(Box::new(Owning {
            machine,
            epoch,
            pacer: CommitPacer::new(ctx.scenario.pace, Tick(ctx.now)),
            begun: None,
            inbox: VecDeque::new(),
            applied: BTreeMap::new(),
            committing: None,
            retried: false,
            asked: VecDeque::new(),
            replayed: Vec::new(),
            answers: Default::default(),
            unstored: Vec::new(),
            joined: 0,
        }));
        let committed = slot.committed;
        if slot.releasing {
            return self.leave(shard, ctx);
        }
        self.tell_coordinator(Message::Ready(shard, committed), ctx);
        let links: Vec<_> = self.feeds.keys().copied().collect();
        links.into_iter().for_each(|link| self.send_wants(link, &[shard], ctx));
        self.pump(shard, ctx);
    }

    fn send_wants(&self, link: LinkId, shards: &[Shard], ctx: &mut Context) {
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
    fn take_frame(&mut self, link: LinkId, frame: Frame, ctx: &mut Context) {
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

    /// Applies what can be applied, commits what is due, leaves when there is nothing left to commit.
    fn pump(&mut self, shard: Shard, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        if ctx.now < self.slow_until && !slot.releasing {
            return;
        }
        owning.machine.begin_early(Tick(ctx.now));
        let mut nacks = Vec::new();
        let mut credits: BTreeMap<LinkId, u64> = BTreeMap::new();
        while slot.releasing || owning.machine.takes_frames() {
            let Some((link, mut frame, cost)) = owning.inbox.pop_front() else { break };
            if slot.releasing {
                *credits.entry(link).or_default() += cost;
                continue;
            }
            match ctx.mutation {
                Some(Mutation::GapsAreCovered) => cover_gap(&owning.machine, &mut frame),
                Some(Mutation::KnownRecordsAreTakenAgain) => renew(&owning.machine, &mut frame),
                _ => {}
            }
            let applied = owning.machine.apply(&frame);
            ctx.note(|| {
                let (name, session) = frame.session;
                let ShardFrame { partition, from, to, .. } = frame;
                let session = session.0 & 0xffff_ffff;
                format!(
                    "worker {} shard {shard} p{partition} ingest {name} session {session} [{from}, {to}): {applied:?}",
                    self.id
                )
            });
            match applied {
                Applied::Covered => *owning.applied.entry(link).or_default() += cost,
                Applied::Known if !frame.rows.is_empty() => {
                    ctx.count("records dropped as known");
                    *credits.entry(link).or_default() += cost;
                }
                Applied::Known | Applied::Stale => *credits.entry(link).or_default() += cost,
                Applied::Refused(nack) => {
                    ctx.count(if nack.payloads { "payloads asked for" } else { "gaps refused" });
                    *credits.entry(link).or_default() += cost;
                    // As of the refusal: what comes behind it in the inbox may cover more.
                    let mut want = want_of(&owning.machine, slot.assignment, nack);
                    want.payloads &= !ctx.is_mutated(Mutation::LackingPayloadsAreNotAskedFor);
                    nacks.push((link, nack, want));
                }
            }
        }
        if slot.releasing {
            owning.asked.clear();
        }
        owning.replay(ctx);
        if owning.machine.failed().is_some() && !owning.machine.is_committing() {
            return self.distrust(shard, ctx);
        }
        let (machine, releasing) = (&owning.machine, slot.releasing);
        let urgency = match () {
            () if machine.has_output() => Urgency::Output,
            () if machine.is_dirty() => Urgency::Dirty,
            () if machine.has_moved() => Urgency::Moved,
            () => Urgency::Nothing,
        };
        let never = urgency == Urgency::Moved && ctx.is_mutated(Mutation::NoHeartbeat);
        let paced = owning.pacer.due(urgency).is_some_and(|due| due.0 <= ctx.now);
        let hurries = ctx.is_mutated(Mutation::CommitsAreNotPaced) && !machine.is_committing();
        let due = !never && (paced || (hurries && urgency != Urgency::Nothing));
        let empty = urgency == Urgency::Nothing && !machine.is_committing();
        for (link, bytes) in credits {
            self.credit(link, bytes, ctx);
        }
        for (link, nack, want) in nacks {
            ctx.note(|| format!("worker {} shard {shard} refuses: {nack:?}", self.id));
            if !releasing && !ctx.is_mutated(Mutation::NacksAreLost) {
                ctx.send(link, self.process(), Message::Wants(vec![(nack.partition, want)]));
            }
        }
        if releasing && empty {
            self.leave(shard, ctx);
        } else if due || (releasing && urgency != Urgency::Nothing) {
            self.commit(shard, ctx);
        }
    }

    /// Dead letters come back.
    pub fn asked(&mut self, asked: Asked, ctx: &mut Context) {
        let shard = asked.shard;
        let slot = self.shards.get_mut(&shard).filter(|slot| !slot.releasing);
        if let Some(Phase::Owning(owning)) = slot.map(|slot| &mut slot.phase) {
            owning.asked.push_back(asked);
            self.pump(shard, ctx);
        }
    }

    /// The store has lost what it was given: the log has it.
    fn distrust(&mut self, shard: Shard, ctx: &mut Context) {
        ctx.count("stores that lost a chunk");
        if let Some(slot) = self.shards.get_mut(&shard) {
            slot.distrusts = true;
            self.initialise(shard, ctx);
        }
    }

    fn commit(&mut self, shard: Shard, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        let Some(mut commit) = owning.machine.plan() else { return };
        if ctx.is_mutated(Mutation::RetractionsAreLost) {
            commit.results.retain(|row| row.pane != Pane::Retracted);
        }
        owning.pacer.begin(Tick(ctx.now));
        let least = ctx.scenario.pace.min_interval.min(ctx.scenario.pace.commit_interval);
        let rests = slot.releasing || owning.begun.is_none_or(|begun| ctx.now >= begun + least);
        ensure(rests, "I7: commits are paced", || {
            format!("shard {shard}, less than {least} ms after the last")
        });
        owning.begun = Some(ctx.now);
        let attempt = ctx.number();
        slot.attempt = attempt;
        let owner = owning.machine.state().canonical();
        if owner.unreadable.is_some() {
            return self.distrust(shard, ctx);
        }
        if let Some(spilled) = &commit.spilled {
            ctx.count("runs");
            let of_sessions = matches!(ctx.scenario.job.operator, OperatorSpec::Sessions(_));
            if of_sessions && !spilled.parts.is_empty() {
                ctx.count("runs of sessions");
            }
        }
        if !owner.outdated.is_empty() {
            ctx.count("early results outdated in runs");
        }
        (owning.joined..owning.machine.joined_sessions()).for_each(|_| ctx.count("sessions joined"));
        owning.joined = owning.machine.joined_sessions();
        let replayed = std::mem::take(&mut owning.replayed);
        let [waiting, committing] = &mut owning.answers;
        std::mem::swap(waiting, committing);
        let request = Box::new(CommitRequest {
            worker: self.id,
            shard,
            attempt,
            epoch: owning.epoch,
            commit,
            owner,
            replayed,
        });
        owning.committing = Some((request.clone(), std::mem::take(&mut owning.applied)));
        owning.retried = false;
        send_commit(request, ctx);
    }

    pub fn commit_answered(
        &mut self,
        shard: Shard,
        attempt: u64,
        outcome: CommitOutcome,
        volume: &mut Volume,
        ctx: &mut Context,
    ) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        match outcome {
            CommitOutcome::Fenced => self.stand_down(shard, ctx),
            CommitOutcome::Aborted => self.initialise(shard, ctx),
            CommitOutcome::Committed(offset) => {
                let Some((request, credit)) = owning.committing.take() else { return };
                let Commit { block, spilled, .. } = request.commit;
                owning.pacer.committed(Tick(ctx.now));
                let committed = owning.machine.committed(block.sequence, offset);
                slot.committed = block.scalars.watermark;
                owning.unstored.push((block, spilled));
                // A run is written at once: frames may wait for it.
                let due = owning.unstored.iter().any(|(_, spilled)| spilled.is_some())
                    || owning.unstored.len() as u64 >= ctx.scenario.store_every;
                if due && let Some(store) = volume.get_mut(&shard) {
                    for (block, spilled) in std::mem::take(&mut owning.unstored) {
                        owning.machine.stored(&store.apply(&ctx.scenario.job, &block, spilled.as_deref()));
                    }
                    if let Some(compaction) = owning.machine.compaction() {
                        ctx.count("compactions");
                        owning.machine.compacted(store.compact(compaction));
                    }
                }
                if let Some(before) = committed.truncate_before {
                    let latency = ctx.latency();
                    ctx.after(latency, Event::Truncate { shard, before });
                }
                for (run, at) in std::mem::take(&mut owning.answers[1]) {
                    answer(run, at, ctx);
                }
                for (link, bytes) in credit {
                    self.credit(link, bytes, ctx);
                }
                for link in self.feeds.keys() {
                    let positions = committed.positions.clone();
                    let message = Message::Committed(shard, committed.watermark, positions);
                    ctx.send(*link, self.process(), message);
                }
                self.pump(shard, ctx);
            }
        }
    }

    /// No answer in time: retry, and if that does not resolve it, take the shard anew and read what became of it.
    pub fn commit_overdue(&mut self, shard: Shard, attempt: u64, ctx: &mut Context) {
        let Some(slot) = self.shards.get_mut(&shard).filter(|slot| slot.attempt == attempt) else { return };
        let Phase::Owning(owning) = &mut slot.phase else { return };
        let Some((request, _)) = &owning.committing else { return };
        if !owning.retried && ctx.dice.chance(500) {
            owning.retried = true;
            let request = request.clone();
            return send_commit(request, ctx);
        }
        ctx.count("unknown outcomes");
        ctx.note(|| format!("worker {} does not know what became of its commit of shard {shard}", self.id));
        if ctx.is_mutated(Mutation::UnknownIsCommitted) {
            let answered = Event::CommitAnswered {
                worker: self.id,
                shard,
                attempt,
                outcome: CommitOutcome::Committed(Offset(0)),
            };
            return ctx.after(0, answered);
        }
        self.initialise(shard, ctx);
    }

    /// Where its shards are, for a run that does not end.
    pub fn explain(&self) -> String {
        let shown = |(shard, slot): (&Shard, &Slot)| match &slot.phase {
            Phase::Owning(owning) => format!(
                "{shard}: releasing {}, {} wait, applied {:?}, committing {}, closing {:?}, moved {}",
                slot.releasing,
                owning.inbox.len(),
                owning.applied,
                owning.machine.is_committing(),
                owning.machine.takes_frames(),
                owning.machine.has_moved(),
            ),
            phase => format!("{shard}: {phase:?}"),
        };
        let shards: Vec<_> = self.shards.iter().map(shown).collect();
        format!("; worker {} {:?}: {shards:?}", self.id, self.coordinator)
    }

    /// How many streams may have something waiting here.
    pub const fn streams(&self) -> u64 {
        self.streams
    }

    /// Bytes of frames that wait (I7).
    pub fn waiting(&self) -> u64 {
        let inbox = |slot: &Slot| match &slot.phase {
            Phase::Owning(owning) => owning.inbox.iter().map(|(_, _, cost)| cost).sum(),
            Phase::Initialising | Phase::Restoring => 0,
        };
        self.shards.values().map(inbox).sum()
    }
}

impl Owning {
    /// Takes dead letters that came back, where no frame waits.
    fn replay(&mut self, ctx: &mut Context) {
        while self.inbox.is_empty() && self.machine.takes_frames() {
            let Some(Asked { run, at, frame, .. }) = self.asked.pop_front() else { return };
            let watermark = self.machine.state().watermark();
            let known = |delta: &u32| {
                let offset = Offset(frame.from.0 + u64::from(*delta));
                self.machine.state().answered().contains(frame.partition, offset)
            };
            let new: Vec<_> =
                frame.rows.offsets.iter().zip(&frame.origins).filter(|(delta, _)| !known(delta)).collect();
            let records: Vec<_> = new.iter().map(|(_, origin)| (origin.partition, origin.offset)).collect();
            let joined = self.machine.joined_sessions();
            let done = self.machine.apply_replay(&frame);
            if self.machine.joined_sessions() > joined {
                ctx.count("sessions joined for replays");
            }
            let counted = (done.applied + done.expired, done.known);
            let expected = (records.len() as u64, (frame.rows.len() - records.len()) as u64);
            ensure(counted == expected, "L2: each row of a frame is answered for", || {
                format!("{done:?} of {frame:?}")
            });
            let applied = (records.len() == 1).then_some(done.applied == 1);
            self.replayed.extend(records.into_iter().map(|record| Replayed { record, watermark, applied }));
            for (count, what) in [
                (done.applied, "replayed"),
                (done.expired, "replayed too late"),
                (done.known, "replayed before"),
            ] {
                (0..count).for_each(|_| ctx.count(what));
            }
            if ctx.is_mutated(Mutation::ReplaysAreAnsweredEarly) {
                answer(run, at, ctx);
            } else if self.machine.is_dirty() {
                self.answers[0].push((run, at));
            } else if self.machine.is_committing() {
                self.answers[1].push((run, at));
            } else {
                answer(run, at, ctx);
            }
        }
    }
}

fn answer(run: u64, at: usize, ctx: &mut Context) {
    if !ctx.dice.chance(ctx.faults.commit_answer_lost) {
        let latency = ctx.latency();
        ctx.after(latency, Event::ReplayAnswered { run, at });
    }
}

/// Where the shard wants to be fed from.
fn want_of(machine: &ShardMachine, assignment: AssignmentId, nack: Nack) -> Want {
    Want {
        shard: machine.shard(),
        assignment,
        next: nack.next,
        in_band: machine.input(nack.partition).watermark,
        watermark: machine.state().watermark(),
        payloads: nack.payloads,
    }
}

fn send_commit(request: Box<CommitRequest>, ctx: &mut Context) {
    let (worker, shard, attempt) = (request.worker, request.shard, request.attempt);
    ctx.after(PATIENCE, Event::CommitOverdue { worker, shard, attempt });
    if ctx.dice.chance(ctx.faults.commit_request_lost) {
        return;
    }
    let latency = ctx.latency();
    let delayed = if ctx.dice.chance(ctx.faults.commit_delayed) { ctx.dice.within(0, 1_500) } else { 0 };
    ctx.after(latency + delayed, Event::Commit(request));
}

/// The announcement as a broken rule would have it.
fn mutated(announcement: &Announcement, ctx: &Context) -> Announcement {
    let mut announcement = announcement.clone();
    if ctx.is_mutated(Mutation::ExclusionWithoutPosition) {
        announcement.excluded.iter_mut().for_each(|(_, at)| *at = Offset(0));
    }
    if ctx.is_mutated(Mutation::IdleBeyondTheEnd) {
        announcement.excluded.iter_mut().for_each(|(_, at)| *at = at.next());
    }
    if ctx.is_mutated(Mutation::TermsAreIgnored) {
        announcement.term = Term(0);
    }
    announcement
}

/// Moves a frame's beginning so that nothing seems to be missing.
fn cover_gap(machine: &ShardMachine, frame: &mut ShardFrame) {
    let next = machine.input(frame.partition).next;
    if frame.from > next {
        let gap = (frame.from.0 - next.0) as u32;
        frame.rows.offsets.iter_mut().for_each(|delta| *delta += gap);
        frame.rows.rejects.iter_mut().for_each(|reject| reject.offset_delta += gap);
        frame.from = next;
    }
}

/// Moves a frame that was covered behind what was covered.
fn renew(machine: &ShardMachine, frame: &mut ShardFrame) {
    let next = machine.input(frame.partition).next;
    if frame.from < next && !frame.rows.is_empty() {
        frame.to = Offset(next.0 + (frame.to.0 - frame.from.0));
        frame.from = next;
    }
}
