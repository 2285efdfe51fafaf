//! The stream to the coordinator that leads, opened again for ever: this worker says what it owns and hears what it is to own.
//!
//! While there is no coordinator the shards go on with what their ingests send; only watermarks stand still. What the roster
//! reports meanwhile is not kept: the next hello says what is owned then.

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    announcement::{Announcement, AssignmentId},
    time::Shard,
};
use tidegate_proto::{
    WireError, convert,
    v1::{self, coordinator_client::CoordinatorClient, worker_directive::Message, worker_report},
};
use tidegate_runtime::{grpc::Peer, rounds::Rounds};
use tokio::{
    sync::{mpsc, watch},
    time::{MissedTickBehavior, interval, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming, transport::Channel};

use crate::{
    error::Error,
    ground::KnownJob,
    roster::{Directive, Routes, owned},
    stats::Stats,
};

/// Reports that may wait for the stream.
const WAITING: usize = 256;
/// How often the totals are told.
const STATS_INTERVAL: Duration = Duration::from_secs(1);
/// How long a coordinator may take to its welcome; one that is halted is left for the next.
const WELCOME: Duration = Duration::from_secs(3);
/// How long the coordinator may take to hear the last reports.
const FAREWELL: Duration = Duration::from_secs(1);

/// The link to the coordinator.
pub(crate) struct Registration {
    pub(crate) coordinators: Rounds<Peer>,
    /// What each hello begins with: fingerprint, name, address, incarnation.
    pub(crate) hello: v1::WorkerHello,
    pub(crate) stats: Arc<Stats>,
    pub(crate) routes: watch::Receiver<Routes>,
    pub(crate) reports: mpsc::Receiver<v1::WorkerReport>,
    pub(crate) directives: mpsc::Sender<Directive>,
    pub(crate) announcements: watch::Sender<Option<Announcement>>,
    pub(crate) known: watch::Sender<Option<KnownJob>>,
}

/// Why a stream ended.
enum Ended {
    /// The roster has ended: so does the process.
    Finished,
    Lost(Status),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Lost(status)
    }
}

impl From<WireError> for Ended {
    fn from(error: WireError) -> Self {
        Self::Lost(error.into())
    }
}

type Reports = mpsc::Sender<v1::WorkerReport>;

impl Registration {
    /// Keeps a stream open until the roster has ended.
    ///
    /// # Errors
    /// When the coordinator refuses this worker for good.
    pub(crate) async fn run(mut self) -> Result<(), Error> {
        loop {
            match self.serve().await {
                Ok(Ended::Finished) | Err(Ended::Finished) => return Ok(()),
                Ok(Ended::Lost(status)) | Err(Ended::Lost(status)) => match status.code() {
                    Code::FailedPrecondition => {
                        return Err(Error::Refused { reason: status.message().to_owned() });
                    }
                    Code::Aborted => return Err(Error::JobChanged),
                    _ => {
                        tracing::warn!(error = %status.message(), "no stream to the coordinator, trying again")
                    }
                },
            }
            let delay = self.coordinators.failed();
            if discarding(&mut self.reports, sleep(delay)).await.is_none() {
                return Ok(());
            }
        }
    }

    async fn serve(&mut self) -> Result<Ended, Ended> {
        let Some(peer) = self.coordinators.current() else {
            return Err(Status::unavailable("there is no address of a coordinator").into());
        };
        let Some(connected) = discarding(&mut self.reports, peer.connect()).await else {
            return Ok(Ended::Finished);
        };
        let channel = connected?;
        let (out, mut directives) = tokio::select! {
            greeted = timeout(WELCOME, self.greeted(channel)) => greeted
                .map_err(|_| Status::unavailable(format!("no welcome in time: {}", peer.uri())))??,
            () = self.roster_is_gone() => return Ok(Ended::Finished),
        };
        self.coordinators.succeeded();

        let mut stats = interval(STATS_INTERVAL);
        stats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                directive = directives.message() => match directive? {
                    Some(directive) => self.directed(directive).await?,
                    None => return Err(Status::unavailable("the coordinator closed the stream").into()),
                },
                report = self.reports.recv() => match report {
                    Some(report) => say(&out, report)?,
                    None => {
                        farewell(out, directives).await;
                        return Ok(Ended::Finished);
                    }
                },
                _ = stats.tick() => {
                    let stats = self.stats.to_wire(self.owned());
                    say(&out, v1::WorkerReport { message: Some(worker_report::Message::Stats(stats)) })?;
                }
            }
        }
    }

    /// The stream, once the coordinator has taken this worker.
    async fn greeted(&self, channel: Channel) -> Result<(Reports, Streaming<v1::WorkerDirective>), Ended> {
        let (out, outgoing) = mpsc::channel(WAITING);
        let hello = worker_report::Message::Hello(self.hello());
        let _ = out.send(v1::WorkerReport { message: Some(hello) }).await;
        let mut client =
            CoordinatorClient::new(channel).max_decoding_message_size(tidegate_proto::MAX_MESSAGE_BYTES);
        let mut directives = client.worker(ReceiverStream::new(outgoing)).await?.into_inner();
        self.welcomed(&mut directives).await?;
        Ok((out, directives))
    }

    /// Ready a little after the roster has ended: a coordinator that answers hears of it, others do not hold up the stop.
    async fn roster_is_gone(&self) {
        let mut routes = self.routes.clone();
        while routes.changed().await.is_ok() {}
        sleep(FAREWELL).await;
    }

    fn hello(&self) -> v1::WorkerHello {
        let last_announcement = self.announcements.borrow().as_ref().map(v1::Announcement::from);
        v1::WorkerHello { owned: self.owned(), last_announcement, ..self.hello.clone() }
    }

    fn owned(&self) -> Vec<v1::OwnedShard> {
        let routes = Arc::clone(&self.routes.borrow());
        routes.iter().map(|(shard, route)| owned(&self.stats, *shard, route.assignment)).collect()
    }

    async fn welcomed(&self, directives: &mut Streaming<v1::WorkerDirective>) -> Result<(), Ended> {
        let first = directives.message().await?.and_then(|directive| directive.message);
        let Some(Message::Welcome(welcome)) = first else {
            return Err(Status::unavailable("the stream ended before its welcome").into());
        };
        let generations = welcome.generations.iter().map(|count| *count as usize).collect();
        let said = KnownJob { job_id: convert::job_id(&welcome.job)?, generations };
        let known = self.known.send_replace(Some(said.clone()));
        if known.is_some_and(|known| known != said) {
            return Err(Status::aborted("another job record").into());
        }
        tracing::info!(term = welcome.term, "the coordinator takes this worker");
        Ok(())
    }

    async fn directed(&self, directive: v1::WorkerDirective) -> Result<(), Ended> {
        let directive = match directive.message {
            Some(Message::Announcement(announcement)) => {
                self.announce(announcement.into());
                return Ok(());
            }
            Some(Message::Assign(v1::Assign { shard, assignment })) => {
                Directive::Assign(Shard(shard), assignment_of(assignment)?)
            }
            Some(Message::Release(v1::Release { shard, assignment })) => {
                Directive::Release(Shard(shard), assignment_of(assignment)?)
            }
            Some(Message::Welcome(_)) | None => return Ok(()),
        };
        tracing::debug!(?directive, "the coordinator assigns");
        // The roster takes nothing more once it leaves its shards.
        let _ = self.directives.send(directive).await;
        Ok(())
    }

    /// Actors see the newest only.
    fn announce(&self, announcement: Announcement) {
        self.announcements.send_if_modified(|known| {
            let newer = known.as_ref().is_none_or(|known| announcement.newer_than(known));
            if newer {
                *known = Some(announcement);
            }
            newer
        });
    }
}

/// Waits for `until`, while reports go nowhere; `None` once the roster has ended.
async fn discarding<T>(
    reports: &mut mpsc::Receiver<v1::WorkerReport>,
    until: impl Future<Output = T>,
) -> Option<T> {
    tokio::pin!(until);
    loop {
        tokio::select! {
            done = &mut until => return Some(done),
            report = reports.recv() => drop(report?),
        }
    }
}

fn say(out: &Reports, report: v1::WorkerReport) -> Result<(), Status> {
    out.try_send(report).map_err(|_| Status::unavailable("the coordinator does not keep up with this worker"))
}

/// Says nothing more, and waits until the coordinator has heard the rest.
async fn farewell(out: Reports, mut directives: Streaming<v1::WorkerDirective>) {
    drop(out);
    let heard = async { while let Ok(Some(_)) = directives.message().await {} };
    if timeout(FAREWELL, heard).await.is_err() {
        tracing::debug!("the coordinator has not closed the stream in time");
    }
}

fn assignment_of(wire: Option<v1::AssignmentId>) -> Result<AssignmentId, WireError> {
    wire.map(AssignmentId::from).ok_or(WireError::Missing("assignment"))
}
