//! An ingest and a worker, as far as the coordinator sees them.

use anyhow::{Context, Result, bail};
use tidegate_proto::v1;
use tidegate_tests::clients::PATIENCE;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::ingest_directive::Message as ToIngest;
use v1::ingest_report::Message as FromIngest;
use v1::worker_directive::Message as ToWorker;
use v1::worker_report::Message as FromWorker;

use crate::rig::Running;

/// The test's end of an ingest's stream.
pub struct Ingest {
    reports: mpsc::Sender<v1::IngestReport>,
    directives: Streaming<v1::IngestDirective>,
    pub welcome: v1::Welcome,
}

impl Ingest {
    pub async fn connect(coordinator: &Running, fingerprint: u64) -> Result<Self> {
        let (reports, outgoing) = mpsc::channel(16);
        reports.send(ingest_report(FromIngest::Hello(v1::IngestHello { fingerprint, ingest: 7 }))).await?;
        coordinator.status().await?;
        let directives = coordinator.client().await?.ingest(ReceiverStream::new(outgoing)).await?;
        let mut ingest =
            Self { reports, directives: directives.into_inner(), welcome: v1::Welcome::default() };
        ingest.welcome = match ingest.next().await? {
            ToIngest::Welcome(welcome) => welcome,
            other => bail!("{other:?} before the welcome"),
        };
        Ok(ingest)
    }

    pub async fn next(&mut self) -> Result<ToIngest> {
        let directive = tokio::time::timeout(PATIENCE, self.directives.message()).await;
        let directive = directive.context("waited for a directive to the ingest")??;
        directive.and_then(|directive| directive.message).context("the stream ended")
    }

    /// The first directive in which `wanted` finds something.
    pub async fn until<T>(&mut self, mut wanted: impl FnMut(ToIngest) -> Option<T>) -> Result<T> {
        loop {
            if let Some(found) = wanted(self.next().await?) {
                return Ok(found);
            }
        }
    }

    pub async fn report(&self, reports: &[v1::Report]) -> Result<()> {
        let reports = v1::Reports { reports: reports.to_vec(), clock_ms: 1_700_000_000_000 };
        Ok(self.reports.send(ingest_report(FromIngest::Reports(reports))).await?)
    }

    pub async fn stats(&self, records: u64) -> Result<()> {
        Ok(self
            .reports
            .send(ingest_report(FromIngest::Stats(v1::IngestStats { records, ..Default::default() })))
            .await?)
    }
}

fn ingest_report(message: FromIngest) -> v1::IngestReport {
    v1::IngestReport { message: Some(message) }
}

/// A report of an active partition.
pub fn active(partition: u32, watermark_ms: i64, position: u64) -> v1::Report {
    v1::Report {
        partition,
        epoch: 1,
        watermark_ms: Some(watermark_ms),
        position,
        state: v1::PartitionState::Active.into(),
        max_event_time_ms: Some(watermark_ms + 1000),
        lag: 5,
        agreed_ms: Some(watermark_ms),
        observed: None,
    }
}

/// The test's end of a worker's stream.
pub struct Worker {
    reports: mpsc::Sender<v1::WorkerReport>,
    directives: Streaming<v1::WorkerDirective>,
    pub welcome: v1::Welcome,
}

impl Worker {
    pub async fn connect(coordinator: &Running, hello: v1::WorkerHello) -> Result<Self> {
        let (reports, outgoing) = mpsc::channel(16);
        reports.send(worker_report(FromWorker::Hello(hello))).await?;
        coordinator.status().await?;
        let directives = coordinator.client().await?.worker(ReceiverStream::new(outgoing)).await?;
        let mut worker =
            Self { reports, directives: directives.into_inner(), welcome: v1::Welcome::default() };
        worker.welcome = match worker.next().await? {
            ToWorker::Welcome(welcome) => welcome,
            other => bail!("{other:?} before the welcome"),
        };
        Ok(worker)
    }

    pub async fn next(&mut self) -> Result<ToWorker> {
        let directive = tokio::time::timeout(PATIENCE, self.directives.message()).await;
        let directive = directive.context("waited for a directive to the worker")??;
        directive.and_then(|directive| directive.message).context("the stream ended")
    }

    /// The next assignments, `count` of them.
    pub async fn assignments(&mut self, count: usize) -> Result<Vec<v1::Assign>> {
        let mut assigned = Vec::new();
        while assigned.len() < count {
            if let ToWorker::Assign(assign) = self.next().await? {
                assigned.push(assign);
            }
        }
        assigned.sort_by_key(|assign| assign.shard);
        Ok(assigned)
    }

    /// The next announcement.
    pub async fn announcement(&mut self) -> Result<v1::Announcement> {
        loop {
            if let ToWorker::Announcement(announcement) = self.next().await? {
                return Ok(announcement);
            }
        }
    }

    pub async fn ready(&self, assign: &v1::Assign, watermark_ms: Option<i64>) -> Result<()> {
        let shard = owned(assign, watermark_ms);
        let ready = v1::ShardReady { shard: Some(shard) };
        Ok(self.reports.send(worker_report(FromWorker::Ready(ready))).await?)
    }

    pub async fn released(&self, release: &v1::Release) -> Result<()> {
        let left = v1::ShardLeft { shard: release.shard, assignment: release.assignment };
        Ok(self.reports.send(worker_report(FromWorker::Released(left))).await?)
    }

    pub async fn stats(&self, applied: u64) -> Result<()> {
        let stats = v1::WorkerStats { applied, ..Default::default() };
        Ok(self.reports.send(worker_report(FromWorker::Stats(stats))).await?)
    }
}

fn worker_report(message: FromWorker) -> v1::WorkerReport {
    v1::WorkerReport { message: Some(message) }
}

/// What the owner of an assigned shard says of it.
pub fn owned(assign: &v1::Assign, watermark_ms: Option<i64>) -> v1::OwnedShard {
    v1::OwnedShard { shard: assign.shard, assignment: assign.assignment, watermark_ms, ..Default::default() }
}

/// The hello of a worker that owns nothing.
pub fn hello(name: &str, fingerprint: u64) -> v1::WorkerHello {
    v1::WorkerHello {
        fingerprint,
        name: name.to_owned(),
        address: format!("http://{name}:1"),
        incarnation: 1,
        owned: Vec::new(),
        last_announcement: None,
    }
}
