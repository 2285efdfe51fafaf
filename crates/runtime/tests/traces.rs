//! Traces reach a collector, at the latest when the guard is dropped.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tidegate_runtime::span::{Attributes, Span};
use tidegate_runtime::task::{self, Tasks};
use tidegate_runtime::telemetry::{self, Format, Settings};
use tokio::net::TcpListener;
use tokio::sync::mpsc::{Sender, channel};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

struct Collector(Sender<ExportTraceServiceRequest>);

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.send(request.into_inner()).await.unwrap();
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn spans_are_sent_however_quiet_the_log_and_the_spans_of_tasks_are_not() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, mut received) = channel(10);
    task::spawn("collector", async {
        let service = TraceServiceServer::new(Collector(sender));
        let server = tonic::transport::Server::builder().add_service(service);
        server.serve_with_incoming(TcpListenerStream::new(listener)).await
    });

    let guard = telemetry::init(&Settings {
        service: "tidegate-test",
        format: Format::Json,
        filter: "error".into(),
        otlp: Some(format!("http://{address}")),
        sample: 1.0,
    })
    .unwrap();
    let tasks = Tasks::new();
    let task = tasks.spawn("worker", async {
        let mut span = Span::root("commit").unwrap();
        span.set(Attributes::default().with("shard", 3));
        span.context().in_scope(|| tracing::info!("in the trace"));
        let _log = tracing::info_span!("of the log").entered();
        Ok::<(), String>(())
    });
    task.await.unwrap();
    drop(guard);

    let export = received.recv().await.unwrap();
    let resource = export.resource_spans.first().unwrap();
    let attributes = &resource.resource.as_ref().unwrap().attributes;
    let service = attributes.iter().find(|attribute| attribute.key == "service.name").unwrap();
    assert!(format!("{service:?}").contains("tidegate-test"));
    let spans: Vec<_> = resource.scope_spans.iter().flat_map(|scope| &scope.spans).collect();
    let names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    assert_eq!(names, ["commit"]);
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
}
