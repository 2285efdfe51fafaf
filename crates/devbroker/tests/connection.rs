//! The broker on a socket: framing, versions, faults on purpose, the end. The protocol itself is tested with real
//! clients by the conformance suite.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tidegate_devbroker::{ApiKey, Config, DevBroker, Error, Fault};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;

struct Client {
    stream: TcpStream,
}

impl Client {
    async fn connect(broker: &DevBroker) -> io::Result<Self> {
        Ok(Self { stream: TcpStream::connect(broker.address()).await? })
    }

    /// Sends a request with header version 1 and an empty client id.
    async fn send(&mut self, api: ApiKey, version: i16, body: &[u8]) -> io::Result<()> {
        let mut frame = BytesMut::new();
        frame.put_u32(u32::try_from(10 + body.len()).map_err(io::Error::other)?);
        frame.put_i16(api as i16);
        frame.put_i16(version);
        frame.put_i32(77);
        frame.put_i16(-1);
        frame.put_slice(body);
        self.stream.write_all(&frame).await
    }

    /// The body of the next response; an error if the broker has closed the connection.
    async fn receive(&mut self) -> io::Result<Bytes> {
        let size = self.stream.read_u32().await?;
        let mut frame = vec![0; size as usize];
        self.stream.read_exact(&mut frame).await?;
        let mut frame = Bytes::from(frame);
        assert_eq!(frame.get_i32(), 77);
        Ok(frame)
    }

    /// Asks for a new idempotent producer: the ids count up, which shows whether a request was applied.
    async fn new_producer(&mut self) -> io::Result<i64> {
        let mut body = BytesMut::new();
        body.put_i16(-1);
        body.put_i32(60_000);
        self.send(ApiKey::InitProducerId, 0, &body).await?;
        let mut response = self.receive().await?;
        response.advance(4);
        assert_eq!(response.get_i16(), 0);
        Ok(response.get_i64())
    }
}

async fn start() -> Result<DevBroker, Error> {
    DevBroker::start(Config::default()).await
}

#[tokio::test]
async fn versions_are_answered_and_requests_follow_each_other_on_one_connection() {
    let broker = start().await.unwrap();
    let mut client = Client::connect(&broker).await.unwrap();
    client.send(ApiKey::ApiVersions, 0, &[]).await.unwrap();
    client.send(ApiKey::ApiVersions, 0, &[]).await.unwrap();
    for _ in 0..2 {
        let mut response = client.receive().await.unwrap();
        assert_eq!(response.get_i16(), 0);
        let keys = response.get_i32();
        assert_eq!(response.len(), usize::try_from(keys).unwrap() * 6);
    }
}

#[tokio::test]
async fn what_breaks_the_protocol_closes_the_connection() {
    let broker = start().await.unwrap();
    let mut client = Client::connect(&broker).await.unwrap();
    client.send(ApiKey::Produce, 0, &[]).await.unwrap();
    assert!(client.receive().await.is_err(), "a version that is not offered");

    let mut client = Client::connect(&broker).await.unwrap();
    client.send(ApiKey::Metadata, 1, &[0, 0]).await.unwrap();
    assert!(client.receive().await.is_err(), "a body that ends too early");

    for length in [u32::MAX, 1 << 30] {
        let mut client = Client::connect(&broker).await.unwrap();
        client.stream.write_u32(length).await.unwrap();
        assert!(client.receive().await.is_err(), "a frame of {length} bytes");
    }
    assert!(Client::connect(&broker).await.unwrap().new_producer().await.is_ok(), "others go on");
}

#[tokio::test]
async fn a_disconnect_comes_before_the_request_is_applied() {
    let broker = start().await.unwrap();
    broker.faults().once(ApiKey::InitProducerId, Fault::Disconnect);
    assert!(Client::connect(&broker).await.unwrap().new_producer().await.is_err());
    assert_eq!(Client::connect(&broker).await.unwrap().new_producer().await.unwrap(), 1);
    assert_eq!(broker.faults().fired(ApiKey::InitProducerId), 1);
}

#[tokio::test]
async fn a_dropped_response_leaves_the_request_applied() {
    let broker = start().await.unwrap();
    broker.faults().once(ApiKey::InitProducerId, Fault::DropResponseAfterApply);
    assert!(Client::connect(&broker).await.unwrap().new_producer().await.is_err());
    assert_eq!(Client::connect(&broker).await.unwrap().new_producer().await.unwrap(), 2);
}

#[tokio::test]
async fn a_delay_holds_every_request_until_it_is_cleared() {
    let broker = start().await.unwrap();
    let delay = Duration::from_millis(30);
    broker.faults().always(ApiKey::InitProducerId, Fault::Delay(delay));
    let mut client = Client::connect(&broker).await.unwrap();
    for _ in 0..2 {
        let asked = Instant::now();
        client.new_producer().await.unwrap();
        assert!(asked.elapsed() >= delay);
    }
    broker.faults().clear(ApiKey::InitProducerId);
    client.new_producer().await.unwrap();
    assert_eq!(broker.faults().fired(ApiKey::InitProducerId), 2);
}

#[tokio::test]
async fn stopping_closes_connections_and_frees_the_port() {
    let broker = start().await.unwrap();
    let address: SocketAddr = broker.address();
    let taken = DevBroker::start(Config { listen: address, ..Config::default() }).await;
    let message = taken.err().map(|error @ Error::Listen { .. }| error.to_string()).unwrap();
    assert!(message.contains(&address.to_string()), "{message}");

    let mut client = Client::connect(&broker).await.unwrap();
    client.new_producer().await.unwrap();
    broker.stop().await;
    assert!(client.receive().await.is_err());
    assert!(TcpStream::connect(address).await.is_err());
    DevBroker::start(Config { listen: address, ..Config::default() }).await.unwrap();
}
