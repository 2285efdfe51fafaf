//! The log of the process, on stderr, and its traces, to a collector if one is named.
//!
//! Each line carries `event_seq`, a counter of the process, so that lines of one millisecond keep their order, and the
//! `trace_id` and `span_id` of the trace it belongs to, if any:
//!
//! ```text
//! 2025-01-01T00:00:00.000000Z  INFO tidegate_worker: shard restored shard=3 offset=812 event_seq=17
//! {"event_seq":17,"timestamp":"2025-01-01T00:00:00.000000Z","level":"INFO","fields":{"message":…},…}
//! ```

use std::fmt;
use std::io::{self, IsTerminal};
use std::sync::atomic::{AtomicU64, Ordering};

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields, MakeWriter};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::collector::Watched;
use crate::trace::TraceContext;
use crate::{Error, span};

/// The form of a log line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// For people.
    #[default]
    Pretty,
    /// One JSON object a line.
    Json,
}

/// What to log and where to send traces.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Name of the service in traces.
    pub service: &'static str,
    /// Form of a line.
    pub format: Format,
    /// Levels of lines by module, as of `tracing_subscriber::EnvFilter`.
    pub filter: String,
    /// URL of an OTLP collector (gRPC); `None` sends no traces.
    pub otlp: Option<String>,
    /// Share of the traces beginning here that is sent, 0 to 1. One that goes on from a peer is sent if that sampled it.
    pub sample: f64,
}

/// Keeps telemetry up; dropping it sends the traces that wait.
#[derive(Debug)]
#[must_use = "traces are lost that wait when the process ends without dropping this"]
pub struct Guard {
    traces: Option<SdkTracerProvider>,
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(Err(error)) = self.traces.take().map(|traces| traces.shutdown()) {
            tracing::warn!(%error, "the last traces were not sent");
        }
    }
}

/// Sets up the log and the traces of the process. Call it once, inside the tokio runtime.
///
/// # Errors
/// [`Error::Filter`], [`Error::Otlp`], [`Error::LogTwice`]
pub fn init(settings: &Settings) -> Result<Guard, Error> {
    let filter = EnvFilter::try_new(&settings.filter)
        .map_err(|error| Error::Filter { filter: settings.filter.clone(), reason: error.to_string() })?;
    let traces = match &settings.otlp {
        Some(endpoint) => Some(exporter(settings, endpoint)?),
        None => None,
    };
    tracing_subscriber::registry()
        .with(lines(settings.format, io::stderr().is_terminal(), io::stderr).with_filter(filter))
        .try_init()
        .map_err(|_| Error::LogTwice)?;
    // What is logged is one matter, what is traced another: a quiet log loses no traces.
    if traces.as_ref().is_some_and(|traces| !span::collect(traces.tracer("tidegate"))) {
        return Err(Error::LogTwice);
    }
    Ok(Guard { traces })
}

fn exporter(settings: &Settings, endpoint: &str) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder().with_tonic().with_endpoint(endpoint).build();
    let exporter =
        exporter.map_err(|error| Error::Otlp { endpoint: endpoint.to_owned(), reason: error.to_string() })?;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(Watched::new(exporter, endpoint))
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(settings.sample))))
        .with_resource(Resource::builder().with_service_name(settings.service).build())
        .build())
}

/// The layer that writes lines.
fn lines<S, W>(format: Format, colours: bool, writer: W) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        Format::Pretty => layer
            .with_ansi(colours)
            .map_event_format(|inner| Numbered::new(inner.with_ansi(colours), format))
            .boxed(),
        Format::Json => layer.json().map_event_format(|inner| Numbered::new(inner, format)).boxed(),
    }
}

/// A format of lines that adds the number and the trace to each.
struct Numbered<F> {
    inner: F,
    format: Format,
    next: AtomicU64,
}

impl<F> Numbered<F> {
    const fn new(inner: F, format: Format) -> Self {
        Self { inner, format, next: AtomicU64::new(1) }
    }
}

impl<S, N, F> FormatEvent<S, N> for Numbered<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = String::new();
        self.inner.format_event(context, Writer::new(&mut line), event)?;
        let line = line.trim_end_matches('\n');

        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let trace = TraceContext::current();
        match self.format {
            Format::Pretty => {
                write!(writer, "{line} event_seq={number}")?;
                if let Some(trace) = trace {
                    write!(writer, " trace_id={} span_id={}", trace.trace_id(), trace.span_id())?;
                }
                writeln!(writer)
            }
            Format::Json => {
                write!(writer, "{{\"event_seq\":{number},")?;
                if let Some(trace) = trace {
                    write!(
                        writer,
                        "\"trace_id\":\"{}\",\"span_id\":\"{}\",",
                        trace.trace_id(),
                        trace.span_id()
                    )?;
                }
                writeln!(writer, "{}", line.strip_prefix('{').unwrap_or(line))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task;
    use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
    use opentelemetry_sdk::trace::SpanExporter as _;
    use serde_json::Value;
    use std::sync::atomic::AtomicBool;
    use std::sync::{Arc, Mutex};
    use tracing::subscriber::with_default;

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: Format, work: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let layer = lines(format, false, move || writer.clone());
        with_default(tracing_subscriber::registry().with(layer), work);
        let text = String::from_utf8(written.0.lock().unwrap().clone()).unwrap();
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn json_lines_are_numbered_objects_with_their_trace() {
        let lines = logged(Format::Json, || {
            tracing::info!(partition = 3, "first \"quoted\"\nline");
            let task = tracing::info_span!(target: task::SPAN_TARGET, "task", task = "reader");
            let _task = task.enter();
            tracing::info!("in a task");
            let record = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
            TraceContext::sampled(record, None).unwrap().in_scope(|| tracing::warn!("in a trace"));
        });
        let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(lines.len(), 3);
        for (line, number) in lines.iter().zip(1..) {
            assert_eq!(line["event_seq"], number);
        }
        assert_eq!(lines[0]["fields"]["message"], "first \"quoted\"\nline");
        assert_eq!(lines[0]["fields"]["partition"], 3);
        assert_eq!(lines[1]["span"]["task"], "reader");
        assert!(lines[0].get("trace_id").is_none() && lines[1].get("trace_id").is_none());
        assert_eq!(lines[2]["trace_id"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(lines[2]["span_id"], "00f067aa0ba902b7");
    }

    #[test]
    fn pretty_lines_are_numbered_too() {
        let lines = logged(Format::Pretty, || {
            tracing::info!(shard = 3, "restored");
            tracing::info!("next");
        });
        assert!(lines[0].contains("INFO") && lines[0].ends_with("restored shard=3 event_seq=1"), "{lines:?}");
        assert!(lines[1].ends_with("next event_seq=2"), "{lines:?}");
    }

    /// A collector that takes nothing while it is down.
    #[derive(Debug, Default)]
    struct Collector(Arc<AtomicBool>);

    impl opentelemetry_sdk::trace::SpanExporter for Collector {
        async fn export(&self, _: Vec<opentelemetry_sdk::trace::SpanData>) -> OTelSdkResult {
            let down = self.0.load(Ordering::Relaxed);
            if down { Err(OTelSdkError::InternalFailure("refused".to_owned())) } else { Ok(()) }
        }
    }

    #[test]
    fn a_collector_that_takes_no_traces_is_named_once_and_when_it_takes_them_again() {
        let down = Arc::new(AtomicBool::new(false));
        let lines = logged(Format::Pretty, || {
            let watched = Watched::new(Collector(Arc::clone(&down)), "http://collector:4317");
            for is_down in [false, true, true, false, false] {
                down.store(is_down, Ordering::Relaxed);
                let exported = now_or_never(watched.export(Vec::new()));
                assert_eq!(exported.is_err(), is_down, "the SDK hears of it too");
            }
        });
        let [lost, again] = &*lines else { panic!("{lines:?}") };
        assert!(
            lost.contains("WARN") && lost.contains("http://collector:4317") && lost.contains("refused"),
            "{lost}"
        );
        assert!(again.contains("takes traces again"), "{again}");
    }

    fn now_or_never<T>(work: impl Future<Output = T>) -> T {
        let mut context = std::task::Context::from_waker(std::task::Waker::noop());
        match std::pin::pin!(work).poll(&mut context) {
            std::task::Poll::Ready(done) => done,
            std::task::Poll::Pending => panic!("it waits for nothing"),
        }
    }

    #[tokio::test]
    async fn a_wrong_filter_or_collector_is_named() {
        let settings = Settings {
            service: "test",
            format: Format::Json,
            filter: "info,=".into(),
            otlp: None,
            sample: 1.0,
        };
        let error = init(&settings).unwrap_err().to_string();
        assert!(error.contains("`info,=`"), "{error}");
        let settings = Settings { filter: "info".into(), otlp: Some("not a url".into()), ..settings };
        let error = init(&settings).unwrap_err().to_string();
        assert!(error.contains("not a url") && error.contains("--otlp"), "{error}");
    }
}
