//! Latencies to a Pushgateway, as a histogram by protocol.

use std::{collections::BTreeMap, fmt::Write, time::Duration};

use anyhow::{Context, Result, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::timeline::Entry;

const PATIENCE: Duration = Duration::from_secs(10);
/// Seconds, from loopback to a network in trouble.
const BOUNDS: [f64; 9] = [0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0];

/// Replaces what was pushed before under this job.
///
/// # Errors
/// When the gateway cannot be reached, or refuses.
pub(crate) async fn push(gateway: &str, entries: &[Entry]) -> Result<()> {
    let gateway = gateway.strip_prefix("http://").unwrap_or(gateway).trim_end_matches('/');
    let body = exposition(entries);
    let request = format!(
        "PUT /metrics/job/tidegate_trace_join HTTP/1.0\r\nhost: {gateway}\r\ncontent-type: text/plain; version=0.0.4\r\n\
         content-length: {}\r\n\r\n{body}",
        body.len()
    );
    let answer = tokio::time::timeout(PATIENCE, exchange(gateway, &request)).await;
    let answer = answer
        .with_context(|| format!("the Pushgateway {gateway} does not answer"))?
        .with_context(|| format!("cannot push to {gateway}"))?;
    match answer.split(' ').nth(1) {
        Some(status) if status.starts_with('2') => Ok(()),
        _ => bail!("the Pushgateway {gateway} refuses: {}", answer.trim()),
    }
}

async fn exchange(gateway: &str, request: &str) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(gateway).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

/// The text format of Prometheus.
fn exposition(entries: &[Entry]) -> String {
    let mut latencies: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for entry in entries {
        if let Entry::Capture(packet) = entry
            && let Some(milliseconds) = packet.network_latency_ms
        {
            latencies.entry(packet.protocol).or_default().push(milliseconds / 1000.0);
        }
    }
    let name = "tidegate_network_latency_seconds";
    let mut text = format!(
        "# HELP {name} Between packets of a connection, of those that belong to a trace\n# TYPE {name} histogram\n"
    );
    for (protocol, seconds) in latencies {
        let mut bucket = |bound: String, count: usize| {
            let _ = writeln!(text, "{name}_bucket{{protocol=\"{protocol}\",le=\"{bound}\"}} {count}");
        };
        for bound in BOUNDS {
            bucket(bound.to_string(), seconds.iter().filter(|second| **second <= bound).count());
        }
        bucket("+Inf".to_owned(), seconds.len());
        let _ = writeln!(text, "{name}_sum{{protocol=\"{protocol}\"}} {}", seconds.iter().sum::<f64>());
        let _ = writeln!(text, "{name}_count{{protocol=\"{protocol}\"}} {}", seconds.len());
    }
    text
}
