//! gRPC between the services: how a connection is opened, how one is taken, and what is refused.
//!
//! ```text
//! accept ─► TLS handshake ─► HTTP/2 preface ─► tonic: messages, streams, keep-alive
//!    └─ too many     └─ wrong certificate  └─ not HTTP/2      └─ a message too large
//!                       too slow              too slow
//! ```
//! Whatever a peer does, each step has a bound on time and on memory, the others are served, and what is refused is said
//! ([`Refusals`]).

mod farewell;
mod incoming;
mod peer;
mod refusals;
mod stream;

use std::time::Duration;

use tonic::transport::Server;

pub use incoming::{Incoming, Limits};
pub use peer::{AddressError, Peer};
pub use refusals::{Reason, Refusals};

/// How long a call may take until its answer begins: longer than a peer may take to its hello.
const ANSWER: Duration = Duration::from_secs(15);
/// Calls that a connection may have open. Each peer has one stream, and asks a few things beside it.
const STREAMS: u32 = 64;
/// Bytes of headers of a call.
const HEADERS: u32 = 16 << 10;
/// Calls that a peer has reset and that are not cleared away yet; whoever has more is cut off.
const RESETS: usize = 32;

/// A gRPC server that bounds what a peer can ask of it. A peer that does not answer `keep_alive` is cut off after twice the time.
pub fn server(keep_alive: Duration) -> Server {
    Server::builder()
        .timeout(ANSWER)
        .max_concurrent_streams(STREAMS)
        .http2_max_header_list_size(HEADERS)
        .http2_max_pending_accept_reset_streams(Some(RESETS))
        .http2_keepalive_interval(Some(keep_alive))
        .http2_keepalive_timeout(Some(keep_alive))
}
