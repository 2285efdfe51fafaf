//! Records without headers, produced to topics that are known by their handles.
//!
//! rdkafka's `BaseProducer::send` looks the topic up by its name for each record, under the client's lock. librdkafka's
//! `rd_kafka_produce_batch` would take one lock for many, but gives all of them the time of the call as their timestamp.

use std::ffi::CString;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka::error::RDKafkaErrorCode as Code;
use rdkafka_sys as sys;
use rdkafka_sys::rd_kafka_vtype_t as Tag;
use tidegate_core::time::Partition;

use crate::client::raw_partition;

/// The topics that a producer has written to. Must be dropped before the client.
#[derive(Default)]
pub(crate) struct Topics(Vec<(Arc<str>, NonNull<sys::rd_kafka_topic_t>)>);

// SAFETY: librdkafka's handles may be used from any thread.
unsafe impl Send for Topics {}
// SAFETY: as above.
unsafe impl Sync for Topics {}

/// A record to be produced.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Plain<'a> {
    pub(crate) partition: Partition,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    /// Milliseconds; 0 for the time of the call.
    pub(crate) timestamp: i64,
    /// What its delivery report brings back.
    pub(crate) number: usize,
}

impl Topics {
    /// Queues a copy of the record for `topic`.
    ///
    /// # Errors
    ///
    /// librdkafka's code where it refuses the record, or where its queue is full.
    pub(crate) fn produce<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        topic: &Arc<str>,
        record: Plain<'_>,
    ) -> Result<(), Code> {
        let topic = self.handle(client, topic)?;
        let bytes =
            |bytes: Option<&[u8]>| bytes.map_or((ptr::null(), 0), |bytes| (bytes.as_ptr(), bytes.len()));
        let ((key, key_length), (value, value_length)) = (bytes(record.key), bytes(record.value));
        // SAFETY: client and topic are live, and each tag is followed by what librdkafka reads for it; key and value are copied
        // before the call returns.
        let code = unsafe {
            sys::rd_kafka_producev(
                client.native_ptr(),
                Tag::RD_KAFKA_VTYPE_RKT,
                topic.as_ptr(),
                Tag::RD_KAFKA_VTYPE_PARTITION,
                raw_partition(record.partition),
                Tag::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                Tag::RD_KAFKA_VTYPE_VALUE,
                value,
                value_length,
                Tag::RD_KAFKA_VTYPE_KEY,
                key,
                key_length,
                Tag::RD_KAFKA_VTYPE_OPAQUE,
                ptr::without_provenance_mut::<std::ffi::c_void>(record.number),
                Tag::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp,
                Tag::RD_KAFKA_VTYPE_END,
            )
        };
        match Code::from(code) {
            Code::NoError => Ok(()),
            code => Err(code),
        }
    }

    fn handle<C: ClientContext>(
        &mut self,
        client: &Client<C>,
        name: &Arc<str>,
    ) -> Result<NonNull<sys::rd_kafka_topic_t>, Code> {
        let is_it = |known: &Arc<str>| Arc::ptr_eq(known, name) || known == name;
        if let Some((_, handle)) = self.0.iter().find(|(known, _)| is_it(known)) {
            return Ok(*handle);
        }
        let text = CString::new(name.as_bytes()).map_err(|_| Code::InvalidTopic)?;
        // SAFETY: client and name are live; the name is copied; without a configuration the client's default one is used. The
        // error is this thread's, of the call before.
        let (handle, error) = unsafe {
            let handle = sys::rd_kafka_topic_new(client.native_ptr(), text.as_ptr(), ptr::null_mut());
            (NonNull::new(handle), sys::rd_kafka_last_error())
        };
        let handle = handle.ok_or_else(|| Code::from(error))?;
        self.0.push((Arc::clone(name), handle));
        Ok(handle)
    }
}

impl Drop for Topics {
    fn drop(&mut self) {
        for (_, handle) in self.0.drain(..) {
            // SAFETY: ours, not used after this.
            unsafe { sys::rd_kafka_topic_destroy(handle.as_ptr()) }
        }
    }
}
