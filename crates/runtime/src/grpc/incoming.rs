//! The connections of a server, as tonic takes them: handshake and preface are behind them.
//!
//! Each connection has a task of its own up to there, so that one that is slow holds up no other; it has a bound on its time, and a
//! place among a bounded number.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;
use tokio_util::task::AbortOnDropHandle;

use super::refusals::{Reason, Refusals};
use super::stream::{Connection, Transport};
use crate::task::spawn;
use crate::tls::Tls;

/// Connections that wait for tonic: it takes them at once.
const WAITING: usize = 16;
/// How long to wait when the system gives no connection, mostly for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// What peers may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Time from the connection to the end of the HTTP/2 preface.
    pub opening: Duration,
    /// Connections in all.
    pub connections: usize,
    /// Connections from one address: one peer that opens too many leaves places to the others.
    pub from_one: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { opening: Duration::from_secs(5), connections: 1024, from_one: 256 }
    }
}

/// The stream of connections; dropping it ends the accepting.
#[derive(Debug)]
pub struct Incoming {
    connections: mpsc::Receiver<Connection>,
    _accepting: AbortOnDropHandle<()>,
}

impl Incoming {
    /// Takes connections from `listener`, by TLS where it is given.
    #[must_use]
    pub fn new(listener: TcpListener, tls: Option<Tls>, refusals: Refusals, limits: Limits) -> Self {
        let (taken, connections) = mpsc::channel(WAITING);
        let door = Door { tls, refusals, limits, taken };
        let accepting = spawn("accept", door.accept(listener, Places::default()));
        Self { connections, _accepting: AbortOnDropHandle::new(accepting) }
    }
}

impl Stream for Incoming {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.connections.poll_recv(context).map(|connection| connection.map(Ok))
    }
}

#[derive(Clone)]
struct Door {
    tls: Option<Tls>,
    refusals: Refusals,
    limits: Limits,
    taken: mpsc::Sender<Connection>,
}

impl Door {
    async fn accept(self, listener: TcpListener, places: Places) {
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    self.refusals.refuse(Reason::Connections, "unknown", &error);
                    tokio::time::sleep(PAUSE).await;
                    continue;
                }
            };
            match places.take(peer.ip(), &self.limits) {
                Ok(place) => {
                    spawn("open-connection", self.clone().open(stream, peer, place));
                }
                Err(open) => {
                    let why = format!("{open} connections are open already");
                    self.refusals.refuse(Reason::Connections, peer, why);
                }
            }
        }
    }

    async fn open(self, stream: TcpStream, peer: SocketAddr, place: Place) {
        let opening = self.limits.opening;
        let (reason, why) = match tokio::time::timeout(opening, self.opened(stream, peer, place)).await {
            Ok(Ok(connection)) => {
                // The server has ended: so has the connection.
                let _ = self.taken.send(connection).await;
                return;
            }
            Ok(Err(refused)) => refused,
            Err(_) => {
                (Reason::Slow, format!("it has not said what it wants within {} ms", opening.as_millis()))
            }
        };
        self.refusals.refuse(reason, peer, why);
    }

    async fn opened(
        &self,
        stream: TcpStream,
        peer: SocketAddr,
        place: Place,
    ) -> Result<Connection, (Reason, String)> {
        let _small_messages_go_at_once = stream.set_nodelay(true);
        let transport = match &self.tls {
            None => Transport::Plain(stream),
            Some(tls) => {
                let accepted = TlsAcceptor::from(tls.server()).accept(stream).await;
                Transport::Tls(Box::new(accepted.map_err(|error| (Reason::Tls, error.to_string()))?))
            }
        };
        let watch = Watch { refusals: self.refusals.clone(), taken: self.taken.clone() };
        Connection::open(transport, peer, place, watch).await.map_err(|error| {
            let why = match (error.kind(), &self.tls) {
                (io::ErrorKind::UnexpectedEof, _) => "it left before it said anything".to_owned(),
                (_, None) => format!("{error} (a peer that speaks TLS? this process has no --tls-cert)"),
                (_, Some(_)) => error.to_string(),
            };
            (Reason::Protocol, why)
        })
    }
}

/// What a connection says its end to.
#[derive(Clone, Debug)]
pub(super) struct Watch {
    pub(super) refusals: Refusals,
    taken: mpsc::Sender<Connection>,
}

impl Watch {
    /// Whether the server still takes connections.
    pub(super) fn serves(&self) -> bool {
        !self.taken.is_closed()
    }
}

/// The open connections, by address.
#[derive(Clone, Debug, Default)]
struct Places(Arc<Mutex<HashMap<IpAddr, usize>>>);

impl Places {
    /// # Errors
    /// How many are open, of this address or in all, where there is no place.
    fn take(&self, address: IpAddr, limits: &Limits) -> Result<Place, usize> {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let all = open.values().sum();
        let own = open.get(&address).copied().unwrap_or(0);
        if all >= limits.connections {
            return Err(all);
        }
        if own >= limits.from_one {
            return Err(own);
        }
        open.insert(address, own + 1);
        Ok(Place { places: self.clone(), address })
    }
}

/// The place of one connection.
#[derive(Debug)]
pub(super) struct Place {
    places: Places,
    address: IpAddr,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut open = self.places.0.lock().unwrap_or_else(PoisonError::into_inner);
        match open.get_mut(&self.address) {
            Some(own) if *own > 1 => *own -= 1,
            _ => {
                open.remove(&self.address);
            }
        }
    }
}
