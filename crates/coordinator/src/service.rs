//! The service: leads the job, then serves it until the process ends or another coordinator leads.
//!
//! ```text
//! ingests, workers ══ gRPC ══► streams ──events──► owner ──directives──► streams
//!                                watch ──events──►  │ ▲
//!                                                   └─┴── fences (init_transactions)
//! ```

use std::time::Duration;

use tidegate_kafka::Admin;
use tidegate_proto::v1::coordinator_server::CoordinatorServer;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::clock::Clock;
use tidegate_runtime::metrics::Readiness;
use tidegate_runtime::task::Shutdown;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::fence::Fences;
use crate::leader::{Reign, lead};
use crate::metrics::Metrics;
use crate::owner::{Owner, Parts};
use crate::streams::Streams;
use crate::watch::Watch;

/// Events that may wait for the owner.
const WAITING: usize = 4096;
/// How long to wait for an answer of the cluster before it is called out of reach.
const REACH: Duration = Duration::from_secs(3);
/// A dead peer is seen after these two together.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(3));
/// How long streams may take to end after the owner has let go of them.
const LEAVE: Duration = Duration::from_secs(1);

/// What the service reports on itself into.
#[derive(Clone, Debug, Default)]
pub struct Gauges {
    /// Ready while it leads and serves.
    pub readiness: Readiness,
    pub(crate) metrics: Metrics,
}

impl Gauges {
    /// Puts the metrics into `registry`.
    pub fn register(&self, registry: &mut prometheus_client::registry::Registry) {
        self.metrics.register(registry);
    }
}

/// Runs the coordinator until `shutdown`.
///
/// # Errors
///
/// What is wrong with job, topics or address, or that another coordinator leads. A cluster that does not answer is waited
/// for.
pub async fn run(config: Config, gauges: Gauges, shutdown: Shutdown) -> Result<()> {
    let address = config.listen;
    // First of all: whoever finds its address taken must not depose the coordinator that runs there.
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    serve(config, listener, gauges, shutdown).await
}

/// As [`run`], on a listener of the caller's.
///
/// # Errors
///
/// As [`run`].
pub async fn serve(config: Config, listener: TcpListener, gauges: Gauges, shutdown: Shutdown) -> Result<()> {
    let admin = Admin::open(&config.kafka)?;
    let reign = tokio::select! {
        () = shutdown.requested() => return Ok(()),
        reign = lead_when_reachable(&config, &admin, &gauges.readiness) => reign?,
    };
    let metrics = gauges.metrics;
    let (sender, events) = mpsc::channel(WAITING);
    let watch = Watch {
        admin,
        kafka: config.kafka.clone(),
        job: config.job.clone(),
        record: reign.record.clone(),
        term: reign.term,
        events: sender.clone(),
        metrics: metrics.clone(),
    };
    let streams = Streams::new(reign.record.fingerprint, reign.record.shards, sender.clone());
    let owner = Owner::new(Parts {
        name: config.job.name.clone(),
        watermarks: config.watermarks(),
        assignment: config.assignment(),
        fences: Fences::new(config.kafka.clone(), &config.job, metrics.clone()),
        clock: Clock::start(),
        metrics,
        sender,
        events,
        reign,
    });
    tracing::info!(address = ?listener.local_addr().ok(), "serving");
    gauges.readiness.ready();
    let stop = CancellationToken::new();
    let server = server(streams, listener, stop.clone());
    let mut server = std::pin::pin!(server);
    let ended = tokio::select! {
        ended = owner.run(shutdown) => ended,
        ended = &mut server => ended,
        error = watch.run() => Err(error),
    };
    gauges.readiness.not_ready("stopping");
    stop.cancel();
    // The owner is gone and all links with it: streams end by themselves.
    if ended.is_ok() && tokio::time::timeout(LEAVE, server).await.is_err() {
        tracing::debug!("streams did not end in time");
    }
    ended
}

/// Tries to lead for as long as the cluster is the reason why not: services start in any order.
async fn lead_when_reachable(config: &Config, admin: &Admin, readiness: &Readiness) -> Result<Reign> {
    let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
    loop {
        let led = match admin.reachable(REACH).await {
            Ok(()) => lead(admin, &config.kafka, &config.job, config.durability).await,
            Err(error) => Err(error.into()),
        };
        match led {
            Err(error) if error.is_retriable() => {
                let brokers = &config.kafka.brokers;
                tracing::warn!(brokers, %error, "cannot lead the job yet; trying again");
                readiness.not_ready(error.to_string());
                tokio::time::sleep(backoff.next_delay()).await;
            }
            led => return led,
        }
    }
}

async fn server(streams: Streams, listener: TcpListener, stop: CancellationToken) -> Result<()> {
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<CoordinatorServer<Streams>>().await;
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(tidegate_proto::DESCRIPTORS)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()?;
    let coordinator =
        CoordinatorServer::new(streams).max_decoding_message_size(tidegate_proto::MAX_MESSAGE_BYTES);
    let (interval, timeout) = KEEPALIVE;
    Server::builder()
        .http2_keepalive_interval(Some(interval))
        .http2_keepalive_timeout(Some(timeout))
        .add_service(health_service)
        .add_service(reflection)
        .add_service(coordinator)
        .serve_with_incoming_shutdown(
            TcpIncoming::from(listener).with_nodelay(Some(true)),
            stop.cancelled_owned(),
        )
        .await?;
    Ok(())
}
