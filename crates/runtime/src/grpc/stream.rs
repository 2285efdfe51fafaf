//! A connection that was taken: plain or TLS, with the bytes read from it already, and its place among all connections.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TcpConnectInfo};

use super::farewell::Farewell;
use super::incoming::{Place, Watch};
use super::refusals::Reason;

/// What every HTTP/2 connection begins with.
pub(super) const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The transport below HTTP/2.
#[derive(Debug)]
pub(super) enum Transport {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// A connection whose peer speaks HTTP/2.
#[derive(Debug)]
pub struct Connection {
    transport: Transport,
    /// How much of the preface tonic has read again.
    replayed: usize,
    info: TcpConnectInfo,
    /// The peer has closed it, or it has broken.
    ended: bool,
    farewell: Farewell,
    watch: Watch,
    _place: Place,
}

impl Connection {
    /// Reads the preface.
    ///
    /// # Errors
    /// When the peer says something else, with what it said.
    pub(super) async fn open(
        mut transport: Transport,
        peer: SocketAddr,
        place: Place,
        watch: Watch,
    ) -> io::Result<Self> {
        let mut said = [0; PREFACE.len()];
        transport.read_exact(&mut said).await?;
        if said != *PREFACE {
            let said = said.escape_ascii();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("not HTTP/2: \"{said}\"")));
        }
        let local = match &transport {
            Transport::Plain(stream) => stream.local_addr(),
            Transport::Tls(stream) => stream.get_ref().0.local_addr(),
        };
        let info = TcpConnectInfo { local_addr: local.ok(), remote_addr: Some(peer) };
        let farewell = Farewell::default();
        Ok(Self { transport, replayed: 0, info, ended: false, farewell, watch, _place: place })
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.info.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(rest) = PREFACE.get(self.replayed..).filter(|rest| !rest.is_empty()) {
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(rest.get(..taken).unwrap_or_default());
            self.replayed += taken;
            return Poll::Ready(Ok(()));
        }
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.transport).poll_read(context, buffer);
        self.ended |= match &read {
            Poll::Ready(Ok(())) => {
                let read = buffer.filled().get(before..).unwrap_or_default();
                self.farewell.hear(read);
                self.farewell.is_said() || (read.is_empty() && buffer.remaining() > 0)
            }
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        read
    }
}

/// A server lets go of a connection that its peer has neither closed nor said that it leaves in two cases: the server ends, or the
/// peer is cut off.
impl Drop for Connection {
    fn drop(&mut self) {
        if let (false, true, Some(peer)) = (self.ended, self.watch.serves(), self.info.remote_addr) {
            self.watch.refusals.refuse(
                Reason::CutOff,
                peer,
                "it broke HTTP/2, or did not answer a ping in time",
            );
        }
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.transport).poll_write(context, bytes);
        self.ended |= matches!(written, Poll::Ready(Err(_)));
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = match &mut self.transport {
            Transport::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Transport::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        };
        self.ended |= matches!(written, Poll::Ready(Err(_)));
        written
    }

    fn is_write_vectored(&self) -> bool {
        match &self.transport {
            Transport::Plain(stream) => stream.is_write_vectored(),
            Transport::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.transport).poll_shutdown(context)
    }
}

impl AsyncRead for Transport {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Transport {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
