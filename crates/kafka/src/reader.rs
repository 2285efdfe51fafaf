//! Reading a topic: one poll thread, a stream of events bounded by bytes.
//!
//! ```text
//!   librdkafka ── poll thread ──▶ ReaderEvent … ReaderEvent ──▶ owner: reader.next().await
//!                     ▲                                            │ start, pause, resume, commit
//!                     └───────────── commands ◀────────────────────┘
//! ```
//!
//! - Being assigned a partition starts nothing: the owner says where to [`start`](ReaderControl::start).
//! - Offsets of a partition rise, from start to start: nothing comes twice, nothing is skipped.
//! - When the owner holds as many bytes as allowed, the poll thread stops polling; after a second of that it stops fetching
//!   and polls again, so that the membership in the group lives however long the owner is blocked.
//! - The group's assignor is `cooperative-sticky`: partitions that stay with this reader are read on through a rebalance.

mod poll;

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::time::{Offset, Partition};
use tokio::sync::mpsc;

use self::poll::{Command, Commands, PollThread};
use crate::budget::Budget;
use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::NativeConsumer;
use crate::native::batch::RecordBatch;
use crate::native::requests::{Mark, list_offsets};
use crate::topic::PartitionEnds;

/// Events that may wait for the owner; the records in them are bounded by bytes.
const EVENTS: usize = 1024;
/// How long a round trip to the broker may take.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// What a reader tells its owner, in order.
#[derive(Debug)]
pub enum ReaderEvent {
    /// Records.
    Batch(RecordBatch),
    /// Everything a `read_committed` reader can see of the partition at this moment was sent.
    EndOfPartition {
        /// The partition.
        partition: Partition,
        /// The fetch position: the last stable offset. It may lie behind the last record sent (markers, aborted records).
        position: Offset,
    },
    /// What follows of this partition is read from `offset`: the answer to a start. Before it came what was read earlier.
    Started {
        /// The partition.
        partition: Partition,
        /// Where reading starts.
        offset: Offset,
    },
    /// The group has a new generation, in which this reader has these partitions more; perhaps none.
    Assigned {
        /// Partitions that are new; each waits for its start.
        partitions: Vec<Partition>,
        /// Rises with every rebalance, for all partitions of the reader.
        generation: u32,
    },
    /// These partitions go to another reader; nothing more comes of them.
    Revoked {
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// The reader was thrown out of the group; others may read these partitions already. It joins again by itself.
    Lost {
        /// The partitions.
        partitions: Vec<Partition>,
    },
    /// Something failed; where it [is retriable](Error::is_retriable), the reader goes on trying by itself.
    Failed(Error),
}

/// How a reader reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReaderOptions {
    /// Bytes of records that may be under way between the poll thread and the owner, plus one batch.
    pub max_bytes: usize,
    /// Records in a batch.
    pub max_records: usize,
}

impl Default for ReaderOptions {
    fn default() -> Self {
        Self { max_bytes: 32 << 20, max_records: 1000 }
    }
}

/// Steers a reader from anywhere. Once the reader is closed, commands do nothing.
#[derive(Clone)]
pub struct ReaderControl {
    consumer: Arc<NativeConsumer>,
    budget: Arc<Budget>,
    commands: Arc<Commands>,
}

impl ReaderControl {
    /// Reads `partition` from `offset` on; a partition that is being read starts anew there, and is not paused.
    ///
    /// The events say [`ReaderEvent::Started`] from where on this holds. A partition that the group has taken away
    /// meanwhile is not started.
    pub fn start(&self, partition: Partition, offset: Offset) {
        self.tell(Command::Start(partition, offset));
    }

    /// Stops to read `partition`.
    pub fn stop(&self, partition: Partition) {
        self.tell(Command::Stop(partition));
    }

    /// Stops fetching `partition` for a while; what is under way still comes.
    pub fn pause(&self, partition: Partition) {
        self.tell(Command::Pause(partition));
    }

    /// Goes on reading `partition` where it was paused.
    pub fn resume(&self, partition: Partition) {
        self.tell(Command::Resume(partition));
    }

    /// Tells the group about positions, without waiting: for tools that show the lag. tidegate never reads them.
    pub fn commit(&self, positions: &[(Partition, Offset)]) {
        self.tell(Command::Commit(positions.to_vec()));
    }

    /// Where a partition that is being read ends, as the last answer to a fetch told it; some microseconds.
    #[must_use]
    pub fn known_end(&self, partition: Partition) -> Option<Offset> {
        self.consumer.known_end(partition)
    }

    /// Where the partition begins and ends now, by a round trip to the broker that starts after this call.
    ///
    /// # Errors
    ///
    /// When the broker does not answer in time, or knows no such partition.
    pub async fn end_of(&self, partition: Partition) -> Result<PartitionEnds> {
        let consumer = Arc::clone(&self.consumer);
        match tokio::task::spawn_blocking(move || ends_of(&consumer, partition)).await {
            Ok(ends) => ends,
            Err(_) => Err(Error::Closed { topic: self.consumer.topic().to_owned() }),
        }
    }

    /// [`end_of`](Self::end_of), blocking.
    ///
    /// # Errors
    ///
    /// As there.
    pub fn end_of_blocking(&self, partition: Partition) -> Result<PartitionEnds> {
        ends_of(&self.consumer, partition)
    }

    fn tell(&self, command: Command) {
        self.commands.push(command);
        self.consumer.wake();
        self.budget.wake();
    }
}

fn ends_of(consumer: &NativeConsumer, partition: Partition) -> Result<PartitionEnds> {
    let marks = [Mark::LogStart, Mark::LastStable, Mark::HighWatermark];
    let ends = list_offsets(consumer.client(), consumer.topic(), &[partition], marks, REQUEST_TIMEOUT)?;
    match ends.first() {
        Some(&[log_start, last_stable, high_watermark]) => {
            Ok(PartitionEnds { partition, log_start, last_stable, high_watermark })
        }
        None => Err(Error::UnknownPartition { topic: consumer.topic().to_owned(), partition }),
    }
}

/// The owner's side of a poll thread. Dropping it ends the thread.
struct Reader {
    control: ReaderControl,
    events: mpsc::Receiver<ReaderEvent>,
}

impl Reader {
    fn open(
        config: &KafkaConfig,
        topic: &str,
        group: &str,
        member: bool,
        options: ReaderOptions,
    ) -> Result<Self> {
        let consumer = NativeConsumer::open(&config.consumer(group), topic)?;
        if member {
            consumer.subscribe()?;
        }
        let (sender, events) = mpsc::channel(EVENTS);
        let budget = Budget::new(options.max_bytes);
        let commands = Arc::new(Commands::default());
        let thread = PollThread::new(
            Arc::clone(&consumer),
            Arc::clone(&commands),
            Arc::clone(&budget),
            sender,
            member,
            options.max_records.max(1),
        );
        std::thread::Builder::new()
            .name("kafka-poll".to_owned())
            .spawn(move || thread.run())
            .map_err(Error::Thread)?;
        Ok(Self { control: ReaderControl { consumer, budget, commands }, events })
    }

    async fn close(mut self) {
        self.control.tell(Command::Close);
        while self.events.recv().await.is_some() {}
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.control.tell(Command::Close);
    }
}

/// A member of a consumer group on one topic.
pub struct GroupReader(Reader);

impl GroupReader {
    /// Joins `group`. The first event is an assignment, as soon as the group has one.
    ///
    /// # Errors
    ///
    /// When the client refuses its configuration. That no broker answers is not an error: it is tried for ever.
    pub fn join(config: &KafkaConfig, topic: &str, group: &str, options: ReaderOptions) -> Result<Self> {
        Ok(Self(Reader::open(config, topic, group, true, options)?))
    }

    /// Steers this reader.
    #[must_use]
    pub fn control(&self) -> &ReaderControl {
        &self.0.control
    }

    /// The next event; `None` once the reader has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<ReaderEvent> {
        self.0.events.recv().await
    }

    /// Leaves the group and waits until that is done. Dropping the reader leaves too, but does not wait.
    pub async fn close(self) {
        self.0.close().await;
    }
}

/// Reads chosen partitions of a topic outside any group: for catch-up.
pub struct PartitionReader(Reader);

impl PartitionReader {
    /// Opens a reader that reads nothing yet. `group` names it to the broker (librdkafka wants one); it is not joined.
    ///
    /// # Errors
    ///
    /// When the client refuses its configuration.
    pub fn open(config: &KafkaConfig, topic: &str, group: &str, options: ReaderOptions) -> Result<Self> {
        Ok(Self(Reader::open(config, topic, group, false, options)?))
    }

    /// Reads `partition` from `offset` on; see [`ReaderControl::start`].
    pub fn assign(&self, partition: Partition, offset: Offset) {
        self.0.control.start(partition, offset);
    }

    /// Stops to read `partition`.
    pub fn unassign(&self, partition: Partition) {
        self.0.control.stop(partition);
    }

    /// Steers this reader.
    #[must_use]
    pub fn control(&self) -> &ReaderControl {
        &self.0.control
    }

    /// The next event; `None` once the reader has ended. Cancel-safe.
    pub async fn next(&mut self) -> Option<ReaderEvent> {
        self.0.events.recv().await
    }

    /// Ends the reader and waits until that is done.
    pub async fn close(self) {
        self.0.close().await;
    }
}
