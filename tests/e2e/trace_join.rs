//! `tidegate trace-join` on a capture that real tshark made of our own traffic: a record whose trace goes from its producer through
//! ingest and worker to the dead letters, and a request to a service's endpoint.

use std::{
    fs::{self, File},
    io::{Read, Write},
    net::TcpStream,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use rdkafka::{
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, Producer},
};
use serde_json::Value;
use tidegate_tests::{DevKafka, Requirement, clients, free_port};

use crate::{
    dev::{PATIENCE, Run, program, signal_to},
    prometheus,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
/// The same, as proxies write it in `x-request-id`.
const REQUEST_ID: &str = "4BF92F35-77B3-4DA6-A3CE-929D0E0E4736";
const JOB: &str = "
name: traced
source: { topic: traced-in, partitions: 1, key: { field: /user }, event_time: [{ field: /ts }] }
watermark: { delay: 1s }
window: { tumbling: { size: 10s } }
aggregates: [{ name: n, fn: count }]
sink: { topic: traced-out }
dead_letter: { topic: traced-dead }
state: { shards: 1 }
";

#[test]
fn a_trace_is_followed_over_the_wire_from_its_producer_to_the_dead_letters() {
    if !Requirement::all_met(
        &[Requirement::Tshark, Requirement::Pushgateway],
        "trace-join on a capture of tshark",
    ) {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("job.yaml"), JOB).unwrap();
    let kafka = DevKafka::start().unwrap();
    let job = folder.path().join("job.yaml").display().to_string();
    let arguments = ["--job", &job, "--kafka", kafka.bootstrap(), "--workers", "1"].map(str::to_owned);
    let mut run = Run::start(folder, &arguments);
    run.pid_of("worker-0");
    run.until_reading();
    let (ingest, worker) = (run.metrics_of("ingest-0"), run.metrics_of("worker-0"));
    let frames = run.logged("worker-0", "serving ingests address=");
    let (broker, frames_port) = (port(kafka.bootstrap()), port(&frames));

    // From the producer's first packet on: tshark has to see the beginning of a conversation to take it apart.
    let mut tshark = Tshark::start(&run, &[broker, frames_port, port(&ingest)]);
    let producer: BaseProducer = clients::client_config(kafka.bootstrap()).create().unwrap();
    let send = |time: i64, traced: bool| {
        let value = format!("{{\"user\":\"u\",\"ts\":{time}}}");
        let mut record = BaseRecord::<(), _>::to("traced-in").partition(0).payload(&value);
        if traced {
            record = record
                .headers(OwnedHeaders::new().insert(Header { key: "traceparent", value: Some(PARENT) }));
        }
        producer.send(record).map_err(|(error, _)| error).unwrap();
        producer.flush(Duration::from_secs(20)).unwrap();
    };
    send(100_000, false);
    until_shown(&worker, "tidegate_worker_watermark_timestamp_seconds{", "99.0");
    send(1_000, true);
    until_shown(&worker, "tidegate_worker_dead_letters_total{tidegate_job=\"traced\",reason=\"late\"", "1");
    request(&ingest);
    let capture = tshark.export(&[(broker, "kafka"), (frames_port, "http2"), (port(&ingest), "http")]);

    let gateway = Gateway::start();
    let join = |more: &[&str]| {
        let mut command = Command::new(program("tidegate"));
        command.arg("trace-join").arg("--capture").arg(&capture).args(["--trace", TRACE]).args(more);
        for log in ["ingest-0", "worker-0"] {
            command.arg("--log").arg(run.folder.path().join("run").join(format!("{log}.log")));
        }
        command.output().unwrap()
    };
    let joined = join(&["--json", "--push", &gateway.address]);
    let text = String::from_utf8(joined.stdout).unwrap();
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let entries: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let packets = |protocol: &str, what: &str, to: Option<u16>| -> Vec<&Value> {
        let is = |entry: &&Value| {
            entry["protocol"] == protocol
                && entry["what"].as_str().is_some_and(|text| text.starts_with(what))
                && to.is_none_or(|to| port(entry["to"].as_str().unwrap()) == to)
        };
        entries.iter().filter(is).collect()
    };
    assert!(entries.iter().all(|entry| entry["trace_id"] == TRACE), "{text}");
    let times: Vec<&str> = entries.iter().map(|entry| entry["time"].as_str().unwrap()).collect();
    assert!(times.is_sorted(), "{text}");

    let produced = packets("kafka", "Produce", Some(broker));
    let connections: std::collections::BTreeSet<_> =
        produced.iter().map(|packet| packet["from"].as_str()).collect();
    assert_eq!(connections.len(), 2, "the record, and its dead letter: {text}");
    let to_worker = packets("http2", "", Some(frames_port));
    assert!(!to_worker.is_empty(), "the frame with the late record: {text}");
    let frame = |packet: &Value| packet["frame"].as_u64().unwrap();
    assert!(
        frame(produced[0]) < frame(to_worker[0]) && frame(to_worker[0]) < frame(produced[produced.len() - 1]),
        "{text}"
    );
    assert_eq!(packets("http", "GET /readyz", Some(port(&ingest))).len(), 1, "{text}");
    let answers = packets("http", "answer 200", None);
    assert_eq!((answers.len(), answers[0]["status_code"].as_u64()), (1, Some(200)), "{text}");
    assert!(
        answers[0]["response_ms"].as_f64() > Some(0.0) && answers[0]["network_latency_ms"].is_number(),
        "{text}"
    );

    let people = String::from_utf8(join(&[]).stdout).unwrap();
    assert!(people.starts_with(&format!("trace {TRACE} from ")), "{people}");
    assert_eq!(people.lines().count(), entries.len() + 1, "{people}");

    let pushed = prometheus::get(&gateway.address, "/metrics").unwrap();
    for protocol in ["http", "http2", "kafka"] {
        let count = format!(
            "tidegate_network_latency_seconds_count{{instance=\"\",job=\"tidegate_trace_join\",protocol=\"{protocol}\"}} "
        );
        let count =
            pushed.lines().find_map(|line| line.strip_prefix(&count)).unwrap_or_else(|| panic!("{pushed}"));
        assert_eq!(count.parse(), Ok(packets(protocol, "", None).len()));
    }
    run.signal("-TERM");
    run.end();
}

fn port(address: &str) -> u16 {
    address.rsplit(':').next().unwrap().parse().unwrap()
}

/// Waits until a service shows this value of a metric.
fn until_shown(address: &str, metric: &str, value: &str) {
    let begun = Instant::now();
    loop {
        let text = prometheus::get(address, "/metrics").unwrap();
        if text.lines().any(|line| line.starts_with(metric) && line.ends_with(&format!(" {value}"))) {
            return;
        }
        assert!(begun.elapsed() < Duration::from_secs(60), "{metric} does not become {value}:\n{text}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// A request that a proxy has given an id.
fn request(address: &str) {
    let mut stream = TcpStream::connect(address).unwrap();
    let text = format!(
        "GET /readyz HTTP/1.1\r\nhost: {address}\r\nx-request-id: {REQUEST_ID}\r\nconnection: close\r\n\r\n"
    );
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

/// A capture under way on loopback.
struct Tshark {
    child: Child,
    file: std::path::PathBuf,
}

impl Tshark {
    /// Returns once packets are written.
    fn start(run: &Run, ports: &[u16]) -> Self {
        let file = run.folder.path().join("capture.pcapng");
        let filter: Vec<String> = ports.iter().map(|port| format!("tcp port {port}")).collect();
        let child = Command::new("tshark")
            .args(["-q", "-i", "lo", "-f", &filter.join(" or "), "-w"])
            .arg(&file)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(run.folder.path().join("tshark.log")).unwrap())
            .spawn()
            .unwrap();
        let begun = Instant::now();
        // The services' own traffic never rests. 4 KiB is more than a file without packets has.
        while fs::metadata(&file).map_or(0, |file| file.len()) < 4096 {
            let log = fs::read_to_string(run.folder.path().join("tshark.log")).unwrap_or_default();
            assert!(begun.elapsed() < PATIENCE, "tshark captures nothing: {log}");
            thread::sleep(Duration::from_millis(20));
        }
        Self { child, file }
    }

    /// Ends the capture; the packets as JSON.
    fn export(&mut self, protocols: &[(u16, &str)]) -> std::path::PathBuf {
        // What it has not yet taken from the system when it is told to stop, it leaves there. The answer was the last.
        let begun = Instant::now();
        let answer = b"HTTP/1.1 200 OK";
        while !fs::read(&self.file).unwrap().windows(answer.len()).any(|bytes| bytes == answer) {
            assert!(begun.elapsed() < PATIENCE, "the answer is not in the capture");
            thread::sleep(Duration::from_millis(50));
        }
        signal_to(self.child.id(), "-INT");
        assert!(self.child.wait().unwrap().success());
        let json = self.file.with_extension("json");
        let mut command = Command::new("tshark");
        command.arg("-r").arg(&self.file).args(["-T", "json"]);
        for (port, protocol) in protocols {
            command.args(["-d", &format!("tcp.port=={port},{protocol}")]);
        }
        assert!(
            command.stdout(File::create(&json).unwrap()).stderr(Stdio::null()).status().unwrap().success()
        );
        json
    }
}

impl Drop for Tshark {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A Pushgateway of the test's own.
struct Gateway {
    child: Child,
    address: String,
}

impl Gateway {
    fn start() -> Self {
        let address = format!("127.0.0.1:{}", free_port().unwrap());
        let child = Command::new("prometheus-pushgateway")
            .args(["--web.listen-address", &address])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let gateway = Self { child, address };
        let begun = Instant::now();
        while prometheus::get(&gateway.address, "/-/ready").is_none() {
            assert!(begun.elapsed() < PATIENCE, "the Pushgateway does not start");
            thread::sleep(Duration::from_millis(20));
        }
        gateway
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
