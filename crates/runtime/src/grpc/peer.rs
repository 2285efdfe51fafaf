//! The way to a peer: its address, and TLS where we speak it.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint, Uri};
use tower_service::Service;

use crate::tls::Tls;

/// How long connecting may take, the handshake included.
const CONNECT: Duration = Duration::from_secs(3);
/// A dead peer is seen after these two together.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(4));

/// Not an address.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct AddressError(String);

/// A peer at an address.
#[derive(Clone, Debug)]
pub struct Peer {
    endpoint: Endpoint,
    tls: Option<Tls>,
}

impl Peer {
    /// The peer at `HOST:PORT`, to be spoken to by TLS where it is given. A dead one is noticed within seconds.
    ///
    /// # Errors
    /// When that is no address.
    pub fn new(address: &str, tls: Option<Tls>) -> Result<Self, AddressError> {
        let uri = if address.contains("://") { address.to_owned() } else { format!("http://{address}") };
        let endpoint = Endpoint::from_shared(uri).map_err(|error| AddressError(error.to_string()))?;
        if tls.is_some() {
            server_name(endpoint.uri()).map_err(|error| AddressError(error.to_string()))?;
        }
        let (interval, timeout) = KEEP_ALIVE;
        let endpoint = endpoint
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(interval)
            .keep_alive_timeout(timeout)
            .keep_alive_while_idle(true)
            .tcp_nodelay(true);
        Ok(Self { endpoint, tls })
    }

    /// The same, with a bound on each call.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.endpoint = self.endpoint.timeout(timeout);
        self
    }

    /// Its address.
    #[must_use]
    pub fn uri(&self) -> &Uri {
        self.endpoint.uri()
    }

    /// Connects.
    ///
    /// # Errors
    /// Why not, with the address.
    pub async fn connect(&self) -> Result<Channel, tonic::Status> {
        let connected = match &self.tls {
            None => self.endpoint.connect().await,
            Some(tls) => self.endpoint.connect_with_connector(Connector { tls: tls.clone() }).await,
        };
        connected.map_err(|error| {
            tonic::Status::unavailable(format!("cannot connect to {}: {}", self.uri(), causes(&error)))
        })
    }

    /// Connects when it is first used.
    #[must_use]
    pub fn connect_lazy(&self) -> Channel {
        match &self.tls {
            None => self.endpoint.connect_lazy(),
            Some(tls) => self.endpoint.connect_with_connector_lazy(Connector { tls: tls.clone() }),
        }
    }
}

/// What went wrong below, without what merely repeats it.
fn causes(error: &dyn std::error::Error) -> String {
    let mut deepest = error;
    while let Some(source) = deepest.source() {
        deepest = source;
    }
    deepest.to_string()
}

fn server_name(uri: &Uri) -> io::Result<ServerName<'static>> {
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned())
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, format!("`{host}` is no name of a host")))
}

/// Opens connections by TLS, with the certificates of the moment.
#[derive(Clone, Debug)]
struct Connector {
    tls: Tls,
}

impl Service<Uri> for Connector {
    type Response = TokioIo<Told>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let tls = self.tls.clone();
        Box::pin(async move {
            let opened = tokio::time::timeout(CONNECT, open(&tls, &uri)).await;
            let stream = opened.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
            Ok(TokioIo::new(Told { stream, peer: uri }))
        })
    }
}

async fn open(tls: &Tls, uri: &Uri) -> io::Result<TlsStream<TcpStream>> {
    let name = server_name(uri)?;
    let host = uri.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let connected = TlsConnector::from(Arc::clone(&tls.client())).connect(name, stream).await;
    connected.map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            io::Error::new(error.kind(), "it does not speak TLS, or refuses us: it closed the connection")
        }
        _ => error,
    })
}

/// By TLS 1.3 a client hears only after its handshake that the server refuses its certificate, and what is above would say no more
/// than that the connection broke.
#[derive(Debug)]
struct Told {
    stream: TlsStream<TcpStream>,
    peer: Uri,
}

impl AsyncRead for Told {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if let Poll::Ready(Err(error)) = &read
            && let Some(rustls::Error::AlertReceived(alert)) =
                error.get_ref().and_then(|inner| inner.downcast_ref())
        {
            tracing::warn!(peer = %self.peer, ?alert, "the peer refuses our certificate (--tls-cert), or its own has changed");
        }
        read
    }
}

impl AsyncWrite for Told {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
