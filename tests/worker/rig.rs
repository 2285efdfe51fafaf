//! A job of its own for each check, as the coordinator leaves it to the workers, and workers for it.

use std::future::Future;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rdkafka::Offset;
use rdkafka::message::{Headers, Message, OwnedMessage};
use tempfile::TempDir;
use tidegate_core::block::JobId;
use tidegate_core::shard::ShardState;
use tidegate_core::time::{Offset as Position, Partition};
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{
    Admin, KafkaConfig, NewTopic, Outcome, OutputRecord, TopicRole, TransactionOptions, TransactionalProducer,
};
use tidegate_runtime::metrics::{self, Readiness};
use tidegate_runtime::task::{Outcome as Ended, Reason, Tasks};
use tidegate_tests::clients::{Isolation, PATIENCE, read_to_end, unique};
use tidegate_worker::{Settings, start};
use tokio::runtime::{Builder, Runtime};

use crate::coordinator::{FakeCoordinator, Stream};
use crate::ingest::Ingest;

/// S of every job here.
pub const SHARDS: u32 = 2;
/// The uuid of every job here: their names differ.
pub const JOB: [u8; 16] = *b"a job in a test.";

/// Runs a check with a job of its own.
pub fn on<F: Future<Output = Result<()>>>(bootstrap: &str, check: impl FnOnce(Rig) -> F) -> Result<()> {
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let done = runtime.block_on(async {
        let rig = Rig::new(bootstrap).await?;
        tokio::time::timeout(PATIENCE * 3, check(rig)).await.context("the check did not come to its end")?
    });
    runtime.shutdown_background();
    done
}

/// A broker, a job, and its coordinator.
pub struct Rig {
    pub job: Job,
    pub admin: Admin,
    pub coordinator: FakeCoordinator,
    pub directory: TempDir,
    pub kafka: KafkaConfig,
}

impl Rig {
    async fn new(bootstrap: &str) -> Result<Self> {
        let job = JobFile::parse(&text(&unique("worker")), "test.yaml")?;
        let kafka = KafkaConfig::new(bootstrap, &job.name);
        let admin = Admin::open(&kafka)?;
        let coordinator = FakeCoordinator::start(JOB).await?;
        let rig = Self { job, admin, coordinator, directory: tempfile::tempdir()?, kafka };
        rig.create_sink().await?;
        rig.create(&rig.job.dead_letter.topic, &[]).await?;
        let changelog = NewTopic::of_role(rig.job.changelog_topic(), SHARDS, TopicRole::Changelog);
        rig.admin.create(&changelog).await?;
        rig.write_genesis().await?;
        Ok(rig)
    }

    pub async fn create_sink(&self) -> Result<()> {
        self.create(&self.job.sink.topic, &[]).await
    }

    /// Makes the sink anew, with these settings.
    pub async fn recreate_sink(&self, settings: &[(&str, &str)]) -> Result<()> {
        self.admin.delete(&self.job.sink.topic).await?;
        while self.admin.topic(&self.job.sink.topic).await?.is_some() {
            tokio::task::yield_now().await;
        }
        self.create(&self.job.sink.topic, settings).await
    }

    /// Creates a topic that keeps everything: event times here are of 1970, and Kafka counts retention from them.
    async fn create(&self, topic: &str, settings: &[(&str, &str)]) -> Result<()> {
        let settings = [("retention.ms", "-1")].iter().chain(settings);
        let topic = NewTopic {
            name: topic.to_owned(),
            partitions: SHARDS,
            replication: None,
            configs: settings.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect(),
        };
        self.admin.create(&topic).await?;
        Ok(())
    }

    async fn write_genesis(&self) -> Result<()> {
        let block = ShardState::genesis(JobId(JOB), &[(Partition(0), Position(0))]);
        let records: Vec<_> = (0..SHARDS)
            .flat_map(|shard| block.chunks(900_000).into_iter().map(move |chunk| (shard, chunk)))
            .map(|(shard, chunk)| OutputRecord {
                topic: self.job.changelog_topic().into(),
                partition: Partition(shard),
                key: None,
                value: Some(chunk.into()),
                headers: vec![],
                timestamp: None,
            })
            .collect();
        let (kafka, id) = (self.kafka.clone(), self.job.control_topic());
        let write = move || -> Result<Outcome> {
            let mut producer = TransactionalProducer::open(&kafka, &id, TransactionOptions::default())?;
            producer.init(PATIENCE)?;
            Ok(producer.commit(&records))
        };
        let outcome = tokio::task::spawn_blocking(write).await??;
        ensure!(matches!(outcome, Outcome::Committed { .. }), "genesis: {outcome:?}");
        Ok(())
    }

    /// Starts a worker with a state directory of its own, and takes its registration.
    pub async fn worker(&mut self, name: &str) -> Result<(Worker, Stream)> {
        let state = self.directory.path().join(unique("state"));
        self.worker_in(name, &state).await
    }

    /// Starts a worker that is told of coordinators at `addresses` alone.
    pub async fn worker_of(&self, addresses: &[SocketAddr]) -> Result<Worker> {
        let state = self.directory.path().join(unique("state"));
        let coordinators = addresses.iter().map(ToString::to_string).collect();
        Worker::start(Settings { coordinators, ..self.settings("w", &state) }).await
    }

    fn settings(&self, name: &str, state: &Path) -> Settings {
        Settings {
            tls: None,
            job: self.job.clone(),
            kafka: self.kafka.clone(),
            coordinators: vec![self.coordinator.address.to_string()],
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            name: name.to_owned(),
            state: state.to_owned(),
        }
    }

    /// Starts a worker on the state directory `state`, and takes its registration.
    pub async fn worker_in(&mut self, name: &str, state: &Path) -> Result<(Worker, Stream)> {
        let worker = Worker::start(self.settings(name, state)).await?;
        let mut stream = self.coordinator.stream().await?;
        // From its first word after the welcome on it knows which job it serves.
        stream.until(|_| Some(())).await?;
        Ok((worker, stream))
    }

    /// Connects an ingest to the worker behind `stream`, and asks for partition 0.
    pub async fn ingest(&self, stream: &Stream) -> Result<Ingest> {
        let ingest = Ingest::connect(&stream.hello.address, JOB, self.job.fingerprint()).await?;
        ingest.ask().await?;
        Ok(ingest)
    }

    /// The committed results of a shard, as they are.
    pub async fn results(&self, shard: u32) -> Result<Vec<String>> {
        let records = self.committed(&self.job.sink.topic, shard).await?;
        Ok(records.iter().map(|record| text_of(record.payload())).collect())
    }

    /// The committed dead letters of a shard: value, and headers as `name=value`.
    pub async fn dead_letters(&self, shard: u32) -> Result<Vec<(String, String)>> {
        let records = self.committed(&self.job.dead_letter.topic, shard).await?;
        let headers = |record: &OwnedMessage| {
            let headers = record.headers().into_iter().flat_map(Headers::iter);
            headers
                .map(|header| format!("{}={}", header.key, text_of(header.value)))
                .collect::<Vec<_>>()
                .join(" ")
        };
        Ok(records.iter().map(|record| (text_of(record.payload()), headers(record))).collect())
    }

    /// How many committed records a shard's changelog has, markers aside.
    pub async fn chunks(&self, shard: u32) -> Result<usize> {
        Ok(self.committed(&self.job.changelog_topic(), shard).await?.len())
    }

    async fn committed(&self, topic: &str, partition: u32) -> Result<Vec<OwnedMessage>> {
        let (bootstrap, topic) = (self.kafka.brokers.clone(), topic.to_owned());
        let read = move || {
            let partition = i32::try_from(partition)?;
            read_to_end(&bootstrap, &topic, partition, Offset::Beginning, Isolation::ReadCommitted)
        };
        tokio::task::spawn_blocking(read).await?
    }
}

fn text_of(bytes: Option<&[u8]>) -> String {
    bytes.map_or("-".to_owned(), |bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// A worker on a runtime of its own.
pub struct Worker {
    runtime: Option<Runtime>,
    tasks: Tasks,
    readiness: Readiness,
}

impl Worker {
    async fn start(settings: Settings) -> Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(2).enable_all().thread_name("worker").build()?;
        let (tasks, readiness) = (Tasks::new(), Readiness::new());
        let (group, ready) = (tasks.clone(), readiness.clone());
        let started =
            runtime.spawn(async move { start(settings, &mut metrics::registry("rig"), ready, &group).await });
        started.await??;
        Ok(Self { runtime: Some(runtime), tasks, readiness })
    }

    /// Waits until this is why the worker is not ready; `None`: until it is.
    pub async fn until_unready(&self, reason: Option<&str>) {
        while self.readiness.why_not().as_deref() != reason {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Ends the worker as SIGTERM does.
    pub async fn stop(self) -> Result<()> {
        self.tasks.shutdown().request(Reason::Done);
        let ended = self.ended().await?;
        ensure!(ended == Ended::Finished, "{ended:?}");
        Ok(())
    }

    /// How the worker ends.
    pub async fn ended(self) -> Result<Ended> {
        let tasks = self.tasks.clone();
        let runtime = self.runtime.as_ref().context("the runtime of a worker lives as long as it")?;
        let ended = runtime.spawn(async move { tasks.run_until_shutdown(Duration::from_secs(10)).await });
        Ok(ended.await??)
    }

    /// Lets the worker vanish: no task of it gets any further.
    pub fn vanish(self) {}
}

impl Drop for Worker {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The state directory that workers of a check share one after the other.
pub fn shared_state(rig: &Rig) -> PathBuf {
    rig.directory.path().join("shared")
}

fn text(name: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {name}-source
  partitions: 1
  format: json
  key: {{ field: /user }}
  event_time:
    - {{ field: /ts, unit: ms }}
watermark:
  strategy: bounded_out_of_orderness
  delay: 1s
  idle_timeout: 1s
  on_quiet: hold
window:
  tumbling: {{ size: 10ms }}
allowed_lateness: 0ms
aggregates:
  - {{ name: count, fn: count }}
  - {{ name: sum, fn: sum, field: /value, scale: 0 }}
sink: {{ topic: {name}-results }}
dead_letter:
  topic: {name}-dead
state:
  shards: {SHARDS}
"
    )
}
