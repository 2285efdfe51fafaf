//! The configuration of a topic: what was set on it over the broker's defaults (those of Apache Kafka 4).
//!
//! Unknown keys and unusable values are refused when they are set. Honoured: `max.message.bytes`,
//! `message.timestamp.type`, `message.timestamp.before.max.ms` and `…after.max.ms`, and of `cleanup.policy=compact` that
//! records need a key. The rest is kept and described, nothing more; Kafka caps `min.insync.replicas` at the number of
//! replicas, which is one here.

use std::collections::BTreeMap;

/// Every topic configuration with its default.
const DEFAULTS: &[(&str, &str, Kind)] = &[
    ("cleanup.policy", "delete", Kind::Policies),
    ("compression.gzip.level", "-1", Kind::Number { min: -1 }),
    ("compression.lz4.level", "9", Kind::Number { min: 1 }),
    ("compression.type", "producer", Kind::Text),
    ("compression.zstd.level", "3", Kind::Number { min: -131_072 }),
    ("delete.retention.ms", "86400000", Kind::Number { min: 0 }),
    ("file.delete.delay.ms", "60000", Kind::Number { min: 0 }),
    ("flush.messages", "9223372036854775807", Kind::Number { min: 1 }),
    ("flush.ms", "9223372036854775807", Kind::Number { min: 0 }),
    ("follower.replication.throttled.replicas", "", Kind::Text),
    ("index.interval.bytes", "4096", Kind::Number { min: 0 }),
    ("leader.replication.throttled.replicas", "", Kind::Text),
    ("local.retention.bytes", "-2", Kind::Number { min: -2 }),
    ("local.retention.ms", "-2", Kind::Number { min: -2 }),
    ("max.compaction.lag.ms", "9223372036854775807", Kind::Number { min: 1 }),
    (MAX_MESSAGE_BYTES, "1048588", Kind::Number { min: 0 }),
    (TIMESTAMP_AFTER_MAX, "3600000", Kind::Number { min: 0 }),
    (TIMESTAMP_BEFORE_MAX, "9223372036854775807", Kind::Number { min: 0 }),
    (TIMESTAMP_TYPE, "CreateTime", Kind::OneOf(&["CreateTime", "LogAppendTime"])),
    ("min.cleanable.dirty.ratio", "0.5", Kind::Text),
    ("min.compaction.lag.ms", "0", Kind::Number { min: 0 }),
    ("min.insync.replicas", "1", Kind::Number { min: 1 }),
    ("preallocate", "false", Kind::OneOf(BOOLEAN)),
    ("remote.log.copy.disable", "false", Kind::OneOf(BOOLEAN)),
    ("remote.log.delete.on.disable", "false", Kind::OneOf(BOOLEAN)),
    ("remote.storage.enable", "false", Kind::OneOf(BOOLEAN)),
    ("retention.bytes", "-1", Kind::Number { min: i64::MIN }),
    ("retention.ms", "604800000", Kind::Number { min: -1 }),
    ("segment.bytes", "1073741824", Kind::Number { min: 1_048_576 }),
    ("segment.index.bytes", "10485760", Kind::Number { min: 4 }),
    ("segment.jitter.ms", "0", Kind::Number { min: 0 }),
    ("segment.ms", "604800000", Kind::Number { min: 1 }),
    ("unclean.leader.election.enable", "false", Kind::OneOf(BOOLEAN)),
];

const BOOLEAN: &[&str] = &["true", "false"];
const CLEANUP_POLICY: &str = "cleanup.policy";
const MAX_MESSAGE_BYTES: &str = "max.message.bytes";
const TIMESTAMP_AFTER_MAX: &str = "message.timestamp.after.max.ms";
const TIMESTAMP_BEFORE_MAX: &str = "message.timestamp.before.max.ms";
const TIMESTAMP_TYPE: &str = "message.timestamp.type";

#[derive(Clone, Copy)]
enum Kind {
    Number { min: i64 },
    OneOf(&'static [&'static str]),
    Policies,
    Text,
}

/// One key as it is described to a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Entry<'a> {
    pub(crate) name: &'static str,
    pub(crate) value: &'a str,
    pub(crate) is_default: bool,
}

/// The configuration of one topic.
#[derive(Clone, Debug)]
pub(crate) struct TopicConfig {
    set: BTreeMap<String, String>,
    pub(crate) max_message_bytes: usize,
    pub(crate) log_append_time: bool,
    pub(crate) timestamp_after_max_ms: i64,
    /// How old a record may be on arrival, where there is a limit.
    pub(crate) timestamp_before_max_ms: Option<i64>,
    pub(crate) compact: bool,
}

impl TopicConfig {
    /// Checks what is set; an error says which key and why, for the client.
    pub(crate) fn new(set: BTreeMap<String, String>) -> Result<Self, String> {
        for (name, value) in &set {
            check(name, value)?;
        }
        let value = |name| value_of(&set, name);
        let number = |name| value(name).parse().unwrap_or(i64::MAX);
        Ok(Self {
            max_message_bytes: usize::try_from(number(MAX_MESSAGE_BYTES)).unwrap_or(usize::MAX),
            log_append_time: value(TIMESTAMP_TYPE) == "LogAppendTime",
            timestamp_after_max_ms: number(TIMESTAMP_AFTER_MAX),
            timestamp_before_max_ms: Some(number(TIMESTAMP_BEFORE_MAX)).filter(|&limit| limit < i64::MAX),
            compact: value(CLEANUP_POLICY).split(',').any(|policy| policy.trim() == "compact"),
            set,
        })
    }

    /// What was set, without the defaults.
    pub(crate) fn set(&self) -> &BTreeMap<String, String> {
        &self.set
    }

    /// Every key, in order of name.
    pub(crate) fn entries(&self) -> impl Iterator<Item = Entry<'_>> {
        DEFAULTS.iter().map(|&(name, default, _)| {
            let set = self.set.get(name);
            Entry { name, value: set.map_or(default, String::as_str), is_default: set.is_none() }
        })
    }

    /// Whether a key holds a list, so that values can be appended to it.
    pub(crate) fn is_list(name: &str) -> bool {
        name == CLEANUP_POLICY || name.ends_with(".throttled.replicas")
    }

    /// The value of a key, set or by default.
    pub(crate) fn get(&self, name: &str) -> &str {
        value_of(&self.set, name)
    }
}

fn value_of<'a>(set: &'a BTreeMap<String, String>, name: &str) -> &'a str {
    match set.get(name) {
        Some(value) => value,
        None => default_of(name).map_or("", |(default, _)| default),
    }
}

fn default_of(name: &str) -> Option<(&'static str, Kind)> {
    DEFAULTS.iter().find(|(key, _, _)| *key == name).map(|&(_, default, kind)| (default, kind))
}

fn check(name: &str, value: &str) -> Result<(), String> {
    let Some((_, kind)) = default_of(name) else {
        return Err(format!("Unknown topic config name: {name}"));
    };
    let usable = match kind {
        Kind::Number { min } => value.trim().parse::<i64>().is_ok_and(|number| number >= min),
        Kind::OneOf(values) => values.contains(&value),
        Kind::Policies => value.split(',').all(|policy| ["compact", "delete", ""].contains(&policy.trim())),
        Kind::Text => true,
    };
    if usable { Ok(()) } else { Err(format!("Invalid value {value} for configuration {name}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(set: &[(&str, &str)]) -> Result<TopicConfig, String> {
        let set = set.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        TopicConfig::new(set.collect())
    }

    #[test]
    fn what_is_set_lies_over_the_defaults() {
        let config = config(&[("cleanup.policy", "compact,delete"), ("max.message.bytes", "1000")]).unwrap();
        assert!(config.compact && !config.log_append_time);
        assert_eq!(config.max_message_bytes, 1000);
        let entries: Vec<_> = config.entries().collect();
        let retention = entries.iter().find(|entry| entry.name == "retention.ms").unwrap();
        assert_eq!((retention.value, retention.is_default), ("604800000", true));
        let bytes = entries.iter().find(|entry| entry.name == "max.message.bytes").unwrap();
        assert_eq!((bytes.value, bytes.is_default), ("1000", false));
        assert!(entries.is_sorted_by_key(|entry| entry.name));
    }

    #[test]
    fn unknown_keys_and_unusable_values_are_refused() {
        assert!(config(&[("no.such.key", "1")]).unwrap_err().contains("no.such.key"));
        assert!(config(&[("retention.ms", "soon")]).unwrap_err().contains("retention.ms"));
        assert!(config(&[("retention.ms", "-2")]).is_err());
        assert!(config(&[("cleanup.policy", "compress")]).is_err());
        assert!(config(&[("message.timestamp.type", "createtime")]).is_err());
    }
}
