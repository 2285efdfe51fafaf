//! `tidegate trace-join`: what was on the wire and what the services logged, put together by trace.
//!
//! ```text
//! tshark -T json ─► capture ─ packets ─┐
//!                                      ├─► timeline: by trace, in order of time
//! logs of the services ─► logs ─ lines ┘
//! ```

mod capture;
mod logs;
mod push;
mod timeline;

use std::{fs::File, io::BufReader, path::PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use timeline::Timeline;

/// Joins a capture and logs.
#[derive(Args, Debug)]
pub(crate) struct TraceJoinArgs {
    /// Packets as `tshark -r FILE -T json` prints them; tell it the ports, as in `-d tcp.port==9092,kafka -d tcp.port==7500,http2`
    #[arg(long, value_name = "FILE.json")]
    capture: PathBuf,
    /// A service's log, pretty or JSON; may be given several times
    #[arg(long = "log", value_name = "FILE")]
    logs: Vec<PathBuf>,
    /// Only this trace: 32 hexadecimal digits, with or without dashes
    #[arg(long, value_name = "TRACE_ID", value_parser = TraceId::parse)]
    trace: Option<TraceId>,
    /// A JSON object a line instead of text
    #[arg(long)]
    json: bool,
    /// Also push the latencies on the wire to this Pushgateway, as `tidegate_network_latency_seconds`
    #[arg(long, value_name = "HOST:PORT")]
    push: Option<String>,
}

/// Runs `tidegate trace-join`; false when no packet or line belongs to a trace.
///
/// # Errors
/// When a file cannot be read, or the Pushgateway refuses.
pub(crate) async fn run(args: TraceJoinArgs) -> Result<bool> {
    let mut timeline = Timeline::default();
    let file = File::open(&args.capture)
        .with_context(|| format!("cannot open the capture {}", args.capture.display()))?;
    let packets = capture::read(BufReader::new(file), |packet| timeline.packet(packet))
        .with_context(|| format!("{} is not what `tshark -T json` prints", args.capture.display()))?;
    for path in &args.logs {
        let name = path.file_stem().map(|stem| stem.to_string_lossy().into_owned()).unwrap_or_default();
        let file = File::open(path).with_context(|| format!("cannot open the log {}", path.display()))?;
        logs::read(BufReader::new(file), &name, |line| timeline.line(line))
            .with_context(|| format!("reading the log {}", path.display()))?;
    }
    let entries = timeline.of(args.trace.as_ref());
    print!("{}", if args.json { timeline::json(&entries)? } else { timeline::text(&entries) });
    if entries.is_empty() {
        eprintln!(
            "no packet of {packets} and no line belongs to {}",
            match &args.trace {
                Some(trace) => format!("trace {trace}"),
                None =>
                    "a trace: were the records produced with a `traceparent`, and are they not compressed?"
                        .to_owned(),
            }
        );
    }
    if let Some(gateway) = &args.push {
        push::push(gateway, &entries).await?;
    }
    Ok(!entries.is_empty())
}

/// A trace's id: 32 hexadecimal digits in lower case, not all 0.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
pub(crate) struct TraceId(String);

impl TraceId {
    /// Reads an id, be it written as a UUID, as in `x-request-id`, or as in a `traceparent`.
    ///
    /// # Errors
    /// What is wrong.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let digits: String =
            text.trim().chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
        let hexadecimal = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        if hexadecimal && digits.bytes().any(|byte| byte != b'0') {
            Ok(Self(digits))
        } else {
            Err(format!("`{text}` is no trace id: 32 hexadecimal digits, not all 0"))
        }
    }

    /// Of a `traceparent`: `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
    pub(crate) fn of_traceparent(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let lengths = (version.len(), trace.len(), span.len(), flags.len());
        if lengths == (2, 32, 16, 2) { Self::parse(trace).ok() } else { None }
    }
}

impl std::fmt::Display for TraceId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

/// As people write it, in JSON too.
fn as_text<S: serde::Serializer>(value: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_id_is_read_from_each_of_its_forms() {
        let trace = TraceId::parse("4bf92f3577b34da6a3ce929d0e0e4736").unwrap();
        assert_eq!(TraceId::parse("4BF92F35-77b3-4da6-a3ce-929d0e0e4736"), Ok(trace.clone()));
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(TraceId::of_traceparent(parent), Some(trace));
        for wrong in ["", "4bf9", "00000000000000000000000000000000", "4bf92f3577b34da6a3ce929d0e0e473g"] {
            assert!(TraceId::parse(wrong).unwrap_err().contains(&format!("`{wrong}`")));
        }
        assert_eq!(TraceId::of_traceparent("00-4bf92f3577b34da6a3ce929d0e0e4736-00f0-01"), None);
    }
}
