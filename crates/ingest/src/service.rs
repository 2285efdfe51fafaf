//! Wires the service: configuration, log, links, the reading.

use std::sync::Arc;

use anyhow::Context;
use tidegate_job::{Job, JobFile, UnknownSchema};
use tidegate_kafka::Admin;
use tidegate_proto::v1;
use tidegate_runtime::{
    clock::Clock,
    metrics::{self, Readiness},
    task::{self, Outcome, Tasks},
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    config::Config,
    coordinator_link,
    error::Error,
    event::Event,
    links::{self, Links},
    metrics::IngestMetrics,
    reading::{Parts, Readers, Reading},
    replay::{self, Replayer},
    schema_desk::SchemaDesk,
    source_watch::SourceWatch,
    traces::Traces,
};

/// Events that may wait for the reading.
const EVENTS: usize = 1024;

/// Runs ingest until a signal or a failure.
///
/// # Errors
/// When it cannot start.
pub async fn run(config: Config) -> anyhow::Result<Outcome> {
    let path = &config.common.job;
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the job file {}", path.display()))?;
    let job: Arc<Job> = Arc::new(JobFile::parse(&text, &path.display().to_string())?);
    let tls = config.common.tls.load()?;
    let (extractor, schema_registry) = tidegate_schemas::open(&job, path)?;
    let tasks = Tasks::new();
    let mut registry = metrics::registry(&job.name);
    let counters = IngestMetrics::new(&mut registry);
    let readiness = Readiness::new();
    let endpoint = metrics::Endpoint::bind(config.common.metrics).await?;
    tracing::info!(address = %endpoint.address(), "serving metrics");
    task::spawn("metrics", endpoint.serve(registry, readiness.clone(), tasks.shutdown().clone()));

    let (events, incoming) = mpsc::channel(EVENTS);
    let ingest = rand::random();
    let hello = v1::IngestHello { fingerprint: job.fingerprint(), ingest };
    let addresses = config.peers.coordinator.iter();
    let coordinators: Vec<_> = addresses
        .map(|address| links::peer("the coordinator", address, tls.clone()))
        .collect::<Result<_, _>>()?;
    task::spawn("coordinator-link", coordinator_link::run(coordinators, hello, events.clone()));

    let shutdown = tasks.shutdown().token().clone();
    let kafka = config.access.config(&config.common.kafka, "tidegate-ingest")?;
    let credit_window = config.credit_mib << 20;
    let reading = async move {
        let mut incoming = incoming;
        let Some(first) = first_welcome(&mut incoming, &shutdown).await? else { return Ok(()) };
        let recorded = match &first {
            Event::CoordinatorUp { source, .. } => *source,
            _ => None,
        };
        let watch = SourceWatch::new(Admin::open(&kafka)?, job.source.topic.clone(), recorded);
        watch.look().await.map_err(|changed| changed.error(&job.source.topic, &[]))?;
        task::spawn("source-watch", watch.run(events.clone()));
        let unknown = job.source.format.registry().map_or(UnknownSchema::Wait, |place| place.unknown_schema);
        let schemas = schema_registry.map(|registry| SchemaDesk::new(registry, unknown, events.clone()));
        let readers =
            Readers { kafka: kafka.clone(), topic: job.source.topic.clone(), group: job.group().to_owned() };
        let clock = Clock::start();
        let parts = Parts {
            extractor,
            schemas,
            clock: clock.clone(),
            readers,
            credit_window,
            links: Links::new(job.fingerprint(), ingest, tls.clone(), events.clone()),
            replayer: Replayer::new(
                replay::Ground {
                    job: Arc::clone(&job),
                    job_file: config.common.job,
                    kafka,
                    clock,
                    metrics: counters.clone(),
                },
                tls,
            ),
            events: (events, incoming),
            metrics: counters,
            traces: config
                .peers
                .otlp
                .is_some()
                .then(|| Traces::new(&job.source.topic, job.group(), config.trace_tags)),
            readiness,
            job,
        };
        Reading::new(parts)?.begin(first)?.run(shutdown).await
    };
    tasks.spawn("reading", reading);
    let outcome = tasks.run_until_shutdown(config.common.drain).await?;
    tracing::info!(?outcome, "ingest ends");
    Ok(outcome)
}

/// Waits for the coordinator: once it has taken this ingest the source topic is there, made if need be.
async fn first_welcome(
    events: &mut mpsc::Receiver<Event>,
    shutdown: &CancellationToken,
) -> Result<Option<Event>, Error> {
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            event = events.recv() => match event {
                Some(Event::Fatal(error)) => return Err(error),
                Some(welcome @ Event::CoordinatorUp { .. }) => return Ok(Some(welcome)),
                Some(_) => {}
                None => return Ok(None),
            },
        }
    }
}
