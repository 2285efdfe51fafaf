//! Replays: this process reads a stretch of the dead-letter topic when the coordinator orders it to, and gives the shards what is
//! in it.
//!
//! ```text
//! dead-letter topic ─► entry: ours? meant? readable? ─► rounds: by shard ─► delivery: until each is answered
//!                                                                              └─► progress to the coordinator
//! ```
//! It is beside the reading of the source and knows nothing of it: no watermark, no position, no credit. An order holds as long as
//! the stream on which it came; begun again, here or elsewhere, it goes from its beginning, and the shards know what they have
//! answered for.

mod delivery;
mod entry;
mod rounds;

use std::{path::PathBuf, pin::pin, sync::Arc, time::Duration};

use tidegate_core::{
    block::JobId,
    future::Future,
    replay::ReplayFrame,
    replay_request::{ReplayFilter, ReplayRange, ReplayTally, partition_of_topic},
    time::{EventTime, Offset, Partition},
};
use tidegate_extract::Extractor;
use tidegate_job::{Job, UnknownSchema};
use tidegate_kafka::{KafkaConfig, PartitionReader, ReaderEvent, ReaderOptions, RecordBatch};
use tidegate_proto::v1;
use tidegate_runtime::{backoff::Backoff, clock::Clock, task, tls::Tls};
use tokio::{
    sync::{mpsc, watch},
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use crate::{metrics::IngestMetrics, schema_desk};
use delivery::{Deliveries, Directory};
use entry::Verdict;
use rounds::Rounds;

/// How often the coordinator hears how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// After so many seconds in which nothing was read, and there was something to read, it is begun again with another client.
const STILL: u32 = 30;
/// Results that replayed entries may correct a second: more, and live records wait for commits that are full of them
/// (docs/benchmarks.md).
const RATE: u64 = 80_000;
/// Bytes of records between the poll thread and here.
const READ_AHEAD: usize = 4 << 20;

/// Does what the coordinator orders; one replay at a time.
#[derive(Debug)]
pub(crate) struct Replayer {
    ground: Arc<Ground>,
    directory: watch::Sender<Directory>,
    tls: Option<Tls>,
    running: Option<(u64, AbortHandle)>,
}

/// What replays stand on.
#[derive(Debug)]
pub(crate) struct Ground {
    pub(crate) job: Arc<Job>,
    /// Schemas in files are found from its folder.
    pub(crate) job_file: PathBuf,
    pub(crate) kafka: KafkaConfig,
    pub(crate) clock: Clock,
    pub(crate) metrics: IngestMetrics,
}

/// What is to be read, and where what became of it is told.
struct Order {
    number: u64,
    filter: ReplayFilter,
    ranges: Vec<ReplayRange>,
    dry_run: bool,
    topic: u32,
    reports: mpsc::Sender<v1::IngestReport>,
}

/// Why a replay does not go on.
enum Ended {
    /// The stream of the order has ended.
    NotWanted,
    /// It is begun again.
    Failed(String),
}

impl Replayer {
    /// Nothing is ordered yet.
    pub(crate) fn new(ground: Ground, tls: Option<Tls>) -> Self {
        Self { ground: Arc::new(ground), directory: watch::Sender::default(), tls, running: None }
    }

    /// Who owns which shard.
    pub(crate) fn set_owners(&mut self, job: JobId, owners: &v1::Owners) {
        let before = self.directory.borrow().clone();
        self.directory.send_replace(before.replaced(
            job,
            self.ground.job.fingerprint(),
            owners,
            self.tls.as_ref(),
        ));
    }

    /// Begins what is ordered, in place of what was ordered before.
    pub(crate) fn order(&mut self, order: v1::ReplayOrder, reports: mpsc::Sender<v1::IngestReport>) {
        self.stop();
        let v1::ReplayOrder { number, filter, ranges, dry_run, topic } = order;
        let filter = match filter.unwrap_or_default().try_into() {
            Ok(filter) => filter,
            Err(error) => {
                let error = tonic::Status::from(error);
                tracing::error!(
                    number,
                    error = error.message(),
                    "a replay cannot be read: is the coordinator newer?"
                );
                return;
            }
        };
        let ranges = ranges.into_iter().map(ReplayRange::from).collect();
        let order = Order { number, filter, ranges, dry_run, topic, reports };
        let (ground, directory) = (Arc::clone(&self.ground), self.directory.subscribe());
        let run = async move { run(&ground, &order, &directory).await };
        self.running = Some((number, task::spawn("replay", run).abort_handle()));
    }

    /// The replay of this number is not wanted any more.
    pub(crate) fn cancel(&mut self, number: u64) {
        if self.running.as_ref().is_some_and(|(running, _)| *running == number) {
            tracing::info!(number, "a replay is cancelled");
            self.stop();
        }
    }

    /// The stream to the coordinator has ended, and with it what was ordered.
    pub(crate) fn stop(&mut self) {
        if let Some((_, running)) = self.running.take() {
            running.abort();
        }
    }
}

async fn run(ground: &Ground, order: &Order, directory: &watch::Receiver<Directory>) {
    let number = order.number;
    tracing::info!(number, dry_run = order.dry_run, "replaying dead letters");
    let mut backoff = Backoff::default();
    loop {
        let mut replay = match Replay::begin(ground, order, directory) {
            Ok(replay) => replay,
            Err(error) => {
                tracing::warn!(number, error, "cannot begin a replay, trying again");
                sleep(backoff.next_delay()).await;
                continue;
            }
        };
        match replay.run().await {
            Ok(()) => return,
            Err(Ended::NotWanted) => {
                tracing::info!(number, "the coordinator that ordered a replay is gone");
                return;
            }
            Err(Ended::Failed(error)) => {
                tracing::warn!(number, error, "a replay cannot go on, beginning it again");
                sleep(backoff.next_delay()).await;
            }
        }
    }
}

/// One reading of what is ordered.
struct Replay<'a> {
    ground: &'a Ground,
    order: &'a Order,
    extractor: Extractor,
    registry: Option<tidegate_schemas::Registry>,
    reader: PartitionReader,
    /// What is left to be read.
    open: Vec<ReplayRange>,
    rounds: Rounds,
    deliveries: Deliveries,
    tally: ReplayTally,
    told: ReplayTally,
    /// How often the coordinator was told since something was read, while nothing else was to be done.
    still: u32,
}

impl<'a> Replay<'a> {
    fn begin(
        ground: &'a Ground,
        order: &'a Order,
        directory: &watch::Receiver<Directory>,
    ) -> Result<Self, String> {
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let job = &ground.job;
        let (extractor, registry) =
            tidegate_schemas::open(job, &ground.job_file).map_err(|error| text(&error))?;
        let options = ReaderOptions { max_bytes: READ_AHEAD, ..ReaderOptions::default() };
        let reader = PartitionReader::open(&ground.kafka, &job.dead_letter.topic, job.group(), options)
            .map_err(|error| text(&error))?;
        let open: Vec<_> = order.ranges.iter().copied().filter(|range| range.offsets() > 0).collect();
        let mut rounds = Rounds::new(&job.core);
        for range in &open {
            rounds.begin(range.partition, range.from);
            reader.assign(range.partition, range.from);
        }
        let deliveries = Deliveries::new(directory.clone());
        let (tally, told) = (ReplayTally::default(), ReplayTally::default());
        Ok(Self {
            ground,
            order,
            extractor,
            registry,
            reader,
            open,
            rounds,
            deliveries,
            tally,
            told,
            still: 0,
        })
    }

    async fn run(&mut self) -> Result<(), Ended> {
        let mut tell = interval(TELL_EVERY);
        tell.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut rest = pin!(sleep(Duration::ZERO));
        loop {
            if self.open.is_empty() && self.deliveries.is_empty() {
                return self.tell(true).await;
            }
            let reads = rest.is_elapsed() && !self.open.is_empty() && self.deliveries.have_room();
            tokio::select! {
                event = self.reader.next(), if reads => match event {
                    Some(event) => {
                        let before = self.tally.selected;
                        self.on_read(event).await?;
                        rest.set(sleep(self.rest_after(self.tally.selected - before)));
                    }
                    None => return Err(Ended::Failed("its reader has ended".to_owned())),
                },
                () = rest.as_mut(), if !rest.is_elapsed() => {}
                answer = self.deliveries.next(), if !self.deliveries.is_empty() => {
                    self.tally.applied += answer.applied;
                    self.tally.expired += answer.expired;
                    self.tally.known += answer.known;
                }
                _ = tell.tick() => {
                    self.tell(false).await?;
                    self.look_whether_it_moves()?;
                }
            }
        }
    }

    /// How long to wait after so many entries.
    fn rest_after(&self, entries: u64) -> Duration {
        let results = if self.order.dry_run { 0 } else { entries.saturating_mul(self.rounds.windows()) };
        Duration::from_micros(results.saturating_mul(1_000_000) / RATE)
    }

    fn look_whether_it_moves(&mut self) -> Result<(), Ended> {
        self.still = if self.deliveries.is_empty() { self.still.saturating_add(1) } else { 0 };
        if self.still < STILL {
            return Ok(());
        }
        Err(Ended::Failed(format!("nothing was read of the dead-letter topic for {STILL} s")))
    }

    async fn on_read(&mut self, event: ReaderEvent) -> Result<(), Ended> {
        self.still = 0;
        match event {
            ReaderEvent::Batch(batch) => {
                let batch = self.learn(batch).await;
                self.on_batch(&batch);
            }
            ReaderEvent::EndOfPartition { partition, position } => {
                if self.open.iter().any(|range| range.partition == partition && position >= range.to) {
                    self.finish(partition);
                }
            }
            ReaderEvent::Failed(tidegate_kafka::Error::OffsetOutOfRange {
                partition,
                log_start: Some(log_start),
                ..
            }) => self.skip(partition, log_start),
            ReaderEvent::Failed(error) if error.is_retriable() => {
                tracing::warn!(number = self.order.number, %error, "a replay goes on after a failure");
            }
            ReaderEvent::Failed(error) => return Err(Ended::Failed(error.to_string())),
            ReaderEvent::Started { .. }
            | ReaderEvent::Assigned { .. }
            | ReaderEvent::Revoked { .. }
            | ReaderEvent::Lost { .. } => {}
        }
        Ok(())
    }

    /// Waits for the schemas that records name, however long that takes.
    async fn learn(&mut self, batch: RecordBatch) -> RecordBatch {
        let Some(registry) = &self.registry else { return batch };
        let format = &self.ground.job.source.format;
        let unknown = format.registry().map_or(UnknownSchema::Wait, |place| place.unknown_schema);
        loop {
            let wanted = batch.iter().find_map(|record| self.extractor.wants(&record));
            let Some(id) = wanted else { return batch };
            let answer = schema_desk::ask(registry, id, unknown).await;
            self.extractor.learn(id, answer.as_ref().map_err(Clone::clone));
        }
    }

    fn on_batch(&mut self, batch: &RecordBatch) {
        let Ground { job, clock, .. } = self.ground;
        let future = Future::of(&job.core.watermark, EventTime(clock.now_millis()));
        for run in batch.runs() {
            let partition = run.partition();
            let Some(range) = self.open.iter().find(|range| range.partition == partition).copied() else {
                continue;
            };
            for record in run.records() {
                let offset = record.offset();
                if offset >= range.to {
                    self.finish(partition);
                    break;
                }
                let verdict = entry::judge(&record, job, &mut self.extractor, future, &self.order.filter);
                match verdict {
                    // Nobody will ever ask this job for it.
                    Verdict::Foreign => {
                        self.tally.left_out += 1;
                        self.rounds.pass(partition, offset);
                    }
                    Verdict::LeftOut => {
                        self.tally.left_out += 1;
                        self.rounds.leave_out(partition, offset);
                    }
                    Verdict::Failed => {
                        self.tally.failed += 1;
                        self.rounds.leave_out(partition, offset);
                    }
                    Verdict::Meant(entry) => {
                        self.tally.selected += 1;
                        if !self.order.dry_run {
                            let payload = || entry::payload_of(&record);
                            self.rounds.take(partition, offset, &entry, payload);
                        }
                    }
                }
                if self.rounds.is_full(partition) {
                    self.cut(partition, offset.next());
                }
            }
        }
    }

    /// What was deleted is gone.
    fn skip(&mut self, partition: Partition, log_start: Offset) {
        let Some(range) = self.open.iter().find(|range| range.partition == partition).copied() else {
            return;
        };
        let from = self.rounds.position(partition);
        let to = log_start.clamp(from, range.to);
        let lost = to.0 - from.0;
        self.tally.deleted += lost;
        let number = self.order.number;
        tracing::warn!(
            number,
            partition = partition.0,
            lost,
            "dead letters were deleted before they were replayed"
        );
        self.cut(partition, to);
        if to < range.to {
            self.reader.assign(partition, to);
        } else {
            self.finish(partition);
        }
    }

    fn finish(&mut self, partition: Partition) {
        if let Some(at) = self.open.iter().position(|range| range.partition == partition) {
            let range = self.open.swap_remove(at);
            self.cut(partition, range.to);
            self.reader.unassign(partition);
        }
    }

    fn cut(&mut self, partition: Partition, to: Offset) {
        for (shard, frame) in self.rounds.cut(partition, to) {
            let partition = partition_of_topic(self.order.topic, partition);
            self.deliveries.send(shard, ReplayFrame { partition, ..frame });
        }
    }

    async fn tell(&mut self, done: bool) -> Result<(), Ended> {
        self.ground.metrics.replayed(self.told, self.tally);
        self.told = self.tally;
        let position = |range: &ReplayRange| {
            let is_open = self.open.iter().any(|open| open.partition == range.partition);
            let end = if is_open { self.rounds.position(range.partition) } else { range.to };
            end.0.saturating_sub(range.from.0)
        };
        let progress = v1::ReplayProgress {
            number: self.order.number,
            tally: Some(self.tally.into()),
            read: self.order.ranges.iter().map(position).sum(),
            done,
        };
        if done {
            let ReplayTally { applied, expired, known, failed, .. } = self.tally;
            tracing::info!(number = progress.number, applied, expired, known, failed, "a replay is done");
        }
        let message = v1::ingest_report::Message::Replay(progress);
        let report = v1::IngestReport { message: Some(message) };
        self.order.reports.send(report).await.map_err(|_| Ended::NotWanted)
    }
}
