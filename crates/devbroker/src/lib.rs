//! An in-memory Kafka-compatible development broker, with faults on purpose.
//!
//! One node, one replica, everything in memory, for `tidegate dev`, the demo and tests. Unmodified
//! librdkafka clients work against it: groups (classic protocol), idempotent and transactional producers,
//! `read_committed`, topic administration. The conformance suite runs against it and against Apache Kafka.
//!
//! ```text
//! connection ─► api (versions, dispatch) ─► handlers/* ─► state ─┬─ topics ─► log ─► batch, sequences
//!      └ faults                                                  ├─ groups ─► offsets
//!                                                                └─ transactions
//! ```
//!
//! # What it does not do
//!
//! - Retention and compaction: logs are kept whole until DeleteRecords or DeleteTopics, whatever
//!   `cleanup.policy` and `retention.*` say.
//! - Replication, TLS, SASL, ACLs, quotas, fetch sessions, the new group protocol (KIP-848).
//! - Anything on disk: what is in it is gone when it stops.

mod api;
mod batch;
mod broker;
mod connection;
mod faults;
mod groups;
mod handlers;
mod log;
mod offsets;
mod sequences;
mod state;
mod topic_config;
mod topics;
mod transactions;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

pub use faults::{Fault, Faults};
pub use kafka_protocol::messages::ApiKey;

use broker::Broker;

/// How late an expired session, rebalance or transaction may be noticed.
const TICK: Duration = Duration::from_millis(20);

/// How a broker behaves. [`Config::default`] listens on a free port of the loopback interface.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Whether asking for the metadata of an unknown topic creates it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that is created without saying how many.
    pub default_partitions: u16,
    /// How long the first rebalance of an empty group waits for more members.
    pub group_initial_rebalance_delay: Duration,
    /// The longest transaction timeout that a producer may ask for.
    pub transaction_max_timeout: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            auto_create_topics: false,
            default_partitions: 1,
            group_initial_rebalance_delay: Duration::ZERO,
            transaction_max_timeout: Duration::from_secs(15 * 60),
        }
    }
}

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken or not of this machine.
    #[error("the development broker cannot listen on {address}: {source}; choose another address or port 0")]
    Listen {
        /// The address of the configuration.
        address: SocketAddr,
        /// What the operating system says.
        source: io::Error,
    },
}

/// A running broker. Dropping it ends it at once; [`DevBroker::stop`] waits for its tasks.
#[derive(Debug)]
pub struct DevBroker {
    address: SocketAddr,
    broker: Arc<Broker>,
    stopping: CancellationToken,
    tasks: JoinSet<()>,
}

impl DevBroker {
    /// Starts a broker whose tasks run on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] if the address cannot be bound.
    pub async fn start(config: Config) -> Result<Self, Error> {
        let listen_error = |source| Error::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen_error)?;
        let address = listener.local_addr().map_err(listen_error)?;
        let broker = Arc::new(Broker::new(config));
        let stopping = CancellationToken::new();
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, Arc::clone(&broker), stopping.clone()));
        tasks.spawn(tick(Arc::clone(&broker), stopping.clone()));
        tracing::info!(%address, "development broker listens");
        Ok(Self { address, broker, stopping, tasks })
    }

    /// Where it listens: the bootstrap server of its clients.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The faults it meets its clients with.
    pub fn faults(&self) -> &Faults {
        &self.broker.faults
    }

    /// Closes the listener and all connections, and waits until that is done.
    pub async fn stop(mut self) {
        self.stopping.cancel();
        while self.tasks.join_next().await.is_some() {}
    }
}

async fn accept(listener: TcpListener, broker: Arc<Broker>, stopping: CancellationToken) {
    let mut connections = JoinSet::new();
    let mut number = 0;
    loop {
        tokio::select! {
            () = stopping.cancelled() => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    number += 1;
                    connections.spawn(connection::serve(stream, peer, number, Arc::clone(&broker)));
                }
                // Out of file descriptors, most likely: closing connections will free some.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(TICK).await;
                }
            },
        }
    }
    drop(listener);
    connections.shutdown().await;
}

async fn tick(broker: Arc<Broker>, stopping: CancellationToken) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            _ = interval.tick() => broker.state().tick(Instant::now(), broker::wall_clock_ms()),
        }
    }
}
