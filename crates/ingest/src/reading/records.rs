//! A record's way from the poll thread into its lane.

use tidegate_core::{
    dead_letter::{Payload, Reason},
    future::{Future, Judgement},
    lane::{RejectedRecord, Row},
    record::Timestamp,
    source::{Effect, LaneKind, SourcePartition},
    time::{EventTime, Offset, Partition, Shard, Tick},
};
use tidegate_extract::{Extractor, Reject};
use tidegate_job::OnDataLoss;
use tidegate_kafka::{ReaderEvent, Record, RecordBatch};

use super::{Reading, Waiting};
use crate::{error::Error, source_watch::Changed};

impl Reading {
    pub(super) fn on_read(&mut self, kind: LaneKind, event: ReaderEvent) -> Result<(), Error> {
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
    pub(super) fn can_skip(&self, offset: Offset, log_start: Option<Offset>, end: Option<Offset>) -> bool {
        self.job.source.on_data_loss == OnDataLoss::Skip
            && (log_start.is_none() || end.is_none_or(|end| offset <= end))
    }

    /// Goes on at the beginning of the log; where the brokers do not say where that is, the same offset is tried again.
    pub(super) fn skip(&mut self, kind: LaneKind, partition: Partition, log_start: Option<Offset>) {
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

    pub(super) fn unreadable(&self, error: tidegate_kafka::Error) -> Error {
        match error {
            tidegate_kafka::Error::UnknownTopic { topic } => {
                Changed::Deleted.error(&topic, &self.positions())
            }
            error @ tidegate_kafka::Error::OffsetOutOfRange { .. } => Error::SourceTruncated(error),
            error => error.into(),
        }
    }

    pub(super) fn is_current(&self, kind: LaneKind, partition: Partition) -> bool {
        self.starting.get(&(partition, kind == LaneKind::Main)).is_some_and(|pending| *pending == 0)
    }

    /// Reads a batch, or keeps it until all schemas that its records name are known.
    pub(super) fn read_or_wait(&mut self, kind: LaneKind, batch: RecordBatch) {
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
    pub(super) fn go_on(&mut self) {
        let Waiting { main, catch_up } = std::mem::take(&mut self.waiting);
        for (kind, batch) in [(LaneKind::Main, main), (LaneKind::CatchUp, catch_up)] {
            if let Some(batch) = batch {
                self.read_or_wait(kind, batch);
            }
        }
        self.tell_waiting();
    }

    pub(super) fn on_batch(&mut self, kind: LaneKind, batch: &RecordBatch) {
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
