//! gRPC between peers that mean well and peers that do not.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test"
)]
#![allow(clippy::disallowed_methods, reason = "tests run tasks of their own")]

#[path = "../../../tests/harness/authority.rs"]
#[allow(unreachable_pub, dead_code, reason = "the harness of all tests")]
mod authority;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::Duration;

use authority::{Authority, Pem};
use tempfile::TempDir;
use tidegate_runtime::grpc::{Incoming, Limits, Peer, Reason, Refusals, server};
use tidegate_runtime::tls::{Flags, Tls};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No wait takes longer, however slow the machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn flags(pem: &Pem) -> Flags {
    Flags { tls_cert: Some(pem.cert.clone()), tls_key: Some(pem.key.clone()), tls_ca: Some(pem.ca.clone()) }
}

fn load(pem: &Pem) -> Tls {
    flags(pem).load().unwrap().unwrap()
}

/// A server that answers questions after its health.
struct Served {
    address: SocketAddr,
    refusals: Refusals,
}

impl Served {
    async fn start(tls: Option<Tls>, limits: Limits) -> Self {
        let listener = TcpListener::bind((HERE, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let refusals = Refusals::default();
        let incoming = Incoming::new(listener, tls, refusals.clone(), limits);
        let (_, health) = tonic_health::server::health_reporter();
        tokio::spawn(server(Duration::from_millis(300)).add_service(health).serve_with_incoming(incoming));
        Self { address, refusals }
    }

    fn peer(&self, tls: Option<Tls>) -> Peer {
        Peer::new(&self.address.to_string(), tls).unwrap()
    }

    async fn serves(&self, tls: Option<Tls>) {
        ask(&self.peer(tls)).await.unwrap();
    }

    async fn until_refused(&self, reason: Reason, times: u64) {
        let refused = async {
            while self.refusals.count(reason) < times {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let refused = tokio::time::timeout(PATIENCE, refused).await;
        refused.unwrap_or_else(|_| panic!("{reason:?} was refused {} times", self.refusals.count(reason)));
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }
}

async fn ask(peer: &Peer) -> Result<(), tonic::Status> {
    let asked = async {
        let channel = peer.connect().await?;
        HealthClient::new(channel).check(HealthCheckRequest::default()).await.map(drop)
    };
    tokio::time::timeout(PATIENCE, asked).await.unwrap()
}

/// Waits until the other end has closed.
async fn until_closed(stream: &mut TcpStream) {
    let mut bytes = [0; 1024];
    let closed = async { while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("the connection is closed");
}

#[tokio::test]
async fn peers_of_one_authority_speak_and_others_are_refused_while_they_do() {
    let folder = TempDir::new().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let tls = load(&ours.issue(&folder.path().join("ours"), HERE));
    let served = Served::start(Some(tls.clone()), Limits::default()).await;
    served.serves(Some(tls.clone())).await;

    // It believes our authority, and shows a certificate of another.
    let mut stranger = theirs.issue(&folder.path().join("stranger"), HERE);
    stranger.ca = folder.path().join("ours/ca.crt");
    ask(&served.peer(Some(load(&stranger)))).await.unwrap_err();
    served.until_refused(Reason::Tls, 1).await;

    let expired = load(&ours.issue_until(&folder.path().join("expired"), HERE, 2001));
    ask(&served.peer(Some(expired))).await.unwrap_err();
    served.until_refused(Reason::Tls, 2).await;

    ask(&served.peer(None)).await.unwrap_err();
    served.until_refused(Reason::Tls, 3).await;
    served.serves(Some(tls)).await;
}

#[tokio::test]
async fn a_server_that_is_not_the_one_meant_is_refused_with_the_reason() {
    let folder = TempDir::new().unwrap();
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let us = load(&ours.issue(&folder.path().join("us"), HERE));
    let stranger = load(&theirs.issue(&folder.path().join("stranger"), HERE));
    let elsewhere = load(&ours.issue(&folder.path().join("elsewhere"), Ipv4Addr::new(10, 0, 0, 1).into()));
    for (server, reason) in [(stranger, "UnknownIssuer"), (elsewhere, "not valid for name")] {
        let served = Served::start(Some(server), Limits::default()).await;
        let status = ask(&served.peer(Some(us.clone()))).await.unwrap_err();
        assert!(status.message().contains(reason), "{status:?}");
        assert!(status.message().contains(&served.address.to_string()), "{status:?}");
        served.until_refused(Reason::Tls, 1).await;
    }
    let plain = Served::start(None, Limits::default()).await;
    let status = ask(&plain.peer(Some(us))).await.unwrap_err();
    assert!(status.message().contains("does not speak TLS"), "{status:?}");
    plain.until_refused(Reason::Protocol, 1).await;
}

#[tokio::test]
async fn new_certificates_are_used_by_new_connections_and_open_ones_go_on() {
    let folder = TempDir::new().unwrap();
    let pem = Authority::new("first").issue(folder.path(), HERE);
    let (tls, former) = (load(&pem), load(&Authority::new("none").issue(&folder.path().join("none"), HERE)));
    let served = Served::start(Some(tls.clone()), Limits::default()).await;
    let mut open = HealthClient::new(served.peer(Some(tls.clone())).connect().await.unwrap());

    // A certificate whose key is not there yet, and no certificate at all, change nothing.
    let second = Authority::new("second");
    let next = second.issue(&folder.path().join("next"), HERE);
    std::fs::copy(&next.cert, &pem.cert).unwrap();
    served.serves(Some(tls.clone())).await;
    std::fs::write(&pem.cert, "").unwrap();
    served.serves(Some(tls.clone())).await;

    std::fs::copy(&next.cert, &pem.cert).unwrap();
    std::fs::copy(&next.key, &pem.key).unwrap();
    std::fs::copy(&next.ca, &pem.ca).unwrap();
    served.serves(Some(load(&second.issue(&folder.path().join("other"), HERE)))).await;
    served.serves(Some(tls)).await;
    ask(&served.peer(Some(former))).await.unwrap_err();
    open.check(HealthCheckRequest::default()).await.unwrap();
}

#[test]
fn files_that_cannot_be_used_are_named_with_their_flag() {
    let folder = TempDir::new().unwrap();
    let authority = Authority::new("ours");
    let good = authority.issue(&folder.path().join("good"), HERE);
    let other = authority.issue(&folder.path().join("other"), HERE);
    let missing = folder.path().join("missing.pem");
    let error = |pem: &Pem| flags(pem).load().unwrap_err().to_string();
    let named = |pem: Pem, flag: &str, path: &std::path::Path| {
        let said = error(&pem);
        assert!(said.contains(flag) && said.contains(&path.display().to_string()), "{said}");
    };
    named(Pem { cert: missing.clone(), ..good.clone() }, "--tls-cert", &missing);
    named(Pem { key: missing.clone(), ..good.clone() }, "--tls-key", &missing);
    named(Pem { ca: missing.clone(), ..good.clone() }, "--tls-ca", &missing);
    named(Pem { cert: good.key.clone(), ..good.clone() }, "--tls-cert", &good.key);
    named(Pem { key: good.cert.clone(), ..good.clone() }, "--tls-key", &good.cert);
    named(Pem { ca: good.key.clone(), ..good.clone() }, "--tls-ca", &good.key);
    named(Pem { key: other.key.clone(), ..good.clone() }, "--tls-key", &other.key);
    assert!(Flags::default().load().unwrap().is_none(), "without flags plain text is spoken");
}

#[tokio::test]
async fn whoever_does_not_speak_http2_or_says_nothing_is_cut_off_and_others_are_served() {
    let limits = Limits { opening: Duration::from_millis(200), ..Limits::default() };
    let served = Served::start(None, limits).await;
    let mut garbage = served.connect().await;
    garbage.write_all(b"GET /metrics HTTP/1.1\r\nhost: here\r\n\r\n").await.unwrap();
    until_closed(&mut garbage).await;
    served.until_refused(Reason::Protocol, 1).await;

    let mut silent = served.connect().await;
    let mut slow = served.connect().await;
    slow.write_all(&PREFACE[..10]).await.unwrap();
    until_closed(&mut silent).await;
    until_closed(&mut slow).await;
    served.until_refused(Reason::Slow, 2).await;
    served.serves(None).await;
}

#[tokio::test]
async fn a_tls_handshake_that_does_not_go_on_is_cut_off() {
    let folder = TempDir::new().unwrap();
    let tls = load(&Authority::new("ours").issue(folder.path(), HERE));
    let limits = Limits { opening: Duration::from_millis(500), ..Limits::default() };
    let served = Served::start(Some(tls.clone()), limits).await;
    let mut slow = served.connect().await;
    // The beginning of a record that is a handshake, 512 bytes long.
    slow.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    until_closed(&mut slow).await;
    served.until_refused(Reason::Slow, 1).await;
    served.serves(Some(tls)).await;
}

#[tokio::test]
async fn frames_that_never_end_and_frames_that_are_none_end_their_connection_only() {
    let served = Served::start(None, Limits::default()).await;
    // Headers without an end, one byte at a time for ever: pings stay unanswered.
    let mut loris = served.connect().await;
    loris.write_all(PREFACE).await.unwrap();
    loris.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
    loris.write_all(&[0, 64, 0, 1, 0, 0, 0, 0, 1]).await.unwrap();
    let (mut heard, mut said) = loris.into_split();
    let dripping = tokio::spawn(async move {
        while said.write_all(&[0x40]).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    });
    let mut noise = served.connect().await;
    noise.write_all(PREFACE).await.unwrap();
    noise.write_all(&[0xff; 4096]).await.unwrap();
    until_closed(&mut noise).await;

    let mut bytes = [0; 1024];
    let closed = async { while heard.read(&mut bytes).await.is_ok_and(|read| read > 0) {} };
    tokio::time::timeout(PATIENCE, closed).await.expect("the slow peer is cut off");
    dripping.abort();
    served.until_refused(Reason::CutOff, 2).await;
    // Whoever leaves by itself is none of them, with a call that is open or without.
    for _ in 0..20 {
        served.serves(None).await;
        let channel = served.peer(None).connect().await.unwrap();
        let mut client = HealthClient::new(channel);
        let stream = client.watch(HealthCheckRequest::default()).await.unwrap();
        drop((client, stream));
    }
    served.serves(None).await;
    assert_eq!(served.refusals.count(Reason::CutOff), 2);
}

#[tokio::test]
async fn one_address_cannot_take_the_places_of_the_others() {
    let limits = Limits { opening: PATIENCE, connections: 16, from_one: 4 };
    let served = Served::start(None, limits).await;
    let mut held = Vec::new();
    for _ in 0..limits.from_one {
        held.push(from(Ipv4Addr::new(127, 0, 0, 2), served.address).await);
    }
    let mut beyond = from(Ipv4Addr::new(127, 0, 0, 2), served.address).await;
    until_closed(&mut beyond).await;
    served.until_refused(Reason::Connections, 1).await;
    served.serves(None).await;

    // A place that is left is free again.
    held.pop();
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        let mut again = from(Ipv4Addr::new(127, 0, 0, 2), served.address).await;
        let closed = tokio::time::timeout(Duration::from_millis(100), again.read_u8()).await;
        if closed.is_err() {
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "the place is not given again");
    }
}

async fn from(address: Ipv4Addr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((address, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}
