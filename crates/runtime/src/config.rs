//! The flags that every service has; a service flattens them into its own.
//!
//! Addresses default to loopback; port 0 takes a free port, so name one where the address has to be known.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::{telemetry, tls};

/// Flags common to ingest, watermark-coordinator and window-worker.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub struct Common {
    /// Job file
    #[arg(long, value_name = "FILE")]
    pub job: PathBuf,
    /// Kafka brokers, separated by commas
    #[arg(long, value_name = "BROKERS", default_value = "127.0.0.1:9092")]
    pub kafka: String,
    /// Mutual TLS with the other services.
    #[command(flatten)]
    #[serde(flatten)]
    pub tls: tls::Flags,
    /// Address to serve /metrics, /healthz and /readyz on
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:0")]
    pub metrics: SocketAddr,
    /// Form of the log, on stderr
    #[arg(long, value_name = "FORM", value_enum, default_value_t)]
    pub log_format: telemetry::Format,
    /// What to log, by level and module: `info`, `info,tidegate_ingest=debug`
    #[arg(long, value_name = "FILTER", default_value = "info")]
    pub log: String,
    /// How long to go on after SIGTERM or SIGINT to finish what is in flight
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = duration)]
    #[serde(serialize_with = "as_text")]
    pub drain: Duration,
    /// Print the configuration and leave
    #[arg(long)]
    #[serde(skip)]
    pub print_config: bool,
}

impl Common {
    /// What [`telemetry::init`] needs of these: a log, and no traces.
    #[must_use]
    pub fn telemetry(&self, service: &'static str) -> telemetry::Settings {
        let filter = self.log.clone();
        telemetry::Settings { service, format: self.log_format, filter, otlp: None, sample: 0.0 }
    }
}

/// Flags of ingest and window-worker: where the coordinators are, and where traces go.
#[derive(Clone, Debug, Serialize, clap::Args)]
pub struct Peers {
    /// Addresses of the watermark coordinators, separated by commas
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:7400", value_delimiter = ',')]
    pub coordinator: Vec<String>,
    /// Collector to send traces to by OTLP over gRPC, for example `http://127.0.0.1:4317`
    #[arg(long, value_name = "URL")]
    pub otlp: Option<String>,
}

/// Reads `100ms`, `5s`, `2m`, `1h`: a whole number and its unit.
///
/// # Errors
/// What is wrong with `text` and what to write.
pub fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let parts = text.split_at_checked(digits);
    let parsed = parts.and_then(|(number, unit)| {
        let number: u64 = number.parse().ok()?;
        match unit {
            "ms" => Some(Duration::from_millis(number)),
            "s" => Some(Duration::from_secs(number)),
            "m" => number.checked_mul(60).map(Duration::from_secs),
            "h" => number.checked_mul(3600).map(Duration::from_secs),
            _ => None,
        }
    });
    parsed
        .ok_or_else(|| format!("`{text}` is no duration: write a whole number and ms, s, m or h, such as 5s"))
}

/// Reads a share: a number from 0 to 1.
///
/// # Errors
/// What is wrong with `text` and what to write.
pub fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| (0.0..=1.0).contains(share));
    share.ok_or_else(|| format!("`{text}` is no share: write a number from 0 to 1, such as 0.01"))
}

/// Shows a duration as [`duration`] reads it.
///
/// # Errors
/// Those of the serializer.
pub fn as_text<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    let millis = duration.as_millis();
    let text =
        if millis.is_multiple_of(1000) { format!("{}s", millis / 1000) } else { format!("{millis}ms") };
    serializer.serialize_str(&text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Service {
        #[command(flatten)]
        common: Common,
    }

    #[test]
    fn a_share_is_between_nothing_and_all() {
        assert_eq!((share("0"), share("0.01"), share("1")), (Ok(0.0), Ok(0.01), Ok(1.0)));
        for wrong in ["-0.1", "1.1", "NaN", "1%", ""] {
            assert!(share(wrong).unwrap_err().contains(&format!("`{wrong}`")));
        }
    }

    #[test]
    fn durations_are_a_whole_number_and_a_unit() {
        assert_eq!(duration("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(duration("1h"), Ok(Duration::from_secs(3600)));
        for wrong in [
            "",
            "5",
            "s",
            "-5s",
            "1.5s",
            "5 s",
            "5d",
            "99999999999999999999s",
            "18446744073709551615h",
            "5µs",
        ] {
            let error = duration(wrong).unwrap_err();
            assert!(error.contains(&format!("`{wrong}`")), "{error}");
        }
    }

    #[test]
    fn the_flags_have_working_defaults_on_loopback() {
        let common = Service::try_parse_from(["service", "--job", "job.yaml"]).unwrap().common;
        assert!(common.metrics.ip().is_loopback());
        assert_eq!(common.log, "info");
        let shown = serde_json::to_value(&common).unwrap();
        assert_eq!(shown["drain"], "20s");
        assert_eq!(shown["log_format"], "pretty");
    }

    #[test]
    fn a_missing_job_and_a_wrong_value_are_refused() {
        assert!(Service::try_parse_from(["service"]).is_err());
        for wrong in ["--drain=5", "--listen=here", "--log-format=xml"] {
            assert!(Service::try_parse_from(["service", "--job", "j", wrong]).is_err(), "{wrong}");
        }
    }
}
