//! The job record: who the job is, for good. Written in one transaction with the genesis block of every shard, and anew only where a
//! coordinator is started with aggregates added to the job.
//!
//! It is JSON under the key `job` of the control topic, begins with its version, and is frozen by a golden test: a job goes
//! on from it however often its services are replaced.

use serde::{Deserialize, Serialize};
use tidegate_core::block::JobId;
use tidegate_core::time::{Offset, Partition};
use tidegate_job::{Job, continues};
use tidegate_kafka::{TopicDescription, TopicId};
use uuid::Uuid;

use crate::error::{Error, Result};

/// The keys of [`Job::describe`] that a job which begins with a savepoint may change.
const NAME: &str = "name: ";
const SHARDS: &str = "state.shards: ";
/// Rises when a reader of an older version would misunderstand the record.
const VERSION: u32 = 1;

/// What a job is, once and for all.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobRecord {
    /// Drawn when the job began; in every changelog and every handshake.
    pub job: JobId,
    /// [`Job::fingerprint`] of the program that wrote it.
    pub fingerprint: u64,
    /// [`Job::describe`]: what a job file that continues the job is compared with.
    pub description: String,
    /// How many aggregates the job had before each time that others were added behind them.
    pub generations: Vec<usize>,
    /// S.
    pub shards: u32,
    /// The source topic's name.
    pub source: String,
    /// The source topic's identity; `None` where the brokers know none.
    pub source_id: Option<TopicId>,
    /// Where each partition was begun; partitions added later begin at their beginning.
    pub starts: Vec<Offset>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    version: u32,
    job: String,
    fingerprint: String,
    description: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    generations: Vec<usize>,
    shards: u32,
    source: SourceText,
    starts: Vec<u64>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceText {
    topic: String,
    id: Option<String>,
}

#[derive(Deserialize)]
struct Version {
    version: u32,
}

impl JobRecord {
    /// The record of a job that begins now, with a new identity.
    #[must_use]
    pub fn draw(job: &Job, source: &TopicDescription, starts: Vec<Offset>) -> Self {
        Self {
            job: JobId(Uuid::new_v4().into_bytes()),
            fingerprint: job.fingerprint(),
            description: job.describe(),
            generations: Vec::new(),
            shards: job.core.shards,
            source: source.name.clone(),
            source_id: source.id,
            starts,
        }
    }

    /// The uuid as text.
    #[must_use]
    pub fn uuid(&self) -> String {
        Uuid::from_bytes(self.job.0).to_string()
    }

    /// Where each partition was begun, as the genesis block wants it.
    #[must_use]
    pub fn starts(&self) -> Vec<(Partition, Offset)> {
        (0..).map(Partition).zip(self.starts.iter().copied()).collect()
    }

    /// The record as JSON.
    ///
    /// # Errors
    ///
    /// Never for a record of this process; `serde_json` leaves it open.
    pub fn encode(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(&Text {
            version: VERSION,
            job: self.uuid(),
            fingerprint: format!("{:016x}", self.fingerprint),
            description: self.description.clone(),
            generations: self.generations.clone(),
            shards: self.shards,
            source: SourceText { topic: self.source.clone(), id: self.source_id.map(id_text) },
            starts: self.starts.iter().map(|offset| offset.0).collect(),
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
        let text: Text = serde_json::from_slice(json).map_err(text)?;
        let job = Uuid::parse_str(&text.job).map_err(|error| format!("`job`: {error}"))?;
        let id = |id: String| u128::from_str_radix(&id, 16).map_err(|error| format!("`source.id`: {error}"));
        Ok(Self {
            job: JobId(job.into_bytes()),
            fingerprint: u64::from_str_radix(&text.fingerprint, 16)
                .map_err(|error| format!("`fingerprint`: {error}"))?,
            description: text.description,
            generations: text.generations,
            shards: text.shards,
            source: text.source.topic,
            source_id: text.source.id.map(id).transpose()?.map(TopicId),
            starts: text.starts.into_iter().map(Offset).collect(),
        })
    }

    /// Whether `job` may go on from the state of this record; the record as it is to be from then on, where aggregates were added.
    ///
    /// # Errors
    ///
    /// [`Error::JobDiffers`] with the first key that differs.
    pub fn continued_by(&self, job: &Job) -> Result<Option<Self>> {
        let description = job.describe();
        let aggregates = continues(&self.description, &description).map_err(|difference| {
            let value = |value: Option<String>| value.unwrap_or_else(|| "not there".to_owned());
            Error::JobDiffers {
                job: job.name.clone(),
                why: why_not(&difference.key, difference.second.is_none()),
                key: difference.key,
                recorded: value(difference.first),
                given: value(difference.second),
            }
        })?;
        if aggregates == job.core.aggregates.len() {
            return Ok(None);
        }
        let generations = self.generations.iter().copied().chain([aggregates]).collect();
        Ok(Some(Self { fingerprint: job.fingerprint(), description, generations, ..self.clone() }))
    }

    /// The record of `job`, which is to begin with the state that this one is of: its name and the number of its shards may be others.
    ///
    /// # Errors
    ///
    /// [`Error::SavepointDiffers`] with the first key that differs.
    pub fn begun_anew_by(&self, job: &Job) -> Result<Self> {
        let given = job.describe();
        let of_job = |key: &str| given.lines().find(|line| line.starts_with(key));
        let renamed = self.description.lines().map(|line| {
            let free = [NAME, SHARDS].into_iter().find(|key| line.starts_with(key));
            free.and_then(of_job).unwrap_or(line)
        });
        let renamed = Self { description: renamed.map(|line| format!("{line}\n")).collect(), ..self.clone() };
        let continued = renamed.continued_by(job).map_err(|error| match error {
            Error::JobDiffers { key, recorded, given, why, .. } => {
                Error::SavepointDiffers { key, recorded, given, why }
            }
            error => error,
        })?;
        Ok(Self {
            job: JobId(Uuid::new_v4().into_bytes()),
            fingerprint: job.fingerprint(),
            description: given.clone(),
            shards: job.core.shards,
            ..continued.unwrap_or(renamed)
        })
    }

    /// Whether `found` is the topic whose offsets this job has counted.
    ///
    /// # Errors
    ///
    /// [`Error::SourceDeleted`] or [`Error::SourceRecreated`].
    pub fn same_source(&self, found: Option<&TopicDescription>) -> Result<()> {
        let Some(found) = found else {
            return Err(Error::SourceDeleted { topic: self.source.clone() });
        };
        let recreated =
            |recorded, found| Error::SourceRecreated { topic: self.source.clone(), recorded, found };
        if let (Some(recorded), Some(found)) = (self.source_id, found.id)
            && recorded != found
        {
            return Err(recreated(format!("id {}", id_text(recorded)), format!("id {}", id_text(found))));
        }
        // Partitions are never taken away from a topic.
        let recorded = u32::try_from(self.starts.len()).unwrap_or(u32::MAX);
        if found.partitions < recorded {
            return Err(recreated(
                format!("{recorded} partitions"),
                format!("{} partitions", found.partitions),
            ));
        }
        Ok(())
    }
}

/// Why a key cannot change while there is state, and what may be done beside what may be done for any.
fn why_not(key: &str, is_missing: bool) -> &'static str {
    match key.split(['.', '[']).next().unwrap_or(key) {
        "aggregates" if is_missing => {
            "results have it since a newer job file was started; start it with the newer file, in which aggregates were added"
        }
        "aggregates" => {
            "its values so far are what they were defined as; aggregates may be added behind the others, under other names"
        }
        "window" | "reorder" => "windows that are open were filled by it",
        "state" => "it says in which shard the state of each key is",
        "source" if key == "source.topic" => "the positions that are committed are offsets of that topic",
        "source" => "the state is kept by the keys that it gave",
        _ => "the state depends on it",
    }
}

fn id_text(id: TopicId) -> String {
    format!("{:032x}", id.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOLDEN: &str = include_str!("job_record/golden.json");
    const JOB: &str = include_str!("../../../docs/jobs/clicks.yaml");

    fn job(text: &str) -> Job {
        tidegate_job::JobFile::parse(text, "clicks.yaml").unwrap()
    }

    fn golden() -> JobRecord {
        JobRecord {
            job: JobId([
                0x0f, 0x1e, 0x2d, 0x3c, 0x4b, 0x5a, 0x49, 0x78, 0x87, 0x96, 0xa5, 0xb4, 0xc3, 0xd2, 0xe1,
                0xf0,
            ]),
            fingerprint: 0x0123_4567_89ab_cdef,
            description: "tidegate job fingerprint: 1\nname: \"clicks\"\n".to_owned(),
            generations: Vec::new(),
            shards: 16,
            source: "clicks".to_owned(),
            source_id: Some(TopicId(0xabc)),
            starts: vec![Offset(0), Offset(7), Offset(u64::MAX)],
        }
    }

    #[test]
    fn is_written_as_ever() {
        assert_eq!(String::from_utf8(golden().encode().unwrap()).unwrap(), GOLDEN.trim_end());
    }

    #[test]
    fn reads_what_was_ever_written() {
        assert_eq!(JobRecord::decode(GOLDEN.as_bytes()).unwrap(), golden());
    }

    #[test]
    fn survives_a_broker_without_topic_ids() {
        let record = JobRecord { source_id: None, ..golden() };
        assert_eq!(JobRecord::decode(&record.encode().unwrap()).unwrap(), record);
    }

    #[test]
    fn refuses_another_version_before_it_looks_at_the_rest() {
        let error = JobRecord::decode(br#"{"version":2,"soul":"new"}"#).unwrap_err();
        assert_eq!(error, "its version is 2, this program knows version 1");
    }

    #[test]
    fn refuses_keys_it_does_not_know() {
        let text = GOLDEN.replacen("{\"version\"", "{\"colour\":\"red\",\"version\"", 1);
        assert!(JobRecord::decode(text.as_bytes()).unwrap_err().contains("colour"));
    }

    #[test]
    fn names_the_first_key_that_another_job_file_changed() {
        let source = TopicDescription { name: "clicks".to_owned(), partitions: 4, id: None };
        let record = JobRecord::draw(&job(JOB), &source, vec![Offset(0); 4]);
        for same in [JOB, &JOB.replace("delay: 2s", "delay: 3s"), &JOB.replace("field: /ts", "field: /at")] {
            assert_eq!(record.continued_by(&job(same)).unwrap(), None);
        }
        let other = job(&JOB.replace("size: 10s", "size: 20s"));
        let error = record.continued_by(&other).unwrap_err().to_string();
        let what = "`window.size_ms` is 20000 in the job file, but 10000 in the record of job `clicks`";
        let why = "windows that are open were filled by it";
        assert!(error.starts_with(what) && error.contains(why), "{error}");
    }

    #[test]
    fn goes_on_with_added_aggregates_and_not_back() {
        let source = TopicDescription { name: "clicks".to_owned(), partitions: 4, id: None };
        let record = JobRecord::draw(&job(JOB), &source, vec![Offset(0); 4]);
        let more = |text: &str| JOB.replace("\nsink:", &format!("\n{text}\nsink:"));
        let once = more("  - { name: least, fn: min, field: /amount }");
        let first = record.continued_by(&job(&once)).unwrap().unwrap();
        assert_eq!((&first.generations, first.job), (&vec![3], record.job));
        assert_eq!(JobRecord::decode(&first.encode().unwrap()).unwrap(), first);
        assert_eq!(first.continued_by(&job(&once)).unwrap(), None);
        let twice =
            more("  - { name: least, fn: min, field: /amount }\n  - { name: mean, fn: avg, field: /amount }");
        let second = first.continued_by(&job(&twice)).unwrap().unwrap();
        assert_eq!(second.generations, [3, 4]);
        let error = second.continued_by(&job(&once)).unwrap_err().to_string();
        assert!(
            error.starts_with(
                "`aggregates[4]` is not there in the job file, but \"mean\" avg of \"/amount\" scale 6 in the record"
            ) && error.contains("start it with the newer file"),
            "{error}"
        );
    }

    #[test]
    fn knows_its_source_again() {
        let record = golden();
        let found = |partitions, id| TopicDescription { name: "clicks".to_owned(), partitions, id };
        record.same_source(Some(&found(3, Some(TopicId(0xabc))))).unwrap();
        record.same_source(Some(&found(5, Some(TopicId(0xabc))))).unwrap();
        record.same_source(Some(&found(3, None))).unwrap();
        assert!(matches!(record.same_source(None), Err(Error::SourceDeleted { .. })));
        for other in [found(3, Some(TopicId(0xabd))), found(2, None)] {
            assert!(
                matches!(record.same_source(Some(&other)), Err(Error::SourceRecreated { .. })),
                "{other:?}"
            );
        }
    }
}
