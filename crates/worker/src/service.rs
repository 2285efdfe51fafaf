//! Wires the service: configuration, the link to the coordinator, the server for ingests, the shards.
//!
//! The shards start once the coordinator has said which job record they are of. The process ends when all of them are left:
//! the roster first, and with its channels the server and the link.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context;
use prometheus_client::registry::Registry;
use tidegate_job::{Job, JobFile};
use tidegate_kafka::KafkaConfig;
use tidegate_proto::v1;
use tidegate_runtime::{
    clock::Clock,
    grpc::{Incoming, Limits, Peer, Refusals},
    metrics::{self, Readiness},
    rounds::Rounds,
    task::{self, Outcome, Shutdown, Tasks},
    tls::Tls,
};
use tidegate_store::Stores;
use tokio::{
    net::TcpListener,
    sync::{mpsc, watch},
    task::spawn_blocking,
};

use crate::{
    config::Config,
    error::Error,
    feed::{self, FeedService, Streams},
    ground::{Ground, KnownJob, Parts},
    registration::Registration,
    roster::{Roster, Routes, Wires},
    stats::Stats,
};

/// Directives and reports that may wait: some for each shard.
const WAITING: usize = 1024;

/// Runs the worker until a signal or a failure.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config) -> anyhow::Result<Outcome> {
    let path = &config.common.job;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the job file {}", path.display()))?;
    let job = JobFile::parse(&text, &path.display().to_string())?;
    let tasks = Tasks::new();
    let mut registry = metrics::registry(&job.name);
    let readiness = Readiness::new();
    let endpoint = metrics::Endpoint::bind(config.common.metrics).await?;
    tracing::info!(address = %endpoint.address(), "serving metrics");
    let settings = Settings {
        state: config.state_directory(&job.name),
        kafka: config.access.config(&config.common.kafka, format!("tidegate-{}", config.name))?,
        tls: config.common.tls.load()?,
        coordinators: config.peers.coordinator,
        listen: config.listen,
        advertise: config.advertise,
        name: config.name,
        job,
    };
    start(settings, &mut registry, readiness.clone(), &tasks).await?;
    task::spawn("metrics", endpoint.serve(registry, readiness, tasks.shutdown().clone()));
    let outcome = tasks.run_until_shutdown(config.common.drain).await?;
    tracing::info!(?outcome, "window-worker ends");
    Ok(outcome)
}

/// What a worker is started from.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The job.
    pub job: Job,
    /// The log.
    pub kafka: KafkaConfig,
    /// Mutual TLS with coordinators and ingests; without it, plain text.
    pub tls: Option<Tls>,
    /// Addresses of the coordinators.
    pub coordinators: Vec<String>,
    /// Where to serve ingests.
    pub listen: SocketAddr,
    /// Where ingests reach it; without it, where it listens.
    pub advertise: Option<String>,
    /// Name of the worker, the same over restarts.
    pub name: String,
    /// Directory of the local stores.
    pub state: PathBuf,
}

/// Starts the tasks of a worker; they end, with every shard left, when the group's shutdown is requested.
///
/// # Errors
/// When an address is none, or taken.
pub async fn start(
    settings: Settings,
    registry: &mut Registry,
    readiness: Readiness,
    tasks: &Tasks,
) -> Result<(), Error> {
    let Settings { job, kafka, tls, coordinators, listen, advertise, name, state } = settings;
    let refusals = Refusals::default();
    refusals.register(registry);
    let stats = Arc::new(Stats::new(registry, job.state.memory));
    let job = Arc::new(job);
    let failed = |source| Error::Listen { address: listen, source };
    let listener = TcpListener::bind(listen).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;

    let (directives, incoming) = mpsc::channel(WAITING);
    let (reports, outgoing) = mpsc::channel(WAITING);
    let (routes, routes_known) = watch::channel(Routes::default());
    let (announce, announcements) = watch::channel(None);
    let (known, known_job) = watch::channel(None);
    let registration = Registration {
        coordinators: Rounds::new(
            coordinators
                .iter()
                .map(|address| coordinator_at(address, tls.clone()))
                .collect::<Result<_, _>>()?,
        ),
        hello: v1::WorkerHello {
            fingerprint: job.fingerprint(),
            name: name.clone(),
            address: advertise.unwrap_or_else(|| address.to_string()),
            incarnation: rand::random(),
            ..v1::WorkerHello::default()
        },
        stats: Arc::clone(&stats),
        routes: routes_known.clone(),
        reports: outgoing,
        directives,
        announcements: announce,
        known,
    };
    tasks.spawn("coordinator-link", registration.run());
    let feeds = FeedService {
        name,
        job: Arc::clone(&job),
        known: known_job.clone(),
        routes: routes_known,
        streams: Streams::default(),
        refusals: refusals.clone(),
    };
    tracing::info!(%address, tls = tls.is_some(), "serving ingests");
    let incoming_feeds = Incoming::new(listener, tls, refusals, Limits::default());
    tasks.spawn("feeds", feed::serve(incoming_feeds, feeds));
    let wires = Wires { directives: incoming, reports, routes, announcements };
    let shards = Shards { job, known: known_job, state, kafka, stats, readiness, wires };
    tasks.spawn("shards", shards.run(tasks.shutdown().clone()));
    Ok(())
}

fn coordinator_at(address: &str, tls: Option<Tls>) -> Result<Peer, Error> {
    Peer::new(address, tls)
        .map_err(|error| Error::Coordinator { address: address.to_owned(), reason: error.to_string() })
}

/// What the shards are started from.
struct Shards {
    job: Arc<Job>,
    known: watch::Receiver<Option<KnownJob>>,
    state: PathBuf,
    kafka: KafkaConfig,
    stats: Arc<Stats>,
    readiness: Readiness,
    wires: Wires,
}

impl Shards {
    async fn run(self, shutdown: Shutdown) -> Result<(), Error> {
        let mut said = self.known;
        let known = tokio::select! {
            known = known(&mut said) => known,
            () = shutdown.requested() => return Ok(()),
        };
        let ground = tokio::select! {
            ground = lay_ground(self.job, known, self.state, self.kafka, self.stats) => ground?,
            () = shutdown.requested() => return Ok(()),
        };
        Roster::new(ground, self.wires, self.readiness).run(shutdown).await;
        Ok(())
    }
}

/// The coordinator's word on the job record. Never comes when the link to it has failed: that ends the process, and says why.
async fn known(said: &mut watch::Receiver<Option<KnownJob>>) -> KnownJob {
    match said.wait_for(Option::is_some).await.map(|known| known.clone()) {
        Ok(Some(known)) => known,
        Ok(None) | Err(_) => std::future::pending().await,
    }
}

/// Looks at topics and stores.
async fn lay_ground(
    job: Arc<Job>,
    known: KnownJob,
    state: PathBuf,
    kafka: KafkaConfig,
    stats: Arc<Stats>,
) -> Result<Ground, Error> {
    let job_id = known.job_id;
    let stores = spawn_blocking(move || Stores::open(&state, job_id.0)).await;
    let stores = stores.map_err(|error| Error::Task(error.to_string()))??;
    Ground::lay(Parts { job, known, clock: Clock::start(), kafka, stores, stats }).await
}
