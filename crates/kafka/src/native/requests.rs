//! Requests of librdkafka's admin interface that rdkafka does not bind: `ListOffsets` with an isolation level, topic ids.
//!
//! Each is a fresh round trip on the given client's own connections and blocks until it is answered.

use std::ffi::{CString, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::{ClientContext, Offset as RawOffset, TopicPartitionList};
use rdkafka_sys as sys;
use tidegate_core::time::{EventTime, Offset, Partition};

use crate::client::{Deadline, partition_count, raw_partition};
use crate::error::{Error, Result};

/// Which offset of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The first there is.
    LogStart,
    /// Behind the last record that `read_committed` readers may see.
    LastStable,
    /// Behind the last record.
    HighWatermark,
    /// The first record whose timestamp is this or later; behind all offsets where there is none.
    Since(EventTime),
}

impl Mark {
    const fn isolation(self) -> sys::rd_kafka_IsolationLevel_t {
        match self {
            Self::LastStable | Self::Since(_) => {
                sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_COMMITTED
            }
            Self::LogStart | Self::HighWatermark => {
                sys::rd_kafka_IsolationLevel_t::RD_KAFKA_ISOLATION_LEVEL_READ_UNCOMMITTED
            }
        }
    }

    fn spec(self) -> RawOffset {
        match self {
            Self::LogStart => RawOffset::Beginning,
            Self::LastStable | Self::HighWatermark => RawOffset::End,
            Self::Since(time) => RawOffset::Offset(time.millis().max(0)),
        }
    }
}

/// A thing of librdkafka that is ours to destroy.
struct Owned<T> {
    pointer: NonNull<T>,
    destroy: unsafe extern "C" fn(*mut T),
}

impl<T> Owned<T> {
    /// # Safety
    ///
    /// `pointer` is null or ours, and `destroy` is the function that frees it.
    unsafe fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T), what: &str) -> Result<Self> {
        match NonNull::new(pointer) {
            Some(pointer) => Ok(Self { pointer, destroy }),
            None => Err(Error::code(what, RDKafkaErrorCode::InvalidArgument)),
        }
    }

    fn as_ptr(&self) -> *mut T {
        self.pointer.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: by the contract of `new`; once.
        unsafe { (self.destroy)(self.as_ptr()) }
    }
}

/// The offsets at `marks` of each partition, in the order asked for. All marks are asked for at once.
pub(crate) fn list_offsets<C: ClientContext, const N: usize>(
    client: &Client<C>,
    topic: &str,
    partitions: &[Partition],
    marks: [Mark; N],
    timeout: Duration,
) -> Result<Vec<[Offset; N]>> {
    let deadline = Deadline::after(timeout);
    loop {
        if let Some(found) = ask_offsets(client, topic, partitions, marks, deadline.left())? {
            return Ok(found);
        }
        if deadline.has_passed() {
            let what = format!("read the offsets of topic `{topic}`");
            return Err(Error::code(what, RDKafkaErrorCode::BrokerTransportFailure));
        }
    }
}

/// One round of [`list_offsets`]; `None` where a broker's connection ended before it answered for its partitions: librdkafka gives
/// an answer without an error then, in which they have no offset (`rd_kafka_ListOffsets_response_merge`).
fn ask_offsets<C: ClientContext, const N: usize>(
    client: &Client<C>,
    topic: &str,
    partitions: &[Partition],
    marks: [Mark; N],
    timeout: Duration,
) -> Result<Option<Vec<[Offset; N]>>> {
    let what = format!("read the offsets of topic `{topic}`");
    let mut requests = Vec::with_capacity(N);
    for mark in marks {
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for partition in partitions {
            asked
                .add_partition_offset(topic, raw_partition(*partition), mark.spec())
                .map_err(|error| Error::client(what.clone(), &error))?;
        }
        let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTOFFSETS;
        // SAFETY: the client is live; options and list are copied by the call; the queue is ours.
        unsafe {
            let options = options(client, kind, timeout, &what)?;
            let queue =
                Owned::new(sys::rd_kafka_queue_new(client.native_ptr()), sys::rd_kafka_queue_destroy, &what)?;
            drop(IgnoredError(sys::rd_kafka_AdminOptions_set_isolation_level(
                options.as_ptr(),
                mark.isolation(),
            )));
            sys::rd_kafka_ListOffsets(client.native_ptr(), asked.ptr(), options.as_ptr(), queue.as_ptr());
            requests.push(queue);
        }
    }
    let mut found = vec![[Offset::default(); N]; partitions.len()];
    for (nth, (queue, mark)) in requests.iter().zip(marks).enumerate() {
        let event = match answer(queue, timeout, &what) {
            Err(Error::Client { code: RDKafkaErrorCode::NoEnt, .. }) => {
                return Err(without_leader(client, topic, partitions, timeout));
            }
            event => event?,
        };
        // SAFETY: the result and its elements belong to the event, which outlives their use.
        let infos = unsafe {
            let mut count = 0;
            let result = sys::rd_kafka_event_ListOffsets_result(event.as_ptr());
            slice(result, &mut count, |result, count| sys::rd_kafka_ListOffsets_result_infos(result, count))
        };
        for (partition, offsets) in partitions.iter().zip(&mut found) {
            let element = infos
                .iter()
                // SAFETY: as above.
                .map(|info| unsafe { &*sys::rd_kafka_ListOffsetsResultInfo_topic_partition(*info) })
                .find(|element| element.partition == raw_partition(*partition));
            let code = element.map_or(RDKafkaErrorCode::UnknownPartition, |element| element.err.into());
            if element.is_some_and(|element| is_unanswered(code, element.offset)) {
                return Ok(None);
            }
            let offset = match (code, element.map(|element| u64::try_from(element.offset))) {
                (RDKafkaErrorCode::NoError, Some(Ok(offset))) => Offset(offset),
                (RDKafkaErrorCode::UnknownTopicOrPartition | RDKafkaErrorCode::UnknownPartition, _) => {
                    return Err(Error::UnknownPartition { topic: topic.to_owned(), partition: *partition });
                }
                (RDKafkaErrorCode::NoError, _) if matches!(mark, Mark::Since(_)) => Offset(u64::MAX),
                (RDKafkaErrorCode::NoError, _) => return Err(Error::code(what, RDKafkaErrorCode::NoOffset)),
                (code, _) => return Err(Error::code(format!("{what} partition {partition}"), code)),
            };
            if let Some(place) = offsets.get_mut(nth) {
                *place = offset;
            }
        }
    }
    Ok(Some(found))
}

/// Whether a partition's result is what librdkafka began with. An answered one may have no offset either: -1, of no record so late.
fn is_unanswered(code: RDKafkaErrorCode, offset: i64) -> bool {
    code == RDKafkaErrorCode::NoError && offset == i64::from(sys::RD_KAFKA_OFFSET_INVALID)
}

/// What it means that some of the partitions have no leader: one is not there, or the cluster is electing.
fn without_leader<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    partitions: &[Partition],
    timeout: Duration,
) -> Error {
    match partition_count(client, topic, timeout) {
        Ok(count) => match partitions.iter().find(|partition| partition.0 >= count) {
            Some(partition) => Error::UnknownPartition { topic: topic.to_owned(), partition: *partition },
            None => Error::code(
                format!("read the offsets of topic `{topic}`"),
                RDKafkaErrorCode::LeaderNotAvailable,
            ),
        },
        Err(error) => error,
    }
}

/// The id the cluster gave to a topic when it was created; `None` where the brokers know no ids.
pub(crate) fn topic_id<C: ClientContext>(
    client: &Client<C>,
    topic: &str,
    timeout: Duration,
) -> Result<Option<u128>> {
    let what = format!("describe topic `{topic}`");
    let name = CString::new(topic).map_err(|_| Error::UnknownTopic { topic: topic.to_owned() })?;
    let kind = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS;
    // SAFETY: the client is live; options and names are copied by the call; the queue is ours.
    let event = unsafe {
        let options = options(client, kind, timeout, &what)?;
        let names = sys::rd_kafka_TopicCollection_of_topic_names([name.as_ptr()].as_mut_ptr(), 1);
        let names = Owned::new(names, sys::rd_kafka_TopicCollection_destroy, &what)?;
        let queue =
            Owned::new(sys::rd_kafka_queue_new(client.native_ptr()), sys::rd_kafka_queue_destroy, &what)?;
        sys::rd_kafka_DescribeTopics(client.native_ptr(), names.as_ptr(), options.as_ptr(), queue.as_ptr());
        answer(&queue, timeout, &what)?
    };
    // SAFETY: the description belongs to the event, which outlives its use.
    unsafe {
        let mut count = 0;
        let result = sys::rd_kafka_event_DescribeTopics_result(event.as_ptr());
        let topics = slice(result, &mut count, |result, count| {
            sys::rd_kafka_DescribeTopics_result_topics(result, count)
        });
        let Some(description) = topics.first().copied() else {
            return Err(Error::UnknownTopic { topic: topic.to_owned() });
        };
        match RDKafkaErrorCode::from(sys::rd_kafka_error_code(sys::rd_kafka_TopicDescription_error(
            description,
        ))) {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::UnknownTopicOrPartition => {
                return Err(Error::UnknownTopic { topic: topic.to_owned() });
            }
            code => return Err(Error::code(what, code)),
        }
        let id = sys::rd_kafka_TopicDescription_topic_id(description);
        if id.is_null() {
            return Ok(None);
        }
        let high = sys::rd_kafka_Uuid_most_significant_bits(id).cast_unsigned();
        let low = sys::rd_kafka_Uuid_least_significant_bits(id).cast_unsigned();
        Ok(Some((u128::from(high) << 64) | u128::from(low)).filter(|id| *id != 0))
    }
}

/// The elements of a result.
///
/// # Safety
///
/// `result` is null or live for `'a`, and `get` returns its elements and how many they are.
unsafe fn slice<'a, R, T>(
    result: *const R,
    count: &mut usize,
    get: impl FnOnce(*const R, *mut usize) -> *mut *const T,
) -> &'a [*const T] {
    let elements = if result.is_null() { ptr::null_mut() } else { get(result, count) };
    // SAFETY: by this function's contract.
    if elements.is_null() || *count == 0 {
        &[]
    } else {
        unsafe { std::slice::from_raw_parts(elements, *count) }
    }
}

/// An error to be freed and ignored.
struct IgnoredError(*mut sys::rd_kafka_error_t);

impl Drop for IgnoredError {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: ours, once.
            unsafe { sys::rd_kafka_error_destroy(self.0) }
        }
    }
}

/// # Safety
///
/// None beyond a live client; `unsafe` because of what it calls.
unsafe fn options<C: ClientContext>(
    client: &Client<C>,
    kind: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    what: &str,
) -> Result<Owned<sys::rd_kafka_AdminOptions_t>> {
    // SAFETY: the client is live and the options are ours.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client.native_ptr(), kind);
        let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy, what)?;
        sys::rd_kafka_AdminOptions_set_request_timeout(options.as_ptr(), millis(timeout), ptr::null_mut(), 0);
        Ok(options)
    }
}

/// Waits for the event of the one request whose answer goes to `queue`.
fn answer(
    queue: &Owned<sys::rd_kafka_queue_t>,
    timeout: Duration,
    what: &str,
) -> Result<Owned<sys::rd_kafka_event_t>> {
    // The request times out by itself, with an event; the margin is for that event.
    let margin = timeout.saturating_add(Duration::from_secs(1));
    // SAFETY: the queue is live; the event is ours.
    unsafe {
        let event = sys::rd_kafka_queue_poll(queue.as_ptr(), millis(margin));
        let Ok(event) = Owned::new(event, sys::rd_kafka_event_destroy, what) else {
            return Err(Error::TimedOut { what: what.to_owned(), waited: timeout });
        };
        match RDKafkaErrorCode::from(sys::rd_kafka_event_error(event.as_ptr())) {
            RDKafkaErrorCode::NoError => Ok(event),
            RDKafkaErrorCode::OperationTimedOut => {
                Err(Error::TimedOut { what: what.to_owned(), waited: timeout })
            }
            code => {
                let reason = super::text(sys::rd_kafka_event_error_string(event.as_ptr()));
                Err(Error::Client { what: what.to_owned(), reason, code })
            }
        }
    }
}

fn millis(duration: Duration) -> c_int {
    c_int::try_from(duration.as_millis()).unwrap_or(c_int::MAX).max(1)
}
