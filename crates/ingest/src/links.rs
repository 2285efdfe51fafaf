//! Which workers this ingest keeps streams to: those that the coordinator names as owners of shards.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, atomic::AtomicU64},
};

use tidegate_core::block::JobId;
use tidegate_proto::v1;
use tidegate_runtime::{grpc::Peer, tls::Tls};
use tokio::{sync::mpsc, task::AbortHandle};

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
    tls: Option<Tls>,
    connections: Arc<AtomicU64>,
    events: mpsc::Sender<Event>,
    open: BTreeMap<String, (String, AbortHandle)>,
}

impl Links {
    /// No links yet. `ingest` names this process; workers are spoken to by TLS where it is given.
    #[must_use]
    pub(crate) fn new(fingerprint: u64, ingest: u64, tls: Option<Tls>, events: mpsc::Sender<Event>) -> Self {
        Self { fingerprint, ingest, tls, connections: Arc::default(), events, open: BTreeMap::new() }
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
            let peer = peer(&format!("worker {name}"), address, self.tls.clone())?;
            let identity = Identity {
                hello: v1::FeedHello {
                    job: job.0.to_vec().into(),
                    fingerprint: self.fingerprint,
                    ingest: self.ingest,
                    stream: 0,
                },
                connections: Arc::clone(&self.connections),
            };
            let link = worker_link::run(name.to_owned(), peer, identity, self.events.clone());
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

/// The peer at an address.
///
/// # Errors
/// When the address is none.
pub(crate) fn peer(peer: &str, address: &str, tls: Option<Tls>) -> Result<Peer, Error> {
    Peer::new(address, tls).map_err(|error| Error::Address {
        peer: peer.to_owned(),
        address: address.to_owned(),
        reason: error.to_string(),
    })
}
