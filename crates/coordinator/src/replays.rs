//! Which replays of dead letters there are, and which ingest does which: a plain state machine.
//!
//! ```text
//! asked ──► waiting ──given to an ingest──► running ──all answered──► done
//!              ▲  └──────── cancelled ◄────────┤
//!              └──── its stream ended ─────────┘
//! ```
//!
//! Promises:
//! - One at a time, the oldest first; each from its beginning, whoever did part of it before: the shards know what they have
//!   answered for.
//! - Nothing runs before its record is in the log, so that what runs is known to whoever leads next.
//! - Of those that have ended the last few are kept, and the newest automatic one always: the next begins where it ended.

use std::collections::BTreeMap;

use tidegate_core::coordinator::ReaderId;
use tidegate_core::replay_request::{ReplayFilter, ReplayRange, ReplayTally};
use tidegate_core::time::{Offset, Partition, Span, Tick};
use tidegate_kafka::PartitionEnds;

use crate::replay_record::{DeadLetterTopic, ReplayEnd, ReplayRecord};

/// So many that have ended are kept.
const KEPT: usize = 20;
/// So many may wait: each costs a record, and a reading of the dead-letter topic.
const MOST_WAITING: usize = 100;

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) token: u64,
    pub(crate) automatic: bool,
    pub(crate) dry_run: bool,
    pub(crate) filter: ReplayFilter,
}

/// Records to be written in one transaction; `None`: the record goes.
pub(crate) type Writes = Vec<(u64, Option<ReplayRecord>)>;

/// What an ingest has to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) reader: ReaderId,
    pub(crate) record: ReplayRecord,
}

/// What an ingest says of its order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Progress {
    pub(crate) number: u64,
    pub(crate) tally: ReplayTally,
    pub(crate) read: u64,
    pub(crate) done: bool,
}

/// A replay as it stands.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    pub(crate) record: &'a ReplayRecord,
    pub(crate) state: &'static str,
    pub(crate) tally: ReplayTally,
    pub(crate) read: u64,
}

/// Every word of [`View::state`].
pub(crate) const STATES: &[&str] = &["waiting", "running", "done", "cancelled"];

/// The machine.
#[derive(Debug)]
pub(crate) struct Replays {
    entries: BTreeMap<u64, Entry>,
    running: Option<Running>,
    auto: Option<Auto>,
}

#[derive(Debug)]
struct Entry {
    record: ReplayRecord,
    /// The record is in the log as it is here.
    written: bool,
}

#[derive(Clone, Copy, Debug)]
struct Running {
    reader: ReaderId,
    progress: Progress,
}

#[derive(Debug)]
struct Auto {
    every: u64,
    next: Tick,
}

impl Replays {
    /// Goes on from what is in the log; asks by itself `every` so often.
    pub(crate) fn new(records: Vec<ReplayRecord>, every: Option<Span>, now: Tick) -> Self {
        let entry = |record: ReplayRecord| (record.number, Entry { record, written: true });
        let auto = every.map(|every| {
            let every = u64::try_from(every.millis()).unwrap_or(u64::MAX);
            Auto { every, next: Tick(now.0.saturating_add(every)) }
        });
        Self { entries: records.into_iter().map(entry).collect(), running: None, auto }
    }

    /// The request of this token, if there is one.
    pub(crate) fn asked(&self, token: u64) -> Option<u64> {
        self.entries.values().find(|entry| entry.record.token == token).map(|entry| entry.record.number)
    }

    /// Whether the record of a replay is in the log as it is here; false where there is none.
    pub(crate) fn is_written(&self, number: u64) -> bool {
        self.entries.get(&number).is_some_and(|entry| entry.written)
    }

    /// Whether no further request is taken.
    pub(crate) fn is_full(&self) -> bool {
        self.open().count() >= MOST_WAITING
    }

    /// Takes a request about these ranges; its number. Of a token that is known it is the one there is.
    pub(crate) fn request(
        &mut self,
        request: Request,
        found: &DeadLetterTopic,
        ranges: Vec<ReplayRange>,
        at: i64,
    ) -> (u64, Writes) {
        if let Some(number) = self.asked(request.token) {
            return (number, Vec::new());
        }
        let number = self.entries.last_key_value().map_or(1, |(number, _)| number + 1);
        let mut topics = self.topics().to_vec();
        let topic = self.number_of(found).unwrap_or_else(|| {
            topics.push(found.clone());
            u32::try_from(topics.len()).unwrap_or(u32::MAX).saturating_sub(1)
        });
        let Request { token, automatic, dry_run, filter } = request;
        let record = ReplayRecord {
            number,
            token,
            automatic,
            dry_run,
            filter,
            ranges,
            topics,
            topic,
            requested: at,
            end: None,
        };
        let writes = vec![(number, Some(record.clone()))];
        self.entries.insert(number, Entry { record, written: false });
        (number, writes)
    }

    /// These records are in the log.
    pub(crate) fn written(&mut self, numbers: &[u64]) {
        for number in numbers {
            if let Some(entry) = self.entries.get_mut(number) {
                entry.written = true;
            }
        }
    }

    /// Takes a request back: what is to be written, and who is to stop. `None` where there is none of that number.
    pub(crate) fn cancel(&mut self, number: u64, at: i64) -> Option<(Writes, Option<ReaderId>)> {
        let entry = self.entries.get(&number)?;
        if entry.record.end.is_some() {
            return Some((Vec::new(), None));
        }
        let running = self.running.take_if(|running| running.progress.number == number);
        let tally = running.map(|running| running.progress.tally).unwrap_or_default();
        let writes = self.end(number, ReplayEnd { cancelled: true, at, tally });
        Some((writes, running.map(|running| running.reader)))
    }

    /// Hears what an ingest says of its order; of an order that is not its any more nothing is heard.
    pub(crate) fn progress(&mut self, reader: ReaderId, progress: Progress, at: i64) -> Writes {
        let is_its =
            |running: &Running| running.reader == reader && running.progress.number == progress.number;
        if !self.running.as_ref().is_some_and(is_its) {
            return Vec::new();
        }
        self.running = Some(Running { reader, progress });
        if !progress.done {
            return Vec::new();
        }
        self.running = None;
        self.end(progress.number, ReplayEnd { cancelled: false, at, tally: progress.tally })
    }

    /// The stream of an ingest has ended, and with it its order.
    pub(crate) fn gone(&mut self, reader: ReaderId) {
        self.running.take_if(|running| running.reader == reader);
    }

    /// Gives the oldest that waits to one of these ingests, where none runs: to the one that has been there longest, so that one
    /// which comes and goes does not keep it.
    pub(crate) fn next(&mut self, readers: impl Iterator<Item = ReaderId>) -> Option<Order> {
        if self.running.is_some() {
            return None;
        }
        let record = self.open().find(|entry| entry.written)?.record.clone();
        let reader = readers.min()?;
        let progress = Progress { number: record.number, ..Progress::default() };
        self.running = Some(Running { reader, progress });
        Some(Order { reader, record })
    }

    /// Whether it is time to look for new dead letters.
    pub(crate) fn looks(&mut self, now: Tick) -> bool {
        let is_open = self.open().any(|entry| entry.record.automatic);
        let Some(auto) = self.auto.as_mut().filter(|auto| now >= auto.next) else { return false };
        auto.next = Tick(now.0.saturating_add(auto.every));
        !is_open
    }

    /// What has come to the dead-letter topic since the last automatic replay.
    pub(crate) fn grown(&self, found: &DeadLetterTopic, ends: &[PartitionEnds]) -> Vec<ReplayRange> {
        let last = self.newest_automatic().and_then(|number| self.entries.get(&number));
        let last = last.filter(|entry| self.number_of(found) == Some(entry.record.topic));
        let begin = |partition: Partition| {
            let ranges = last.map(|entry| entry.record.ranges.as_slice()).unwrap_or_default();
            ranges.iter().find(|range| range.partition == partition).map_or(Offset(0), |range| range.to)
        };
        // Empty ranges stay: the next replay begins where they end.
        let ranges: Vec<_> = ends
            .iter()
            .map(|ends| {
                let from = begin(ends.partition).max(ends.log_start);
                ReplayRange { partition: ends.partition, from, to: ends.last_stable.max(from) }
            })
            .collect();
        if ranges.iter().all(|range| range.offsets() == 0) { Vec::new() } else { ranges }
    }

    /// All of them, the oldest first.
    pub(crate) fn views(&self) -> impl Iterator<Item = View<'_>> {
        self.entries.values().map(|Entry { record, .. }| {
            let running = self.running.filter(|running| running.progress.number == record.number);
            let (state, tally, read) = match (record.end, running) {
                (Some(end), _) => {
                    let state = if end.cancelled { "cancelled" } else { "done" };
                    (state, end.tally, if end.cancelled { 0 } else { record.offsets() })
                }
                (None, Some(running)) => ("running", running.progress.tally, running.progress.read),
                (None, None) => ("waiting", ReplayTally::default(), 0),
            };
            View { record, state, tally, read }
        })
    }

    /// The topics that the job has had for its dead letters; the newest record has them all.
    fn topics(&self) -> &[DeadLetterTopic] {
        self.entries.last_key_value().map(|(_, entry)| entry.record.topics.as_slice()).unwrap_or_default()
    }

    fn number_of(&self, topic: &DeadLetterTopic) -> Option<u32> {
        let at = self.topics().iter().position(|known| known == topic)?;
        u32::try_from(at).ok()
    }

    fn open(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values().filter(|entry| entry.record.end.is_none())
    }

    fn newest_automatic(&self) -> Option<u64> {
        let automatic = self.entries.iter().filter(|(_, entry)| entry.record.automatic);
        automatic.map(|(number, _)| *number).max()
    }

    fn end(&mut self, number: u64, end: ReplayEnd) -> Writes {
        let Some(entry) = self.entries.get_mut(&number) else { return Vec::new() };
        entry.record.end = Some(end);
        entry.written = false;
        let mut writes = vec![(number, Some(entry.record.clone()))];
        let newest = self.newest_automatic();
        let ended = self.entries.iter().filter(|(_, entry)| entry.record.end.is_some());
        let ended: Vec<u64> = ended.map(|(number, _)| *number).collect();
        let too_many = ended.len().saturating_sub(KEPT);
        for number in ended.into_iter().take(too_many).filter(|number| Some(*number) != newest) {
            self.entries.remove(&number);
            writes.push((number, None));
        }
        writes
    }
}

#[cfg(test)]
mod tests;
