//! What all shards of this worker stand on: the job, the log, the local stores, the totals.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use tidegate_core::{aggregate::Layout, block::JobId, job::OperatorSpec, pacing::Pace, shard::ShardState};
use tidegate_job::Job;
use tidegate_kafka::{Admin, KafkaConfig, TransactionOptions};
use tidegate_runtime::{backoff::Backoff, clock::Clock};
use tidegate_store::Stores;
use tokio::sync::Mutex;

use crate::{
    cache::CacheWriter,
    error::Error,
    render::{Renderer, Target},
    stats::Stats,
};

/// The topic's limit when its configuration does not say: Kafka's default.
const DEFAULT_MESSAGE_BYTES: usize = 1_048_588;

/// What the coordinator says of the job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KnownJob {
    pub(crate) job_id: JobId,
    /// How many aggregates it had before each time that others were added.
    pub(crate) generations: Vec<usize>,
}

/// Shared by the actors.
#[derive(Clone)]
pub(crate) struct Ground {
    pub(crate) job: Arc<Job>,
    pub(crate) job_id: JobId,
    pub(crate) layout: Arc<Layout>,
    pub(crate) operator: OperatorSpec,
    pub(crate) pace: Pace,
    pub(crate) clock: Clock,
    pub(crate) kafka: KafkaConfig,
    pub(crate) admin: Admin,
    pub(crate) transactions: TransactionOptions,
    pub(crate) renderer: Arc<Renderer>,
    pub(crate) stores: Stores,
    pub(crate) cache: CacheWriter,
    pub(crate) stats: Arc<Stats>,
    /// How many shards share `state.memory`.
    pub(crate) shards: Arc<AtomicUsize>,
    /// The turn to write a local store to its end: all shards at once would take more memory than they ever did.
    pub(crate) closing: Arc<Mutex<()>>,
}

/// What a ground is laid of.
pub(crate) struct Parts {
    pub(crate) job: Arc<Job>,
    pub(crate) known: KnownJob,
    pub(crate) clock: Clock,
    pub(crate) kafka: KafkaConfig,
    pub(crate) stores: Stores,
    pub(crate) stats: Arc<Stats>,
}

impl Ground {
    /// Looks at the topics that the job writes to; waits for them, and for the brokers.
    ///
    /// # Errors
    /// What does not pass by itself.
    pub(crate) async fn lay(parts: Parts) -> Result<Self, Error> {
        let Parts { job, known: KnownJob { job_id, generations }, clock, kafka, stores, stats } = parts;
        let admin = Admin::open(&kafka)?;
        let renderer = renderer(&admin, &job).await?;
        let max_message_bytes = u32::try_from(renderer.message_bytes).unwrap_or(u32::MAX);
        let commit_interval = u64::try_from(job.state.commit_interval.millis()).unwrap_or_default();
        Ok(Self {
            layout: Arc::new(Layout::grown(&job.core, &generations)),
            operator: job.core.operator,
            pace: Pace { commit_interval, ..Pace::default() },
            cache: CacheWriter::start(clock.clone()).map_err(|error| Error::Task(error.to_string()))?,
            transactions: TransactionOptions { max_message_bytes, ..TransactionOptions::default() },
            renderer: Arc::new(renderer),
            job,
            job_id,
            clock,
            kafka,
            admin,
            stores,
            stats,
            shards: Arc::default(),
            closing: Arc::default(),
        })
    }
}

impl Ground {
    /// A shard of which nothing is known yet.
    pub(crate) fn empty_shard(&self) -> ShardState {
        ShardState::empty_with(&self.job.core, Arc::clone(&self.layout))
    }

    /// The share of a shard in `state.memory`, in bytes.
    pub(crate) fn share(&self) -> usize {
        let memory = usize::try_from(self.job.state.memory).unwrap_or(usize::MAX);
        memory / self.shards.load(Ordering::Relaxed).max(1)
    }
}

async fn renderer(admin: &Admin, job: &Job) -> Result<Renderer, Error> {
    let (sink, sink_bytes) = topic(admin, &job.sink.topic).await?;
    let (dead_letter, dead_letter_bytes) = topic(admin, &job.dead_letter.topic).await?;
    let (changelog, changelog_bytes) = topic(admin, &job.changelog_topic()).await?;
    Ok(Renderer {
        job: job.name.as_str().into(),
        source: job.source.topic.as_str().into(),
        sink,
        dead_letter,
        changelog: changelog.topic,
        // A batch may be as large as a record: the client has one limit for all topics.
        message_bytes: sink_bytes.min(dead_letter_bytes).min(changelog_bytes),
        fields: Renderer::fields(job.core.aggregates.iter().map(|aggregate| aggregate.name.as_str())),
    })
}

/// A topic and its largest record; the coordinator has made it, but the brokers may not all know yet.
async fn topic(admin: &Admin, name: &str) -> Result<(Target, usize), Error> {
    let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_secs(5));
    loop {
        let error = match describe(admin, name).await {
            Ok(found) => return Ok(found),
            Err(error) => error,
        };
        let passes = error.is_retriable() || matches!(error, tidegate_kafka::Error::UnknownTopic { .. });
        if !passes {
            return Err(error.into());
        }
        tracing::warn!(topic = name, %error, "cannot look at a topic yet, trying again");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn describe(admin: &Admin, name: &str) -> Result<(Target, usize), tidegate_kafka::Error> {
    let Some(found) = admin.topic(name).await? else {
        return Err(tidegate_kafka::Error::UnknownTopic { topic: name.to_owned() });
    };
    let configs = admin.configs(name).await?;
    let bytes = configs.get("max.message.bytes").and_then(|bytes| bytes.parse().ok());
    let target = Target { topic: name.into(), partitions: found.partitions };
    Ok((target, bytes.unwrap_or(DEFAULT_MESSAGE_BYTES)))
}
