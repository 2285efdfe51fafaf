//! Peers that mean no good, or are not who they should be: the services refuse them, say so, and go on.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use tidegate_proto::v1::{
    self, coordinator_client::CoordinatorClient, feed_request, worker_client::WorkerClient, worker_report,
};
use tidegate_tests::{Authority, dev_kafka};
use tonic::Code;

use crate::broker::{WINDOW_MS, plain, send, services};
use crate::dev::PATIENCE;
use crate::services::Services;

const NAMES: [&str; 3] = ["watermark-coordinator", "ingest", "window-worker"];
const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A byte more than a message may have.
const HUGE: usize = tidegate_proto::MAX_MESSAGE_BYTES + 1;

fn words(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

/// Asks for a key by `tidegate query` until there is an answer: over the coordinator and the worker that owns its shard.
fn until_answered(services: &Services, key: &str, flags: &[String]) {
    let begun = Instant::now();
    loop {
        let output = services.tidegate(&[&["query", key], &words(flags)[..]].concat());
        if output.status.success() {
            return;
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(begun.elapsed() < PATIENCE, "{said}{}", services.log("window-worker"));
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn refused(services: &Services, name: &str, reason: &str) -> u64 {
    let metrics = services.metrics(name);
    let line = metrics.lines().find(|line| {
        line.starts_with("tidegate_refused_peers_total{") && line.contains(&format!("reason=\"{reason}\""))
    });
    let line = line.unwrap_or_else(|| panic!("no counter of `{reason}`: {metrics}"));
    line.rsplit_once(' ').unwrap().1.parse().unwrap()
}

#[test]
fn services_with_certificates_work_with_each_other_and_with_nobody_else() {
    let folder = tempfile::tempdir().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let flags = ours.issue(&folder.path().join("ours"), HERE).arguments();
    let bootstrap = dev_kafka().bootstrap();
    let (mut services, topic) = services(bootstrap, "certificates", 1);
    NAMES.into_iter().for_each(|name| services.start_with(name, &words(&flags)));
    send(&plain(bootstrap), &topic, 0, 1_000..1_100);
    until_answered(&services, "u1", &flags);

    let mut stranger = theirs.issue(&folder.path().join("theirs"), HERE);
    stranger.ca = folder.path().join("ours/ca.crt");
    services.start_with("window-worker-stranger", &words(&stranger.arguments()));
    services.until_logged("watermark-coordinator", "a peer was refused peer=127.0.0.1:");
    services.until_logged("watermark-coordinator", "reason=\"tls\" error=invalid peer certificate");
    services.until_logged("window-worker-stranger", "the peer refuses our certificate");
    services.kill("window-worker-stranger");
    assert!(refused(&services, "watermark-coordinator", "tls") > 0);
    let plain_text = services.tidegate(&["status"]);
    assert!(!plain_text.status.success(), "{}", String::from_utf8_lossy(&plain_text.stdout));

    // The authority changes under the running services.
    let next = Authority::new("next").issue(&folder.path().join("ours"), HERE).arguments();
    until_answered(&services, "u2", &next);
    assert_eq!(services.dead(), [""; 0]);
    for name in ["ingest", "window-worker", "watermark-coordinator"] {
        services.stop(name);
    }
}

#[test]
fn certificates_that_cannot_be_used_end_a_service_at_its_start_with_their_name() {
    let folder = tempfile::tempdir().unwrap();
    let mut pem = Authority::new("ours").issue(folder.path(), HERE);
    pem.key = folder.path().join("missing.key");
    let (mut services, _) = services(dev_kafka().bootstrap(), "no-certificates", 1);
    for name in NAMES {
        services.start_with(name, &words(&pem.arguments()));
        assert_eq!(services.ended(name), Some(1));
        let log = services.log(name);
        assert!(log.contains("missing.key") && log.contains("`--tls-key`"), "{log}");
    }
}

#[test]
fn huge_messages_and_garbage_are_refused_while_the_job_goes_on() {
    let bootstrap = dev_kafka().bootstrap();
    let (mut services, topic) = services(bootstrap, "hostile", 1);
    services.start_all();
    let producer = plain(bootstrap);
    send(&producer, &topic, 0, 1_000..1_100);
    until_answered(&services, "u1", &[]);
    let worker = services.listens("window-worker", "serving ingests address=");
    let coordinator = services.coordinator().to_owned();

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let hello = v1::WorkerHello { name: "x".repeat(HUGE), ..v1::WorkerHello::default() };
        let report = v1::WorkerReport { message: Some(worker_report::Message::Hello(hello)) };
        let mut client = CoordinatorClient::connect(format!("http://{coordinator}")).await.unwrap();
        let status = client.worker(tokio_stream::iter([report])).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");

        let hello = v1::FeedHello { job: vec![0; HUGE].into(), ..v1::FeedHello::default() };
        let request = v1::FeedRequest { message: Some(feed_request::Message::Hello(hello)) };
        let mut client = WorkerClient::connect(format!("http://{worker}")).await.unwrap();
        let status = client.feed(tokio_stream::iter([request])).await.unwrap_err();
        assert_eq!(status.code(), Code::OutOfRange, "{status:?}");
    });
    for address in [&coordinator, &worker] {
        let mut garbage = TcpStream::connect(address).unwrap();
        garbage.set_read_timeout(Some(PATIENCE)).unwrap();
        garbage.write_all(b"GET / HTTP/1.1\r\nhost: tidegate\r\n\r\n").unwrap();
        let _closed = garbage.read(&mut [0; 16]);
    }
    for name in ["watermark-coordinator", "window-worker"] {
        assert_eq!((refused(&services, name, "message"), refused(&services, name, "protocol")), (1, 1));
        services.until_logged(name, "reason=\"message\" error=Error, decoded message length too large");
        services.until_logged(name, "reason=\"protocol\" error=not HTTP/2: \"GET / HTTP/1.1");
    }

    send(&producer, &topic, 0, 1_100..1_200);
    let watermark = services.until_covered(200, WINDOW_MS);
    assert!(services.verify(watermark).contains("mismatches=0"));
}
