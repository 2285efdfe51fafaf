//! The messages of one poll, owned: read in place, freed on drop, movable to another thread.
//!
//! Reading a record allocates nothing and copies nothing. Only `headers` makes librdkafka parse that record's headers.

use std::ffi::{CStr, c_char, c_void};
use std::fmt;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka_sys as sys;
use tidegate_core::record::{RecordView, Timestamp};
use tidegate_core::time::{EventTime, Offset, Partition};

use super::NativeConsumer;
use crate::budget::Permit;

/// About what librdkafka keeps for a message besides its bytes.
const MESSAGE_OVERHEAD: usize = 256;

/// A message (or an error in its place), destroyed on drop.
///
/// Must be dropped before the client it came from.
#[repr(transparent)]
pub(crate) struct RawMessage(NonNull<sys::rd_kafka_message_t>);

// SAFETY: a message is a heap object of its own; nothing about it belongs to the thread that polled it.
unsafe impl Send for RawMessage {}

impl RawMessage {
    fn get(&self) -> &sys::rd_kafka_message_t {
        // SAFETY: live until drop.
        unsafe { self.0.as_ref() }
    }

    /// What is wrong, where this stands for an error or an end of partition.
    pub(crate) fn error(&self) -> Option<RDKafkaErrorCode> {
        match self.get().err {
            sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR => None,
            code => Some(RDKafkaErrorCode::from(code)),
        }
    }

    /// The text that comes with an error.
    pub(crate) fn error_text(&self) -> String {
        // SAFETY: the message is live, and the text lives as long.
        unsafe { super::text(sys::rd_kafka_message_errstr(self.0.as_ptr())) }
    }

    /// `None` for an error that concerns no partition.
    pub(crate) fn partition(&self) -> Option<Partition> {
        u32::try_from(self.get().partition).ok().map(Partition)
    }

    /// The record's offset; for an end of partition the fetch position.
    pub(crate) fn offset(&self) -> Option<Offset> {
        u64::try_from(self.get().offset).ok().map(Offset)
    }

    /// The bytes it holds.
    pub(crate) fn weight(&self) -> usize {
        let message = self.get();
        message.len.saturating_add(message.key_len).saturating_add(MESSAGE_OVERHEAD)
    }

    /// The record in it.
    pub(crate) fn record(&self) -> Record<'_> {
        Record { message: self.0, batch: PhantomData }
    }
}

impl Drop for RawMessage {
    fn drop(&mut self) {
        // SAFETY: ours, destroyed once.
        unsafe { sys::rd_kafka_message_destroy(self.0.as_ptr()) }
    }
}

/// Records of one or more partitions, in each partition by rising offset. Frees them, and gives their bytes back to the
/// reader, when dropped.
pub struct RecordBatch {
    messages: Vec<RawMessage>,
    permit: Permit,
    /// Keeps the client alive while its messages are; after them in the order of dropping.
    _consumer: Arc<NativeConsumer>,
}

impl RecordBatch {
    pub(crate) fn new(messages: Vec<RawMessage>, permit: Permit, consumer: Arc<NativeConsumer>) -> Self {
        Self { messages, permit, _consumer: consumer }
    }

    /// How many records.
    #[must_use]
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether there are none; a reader sends no such batch.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// The bytes they take.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.permit.bytes()
    }

    /// All records.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = Record<'_>> {
        self.messages.iter().map(RawMessage::record)
    }

    /// The records, by stretches of one partition.
    pub fn runs(&self) -> impl Iterator<Item = Run<'_>> {
        self.messages
            .chunk_by(|left, right| left.get().partition == right.get().partition)
            .filter_map(|messages| Some(Run { partition: messages.first()?.partition()?, messages }))
    }

    /// Frees the records now and keeps the permit, for work that goes on with what was taken from them.
    #[must_use]
    pub fn into_permit(self) -> Permit {
        self.permit
    }
}

impl fmt::Debug for RecordBatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecordBatch")
            .field("len", &self.len())
            .field("bytes", &self.bytes())
            .finish_non_exhaustive()
    }
}

/// Consecutive records of one partition.
#[derive(Clone, Copy)]
pub struct Run<'a> {
    partition: Partition,
    messages: &'a [RawMessage],
}

impl<'a> Run<'a> {
    /// Their partition.
    #[must_use]
    pub const fn partition(&self) -> Partition {
        self.partition
    }

    /// How many; at least one.
    #[must_use]
    #[allow(clippy::len_without_is_empty, reason = "a run is never empty")]
    pub const fn len(&self) -> usize {
        self.messages.len()
    }

    /// The records, by rising offset.
    pub fn records(&self) -> impl ExactSizeIterator<Item = Record<'a>> + use<'a> {
        self.messages.iter().map(RawMessage::record)
    }
}

/// One record, borrowed from its batch.
#[derive(Clone, Copy)]
pub struct Record<'a> {
    message: NonNull<sys::rd_kafka_message_t>,
    batch: PhantomData<&'a RawMessage>,
}

impl<'a> Record<'a> {
    fn get(&self) -> &'a sys::rd_kafka_message_t {
        // SAFETY: the batch, borrowed for 'a, owns the message.
        unsafe { self.message.as_ref() }
    }

    /// Its partition.
    #[must_use]
    pub fn partition(&self) -> Partition {
        Partition(u32::try_from(self.get().partition).unwrap_or_default())
    }

    /// Its offset.
    #[must_use]
    pub fn offset(&self) -> Offset {
        Offset(u64::try_from(self.get().offset).unwrap_or_default())
    }

    /// Its timestamp and whose it is.
    #[must_use]
    pub fn timestamp(&self) -> Timestamp {
        use sys::rd_kafka_timestamp_type_t as Kind;
        let mut kind = Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE;
        // SAFETY: the message is live; `kind` is written before the call returns.
        let millis = unsafe { sys::rd_kafka_message_timestamp(self.message.as_ptr(), &raw mut kind) };
        match kind {
            Kind::RD_KAFKA_TIMESTAMP_CREATE_TIME => Timestamp::CreateTime(EventTime(millis)),
            Kind::RD_KAFKA_TIMESTAMP_LOG_APPEND_TIME => Timestamp::LogAppendTime(EventTime(millis)),
            Kind::RD_KAFKA_TIMESTAMP_NOT_AVAILABLE => Timestamp::NotAvailable,
        }
    }

    /// Its key; an empty key is not an absent one.
    #[must_use]
    pub fn key(&self) -> Option<&'a [u8]> {
        let message = self.get();
        // SAFETY: the message holds `key_len` bytes there.
        unsafe { bytes(message.key, message.key_len) }
    }

    /// Its value; `None` is a tombstone.
    #[must_use]
    pub fn value(&self) -> Option<&'a [u8]> {
        let message = self.get();
        // SAFETY: the message holds `len` bytes there.
        unsafe { bytes(message.payload, message.len) }
    }

    /// Its headers, in order.
    #[must_use]
    pub fn headers(&self) -> Headers<'a> {
        let mut headers = ptr::null_mut();
        // SAFETY: the message is live and owns the headers. They are parsed at the first call; no other thread can do so
        // at the same time, as neither batch nor record can be shared between threads.
        let code = unsafe { sys::rd_kafka_message_headers(self.message.as_ptr(), &raw mut headers) };
        let headers = if code == sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
            NonNull::new(headers)
        } else {
            None
        };
        Headers { headers, next: 0, batch: PhantomData }
    }

    /// The last header of that name.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<Option<&'a [u8]>> {
        let mut headers = self.headers();
        let named =
            std::iter::from_fn(|| headers.next_bytes()).filter(|(found, _)| *found == name.as_bytes());
        named.last().map(|(_, value)| value)
    }
}

impl RecordView for Record<'_> {
    fn key(&self) -> Option<&[u8]> {
        Record::key(self)
    }

    fn value(&self) -> Option<&[u8]> {
        Record::value(self)
    }

    fn timestamp(&self) -> Timestamp {
        Record::timestamp(self)
    }

    fn header(&self, name: &str) -> Option<&[u8]> {
        Record::header(self, name).flatten()
    }
}

impl fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Record")
            .field("partition", &self.partition())
            .field("offset", &self.offset())
            .finish_non_exhaustive()
    }
}

/// The headers of a record. A name that is not UTF-8 is cut off where it ceases to be.
pub struct Headers<'a> {
    headers: Option<NonNull<sys::rd_kafka_headers_t>>,
    next: usize,
    batch: PhantomData<&'a RawMessage>,
}

impl<'a> Headers<'a> {
    fn next_bytes(&mut self) -> Option<(&'a [u8], Option<&'a [u8]>)> {
        let headers = self.headers?;
        let (mut name, mut value, mut size): (*const c_char, *const c_void, usize) =
            (ptr::null(), ptr::null(), 0);
        // SAFETY: the message, borrowed for 'a, owns the headers; the call writes all three on success.
        let (name, value) = unsafe {
            let code = sys::rd_kafka_header_get_all(
                headers.as_ptr(),
                self.next,
                &raw mut name,
                &raw mut value,
                &raw mut size,
            );
            if code != sys::rd_kafka_resp_err_t::RD_KAFKA_RESP_ERR_NO_ERROR {
                return None;
            }
            (CStr::from_ptr(name).to_bytes(), bytes(value, size))
        };
        self.next += 1;
        Some((name, value))
    }
}

impl<'a> Iterator for Headers<'a> {
    type Item = (&'a str, Option<&'a [u8]>);

    fn next(&mut self) -> Option<Self::Item> {
        let (name, value) = self.next_bytes()?;
        Some((name.utf8_chunks().next().map_or("", |chunk| chunk.valid()), value))
    }
}

/// # Safety
///
/// `start` is null or points to `len` bytes that stay unchanged for `'a`.
unsafe fn bytes<'a>(start: *const c_void, len: usize) -> Option<&'a [u8]> {
    if start.is_null() {
        return None;
    }
    // SAFETY: by this function's contract.
    Some(unsafe { std::slice::from_raw_parts(start.cast(), len) })
}
