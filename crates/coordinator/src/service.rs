//! The service: a gRPC server, open from the start, and the candidate behind it.
//!
//! ```text
//! ingests, workers ══ gRPC ══► streams ──events──► owner ──directives──► streams
//!                                watch ──events──►  │ ▲
//!                                                   └─┴── fences (init_transactions)
//! ```
//!
//! While this process does not lead there are no owner and no watch, and streams are refused.

use std::time::Duration;

use tidegate_kafka::Admin;
use tidegate_proto::v1::coordinator_server::CoordinatorServer;
use tidegate_runtime::grpc::{self, Incoming, Limits, Refusals};
use tidegate_runtime::metrics::Readiness;
use tidegate_runtime::task::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::candidate::Candidate;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::metrics::Metrics;
use crate::seat::{Seat, Sign};
use crate::streams::Streams;

/// A peer that does not answer for about twice this is gone.
const KEEP_ALIVE: Duration = Duration::from_millis(2500);
/// How long streams may take to end after the owner has let go of them.
const LEAVE: Duration = Duration::from_secs(1);

/// What the service reports on itself into.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Ready while it leads, and while it is ready to take over.
    pub readiness: Readiness,
    pub(crate) metrics: Metrics,
    pub(crate) refusals: Refusals,
}

impl Gauges {
    /// Puts the metrics into `registry`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.metrics.register(registry);
        self.refusals.register(registry);
    }
}

/// Runs the coordinator until `shutdown`.
///
/// # Errors
///
/// What is wrong with job, topics or address. A cluster that does not answer is waited for, and so is another coordinator
/// that leads.
pub async fn run(config: Config, gauges: Gauges, shutdown: Shutdown) -> Result<()> {
    let address = config.listen;
    // First of all: whoever finds its address taken must not stand for election.
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    serve(config, listener, gauges, shutdown).await
}

/// As [`run`], on a listener of the caller's.
///
/// # Errors
///
/// As [`run`].
pub async fn serve(config: Config, listener: TcpListener, gauges: Gauges, shutdown: Shutdown) -> Result<()> {
    let tls = config.tls.clone();
    let (seat, seen) = watch::channel(Seat::Empty("the coordinator is starting".into()));
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_not_serving::<CoordinatorServer<Streams>>().await;
    let Gauges { readiness, metrics, refusals } = gauges;
    let sign = Sign { job: config.job.name.clone(), seat, health, readiness, metrics };
    let candidate = Candidate { admin: Admin::open(&config.kafka)?, config, sign };
    let address = listener.local_addr().ok().map(tracing::field::display);
    tracing::info!(address, tls = tls.is_some(), "serving");
    let stop = CancellationToken::new();
    let streams = Streams::new(seen, refusals.clone());
    let incoming = Incoming::new(listener, tls, refusals, Limits::default());
    let server = server(streams, health_service, incoming, stop.clone());
    let mut server = std::pin::pin!(server);
    let ended = tokio::select! {
        ended = candidate.run(shutdown) => ended,
        ended = &mut server => ended,
    };
    stop.cancel();
    // The owner is gone and all links with it: streams end by themselves.
    if ended.is_ok() && tokio::time::timeout(LEAVE, server).await.is_err() {
        tracing::debug!("streams did not end in time");
    }
    ended
}

async fn server(
    streams: Streams,
    health: HealthServer<impl Health>,
    incoming: Incoming,
    stop: CancellationToken,
) -> Result<()> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tidegate_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let coordinator =
        CoordinatorServer::new(streams).max_decoding_message_size(tidegate_proto::MAX_MESSAGE_BYTES);
    grpc::server(KEEP_ALIVE)
        .add_service(health)
        .add_service(reflection)
        .add_service(coordinator)
        .serve_with_incoming_shutdown(incoming, stop.cancelled_owned())
        .await?;
    Ok(())
}
