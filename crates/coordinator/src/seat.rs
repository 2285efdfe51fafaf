//! Whether this process leads, as its gRPC server sees it.

use std::sync::Arc;

use tidegate_runtime::metrics::Readiness;
use tokio::sync::{mpsc, watch};
use tonic::Status;
use tonic_health::server::HealthReporter;

use tidegate_proto::v1::coordinator_server::CoordinatorServer;

use crate::event::Event;
use crate::metrics::Metrics;
use crate::streams::Streams;

/// Where streams of the one that leads go.
#[derive(Clone, Debug)]
pub(crate) struct Desk {
    pub(crate) fingerprint: u64,
    pub(crate) shards: u32,
    pub(crate) events: mpsc::Sender<Event>,
}

/// Whether this process leads.
#[derive(Clone, Debug)]
pub(crate) enum Seat {
    /// It does not: what it tells those who ask.
    Empty(Arc<str>),
    /// It does.
    Taken(Desk),
}

impl Seat {
    /// The desk.
    ///
    /// # Errors
    ///
    /// `UNAVAILABLE` while this process does not lead, so that peers try the next address.
    pub(crate) fn desk(&self) -> Result<Desk, Status> {
        match self {
            Self::Taken(desk) => Ok(desk.clone()),
            Self::Empty(why) => Err(Status::unavailable(why.as_ref())),
        }
    }
}

/// Tells all who want to know whether this process leads.
pub(crate) struct Sign {
    pub(crate) job: String,
    pub(crate) seat: watch::Sender<Seat>,
    pub(crate) health: HealthReporter,
    pub(crate) readiness: Readiness,
    pub(crate) metrics: Metrics,
}

impl Sign {
    /// It cannot take part in the election yet, or is leaving.
    pub(crate) async fn away(&self, why: &str) {
        self.readiness.not_ready(why);
        self.empty(format!("this coordinator of job `{}` is not ready: {why}", self.job)).await;
    }

    /// It is ready to take over.
    pub(crate) async fn standby(&self) {
        self.readiness.ready();
        let job = &self.job;
        self.empty(format!("this coordinator of job `{job}` is on standby; another leads, or is about to"))
            .await;
    }

    /// It leads.
    pub(crate) async fn leads(&self, desk: Desk) {
        self.metrics.leading.set(1);
        self.seat.send_replace(Seat::Taken(desk));
        self.health.set_serving::<CoordinatorServer<Streams>>().await;
        self.readiness.ready();
    }

    async fn empty(&self, why: String) {
        self.metrics.not_leading();
        self.seat.send_replace(Seat::Empty(why.into()));
        self.health.set_not_serving::<CoordinatorServer<Streams>>().await;
    }
}
