//! The control topic: who leads the job, and what the job is.
//!
//! | key | value |
//! |---|---|
//! | `leader` | [`LeaderRecord`]; its offset is the term of the coordinator that wrote it |
//! | `job` | [`JobRecord`] |
//! | `replay/<number>` | [`ReplayRecord`]; without a value once it is forgotten |
//!
//! It is written only under the transactional id `<job>-control`, so that of two coordinators the earlier is fenced.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tidegate_core::announcement::Term;
use tidegate_core::time::Partition;
use tidegate_kafka::{ChangelogReader, Entry, KafkaConfig};
use uuid::Uuid;

use crate::error::{Error, Result};
use crate::job_record::JobRecord;
use crate::replay_record::ReplayRecord;

/// The key of the job record.
pub(crate) const JOB_KEY: &str = "job";
/// The key of the leader record.
pub(crate) const LEADER_KEY: &str = "leader";
/// The topic's only partition.
pub(crate) const PARTITION: Partition = Partition(0);

const LEADER_VERSION: u32 = 1;

/// Written by a coordinator when it begins to lead.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeaderRecord {
    version: u32,
    /// Drawn for each writing: by it the writer finds its record again.
    leader: String,
    /// The name of the coordinator that wrote it, the same over restarts, where it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    instance: Option<String>,
}

impl LeaderRecord {
    /// A record like no other, of the coordinator `instance`.
    pub(crate) fn draw(instance: Option<&str>) -> Self {
        let instance = instance.map(str::to_owned);
        Self { version: LEADER_VERSION, leader: Uuid::new_v4().to_string(), instance }
    }

    /// Whether the coordinator `instance` wrote it.
    pub(crate) fn is_of(&self, instance: Option<&str>) -> bool {
        self.instance.is_some() && self.instance.as_deref() == instance
    }
}

/// What the control topic says: the last record of each key.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) leader: Option<(Term, LeaderRecord)>,
    pub(crate) job: Option<JobRecord>,
    pub(crate) replays: BTreeMap<u64, ReplayRecord>,
}

impl Control {
    /// Reads the topic to its end. Blocks.
    ///
    /// # Errors
    ///
    /// When it cannot be read, an open transaction keeps its end hidden for `patience`, or a record does not read.
    pub(crate) fn read(config: &KafkaConfig, topic: &str, patience: Duration) -> Result<Self> {
        let mut control = Self::default();
        let take = |entry: Entry<'_>| control.take(topic, &entry);
        ChangelogReader::open(config, topic)?.read::<Error>(PARTITION, None, patience, take)?;
        Ok(control)
    }

    fn take(&mut self, topic: &str, entry: &Entry<'_>) -> Result<()> {
        let unreadable =
            |key, reason| Error::Record { topic: topic.to_owned(), offset: entry.offset.0, key, reason };
        let Some(key) = entry.key else { return Ok(()) };
        if let Some(number) = ReplayRecord::number_of(key) {
            match entry.value.map(ReplayRecord::decode).transpose() {
                Ok(Some(record)) => self.replays.insert(number, record),
                Ok(None) => self.replays.remove(&number),
                Err(reason) => return Err(unreadable("replay", reason)),
            };
            return Ok(());
        }
        // Other keys belong to other readers of the topic.
        let Some(value) = entry.value else { return Ok(()) };
        if key == LEADER_KEY.as_bytes() {
            let record =
                serde_json::from_slice(value).map_err(|error| unreadable(LEADER_KEY, error.to_string()))?;
            self.leader = Some((Term(entry.offset.0), record));
        } else if key == JOB_KEY.as_bytes() {
            self.job = Some(JobRecord::decode(value).map_err(|reason| unreadable(JOB_KEY, reason))?);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::time::Offset;

    fn entry<'a>(offset: u64, key: &'a str, value: &'a [u8]) -> Entry<'a> {
        Entry { offset: Offset(offset), key: Some(key.as_bytes()), value: Some(value) }
    }

    #[test]
    fn the_last_leader_counts_and_its_offset_is_the_term() {
        let mut control = Control::default();
        let (first, last) = (LeaderRecord::draw(None), LeaderRecord::draw(Some("a")));
        control.take("c", &entry(3, LEADER_KEY, &serde_json::to_vec(&first).unwrap())).unwrap();
        control.take("c", &entry(4, "request", b"?")).unwrap();
        control.take("c", &entry(9, LEADER_KEY, &serde_json::to_vec(&last).unwrap())).unwrap();
        assert_eq!(control, Control { leader: Some((Term(9), last)), ..Control::default() });
        assert_ne!(first, control.leader.unwrap().1);
    }

    #[test]
    fn a_record_names_its_writer_where_that_has_a_name() {
        let named = LeaderRecord::draw(Some("a"));
        assert!(named.is_of(Some("a")) && !named.is_of(Some("b")) && !named.is_of(None));
        let earlier: LeaderRecord = serde_json::from_str(r#"{"version":1,"leader":"x"}"#).unwrap();
        assert!(!earlier.is_of(None), "two without a name are not the same");
    }

    #[test]
    fn the_last_record_of_a_replay_counts_and_one_without_a_value_is_forgotten() {
        let mut control = Control::default();
        let record = |number| ReplayRecord {
            number,
            token: 1,
            automatic: false,
            dry_run: false,
            filter: tidegate_core::replay_request::ReplayFilter::default(),
            ranges: Vec::new(),
            topics: Vec::new(),
            topic: 0,
            requested: 5,
            end: None,
        };
        for number in [1, 2] {
            let json = record(number).encode().unwrap();
            control.take("c", &entry(number, &ReplayRecord::key(number), &json)).unwrap();
        }
        let key = ReplayRecord::key(1);
        let forgotten = Entry { value: None, ..entry(9, &key, b"") };
        control.take("c", &forgotten).unwrap();
        assert_eq!(control.replays, BTreeMap::from([(2, record(2))]));
    }

    #[test]
    fn a_record_that_does_not_read_is_named() {
        let error = Control::default().take("clicks-control", &entry(5, JOB_KEY, b"{}")).unwrap_err();
        assert!(
            error.to_string().starts_with("topic `clicks-control` offset 5: the `job` record"),
            "{error}"
        );
    }
}
