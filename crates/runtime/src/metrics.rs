//! The HTTP endpoint of a service: `/metrics` (OpenMetrics text), `/healthz` (the process lives), `/readyz` (it does its
//! work; 503 and the reason if not).

use std::borrow::Cow;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CONTENT_TYPE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;

use crate::task::{Shutdown, spawn};
use crate::{Error, process};

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
const TEXT: &str = "text/plain; charset=utf-8";

/// Connections served at a time; more wait.
const CONNECTIONS: usize = 16;

/// How long a client may take to say what it wants.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// A registry that every metric of the process goes into. All carry the name of the job as `tidegate_job`, so that one
/// Prometheus tells jobs apart however it is set up. What there is to say of the process itself is in it already.
#[must_use]
pub fn registry(job: &str) -> Registry {
    let labels = [(Cow::from("tidegate_job"), Cow::from(job.to_owned()))];
    let mut registry = Registry::with_labels(labels.into_iter());
    registry.register(
        "tidegate_build",
        "The program's version",
        Info::new(vec![("version", env!("CARGO_PKG_VERSION"))]),
    );
    registry.register_collector(Box::new(ProcessFigures));
    registry
}

/// Whether the service does its work; clones are the same flag. It starts as not ready.
#[derive(Clone, Debug)]
pub struct Readiness {
    unready: Arc<Mutex<Option<String>>>,
}

impl Default for Readiness {
    fn default() -> Self {
        Self { unready: Arc::new(Mutex::new(Some("starting".to_owned()))) }
    }
}

impl Readiness {
    /// Not ready: `starting`.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The service does its work.
    pub fn ready(&self) {
        self.set(None);
    }

    /// It does not, for `reason`.
    pub fn not_ready(&self, reason: impl Into<String>) {
        self.set(Some(reason.into()));
    }

    /// Why it is not ready; `None` if it is.
    #[must_use]
    pub fn why_not(&self) -> Option<String> {
        self.unready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, unready: Option<String>) {
        *self.unready.lock().unwrap_or_else(PoisonError::into_inner) = unready;
    }
}

/// The bound endpoint.
#[derive(Debug)]
pub struct Endpoint {
    listener: TcpListener,
    address: SocketAddr,
}

impl Endpoint {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// [`Error::Bind`]
    pub async fn bind(address: SocketAddr) -> Result<Self, Error> {
        let failed = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        Ok(Self { listener, address })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until the process ends, through the drain as well, when it is not ready any more: start it with
    /// [`spawn`], not as a task that the drain waits for.
    pub async fn serve(self, registry: Registry, readiness: Readiness, shutdown: Shutdown) {
        let state = Arc::new(State { registry, readiness, shutdown });
        let permits = Arc::new(Semaphore::new(CONNECTIONS));
        // The semaphore is never closed.
        while let Ok(permit) = Arc::clone(&permits).acquire_owned().await {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let state = Arc::clone(&state);
                    spawn("metrics-connection", async move {
                        serve_connection(stream, state).await;
                        drop(permit);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection for metrics");
                    tokio::time::sleep(REQUEST_TIMEOUT).await;
                }
            }
        }
    }
}

struct State {
    registry: Registry,
    readiness: Readiness,
    shutdown: Shutdown,
}

async fn serve_connection(stream: TcpStream, state: Arc<State>) {
    let service = service_fn(|request| {
        let response = respond(&request, &state);
        async move { Ok::<_, Infallible>(response) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection for metrics ended badly");
    }
}

type Body = http_body_util::Full<Bytes>;

fn respond(request: &Request<Incoming>, state: &State) -> Response<Body> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET\n".to_owned());
        refused.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET, HEAD"));
        return refused;
    }
    match request.uri().path() {
        "/metrics" => {
            let mut metrics = String::new();
            match encode(&mut metrics, &state.registry) {
                Ok(()) => text(StatusCode::OK, OPEN_METRICS, metrics),
                Err(error) => text(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
            }
        }
        "/healthz" => text(StatusCode::OK, TEXT, "alive\n".to_owned()),
        "/readyz" => {
            let draining = state.shutdown.is_requested().then(|| "draining".to_owned());
            match draining.or_else(|| state.readiness.why_not()) {
                None => text(StatusCode::OK, TEXT, "ready\n".to_owned()),
                Some(reason) => text(StatusCode::SERVICE_UNAVAILABLE, TEXT, format!("{reason}\n")),
            }
        }
        _ => text(StatusCode::NOT_FOUND, TEXT, "there are /metrics, /healthz and /readyz\n".to_owned()),
    }
}

fn text(status: StatusCode, content_type: &'static str, body: String) -> Response<Body> {
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let content_type = hyper::header::HeaderValue::from_static(content_type);
    response.headers_mut().insert(CONTENT_TYPE, content_type);
    response
}

/// CPU, memory and start of this process, read at each scrape, under the names that all Prometheus clients use.
#[derive(Debug)]
struct ProcessFigures;

impl Collector for ProcessFigures {
    fn encode(&self, mut encoder: DescriptorEncoder) -> Result<(), std::fmt::Error> {
        if let Ok(seconds) = process::cpu_seconds_self() {
            let counter = ConstCounter::new(seconds);
            encode_one(
                &mut encoder,
                "process_cpu",
                "User and system CPU time used",
                Unit::Seconds,
                &counter,
            )?;
        }
        if let Ok(seconds) = process::start_time_self() {
            let gauge = ConstGauge::new(seconds);
            encode_one(
                &mut encoder,
                "process_start_time",
                "When the process started, since the Unix epoch",
                Unit::Seconds,
                &gauge,
            )?;
        }
        if let Ok(bytes) = process::rss_bytes_self() {
            let gauge = bytes_gauge(bytes);
            encode_one(&mut encoder, "process_resident_memory", "Memory in use", Unit::Bytes, &gauge)?;
        }
        if let Some(bytes) = process::memory_limit_self() {
            let gauge = bytes_gauge(bytes);
            let help = "Memory that the control group allows; no series where it sets no limit";
            encode_one(&mut encoder, "process_memory_limit", help, Unit::Bytes, &gauge)?;
        }
        Ok(())
    }
}

fn bytes_gauge(bytes: u64) -> ConstGauge<i64> {
    ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX))
}

fn encode_one(
    encoder: &mut DescriptorEncoder,
    name: &str,
    help: &str,
    unit: Unit,
    metric: &impl EncodeMetric,
) -> Result<(), std::fmt::Error> {
    metric.encode(encoder.encode_descriptor(name, help, Some(&unit), metric.metric_type())?)
}
