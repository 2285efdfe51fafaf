//! The record of a replay that was asked for: written when it is asked for, and again when it has ended.
//!
//! It is JSON under the key `replay/<number>` of the control topic and begins with its version. A coordinator that comes to lead
//! goes on with those that have not ended.

use serde::{Deserialize, Serialize};
use tidegate_core::dead_letter::Reason;
use tidegate_core::replay_request::{ReplayFilter, ReplayRange, ReplayTally};
use tidegate_core::time::{EventTime, Offset, Partition};
use tidegate_kafka::TopicId;

/// Rises when a reader of an older version would misunderstand the record.
const VERSION: u32 = 1;
/// What the keys of these records begin with.
const PREFIX: &str = "replay/";

/// A replay that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayRecord {
    /// Counts the job's replays, from 1.
    pub number: u64,
    /// Drawn by whoever asked.
    pub token: u64,
    /// Asked for by the coordinator itself.
    pub automatic: bool,
    /// Nothing is replayed, only counted.
    pub dry_run: bool,
    /// Which dead letters.
    pub filter: ReplayFilter,
    /// From where to where: what there was when it was asked for.
    pub ranges: Vec<ReplayRange>,
    /// The topics that the job has had for its dead letters when it was asked for a replay: shards keep apart by the number of the
    /// topic what they have answered for.
    pub topics: Vec<DeadLetterTopic>,
    /// Which of them it is about.
    pub topic: u32,
    /// When it was asked for, ms.
    pub requested: i64,
    /// How it ended; `None`: it waits, or runs.
    pub end: Option<ReplayEnd>,
}

/// A topic of dead letters; one that was deleted and created anew is another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetterTopic {
    /// Its name.
    pub name: String,
    /// Its identity; `None` where the brokers know none.
    pub id: Option<TopicId>,
}

/// How a replay ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayEnd {
    /// Taken back before all was read.
    pub cancelled: bool,
    /// When, ms.
    pub at: i64,
    /// What became of the dead letters, as far as the ingest that did it last has told.
    pub tally: ReplayTally,
}

impl ReplayRecord {
    /// The key of the record.
    #[must_use]
    pub fn key(number: u64) -> String {
        format!("{PREFIX}{number}")
    }

    /// The number in the key of such a record; `None` for other keys.
    #[must_use]
    pub fn number_of(key: &[u8]) -> Option<u64> {
        std::str::from_utf8(key).ok()?.strip_prefix(PREFIX)?.parse().ok()
    }

    /// The record as JSON.
    ///
    /// # Errors
    ///
    /// Never for a record of this process; `serde_json` leaves it open.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        let millis = |time: EventTime| time.millis();
        serde_json::to_vec(&Text {
            version: VERSION,
            number: self.number,
            token: self.token,
            automatic: self.automatic,
            dry_run: self.dry_run,
            filter: FilterText {
                reasons: self.filter.reasons.iter().map(|reason| reason.as_str().to_owned()).collect(),
                since: self.filter.since.map(millis),
                until: self.filter.until.map(millis),
                key: self.filter.key.clone(),
            },
            ranges: self.ranges.iter().map(|range| (range.partition.0, range.from.0, range.to.0)).collect(),
            topics: self
                .topics
                .iter()
                .map(|topic| (topic.name.clone(), topic.id.map(|id| format!("{:032x}", id.0))))
                .collect(),
            topic: self.topic,
            requested: self.requested,
            end: self.end.map(|ReplayEnd { cancelled, at, tally }| EndText {
                cancelled,
                at,
                selected: tally.selected,
                applied: tally.applied,
                expired: tally.expired,
                known: tally.known,
                failed: tally.failed,
                left_out: tally.left_out,
                deleted: tally.deleted,
            }),
        })
    }

    /// The record from JSON.
    ///
    /// # Errors
    ///
    /// What is wrong with it, as text.
    pub fn decode(json: &[u8]) -> Result<Self, String> {
        let text = |error: serde_json::Error| error.to_string();
        let Version { version } = serde_json::from_slice(json).map_err(text)?;
        if version != VERSION {
            return Err(format!("its version is {version}, this program knows version {VERSION}"));
        }
        let Text { number, token, automatic, dry_run, filter, ranges, topics, topic, requested, end, .. } =
            serde_json::from_slice(json).map_err(text)?;
        let reason = |name: &String| {
            Reason::from_name(name).ok_or_else(|| format!("`filter.reasons`: no reason is called `{name}`"))
        };
        let range = |(partition, from, to)| ReplayRange {
            partition: Partition(partition),
            from: Offset(from),
            to: Offset(to),
        };
        let id = |id: String| u128::from_str_radix(&id, 16).map_err(|error| format!("`topics`: {error}"));
        let topics = topics.into_iter().map(|(name, text)| {
            Ok::<_, String>(DeadLetterTopic { name, id: text.map(id).transpose()?.map(TopicId) })
        });
        Ok(Self {
            topics: topics.collect::<Result<_, _>>()?,
            topic,
            number,
            token,
            automatic,
            dry_run,
            filter: ReplayFilter {
                reasons: filter.reasons.iter().map(reason).collect::<Result<_, _>>()?,
                since: filter.since.map(EventTime),
                until: filter.until.map(EventTime),
                key: filter.key,
            },
            ranges: ranges.into_iter().map(range).collect(),
            requested,
            end: end.map(|end| ReplayEnd {
                cancelled: end.cancelled,
                at: end.at,
                tally: ReplayTally {
                    selected: end.selected,
                    applied: end.applied,
                    expired: end.expired,
                    known: end.known,
                    failed: end.failed,
                    left_out: end.left_out,
                    deleted: end.deleted,
                },
            }),
        })
    }

    /// How many offsets it is about.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        self.ranges.iter().map(ReplayRange::offsets).fold(0, u64::saturating_add)
    }
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    number: u64,
    token: u64,
    automatic: bool,
    dry_run: bool,
    filter: FilterText,
    /// Partition, from, to.
    ranges: Vec<(u32, u64, u64)>,
    /// Name and id.
    topics: Vec<(String, Option<String>)>,
    topic: u32,
    requested: i64,
    end: Option<EndText>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterText {
    reasons: Vec<String>,
    since: Option<i64>,
    until: Option<i64>,
    key: Option<Vec<u8>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct EndText {
    cancelled: bool,
    at: i64,
    selected: u64,
    applied: u64,
    expired: u64,
    known: u64,
    failed: u64,
    left_out: u64,
    deleted: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    const FROZEN: &str = r#"{"version":1,"number":7,"token":9,"automatic":false,"dry_run":true,"filter":{"reasons":["late","no_key"],"since":-5,"until":null,"key":[97]},"ranges":[[0,3,10],[2,0,4]],"topics":[["old",null],["dead","0000000000000000000000000000002a"]],"topic":1,"requested":1000,"end":{"cancelled":true,"at":1500,"selected":6,"applied":1,"expired":2,"known":3,"failed":4,"left_out":5,"deleted":8}}"#;

    fn record() -> ReplayRecord {
        let range = |partition, from, to| ReplayRange {
            partition: Partition(partition),
            from: Offset(from),
            to: Offset(to),
        };
        ReplayRecord {
            number: 7,
            token: 9,
            automatic: false,
            dry_run: true,
            filter: ReplayFilter {
                reasons: vec![Reason::Late, Reason::NoKey],
                since: Some(EventTime(-5)),
                until: None,
                key: Some(b"a".to_vec()),
            },
            ranges: vec![range(0, 3, 10), range(2, 0, 4)],
            topics: vec![
                DeadLetterTopic { name: "old".to_owned(), id: None },
                DeadLetterTopic { name: "dead".to_owned(), id: Some(TopicId(42)) },
            ],
            topic: 1,
            requested: 1_000,
            end: Some(ReplayEnd {
                cancelled: true,
                at: 1_500,
                tally: ReplayTally {
                    selected: 6,
                    applied: 1,
                    expired: 2,
                    known: 3,
                    failed: 4,
                    left_out: 5,
                    deleted: 8,
                },
            }),
        }
    }

    #[test]
    fn a_record_reads_back_and_is_written_as_ever() {
        assert_eq!(std::str::from_utf8(&record().encode().unwrap()).unwrap(), FROZEN);
        assert_eq!(ReplayRecord::decode(FROZEN.as_bytes()).unwrap(), record());
        assert_eq!(record().offsets(), 11);
    }

    #[test]
    fn the_key_holds_the_number() {
        assert_eq!(ReplayRecord::number_of(ReplayRecord::key(12).as_bytes()), Some(12));
        for other in ["job", "leader", "replay/", "replay/x"] {
            assert_eq!(ReplayRecord::number_of(other.as_bytes()), None);
        }
    }

    #[test]
    fn what_does_not_read_is_told() {
        let refused = |json: &str| ReplayRecord::decode(json.as_bytes()).unwrap_err();
        assert!(refused(r#"{"version":2}"#).contains("version is 2"));
        assert!(refused(&FROZEN.replace("no_key", "bad")).contains("no reason is called `bad`"));
    }
}
