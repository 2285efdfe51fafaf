//! Which workers this ingest keeps streams to: those that the coordinator names as owners of shards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};

use tidegate_core::block::JobId;
use tidegate_proto::v1;
use tokio::{sync::mpsc, task::AbortHandle};
use tonic::transport::Endpoint;

use crate::{
    error::Error,
    event::Event,
    worker_link::{self, Identity},
};

/// The links to the workers.
#[derive(Debug)]
pub(crate) struct Links {
    fingerprint: u64,
    ingest: u64,
    connections: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    open: BTreeMap<String, (String, AbortHandle)>,
}

impl Links {
    /// No links yet. `ingest` names this process.
    #[must_use]
    pub(crate) fn new(fingerprint: u64, ingest: u64, events: mpsc::Sender<Event>) -> Self {
        Self { fingerprint, ingest, connections: Arc::default(), events, open: BTreeMap::new() }
    }

    /// Opens links to owners that have none, and to those that moved. The link to a worker that owns nothing stays: it may own
    /// something soon, and its shards end their sessions themselves.
    ///
    /// # Errors
    /// When an address is none.
    pub(crate) fn set_owners(&mut self, job: JobId, owners: &v1::Owners) -> Result<(), Error> {
        let named: BTreeSet<(&str, &str)> =
            owners.owners.iter().map(|owner| (owner.worker.as_str(), owner.address.as_str())).collect();
        for (name, address) in named {
            if self.open.get(name).is_some_and(|(known, task)| known == address && !task.is_finished()) {
                continue;
            }
            let endpoint = endpoint(&format!("worker {name}"), address)?;
            let identity = Identity {
                hello: v1::FeedHello {
                    job: job.0.to_vec().into(),
                    fingerprint: self.fingerprint,
                    ingest: self.ingest,
                    stream: 0,
                },
                connections: Arc::clone(&self.connections),
            };
            let link = worker_link::run(name.to_owned(), endpoint, identity, self.events.clone());
            let task = tidegate_runtime::task::spawn("worker-link", link);
            if let Some((_, before)) =
                self.open.insert(name.to_owned(), (address.to_owned(), task.abort_handle()))
            {
                before.abort();
            }
        }
        Ok(())
    }
}

/// A gRPC endpoint whose dead peers are noticed within seconds.
///
/// # Errors
/// When the address is none.
pub(crate) fn endpoint(peer: &str, address: &str) -> Result<Endpoint, Error> {
    let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
    let endpoint = Endpoint::from_shared(uri).map_err(|error| Error::Address {
        peer: peer.to_owned(),
        address: address.to_owned(),
        reason: error.to_string(),
    })?;
    Ok(endpoint
        .connect_timeout(Duration::from_secs(3))
        .http2_keep_alive_interval(Duration::from_secs(2))
        .keep_alive_timeout(Duration::from_secs(4))
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}
