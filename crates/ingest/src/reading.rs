//! The owner of the reading: one task that holds a [`SourcePartition`] for each partition given to this process, feeds it what
//! the poll thread reads, and does what it says.
//!
//! ```text
//! poll thread ─ batch ─► extract ─► SourcePartition ─ frames ─► outbox ─► workers
//!                                         └────────── reports ─► outbox ─► coordinator
//! ```

mod coordinator;
mod effects;
mod feeding;
mod group;
mod records;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{
    announcement::{Announcement, Term},
    block::JobId,
    credit::Held,
    source::{Effect, LaneKind, SourcePartition, Timing},
    time::{Partition, Tick},
};
use tidegate_extract::Extractor;
use tidegate_job::Job;
use tidegate_kafka::{GroupReader, KafkaConfig, PartitionReader, ReaderOptions, RecordBatch};
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

    fn ask(&mut self) {
        for connection in self.outbox.ask_all(&self.read_here()) {
            self.drop_worker(connection);
        }
    }

    fn read_here(&self) -> Vec<Partition> {
        self.partitions.keys().copied().collect()
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

    /// Lets `call` act on a partition, if it is read here, and does what it says.
    fn with(&mut self, partition: Partition, call: impl FnOnce(&mut SourcePartition) -> Vec<Effect>) {
        if let Some(source) = self.partitions.get_mut(&partition) {
            let effects = call(source);
            self.perform(partition, effects);
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
