//! The stream to the coordinator that leads, opened again for ever: meanwhile records flow and watermarks stand still.

use std::time::Duration;

use tidegate_core::announcement::Term;
use tidegate_kafka::TopicId;
use tidegate_proto::{convert, v1};
use tidegate_runtime::{grpc::Peer, rounds::Rounds};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming};

use crate::{error::Error, event::Event};

/// Reports that may wait for the stream: a few ms of them.
const WAITING: usize = 256;
/// How long a coordinator may take to its welcome; one that is halted is left for the next.
const WELCOME: Duration = Duration::from_secs(3);

/// Keeps a stream open until `events` has no listener.
pub(crate) async fn run(coordinators: Vec<Peer>, hello: v1::IngestHello, events: mpsc::Sender<Event>) {
    let mut rounds = Rounds::new(coordinators);
    while !events.is_closed() {
        match serve(hello, &events, &mut rounds).await {
            Ok(()) => tracing::warn!("the coordinator closed the stream"),
            Err(status) if status.code() == Code::FailedPrecondition => {
                let refused = Error::Refused {
                    peer: "the coordinator".to_owned(),
                    reason: status.message().to_owned(),
                };
                let _ = events.send(Event::Fatal(refused)).await;
                return;
            }
            Err(status) => {
                tracing::warn!(error = %status.message(), "no stream to the coordinator, trying again");
            }
        }
        if events.send(Event::CoordinatorDown).await.is_err() {
            return;
        }
        tokio::time::sleep(rounds.failed()).await;
    }
}

async fn serve(
    hello: v1::IngestHello,
    events: &mpsc::Sender<Event>,
    rounds: &mut Rounds<Peer>,
) -> Result<(), tonic::Status> {
    let peer =
        rounds.current().ok_or_else(|| tonic::Status::unavailable("there is no address of a coordinator"))?;
    let channel = peer.connect().await?;
    let (reports, outgoing) = mpsc::channel(WAITING);
    let first = v1::IngestReport { message: Some(v1::ingest_report::Message::Hello(hello)) };
    let _ = reports.send(first).await;
    let mut client = v1::coordinator_client::CoordinatorClient::new(channel)
        .max_decoding_message_size(tidegate_proto::MAX_MESSAGE_BYTES);
    let greeted = async {
        let mut directives = client.ingest(ReceiverStream::new(outgoing)).await?.into_inner();
        let welcome = welcome(&mut directives).await?;
        Ok::<_, tonic::Status>((directives, welcome))
    };
    let (mut directives, welcome) = tokio::time::timeout(WELCOME, greeted)
        .await
        .map_err(|_| tonic::Status::unavailable(format!("no welcome in time: {}", peer.uri())))??;
    let job = convert::job_id(&welcome.job)?;
    rounds.succeeded();
    tracing::info!("the coordinator takes this ingest");
    if events
        .send(Event::CoordinatorUp {
            job,
            term: Term(welcome.term),
            source: <[u8; 16]>::try_from(&*welcome.source_id).ok().map(|id| TopicId(u128::from_be_bytes(id))),
            report_interval: welcome.report_interval_ms,
            reports,
        })
        .await
        .is_err()
    {
        return Ok(());
    }
    while let Some(directive) = directives.message().await? {
        let Some(message) = directive.message else { continue };
        if events.send(Event::Directive(message)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

async fn welcome(directives: &mut Streaming<v1::IngestDirective>) -> Result<v1::Welcome, tonic::Status> {
    match directives.message().await?.and_then(|directive| directive.message) {
        Some(v1::ingest_directive::Message::Welcome(welcome)) => Ok(welcome),
        _ => Err(tonic::Status::unavailable("the stream ended before its welcome")),
    }
}
