//! What can be said of a topic: its name and id, where its partitions end, how its role wants it configured.

use std::collections::BTreeMap;

use tidegate_core::time::{Offset, Partition};

/// Where a partition begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionEnds {
    /// The partition.
    pub partition: Partition,
    /// The first offset there is.
    pub log_start: Offset,
    /// What `read_committed` readers can see ends here: an open transaction holds it below the high watermark.
    pub last_stable: Offset,
    /// The offset of the next record to be written.
    pub high_watermark: Offset,
}

/// What the cluster calls a topic, over its whole life: one that is deleted and made anew has another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TopicId(pub u128);

/// A topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicDescription {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// Its id; `None` where the brokers know none.
    pub id: Option<TopicId>,
}

/// The copies of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Copies {
    /// The partition.
    pub partition: Partition,
    /// How many there are to be.
    pub replicas: usize,
    /// How many have all that is acknowledged.
    pub in_sync: usize,
}

/// A topic to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewTopic {
    /// Its name.
    pub name: String,
    /// How many partitions.
    pub partitions: u32,
    /// How many copies; without it what the cluster does by default.
    pub replication: Option<u16>,
    /// Its configuration.
    pub configs: BTreeMap<String, String>,
}

/// What making a topic came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Created {
    /// It is new.
    Created,
    /// It was there; it may have other partitions and another configuration.
    Exists,
}

/// What a topic is for, and so how it must be configured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TopicRole {
    /// Every block counts until it is deleted on purpose: no retention by time or size.
    Changelog,
    /// The last record of a key counts.
    Control,
}

impl TopicRole {
    /// The settings without which data of tidegate is lost.
    #[must_use]
    pub const fn required(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Changelog => {
                &[("cleanup.policy", "delete"), ("retention.ms", "-1"), ("retention.bytes", "-1")]
            }
            Self::Control => &[("cleanup.policy", "compact")],
        }
    }
}

impl NewTopic {
    /// A topic as `role` needs it.
    #[must_use]
    pub fn of_role(name: impl Into<String>, partitions: u32, role: TopicRole) -> Self {
        let configs = role.required().iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Self { name: name.into(), partitions, replication: None, configs: configs.collect() }
    }
}
