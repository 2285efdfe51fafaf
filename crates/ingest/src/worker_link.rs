//! The stream to one worker, opened again as long as the coordinator names the worker.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use tidegate_core::{
    lane::WorkerRef,
    time::{EventTime, Offset, Partition, Shard},
};
use tidegate_proto::{convert, v1};
use tidegate_runtime::{backoff::Backoff, grpc::Peer};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use crate::{error::Error, event::Event};

/// Messages that may wait for the stream; frames among them are bounded by credit.
const WAITING: usize = 4096;

/// What all links of this process share.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    /// The first message of each stream, but for the number of the stream.
    pub(crate) hello: v1::FeedHello,
    /// Numbers connections.
    pub(crate) connections: Arc<AtomicU64>,
}

/// Keeps a stream to the worker `name` open until the task is aborted or `events` has no listener.
pub(crate) async fn run(name: String, peer: Peer, identity: Identity, events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    while !events.is_closed() {
        let connection = WorkerRef(identity.connections.fetch_add(1, Ordering::Relaxed));
        match serve(&name, &peer, connection, &identity, &events, &mut backoff).await {
            Ok(()) => tracing::warn!(worker = name, "the worker closed the stream"),
            Err(status) if status.code() == Code::FailedPrecondition => {
                let refused =
                    Error::Refused { peer: format!("worker {name}"), reason: status.message().to_owned() };
                let _ = events.send(Event::Fatal(refused)).await;
                return;
            }
            Err(status) => {
                tracing::debug!(worker = name, error = %status.message(), "no stream to the worker, trying again");
            }
        }
        if events.send(Event::WorkerDown { connection }).await.is_err() {
            return;
        }
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn serve(
    name: &str,
    peer: &Peer,
    connection: WorkerRef,
    identity: &Identity,
    events: &mpsc::Sender<Event>,
    backoff: &mut Backoff,
) -> Result<(), tonic::Status> {
    let channel = peer.connect().await?;
    let (outgoing, stream) = mpsc::channel(WAITING);
    let hello = v1::FeedHello { stream: connection.0, ..identity.hello.clone() };
    let hello = v1::feed_request::Message::Hello(hello);
    let _ = outgoing.send(v1::FeedRequest { message: Some(hello) }).await;
    let mut client = v1::worker_client::WorkerClient::new(channel)
        .max_decoding_message_size(tidegate_proto::MAX_MESSAGE_BYTES)
        .max_encoding_message_size(tidegate_proto::MAX_MESSAGE_BYTES);
    let mut responses = client.feed(ReceiverStream::new(stream)).await?.into_inner();
    backoff.reset();
    let up = Event::WorkerUp { connection, name: name.to_owned(), outgoing };
    if events.send(up).await.is_err() {
        return Ok(());
    }
    while let Some(response) = responses.message().await? {
        if let Some(event) = event_of(connection, response)?
            && events.send(event).await.is_err()
        {
            return Ok(());
        }
    }
    Ok(())
}

fn event_of(connection: WorkerRef, response: v1::FeedResponse) -> Result<Option<Event>, tonic::Status> {
    use v1::feed_response::Message;
    Ok(match response.message {
        Some(Message::Wants(wants)) => {
            let wants = wants.wants.into_iter().map(convert::want_from_wire).collect::<Result<_, _>>()?;
            Some(Event::Wants { connection, wants })
        }
        Some(Message::Credit(credit)) => Some(Event::Credit { connection, bytes: credit.bytes }),
        Some(Message::Committed(committed)) => {
            let positions = committed.positions.into_iter();
            let watermarks = committed.watermarks.into_iter();
            Some(Event::Committed {
                positions: positions
                    .map(|p| (Shard(p.shard), Partition(p.partition), Offset(p.next)))
                    .collect(),
                watermarks: watermarks.map(|w| (Shard(w.shard), EventTime(w.watermark_ms))).collect(),
            })
        }
        Some(Message::Welcome(_)) | None => None,
    })
}
