//! What is seen of a record of the source, wherever it comes from.

use crate::time::EventTime;

/// When a record was made, by whose clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// The producer's clock.
    CreateTime(EventTime),
    /// The broker's clock at arrival.
    LogAppendTime(EventTime),
    /// The record carries none.
    NotAvailable,
}

/// A record of the source.
pub trait RecordView {
    /// The record's key; `None` if null.
    fn key(&self) -> Option<&[u8]>;
    /// The record's value; `None` if null.
    fn value(&self) -> Option<&[u8]>;
    /// The record's timestamp.
    fn timestamp(&self) -> Timestamp;
    /// The value of the last header of that name; `None` if null or missing.
    fn header(&self, name: &str) -> Option<&[u8]>;
}
