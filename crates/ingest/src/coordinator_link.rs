//! The stream to the coordinator, opened again for ever: meanwhile records flow and watermarks stand still.

use tidegate_core::announcement::Term;
use tidegate_proto::{convert, v1};
use tidegate_runtime::backoff::Backoff;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Streaming, transport::Endpoint};

use crate::{error::Error, event::Event};

/// Reports that may wait for the stream: a few ms of them.
const WAITING: usize = 256;

/// Keeps a stream open until `events` has no listener.
pub(crate) async fn run(endpoint: Endpoint, hello: v1::IngestHello, events: mpsc::Sender<Event>) {
    let mut backoff = Backoff::default();
    while !events.is_closed() {
        match serve(&endpoint, hello, &events, &mut backoff).await {
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
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

async fn serve(
    endpoint: &Endpoint,
    hello: v1::IngestHello,
    events: &mpsc::Sender<Event>,
    backoff: &mut Backoff,
) -> Result<(), tonic::Status> {
    let channel = endpoint.connect().await.map_err(|error| tonic::Status::unavailable(error.to_string()))?;
    let (reports, outgoing) = mpsc::channel(WAITING);
    let first = v1::IngestReport { message: Some(v1::ingest_report::Message::Hello(hello)) };
    let _ = reports.send(first).await;
    let mut client = v1::coordinator_client::CoordinatorClient::new(channel)
        .max_decoding_message_size(tidegate_proto::MAX_MESSAGE_BYTES);
    let mut directives = client.ingest(ReceiverStream::new(outgoing)).await?.into_inner();
    let welcome = welcome(&mut directives).await?;
    let job = convert::job_id(&welcome.job)?;
    backoff.reset();
    tracing::info!("the coordinator takes this ingest");
    if events
        .send(Event::CoordinatorUp {
            job,
            term: Term(welcome.term),
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
