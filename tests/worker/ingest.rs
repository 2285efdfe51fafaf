//! An ingest with frames made by hand.

use std::collections::BTreeMap;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use tidegate_core::announcement::PartitionState;
use tidegate_core::dead_letter::Payload;
use tidegate_core::frame::{Frame, Rows, SessionId};
use tidegate_core::source::Opening;
use tidegate_core::time::{EventTime, Offset, Partition, Shard};
use tidegate_proto::v1::worker_client::WorkerClient;
use tidegate_proto::{frame, v1};
use tidegate_tests::clients::PATIENCE;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use v1::feed_request::Message as Request;
use v1::feed_response::Message as Answer;

/// A record: event time, key, value.
pub type Record<'a> = (i64, &'a str, i64);

/// The test's end of a feed.
pub struct Ingest {
    requests: mpsc::Sender<v1::FeedRequest>,
    answers: Streaming<v1::FeedResponse>,
    sessions: u64,
    /// Bytes of frames sent and not given back yet.
    pub owed: u64,
    /// Positions that are durable.
    pub durable: BTreeMap<(u32, u32), u64>,
}

impl Ingest {
    pub async fn connect(address: &str, job: [u8; 16], fingerprint: u64) -> Result<Self> {
        let mut client = WorkerClient::connect(format!("http://{address}")).await?;
        let (requests, outgoing) = mpsc::channel(64);
        let hello = v1::FeedHello { job: job.to_vec().into(), fingerprint, ingest: 5, stream: 0 };
        requests.send(v1::FeedRequest { message: Some(Request::Hello(hello)) }).await?;
        let mut answers = client.feed(ReceiverStream::new(outgoing)).await?.into_inner();
        let welcome = answers.message().await?.and_then(|answer| answer.message);
        let Some(Answer::Welcome(_)) = welcome else { bail!("{welcome:?} before the welcome") };
        Ok(Self { requests, answers, sessions: 0, owed: 0, durable: BTreeMap::new() })
    }

    /// Asks for partition 0.
    pub async fn ask(&self) -> Result<()> {
        self.say(Request::Ask(v1::Ask { partitions: vec![0] })).await
    }

    /// What `shard` wants next.
    pub async fn want(&mut self, shard: u32) -> Result<v1::Want> {
        loop {
            let Some(Answer::Wants(wants)) = self.next().await? else { continue };
            if let Some(want) = wants.wants.into_iter().find(|want| want.shard == shard) {
                return Ok(want);
            }
        }
    }

    /// Waits until `shard` has committed all below `next` and nothing is owed any more.
    pub async fn durable(&mut self, shard: u32, next: u64) -> Result<()> {
        while self.owed > 0 || self.durable.get(&(shard, 0)).is_none_or(|durable| *durable < next) {
            self.next().await.with_context(|| {
                format!("shard {shard} durable up to {next}: {:?}, {} bytes owed", self.durable, self.owed)
            })?;
        }
        Ok(())
    }

    /// Waits until `shard` says, by an acknowledgement or by what it wants after a restore, that all below `next` is committed.
    pub async fn known(&mut self, shard: u32, next: u64) -> Result<()> {
        while self.durable.get(&(shard, 0)).is_none_or(|durable| *durable < next) {
            let Some(Answer::Wants(wants)) = self.next().await? else { continue };
            if wants.wants.iter().any(|want| want.shard == shard && want.next >= next) {
                break;
            }
        }
        Ok(())
    }

    /// Waits until the worker closes the stream.
    pub async fn ended(&mut self) -> Result<()> {
        let ended = async {
            while self.answers.message().await?.is_some() {}
            Ok(())
        };
        tokio::time::timeout(PATIENCE, ended).await.context("waited for the worker to close its stream")?
    }

    /// The next answer that is neither credit nor an acknowledgement; these are counted, and give `None`.
    async fn next(&mut self) -> Result<Option<Answer>> {
        let answer = tokio::time::timeout(PATIENCE, self.answers.message()).await;
        let answer =
            answer.context("waited for an answer of the worker")??.context("the worker closed its stream")?;
        Ok(match answer.message {
            Some(Answer::Credit(credit)) => {
                self.owed = self.owed.checked_sub(credit.bytes).context("more credit than was taken")?;
                None
            }
            Some(Answer::Committed(committed)) => {
                for position in committed.positions {
                    self.durable.insert((position.shard, position.partition), position.next);
                }
                None
            }
            other => other,
        })
    }

    /// Opens a session of `shard` on partition 0.
    pub async fn open(&mut self, shard: u32, from: u64) -> Result<Session> {
        self.sessions += 1;
        let opening = Opening {
            session: SessionId(self.sessions),
            partition: Partition(0),
            shards: vec![Shard(shard)],
            from: Offset(from),
        };
        self.say(Request::Open((&opening).into())).await?;
        Ok(Session { opening, payloads: false })
    }

    /// Sends a frame of records at consecutive offsets.
    pub async fn feed(
        &mut self,
        session: &mut Session,
        watermark: i64,
        records: &[Record<'_>],
    ) -> Result<()> {
        let mut rows = Rows::new(1);
        for (row, (time, key, value)) in (0u32..).zip(records) {
            rows.push(row, EventTime(*time), key.as_bytes(), &[Some(*value)], &[]);
            if session.payloads {
                rows.payloads.push((row, Arc::new(payload(key))));
            }
        }
        let from = session.opening.from;
        session.opening.from = Offset(from.0 + records.len() as u64);
        let rows = session
            .opening
            .shards
            .iter()
            .map(|shard| (*shard, rows.clone()))
            .filter(|(_, rows)| !rows.is_empty());
        let frame = Frame {
            session: session.opening.session,
            partition: Partition(0),
            from,
            to: session.opening.from,
            watermark: Some(EventTime(watermark)),
            state: PartitionState::Active,
            rows: rows.collect(),
        };
        self.owed += frame.cost();
        self.say(Request::Frames(v1::Frames { frames: vec![frame::to_wire(frame)], traces: Vec::new() }))
            .await
    }

    async fn say(&self, message: Request) -> Result<()> {
        Ok(self.requests.send(v1::FeedRequest { message: Some(message) }).await?)
    }
}

/// An open session; its `from` is where the next frame begins.
pub struct Session {
    pub opening: Opening,
    pub payloads: bool,
}

/// The payload of the record with this key.
fn payload(key: &str) -> Payload {
    Payload {
        key: Some(key.as_bytes().to_vec()),
        value: Some(format!("{{\"user\":\"{key}\"}}").into_bytes()),
        headers: vec![("origin".into(), Some(b"test".to_vec()))],
        timestamp: Some(1_234),
    }
}
