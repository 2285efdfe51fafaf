//! The development broker, in the test's own process on a runtime in the background.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use tidegate_devbroker::{Config, DevBroker, Faults};
use tokio::runtime::{Builder, Runtime};

/// A development broker of its own for one test, which may give it faults. Most tests share [`dev_kafka`].
#[derive(Debug)]
pub struct DevKafka {
    bootstrap: String,
    // Before the runtime that its tasks run on: fields are dropped in this order.
    broker: DevBroker,
    _runtime: Runtime,
}

/// The development broker that the tests of one binary share; it has no faults.
///
/// # Panics
///
/// When it does not start.
pub fn dev_kafka() -> &'static DevKafka {
    static SHARED: OnceLock<Result<DevKafka, String>> = OnceLock::new();
    match SHARED.get_or_init(|| DevKafka::start().map_err(|error| format!("{error:#}"))) {
        Ok(broker) => broker,
        Err(error) => panic!("the development broker did not start: {error}"),
    }
}

impl DevKafka {
    /// Starts an empty broker on a free port.
    pub fn start() -> Result<Self> {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().thread_name("devbroker").build()?;
        let broker =
            runtime.block_on(DevBroker::start(Config::default())).context("start the development broker")?;
        Ok(Self { bootstrap: broker.address().to_string(), broker, _runtime: runtime })
    }

    /// `host:port` for clients.
    pub fn bootstrap(&self) -> &str {
        &self.bootstrap
    }

    /// What goes wrong with the next requests.
    pub fn faults(&self) -> &Faults {
        self.broker.faults()
    }
}
