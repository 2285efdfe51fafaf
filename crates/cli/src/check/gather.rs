//! Looks at the cluster: everything is asked for, nothing is changed. What is tried is aborted, and the topic that a try needs is
//! deleted again.

use std::time::Duration;

use anyhow::{Context, Result};
use tidegate_core::time::Partition;
use tidegate_job::Job;
use tidegate_kafka::{
    Admin, AppendTime, Created, KafkaConfig, NewTopic, OutputRecord, TopicRole, TransactionOptions,
    TransactionalProducer, append_times, readable,
};

use super::facts::{Asked, Attempt, Facts, FoundTopic, Topic};
use super::sample;
use crate::inputs::Inputs;
use crate::topics::unix_millis;

/// How long a single try may take.
const PATIENCE: Duration = Duration::from_secs(15);
/// How long the cluster may take to answer at all.
const REACH: Duration = Duration::from_secs(5);
/// Brokers whose clocks are compared.
const CLOCKS: usize = 16;

/// Everything about `job` on the cluster; `count` offsets of each partition are sampled.
///
/// # Errors
/// When the cluster does not answer.
pub(crate) async fn gather(
    job: &Job,
    inputs: Asked<Inputs>,
    kafka: &KafkaConfig,
    count: u64,
) -> Result<Facts> {
    let admin = Admin::open(kafka)?;
    admin.reachable(REACH).await?;
    let brokers = admin.brokers().await?;
    let broker = match brokers.first() {
        Some(broker) => admin.broker_configs(*broker).await.map_err(|error| error.to_string()),
        None => Err("no broker is named".to_owned()),
    };
    let shards = job.core.shards;
    let plain = |name: &str, partitions| NewTopic {
        name: name.to_owned(),
        partitions,
        replication: None,
        configs: [("retention.ms".to_owned(), "-1".to_owned())].into(),
    };
    let source = job.source.partitions.map(|partitions| plain(&job.source.topic, partitions));
    let source = topic(&admin, &job.source.topic, source).await?;
    let sink = topic(&admin, &job.sink.topic, Some(plain(&job.sink.topic, shards))).await?;
    let dead = &job.dead_letter.topic;
    let dead_letter = topic(&admin, dead, Some(plain(dead, shards))).await?;
    let changelog = NewTopic::of_role(job.changelog_topic(), shards, TopicRole::Changelog);
    let changelog = topic(&admin, &job.changelog_topic(), Some(changelog)).await?;
    let control = NewTopic::of_role(job.control_topic(), 1, TopicRole::Control);
    let control = topic(&admin, &job.control_topic(), Some(control)).await?;
    let now_ms = unix_millis();
    let mut facts = Facts {
        address: kafka.brokers.clone(),
        sample: records(job, inputs, kafka, &source, count, now_ms).await?,
        clocks: clocks(&admin, kafka, job, brokers.len()).await?,
        attempts: Vec::new(),
        brokers,
        broker,
        source,
        sink,
        dead_letter,
        changelog,
        control,
        now_ms,
    };
    facts.attempts = attempts(&admin, kafka, job, &facts).await?;
    Ok(facts)
}

async fn topic(admin: &Admin, name: &str, wanted: Option<NewTopic>) -> Result<Topic> {
    let found = match admin.topic(name).await? {
        Some(found) => Some(FoundTopic {
            partitions: found.partitions,
            configs: admin.configs(name).await.map_err(|error| error.to_string()),
            copies: admin.copies(name).await?,
            ends: admin.ends(name).await.unwrap_or_default(),
        }),
        None => None,
    };
    let creatable = match (&found, wanted) {
        (None, Some(wanted)) => Some(admin.would_create(&wanted).await.map_err(|error| error.to_string())),
        _ => None,
    };
    Ok(Topic { name: name.to_owned(), found, creatable })
}

async fn records(
    job: &Job,
    inputs: Asked<Inputs>,
    kafka: &KafkaConfig,
    source: &Topic,
    count: u64,
    now_ms: i64,
) -> Result<Asked<Vec<sample::PartitionSample>>> {
    let Some(found) = &source.found else { return Ok(Ok(Vec::new())) };
    let inputs = match inputs {
        Ok(inputs) => inputs,
        Err(error) => return Ok(Err(error)),
    };
    let (job, kafka, ends) = (job.clone(), kafka.clone(), found.ends.clone());
    let read =
        tokio::task::spawn_blocking(move || sample::sample(&kafka, &job, inputs, &ends, count, now_ms));
    Ok(read.await?.map_err(|error| format!("{error:#}")))
}

/// Compares the brokers' clocks with ours in a topic that exists only for that.
async fn clocks(
    admin: &Admin,
    kafka: &KafkaConfig,
    job: &Job,
    brokers: usize,
) -> Result<Asked<Vec<AppendTime>>> {
    let name = format!("{}-check", job.name);
    let partitions = u32::try_from(brokers.clamp(1, CLOCKS)).unwrap_or(1);
    let topic = NewTopic {
        name: name.clone(),
        partitions,
        replication: None,
        configs: [("message.timestamp.type".to_owned(), "LogAppendTime".to_owned())].into(),
    };
    match admin.create(&topic).await {
        Ok(Created::Created) => {}
        Ok(Created::Exists) => {
            return Ok(Err(format!(
                "topic `{name}`, which is made for that, is there already: another check runs, or one was killed; delete it"
            )));
        }
        Err(error) => return Ok(Err(error.to_string())),
    }
    let (config, written) = (kafka.clone(), name.clone());
    let times = tokio::task::spawn_blocking(move || {
        append_times(&config, &written, partitions, PATIENCE, unix_millis)
    })
    .await?;
    admin.delete(&name).await.with_context(|| format!("topic `{name}` was made by this check; delete it"))?;
    Ok(times.map_err(|error| error.to_string()))
}

/// Tries what the services will do, and takes it back.
async fn attempts(admin: &Admin, kafka: &KafkaConfig, job: &Job, facts: &Facts) -> Result<Vec<Attempt>> {
    let mut attempts = transactions(kafka, job, facts).await?;
    if facts.source.found.is_some() {
        let group = job.group();
        attempts.push(Attempt {
            name: "group",
            what: format!("the offsets of group `{group}` can be read"),
            outcome: admin.group_readable(group, &job.source.topic).await.map_err(|error| error.to_string()),
            fix: format!("give ingest the right to read group `{group}`"),
        });
    }
    if job.dead_letter.replay_ttl.is_some() && facts.dead_letter.found.is_some() {
        let name = &facts.dead_letter.name;
        let (kafka, topic) = (kafka.clone(), name.clone());
        let read = tokio::task::spawn_blocking(move || readable(&kafka, &topic, PATIENCE)).await?;
        attempts.push(Attempt {
            name: "read",
            what: format!("`{name}` can be read, for replays (dead_letter.replay)"),
            outcome: read.map_err(|error| error.to_string()),
            fix: format!("give ingest the right to read topic `{name}`: else no dead letter comes back"),
        });
    }
    if let Some(found) = &facts.changelog.found
        && let Some(ends) = found.ends.first()
    {
        let name = &facts.changelog.name;
        let deleted = admin.delete_records(name, ends.partition, ends.log_start).await;
        attempts.push(Attempt {
            name: "delete",
            what: format!("records of `{name}` can be deleted (none was)"),
            outcome: deleted.map(|_| ()).map_err(|error| error.to_string()),
            fix: format!("give workers the right to delete from topic `{name}`: else it grows for ever"),
        });
    }
    Ok(attempts)
}

/// One aborted transaction for each topic that exists.
async fn transactions(kafka: &KafkaConfig, job: &Job, facts: &Facts) -> Result<Vec<Attempt>> {
    let topics: Vec<String> = [&facts.sink, &facts.dead_letter, &facts.changelog, &facts.control]
        .into_iter()
        .filter(|topic| topic.found.is_some())
        .map(|topic| topic.name.clone())
        .collect();
    let (kafka, id) = (kafka.clone(), format!("{}-check", job.name));
    let job = job.name.clone();
    let tried = tokio::task::spawn_blocking(move || {
        // One for each topic: a producer that was refused cannot always be used again.
        let begin = || {
            let mut producer = TransactionalProducer::open(&kafka, &id, TransactionOptions::default())?;
            producer.init(PATIENCE)?;
            Ok::<_, tidegate_kafka::Error>(producer)
        };
        let begun = begin().map(drop).map_err(|error| error.to_string());
        let refused = begun.is_err();
        let mut attempts = vec![Attempt {
            name: "transaction",
            what: format!("a producer with the transactional id `{id}` can be opened"),
            outcome: begun,
            fix: format!("give workers and coordinators the right to write with transactional ids `{job}-*`"),
        }];
        if refused {
            return attempts;
        }
        for topic in topics {
            let record = OutputRecord {
                topic: topic.as_str().into(),
                partition: Partition(0),
                key: Some("tidegate-check".into()),
                value: Some("aborted".into()),
                headers: Vec::new(),
                timestamp: None,
            };
            let begun = begin().map_err(|error| error.to_string());
            attempts.push(Attempt {
                name: "write",
                what: format!("a transaction can write to `{topic}` (it was aborted)"),
                outcome: begun.and_then(|mut producer| producer.rehearse(&record)),
                fix: format!("give workers and coordinators the right to write to topic `{topic}`"),
            });
        }
        attempts
    });
    Ok(tried.await?)
}
