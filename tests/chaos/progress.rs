//! How far the job has come: the coordinator's status against the ends of the source topic.

use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use tidegate_proto::v1::{
    JobStatus, OwnedShard, StatusRequest, WorkerStats, coordinator_client::CoordinatorClient,
};
use tokio::runtime::{Builder, Runtime};
use tonic::transport::Endpoint;

use crate::run::{PARTITIONS, SHARDS, TOPIC, WINDOW_MS};

const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks coordinator and broker.
pub struct Progress {
    runtime: Runtime,
    coordinators: Vec<Endpoint>,
    broker: BaseConsumer,
}

/// What there is and what is done.
#[derive(Debug)]
pub struct Standing {
    /// Records of each partition of the source topic.
    pub records: Vec<u64>,
    /// Records of each partition that shards have committed: applied or dead-lettered.
    pub covered: Vec<u64>,
    /// The global watermark, ms.
    pub watermark: Option<i64>,
    /// Why the job is not at its end, if it is not.
    pub missing: Option<String>,
}

impl Progress {
    /// For the coordinators and the broker at these addresses.
    pub fn new(coordinators: &[String], bootstrap: &str) -> Result<Self> {
        let endpoints = coordinators.iter().map(|address| Endpoint::from_shared(format!("http://{address}")));
        Ok(Self {
            runtime: Builder::new_current_thread().enable_all().build()?,
            coordinators: endpoints.collect::<Result<_, _>>()?,
            broker: tidegate_tests::clients::client_config(bootstrap).create()?,
        })
    }

    /// The place in the list of the coordinator that leads, if one says so within `patience`.
    pub fn leader(&self, patience: Duration) -> Option<usize> {
        self.coordinators.iter().position(|endpoint| self.ask(endpoint, patience).is_ok())
    }

    fn ask(&self, endpoint: &Endpoint, patience: Duration) -> Result<JobStatus> {
        let asked = async {
            let channel = endpoint.connect().await.context("the coordinator does not answer")?;
            anyhow::Ok(CoordinatorClient::new(channel).status(StatusRequest {}).await?.into_inner())
        };
        self.runtime.block_on(async { tokio::time::timeout(patience, asked).await })?
    }

    /// Where the job stands.
    pub fn look(&self) -> Result<Standing> {
        let mut ends = Vec::new();
        for partition in 0..PARTITIONS {
            let (start, end) = self.broker.fetch_watermarks(TOPIC, i32::try_from(partition)?, TIMEOUT)?;
            ends.push((u64::try_from(start)?, u64::try_from(end)?));
        }
        let mut answer = Err(anyhow!("no coordinators"));
        for endpoint in &self.coordinators {
            answer = self.ask(endpoint, TIMEOUT);
            if answer.is_ok() {
                break;
            }
        }
        let status = answer?;
        Ok(Standing::of(&status, &ends))
    }
}

impl Standing {
    /// Conservation per partition, by the services' own counters: records that are not covered, and covered more than once.
    pub fn imbalance(&self) -> (u64, u64) {
        let pairs = self.records.iter().zip(&self.covered);
        pairs.fold((0, 0), |(missing, surplus), (records, covered)| {
            (missing + records.saturating_sub(*covered), surplus + covered.saturating_sub(*records))
        })
    }

    fn of(status: &JobStatus, ends: &[(u64, u64)]) -> Self {
        let live = status.workers.iter().filter(|worker| worker.state == "live");
        let stats: Vec<&WorkerStats> = live.filter_map(|worker| worker.stats.as_ref()).collect();
        let shards: Vec<&OwnedShard> = stats.iter().flat_map(|stats| &stats.shards).collect();
        let records = ends.iter().map(|(start, end)| end - start).collect();
        let mut covered = vec![0; ends.len()];
        for count in stats.iter().flat_map(|stats| &stats.partitions) {
            if let Some(covered) = covered.get_mut(count.partition as usize) {
                *covered += count.applied + count.dead_lettered;
            }
        }
        let watermark = status.announcement.as_ref().and_then(|announcement| announcement.watermark_ms);
        let missing = missing(status, ends, &shards, watermark);
        Self { records, covered, watermark, missing }
    }
}

fn missing(
    status: &JobStatus,
    ends: &[(u64, u64)],
    shards: &[&OwnedShard],
    watermark: Option<i64>,
) -> Option<String> {
    if status.partitions.len() != ends.len() {
        return Some(format!("{} partitions are known", status.partitions.len()));
    }
    for (partition, (_, end)) in status.partitions.iter().zip(ends) {
        if partition.state != "idle" || partition.position < *end {
            return Some(format!(
                "partition {} is {} at {} of {end}",
                partition.partition, partition.state, partition.position
            ));
        }
    }
    let last = status.partitions.iter().filter_map(|partition| partition.max_event_time_ms).max();
    if watermark < last.map(|last| last + WINDOW_MS) {
        return Some(format!("the watermark is {watermark:?}, the last event at {last:?}"));
    }
    if shards.len() != SHARDS {
        return Some(format!("{} shards have owners", shards.len()));
    }
    let behind = shards.iter().find(|shard| shard.watermark_ms != watermark)?;
    Some(format!("shard {} is at {:?}, the job at {watermark:?}", behind.shard, behind.watermark_ms))
}
