//! What a check looks at, gathered before anything is judged.

use std::collections::BTreeMap;

use tidegate_kafka::{AppendTime, Copies, PartitionEnds};

use super::sample::PartitionSample;

/// A thing that was asked for, or why there is no answer.
pub(crate) type Asked<T> = Result<T, String>;

/// The cluster and the job's topics on it.
#[derive(Clone, Debug)]
pub(crate) struct Facts {
    /// As they were given.
    pub(crate) address: String,
    /// Ids of the brokers that are up.
    pub(crate) brokers: Vec<i32>,
    /// The configuration of one of them.
    pub(crate) broker: Asked<BTreeMap<String, String>>,
    pub(crate) source: Topic,
    pub(crate) sink: Topic,
    pub(crate) dead_letter: Topic,
    pub(crate) changelog: Topic,
    pub(crate) control: Topic,
    /// What was tried.
    pub(crate) attempts: Vec<Attempt>,
    /// The brokers' clocks.
    pub(crate) clocks: Asked<Vec<AppendTime>>,
    /// The clock of this machine.
    pub(crate) now_ms: i64,
    /// The last records of each partition of the source.
    pub(crate) sample: Asked<Vec<PartitionSample>>,
}

/// A topic of the job.
#[derive(Clone, Debug)]
pub(crate) struct Topic {
    pub(crate) name: String,
    /// What it is; `None` where it does not exist.
    pub(crate) found: Option<FoundTopic>,
    /// Whether the cluster would create it, where the coordinator is to.
    pub(crate) creatable: Option<Asked<()>>,
}

/// A topic that exists.
#[derive(Clone, Debug)]
pub(crate) struct FoundTopic {
    pub(crate) partitions: u32,
    /// Its configuration, or why it cannot be read.
    pub(crate) configs: Asked<BTreeMap<String, String>>,
    pub(crate) copies: Vec<Copies>,
    pub(crate) ends: Vec<PartitionEnds>,
}

impl FoundTopic {
    /// A setting, where it is known.
    pub(crate) fn setting(&self, key: &str) -> Option<&str> {
        self.configs.as_ref().ok()?.get(key).map(String::as_str)
    }

    /// A setting that is a number.
    pub(crate) fn number(&self, key: &str) -> Option<i64> {
        self.setting(key)?.trim().parse().ok()
    }

    /// Whether its `cleanup.policy` names `policy`.
    pub(crate) fn has_policy(&self, policy: &str) -> bool {
        self.setting("cleanup.policy").is_some_and(|set| set.split(',').any(|one| one.trim() == policy))
    }
}

/// Something that was really tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Attempt {
    /// The word for it.
    pub(crate) name: &'static str,
    /// What was tried.
    pub(crate) what: String,
    pub(crate) outcome: Asked<()>,
    /// What to do where it failed.
    pub(crate) fix: String,
}
