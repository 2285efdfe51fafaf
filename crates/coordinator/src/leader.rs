//! How a coordinator comes to lead its job: it finds or makes the topics, fences its predecessor, and finds or makes the
//! job record.
//!
//! ```text
//! look at the job record ─► source topic ─► init `<job>-control` ─► leader record ─► read control topic
//!   (a wrong job file          (made if        (fences)             its offset = term       │
//!    deposes nobody)            asked for)     meanwhile: outputs, changelog                ▼
//!                               serve ◄─ changelog is whole ◄── job record there? ──no──► job record + genesis blocks,
//!                                                                                          one transaction
//! ```
//!
//! Each step may be repeated: whatever fails half-way is begun again from the top.

use std::path::Path;
use std::time::Duration;

use bytes::Bytes;
use tidegate_core::announcement::Term;
use tidegate_core::shard::ShardState;
use tidegate_core::time::Partition;
use tidegate_job::Job;
use tidegate_kafka::{
    Admin, Error as KafkaError, KafkaConfig, Outcome, OutputRecord, TopicDescription, TransactionOptions,
    TransactionalProducer,
};

use crate::control::{Control, JOB_KEY, LEADER_KEY, LeaderRecord, PARTITION};
use crate::error::{Error, Result};
use crate::job_record::JobRecord;
use crate::replay_record::ReplayRecord;
use crate::replays::Writes;
use crate::savepoint::{CHUNK_BYTES, Savepoint};
use crate::topics::{Durability, PATIENCE, Topics, blocking};

/// How long the transaction may take that writes a whole savepoint; brokers allow 15 minutes by default.
const WHOLE_STATE: Duration = Duration::from_secs(300);
/// How long the broker may take to fence a predecessor.
const INIT_PATIENCE: Duration = Duration::from_secs(20);

/// The rule of one coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Reign {
    /// The offset of its leader record.
    pub(crate) term: Term,
    /// The job.
    pub(crate) record: JobRecord,
    /// Partitions of the source topic.
    pub(crate) partitions: u32,
    /// The replays that were asked for.
    pub(crate) replays: Vec<ReplayRecord>,
}

/// What is there before a job is led.
#[derive(Clone, Debug)]
pub(crate) struct Approach {
    pub(crate) source: TopicDescription,
    /// Who led last, where that can be seen.
    pub(crate) leader: Option<LeaderRecord>,
    /// For certain no job record was there.
    pub(crate) is_new: bool,
}

/// Looks whether this job can be led, and finds or makes source and control topic. Deposes nobody.
pub(crate) async fn approach(
    admin: &Admin,
    kafka: &KafkaConfig,
    job: &Job,
    durability: Durability,
) -> Result<Approach> {
    let topics = Topics { admin, kafka, job, durability };
    let control = job.control_topic();
    let seen = match admin.topic(&control).await? {
        Some(_) => look(kafka, &control).await?,
        None => Some(Control::default()),
    };
    let is_new = seen.as_ref().is_some_and(|control| control.job.is_none());
    let Control { leader, job: known, .. } = seen.unwrap_or_default();
    let source = match &known {
        Some(record) => {
            record.continued_by(job)?;
            let found = admin.topic(&job.source.topic).await?;
            record.same_source(found.as_ref())?;
            found.ok_or_else(|| Error::SourceDeleted { topic: job.source.topic.clone() })?
        }
        None => topics.source().await?,
    };
    topics.control().await?;
    Ok(Approach { source, leader: leader.map(|(_, record)| record), is_new })
}

/// Comes to lead `job`; what is written as its leader is written with the pen.
pub(crate) async fn lead(
    admin: &Admin,
    kafka: &KafkaConfig,
    job: &Job,
    durability: Durability,
    instance: Option<&str>,
    from_savepoint: Option<&Path>,
) -> Result<(Reign, Pen)> {
    let Approach { source, is_new, .. } = approach(admin, kafka, job, durability).await?;
    let topics = Topics { admin, kafka, job, durability };
    let control = job.control_topic();
    let leader = LeaderRecord::draw(instance);
    let patience = from_savepoint.map_or(TransactionOptions::default().transaction_timeout, |_| WHOLE_STATE);
    let desk = Desk { kafka: kafka.clone(), job: job.name.clone(), topic: control, leader, patience };
    // On a new cluster the first transaction takes a second, and so do the topics: both at once. A changelog is made only where
    // none can have been lost.
    let changelog = async { if is_new { topics.changelog().await } else { Ok(()) } };
    let taking = blocking("lead", move || desk.take());
    let (taken, (), ()) = tokio::try_join!(taking, changelog, topics.outputs())?;
    let (mut pen, Taken { term, job: found, replays }) = taken;
    let record = match found {
        Some(record) => {
            let continued = record.continued_by(job)?;
            record.same_source(Some(&source))?;
            topics.whole_changelog().await?;
            tracing::info!(job = record.uuid(), term = term.0, "leading a job that goes on");
            match continued {
                None => record,
                Some(grown) => {
                    let written = vec![job_output(job, &grown)?];
                    pen = write_job(pen, written).await?;
                    let (before, aggregates) = (&grown.generations, job.core.aggregates.len());
                    tracing::info!(?before, aggregates, "the job goes on with added aggregates");
                    grown
                }
            }
        }
        None => {
            topics.empty_changelog().await?;
            let (record, records) = match from_savepoint {
                None => {
                    let record = JobRecord::draw(job, &source, topics.starts().await?);
                    let records = founding(job, &record)?;
                    (record, records)
                }
                Some(folder) => {
                    let (job, folder) = (job.clone(), folder.to_owned());
                    blocking("read the savepoint", move || founding_from(&folder, &job)).await?
                }
            };
            record.same_source(Some(&source))?;
            pen = write_job(pen, records).await?;
            tracing::info!(job = record.uuid(), term = term.0, savepoint = ?from_savepoint, "leading a new job");
            record
        }
    };
    Ok((Reign { term, record, partitions: source.partitions, replays }, pen))
}

/// What the control topic says, if it can be seen without fencing anybody.
async fn look(kafka: &KafkaConfig, topic: &str) -> Result<Option<Control>> {
    let (kafka, topic) = (kafka.clone(), topic.to_owned());
    blocking("read the control topic", move || {
        match Control::read(&kafka, &topic, Duration::from_secs(2)) {
            Ok(control) => Ok(Some(control)),
            // Left open by a predecessor that died; taking over ends it.
            Err(Error::Kafka(KafkaError::OpenTransaction { .. })) => Ok(None),
            Err(error) => Err(error),
        }
    })
    .await
}

/// The job record and the first block of every shard.
fn founding(job: &Job, record: &JobRecord) -> Result<Vec<OutputRecord>> {
    let mut records = vec![job_output(job, record)?];
    let chunks = ShardState::genesis(record.job, &record.starts()).chunks(CHUNK_BYTES);
    for shard in 0..record.shards {
        let block = chunks.iter().cloned();
        records.extend(block.map(|chunk| output(&job.changelog_topic(), Partition(shard), None, chunk)));
    }
    Ok(records)
}

/// Writes the job record, with the genesis blocks where the job is new.
async fn write_job(mut pen: Pen, records: Vec<OutputRecord>) -> Result<Pen> {
    blocking("write the job record", move || {
        pen.commit("job record", &records)?;
        Ok(pen)
    })
    .await
}

/// The job record, and of every shard the blocks that its log begins with: the state in a savepoint. Blocks.
fn founding_from(folder: &Path, job: &Job) -> Result<(JobRecord, Vec<OutputRecord>)> {
    let savepoint = Savepoint::read(folder, job).map_err(|error| Error::Savepoint(Box::new(error)))?;
    let record = savepoint.record().clone();
    let mut records = vec![job_output(job, &record)?];
    for (shard, chunks) in savepoint.beginnings(record.job) {
        let chunks = chunks.into_iter();
        records.extend(chunks.map(|chunk| output(&job.changelog_topic(), shard, None, chunk)));
    }
    Ok((record, records))
}

fn job_output(job: &Job, record: &JobRecord) -> Result<OutputRecord> {
    let json =
        record.encode().map_err(|error| Error::Refused { what: "job record", reason: error.to_string() })?;
    Ok(output(&job.control_topic(), PARTITION, Some(JOB_KEY), json))
}

fn output(topic: &str, partition: Partition, key: Option<&'static str>, value: Vec<u8>) -> OutputRecord {
    OutputRecord {
        topic: topic.into(),
        partition,
        key: key.map(|key| Bytes::from_static(key.as_bytes())),
        value: Some(value.into()),
        headers: Vec::new(),
        timestamp: None,
    }
}

/// Where the leader writes.
struct Desk {
    kafka: KafkaConfig,
    job: String,
    topic: String,
    leader: LeaderRecord,
    /// How long a transaction may take.
    patience: Duration,
}

/// What there was at the desk when it was taken.
struct Taken {
    term: Term,
    job: Option<JobRecord>,
    replays: Vec<ReplayRecord>,
}

impl Desk {
    /// Fences whoever led, writes the leader record, and reads what is there. Blocks.
    fn take(self) -> Result<(Pen, Taken)> {
        let options =
            TransactionOptions { transaction_timeout: self.patience, ..TransactionOptions::default() };
        let mut producer = TransactionalProducer::open(&self.kafka, &self.topic, options)?;
        producer.init(INIT_PATIENCE)?;
        let Self { kafka, job, topic, leader, .. } = self;
        let mut pen = Pen { job, topic, producer };
        let json = serde_json::to_vec(&leader)
            .map_err(|error| Error::Refused { what: "leader record", reason: error.to_string() })?;
        pen.commit("leader record", &[output(&pen.topic, PARTITION, Some(LEADER_KEY), json)])?;
        let control = Control::read(&kafka, &pen.topic, PATIENCE)?;
        match control.leader {
            Some((term, last)) if last == leader => {
                let replays = control.replays.into_values().collect();
                Ok((pen, Taken { term, job: control.job, replays }))
            }
            last => Err(Error::Deposed { job: pen.job, by: last.map(|(term, _)| term) }),
        }
    }
}

/// What the one who leads writes with: its producer is the last to have been initialised.
pub(crate) struct Pen {
    job: String,
    topic: String,
    producer: TransactionalProducer,
}

impl Pen {
    /// Writes records of replays. Blocks.
    pub(crate) fn write(&mut self, writes: &Writes) -> Result<()> {
        let refused = |error: serde_json::Error| Error::Refused { what: WHAT, reason: error.to_string() };
        let record = |(number, record): &(u64, Option<ReplayRecord>)| {
            let value = record.as_ref().map(ReplayRecord::encode).transpose().map_err(refused)?;
            Ok(OutputRecord {
                key: Some(ReplayRecord::key(*number).into()),
                value: value.map(Bytes::from),
                ..output(&self.topic, PARTITION, None, Vec::new())
            })
        };
        let records = writes.iter().map(record).collect::<Result<Vec<_>>>()?;
        self.commit(WHAT, &records)
    }

    fn commit(&mut self, what: &'static str, records: &[OutputRecord]) -> Result<()> {
        match self.producer.commit(records) {
            Outcome::Committed { .. } => Ok(()),
            Outcome::RecordRefused { reason, .. } => Err(Error::Refused { what, reason }),
            Outcome::Fenced => Err(Error::Deposed { job: self.job.clone(), by: None }),
            Outcome::Aborted { reason } | Outcome::Unknown { reason } => {
                Err(Error::Undecided { topic: self.topic.clone(), what, reason })
            }
        }
    }
}

const WHAT: &str = "record of a replay";
