//! Waiting for a producer's events without spinning.
//!
//! rdkafka's `BaseProducer::poll` stays for as long as it was given, whatever comes, and spins through the last
//! millisecond: that cost 10 ms of CPU for each transaction. With a bell the thread sleeps until there is an event, and polls
//! without waiting.

use std::ffi::c_void;
use std::ptr::{self, NonNull};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientContext;
use rdkafka::client::Client;
use rdkafka_sys as sys;

#[derive(Debug, Default)]
struct Signal {
    rung: Mutex<bool>,
    changed: Condvar,
}

/// Rings when the main queue of a client gets something. Must be dropped before the client.
pub(crate) struct Bell {
    queue: NonNull<sys::rd_kafka_queue_t>,
    signal: Arc<Signal>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for Bell {}
// SAFETY: as above.
unsafe impl Sync for Bell {}

impl Bell {
    /// `None` if the client has no main queue, which librdkafka does not do.
    pub(crate) fn of<C: ClientContext>(client: &Client<C>) -> Option<Self> {
        let signal = Arc::<Signal>::default();
        // SAFETY: the client is live; the queue is ours; the signal lives until the callback is taken away in `drop`.
        let queue = unsafe {
            let queue = NonNull::new(sys::rd_kafka_queue_get_main(client.native_ptr()))?;
            sys::rd_kafka_queue_cb_event_enable(
                queue.as_ptr(),
                Some(ring),
                Arc::as_ptr(&signal).cast_mut().cast(),
            );
            queue
        };
        Some(Self { queue, signal })
    }

    /// Whether there is something to poll.
    pub(crate) fn is_pending(&self) -> bool {
        // SAFETY: the queue is live.
        unsafe { sys::rd_kafka_queue_length(self.queue.as_ptr()) > 0 }
    }

    /// Sleeps until something comes, or came since the last wait.
    pub(crate) fn wait(&self, patience: Duration) {
        let mut rung = self.signal.rung.lock().unwrap_or_else(PoisonError::into_inner);
        if !*rung {
            rung = self.signal.changed.wait_timeout(rung, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        *rung = false;
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        // SAFETY: the queue is live and ours. Taking the callback away and calling it exclude each other by the queue's lock.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue.as_ptr(), None, ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue.as_ptr());
        }
    }
}

/// Called under the queue's lock: must not call librdkafka.
unsafe extern "C" fn ring(_: *mut sys::rd_kafka_t, opaque: *mut c_void) {
    // SAFETY: the signal given with the callback, which outlives it.
    let signal = unsafe { &*opaque.cast::<Signal>() };
    *signal.rung.lock().unwrap_or_else(PoisonError::into_inner) = true;
    signal.changed.notify_all();
}
