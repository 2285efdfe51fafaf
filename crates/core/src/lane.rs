//! One reading of one partition: the tracker, the routing by shard, the open frames.
//!
//! A partition has a *main* lane that feeds live sessions, and while some shard is behind it a *catch-up* lane with a reader of
//! its own. Both are this type; [`crate::source`] decides which shard is fed by which.
//!
//! The record path: [`Lane::push_row`] is called once a record and allocates nothing but the growth of its columns.

use std::sync::Arc;

use crate::{
    announcement::PartitionState,
    dead_letter::{Payload, Reason, Rejected},
    frame::{Frame, Rows, SessionId},
    job::JobSpec,
    source::Opening,
    time::{EventTime, Offset, Partition, Shard, Watermark},
    tracker::Tracker,
};

/// A worker, as the reader of a partition names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerRef(pub u64);

/// The flow of a lane's records to one worker, for some of its shards.
#[derive(Clone, Debug)]
pub(crate) struct Session {
    pub(crate) id: SessionId,
    pub(crate) worker: WorkerRef,
    pub(crate) shards: Vec<Shard>,
    /// First offset that the open frame covers.
    from: Offset,
    sent: Option<(Watermark, PartitionState)>,
}

/// A reading of a partition from some offset on.
#[derive(Debug)]
pub struct Lane {
    partition: Partition,
    position: Offset,
    tracker: Tracker,
    sessions: Vec<Session>,
    outs: Vec<Out>,
    bytes: usize,
    /// Every record is a result by itself.
    keeps_records: bool,
}

/// Where a shard's rows go.
#[derive(Clone, Debug)]
struct Out {
    /// Offsets are relative to this; `None` while no session of the lane has the shard.
    base: Option<Offset>,
    all_payloads: bool,
    /// W_s when the session was opened: older records may be late there.
    floor: Watermark,
    rows: Rows,
}

/// A record that is no row, on its way to the shard that writes the dead letter.
#[derive(Debug)]
pub struct RejectedRecord {
    /// Why.
    pub reason: Reason,
    /// What exactly was wrong, for people.
    pub detail: String,
    /// The event time, where there was one.
    pub event_time: Option<EventTime>,
    /// The record.
    pub payload: Payload,
}

impl Lane {
    pub(crate) fn new(job: &JobSpec, partition: Partition, start: Offset, seed: Watermark) -> Self {
        let out = Out { base: None, all_payloads: false, floor: None, rows: Rows::of(&job.columns) };
        Self {
            partition,
            position: start,
            tracker: Tracker::new(job.watermark.strategy, job.watermark.reanchor_after, seed),
            sessions: Vec::new(),
            outs: vec![out; job.shards as usize],
            bytes: 0,
            keeps_records: job.operator.keeps_records(),
        }
    }

    /// The offset behind the last record taken: the fetch position.
    #[must_use]
    pub const fn position(&self) -> Offset {
        self.position
    }

    /// The partition's tracker.
    #[must_use]
    pub const fn tracker(&self) -> &Tracker {
        &self.tracker
    }

    pub(crate) fn tracker_mut(&mut self) -> &mut Tracker {
        &mut self.tracker
    }

    /// Bytes of rows waiting to be framed, about.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes
    }

    /// The shards that it feeds.
    pub fn shards(&self) -> impl Iterator<Item = Shard> {
        self.sessions.iter().flat_map(|session| session.shards.iter().copied())
    }

    pub(crate) fn sessions(&self) -> &[Session] {
        &self.sessions
    }

    /// Goes back to read again from `start`; sessions go on where they are.
    pub(crate) fn rewind(&mut self, job: &JobSpec, start: Offset, seed: Watermark) {
        debug_assert!(self.bytes == 0, "frames are cut before a lane is rewound");
        self.position = start;
        self.tracker = Tracker::new(job.watermark.strategy, job.watermark.reanchor_after, seed);
    }

    /// Feeds `shards` of `worker` from `from` on, by a session of this lane.
    pub(crate) fn open(
        &mut self,
        id: SessionId,
        worker: WorkerRef,
        shards: Vec<Shard>,
        from: Offset,
        floor: Watermark,
        all_payloads: bool,
    ) {
        for shard in &shards {
            if let Some(out) = self.outs.get_mut(shard.0 as usize) {
                (out.base, out.floor, out.all_payloads) = (Some(from), floor, all_payloads);
            }
        }
        self.sessions.push(Session { id, worker, shards, from, sent: None });
    }

    /// Takes the sessions of another lane that has come to exactly this one's position; both have cut their frames.
    pub(crate) fn adopt(&mut self, mut other: Self) {
        debug_assert!(self.bytes == 0 && other.bytes == 0, "lanes meet with no open frame");
        for session in &mut other.sessions {
            session.from = session.from.max(self.position);
            for shard in &session.shards {
                let at = shard.0 as usize;
                if let (Some(out), Some(theirs)) = (self.outs.get_mut(at), other.outs.get(at)) {
                    (out.base, out.floor, out.all_payloads) = (Some(session.from), theirs.floor, false);
                }
            }
        }
        self.sessions.append(&mut other.sessions);
    }

    /// Stops feeding the shards that `leaves` names. A session covers the same shards as long as it lives: one that loses some
    /// goes on with the others under a new number, and is given back to be opened anew.
    pub(crate) fn close(
        &mut self,
        leaves: impl Fn(WorkerRef, Shard) -> bool,
        mut number: impl FnMut() -> SessionId,
    ) -> Vec<(WorkerRef, Opening)> {
        let mut renewed = Vec::new();
        for session in &mut self.sessions {
            let (worker, before) = (session.worker, session.shards.len());
            session.shards.retain(|shard| {
                let stays = !leaves(worker, *shard);
                if !stays && let Some(out) = self.outs.get_mut(shard.0 as usize) {
                    out.base = None;
                    self.bytes -= out.rows.bytes().min(self.bytes);
                    out.rows = out.rows.emptied();
                }
                stays
            });
            if !session.shards.is_empty() && session.shards.len() < before {
                session.id = number();
                let (shards, from) = (session.shards.clone(), session.from);
                renewed
                    .push((worker, Opening { session: session.id, partition: self.partition, shards, from }));
            }
        }
        self.sessions.retain(|session| !session.shards.is_empty());
        if self.outs.iter().all(|out| out.rows.is_empty()) {
            self.bytes = 0;
        }
        renewed
    }

    /// Takes the next record. `announced` is the newest global watermark known, `everything` whether all payloads travel.
    #[inline]
    pub(crate) fn push_row(
        &mut self,
        record: &Row<'_>,
        announced: Watermark,
        everything: bool,
        payload: impl FnOnce() -> Payload,
    ) {
        let before = self.tracker.watermark();
        if record.believed {
            self.tracker.observe(record.time);
        } else {
            self.tracker.saw(record.time);
        }
        self.position = record.offset.next();
        let Some(out) = self.outs.get_mut(record.shard.0 as usize) else { return };
        let Some(base) = out.base.filter(|base| *base <= record.offset) else { return };
        let row = u32::try_from(out.rows.len()).unwrap_or(u32::MAX);
        out.rows.push(delta(base, record.offset), record.time, record.key, record.values, record.text);
        self.bytes += record.key.len() + 16 + 8 * record.values.len() + record.text.len();
        let may_be_late = Some(record.time) < before.max(announced).max(out.floor);
        if self.keeps_records || may_be_late || everything || out.all_payloads {
            let payload = payload();
            self.bytes += payload.bytes();
            out.rows.payloads.push((row, Arc::new(payload)));
        }
    }

    /// Takes the next record, which is no row; `shard` writes its dead letter.
    pub(crate) fn push_reject(&mut self, offset: Offset, shard: Shard, record: RejectedRecord) {
        self.position = offset.next();
        let Some(out) = self.outs.get_mut(shard.0 as usize) else { return };
        let Some(base) = out.base.filter(|base| *base <= offset) else { return };
        self.bytes += record.payload.bytes() + 64;
        out.rows.rejects.push(Rejected {
            offset_delta: delta(base, offset),
            reason: record.reason,
            detail: record.detail,
            event_time: record.event_time,
            payload: Arc::new(record.payload),
        });
    }

    /// The fetch position has come to `position` without a record: markers, aborted or compacted records.
    pub(crate) fn skip_to(&mut self, position: Offset) {
        self.position = self.position.max(position);
    }

    /// Whether the next record would not fit the open frames: their offsets are 32-bit deltas, keys 32-bit ends.
    #[must_use]
    pub(crate) fn must_cut(&self, offset: Offset) -> bool {
        const FRAME_BYTES: usize = 256 << 10;
        let far = |session: &Session| offset.0.saturating_sub(session.from.0) >= u64::from(u32::MAX);
        self.bytes >= FRAME_BYTES || self.sessions.iter().any(far)
    }

    /// Closes the open frames: one for each session that has something new to say.
    pub(crate) fn cut(&mut self, state: PartitionState) -> Vec<(WorkerRef, Frame)> {
        let (to, watermark) = (self.position, self.tracker.watermark());
        let mut frames = Vec::new();
        for session in &mut self.sessions {
            let news = to > session.from || session.sent != Some((watermark, state));
            if !news || to < session.from {
                continue;
            }
            let mut rows = Vec::new();
            for shard in &session.shards {
                if let Some(out) = self.outs.get_mut(shard.0 as usize) {
                    out.base = Some(to);
                    if !out.rows.is_empty() {
                        let empty = out.rows.emptied();
                        rows.push((*shard, std::mem::replace(&mut out.rows, empty)));
                    }
                }
            }
            frames.push((
                session.worker,
                Frame {
                    session: session.id,
                    partition: self.partition,
                    from: session.from,
                    to,
                    watermark,
                    state,
                    rows,
                },
            ));
            session.from = to;
            session.sent = Some((watermark, state));
        }
        self.bytes = 0;
        frames
    }
}

/// A record as a row.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its event time.
    pub time: EventTime,
    /// Whether the watermark follows it: not where the event time is a clamped one.
    pub believed: bool,
    /// Its group key.
    pub key: &'a [u8],
    /// The shard of its key.
    pub shard: Shard,
    /// The inputs of the aggregates: numbers, and of values as they are where each ends in `text`.
    pub values: &'a [Option<i64>],
    /// The values as they are, one after another.
    pub text: &'a [u8],
}

fn delta(base: Offset, offset: Offset) -> u32 {
    u32::try_from(offset.0 - base.0).unwrap_or(u32::MAX)
}
