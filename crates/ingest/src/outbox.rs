//! What goes out: frames to workers within their credit, reports to the coordinator, each coalesced until the next flush.

use std::collections::BTreeMap;

use tidegate_core::{
    announcement::Report,
    credit::{Credit, Feeding, Held, Step, Terms},
    frame::Frame,
    lane::WorkerRef,
    source::Opening,
    time::{Partition, Tick},
};
use tidegate_proto::{frame, v1};
use tokio::sync::mpsc;

use crate::timestamps::Counts;

/// The streams to the workers and the coordinator.
#[derive(Debug)]
pub(crate) struct Outbox {
    credit: Credit,
    workers: BTreeMap<WorkerRef, Connection>,
    coordinator: Option<mpsc::Sender<v1::IngestReport>>,
    reports: BTreeMap<Partition, Report>,
}

#[derive(Debug)]
struct Connection {
    name: String,
    outgoing: mpsc::Sender<v1::FeedRequest>,
    frames: Vec<v1::Frame>,
}

impl Outbox {
    /// An outbox that lets `credit_window` bytes of frames be under way to each worker.
    #[must_use]
    pub(crate) const fn new(credit_window: u64) -> Self {
        let credit = Credit::new(Terms::of_window(credit_window));
        Self { credit, workers: BTreeMap::new(), coordinator: None, reports: BTreeMap::new() }
    }

    /// A stream to the worker `name` is open.
    pub(crate) fn worker_up(
        &mut self,
        connection: WorkerRef,
        name: String,
        outgoing: mpsc::Sender<v1::FeedRequest>,
    ) {
        self.credit.up(connection);
        self.workers.insert(connection, Connection { name, outgoing, frames: Vec::new() });
    }

    /// A stream to a worker is gone; false when it had been dropped before.
    pub(crate) fn worker_down(&mut self, connection: WorkerRef) -> bool {
        self.credit.down(connection);
        self.workers.remove(&connection).is_some()
    }

    /// The name of the worker behind a connection.
    pub(crate) fn name(&self, connection: WorkerRef) -> &str {
        self.workers.get(&connection).map_or("", |worker| &worker.name)
    }

    /// The stream to the coordinator.
    pub(crate) fn set_coordinator(&mut self, reports: Option<mpsc::Sender<v1::IngestReport>>) {
        self.coordinator = reports;
    }

    /// The stream to the coordinator, where there is one.
    pub(crate) const fn coordinator(&self) -> Option<&mpsc::Sender<v1::IngestReport>> {
        self.coordinator.as_ref()
    }

    /// Which lanes have to wait for credit.
    pub(crate) fn held(&self, feeding: impl FnOnce() -> Feeding) -> Held {
        self.credit.held(feeding)
    }

    /// Decides which workers are parked, and which of those are asked again.
    pub(crate) fn look(&mut self, now: Tick, feeding: impl FnOnce() -> Feeding) -> Vec<Step> {
        self.credit.look(now, feeding)
    }

    /// Whether a worker is parked: what it wants is ignored until it is asked again.
    #[must_use]
    pub(crate) fn is_parked(&self, connection: WorkerRef) -> bool {
        self.credit.is_parked(connection)
    }

    /// Frames of so many bytes may be sent anew.
    pub(crate) fn give_back(&mut self, connection: WorkerRef, bytes: u64, now: Tick) {
        self.credit.give_back(connection, bytes, now);
    }

    /// Asks all workers but the parked ones for their positions; gives those that do not keep up.
    pub(crate) fn ask_all(&self, partitions: &[Partition]) -> Vec<WorkerRef> {
        let unparked = self.workers.keys().filter(|connection| !self.is_parked(**connection));
        unparked.copied().filter(|connection| !self.ask(*connection, partitions)).collect()
    }

    /// Tells a worker which partitions are read here, so that it says where its shards are; false when it does not keep up.
    #[must_use]
    pub(crate) fn ask(&self, connection: WorkerRef, partitions: &[Partition]) -> bool {
        let ask = v1::Ask { partitions: partitions.iter().map(|partition| partition.0).collect() };
        self.send(connection, v1::feed_request::Message::Ask(ask))
    }

    /// Opens a session, behind the frames before it; false when the worker does not keep up.
    #[must_use]
    pub(crate) fn open(&mut self, connection: WorkerRef, opening: &Opening) -> bool {
        self.flush_worker(connection, &[])
            && self.send(connection, v1::feed_request::Message::Open(opening.into()))
    }

    /// Queues a frame for the next flush.
    pub(crate) fn frame(&mut self, connection: WorkerRef, out: Frame, now: Tick) {
        if let Some(worker) = self.workers.get_mut(&connection) {
            self.credit.spend(connection, out.cost(), now);
            worker.frames.push(frame::to_wire(out));
        }
    }

    /// Queues a report for the next flush; a newer one of the same partition replaces it.
    pub(crate) fn report(&mut self, report: Report) {
        self.reports.insert(report.partition, report);
    }

    /// Forgets reports of a partition that is no longer read here.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.reports.remove(&partition);
    }

    /// Sends what is queued, one message for each peer; gives the workers that do not keep up. Traces go to the workers that get
    /// frames of their shards, in the same message: one of its own would cost several times what it says.
    pub(crate) fn flush(&mut self, clock_ms: i64, traces: &[v1::RecordTrace]) -> Vec<WorkerRef> {
        self.flush_reports(clock_ms);
        let connections: Vec<_> = self.workers.keys().copied().collect();
        connections.into_iter().filter(|connection| !self.flush_worker(*connection, traces)).collect()
    }

    fn flush_worker(&mut self, connection: WorkerRef, traces: &[v1::RecordTrace]) -> bool {
        let Some(worker) = self.workers.get_mut(&connection) else { return true };
        if worker.frames.is_empty() {
            return true;
        }
        let frames = std::mem::take(&mut worker.frames);
        let is_in_frames = |trace: &&v1::RecordTrace| {
            frames.iter().flat_map(|frame| &frame.rows).any(|rows| rows.shard == trace.shard)
        };
        let traces = traces.iter().filter(is_in_frames).cloned().collect();
        self.send(connection, v1::feed_request::Message::Frames(v1::Frames { frames, traces }))
    }

    fn send(&self, connection: WorkerRef, message: v1::feed_request::Message) -> bool {
        self.workers
            .get(&connection)
            .is_none_or(|worker| worker.outgoing.try_send(v1::FeedRequest { message: Some(message) }).is_ok())
    }

    /// Reports that find no coordinator, or one that does not keep up, wait: they say how things are, not what happened.
    fn flush_reports(&mut self, clock_ms: i64) {
        let Some(coordinator) = self.coordinator.as_ref().filter(|_| !self.reports.is_empty()) else {
            return;
        };
        let Ok(permit) = coordinator.try_reserve() else { return };
        let reports =
            std::mem::take(&mut self.reports).into_values().map(|report| (&report).into()).collect();
        let message = v1::ingest_report::Message::Reports(v1::Reports { reports, clock_ms });
        permit.send(v1::IngestReport { message: Some(message) });
    }

    /// Whether there is a stream to the coordinator.
    pub(crate) const fn has_coordinator(&self) -> bool {
        self.coordinator.is_some()
    }

    /// Sends the totals of this process.
    pub(crate) fn stats(
        &self,
        records: u64,
        skipped: u64,
        timestamps: impl Iterator<Item = (Partition, Counts)>,
    ) {
        if let Some(coordinator) = &self.coordinator {
            let timestamps = timestamps.map(|(partition, counts)| v1::TimestampCount {
                partition: partition.0,
                create_time: counts.create,
                log_append_time: counts.append,
                none: counts.none,
            });
            let stats = v1::IngestStats { records, skipped, timestamps: timestamps.collect() };
            let message = v1::ingest_report::Message::Stats(stats);
            // The totals are sent again in a second.
            let _ = coordinator.try_send(v1::IngestReport { message: Some(message) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_goes_with_the_frames_of_its_shard_and_to_no_other_worker() {
        let mut outbox = Outbox::new(1 << 20);
        let mut with_frame = |number: u64, shard: u32| {
            let (outgoing, messages) = mpsc::channel(1);
            outbox.worker_up(WorkerRef(number), format!("worker-{number}"), outgoing);
            let rows = vec![v1::ShardRows { shard, ..Default::default() }];
            let worker = outbox.workers.get_mut(&WorkerRef(number)).unwrap();
            worker.frames.push(v1::Frame { rows, ..Default::default() });
            messages
        };
        let (mut first, mut second) = (with_frame(1, 3), with_frame(2, 4));
        let trace = v1::RecordTrace { shard: 4, ..Default::default() };
        assert_eq!(outbox.flush(0, std::slice::from_ref(&trace)), []);
        let traces = |messages: &mut mpsc::Receiver<v1::FeedRequest>| match messages.try_recv() {
            Ok(v1::FeedRequest { message: Some(v1::feed_request::Message::Frames(frames)) }) => frames.traces,
            other => panic!("no frames: {other:?}"),
        };
        assert_eq!(traces(&mut first), []);
        assert_eq!(traces(&mut second), [trace]);
    }
}
