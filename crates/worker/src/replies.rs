//! What waits to be told to one ingest, coalesced: shards never wait for a stream, and a slow stream costs a bounded place.
//!
//! ```text
//! shard actors ── want, committed, dropped permits ──► Replies ── take, at most every few ms ──► the stream's pump
//! ```
//! Wants and positions are those of now, so a newer one replaces an older one; credit adds up.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use tidegate_core::{
    source::Want,
    time::{EventTime, Offset, Partition, Shard, Watermark},
};
use tidegate_proto::{convert, v1};
use tokio::sync::Notify;

/// The way back to one ingest; ends with its stream.
#[derive(Debug, Default)]
pub(crate) struct Replies {
    waiting: Mutex<Waiting>,
    changed: Notify,
    ended: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    wants: BTreeMap<(Partition, Shard), Want>,
    committed: BTreeMap<(Shard, Partition), Offset>,
    reached: BTreeMap<Shard, EventTime>,
    credit: u64,
    closed: bool,
}

impl Replies {
    /// Asks for a session.
    pub(crate) fn want(&self, partition: Partition, want: Want) {
        self.change(|waiting| {
            waiting.wants.insert((partition, want.shard), want);
        });
    }

    /// Tells which positions and which watermark of a shard are durable.
    pub(crate) fn committed(
        &self,
        shard: Shard,
        positions: impl Iterator<Item = (Partition, Offset)>,
        watermark: Watermark,
    ) {
        self.change(|waiting| {
            waiting.committed.extend(positions.map(|(p, next)| ((shard, p), next)));
            waiting.reached.extend(watermark.map(|watermark| (shard, watermark)));
        });
    }

    /// Whether the stream has ended: nothing said here is heard any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.waiting().closed
    }

    /// Ready once the stream has ended.
    pub(crate) async fn closed(&self) {
        loop {
            let ended = self.ended.notified();
            if self.is_closed() {
                return;
            }
            ended.await;
        }
    }

    /// The stream has ended.
    pub(crate) fn close(&self) {
        self.change(|waiting| *waiting = Waiting { closed: true, ..Waiting::default() });
        self.ended.notify_waiters();
    }

    /// Waits until there is something to say, and takes it as messages; `None` once closed.
    pub(crate) async fn next(&self) -> Option<Vec<v1::FeedResponse>> {
        loop {
            // Registered before the look, so that no change between the two is missed.
            let changed = self.changed.notified();
            let messages = {
                let mut waiting = self.waiting();
                if waiting.closed {
                    return None;
                }
                waiting.take_messages()
            };
            if !messages.is_empty() {
                return Some(messages);
            }
            changed.await;
        }
    }

    fn change(&self, change: impl FnOnce(&mut Waiting)) {
        let mut waiting = self.waiting();
        if !waiting.closed {
            change(&mut waiting);
            drop(waiting);
            self.changed.notify_one();
        }
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    fn take_messages(&mut self) -> Vec<v1::FeedResponse> {
        use v1::feed_response::Message;
        let mut messages = Vec::new();
        if !self.wants.is_empty() {
            let wants = std::mem::take(&mut self.wants).into_iter();
            let wants = wants.map(|((partition, _), want)| convert::want_to_wire(partition, &want)).collect();
            messages.push(Message::Wants(v1::Wants { wants }));
        }
        if self.credit > 0 {
            messages.push(Message::Credit(v1::Credit { bytes: std::mem::take(&mut self.credit) }));
        }
        if !self.committed.is_empty() || !self.reached.is_empty() {
            let positions = std::mem::take(&mut self.committed).into_iter();
            let positions = positions.map(|((shard, partition), next)| v1::CommittedPosition {
                shard: shard.0,
                partition: partition.0,
                next: next.0,
            });
            let reached = std::mem::take(&mut self.reached).into_iter();
            let watermarks = reached.map(|(shard, watermark)| v1::CommittedWatermark {
                shard: shard.0,
                watermark_ms: watermark.millis(),
            });
            messages.push(Message::Committed(v1::Committed {
                positions: positions.collect(),
                watermarks: watermarks.collect(),
            }));
        }
        messages.into_iter().map(|message| v1::FeedResponse { message: Some(message) }).collect()
    }
}

/// The bytes of a frame: they return to the ingest as credit when this is dropped.
#[derive(Debug)]
pub(crate) struct Permit {
    replies: Arc<Replies>,
    bytes: u64,
}

impl Permit {
    /// A permit for a frame that costs `bytes` of the credit and came from the ingest behind `replies`.
    pub(crate) fn new(replies: &Arc<Replies>, bytes: u64) -> Self {
        Self { replies: Arc::clone(replies), bytes }
    }

    /// The way back to the ingest of the frame.
    pub(crate) fn replies(&self) -> &Replies {
        &self.replies
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.replies.change(|waiting| waiting.credit += self.bytes);
        }
    }
}

/// The permits of frames that are applied and wait for their commit, one for each ingest.
#[derive(Debug, Default)]
pub(crate) struct Held(Vec<Permit>);

impl Held {
    /// Holds a permit until the commit is known.
    pub(crate) fn hold(&mut self, mut permit: Permit) {
        match self.0.iter_mut().find(|held| Arc::ptr_eq(&held.replies, &permit.replies)) {
            Some(held) => held.bytes += std::mem::take(&mut permit.bytes),
            None => self.0.push(permit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tidegate_core::announcement::AssignmentId;
    use v1::feed_response::Message;

    fn want(shard: u32, next: u64) -> Want {
        Want {
            shard: Shard(shard),
            assignment: AssignmentId::default(),
            next: Offset(next),
            in_band: None,
            watermark: None,
            payloads: false,
        }
    }

    async fn said(replies: &Replies) -> Vec<Message> {
        replies.next().await.unwrap().into_iter().filter_map(|response| response.message).collect()
    }

    #[tokio::test]
    async fn the_newest_is_said_and_credit_adds_up() {
        let replies = Arc::new(Replies::default());
        replies.want(Partition(1), want(2, 5));
        replies.want(Partition(1), want(2, 9));
        replies.committed(Shard(2), [(Partition(1), Offset(4))].into_iter(), Some(EventTime(70)));
        replies.committed(Shard(2), [(Partition(1), Offset(8))].into_iter(), Some(EventTime(90)));
        let mut held = Held::default();
        held.hold(Permit::new(&replies, 100));
        held.hold(Permit::new(&replies, 20));
        drop(Permit::new(&replies, 3));
        let messages = said(&replies).await;
        let [Message::Wants(wants), Message::Credit(credit), Message::Committed(committed)] =
            messages.as_slice()
        else {
            panic!("{messages:?}")
        };
        assert_eq!(wants.wants.iter().map(|want| want.next).collect::<Vec<_>>(), [9]);
        assert_eq!(credit.bytes, 3, "what is held is not given back");
        assert_eq!(committed.positions.iter().map(|position| position.next).collect::<Vec<_>>(), [8]);
        let watermarks = committed.watermarks.iter().map(|reached| (reached.shard, reached.watermark_ms));
        assert_eq!(watermarks.collect::<Vec<_>>(), [(2, 90)]);
        drop(held);
        assert_eq!(said(&replies).await, [Message::Credit(v1::Credit { bytes: 120 })]);
    }

    #[tokio::test]
    async fn a_closed_stream_is_told_nothing() {
        let replies = Arc::new(Replies::default());
        let permit = Permit::new(&replies, 5);
        let waits = {
            let replies = Arc::clone(&replies);
            async move { replies.next().await }
        };
        let (next, ()) = tokio::join!(waits, async { replies.close() });
        assert_eq!(next, None);
        drop(permit);
        assert!(replies.is_closed());
    }
}
