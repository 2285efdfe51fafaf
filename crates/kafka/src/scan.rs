//! Stretches of a topic, read `read_committed` on the calling thread up to given ends.
//!
//! An end is reached when the *fetch position* has passed it: markers and aborted records leave gaps, so the last record
//! may lie well below.

use std::sync::Arc;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use tidegate_core::time::{EventTime, Offset, Partition};

use crate::admin::{explained, why_unreachable};
use crate::client::{Deadline, partition_count};
use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::NativeConsumer;
use crate::native::batch::Record;
use crate::native::requests::{Mark, list_offsets};
use crate::topic::PartitionEnds;

const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_PATIENCE: Duration = Duration::from_millis(100);
const MAX_RECORDS: usize = 1000;

/// Whether to go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Go on.
    Continue,
    /// Enough.
    Stop,
}

/// A stretch of a partition; without an end it is read for ever.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    pub(crate) partition: Partition,
    pub(crate) start: Offset,
    pub(crate) end: Option<Offset>,
}

#[derive(Clone, Copy)]
struct Place {
    stretch: Stretch,
    next: Offset,
    /// The last stable offset stands at `next`.
    at_end: bool,
}

impl Place {
    fn is_open(&self) -> bool {
        self.stretch.end.is_none_or(|end| self.next < end)
    }
}

pub(crate) struct Scan {
    config: KafkaConfig,
    consumer: Arc<NativeConsumer>,
}

impl Scan {
    pub(crate) fn open(config: &KafkaConfig, topic: &str) -> Result<Self> {
        let consumer = NativeConsumer::open(&config.consumer(&config.client_id), topic)?;
        Ok(Self { config: config.clone(), consumer })
    }

    pub(crate) fn topic(&self) -> &str {
        self.consumer.topic()
    }

    pub(crate) fn partitions(&self) -> Result<Vec<Partition>> {
        let count = partition_count(self.consumer.client(), self.topic(), REQUEST_TIMEOUT)
            .map_err(|error| explained(&self.config, error))?;
        Ok((0..count).map(Partition).collect())
    }

    pub(crate) fn ends(&self, partitions: &[Partition]) -> Result<Vec<PartitionEnds>> {
        // Waits for a connection: without one, librdkafka's search for the leaders is repeated after three seconds only.
        self.partitions()?;
        let marks = [Mark::LogStart, Mark::LastStable, Mark::HighWatermark];
        let ends = list_offsets(self.consumer.client(), self.topic(), partitions, marks, REQUEST_TIMEOUT)?;
        let ends = partitions.iter().zip(ends);
        Ok(ends
            .map(|(partition, [log_start, last_stable, high_watermark])| PartitionEnds {
                partition: *partition,
                log_start,
                last_stable,
                high_watermark,
            })
            .collect())
    }

    /// Of each partition the first offset whose record has this timestamp or a later one; behind all where there is none.
    pub(crate) fn since(&self, partitions: &[Partition], time: EventTime) -> Result<Vec<Offset>> {
        let marks = [Mark::Since(time)];
        let found = list_offsets(self.consumer.client(), self.topic(), partitions, marks, REQUEST_TIMEOUT)?;
        Ok(found.into_iter().map(|[offset]| offset).collect())
    }

    /// Whether records can be read: waits until the brokers have answered a fetch at the end of the first partition.
    ///
    /// # Errors
    ///
    /// What they answer where they refuse; when they do not answer for `patience`.
    pub(crate) fn try_read(&self, patience: Duration) -> Result<()> {
        let ends = self.ends(&[Partition(0)])?;
        let Some(PartitionEnds { partition, last_stable, .. }) = ends.first() else {
            return Err(Error::UnknownTopic { topic: self.topic().to_owned() });
        };
        self.consumer.add(&[(*partition, *last_stable)])?;
        let (mut messages, deadline) = (Vec::new(), Deadline::after(patience));
        while !deadline.has_passed() {
            self.consumer.poll(&mut messages, MAX_RECORDS, POLL_PATIENCE);
            for message in messages.drain(..) {
                match message.error() {
                    None | Some(RDKafkaErrorCode::PartitionEOF) => return Ok(()),
                    Some(code) => {
                        let error = self.consumer.failure(&message, code, Some(*last_stable));
                        if !error.is_retriable() {
                            return Err(error);
                        }
                    }
                }
            }
        }
        Err(Error::TimedOut { what: format!("read topic `{}`", self.topic()), waited: patience })
    }

    /// Reads the stretches, which are of different partitions. `between` is called after each poll, ten times a second or
    /// more often.
    ///
    /// # Errors
    ///
    /// When nothing moves for `patience` though an end is not reached; what the callbacks return.
    pub(crate) fn read<E: From<Error>>(
        &self,
        stretches: &[Stretch],
        patience: Duration,
        mut on_record: impl FnMut(Record<'_>) -> Result<Step, E>,
        mut between: impl FnMut() -> Result<Step, E>,
    ) -> Result<(), E> {
        let mut places: Vec<_> = stretches
            .iter()
            .map(|stretch| Place { stretch: *stretch, next: stretch.start, at_end: false })
            .collect();
        let starts: Vec<_> =
            places.iter().filter(|place| place.is_open()).map(|at| (at.stretch.partition, at.next)).collect();
        if starts.is_empty() {
            return Ok(());
        }
        self.consumer.add(&starts)?;
        let done = self.poll(&mut places, patience, &mut on_record, &mut between);
        let started: Vec<_> = starts.iter().map(|(partition, _)| *partition).collect();
        let stopped = self.consumer.remove(&started);
        done.and(stopped.map_err(E::from))
    }

    fn poll<E: From<Error>>(
        &self,
        places: &mut [Place],
        patience: Duration,
        on_record: &mut impl FnMut(Record<'_>) -> Result<Step, E>,
        between: &mut impl FnMut() -> Result<Step, E>,
    ) -> Result<(), E> {
        let mut messages = Vec::with_capacity(MAX_RECORDS);
        let mut still = Deadline::after(patience);
        // Records come in stretches of one partition: the place of the last one is mostly that of the next.
        let mut last = 0;
        loop {
            self.consumer.poll(&mut messages, MAX_RECORDS, POLL_PATIENCE);
            for message in messages.drain(..) {
                let is_of = |place: &Place| Some(place.stretch.partition) == message.partition();
                if !places.get(last).is_some_and(is_of) {
                    last = places.iter().position(is_of).unwrap_or(usize::MAX);
                }
                let place = places.get_mut(last);
                match (message.error(), message.offset(), place) {
                    (None, Some(offset), Some(place)) if offset >= place.next && place.is_open() => {
                        place.next = offset.next();
                        place.at_end = false;
                        still = Deadline::after(patience);
                        if place.stretch.end.is_none_or(|end| offset < end)
                            && on_record(message.record())? == Step::Stop
                        {
                            return Ok(());
                        }
                    }
                    (None, ..) => {}
                    (Some(RDKafkaErrorCode::PartitionEOF), Some(position), Some(place))
                        if position >= place.next =>
                    {
                        if position > place.next {
                            still = Deadline::after(patience);
                        }
                        place.next = position;
                        place.at_end = true;
                    }
                    (Some(RDKafkaErrorCode::PartitionEOF), ..) => {}
                    (Some(code), _, place) => {
                        let error = self.consumer.failure(&message, code, place.map(|place| place.next));
                        if !error.is_retriable() {
                            return Err(error.into());
                        }
                        tracing::warn!(%error, "reading goes on");
                    }
                }
            }
            if !places.iter().any(Place::is_open) || between()? == Step::Stop {
                return Ok(());
            }
            if still.has_passed()
                && let Some(error) = self.stuck(places, patience)
            {
                return Err(error.into());
            }
        }
    }

    /// Why nothing moves, where something should.
    fn stuck(&self, places: &[Place], waited: Duration) -> Option<Error> {
        let topic = self.topic().to_owned();
        let waiting = |place: &&Place| place.is_open() && place.stretch.end.is_some();
        let place = places.iter().filter(waiting).max_by_key(|place| place.at_end)?;
        let Stretch { partition, end, .. } = place.stretch;
        if place.at_end {
            let (position, high_watermark) = (place.next, end?);
            return Some(Error::OpenTransaction { topic, partition, position, high_watermark, waited });
        }
        let what = format!("read topic `{topic}` partition {partition} from offset {}", place.next);
        let timed_out = Error::TimedOut { what, waited };
        if self.consumer.complaint().is_none() {
            return Some(timed_out);
        }
        Some(why_unreachable(&self.config, timed_out.to_string()))
    }
}
