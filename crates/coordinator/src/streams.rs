//! The gRPC service: one reading task a stream turns messages into events for the owner.
//!
//! A stream begins with its hello; one of another fingerprint is refused before the owner hears of it. While this process does not
//! lead all are refused.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tidegate_core::assignment::{Registration, StreamId, WorkerId};
use tidegate_core::coordinator::ReaderId;
use tidegate_core::time::{EventTime, Shard};
use tidegate_proto::{WireError, same_fingerprint, v1};
use tidegate_runtime::{grpc::Refusals, task};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use v1::{ingest_report::Message as FromIngest, worker_report::Message as FromWorker};

use crate::event::{Event, IngestEvent, Link, OwnedShard, ReplayEvent, TicketReply, WorkerEvent, claims};
use crate::replays;
use crate::seat::{Desk, Seat};

/// Directives that may wait for a stream, besides two for each shard: some seconds of announcements.
const WAITING: usize = 256;

/// What goes out on a stream.
type Directives<T> = ReceiverStream<Result<T, Status>>;

/// The Coordinator service.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    seat: watch::Receiver<Seat>,
    refusals: Refusals,
    numbers: Arc<AtomicU64>,
}

impl Streams {
    pub(crate) fn new(seat: watch::Receiver<Seat>, refusals: Refusals) -> Self {
        Self { seat, refusals, numbers: Arc::default() }
    }

    fn desk(&self) -> Result<Desk, Status> {
        self.seat.borrow().desk()
    }

    fn number(&self) -> u64 {
        self.numbers.fetch_add(1, Ordering::Relaxed)
    }

    async fn ticket(
        &self,
        event: impl FnOnce(TicketReply) -> ReplayEvent,
    ) -> Result<Response<v1::ReplayTicket>, Status> {
        let desk = self.desk()?;
        let (reply, ticket) = oneshot::channel();
        desk.tell(Event::Replay(event(reply))).await?;
        ticket.await.map_err(|_| stopping())?.map(Response::new)
    }
}

impl Desk {
    fn link<T>(&self) -> (Link<T>, Response<Directives<T>>, CancellationToken) {
        let shards = usize::try_from(self.shards).unwrap_or(usize::MAX);
        let (directives, outgoing) = mpsc::channel(shards.saturating_mul(2).saturating_add(WAITING));
        let reading = CancellationToken::new();
        let link = Link { directives, _reading: reading.clone().drop_guard() };
        (link, Response::new(ReceiverStream::new(outgoing)), reading)
    }

    async fn tell(&self, event: Event) -> Result<(), Status> {
        self.events.send(event).await.map_err(|_| stopping())
    }
}

#[tonic::async_trait]
impl v1::coordinator_server::Coordinator for Streams {
    type IngestStream = Directives<v1::IngestDirective>;
    type WorkerStream = Directives<v1::WorkerDirective>;

    async fn ingest(
        &self,
        request: Request<Streaming<v1::IngestReport>>,
    ) -> Result<Response<Self::IngestStream>, Status> {
        let desk = self.desk()?;
        let peer = Peer { address: request.remote_addr(), refusals: self.refusals.clone() };
        let mut incoming = request.into_inner();
        let Some(FromIngest::Hello(hello)) = peer.first(&mut incoming).await?.message else {
            return Err(no_hello());
        };
        same_fingerprint(desk.fingerprint, hello.fingerprint)?;
        let reader = ReaderId(self.number());
        let (link, response, reading) = desk.link();
        desk.tell(Event::Ingest(reader, IngestEvent::Hello { ingest: hello.ingest, link })).await?;
        let event = move |event| Event::Ingest(reader, event);
        let read = read(incoming, peer, desk.events.clone(), reading, ingest_event, event, IngestEvent::Gone);
        task::spawn("ingest-stream", read);
        Ok(response)
    }

    async fn worker(
        &self,
        request: Request<Streaming<v1::WorkerReport>>,
    ) -> Result<Response<Self::WorkerStream>, Status> {
        let desk = self.desk()?;
        let peer = Peer { address: request.remote_addr(), refusals: self.refusals.clone() };
        let mut incoming = request.into_inner();
        let Some(FromWorker::Hello(hello)) = peer.first(&mut incoming).await?.message else {
            return Err(no_hello());
        };
        same_fingerprint(desk.fingerprint, hello.fingerprint)?;
        if hello.name.is_empty() || hello.address.is_empty() {
            return Err(Status::invalid_argument(
                "a worker needs a name (--name) and an address (--advertise)",
            ));
        }
        let (worker, stream) = (WorkerId(hello.name.clone()), StreamId(self.number()));
        let (link, response, reading) = desk.link();
        let hello = worker_hello(hello, stream, link)?;
        desk.tell(Event::Worker(worker.clone(), stream, hello)).await?;
        let event = move |event| Event::Worker(worker.clone(), stream, event);
        let read = read(incoming, peer, desk.events.clone(), reading, worker_event, event, WorkerEvent::Gone);
        task::spawn("worker-stream", read);
        Ok(response)
    }

    async fn status(&self, _: Request<v1::StatusRequest>) -> Result<Response<v1::JobStatus>, Status> {
        let desk = self.desk()?;
        let (reply, status) = oneshot::channel();
        desk.tell(Event::Status(reply)).await?;
        status.await.map(Response::new).map_err(|_| stopping())
    }

    async fn replay(
        &self,
        request: Request<v1::ReplayRequest>,
    ) -> Result<Response<v1::ReplayTicket>, Status> {
        let v1::ReplayRequest { job, token, filter, dry_run } = request.into_inner();
        let filter = filter.unwrap_or_default().try_into()?;
        let request = replays::Request { token, automatic: false, dry_run, filter };
        self.ticket(|reply| ReplayEvent::Asked { job, request, reply }).await
    }

    async fn cancel_replay(
        &self,
        request: Request<v1::CancelReplayRequest>,
    ) -> Result<Response<v1::ReplayTicket>, Status> {
        let v1::CancelReplayRequest { job, number } = request.into_inner();
        self.ticket(|reply| ReplayEvent::Cancelled { job, number, reply }).await
    }
}

/// Whose stream it is, for the log.
struct Peer {
    address: Option<SocketAddr>,
    refusals: Refusals,
}

impl Peer {
    async fn first<T>(&self, incoming: &mut Streaming<T>) -> Result<T, Status> {
        self.refusals.first(self.address, incoming).await?.ok_or_else(no_hello)
    }
}

fn no_hello() -> Status {
    Status::invalid_argument("the first message has to be a hello")
}

fn stopping() -> Status {
    Status::unavailable("the coordinator has stopped leading")
}

/// Reads a stream to its end, and tells the owner of it in any case.
async fn read<M, E>(
    mut incoming: Streaming<M>,
    peer: Peer,
    events: mpsc::Sender<Event>,
    reading: CancellationToken,
    convert: fn(M) -> Result<E, WireError>,
    event: impl Fn(E) -> Event,
    gone: fn(Option<Status>) -> E,
) {
    let end = loop {
        let message = tokio::select! {
            // The owner has dropped the link: it knows.
            () = reading.cancelled() => return,
            message = incoming.message() => message,
        };
        let converted = match message {
            Ok(Some(message)) => convert(message),
            Ok(None) => break None,
            Err(status) => {
                peer.refusals.refuse_message(peer.address, &status);
                tracing::debug!(error = %status, "a stream broke");
                break None;
            }
        };
        match converted {
            Ok(converted) => {
                if events.send(event(converted)).await.is_err() {
                    return;
                }
            }
            Err(error) => break Some(error.into()),
        }
    };
    let _ = events.send(event(gone(end))).await;
}

fn ingest_event(report: v1::IngestReport) -> Result<IngestEvent, WireError> {
    match report.message.ok_or(WireError::Missing("message"))? {
        FromIngest::Hello(_) => Err(WireError::Inconsistent("hello")),
        FromIngest::Reports(reports) => Ok(IngestEvent::Reports {
            reports: reports.reports.into_iter().map(TryInto::try_into).collect::<Result<_, _>>()?,
            clock: EventTime(reports.clock_ms),
        }),
        FromIngest::Stats(stats) => Ok(IngestEvent::Stats(stats)),
        FromIngest::Replay(v1::ReplayProgress { number, tally, read, done }) => {
            let tally = tally.unwrap_or_default().into();
            Ok(IngestEvent::Replay(replays::Progress { number, tally, read, done }))
        }
    }
}

fn worker_event(report: v1::WorkerReport) -> Result<WorkerEvent, WireError> {
    let left = |left: v1::ShardLeft| {
        let assignment = left.assignment.ok_or(WireError::Missing("assignment"))?.into();
        Ok::<_, WireError>((Shard(left.shard), assignment))
    };
    match report.message.ok_or(WireError::Missing("message"))? {
        FromWorker::Hello(_) => Err(WireError::Inconsistent("hello")),
        FromWorker::Ready(ready) => {
            owned_shard(&ready.shard.ok_or(WireError::Missing("shard"))?).map(WorkerEvent::Ready)
        }
        FromWorker::Released(released) => {
            left(released).map(|(shard, assignment)| WorkerEvent::Released(shard, assignment))
        }
        FromWorker::Fenced(fenced) => {
            left(fenced).map(|(shard, assignment)| WorkerEvent::Fenced(shard, assignment))
        }
        FromWorker::Draining(v1::Draining {}) => Ok(WorkerEvent::Draining),
        FromWorker::Stats(stats) => Ok(WorkerEvent::Stats(stats)),
    }
}

fn worker_hello(
    hello: v1::WorkerHello,
    stream: StreamId,
    link: Link<v1::WorkerDirective>,
) -> Result<WorkerEvent, WireError> {
    let owned: Vec<OwnedShard> = hello.owned.iter().map(owned_shard).collect::<Result<_, _>>()?;
    let (claims, committed) = claims(&owned);
    Ok(WorkerEvent::Hello {
        registration: Registration {
            worker: WorkerId(hello.name),
            stream,
            address: hello.address,
            incarnation: hello.incarnation,
            claims,
        },
        committed,
        announced: hello.last_announcement.map(Into::into),
        link,
    })
}

fn owned_shard(wire: &v1::OwnedShard) -> Result<OwnedShard, WireError> {
    Ok(OwnedShard {
        shard: Shard(wire.shard),
        assignment: wire.assignment.ok_or(WireError::Missing("assignment"))?.into(),
        watermark: wire.watermark_ms.map(EventTime),
    })
}
