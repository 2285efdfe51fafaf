//! What a service has refused its peers: counted, and said in the log without filling it.

use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tokio::time::Instant;
use tonic::{Code, Status, Streaming};

/// Lines of one reason are at least this far apart.
const EVERY: Duration = Duration::from_secs(10);
/// How long a peer may take to say hello on a stream.
const HELLO: Duration = Duration::from_secs(10);

/// Why a peer is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// There are too many connections, from it or in all.
    Connections,
    /// No TLS, no certificate, or a wrong one.
    Tls,
    /// It does not speak HTTP/2.
    Protocol,
    /// It takes too long to the first word.
    Slow,
    /// A message is larger than any that we send.
    Message,
    /// It was cut off: it broke HTTP/2, or answers no pings.
    CutOff,
}

impl Reason {
    const ALL: [Self; 6] =
        [Self::Connections, Self::Tls, Self::Protocol, Self::Slow, Self::Message, Self::CutOff];

    const fn label(self) -> &'static str {
        match self {
            Self::Connections => "connections",
            Self::Tls => "tls",
            Self::Protocol => "protocol",
            Self::Slow => "slow",
            Self::Message => "message",
            Self::CutOff => "cut_off",
        }
    }

    const fn index(self) -> usize {
        match self {
            Self::Connections => 0,
            Self::Tls => 1,
            Self::Protocol => 2,
            Self::Slow => 3,
            Self::Message => 4,
            Self::CutOff => 5,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    reason: Reason,
}

impl EncodeLabelValue for Reason {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        self.label().encode(encoder)
    }
}

/// The refusals of a process; clones are the same.
#[derive(Clone, Debug, Default)]
pub struct Refusals(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    total: Family<Labels, Counter>,
    said: Mutex<[Said; Reason::ALL.len()]>,
}

/// What was said of one reason.
#[derive(Clone, Copy, Debug, Default)]
struct Said {
    last: Option<Instant>,
    withheld: u64,
}

impl Refusals {
    /// Puts the counter into `registry`, with a series for each reason.
    pub fn register(&self, registry: &mut Registry) {
        for reason in Reason::ALL {
            let _ = self.0.total.get_or_create(&Labels { reason });
        }
        let help = "Connections and messages of peers that were refused, by reason";
        registry.register("tidegate_refused_peers", help, self.0.total.clone());
    }

    /// `peer` is refused, for this reason and with these words.
    pub fn refuse(&self, reason: Reason, peer: impl fmt::Display, why: impl fmt::Display) {
        self.0.total.get_or_create(&Labels { reason }).inc();
        let Some(withheld) = self.admit(reason, Instant::now()) else { return };
        tracing::warn!(%peer, reason = reason.label(), error = %why, withheld, "a peer was refused");
    }

    /// The same for a message that could not be read, where that is why a stream broke.
    pub fn refuse_message(&self, peer: Option<SocketAddr>, status: &Status) {
        if matches!(status.code(), Code::OutOfRange | Code::ResourceExhausted) {
            self.refuse(Reason::Message, name(peer), status.message());
        }
    }

    /// The first message of a stream; `None` where it ends before.
    ///
    /// # Errors
    /// When it does not come in time, or cannot be read.
    pub async fn first<T>(
        &self,
        peer: Option<SocketAddr>,
        incoming: &mut Streaming<T>,
    ) -> Result<Option<T>, Status> {
        let Ok(first) = tokio::time::timeout(HELLO, incoming.message()).await else {
            let why = format!("no hello within {} s", HELLO.as_secs());
            self.refuse(Reason::Slow, name(peer), &why);
            return Err(Status::deadline_exceeded(why));
        };
        first.inspect_err(|status| self.refuse_message(peer, status))
    }

    /// How often a peer was refused for this reason.
    #[must_use]
    pub fn count(&self, reason: Reason) -> u64 {
        self.0.total.get_or_create(&Labels { reason }).get()
    }

    /// How many lines were withheld since the last one, where this one is to be said.
    fn admit(&self, reason: Reason, now: Instant) -> Option<u64> {
        let mut said = self.0.said.lock().unwrap_or_else(PoisonError::into_inner);
        let said = said.get_mut(reason.index())?;
        if said.last.is_some_and(|last| now.saturating_duration_since(last) < EVERY) {
            said.withheld += 1;
            return None;
        }
        said.last = Some(now);
        Some(std::mem::take(&mut said.withheld))
    }
}

fn name(peer: Option<SocketAddr>) -> String {
    peer.map_or_else(|| "unknown".to_owned(), |peer| peer.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_said_at_once_then_every_ten_seconds_with_what_was_withheld() {
        let refusals = Refusals::default();
        let start = Instant::now();
        let at = |reason, second: u64| refusals.admit(reason, start + Duration::from_secs(second));
        assert_eq!(at(Reason::Tls, 0), Some(0));
        assert_eq!((at(Reason::Tls, 1), at(Reason::Tls, 9)), (None, None));
        assert_eq!(at(Reason::Slow, 9), Some(0), "another reason has lines of its own");
        assert_eq!(at(Reason::Tls, 10), Some(2));
        assert_eq!(Reason::ALL.map(Reason::index), [0, 1, 2, 3, 4, 5]);
    }

    #[test]
    fn what_is_withheld_from_the_log_is_counted() {
        let (refusals, mut registry) = (Refusals::default(), Registry::default());
        refusals.register(&mut registry);
        for _ in 0..3 {
            refusals.refuse(Reason::Protocol, "127.0.0.1:9", "not HTTP/2");
        }
        refusals.refuse_message(None, &Status::out_of_range("too large"));
        refusals.refuse_message(None, &Status::unavailable("gone"));
        let mut text = String::new();
        prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
        for line in ["{reason=\"protocol\"} 3", "{reason=\"message\"} 1", "{reason=\"tls\"} 0"] {
            assert!(text.contains(&format!("tidegate_refused_peers_total{line}")), "{text}");
        }
    }
}
