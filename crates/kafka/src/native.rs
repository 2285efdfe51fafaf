//! The one place with `unsafe`: what rdkafka does not bind safely.
//!
//! - [`NativeConsumer`]: librdkafka's consumer read through `rd_kafka_consume_batch_queue`, partitions assigned one by one.
//! - [`batch`]: the messages of a poll, owned.
//! - [`bell`]: a producer's events, waited for.
//! - [`produce`]: records without headers, by the handles of their topics.
//! - [`requests`]: `ListOffsets` with an isolation level, and topic ids.
//!
//! A consumer that was asked to rebalance *records* that and returns from its poll; the poll thread answers with
//! [`NativeConsumer::add`] or [`NativeConsumer::remove`], at once and with any partitions, also none. Only while it closes
//! does the callback answer by itself.
//!
//! librdkafka's own pause is not used. A batch poll that returns an end of partition at offset `n` moves the position from
//! which librdkafka resumes to `n + 1` (`rd_kafka_q_serve_rkmessages` takes it for a record), so a record would be lost.
//! librdkafka also pauses by itself at each rebalance: the poll thread then adds every partition anew, at its own position.

pub(crate) mod batch;
pub(crate) mod bell;
pub(crate) mod produce;
pub(crate) mod requests;

use std::collections::VecDeque;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::types::RDKafkaType;
use rdkafka::{ClientContext, Offset as RawOffset, TopicPartitionList};
use rdkafka_sys as sys;
use tidegate_core::time::{Offset, Partition};

use self::batch::RawMessage;
use self::requests::{Mark, list_offsets};
use crate::client::{LastComplaint, raw_offset, raw_partition, trace_error, trace_log};
use crate::error::{Error, Result};

/// How long a reader that cannot go on asks what there is instead.
const RANGE_PATIENCE: Duration = Duration::from_secs(3);

/// What the group coordinator asks of this member.
#[derive(Debug)]
pub(crate) enum Rebalance {
    /// These partitions are added; the list may be empty.
    Assign(Vec<Partition>),
    /// These partitions are taken away; `lost` when others may have them already.
    Revoke { partitions: Vec<Partition>, lost: bool },
}

/// What the callbacks share with the poll thread.
#[derive(Debug, Default)]
pub(crate) struct ConsumerContext {
    complaint: LastComplaint,
    rebalances: Mutex<VecDeque<Rebalance>>,
    /// The consumer's queue, so that the rebalance callback can end the poll in which it is called.
    queue: AtomicPtr<sys::rd_kafka_queue_t>,
    closing: AtomicBool,
}

impl ClientContext for ConsumerContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.complaint.hear_log(facility, message);
        trace_log(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.complaint.hear_error(&error, reason);
        trace_error(&error, reason);
    }
}

/// A consumer of one topic. Dropping it closes it on a thread of its own.
pub(crate) struct NativeConsumer(ManuallyDrop<Consumer>);

/// What a [`NativeConsumer`] is; dropping it blocks until the client's threads have ended.
pub(crate) struct Consumer {
    topic: Box<str>,
    queue: NonNull<sys::rd_kafka_queue_t>,
    /// Dropped last: everything else refers to it.
    client: Client<ConsumerContext>,
}

// SAFETY: librdkafka's handles may be used from several threads at once ("librdkafka is completely thread-safe").
unsafe impl Send for Consumer {}
// SAFETY: as above.
unsafe impl Sync for Consumer {}

impl NativeConsumer {
    pub(crate) fn open(config: &ClientConfig, topic: &str) -> Result<Arc<Self>> {
        Ok(Arc::new(Self(ManuallyDrop::new(Consumer::open(config, topic)?))))
    }
}

impl Deref for NativeConsumer {
    type Target = Consumer;

    fn deref(&self) -> &Consumer {
        &self.0
    }
}

impl Drop for NativeConsumer {
    /// Whoever lets go last, perhaps of a batch of records, is not to wait for brokers that do not answer.
    fn drop(&mut self) {
        // SAFETY: taken once, here, and not used after.
        let consumer = unsafe { ManuallyDrop::take(&mut self.0) };
        let closing = std::thread::Builder::new().name("kafka-close".to_owned());
        if let Err(error) = closing.spawn(move || drop(consumer)) {
            tracing::debug!(%error, "no thread to close a consumer on; it was closed by its last owner");
        }
    }
}

impl Consumer {
    fn open(config: &ClientConfig, topic: &str) -> Result<Self> {
        let what = || format!("open a reader of topic `{topic}`");
        let native = config.create_native_config().map_err(|error| Error::client(what(), &error))?;
        // SAFETY: the configuration is live; the callbacks fit the signatures and expect the opaque pointer that
        // `Client::new` sets: a `ConsumerContext` which lives as long as the client.
        unsafe {
            sys::rd_kafka_conf_set_rebalance_cb(native.ptr(), Some(on_rebalance));
            sys::rd_kafka_conf_set_log_cb(native.ptr(), Some(on_log));
            sys::rd_kafka_conf_set_error_cb(native.ptr(), Some(on_error));
        }
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_CONSUMER, ConsumerContext::default())
            .map_err(|error| Error::client(what(), &error))?;
        // SAFETY: the client is live. Its main queue (logs, errors) is read together with the consumer's.
        let queue = unsafe {
            sys::rd_kafka_poll_set_consumer(client.native_ptr());
            NonNull::new(sys::rd_kafka_queue_get_consumer(client.native_ptr()))
        };
        let Some(queue) = queue else {
            return Err(Error::Config { reason: "a consumer needs `group.id`".to_owned() });
        };
        client.context().queue.store(queue.as_ptr(), Ordering::Release);
        Ok(Self { topic: topic.into(), queue, client })
    }

    pub(crate) fn topic(&self) -> &str {
        &self.topic
    }

    pub(crate) fn client(&self) -> &Client<ConsumerContext> {
        &self.client
    }

    pub(crate) fn complaint(&self) -> &LastComplaint {
        &self.client.context().complaint
    }

    /// Joins the group for the topic.
    pub(crate) fn subscribe(&self) -> Result<()> {
        let mut topics = TopicPartitionList::new();
        topics.add_topic_unassigned(&self.topic);
        // SAFETY: client and list are live; the list is copied.
        let code = unsafe { sys::rd_kafka_subscribe(self.client.native_ptr(), topics.ptr()) };
        self.checked("join the group of", code)
    }

    /// Appends up to `max` messages to `messages`: waits for the first one at most `patience`, for the others not at all.
    ///
    /// Returns early when asked to rebalance or [woken](Self::wake).
    pub(crate) fn poll(&self, messages: &mut Vec<RawMessage>, max: usize, patience: Duration) {
        if self.poll_some(messages, 1, patience) > 0 {
            self.poll_some(messages, max.saturating_sub(1), Duration::ZERO);
        }
    }

    fn poll_some(&self, messages: &mut Vec<RawMessage>, max: usize, patience: Duration) -> usize {
        messages.reserve(max);
        let spare = messages.spare_capacity_mut();
        let millis = c_int::try_from(patience.as_millis()).unwrap_or(c_int::MAX);
        // SAFETY: `RawMessage` is a transparent non-null message pointer and the slice has room for `max` of them;
        // librdkafka writes live messages, which are ours to destroy, into the first `count` places.
        unsafe {
            let count = sys::rd_kafka_consume_batch_queue(
                self.queue.as_ptr(),
                millis,
                spare.as_mut_ptr().cast(),
                max,
            );
            let count = usize::try_from(count).unwrap_or(0).min(max);
            messages.set_len(messages.len() + count);
            count
        }
    }

    /// Makes a poll that waits return.
    pub(crate) fn wake(&self) {
        // SAFETY: the queue is live until `self` is dropped.
        unsafe { sys::rd_kafka_queue_yield(self.queue.as_ptr()) }
    }

    /// The next thing the group asked for.
    pub(crate) fn next_rebalance(&self) -> Option<Rebalance> {
        self.client.context().rebalances.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
    }

    /// Starts to read partitions, none of which is being read, at offsets. Answers [`Rebalance::Assign`].
    pub(crate) fn add(&self, starts: &[(Partition, Offset)]) -> Result<()> {
        let list = self.list(starts.iter().map(|(partition, offset)| (*partition, Some(*offset))))?;
        // SAFETY: client and list are live; the list is copied; the error is owned by `finish`.
        self.finish("start to read", unsafe {
            sys::rd_kafka_incremental_assign(self.client.native_ptr(), list.ptr())
        })
    }

    /// Stops to read partitions, each of which is being read. Nothing of them comes out of a later poll. Answers
    /// [`Rebalance::Revoke`].
    pub(crate) fn remove(&self, partitions: &[Partition]) -> Result<()> {
        let list = self.list(partitions.iter().map(|partition| (*partition, None)))?;
        // SAFETY: as in `add`.
        self.finish("stop to read", unsafe {
            sys::rd_kafka_incremental_unassign(self.client.native_ptr(), list.ptr())
        })
    }

    /// Sends positions to the group; does not wait for the answer.
    pub(crate) fn commit(&self, positions: &[(Partition, Offset)]) -> Result<()> {
        let list = self.list(positions.iter().map(|(partition, offset)| (*partition, Some(*offset))))?;
        // SAFETY: client and list are live; the list is copied.
        self.checked("commit to the group of", unsafe {
            sys::rd_kafka_commit(self.client.native_ptr(), list.ptr(), 1)
        })
    }

    /// The high watermark of a partition that is being read, as the last answer to a fetch told it; no round trip.
    pub(crate) fn known_end(&self, partition: Partition) -> Option<Offset> {
        let topic = CString::new(self.topic.as_bytes()).ok()?;
        let (mut low, mut high) = (-1, -1);
        // SAFETY: client and name are live; both numbers are written before the call returns.
        let code = unsafe {
            sys::rd_kafka_get_watermark_offsets(
                self.client.native_ptr(),
                topic.as_ptr(),
                raw_partition(partition),
                &raw mut low,
                &raw mut high,
            )
        };
        let known = RDKafkaErrorCode::from(code) == RDKafkaErrorCode::NoError;
        u64::try_from(high).ok().filter(|_| known).map(Offset)
    }

    /// The group's generation as this member knows it; `None` outside a group.
    pub(crate) fn generation(&self) -> Option<u32> {
        // SAFETY: the client is live; the metadata is ours and destroyed after its number was read.
        unsafe {
            let metadata = NonNull::new(sys::rd_kafka_consumer_group_metadata(self.client.native_ptr()))?;
            let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata.as_ptr());
            sys::rd_kafka_consumer_group_metadata_destroy(metadata.as_ptr());
            u32::try_from(generation).ok()
        }
    }

    /// Leaves the group and stops reading. Batches that were handed out stay readable.
    pub(crate) fn close(&self) {
        if self.client.context().closing.swap(true, Ordering::AcqRel) {
            return;
        }
        // A rebalance that was asked for and not yet answered would be waited for.
        while let Some(rebalance) = self.next_rebalance() {
            let answered = match rebalance {
                Rebalance::Assign(_) => self.add(&[]),
                Rebalance::Revoke { .. } => self.remove(&[]),
            };
            if let Err(error) = answered {
                tracing::debug!(%error, "answer a rebalance while closing");
            }
        }
        // SAFETY: the client is live.
        let code = unsafe { sys::rd_kafka_consumer_close(self.client.native_ptr()) };
        if let Err(error) = self.checked("close the reader of", code) {
            tracing::warn!(%error, "the reader did not close cleanly");
        }
    }

    /// What a message that stands for an error says; `position` is where its partition was read.
    pub(crate) fn failure(
        &self,
        message: &RawMessage,
        code: RDKafkaErrorCode,
        position: Option<Offset>,
    ) -> Error {
        let topic = self.topic.to_string();
        match (code, message.partition(), position) {
            (
                RDKafkaErrorCode::AutoOffsetReset
                | RDKafkaErrorCode::OffsetOutOfRange
                | RDKafkaErrorCode::LogTruncation,
                Some(partition),
                Some(offset),
            ) => {
                let (log_start, end) = self.range(partition).unzip();
                Error::OffsetOutOfRange { topic, partition, offset, log_start, end }
            }
            (RDKafkaErrorCode::UnknownPartition, Some(partition), _) => {
                Error::UnknownPartition { topic, partition }
            }
            (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownTopic, ..) => {
                Error::UnknownTopic { topic }
            }
            (code, partition, _) => {
                let place = partition.map(|partition| format!(" partition {partition}")).unwrap_or_default();
                Error::Client {
                    what: format!("read topic `{topic}`{place}"),
                    reason: message.error_text(),
                    code,
                }
            }
        }
    }

    /// What the log holds of a partition, where the brokers say so soon.
    fn range(&self, partition: Partition) -> Option<(Offset, Offset)> {
        let marks = [Mark::LogStart, Mark::HighWatermark];
        let found = list_offsets(&self.client, &self.topic, &[partition], marks, RANGE_PATIENCE);
        found.ok()?.first().map(|[log_start, end]| (*log_start, *end))
    }

    fn list(
        &self,
        partitions: impl Iterator<Item = (Partition, Option<Offset>)>,
    ) -> Result<TopicPartitionList> {
        let mut list = TopicPartitionList::new();
        for (partition, offset) in partitions {
            let mut element = list.add_partition(&self.topic, raw_partition(partition));
            if let Some(offset) = offset {
                element.set_offset(RawOffset::Offset(raw_offset(offset))).map_err(|error| {
                    Error::client(format!("topic `{}` partition {partition}", self.topic), &error)
                })?;
            }
        }
        Ok(list)
    }

    fn checked(&self, what: &str, code: sys::rd_kafka_resp_err_t) -> Result<()> {
        match RDKafkaErrorCode::from(code) {
            RDKafkaErrorCode::NoError => Ok(()),
            code => Err(Error::code(format!("{what} topic `{}`", self.topic), code)),
        }
    }

    fn finish(&self, what: &str, error: *mut sys::rd_kafka_error_t) -> Result<()> {
        let Some(error) = NonNull::new(error) else {
            return Ok(());
        };
        // SAFETY: the error is ours: read, then destroyed once.
        let (code, reason) = unsafe {
            let code = RDKafkaErrorCode::from(sys::rd_kafka_error_code(error.as_ptr()));
            let reason = text(sys::rd_kafka_error_string(error.as_ptr()));
            sys::rd_kafka_error_destroy(error.as_ptr());
            (code, reason)
        };
        Err(Error::Client { what: format!("{what} topic `{}`", self.topic), reason, code })
    }
}

impl Drop for Consumer {
    fn drop(&mut self) {
        self.close();
        self.client.context().queue.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: ours, not used after this; the client is destroyed afterwards.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// Called inside a poll (or a close) of the thread that owns the consumer.
unsafe extern "C" fn on_rebalance(
    client: *mut sys::rd_kafka_t,
    code: sys::rd_kafka_resp_err_t,
    list: *mut sys::rd_kafka_topic_partition_list_t,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque pointer is the context of this client, which outlives it.
    let context = unsafe { &*opaque.cast::<ConsumerContext>() };
    if context.closing.load(Ordering::Acquire) {
        give_up_assignment(client);
        return;
    }
    // SAFETY: librdkafka passes a live list of `cnt` elements.
    let partitions = unsafe {
        let count = usize::try_from((*list).cnt).unwrap_or(0);
        let elements = if count == 0 { &[] } else { std::slice::from_raw_parts((*list).elems, count) };
        elements.iter().filter_map(|element| u32::try_from(element.partition).ok().map(Partition)).collect()
    };
    let rebalance = match RDKafkaErrorCode::from(code) {
        RDKafkaErrorCode::AssignPartitions => Rebalance::Assign(partitions),
        // SAFETY: the client is live.
        _ => Rebalance::Revoke { partitions, lost: unsafe { sys::rd_kafka_assignment_lost(client) } != 0 },
    };
    context.rebalances.lock().unwrap_or_else(PoisonError::into_inner).push_back(rebalance);
    let queue = context.queue.load(Ordering::Acquire);
    if !queue.is_null() {
        // SAFETY: the queue is live as long as it is named in the context.
        unsafe { sys::rd_kafka_queue_yield(queue) }
    }
}

/// Answers any rebalance of a client that closes.
fn give_up_assignment(client: *mut sys::rd_kafka_t) {
    // SAFETY: the client is live. A client that terminates treats this as "unassign all", whatever its protocol.
    let code = unsafe { sys::rd_kafka_assign(client, ptr::null()) };
    if RDKafkaErrorCode::from(code) != RDKafkaErrorCode::NoError {
        tracing::debug!(?code, "unassign while closing");
    }
}

unsafe extern "C" fn on_log(
    client: *const sys::rd_kafka_t,
    level: c_int,
    facility: *const c_char,
    message: *const c_char,
) {
    let level = match level {
        ..=3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        7.. => RDKafkaLogLevel::Debug,
    };
    // SAFETY: the opaque pointer of a live client is its context; librdkafka passes live strings.
    unsafe {
        let context = sys::rd_kafka_opaque(client).cast::<ConsumerContext>().cast_const();
        let (facility, message) = (text(facility), text(message));
        if let Some(context) = context.as_ref() {
            context.complaint.hear_log(&facility, &message);
        }
        trace_log(level, &facility, &message);
    }
}

unsafe extern "C" fn on_error(
    _: *mut sys::rd_kafka_t,
    code: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: the opaque pointer is the context of this client; the reason is a live string.
    let (context, reason) = unsafe { (&*opaque.cast::<ConsumerContext>(), text(reason)) };
    let all_down = code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN as c_int;
    let code = if all_down { RDKafkaErrorCode::AllBrokersDown } else { RDKafkaErrorCode::Fail };
    let error = KafkaError::Global(code);
    context.complaint.hear_error(&error, &reason);
    trace_error(&error, &reason);
}

/// A C string as text.
///
/// # Safety
///
/// `string` is null or points to a string that ends with 0 and is not changed meanwhile.
unsafe fn text(string: *const c_char) -> String {
    if string.is_null() {
        return String::new();
    }
    // SAFETY: by this function's contract.
    unsafe { CStr::from_ptr(string) }.to_string_lossy().into_owned()
}
