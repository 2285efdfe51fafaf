//! One client connection: frames in, frames out, one request at a time and in order, as Kafka does it.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Buf, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::api::{self, Request};
use crate::broker::Broker;
use crate::faults::Fault;
use crate::handlers;

/// The largest request that is read: Kafka's `socket.request.max.bytes`.
const MAX_FRAME: usize = 104_857_600;
const READ_AHEAD: usize = 64 * 1024;

/// What a handler may know of the connection that a request came on.
#[derive(Debug)]
pub(crate) struct Context {
    pub(crate) broker: Arc<Broker>,
    /// The address that the client reached: what metadata tells it to connect to.
    pub(crate) local: SocketAddr,
    pub(crate) peer: SocketAddr,
    /// Number of this connection.
    pub(crate) number: u64,
    /// Told when a partition that this connection waits for has moved.
    pub(crate) waiter: Arc<Notify>,
}

#[derive(Debug, thiserror::Error)]
enum Closed {
    #[error("connection lost: {0}")]
    Lost(#[from] io::Error),
    #[error("frame of {0} bytes, outside 0..={MAX_FRAME}")]
    FrameSize(i32),
    #[error("{0}")]
    Protocol(#[from] api::Error),
    #[error("closed on purpose: {1:?} at {0:?}")]
    Fault(ApiKey, Fault),
}

/// Serves a connection until the client leaves or breaks the protocol.
pub(crate) async fn serve(stream: TcpStream, peer: SocketAddr, number: u64, broker: Arc<Broker>) {
    match converse(stream, peer, number, broker).await {
        Ok(()) => tracing::debug!(%peer, "client left"),
        Err(Closed::Protocol(error)) => tracing::warn!(%peer, %error, "client refused"),
        Err(closed) => tracing::debug!(%peer, error = %closed, "connection closed"),
    }
}

async fn converse(
    mut stream: TcpStream,
    peer: SocketAddr,
    number: u64,
    broker: Arc<Broker>,
) -> Result<(), Closed> {
    stream.set_nodelay(true)?;
    let context =
        Context { broker, local: stream.local_addr()?, peer, number, waiter: Arc::new(Notify::new()) };
    let mut buffer = BytesMut::with_capacity(READ_AHEAD);
    while let Some(frame) = read_frame(&mut stream, &mut buffer).await? {
        if let Some(response) = answer(&context, frame).await? {
            stream.write_all(&response).await?;
        }
    }
    Ok(())
}

/// `None` when the client has closed the connection between two requests.
async fn read_frame(stream: &mut TcpStream, buffer: &mut BytesMut) -> Result<Option<Bytes>, Closed> {
    loop {
        let mut peek = &buffer[..];
        if let Ok(length) = peek.try_get_i32() {
            let size = usize::try_from(length).ok().filter(|&size| size <= MAX_FRAME);
            let size = size.ok_or(Closed::FrameSize(length))?;
            if peek.len() >= size {
                buffer.advance(4);
                return Ok(Some(buffer.split_to(size).freeze()));
            }
            buffer.reserve(4 + size - buffer.len());
        } else {
            buffer.reserve(READ_AHEAD);
        }
        if stream.read_buf(buffer).await? == 0 {
            return if buffer.is_empty() {
                Ok(None)
            } else {
                Err(Closed::Lost(io::ErrorKind::UnexpectedEof.into()))
            };
        }
    }
}

/// `None` if the client expects no response.
async fn answer(context: &Context, frame: Bytes) -> Result<Option<BytesMut>, Closed> {
    let request = match Request::decode(frame)? {
        Ok(request) => request,
        Err(response) => return Ok(Some(response)),
    };
    let fault = context.broker.faults.take(request.api);
    match fault {
        Some(fault @ Fault::Disconnect) => return Err(Closed::Fault(request.api, fault)),
        Some(Fault::Delay(delay)) => tokio::time::sleep(delay).await,
        Some(Fault::DropResponseAfterApply) | None => {}
    }
    let Request { api, version, correlation_id, client_id, body } = request;
    let response = handlers::handle(context, version, &client_id, body).await;
    if let Some(fault @ Fault::DropResponseAfterApply) = fault {
        return Err(Closed::Fault(api, fault));
    }
    match response {
        Some(response) => Ok(Some(api::encode(api, version, correlation_id, &response)?)),
        None => Ok(None),
    }
}
