//! The owner of the reading: one task that holds a [`SourcePartition`] for each partition given to this process, feeds it what
//! the poll thread reads, and does what it says.
//!
//! ```text
//! poll thread ─ batch ─► extract ─► SourcePartition ─ frames ─► outbox ─► workers
//!                                         └────────── reports ─► outbox ─► coordinator
//! ```

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use tidegate_core::{
    announcement::{Announcement, AssignmentId, ReaderEpoch, Term},
    block::JobId,
    credit::{Feeding, Held, Step},
    dead_letter::{Payload, Reason},
    frame::SessionId,
    future::{Future, Judgement},
    lane::{RejectedRecord, Row, WorkerRef},
    record::Timestamp,
    source::{Effect, LaneKind, SourcePartition, Timing},
    time::{EventTime, Offset, Partition, Shard, Tick},
};
use tidegate_extract::{Extractor, Reject};
use tidegate_job::{Job, OnDataLoss};
use tidegate_kafka::{
    GroupReader, KafkaConfig, PartitionReader, ReaderEvent, ReaderOptions, Record, RecordBatch,
};
use tidegate_proto::v1;
use tidegate_runtime::{clock::Clock, metrics::Readiness};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    ahead::Ahead,
    error::Error,
    event::Event,
    links::Links,
    metrics::IngestMetrics,
    outbox::Outbox,
    replay::Replayer,
    schema_desk::SchemaDesk,
    source_watch::Changed,
    standstill::{Asker, Standstill},
    timestamps::TimestampWatch,
    traces::Traces,
};

/// Frames are cut and reports go this often.
const FLUSH_EVERY: Duration = Duration::from_millis(5);
/// How long leaving the group may take.
const LEAVE_PATIENCE: Duration = Duration::from_secs(5);
/// Group offsets and totals go this often.
const HOUSEKEEPING_EVERY: Duration = Duration::from_secs(1);

/// The reading of this process.
pub(crate) struct Reading {
    job: Arc<Job>,
    job_id: Option<JobId>,
    clock: Clock,
    extractor: Extractor,
    /// Where schemas come from, and the batches that wait for one.
    schemas: Option<SchemaDesk>,
    waiting: Waiting,
    timestamps: TimestampWatch,
    readers: Readers,
    main: GroupReader,
    catch_up: PartitionReader,
    standstill: Standstill,
    asker: Asker,
    partitions: BTreeMap<Partition, SourcePartition>,
    paused: BTreeMap<Partition, bool>,
    /// Partitions whose catch-up lane waits for what it feeds.
    catch_up_waits: BTreeSet<Partition>,
    /// How many partitions have been given to this process so far; numbers their sessions.
    readings: u64,
    /// Whether the group has given this process its part, which may be nothing.
    is_member: bool,
    timing: Timing,
    term: Term,
    /// Starts that the readers have not yet answered: what comes before the answer was read earlier.
    starting: HashMap<(Partition, bool), u32>,
    announced: Option<Announcement>,
    outbox: Outbox,
    links: Links,
    replayer: Replayer,
    events: mpsc::Receiver<Event>,
    to_self: mpsc::Sender<Event>,
    held: Held,
    metrics: IngestMetrics,
    traces: Option<Traces>,
    readiness: Readiness,
    ahead: Ahead,
}

/// Batches whose records name schemas that are not known yet: the lanes wait, as they do for credit.
#[derive(Debug, Default)]
struct Waiting {
    main: Option<RecordBatch>,
    catch_up: Option<RecordBatch>,
}

/// Opens the clients that read the source.
pub(crate) struct Readers {
    /// The cluster.
    pub(crate) kafka: KafkaConfig,
    /// The source topic.
    pub(crate) topic: String,
    /// The job's consumer group.
    pub(crate) group: String,
}

impl Readers {
    /// A member of the group, and a reader for shards that are behind.
    fn open(&self) -> Result<(GroupReader, PartitionReader), tidegate_kafka::Error> {
        let Self { kafka, topic, group } = self;
        let options = ReaderOptions::default();
        Ok((
            GroupReader::join(kafka, topic, group, options)?,
            PartitionReader::open(kafka, topic, group, options)?,
        ))
    }
}

/// What a [`Reading`] is made of.
pub(crate) struct Parts {
    /// The job.
    pub(crate) job: Arc<Job>,
    /// Takes out of records what the job needs.
    pub(crate) extractor: Extractor,
    /// Where schemas come from, of a job whose records name them.
    pub(crate) schemas: Option<SchemaDesk>,
    /// The process's clock.
    pub(crate) clock: Clock,
    /// Where records come from.
    pub(crate) readers: Readers,
    /// Bytes of frames that may be under way to a worker.
    pub(crate) credit_window: u64,
    /// Opens streams to workers.
    pub(crate) links: Links,
    /// Does the replays that the coordinator orders.
    pub(crate) replayer: Replayer,
    /// Where events come from, and go to.
    pub(crate) events: (mpsc::Sender<Event>, mpsc::Receiver<Event>),
    /// Counters.
    pub(crate) metrics: IngestMetrics,
    /// Traces of records, where there is a collector.
    pub(crate) traces: Option<Traces>,
    /// Ready once the coordinator has taken this ingest and the group has given it its part.
    pub(crate) readiness: Readiness,
}

impl Reading {
    /// A reading that has no partitions yet.
    ///
    /// # Errors
    /// When the Kafka client refuses its configuration.
    pub(crate) fn new(parts: Parts) -> Result<Self, Error> {
        let (main, catch_up) = parts.readers.open()?;
        let asker = Asker::new(parts.readers.kafka.clone(), parts.readers.topic.clone());
        let ahead = Ahead::new(parts.job.core.watermark.max_future_skew);
        let timing = Timing { max_drift: parts.job.max_drift, ..Timing::default() };
        Ok(Self {
            ahead,
            extractor: parts.extractor,
            schemas: parts.schemas,
            waiting: Waiting::default(),
            timestamps: TimestampWatch::new(&parts.job),
            job: parts.job,
            job_id: None,
            clock: parts.clock,
            readers: parts.readers,
            main,
            catch_up,
            standstill: Standstill::default(),
            asker,
            partitions: BTreeMap::new(),
            paused: BTreeMap::new(),
            catch_up_waits: BTreeSet::new(),
            readings: 0,
            is_member: false,
            timing,
            term: Term::default(),
            starting: HashMap::new(),
            announced: None,
            outbox: Outbox::new(parts.credit_window),
            links: parts.links,
            replayer: parts.replayer,
            events: parts.events.1,
            to_self: parts.events.0,
            held: Held::default(),
            metrics: parts.metrics,
            traces: parts.traces,
            readiness: parts.readiness,
        })
    }

    /// Takes what came before the readers were opened.
    ///
    /// # Errors
    /// As of [`Reading::run`].
    pub(crate) fn begin(mut self, first: Event) -> Result<Self, Error> {
        self.on_event(first)?;
        Ok(self)
    }

    /// Reads until `shutdown`, then leaves the group.
    ///
    /// # Errors
    /// What makes going on impossible.
    pub(crate) async fn run(mut self, shutdown: CancellationToken) -> Result<(), Error> {
        let mut flush = tokio::time::interval(FLUSH_EVERY);
        flush.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut housekeeping = tokio::time::interval(HOUSEKEEPING_EVERY);
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some(event) = self.events.recv() => self.on_event(event)?,
                event = self.main.next(), if !self.held.main && self.waiting.main.is_none() => match event {
                    Some(event) => self.on_read(LaneKind::Main, event)?,
                    None => return Err(Error::ReaderEnded(self.job.source.topic.clone())),
                },
                event = self.catch_up.next(), if !self.held.catch_up && self.waiting.catch_up.is_none() => match event {
                    Some(event) => self.on_read(LaneKind::CatchUp, event)?,
                    None => return Err(Error::ReaderEnded(self.job.source.topic.clone())),
                },
                _ = flush.tick() => self.flush(),
                _ = housekeeping.tick() => self.keep_house(),
            }
        }
        self.flush();
        self.keep_house();
        if tokio::time::timeout(LEAVE_PATIENCE, self.main.close()).await.is_err() {
            tracing::warn!("the group did not let go in time; it will notice by its session timeout");
        }
        Ok(())
    }

    fn now(&self) -> Tick {
        Tick(self.clock.tick())
    }

    fn on_event(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::CoordinatorUp { job, term, report_interval, reports, .. } => {
                self.term = term;
                if self.job_id.replace(job).is_some_and(|known| known != job) {
                    return Err(Error::JobChanged);
                }
                self.timing.report_interval = report_interval;
                self.outbox.set_coordinator(Some(reports));
                self.tell_readiness();
            }
            Event::CoordinatorDown => self.on_coordinator_down(),
            Event::Directive(directive) => self.on_directive(directive)?,
            Event::WorkerUp { connection, name, outgoing } => {
                tracing::info!(worker = name, "stream to the worker is open");
                self.outbox.worker_up(connection, name, outgoing);
                self.ask();
            }
            Event::WorkerDown { connection } => self.drop_worker(connection),
            // It is asked when it can take frames again; what it wants then is of then.
            Event::Wants { connection, .. } if self.outbox.is_parked(connection) => {}
            Event::Wants { connection, wants } => {
                let mut by_partition: BTreeMap<Partition, Vec<_>> = BTreeMap::new();
                for (partition, want) in wants {
                    by_partition.entry(partition).or_default().push(want);
                }
                let now = self.now();
                for (partition, wants) in by_partition {
                    self.with(partition, |source| source.wants(connection, &wants, now));
                }
            }
            Event::Credit { connection, bytes } => {
                self.outbox.give_back(connection, bytes, self.now());
                self.look_at_credit();
            }
            Event::Committed { positions, watermarks } => {
                for (shard, partition, next) in positions {
                    if let Some(source) = self.partitions.get_mut(&partition) {
                        source.committed(shard, next);
                    }
                }
                for source in self.partitions.values_mut() {
                    for (shard, watermark) in &watermarks {
                        source.reached(*shard, Some(*watermark));
                    }
                }
            }
            Event::End { partition, ends } => self.on_end_of(partition, ends),
            Event::Ends(ends) => {
                let now = self.now();
                if let Some((partition, offset)) = self.standstill.answered(ends.as_deref(), now) {
                    self.replace_readers(partition, offset)?;
                }
            }
            Event::Schema { id, answer } => {
                self.extractor.learn(id, answer.as_ref().map_err(Clone::clone));
                self.go_on();
            }
            Event::SourceChanged(changed) => {
                return Err(changed.error(&self.job.source.topic, &self.positions()));
            }
            Event::Fatal(error) => return Err(error),
        }
        Ok(())
    }

    /// Records flow on with the last owners known; pauses were of the stream that is gone.
    fn on_coordinator_down(&mut self) {
        self.outbox.set_coordinator(None);
        self.replayer.stop();
        self.tell_readiness();
        let paused: Vec<_> = self.paused.iter().filter(|(_, paused)| **paused).map(|(p, _)| *p).collect();
        for partition in paused {
            self.set_paused(partition, false);
        }
    }

    fn on_directive(&mut self, directive: v1::ingest_directive::Message) -> Result<(), Error> {
        use v1::ingest_directive::Message;
        match directive {
            Message::Welcome(_) => {}
            Message::Announcement(announcement) => {
                let announcement = Announcement::from(announcement);
                if self.announced.as_ref().is_none_or(|known| announcement.newer_than(known)) {
                    for source in self.partitions.values_mut() {
                        source.announce(&announcement);
                    }
                    self.announced = Some(announcement);
                }
            }
            Message::Owners(owners) => {
                if let Some(job) = self.job_id {
                    self.links.set_owners(job, &owners)?;
                    self.replayer.set_owners(job, &owners);
                }
                self.on_owners(&owners);
            }
            Message::Replay(order) => {
                if let Some(reports) = self.outbox.coordinator() {
                    self.replayer.order(order, reports.clone());
                }
            }
            Message::StopReplay(number) => self.replayer.cancel(number),
            Message::Raises(raises) => {
                for raise in raises.raises {
                    if let Some(source) = self.partitions.get_mut(&Partition(raise.partition)) {
                        source.raise(Offset(raise.at), EventTime(raise.to_ms));
                    }
                }
            }
            Message::Pauses(pauses) => {
                for pause in pauses.pauses {
                    self.set_paused(Partition(pause.partition), pause.paused);
                }
            }
        }
        Ok(())
    }

    /// Where a later coordinator has put an earlier assignment in force again, what its worker wanted was ignored: ask anew.
    fn on_owners(&mut self, owners: &v1::Owners) {
        let assignments: Vec<(Shard, AssignmentId)> = owners
            .owners
            .iter()
            .filter_map(|owner| Some((Shard(owner.shard), owner.assignment?.into())))
            .collect();
        let mut lowered = false;
        for source in self.partitions.values_mut() {
            lowered |= source.owned(self.term, &assignments);
        }
        if lowered {
            self.ask();
        }
    }

    fn set_paused(&mut self, partition: Partition, paused: bool) {
        tracing::debug!(partition = partition.0, paused, "alignment");
        self.paused.insert(partition, paused);
        if paused {
            self.main.control().pause(partition);
        } else {
            self.main.control().resume(partition);
        }
        let (now, held) = (self.now(), self.is_held(partition));
        if let Some(source) = self.partitions.get_mut(&partition) {
            source.set_held(held, now);
        }
    }

    fn on_end_of(&mut self, partition: Partition, ends: Option<tidegate_kafka::PartitionEnds>) {
        let now = self.now();
        if let (Some(source), Some(ends)) = (self.partitions.get_mut(&partition), ends) {
            source.end_proven(ends.last_stable, ends.high_watermark, now);
        }
    }

    fn on_read(&mut self, kind: LaneKind, event: ReaderEvent) -> Result<(), Error> {
        match event {
            ReaderEvent::Batch(batch) => self.read_or_wait(kind, batch),
            ReaderEvent::EndOfPartition { partition, position } => {
                if self.is_current(kind, partition) {
                    self.with(partition, |source| {
                        let mut effects = Vec::new();
                        source.end(kind, position, &mut effects);
                        effects
                    });
                }
            }
            ReaderEvent::Started { partition, .. } => {
                if let Some(pending) = self.starting.get_mut(&(partition, kind == LaneKind::Main)) {
                    *pending = pending.saturating_sub(1);
                }
            }
            ReaderEvent::Assigned { partitions, generation } => self.on_assigned(&partitions, generation),
            ReaderEvent::Revoked { partitions } => self.leave_all(&partitions),
            ReaderEvent::Lost { partitions } => {
                self.is_member = false;
                self.leave_all(&partitions);
                self.tell_readiness();
            }
            ReaderEvent::Failed(error) if error.is_retriable() => {
                tracing::warn!(%error, "reading goes on after a failure");
            }
            ReaderEvent::Failed(tidegate_kafka::Error::OffsetOutOfRange {
                partition,
                offset,
                log_start,
                end,
                ..
            }) if self.can_skip(offset, log_start, end) => self.skip(kind, partition, log_start),
            ReaderEvent::Failed(error) => return Err(self.unreadable(error)),
        }
        Ok(())
    }

    /// Whether the job goes on without what is missing at `offset`. A log that ends before it is no log of which records were
    /// deleted: what is written there next would be taken for what was read (docs/decisions/0007).
    fn can_skip(&self, offset: Offset, log_start: Option<Offset>, end: Option<Offset>) -> bool {
        self.job.source.on_data_loss == OnDataLoss::Skip
            && (log_start.is_none() || end.is_none_or(|end| offset <= end))
    }

    /// Goes on at the beginning of the log; where the brokers do not say where that is, the same offset is tried again.
    fn skip(&mut self, kind: LaneKind, partition: Partition, log_start: Option<Offset>) {
        // What failed was perhaps started before the present start.
        if !self.is_current(kind, partition) {
            return;
        }
        let mut lost = 0;
        self.with(partition, |source| {
            let mut effects = Vec::new();
            lost = source.lost_below(kind, log_start.unwrap_or_default(), &mut effects);
            effects
        });
        if lost > 0 {
            self.metrics.skipped(partition, lost);
            tracing::warn!(
                partition = partition.0,
                offset = log_start.unwrap_or_default().0,
                lost,
                ?kind,
                "records were deleted before they were read; reading goes on behind them"
            );
        }
    }

    fn unreadable(&self, error: tidegate_kafka::Error) -> Error {
        match error {
            tidegate_kafka::Error::UnknownTopic { topic } => {
                Changed::Deleted.error(&topic, &self.positions())
            }
            error @ tidegate_kafka::Error::OffsetOutOfRange { .. } => Error::SourceTruncated(error),
            error => error.into(),
        }
    }

    /// How far each partition is read.
    fn positions(&self) -> Vec<(Partition, Offset)> {
        let read = self.partitions.iter();
        read.filter_map(|(partition, source)| Some((*partition, source.main()?.position()))).collect()
    }

    fn on_assigned(&mut self, partitions: &[Partition], generation: u32) {
        tracing::info!(?partitions, generation, "the group assigned partitions");
        let now = self.now();
        let epoch = ReaderEpoch(u64::from(generation));
        for source in self.partitions.values_mut() {
            source.set_epoch(epoch);
        }
        for partition in partitions {
            self.starting.retain(|(other, _), _| other != partition);
            let core = Arc::new(self.job.core.clone());
            self.readings += 1;
            let mut source = SourcePartition::new(core, *partition, epoch, self.timing, now)
                .with_sessions_behind(SessionId(self.readings << 32));
            if let Some(announced) = &self.announced {
                source.announce(announced);
            }
            self.partitions.insert(*partition, source);
        }
        if !partitions.is_empty() {
            self.ask();
        }
        self.is_member = true;
        self.tell_readiness();
    }

    /// The clients are of no use any more: new ones join the group and begin where the shards are.
    fn replace_readers(&mut self, partition: Partition, offset: Offset) -> Result<(), Error> {
        tracing::warn!(
            partition = partition.0,
            offset = offset.0,
            "the Kafka client reads nothing although records wait: it is replaced"
        );
        self.metrics.replaced_client();
        (self.main, self.catch_up) = self.readers.open()?;
        self.starting.clear();
        self.waiting = Waiting::default();
        self.is_member = false;
        self.leave_all(&self.read_here());
        self.tell_waiting();
        Ok(())
    }

    /// The lanes that are to move where there are records for them, and their positions.
    fn moving(&self) -> Vec<(Partition, LaneKind, Offset)> {
        let catch_up_rests = self.held.catch_up || self.waiting.catch_up.is_some();
        let lanes = self.partitions.iter().flat_map(|(partition, source)| {
            let main = source.main().filter(|_| !self.is_held(*partition));
            let waits = catch_up_rests || self.catch_up_waits.contains(partition);
            let catch_up = source.catch_up().filter(|_| !waits);
            let of = |kind, position| (*partition, kind, position);
            main.map(|lane| of(LaneKind::Main, lane.position()))
                .into_iter()
                .chain(catch_up.map(|lane| of(LaneKind::CatchUp, lane.position())))
        });
        lanes.collect()
    }

    fn leave_all(&mut self, partitions: &[Partition]) {
        for partition in partitions {
            self.leave(*partition);
        }
        self.ask();
    }

    fn leave(&mut self, partition: Partition) {
        tracing::info!(partition = partition.0, "the group took a partition away");
        self.partitions.remove(&partition);
        self.paused.remove(&partition);
        self.catch_up_waits.remove(&partition);
        self.outbox.forget(partition);
        self.metrics.forget(partition);
        self.ahead.forget(partition);
        self.timestamps.forget(partition);
        self.catch_up.unassign(partition);
    }

    fn ask(&mut self) {
        for connection in self.outbox.ask_all(&self.read_here()) {
            self.drop_worker(connection);
        }
    }

    fn read_here(&self) -> Vec<Partition> {
        self.partitions.keys().copied().collect()
    }

    fn is_current(&self, kind: LaneKind, partition: Partition) -> bool {
        self.starting.get(&(partition, kind == LaneKind::Main)).is_some_and(|pending| *pending == 0)
    }

    /// Reads a batch, or keeps it until all schemas that its records name are known.
    fn read_or_wait(&mut self, kind: LaneKind, batch: RecordBatch) {
        if let Some(schemas) = &mut self.schemas {
            let mut waits = false;
            for id in batch.iter().filter_map(|record| self.extractor.wants(&record)) {
                schemas.ask(id);
                waits = true;
            }
            if waits {
                match kind {
                    LaneKind::Main => self.waiting.main = Some(batch),
                    LaneKind::CatchUp => self.waiting.catch_up = Some(batch),
                }
                self.tell_waiting();
                return;
            }
        }
        self.on_batch(kind, &batch);
    }

    /// Tries again what waited for a schema.
    fn go_on(&mut self) {
        let Waiting { main, catch_up } = std::mem::take(&mut self.waiting);
        for (kind, batch) in [(LaneKind::Main, main), (LaneKind::CatchUp, catch_up)] {
            if let Some(batch) = batch {
                self.read_or_wait(kind, batch);
            }
        }
        self.tell_waiting();
    }

    fn is_held(&self, partition: Partition) -> bool {
        let paused = self.paused.get(&partition).is_some_and(|paused| *paused);
        paused || self.held.main || self.waiting.main.is_some()
    }

    fn tell_waiting(&mut self) {
        let waits = self.waiting.main.is_some() || self.waiting.catch_up.is_some();
        self.metrics.waits_for_schema(waits);
        self.tell_readiness();
        let now = self.now();
        for partition in self.read_here() {
            let held = self.is_held(partition);
            if let Some(source) = self.partitions.get_mut(&partition) {
                source.set_held(held, now);
            }
        }
    }

    fn tell_readiness(&self) {
        if !self.outbox.has_coordinator() {
            self.readiness.not_ready("no stream to the coordinator");
        } else if !self.is_member {
            self.readiness.not_ready("the consumer group has not given it its partitions yet");
        } else if self.waiting.main.is_some() || self.waiting.catch_up.is_some() {
            self.readiness.not_ready("waits for a schema that the registry does not give");
        } else {
            self.readiness.ready();
        }
    }

    fn on_batch(&mut self, kind: LaneKind, batch: &RecordBatch) {
        let now = self.now();
        let clock = EventTime(self.clock.now_millis());
        let future = Future::of(&self.job.core.watermark, clock);
        let mut effects = Vec::new();
        for run in batch.runs() {
            let partition = run.partition();
            if !self.is_current(kind, partition) {
                continue;
            }
            let Some(source) = self.partitions.get_mut(&partition) else { continue };
            if kind == LaneKind::Main
                && let Some(end) = self.main.control().known_end(partition)
            {
                source.see_end(end);
            }
            let mut read = 0;
            for record in run.records() {
                read += 1;
                self.timestamps.see(partition, record.timestamp());
                let taken = take_record(
                    source,
                    kind,
                    &record,
                    &mut self.extractor,
                    self.job.core.shards,
                    future,
                    now,
                    &mut effects,
                );
                if !taken {
                    break;
                }
                if let Some(traces) = &mut self.traces {
                    traces.took(&record, partition, &mut self.extractor, self.job.core.shards, now);
                }
            }
            self.metrics.records(kind, read);
            self.perform(partition, std::mem::take(&mut effects));
        }
    }

    /// Lets `call` act on a partition, if it is read here, and does what it says.
    fn with(&mut self, partition: Partition, call: impl FnOnce(&mut SourcePartition) -> Vec<Effect>) {
        if let Some(source) = self.partitions.get_mut(&partition) {
            let effects = call(source);
            self.perform(partition, effects);
        }
    }

    fn perform(&mut self, partition: Partition, effects: Vec<Effect>) {
        let mut slow = Vec::new();
        for effect in effects {
            match effect {
                Effect::Start(kind, offset) => self.start(kind, partition, offset),
                Effect::Stop(LaneKind::Main) => self.main.control().stop(partition),
                Effect::Stop(LaneKind::CatchUp) => {
                    self.catch_up_waits.remove(&partition);
                    self.catch_up.unassign(partition);
                }
                Effect::HoldCatchUp(holds) => self.hold_catch_up(partition, holds),
                Effect::ProveEnd => self.prove_end(partition),
                Effect::Open(connection, opening) => {
                    if !self.outbox.open(connection, &opening) {
                        slow.push(connection);
                    }
                }
                Effect::Frame(connection, frame) => self.outbox.frame(connection, frame, self.now()),
                Effect::Report(report) => self.outbox.report(report),
            }
        }
        for connection in slow {
            self.drop_worker(connection);
        }
        self.look_at_credit();
    }

    fn start(&mut self, kind: LaneKind, partition: Partition, offset: Offset) {
        tracing::info!(partition = partition.0, offset = offset.0, ?kind, "reading from here");
        *self.starting.entry((partition, kind == LaneKind::Main)).or_default() += 1;
        match kind {
            LaneKind::Main => {
                self.main.control().start(partition, offset);
                if self.paused.get(&partition).is_some_and(|paused| *paused) {
                    self.main.control().pause(partition);
                }
            }
            LaneKind::CatchUp => {
                self.catch_up_waits.remove(&partition);
                self.catch_up.assign(partition, offset);
            }
        }
    }

    fn hold_catch_up(&mut self, partition: Partition, holds: bool) {
        tracing::debug!(partition = partition.0, holds, "alignment of what catches up");
        let control = self.catch_up.control();
        if holds {
            self.catch_up_waits.insert(partition);
            control.pause(partition);
        } else {
            self.catch_up_waits.remove(&partition);
            control.resume(partition);
        }
    }

    fn prove_end(&self, partition: Partition) {
        let (control, events) = (self.main.control().clone(), self.to_self.clone());
        tidegate_runtime::task::spawn("prove-end", async move {
            let ends = match control.end_of(partition).await {
                Ok(ends) => Some(ends),
                Err(error) => {
                    tracing::debug!(partition = partition.0, %error, "the broker does not say where the partition ends");
                    None
                }
            };
            let _ = events.send(Event::End { partition, ends }).await;
        });
    }

    fn drop_worker(&mut self, connection: WorkerRef) {
        if !self.outbox.worker_down(connection) {
            return;
        }
        self.stop_feeding(connection);
    }

    fn stop_feeding(&mut self, connection: WorkerRef) {
        let now = self.now();
        for partition in self.read_here() {
            self.with(partition, |source| source.worker_gone(connection, now));
        }
        self.look_at_credit();
    }

    /// A lane waits while a worker that it feeds has no credit: the poll thread keeps the group membership meanwhile.
    fn look_at_credit(&mut self) {
        let held = self.outbox.held(|| Feeding::of(self.partitions.values()));
        if held.main != self.held.main {
            self.held = held;
            let now = self.now();
            for partition in self.read_here() {
                let held = self.is_held(partition);
                if let Some(source) = self.partitions.get_mut(&partition) {
                    source.set_held(held, now);
                }
            }
        }
        self.held = held;
    }

    /// A worker that is connected and slow must not hold up the others: it is parked, and catches up when it can.
    fn look_after_slow_workers(&mut self) {
        let now = self.now();
        for step in self.outbox.look(now, || Feeding::of(self.partitions.values())) {
            match step {
                Step::Park(connection) => {
                    let worker = self.outbox.name(connection);
                    tracing::warn!(worker, "a worker has no credit left, reading goes on without it");
                    self.metrics.demoted();
                    self.stop_feeding(connection);
                }
                Step::Ask(connection) => {
                    let worker = self.outbox.name(connection);
                    tracing::info!(worker, "a worker that had no credit takes frames again");
                    if !self.outbox.ask(connection, &self.read_here()) {
                        self.drop_worker(connection);
                    }
                }
            }
        }
    }

    fn flush(&mut self) {
        let now = self.now();
        for partition in self.read_here() {
            self.with(partition, |source| source.tick(now));
        }
        self.look_after_slow_workers();
        let traces = self.traces.as_mut().map(Traces::drain).unwrap_or_default();
        for connection in self.outbox.flush(self.clock.now_millis(), &traces) {
            tracing::warn!(
                connection = connection.0,
                "a worker does not keep up with its stream, closing it"
            );
            self.drop_worker(connection);
        }
    }

    fn keep_house(&mut self) {
        let offsets: Vec<_> = self
            .partitions
            .iter()
            .filter_map(|(partition, source)| Some((*partition, source.group_offset()?)))
            .collect();
        if !offsets.is_empty() {
            self.main.control().commit(&offsets);
        }
        let moving = self.moving();
        if self.standstill.look(moving.into_iter(), self.now()) {
            self.asker.ask(self.to_self.clone());
        }
        for (order, (partition, source)) in self.partitions.iter().enumerate() {
            if let Some(main) = source.main() {
                self.metrics.partition(*partition, main.position(), main.tracker().watermark());
                self.metrics.observed(*partition, order, main.tracker().delay(), source.skew().totals());
            }
            self.ahead.look(*partition, source.observed().skew);
        }
        for (partition, counts) in self.timestamps.changed() {
            self.metrics.timestamps(partition, counts);
        }
        self.outbox.stats(self.metrics.total(), self.metrics.total_skipped(), self.timestamps.all());
    }
}

/// One record's way from the log into a lane; false when the lane has ended.
#[allow(
    clippy::too_many_arguments,
    reason = "the record path takes its context apart once a batch, not once a record"
)]
fn take_record(
    source: &mut SourcePartition,
    kind: LaneKind,
    record: &Record<'_>,
    extractor: &mut Extractor,
    shards: u32,
    future: Future,
    now: Tick,
    effects: &mut Vec<Effect>,
) -> bool {
    let offset = record.offset();
    let rejected = match extractor.extract(record) {
        Ok(extracted) => {
            source.arrives(kind, future.clock(), extracted.time);
            let (time, believed) = match future.judge(extracted.time) {
                Judgement::Believed => (extracted.time, true),
                Judgement::Clamped(time) => (time, false),
                Judgement::Rejected { beyond } => {
                    let rejected = RejectedRecord {
                        reason: Reason::Future,
                        detail: format!("{} ms beyond max_future_skew", beyond.millis()),
                        event_time: Some(extracted.time),
                        payload: payload_of(record),
                    };
                    return source.reject(kind, offset, rejected, now, effects);
                }
            };
            let row = Row {
                offset,
                time,
                believed,
                key: extracted.key,
                shard: Shard::of(extracted.key, shards),
                values: extracted.columns,
                text: extracted.text,
            };
            return source.row(kind, &row, now, || payload_of(record), effects);
        }
        Err(Reject { reason, detail, event_time }) => {
            RejectedRecord { reason, detail, event_time, payload: payload_of(record) }
        }
    };
    source.reject(kind, offset, rejected, now, effects)
}

fn payload_of(record: &Record<'_>) -> Payload {
    let timestamp = match record.timestamp() {
        Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => Some(time.millis()),
        Timestamp::NotAvailable => None,
    };
    Payload {
        key: record.key().map(<[u8]>::to_vec),
        value: record.value().map(<[u8]>::to_vec),
        headers: record.headers().map(|(name, value)| (name.to_owned(), value.map(<[u8]>::to_vec))).collect(),
        timestamp,
    }
}
