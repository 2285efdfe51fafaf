//! Traces of records through ingest, gRPC and worker to results and dead letters, as a collector gets them by OTLP.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use opentelemetry_proto::tonic::{
    collector::trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
    common::v1::any_value::Value,
    trace::v1::Span,
};
use rdkafka::{
    Offset,
    message::{Header, Headers, Message, OwnedHeaders, OwnedMessage},
    producer::{BaseProducer, BaseRecord, Producer},
};
use tidegate_tests::{DevKafka, clients, free_port};
use tonic::{Request, Response, Status};

use crate::services::Services;

const FIRST: (&str, &str) = ("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "a1a1a1a1a1a1a1a1");
const SECOND: (&str, &str) = ("bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb", "b2b2b2b2b2b2b2b2");
const UNSAMPLED: (&str, &str) = ("cccccccccccccccccccccccccccccccc", "c3c3c3c3c3c3c3c3");
const LATE: (&str, &str) = ("dddddddddddddddddddddddddddddddd", "d4d4d4d4d4d4d4d4");

fn job(name: &str) -> String {
    format!(
        "name: {name}
source: {{ topic: {name}-in, key: {{ field: /user }}, event_time: [{{ field: /ts }}] }}
watermark: {{ delay: 1s }}
window: {{ tumbling: {{ size: 10s }} }}
aggregates: [{{ name: n, fn: count }}]
sink: {{ topic: {name}-out }}
dead_letter: {{ topic: {name}-dead }}
state: {{ shards: 1 }}
"
    )
}

#[test]
fn a_trace_goes_on_from_a_record_to_its_result_and_its_dead_letter() {
    follow(DevKafka::start().unwrap().bootstrap());
}

#[test]
fn a_trace_goes_on_from_a_record_to_its_result_and_its_dead_letter_on_apache_kafka() {
    let Some(kafka) = tidegate_tests::apache_kafka() else { return };
    follow(kafka.bootstrap());
}

fn follow(bootstrap: &str) {
    let name = clients::unique("traces");
    let [source, sink, dead] = ["in", "out", "dead"].map(|topic| format!("{name}-{topic}"));
    clients::create_topic_named(bootstrap, &source, 1, &[]).unwrap();
    let collector = Collector::start();
    let mut services = Services::new(bootstrap, &job(&name));
    let traced = ["--otlp", &collector.url, "--log", "info,tidegate_ingest=debug"];
    services.start("watermark-coordinator");
    services.start_with("ingest", &[&traced[..], &["--trace-tags", "x-env,x-tier"]].concat());
    services.start_with("window-worker", &[&traced[..], &["--otlp-sample", "1"]].concat());

    let producer: BaseProducer = clients::client_config(bootstrap).create().unwrap();
    let send = |user: &str, time: i64, headers: &[(&str, String)]| {
        let value = format!("{{\"user\":\"{user}\",\"ts\":{time}}}");
        let header =
            |all: OwnedHeaders, (key, value): &(&str, String)| all.insert(Header { key, value: Some(value) });
        let headers = headers.iter().fold(OwnedHeaders::new(), header);
        let record = BaseRecord::<(), _>::to(&source).partition(0).payload(&value).headers(headers);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    };
    let parent =
        |(trace, span): (&str, &str), flags: &str| ("traceparent", format!("00-{trace}-{span}-{flags}"));
    let first = [
        parent(FIRST, "01"),
        ("tracestate", "vendor=1".to_owned()),
        ("baggage", "tenant=blue".to_owned()),
        ("x-env", "canary".to_owned()),
        ("x-other", "stays".to_owned()),
    ];
    send("u", 1_000, &first);
    send("u", 2_000, &[parent(SECOND, "01")]);
    send("v", 3_000, &[parent(UNSAMPLED, "00")]);
    send("u", 50_000, &[]);
    producer.flush(Duration::from_secs(20)).unwrap();
    let results = read(bootstrap, &sink, 2);
    send("u", 500, &[parent(LATE, "01")]);
    producer.flush(Duration::from_secs(20)).unwrap();
    let letters = read(bootstrap, &dead, 1);
    // What waits is sent as the processes end.
    let log = services.log("ingest");
    services.stop("ingest");
    services.stop("window-worker");
    let spans = collector.spans();

    let received = |(trace, span): (&str, &str)| {
        let found = spans.iter().find(|found| {
            found.service == "ingest"
                && found.trace == trace
                && found.parent == span
                && found.span.name == format!("{source} receive")
        });
        found.unwrap_or_else(|| panic!("no span for a record of {trace}: {spans:#?}"))
    };
    let (from_first, from_second, _) = (received(FIRST), received(SECOND), received(LATE));
    assert_eq!(from_first.attribute("messaging.system"), "kafka");
    assert_eq!(from_first.attribute("messaging.destination.partition.id"), "0");
    assert_eq!(from_first.attribute("messaging.kafka.offset"), "0");
    assert!(spans.iter().all(|span| span.trace != UNSAMPLED.0), "{spans:#?}");
    assert!(log.contains(&format!("trace_id={} span_id={}", FIRST.0, from_first.id)), "{log}");

    let sent = |topic: &str, trace: &str| {
        let name = format!("{topic} send");
        let found: Vec<_> =
            spans.iter().filter(|span| span.span.name == name && span.trace == trace).collect();
        assert_eq!(found.len(), 1, "{name} of {trace}: {spans:#?}");
        found[0]
    };
    let result = sent(&sink, FIRST.0);
    assert_eq!((result.service.as_str(), result.parent.as_str()), ("window-worker", from_first.id.as_str()));
    let links: Vec<_> =
        result.span.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect();
    assert_eq!(links, [(SECOND.0.to_owned(), from_second.id.clone())]);
    assert_eq!(result.attribute("tidegate.window.end_ms"), "10000");
    assert_eq!(spans.iter().filter(|span| span.span.name == format!("{sink} send")).count(), 1);
    let letter = sent(&dead, LATE.0);
    assert_eq!((letter.parent.as_str(), letter.attribute("tidegate.reason").as_str()), (LATE.1, "late"));
    assert!(spans.iter().any(|span| span.span.name == "commit"), "{spans:#?}");

    let of_user = |user: &str| {
        let key = user.as_bytes();
        headers_of(results.iter().find(|result| result.key() == Some(key)).unwrap())
    };
    let expected = BTreeMap::from([
        ("traceparent".to_owned(), format!("00-{}-{}-01", FIRST.0, result.id)),
        ("tracestate".to_owned(), "vendor=1".to_owned()),
        ("baggage".to_owned(), "tenant=blue".to_owned()),
        ("x-env".to_owned(), "canary".to_owned()),
    ]);
    assert_eq!(of_user("u"), expected);
    assert_eq!(of_user("v"), BTreeMap::new(), "nothing in it was sampled");
    assert_eq!(headers_of(&letters[0])["traceparent"], parent(LATE, "01").1, "a dead letter is its record");
}

fn read(bootstrap: &str, topic: &str, count: usize) -> Vec<OwnedMessage> {
    let consumer = clients::consumer(bootstrap, clients::Isolation::ReadCommitted).unwrap();
    clients::await_partitions(bootstrap, topic, 1).unwrap();
    clients::assign(&consumer, topic, 0, Offset::Beginning).unwrap();
    clients::read(&consumer, count).unwrap()
}

fn headers_of(record: &OwnedMessage) -> BTreeMap<String, String> {
    let headers = record.headers().into_iter().flat_map(Headers::iter);
    let text = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    headers.map(|header| (header.key.to_owned(), text(header.value))).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A span, with what the test asks of it written out.
#[derive(Debug)]
struct Sent {
    service: String,
    trace: String,
    id: String,
    parent: String,
    span: Span,
}

impl Sent {
    fn attribute(&self, name: &str) -> String {
        let found = self.span.attributes.iter().find(|attribute| attribute.key == name);
        match found.and_then(|attribute| attribute.value.as_ref()?.value.as_ref()) {
            Some(Value::StringValue(text)) => text.clone(),
            Some(Value::IntValue(number)) => number.to_string(),
            other => panic!("{name} is {other:?} in {self:#?}"),
        }
    }
}

/// A collector that keeps what it gets.
struct Collector {
    url: String,
    got: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    _runtime: tokio::runtime::Runtime,
}

struct Receiver(Arc<Mutex<Vec<ExportTraceServiceRequest>>>);

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.0.lock().unwrap().push(request.into_inner());
        Ok(Response::new(ExportTraceServiceResponse::default()))
    }
}

impl Collector {
    fn start() -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let got = Arc::new(Mutex::new(Vec::new()));
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let service = TraceServiceServer::new(Receiver(Arc::clone(&got)));
        runtime
            .spawn(tonic::transport::Server::builder().add_service(service).serve(address.parse().unwrap()));
        Self { url: format!("http://{address}"), got, _runtime: runtime }
    }

    fn spans(&self) -> Vec<Sent> {
        let got = self.got.lock().unwrap();
        let resources = got.iter().flat_map(|request| &request.resource_spans);
        let spans = resources.flat_map(|resource| {
            let service = resource.resource.iter().flat_map(|resource| &resource.attributes);
            let service = service.filter(|attribute| attribute.key == "service.name").find_map(|attribute| {
                match attribute.value.as_ref()?.value.as_ref()? {
                    Value::StringValue(name) => Some(name.clone()),
                    _ => None,
                }
            });
            let service = service.unwrap_or_default();
            resource.scope_spans.iter().flat_map(|scope| &scope.spans).map(move |span| Sent {
                service: service.clone(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                span: span.clone(),
            })
        });
        spans.collect()
    }
}
