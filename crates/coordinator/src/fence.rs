//! Fencing the shards of a lost worker: `init_transactions` under the shard's transactional id ends what it left open and
//! makes sure that it commits nothing more, before anybody else has the shard.
//!
//! ```text
//! Fence{s} ──► init_transactions (other thread) ──► FenceEnded{s}
//!                 meanwhile what is said of s waits: a late fence would hit the new owner
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::assignment::{StreamId, WorkerId};
use tidegate_core::time::Shard;
use tidegate_kafka::{KafkaConfig, TransactionOptions, TransactionalProducer};
use tidegate_proto::v1;
use tidegate_runtime::task;
use tokio::sync::{Semaphore, mpsc};

use crate::event::Event;
use crate::metrics::Metrics;
use crate::topics::blocking;

/// How long one fence is tried; the next owner fences again anyway.
const PATIENCE: Duration = Duration::from_secs(10);
/// Fences at a time: each is a client with threads and connections of its own.
const AT_A_TIME: usize = 8;

/// A directive that waits for the end of a fence.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) worker: WorkerId,
    pub(crate) stream: StreamId,
    pub(crate) directive: v1::WorkerDirective,
}

/// The fences under way.
#[derive(Debug)]
pub(crate) struct Fences {
    kafka: KafkaConfig,
    /// `<job>-shard-`.
    prefix: String,
    metrics: Metrics,
    turns: Arc<Semaphore>,
    under_way: BTreeMap<Shard, Vec<Waiting>>,
}

impl Fences {
    pub(crate) fn new(kafka: KafkaConfig, job: &tidegate_job::Job, metrics: Metrics) -> Self {
        let first = job.transactional_id(Shard(0));
        let prefix = first.strip_suffix('0').unwrap_or(&first).to_owned();
        Self {
            kafka,
            prefix,
            metrics,
            turns: Arc::new(Semaphore::new(AT_A_TIME)),
            under_way: BTreeMap::new(),
        }
    }

    /// Starts a fence, whose end goes to `events`. One that is under way covers this one too: since it began, nobody has
    /// been given the shard.
    pub(crate) fn start(&mut self, shard: Shard, events: mpsc::Sender<Event>) {
        if self.under_way.contains_key(&shard) {
            return;
        }
        self.under_way.insert(shard, Vec::new());
        let (kafka, id) = (self.kafka.clone(), format!("{}{shard}", self.prefix));
        let (turns, metrics) = (Arc::clone(&self.turns), self.metrics.clone());
        task::spawn("fence", async move {
            // Closed: this coordinator leads no more, and others decide about the shard.
            let Ok(turn) = turns.acquire().await else { return };
            match blocking("fence", move || Ok(fence(&kafka, &id)?)).await {
                Ok(()) => {
                    metrics.fences.inc();
                    tracing::info!(shard = shard.0, "fenced the shard of a lost worker");
                }
                Err(error) => {
                    metrics.failed_fences.inc();
                    tracing::warn!(
                        shard = shard.0,
                        %error,
                        "gave up fencing the shard of a lost worker; its next owner does it"
                    );
                }
            }
            drop(turn);
            // Without an owner there is nobody to tell.
            let _ = events.send(Event::FenceEnded(shard)).await;
        });
    }

    /// Keeps a directive back while its shard is being fenced; otherwise hands it back to be sent.
    pub(crate) fn hold(&mut self, shard: Shard, waiting: Waiting) -> Option<Waiting> {
        match self.under_way.get_mut(&shard) {
            Some(queue) => {
                queue.push(waiting);
                None
            }
            None => Some(waiting),
        }
    }

    /// The fence has ended: what waited for it, in order.
    pub(crate) fn ended(&mut self, shard: Shard) -> Vec<Waiting> {
        self.under_way.remove(&shard).unwrap_or_default()
    }
}

impl Drop for Fences {
    fn drop(&mut self) {
        self.turns.close();
    }
}

fn fence(kafka: &KafkaConfig, id: &str) -> tidegate_kafka::Result<()> {
    TransactionalProducer::open(kafka, id, TransactionOptions::default())?.init(PATIENCE)
}
