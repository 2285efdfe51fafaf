//! How to reach the cluster, and the client settings that every use of it shares.

use std::collections::BTreeMap;
use std::fmt;

use rdkafka::ClientConfig;
use rdkafka::config::RDKafkaLogLevel;

/// How to reach the cluster.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KafkaConfig {
    /// `host:port`, several separated by commas.
    pub brokers: String,
    /// The name under which the brokers log this client.
    pub client_id: String,
    /// Further librdkafka properties (TLS, SASL, …). They win over what tidegate sets, except over what correctness needs:
    /// isolation level, offsets, idempotence and the transactional id.
    pub extra: BTreeMap<String, String>,
}

impl fmt::Debug for KafkaConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let extra: BTreeMap<_, _> = self.extra.iter().map(|(key, value)| (key, shown(key, value))).collect();
        f.debug_struct("KafkaConfig")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("extra", &extra)
            .finish()
    }
}

/// What may be shown of a property's value.
pub(crate) fn shown<'a>(key: &str, value: &'a str) -> &'a str {
    let secret = ["password", "secret", "key.pem", "jaas", "passphrase", "oauthbearer.config"];
    if secret.iter().any(|part| key.contains(part)) { "[secret]" } else { value }
}

impl KafkaConfig {
    /// A plain-text cluster at `brokers`.
    #[must_use]
    pub fn new(brokers: impl Into<String>, client_id: impl Into<String>) -> Self {
        Self { brokers: brokers.into(), client_id: client_id.into(), extra: BTreeMap::new() }
    }

    /// `defaults`, then the user's own properties, then what is `required`.
    pub(crate) fn client(&self, defaults: &[(&str, &str)], required: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set_log_level(if self.extra.contains_key("debug") {
            RDKafkaLogLevel::Debug
        } else {
            RDKafkaLogLevel::Info
        });
        config.set("bootstrap.servers", &self.brokers).set("client.id", &self.client_id);
        // A misspelt topic is an error: looking at it does not make it, whatever the cluster's defaults are.
        config.set("allow.auto.create.topics", "false");
        // A broker that comes back is found within a second, not after ten.
        config.set("reconnect.backoff.max.ms", "1000");
        for (key, value) in defaults {
            config.set(*key, *value);
        }
        for (key, value) in &self.extra {
            config.set(key, value);
        }
        for (key, value) in required {
            config.set(*key, *value);
        }
        config
    }

    /// A producer's settings.
    pub(crate) fn producer(&self, defaults: &[(&str, &str)], required: &[(&str, &str)]) -> ClientConfig {
        self.client(defaults, required)
    }

    /// A consumer's settings. `group` is joined by a group reader; for the others it only names the client to the broker.
    pub(crate) fn consumer(&self, group: &str) -> ClientConfig {
        self.client(
            &[
                // An empty answer is what tells the end of a partition: this bounds how late it is noticed.
                ("fetch.wait.max.ms", "50"),
                // Left at its default of a second, a full queue stalls reading for that long.
                ("fetch.queue.backoff.ms", "2"),
                ("queued.max.messages.kbytes", "16384"),
                ("fetch.message.max.bytes", "1048576"),
                // A reader that dies is replaced after ten seconds.
                ("session.timeout.ms", "10000"),
                ("heartbeat.interval.ms", "1000"),
            ],
            &[
                ("group.id", group),
                ("isolation.level", "read_committed"),
                ("enable.partition.eof", "true"),
                ("enable.auto.commit", "false"),
                ("enable.auto.offset.store", "false"),
                // A position that is not in the log is an error, never a silent jump.
                ("auto.offset.reset", "error"),
                // Partitions that stay keep flowing through a rebalance, and each can be started alone.
                ("partition.assignment.strategy", "cooperative-sticky"),
            ],
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_properties_win_over_defaults_but_not_over_what_correctness_needs() {
        let mut config = KafkaConfig::new("broker:9092", "test");
        for (key, value) in [
            ("fetch.wait.max.ms", "500"),
            ("isolation.level", "read_uncommitted"),
            ("security.protocol", "ssl"),
        ] {
            config.extra.insert(key.to_owned(), value.to_owned());
        }
        let client = config.consumer("group");
        assert_eq!(client.get("fetch.wait.max.ms"), Some("500"));
        assert_eq!(client.get("fetch.queue.backoff.ms"), Some("2"));
        assert_eq!(client.get("security.protocol"), Some("ssl"));
        assert_eq!(client.get("isolation.level"), Some("read_committed"));
        assert_eq!(client.get("group.id"), Some("group"));
    }
}
