//! The server side of `Worker.Feed`: one stream from each ingest, split to the shards.
//!
//! ```text
//! ingest ── Hello, Ask, Open, Frames ──► reader ── by shard, each frame with its permit ──► actors
//!        ◄── Welcome, Wants, Credit, Committed ── pump ◄── Replies ◄── actors
//! ```
//! A shard belongs to the session of its partition that was opened last: what an older session covers from then on is without
//! this shard's records.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tidegate_core::{
    source::Opening,
    time::{Partition, Shard},
};
use tidegate_job::Job;
use tidegate_proto::{
    MAX_MESSAGE_BYTES, frame, replay as proto_replay, same_fingerprint, same_job,
    v1::{
        self,
        feed_request::Message,
        worker_server::{Worker, WorkerServer},
    },
};
use tidegate_runtime::{
    grpc::{self, Incoming, Refusals},
    task,
};
use tokio::{
    sync::{mpsc, watch},
    time::sleep,
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::{
    actor::{Asker, Fed, ToShard},
    error::Error,
    ground::KnownJob,
    inspect::inspect,
    replay::replay,
    replies::{Permit, Replies},
    roster::Routes,
};

/// Answers are coalesced this long: well below any interval that matters, and a few hundred messages a second at most.
const COALESCE: Duration = Duration::from_millis(4);
/// A peer that does not answer for this long is gone.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Large HTTP/2 frames halve the CPU of large messages.
const HTTP2_FRAME: u32 = 65_536;

/// What all streams share.
#[derive(Clone)]
pub(crate) struct FeedService {
    pub(crate) name: String,
    pub(crate) job: Arc<Job>,
    /// Known once the coordinator has welcomed this worker.
    pub(crate) known: watch::Receiver<Option<KnownJob>>,
    pub(crate) routes: watch::Receiver<Routes>,
    pub(crate) streams: Streams,
    pub(crate) refusals: Refusals,
}

/// The newest stream of each ingest that is connected.
#[derive(Clone, Debug, Default)]
pub(crate) struct Streams(Arc<Mutex<HashMap<u64, Newest>>>);

#[derive(Debug)]
struct Newest {
    number: u64,
    replies: Weak<Replies>,
}

impl Streams {
    /// An ingest has one stream, the newest: one before it, of which this end has not heard that it broke, ends. `None` for one
    /// that comes behind a newer one.
    fn open(&self, ingest: u64, stream: u64) -> Option<Arc<Replies>> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.retain(|_, known| known.replies.strong_count() > 0);
        if streams.get(&ingest).is_some_and(|known| known.number > stream) {
            return None;
        }
        let replies = Arc::new(Replies::default());
        let newest = Newest { number: stream, replies: Arc::downgrade(&replies) };
        let before = streams.insert(ingest, newest);
        if let Some(before) = before.and_then(|before| before.replies.upgrade()) {
            before.close();
        }
        Some(replies)
    }
}

/// Serves ingests until the roster has ended.
///
/// # Errors
/// When the server fails.
pub(crate) async fn serve(incoming: Incoming, service: FeedService) -> Result<(), Error> {
    let mut routes = service.routes.clone();
    let ended = async move { while routes.changed().await.is_ok() {} };
    let failed = |error: String| Error::Server(error);
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<WorkerServer<FeedService>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tidegate_proto::DESCRIPTORS)
        .build_v1()
        .map_err(|error| failed(error.to_string()))?;
    let worker = WorkerServer::new(service)
        .max_decoding_message_size(MAX_MESSAGE_BYTES)
        .max_encoding_message_size(MAX_MESSAGE_BYTES);
    grpc::server(KEEP_ALIVE)
        .max_frame_size(HTTP2_FRAME)
        .add_service(health_service)
        .add_service(reflection)
        .add_service(worker)
        .serve_with_incoming_shutdown(incoming, ended)
        .await
        .map_err(|error| failed(error.to_string()))
}

#[tonic::async_trait]
impl Worker for FeedService {
    type FeedStream = ReceiverStream<Result<v1::FeedResponse, Status>>;

    async fn inspect(
        &self,
        request: Request<v1::InspectRequest>,
    ) -> Result<Response<v1::InspectResponse>, Status> {
        let routes = Arc::clone(&self.routes.borrow());
        inspect(&routes, &self.name, request.into_inner()).await.map(Response::new)
    }

    async fn replay(&self, request: Request<v1::ReplayFrame>) -> Result<Response<v1::ReplayAnswer>, Status> {
        let request = request.into_inner();
        self.same_job(request.fingerprint, &request.job)?;
        let (shard, frame) = proto_replay::frame_from_wire(request, self.job.core.columns.len())?;
        let routes = Arc::clone(&self.routes.borrow());
        replay(&routes, &self.name, shard, frame).await.map(Response::new)
    }

    async fn feed(
        &self,
        request: Request<Streaming<v1::FeedRequest>>,
    ) -> Result<Response<Self::FeedStream>, Status> {
        let peer = request.remote_addr();
        let mut requests = request.into_inner();
        let first = self.refusals.first(peer, &mut requests).await?;
        let hello = match first.and_then(|request| request.message) {
            Some(Message::Hello(hello)) => hello,
            _ => return Err(Status::invalid_argument("the first message of a feed is its hello")),
        };
        self.same_job(hello.fingerprint, &hello.job)?;
        let replies = self
            .streams
            .open(hello.ingest, hello.stream)
            .ok_or_else(|| Status::unavailable("this ingest has opened another stream since"))?;

        let (out, responses) = mpsc::channel(4);
        let welcome = v1::FeedWelcome { worker: self.name.clone() };
        let welcome = v1::FeedResponse { message: Some(v1::feed_response::Message::Welcome(welcome)) };
        // The channel is empty, and its other end in our hands.
        let _ = out.send(Ok(welcome)).await;
        task::spawn("feed-replies", pump(Arc::clone(&replies), out.clone()));
        let feed = Feed {
            ingest: hello.ingest,
            peer,
            refusals: self.refusals.clone(),
            columns: self.job.core.columns.len(),
            routes: self.routes.clone(),
            asker: Asker { replies, partitions: Vec::new() },
            asked: BTreeMap::new(),
            sessions: BTreeMap::new(),
        };
        task::spawn("feed", feed.run(requests, out));
        Ok(Response::new(ReceiverStream::new(responses)))
    }
}

impl FeedService {
    fn same_job(&self, fingerprint: u64, job: &[u8]) -> Result<(), Status> {
        same_fingerprint(self.job.fingerprint(), fingerprint)?;
        let ours = self.known.borrow().as_ref().map(|known| known.job_id);
        let ours =
            ours.ok_or_else(|| Status::unavailable("this worker has not reached its coordinator yet"))?;
        same_job(ours.0, job)
    }
}

async fn pump(replies: Arc<Replies>, out: mpsc::Sender<Result<v1::FeedResponse, Status>>) {
    while let Some(messages) = replies.next().await {
        for message in messages {
            if out.send(Ok(message)).await.is_err() {
                return replies.close();
            }
        }
        sleep(COALESCE).await;
    }
}

/// One stream.
struct Feed {
    ingest: u64,
    peer: Option<SocketAddr>,
    refusals: Refusals,
    columns: usize,
    routes: watch::Receiver<Routes>,
    asker: Asker,
    /// The actors that know what this ingest reads.
    asked: BTreeMap<Shard, mpsc::Sender<ToShard>>,
    sessions: BTreeMap<u64, Opening>,
}

impl Feed {
    async fn run(
        mut self,
        mut requests: Streaming<v1::FeedRequest>,
        out: mpsc::Sender<Result<v1::FeedResponse, Status>>,
    ) {
        tracing::info!(ingest = self.ingest, "an ingest feeds this worker");
        match self.read(&mut requests).await {
            Ok(()) => tracing::info!(ingest = self.ingest, "an ingest has closed its stream"),
            Err(status) => {
                self.refusals.refuse_message(self.peer, &status);
                tracing::warn!(ingest = self.ingest, error = %status.message(), "the stream of an ingest ended");
                // Where the ingest is gone it cannot hear why.
                let _ = out.try_send(Err(status));
            }
        }
        self.asker.replies.close();
    }

    async fn read(&mut self, requests: &mut Streaming<v1::FeedRequest>) -> Result<(), Status> {
        loop {
            let request = tokio::select! {
                request = requests.message() => request?,
                () = self.asker.replies.closed() => return Ok(()),
                changed = self.routes.changed() => match changed {
                    Ok(()) => {
                        self.ask().await;
                        continue;
                    }
                    Err(_) => return Err(Status::unavailable("this worker ends")),
                },
            };
            let Some(request) = request else { return Ok(()) };
            match request.message {
                Some(Message::Ask(ask)) => {
                    self.asker.partitions = ask.partitions.into_iter().map(Partition).collect();
                    self.asked.clear();
                    self.ask().await;
                }
                Some(Message::Open(open)) => self.open(open.into())?,
                Some(Message::Frames(frames)) => self.frames(frames).await?,
                Some(Message::Hello(_)) | None => {
                    return Err(Status::invalid_argument("neither a question, nor a session, nor frames"));
                }
            }
        }
    }

    /// Tells each actor that does not know it yet what this ingest reads; it answers with what it wants.
    async fn ask(&mut self) {
        if self.asker.partitions.is_empty() {
            return;
        }
        let routes = Arc::clone(&self.routes.borrow_and_update());
        self.asked
            .retain(|shard, inbox| routes.get(shard).is_some_and(|route| route.inbox.same_channel(inbox)));
        for (shard, route) in routes.iter() {
            if !self.asked.contains_key(shard) {
                // An actor that has ended leaves the routes.
                let _ = route.inbox.send(ToShard::Ask(self.asker.clone())).await;
                self.asked.insert(*shard, route.inbox.clone());
            }
        }
    }

    fn open(&mut self, opening: Opening) -> Result<(), Status> {
        let session = opening.session.0;
        if let Some(other) = self.sessions.get(&session).filter(|other| other.partition != opening.partition)
        {
            return Err(Status::invalid_argument(format!(
                "session {session} is of partition {} and opened again for partition {}",
                other.partition, opening.partition
            )));
        }
        for other in self.sessions.values_mut().filter(|other| other.partition == opening.partition) {
            other.shards.retain(|shard| !opening.shards.contains(shard));
        }
        self.sessions.retain(|_, other| !other.shards.is_empty());
        self.sessions.insert(session, opening);
        Ok(())
    }

    async fn frames(&self, frames: v1::Frames) -> Result<(), Status> {
        let mut by_shard: BTreeMap<Shard, Fed> = BTreeMap::new();
        for frame in frames.frames {
            let Some(opening) = self.sessions.get(&frame.session) else {
                return Err(Status::invalid_argument(format!(
                    "a frame of session {}, which is not open",
                    frame.session
                )));
            };
            for (shard, frame) in frame::from_wire(frame, opening, self.ingest, self.columns)? {
                let permit = Permit::new(&self.asker.replies, frame.rows.cost());
                by_shard.entry(shard).or_default().frames.push((frame, permit));
            }
        }
        for trace in frames.traces {
            if let Some(fed) = by_shard.get_mut(&Shard(trace.shard)) {
                fed.traces.push(trace);
            }
        }
        let routes = Arc::clone(&self.routes.borrow());
        for (shard, fed) in by_shard {
            // Frames for a shard that is not here are dropped, and with them their permits: the credit returns.
            if let Some(route) = routes.get(&shard) {
                let _ = route.inbox.send(ToShard::Frames(fed)).await;
            }
        }
        Ok(())
    }
}
