//! What traces or metrics cost: two jobs at once over the same records, one with them and one without.
//!
//! Both have the machine, the broker and the load at the same time, so that what disturbs one disturbs the other. They change
//! places from round to round.
//! - *Traces*: every record carries a `traceparent`, and a hundredth of them are sampled; one job sends its traces to a collector
//!   in this process, by OTLP over gRPC.
//! - *Metrics*: one job is scraped every five seconds, as `docker/prometheus.yaml` does it.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Result, bail};
use clap::ValueEnum;
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
    trace_service_server::{TraceService, TraceServiceServer},
};
use tidegate_job::Job;
use tidegate_kafka::KafkaConfig;
use tidegate_runtime::task;
use tokio::{net::TcpListener, task::JoinHandle, time::MissedTickBehavior};
use tokio_stream::wrappers::TcpListenerStream;

use super::{
    BenchArgs, clicks, deployment, job_of,
    paced::{self, Load},
    running::{Cpu, Running},
};
use crate::{ready, topics};

const SCRAPE_EVERY: Duration = Duration::from_secs(5);
/// One of so many records is sampled.
const SAMPLED: u64 = 100;

/// What is compared with doing without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Compared {
    /// Sending traces, of 1 % of the records and of the commits.
    Traces,
    /// Being scraped every 5 s.
    Metrics,
    /// Nothing: how far two that are the same differ.
    Nothing,
}

/// One of the two jobs.
struct Side {
    job: Job,
    services: Running,
    before: Cpu,
}

/// Runs the rounds and prints a line for each, and one for all.
pub(super) async fn measure(
    args: &BenchArgs,
    kafka: &KafkaConfig,
    folder: &Path,
    what: Compared,
) -> Result<()> {
    let mut all = Vec::new();
    for round in 1..=args.rounds {
        let seen = Arc::new(AtomicU64::new(0));
        let (with, without) = self::round(args, kafka, folder, what, round, &seen).await?;
        let seen = seen.load(Ordering::Relaxed);
        if what != Compared::Nothing && seen == 0 {
            bail!("nothing was collected: this was no measurement");
        }
        println!(
            "round {round}: cpu_percent with {} without {} ratio={:.3} collected={seen}",
            shares(&with),
            shares(&without),
            with.services() / without.services(),
        );
        all.push((with, without));
    }
    let sum = |of: fn(&(Cpu, Cpu)) -> f64| all.iter().map(of).sum::<f64>();
    println!(
        "compare: rounds={} records_per_s={} seconds={} ratio ingest={:.3} worker={:.3} coordinator={:.3} total={:.3}",
        args.rounds,
        args.rate,
        args.seconds,
        sum(|(with, _)| with.ingest) / sum(|(_, without)| without.ingest),
        sum(|(with, _)| with.workers) / sum(|(_, without)| without.workers),
        sum(|(with, _)| with.coordinator) / sum(|(_, without)| without.coordinator),
        sum(|(with, _)| with.services()) / sum(|(_, without)| without.services()),
    );
    Ok(())
}

fn shares(cpu: &Cpu) -> String {
    format!(
        "ingest={:.1} worker={:.1} coordinator={:.1}",
        cpu.ingest * 100.0,
        cpu.workers * 100.0,
        cpu.coordinator * 100.0
    )
}

/// CPU seconds a second, with and without.
async fn round(
    args: &BenchArgs,
    kafka: &KafkaConfig,
    folder: &Path,
    what: Compared,
    round: u32,
    seen: &Arc<AtomicU64>,
) -> Result<(Cpu, Cpu)> {
    let (url, collector) = collect(seen).await?;
    let otlp = match what {
        Compared::Traces => Some(url),
        Compared::Metrics | Compared::Nothing => None,
    };
    let (mut with, mut without) = if round % 2 == 1 {
        let with = start(args, kafka, folder, &format!("with-{round}"), otlp).await?;
        (with, start(args, kafka, folder, &format!("without-{round}"), None).await?)
    } else {
        let without = start(args, kafka, folder, &format!("without-{round}"), None).await?;
        (start(args, kafka, folder, &format!("with-{round}"), otlp).await?, without)
    };
    for side in [&mut with, &mut without] {
        while side.services.glance().await?.is_none_or(|s| s.owners.len() < side.job.core.shards as usize) {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let scraper = (what == Compared::Metrics)
        .then(|| task::spawn("scrape", scrape(with.services.metrics(), Arc::clone(seen))));
    with.before = with.services.cpu()?;
    without.before = without.services.cpu()?;
    let sampled = (what == Compared::Traces).then_some(SAMPLED);
    let loads = [&with, &without].map(|side| {
        let (kafka, topic, clicks) = (kafka.clone(), side.job.source.topic.clone(), clicks(args));
        let load = Load { rate: args.rate, seconds: args.seconds, sampled };
        let sent = Arc::new(Mutex::new(vec![BTreeMap::new(); args.partitions as usize]));
        tokio::task::spawn_blocking(move || paced::pace(&kafka, &topic, clicks, load, &sent))
    });
    for load in loads {
        load.await??;
    }
    // What is under way comes to its end, and the exporters send what they hold.
    tokio::time::sleep(Duration::from_secs(6)).await;
    #[allow(clippy::cast_precision_loss, reason = "seconds as a divisor")]
    let seconds = args.seconds as f64;
    let used = |side: &Side| Ok::<_, anyhow::Error>(side.services.cpu()?.since(&side.before, seconds));
    let cpu = (used(&with)?, used(&without)?);
    with.services.stop().await?;
    without.services.stop().await?;
    collector.abort();
    if let Some(scraper) = scraper {
        scraper.abort();
    }
    Ok(cpu)
}

async fn start(
    args: &BenchArgs,
    kafka: &KafkaConfig,
    folder: &Path,
    name: &str,
    otlp: Option<String>,
) -> Result<Side> {
    let (job, text) = job_of(args, name)?;
    topics::ensure_source(kafka, &job).await?;
    let mut deployment = deployment(args, folder, name, &text)?;
    deployment.otlp = otlp;
    let services = Running::start(&deployment, args.workers, None)?;
    let before = services.cpu()?;
    Ok(Side { job, services, before })
}

/// Asks each address for its metrics, until it is aborted; counts the answers.
async fn scrape(addresses: Vec<String>, answers: Arc<AtomicU64>) -> Result<()> {
    let mut ticks = tokio::time::interval(SCRAPE_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        for address in &addresses {
            let answer = ready::ask(address, "/metrics").await?;
            answers.fetch_add(u64::from(answer.contains("# EOF")), Ordering::Relaxed);
        }
    }
}

/// A collector that counts the spans it gets; gives its address as `--otlp` takes it.
async fn collect(spans: &Arc<AtomicU64>) -> Result<(String, JoinHandle<()>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await.context("no address for a collector")?;
    let url = format!("http://{}", listener.local_addr()?);
    let service = TraceServiceServer::new(Counting(Arc::clone(spans)));
    let server = tonic::transport::Server::builder()
        .add_service(service)
        .serve_with_incoming(TcpListenerStream::new(listener));
    let task = task::spawn("collector", async move {
        if let Err(error) = server.await {
            eprintln!("the collector ended: {error}");
        }
    });
    Ok((url, task))
}

struct Counting(Arc<AtomicU64>);

#[tonic::async_trait]
impl TraceService for Counting {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        let resources = request.get_ref().resource_spans.iter().flat_map(|resource| &resource.scope_spans);
        let spans: usize = resources.map(|scope| scope.spans.len()).sum();
        self.0.fetch_add(spans as u64, Ordering::Relaxed);
        Ok(tonic::Response::new(ExportTraceServiceResponse::default()))
    }
}
