//! Says in the log when the collector does not take traces, and when it does again.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};

/// An exporter under watch: the SDK drops what is not taken, without a word.
#[derive(Debug)]
pub(crate) struct Watched<E> {
    exporter: E,
    endpoint: String,
    failing: AtomicBool,
}

impl<E> Watched<E> {
    pub(crate) fn new(exporter: E, endpoint: &str) -> Self {
        Self { exporter, endpoint: endpoint.to_owned(), failing: AtomicBool::new(false) }
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let exported = self.exporter.export(batch).await;
        let endpoint = &*self.endpoint;
        match (self.failing.swap(exported.is_err(), Ordering::Relaxed), &exported) {
            (false, Err(error)) => {
                tracing::warn!(endpoint, spans, %error, "the collector does not take traces: they are lost until it does");
            }
            (true, Ok(())) => tracing::info!(endpoint, "the collector takes traces again"),
            _ => {}
        }
        exported
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}
