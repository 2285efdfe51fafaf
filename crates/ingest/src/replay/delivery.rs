//! Frames on their way to the owners of their shards: each is sent until it is answered.
//!
//! An owner that is gone, or a commit that fails, is no answer: the frame is sent again, to whoever owns the shard then. Little is
//! under way to one shard, so that its live records do not wait behind it, and of all shards no more than some bytes.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tidegate_core::{block::JobId, replay::ReplayFrame, time::Shard};
use tidegate_proto::{MAX_MESSAGE_BYTES, replay::frame_to_wire, v1};
use tidegate_runtime::{backoff::Backoff, grpc::Peer, tls::Tls};
use tokio::{
    sync::{Semaphore, watch},
    task::JoinSet,
    time::{sleep, timeout},
};
use tonic::{Code, transport::Channel};
use v1::worker_client::WorkerClient;

/// Frames under way to one shard: one that is applied, one that waits for its commit, one on the way.
const OF_A_SHARD: usize = 3;
/// Bytes under way in all: beyond it nothing more is read.
const BYTES: usize = 16 << 20;
/// After so long without an answer a frame is sent again.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who owns which shard, and how it is reached.
#[derive(Clone, Debug, Default)]
pub(super) struct Directory {
    job: JobId,
    fingerprint: u64,
    owners: BTreeMap<Shard, Arc<Owner>>,
}

#[derive(Debug)]
struct Owner {
    worker: String,
    address: String,
    client: WorkerClient<Channel>,
}

impl Directory {
    /// With these owners; connections to those that stay are kept.
    pub(super) fn replaced(
        mut self,
        job: JobId,
        fingerprint: u64,
        owners: &v1::Owners,
        tls: Option<&Tls>,
    ) -> Self {
        let mut known: Vec<Arc<Owner>> = std::mem::take(&mut self.owners).into_values().collect();
        let mut of = |owner: &v1::Owner| {
            let same = |known: &&Arc<Owner>| known.worker == owner.worker && known.address == owner.address;
            if let Some(same) = known.iter().find(same) {
                return Some(Arc::clone(same));
            }
            // One that is none has ended the reading of the source already.
            let peer = Peer::new(&owner.address, tls.cloned()).ok()?;
            let client = WorkerClient::new(peer.connect_lazy()).max_encoding_message_size(MAX_MESSAGE_BYTES);
            let (worker, address) = (owner.worker.clone(), owner.address.clone());
            let owner = Arc::new(Owner { worker, address, client });
            known.push(Arc::clone(&owner));
            Some(owner)
        };
        let owners = owners.owners.iter().filter_map(|owner| Some((Shard(owner.shard), of(owner)?)));
        Self { job, fingerprint, owners: owners.collect() }
    }
}

/// The frames under way.
pub(super) struct Deliveries {
    directory: watch::Receiver<Directory>,
    turns: BTreeMap<Shard, Arc<Semaphore>>,
    under_way: JoinSet<(usize, v1::ReplayAnswer)>,
    bytes: usize,
}

impl Deliveries {
    pub(super) fn new(directory: watch::Receiver<Directory>) -> Self {
        Self { directory, turns: BTreeMap::new(), under_way: JoinSet::new(), bytes: 0 }
    }

    /// Whether more may be read.
    pub(super) const fn have_room(&self) -> bool {
        self.bytes < BYTES
    }

    /// Whether all are answered.
    pub(super) fn is_empty(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Sends a frame until it is answered.
    pub(super) fn send(&mut self, shard: Shard, frame: ReplayFrame) {
        let bytes = frame.rows.bytes();
        self.bytes += bytes;
        let turns = self.turns.entry(shard).or_insert_with(|| Arc::new(Semaphore::new(OF_A_SHARD)));
        let (turns, directory) = (Arc::clone(turns), self.directory.clone());
        self.under_way.spawn(async move { (bytes, deliver(shard, frame, &turns, directory).await) });
    }

    /// The next answer; never where nothing is under way.
    pub(super) async fn next(&mut self) -> v1::ReplayAnswer {
        loop {
            match self.under_way.join_next().await {
                Some(Ok((bytes, answer))) => {
                    self.bytes -= bytes;
                    return answer;
                }
                // The task has said why it panicked; the process ends.
                Some(Err(_)) => {}
                None => std::future::pending().await,
            }
        }
    }
}

async fn deliver(
    shard: Shard,
    frame: ReplayFrame,
    turns: &Semaphore,
    mut directory: watch::Receiver<Directory>,
) -> v1::ReplayAnswer {
    let _turn = turns.acquire().await;
    let (job, fingerprint) = {
        let known = directory.borrow_and_update();
        (known.job, known.fingerprint)
    };
    let frame = frame_to_wire(job, fingerprint, shard, frame);
    let mut backoff = Backoff::default();
    loop {
        let owner = directory.borrow_and_update().owners.get(&shard).cloned();
        if let Some(owner) = owner {
            match timeout(PATIENCE, owner.client.clone().replay(frame.clone())).await {
                Ok(Ok(answer)) => return answer.into_inner(),
                Ok(Err(error)) => {
                    let (worker, message) = (&owner.worker, error.message());
                    if matches!(
                        error.code(),
                        Code::Unavailable | Code::NotFound | Code::Unknown | Code::Cancelled
                    ) {
                        tracing::debug!(
                            shard = shard.0,
                            worker,
                            error = message,
                            "dead letters are sent again"
                        );
                    } else {
                        tracing::warn!(
                            shard = shard.0,
                            worker,
                            error = message,
                            "a worker refuses dead letters, trying again"
                        );
                    }
                }
                Err(_) => {
                    tracing::warn!(
                        shard = shard.0,
                        worker = owner.worker,
                        "no answer to dead letters, sending them again"
                    );
                }
            }
        }
        tokio::select! {
            () = sleep(backoff.next_delay()) => {}
            changed = directory.changed() => if changed.is_err() {
                // This process ends.
                std::future::pending::<()>().await;
            },
        }
    }
}
