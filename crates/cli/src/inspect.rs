//! A shard, asked of the worker that owns it.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tidegate_core::time::Shard;
use tidegate_proto::v1::{self, worker_client::WorkerClient};
use tidegate_runtime::{grpc::Peer, tls};
use tonic::Code;

/// How long a worker may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// A shard that moves while it is asked for is asked for again this often.
const ATTEMPTS: u32 = 2;

/// The shard of a key, by what the coordinator says of the job.
///
/// # Errors
/// When the coordinator is of an older tidegate that does not say.
pub(crate) fn shard_of(status: &v1::JobStatus, key: &[u8]) -> Result<u32> {
    let shards = status.facts.as_ref().map_or(0, |facts| facts.shards);
    if shards == 0 {
        bail!("the coordinator does not say how many shards the job has: it is older than this tidegate");
    }
    Ok(Shard::of(key, shards).0)
}

/// What the owner of a shard answers, or why there is no answer.
pub(crate) async fn inspect(
    status: &v1::JobStatus,
    tls: &tls::Flags,
    shard: u32,
    key: Option<&[u8]>,
    dead_letter: Option<v1::DeadLetterPlace>,
) -> Result<Result<v1::InspectResponse, String>> {
    let Some(owner) = status.owners.iter().find(|owner| owner.shard == shard) else {
        let known = status.shards.iter().find(|known| known.shard == shard);
        let state = known.map_or_else(|| format!("{shard} is not of this job"), crate::why::shard_state);
        return Ok(Err(format!("nobody has its state now: shard {state}")));
    };
    let v1::Owner { worker, address, .. } = owner;
    let peer = Peer::new(address, tls.load()?)
        .with_context(|| format!("worker `{worker}` is said to be at `{address}`, which is no address"))?
        .with_timeout(PATIENCE);
    let mut client = WorkerClient::new(peer.connect_lazy());
    let request =
        v1::InspectRequest { shard, key: key.map(|key| key.to_vec().into()), windows: 0, dead_letter };
    let mut refusal = String::new();
    for _ in 0..ATTEMPTS {
        match client.inspect(request.clone()).await {
            Ok(answer) => return Ok(Ok(answer.into_inner())),
            Err(said) if said.code() == Code::Unimplemented => {
                refusal = "it runs an older tidegate, which cannot be asked".to_owned();
            }
            Err(said) => refusal = said.message().to_owned(),
        }
    }
    Ok(Err(format!("worker `{worker}` at {address}, which owns it, does not answer: {refusal}")))
}
