//! The poll thread: commands in, librdkafka polled, events out, never blocked by the owner.
//!
//! One partition: `owned` (by the group, or from its start on) → `Reading` → `Reading { paused }` → gone. librdkafka reads
//! exactly the partitions that are neither paused nor held back; each is added at `next`, the position kept here.

use std::collections::{BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tidegate_core::time::{Offset, Partition};
use tokio::sync::mpsc::Sender;
use tokio::sync::mpsc::error::TrySendError;

use super::ReaderEvent;
use crate::budget::Budget;
use crate::client::Deadline;
use crate::error::Result;
use crate::native::batch::{RawMessage, RecordBatch};
use crate::native::{NativeConsumer, Rebalance};

/// How long a poll waits for a record; commands end it early.
const POLL_PATIENCE: Duration = Duration::from_millis(100);
/// How long the owner may hold all its bytes before fetching stops. Until then librdkafka's own buffer is kept.
const HOLD_AFTER: Duration = Duration::from_secs(1);
/// How often the state is looked at while the owner holds all its bytes.
const BLOCKED_PATIENCE: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(super) enum Command {
    Start(Partition, Offset),
    Stop(Partition),
    Pause(Partition),
    Resume(Partition),
    Commit(Vec<(Partition, Offset)>),
    Close,
}

/// Commands not yet obeyed; the poll thread takes them within milliseconds.
#[derive(Debug, Default)]
pub(super) struct Commands(Mutex<VecDeque<Command>>);

impl Commands {
    pub(super) fn push(&self, command: Command) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push_back(command);
    }

    fn pop(&self) -> Option<Command> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }
}

/// A partition that was started.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// Everything below was sent or is not there.
    next: Offset,
    paused: bool,
}

pub(super) struct PollThread {
    commands: Arc<Commands>,
    budget: Arc<Budget>,
    events: Sender<ReaderEvent>,
    /// What the owner has no room for yet: a batch, and what came up meanwhile.
    outbox: VecDeque<ReaderEvent>,
    /// The partitions that the group gave to this reader; `None` outside a group.
    owned: Option<BTreeSet<Partition>>,
    /// By partition.
    reading: Vec<Option<Reading>>,
    /// Whether nothing is fetched because the owner is blocked.
    held: bool,
    blocked: Option<Deadline>,
    polled: Vec<RawMessage>,
    max_records: usize,
    /// Dropped last: the messages above belong to it.
    consumer: Arc<NativeConsumer>,
}

impl PollThread {
    pub(super) fn new(
        consumer: Arc<NativeConsumer>,
        commands: Arc<Commands>,
        budget: Arc<Budget>,
        events: Sender<ReaderEvent>,
        member: bool,
        max_records: usize,
    ) -> Self {
        Self {
            commands,
            budget,
            events,
            outbox: VecDeque::new(),
            owned: member.then(BTreeSet::new),
            reading: Vec::new(),
            held: false,
            blocked: None,
            polled: Vec::with_capacity(max_records),
            max_records,
            consumer,
        }
    }

    pub(super) fn run(mut self) {
        while !self.events.is_closed() {
            while let Some(command) = self.commands.pop() {
                if matches!(command, Command::Close) {
                    self.consumer.close();
                    return;
                }
                self.obey(command);
            }
            while let Some(rebalance) = self.consumer.next_rebalance() {
                self.rebalance(rebalance);
            }
            self.send_outbox();
            if !self.outbox.is_empty() || self.budget.is_exhausted() {
                self.wait_for_owner();
            } else {
                self.blocked = None;
                self.hold(false);
                self.poll(POLL_PATIENCE);
            }
        }
        self.consumer.close();
    }

    fn obey(&mut self, command: Command) {
        let done = match command {
            Command::Start(partition, offset) => self.start(partition, offset),
            Command::Stop(partition) => self.change(partition, None),
            Command::Pause(partition) => self.pause(partition, true),
            Command::Resume(partition) => self.pause(partition, false),
            Command::Commit(positions) => self.consumer.commit(&positions),
            Command::Close => Ok(()),
        };
        self.report(done);
    }

    fn start(&mut self, partition: Partition, offset: Offset) -> Result<()> {
        if self.owned.as_ref().is_some_and(|owned| !owned.contains(&partition)) {
            tracing::debug!(%partition, %offset, "not started: the partition is no longer this reader's");
            return Ok(());
        }
        // First out, then in: the start may be on a position of before.
        self.change(partition, None)?;
        self.change(partition, Some(Reading { next: offset, paused: false }))?;
        self.outbox.push_back(ReaderEvent::Started { partition, offset });
        Ok(())
    }

    fn pause(&mut self, partition: Partition, paused: bool) -> Result<()> {
        match self.reading(partition) {
            Some(reading) => self.change(partition, Some(Reading { paused, ..reading })),
            None => Ok(()),
        }
    }

    fn reading(&self, partition: Partition) -> Option<Reading> {
        self.reading.get(slot(partition)).copied().flatten()
    }

    /// Notes the state of a partition and makes librdkafka follow.
    fn change(&mut self, partition: Partition, state: Option<Reading>) -> Result<()> {
        let was_read = self.is_read(partition);
        if self.reading.len() <= slot(partition) && state.is_some() {
            self.reading.resize(slot(partition) + 1, None);
        }
        if let Some(reading) = self.reading.get_mut(slot(partition)) {
            *reading = state;
        }
        match (was_read, state) {
            (true, None | Some(Reading { paused: true, .. })) => self.consumer.remove(&[partition]),
            (false, Some(Reading { next, paused: false })) if !self.held => {
                self.consumer.add(&[(partition, next)])
            }
            _ => Ok(()),
        }
    }

    /// Whether librdkafka reads the partition.
    fn is_read(&self, partition: Partition) -> bool {
        !self.held && self.reading(partition).is_some_and(|reading| !reading.paused)
    }

    /// The partitions that are not paused, and where.
    fn running(&self) -> Vec<(Partition, Offset)> {
        let started = (0..).map(Partition).zip(&self.reading);
        started
            .filter_map(|(partition, reading)| match reading {
                Some(Reading { next, paused: false }) => Some((partition, *next)),
                _ => None,
            })
            .collect()
    }

    /// Stops all fetching, or goes on with it.
    fn hold(&mut self, hold: bool) {
        if hold == self.held {
            return;
        }
        self.held = hold;
        let running = self.running();
        let done =
            if hold { self.consumer.remove(&partitions_of(&running)) } else { self.consumer.add(&running) };
        self.report(done);
    }

    /// Takes every partition out and adds those that stay at their own positions: librdkafka has paused them at positions
    /// of its own (see `native`). The calls are the answer it waits for.
    fn rebalance(&mut self, rebalance: Rebalance) {
        let before = if self.held { Vec::new() } else { self.running() };
        let event = match rebalance {
            Rebalance::Assign(partitions) => {
                let generation = self.consumer.generation().unwrap_or_default();
                self.owned.get_or_insert_default().extend(partitions.iter().copied());
                ReaderEvent::Assigned { partitions, generation }
            }
            Rebalance::Revoke { partitions, lost } => {
                for partition in &partitions {
                    if let Some(reading) = self.reading.get_mut(slot(*partition)) {
                        *reading = None;
                    }
                }
                self.owned.get_or_insert_default().retain(|partition| !partitions.contains(partition));
                if lost { ReaderEvent::Lost { partitions } } else { ReaderEvent::Revoked { partitions } }
            }
        };
        let after = if self.held { Vec::new() } else { self.running() };
        let done = self.consumer.remove(&partitions_of(&before)).and_then(|()| self.consumer.add(&after));
        self.outbox.push_back(event);
        self.report(done);
    }

    fn wait_for_owner(&mut self) {
        let blocked = *self.blocked.get_or_insert_with(|| Deadline::after(HOLD_AFTER));
        if blocked.has_passed() {
            self.hold(true);
        }
        if self.held || !self.budget.is_exhausted() {
            self.poll(BLOCKED_PATIENCE);
        } else {
            self.budget.wait(BLOCKED_PATIENCE);
        }
    }

    fn poll(&mut self, patience: Duration) {
        let mut polled = std::mem::take(&mut self.polled);
        self.consumer.poll(&mut polled, self.max_records, patience);
        let mut records = Vec::with_capacity(polled.len());
        for message in polled.drain(..) {
            match message.error() {
                None if self.advance(&message) => records.push(message),
                // Read before the partition was stopped or started elsewhere: not wanted any more, or coming again.
                None => {}
                Some(code) => {
                    self.send_batch(&mut records);
                    self.note(&message, code);
                }
            }
        }
        self.send_batch(&mut records);
        self.polled = polled;
        self.send_outbox();
    }

    /// Moves the position behind the record; `false` if it lies below or its partition is not read.
    fn advance(&mut self, message: &RawMessage) -> bool {
        let (Some(partition), Some(offset)) = (message.partition(), message.offset()) else {
            return false;
        };
        match self.reading.get_mut(slot(partition)) {
            Some(Some(Reading { next, paused: false })) if offset >= *next => {
                *next = offset.next();
                true
            }
            _ => false,
        }
    }

    fn send_batch(&mut self, records: &mut Vec<RawMessage>) {
        if records.is_empty() {
            return;
        }
        let permit = self.budget.take(records.iter().map(RawMessage::weight).sum());
        let batch = RecordBatch::new(std::mem::take(records), permit, Arc::clone(&self.consumer));
        self.outbox.push_back(ReaderEvent::Batch(batch));
    }

    /// What stands in place of a record.
    fn note(&mut self, message: &RawMessage, code: RDKafkaErrorCode) {
        let reading = message.partition().and_then(|partition| self.reading(partition));
        let event = match (code, message.partition(), message.offset()) {
            (RDKafkaErrorCode::PartitionEOF, Some(partition), Some(position)) => {
                match self.reading.get_mut(slot(partition)) {
                    Some(Some(Reading { next, paused: false })) if position >= *next => *next = position,
                    _ => return,
                }
                ReaderEvent::EndOfPartition { partition, position }
            }
            (RDKafkaErrorCode::PartitionEOF, ..) => return,
            _ => {
                ReaderEvent::Failed(self.consumer.failure(message, code, reading.map(|reading| reading.next)))
            }
        };
        self.outbox.push_back(event);
    }

    fn report(&mut self, done: Result<()>) {
        if let Err(error) = done {
            self.outbox.push_back(ReaderEvent::Failed(error));
        }
    }

    fn send_outbox(&mut self) {
        while let Some(event) = self.outbox.pop_front() {
            match self.events.try_send(event) {
                Ok(()) => {}
                Err(TrySendError::Full(event)) => {
                    self.outbox.push_front(event);
                    return;
                }
                Err(TrySendError::Closed(_)) => return,
            }
        }
    }
}

fn slot(partition: Partition) -> usize {
    usize::try_from(partition.0).unwrap_or(usize::MAX)
}

fn partitions_of(running: &[(Partition, Offset)]) -> Vec<Partition> {
    running.iter().map(|(partition, _)| *partition).collect()
}
