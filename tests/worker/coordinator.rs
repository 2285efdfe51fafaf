//! A coordinator of one worker, played by the test.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use tidegate_proto::v1;
use tidegate_proto::v1::coordinator_server::{Coordinator, CoordinatorServer};
use tidegate_tests::clients::PATIENCE;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status, Streaming};
use v1::worker_directive::Message as Directive;
use v1::worker_report::Message as Report;

type Directives = mpsc::Sender<Result<v1::WorkerDirective, Status>>;

/// Hands each stream of a worker to the test.
struct Service {
    job: [u8; 16],
    streams: Mutex<mpsc::Sender<Stream>>,
}

/// The test's end of a worker's stream, welcomed.
pub struct Stream {
    pub hello: v1::WorkerHello,
    reports: Streaming<v1::WorkerReport>,
    directives: Directives,
}

/// The coordinator: a server on a port of its own.
pub struct FakeCoordinator {
    pub address: SocketAddr,
    streams: mpsc::Receiver<Stream>,
}

impl FakeCoordinator {
    /// Serves the job `job` until the runtime ends.
    pub async fn start(job: [u8; 16]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let (sender, streams) = mpsc::channel(8);
        let service = CoordinatorServer::new(Service { job, streams: Mutex::new(sender) });
        tokio::spawn(Server::builder().add_service(service).serve_with_incoming(TcpIncoming::from(listener)));
        Ok(Self { address, streams })
    }

    /// The next stream of a worker.
    pub async fn stream(&mut self) -> Result<Stream> {
        let stream = tokio::time::timeout(PATIENCE, self.streams.recv()).await;
        stream.context("waited for a worker to register")?.context("the server ended")
    }
}

impl Stream {
    /// Gives the worker a shard and waits until it has it.
    pub async fn assign(&mut self, shard: u32, number: u64) -> Result<v1::OwnedShard> {
        let assignment = Some(v1::AssignmentId { term: 1, number });
        self.say(Directive::Assign(v1::Assign { shard, assignment })).await?;
        self.until(|report| match report {
            Report::Ready(ready) => {
                ready.shard.filter(|owned| owned.shard == shard && owned.assignment == assignment)
            }
            _ => None,
        })
        .await
        .with_context(|| format!("shard {shard} ready"))
    }

    /// Announces a watermark to which all partitions count.
    pub async fn announce(&self, version: u64, partitions: u32, watermark_ms: i64) -> Result<()> {
        let watermark_ms = Some(watermark_ms);
        let announcement = v1::Announcement { term: 1, version, partitions, watermark_ms, excluded: vec![] };
        self.say(Directive::Announcement(announcement)).await
    }

    pub async fn say(&self, message: Directive) -> Result<()> {
        Ok(self.directives.send(Ok(v1::WorkerDirective { message: Some(message) })).await?)
    }

    /// The first report in which `wanted` finds something.
    pub async fn until<T>(&mut self, mut wanted: impl FnMut(Report) -> Option<T>) -> Result<T> {
        loop {
            let report = tokio::time::timeout(PATIENCE, self.reports.message()).await;
            let report = report.context("waited for a report")??.context("the worker closed its stream")?;
            if let Some(found) = report.message.and_then(&mut wanted) {
                return Ok(found);
            }
        }
    }
}

#[tonic::async_trait]
impl Coordinator for Service {
    type IngestStream = ReceiverStream<Result<v1::IngestDirective, Status>>;
    type WorkerStream = ReceiverStream<Result<v1::WorkerDirective, Status>>;

    async fn ingest(
        &self,
        _: Request<Streaming<v1::IngestReport>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        Err(Status::unimplemented("no ingests here"))
    }

    async fn worker(
        &self,
        request: Request<Streaming<v1::WorkerReport>>,
    ) -> Result<Response<Self::WorkerStream>, Status> {
        let mut reports = request.into_inner();
        let Some(Report::Hello(hello)) = reports.message().await?.and_then(|report| report.message) else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (directives, stream) = mpsc::channel(64);
        let welcome = v1::Welcome {
            job: self.job.to_vec().into(),
            term: 1,
            shards: super::rig::SHARDS,
            report_interval_ms: 500,
            ..v1::Welcome::default()
        };
        let welcome = v1::WorkerDirective { message: Some(Directive::Welcome(welcome)) };
        let gone = |_| Status::unavailable("the test is over");
        directives.send(Ok(welcome)).await.map_err(gone)?;
        let stream_of_test = Stream { hello, reports, directives };
        self.streams
            .lock()
            .await
            .send(stream_of_test)
            .await
            .map_err(|_| Status::unavailable("the test is over"))?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::JobStatus>, Status> {
        Err(Status::unimplemented("no status here"))
    }

    async fn replay(&self, _: Request<v1::ReplayRequest>) -> Result<Response<v1::ReplayTicket>, Status> {
        Err(Status::unimplemented("no replays here"))
    }

    async fn cancel_replay(
        &self,
        _: Request<v1::CancelReplayRequest>,
    ) -> Result<Response<v1::ReplayTicket>, Status> {
        Err(Status::unimplemented("no replays here"))
    }
}

/// The totals of a worker, once `enough` says so.
pub async fn stats_when(
    stream: &mut Stream,
    enough: impl Fn(&v1::WorkerStats) -> bool,
) -> Result<v1::WorkerStats> {
    stream
        .until(|report| match report {
            Report::Stats(stats) if enough(&stats) => Some(stats),
            _ => None,
        })
        .await
}
