//! A job of its own for each check, and coordinators for it.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate_coordinator::{Config, Durability, Error, Gauges, serve};
use tidegate_core::time::{Offset, Partition};
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{Admin, ChangelogReader, KafkaConfig, NewTopic};
use tidegate_proto::v1;
use tidegate_proto::v1::coordinator_client::CoordinatorClient;
use tidegate_runtime::task::{Reason, Shutdown};
use tidegate_tests::clients::{PATIENCE, unique};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tonic::Code;
use tonic::transport::Channel;

/// S of every job here.
pub const SHARDS: u32 = 4;
/// Partitions of the source of every job here.
pub const PARTITIONS: u32 = 3;

/// Runs a check with a job of its own.
pub fn on<F: Future<Output = Result<()>>>(bootstrap: &str, check: impl FnOnce(Rig) -> F) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let rig = Rig::new(bootstrap, &unique("coord"))?;
    let done = runtime.block_on(async { tokio::time::timeout(PATIENCE * 3, check(rig)).await });
    runtime.shutdown_background();
    done.context("the check did not come to its end")?
}

/// A broker and a job.
pub struct Rig {
    pub kafka: KafkaConfig,
    pub admin: Admin,
    pub name: String,
    pub job: Job,
}

impl Rig {
    fn new(bootstrap: &str, name: &str) -> Result<Self> {
        let kafka = KafkaConfig::new(bootstrap, name);
        let text = text(name, "10s", &format!("partitions: {PARTITIONS}"));
        Ok(Self { admin: Admin::open(&kafka)?, kafka, name: name.to_owned(), job: parse(&text)? })
    }

    /// The same job with another window.
    pub fn with_window(&self, size: &str) -> Result<Job> {
        parse(&text(&self.name, size, &format!("partitions: {PARTITIONS}")))
    }

    /// The same job with an aggregate more.
    pub fn with_added(&self) -> Result<Job> {
        let text = text(&self.name, "10s", &format!("partitions: {PARTITIONS}"));
        parse(&text.replace("\nsink:", "\n  - { name: largest, fn: max, field: /v }\nsink:"))
    }

    /// The same job, which keeps what replays need.
    pub fn with_replay(&self) -> Result<Job> {
        let text = text(&self.name, "10s", &format!("partitions: {PARTITIONS}"));
        let topic = format!("topic: {}-dead\n", self.name);
        parse(&text.replace(&topic, &format!("{topic}  replay: {{ ttl: 1h }}\n")))
    }

    /// Another job that does the same with the same source.
    pub fn heir(&self) -> Result<Job> {
        let name = format!("{}-heir", self.name);
        let text = text(&name, "10s", &format!("partitions: {PARTITIONS}"));
        parse(&text.replace(&format!("{name}-source"), &self.job.source.topic))
    }

    /// The same job, but its source is not to be created.
    pub fn without_partitions(&self) -> Result<Job> {
        parse(&text(&self.name, "10s", "start_from: earliest"))
    }

    pub async fn create(&self, name: &str, partitions: u32, configs: &[(&str, &str)]) -> Result<()> {
        let configs = configs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let topic = NewTopic { name: name.to_owned(), partitions, replication: None, configs };
        self.admin.create(&topic).await?;
        Ok(())
    }

    /// Starts a coordinator of the job.
    pub async fn start(&self) -> Result<Running> {
        self.start_with(self.job.clone()).await
    }

    /// Starts a coordinator of another version of the job.
    pub async fn start_with(&self, job: Job) -> Result<Running> {
        start(self.config(job)).await
    }

    pub fn config(&self, job: Job) -> Config {
        Config {
            tls: None,
            job,
            kafka: self.kafka.clone(),
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            report_interval: Duration::from_millis(500),
            worker_return_timeout: Duration::from_secs(10),
            grace: Duration::from_millis(200),
            session_timeout: Duration::from_secs(6),
            instance: None,
            from_savepoint: None,
            durability: Durability::default(),
        }
    }

    /// The committed records of a partition: offset, key, value.
    pub async fn committed(&self, topic: &str, partition: u32) -> Result<Vec<(Offset, String, Vec<u8>)>> {
        let (kafka, topic) = (self.kafka.clone(), topic.to_owned());
        let read = move || {
            let mut records = Vec::new();
            ChangelogReader::open(&kafka, &topic)?.read::<tidegate_kafka::Error>(
                Partition(partition),
                None,
                PATIENCE,
                |entry| {
                    let key = String::from_utf8_lossy(entry.key.unwrap_or_default()).into_owned();
                    records.push((entry.offset, key, entry.value.unwrap_or_default().to_vec()));
                    Ok(())
                },
            )?;
            Ok(records)
        };
        tokio::task::spawn_blocking(read).await?
    }

    /// The committed values under a key of the control topic.
    pub async fn control(&self, key: &str) -> Result<Vec<(Offset, Vec<u8>)>> {
        let records = self.committed(&self.job.control_topic(), 0).await?;
        Ok(records.into_iter().filter(|record| record.1 == key).map(|(at, _, value)| (at, value)).collect())
    }
}

pub async fn start(config: Config) -> Result<Running> {
    let listener = TcpListener::bind(config.listen).await?;
    let address = listener.local_addr()?;
    let (gauges, shutdown) = (Gauges::default(), Shutdown::new());
    let task = tokio::spawn(serve(config, listener, gauges.clone(), shutdown.clone()));
    Ok(Running { url: Arc::from(format!("http://{address}")), gauges, shutdown, task })
}

/// A coordinator that was started.
pub struct Running {
    pub url: Arc<str>,
    pub gauges: Gauges,
    shutdown: Shutdown,
    task: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// A client, whether the coordinator leads or not.
    pub async fn client(&self) -> Result<CoordinatorClient<Channel>> {
        Ok(CoordinatorClient::connect(self.url.to_string()).await?)
    }

    /// What the coordinator says of the job, once it leads.
    pub async fn status(&self) -> Result<v1::JobStatus> {
        loop {
            match self.glance().await {
                Err(status) if status.code() == Code::Unavailable => {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                status => return Ok(status?),
            }
        }
    }

    /// What the coordinator says of the job now.
    pub async fn glance(&self) -> Result<v1::JobStatus, tonic::Status> {
        let client = CoordinatorClient::connect(self.url.to_string()).await;
        let mut client = client.map_err(|error| tonic::Status::internal(error.to_string()))?;
        Ok(client.status(v1::StatusRequest {}).await?.into_inner())
    }

    /// Waits until it is on standby, and gives what it says then.
    pub async fn standby(&self) -> Result<tonic::Status> {
        loop {
            match self.glance().await {
                Err(status) if status.message().contains("on standby") => return Ok(status),
                // It serves no more.
                Err(status) if status.code() == Code::Internal => return Err(status.into()),
                _ => tokio::time::sleep(Duration::from_millis(5)).await,
            }
        }
    }

    /// Why it ended by itself.
    pub async fn failed(self) -> Result<Error> {
        match self.task.await? {
            Ok(()) => bail!("it ended well"),
            Err(error) => Ok(error),
        }
    }

    /// Asks it to end.
    pub async fn stop(self) -> Result<()> {
        self.shutdown.request(Reason::Done);
        Ok(self.task.await??)
    }

    /// Lets it vanish.
    pub async fn kill(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

fn text(name: &str, window: &str, source: &str) -> String {
    format!(
        "name: {name}
source:
  topic: {name}-source
  {source}
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
  tumbling: {{ size: {window} }}
allowed_lateness: 0ms
aggregates:
  - {{ name: count, fn: count }}
sink: {{ topic: {name}-results }}
dead_letter:
  topic: {name}-dead
state:
  shards: {SHARDS}
"
    )
}

fn parse(text: &str) -> Result<Job> {
    Ok(JobFile::parse(text, "test.yaml")?)
}
