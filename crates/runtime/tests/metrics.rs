//! The endpoint as a scraper and a load balancer see it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

use std::net::SocketAddr;

use prometheus_client::metrics::counter::Counter;
use tidegate_runtime::metrics::{Endpoint, Readiness, registry};
use tidegate_runtime::task::{Reason, Shutdown, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn request(address: SocketAddr, line: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{line} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut response = String::new();
    stream.read_to_string(&mut response).await.unwrap();
    response
}

fn loopback() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

#[tokio::test]
async fn it_serves_metrics_health_and_readiness() {
    let endpoint = Endpoint::bind(loopback()).await.unwrap();
    let address = endpoint.address();
    let (mut registry, readiness, shutdown) = (registry("clicks"), Readiness::new(), Shutdown::new());
    let records = Counter::<u64>::default();
    registry.register("records", "Records read", records.clone());
    records.inc_by(42);
    spawn("metrics", endpoint.serve(registry, readiness.clone(), shutdown.clone()));

    let metrics = request(address, "GET /metrics").await;
    assert!(metrics.starts_with("HTTP/1.1 200"), "{metrics}");
    assert!(metrics.contains("content-type: application/openmetrics-text"), "{metrics}");
    assert!(metrics.contains("\nrecords_total{tidegate_job=\"clicks\"} 42\n"), "{metrics}");
    assert!(metrics.ends_with("# EOF\n"), "{metrics}");
    let figures =
        ["process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds"];
    for name in figures {
        let sample = format!("{name}{{tidegate_job=\"clicks\"}} ");
        let value = metrics.lines().find_map(|line| line.strip_prefix(&sample)).expect(name);
        assert!(value.parse::<f64>().unwrap() >= 0.0, "{name} {value}");
    }
    assert!(metrics.contains("\ntidegate_build_info{tidegate_job=\"clicks\",version=\""), "{metrics}");

    assert!(request(address, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    let starting = request(address, "GET /readyz").await;
    assert!(starting.starts_with("HTTP/1.1 503") && starting.ends_with("starting\n"), "{starting}");
    readiness.ready();
    assert!(request(address, "GET /readyz").await.starts_with("HTTP/1.1 200"));
    readiness.not_ready("no coordinator");
    assert!(request(address, "GET /readyz").await.ends_with("no coordinator\n"));
    readiness.ready();
    shutdown.request(Reason::Done);
    assert!(request(address, "GET /readyz").await.ends_with("draining\n"));

    assert!(request(address, "GET /nothing").await.starts_with("HTTP/1.1 404"));
    assert!(request(address, "POST /metrics").await.starts_with("HTTP/1.1 405"));
}

#[tokio::test]
async fn a_taken_address_is_named() {
    let endpoint = Endpoint::bind(loopback()).await.unwrap();
    let error = Endpoint::bind(endpoint.address()).await.unwrap_err().to_string();
    assert!(error.contains(&endpoint.address().to_string()) && error.contains("--metrics"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn silent_connections_do_not_keep_a_scraper_out_for_ever() {
    let endpoint = Endpoint::bind(loopback()).await.unwrap();
    let address = endpoint.address();
    spawn("metrics", endpoint.serve(registry("clicks"), Readiness::new(), Shutdown::new()));
    let mut silent = Vec::new();
    for _ in 0..20 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    assert!(request(address, "GET /healthz").await.starts_with("HTTP/1.1 200"));
}
