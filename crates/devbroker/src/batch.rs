//! One record batch (format v2) as the bytes it came in, read and changed only in its 61-byte header.
//!
//! ```text
//! 0 base offset · 8 length · 12 leader epoch · 16 magic · 17 crc ─┬─ 21 attributes · 23 last offset delta
//!                                                (crc covers 21..)│  27 base time · 35 max time · 43 producer id
//!                                                                 └─ 51 producer epoch · 53 sequence · 57 count · 61 records
//! ```
//!
//! Base offset and leader epoch lie outside the checksum, so that giving a batch its place in the log
//! costs twelve bytes. Only `LogAppendTime` touches what the checksum covers.

use std::cmp::Ordering;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use kafka_protocol::ResponseError;
use kafka_protocol::records::{Record, RecordBatchDecoder};

const LENGTH_END: usize = 12;
const CRC_START: usize = 17;
const CRC_END: usize = 21;
const ATTRIBUTES: usize = 21;
const MAX_TIMESTAMP: usize = 35;
const HEADER: usize = 61;

const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;

/// The leader epoch of every partition: this broker never loses leadership.
pub(crate) const LEADER_EPOCH: i32 = 0;

/// Who wrote a batch, when the producer is idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
}

/// What the log needs to know of a batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Header {
    pub(crate) attributes: i16,
    pub(crate) max_timestamp: i64,
    pub(crate) stamp: Option<Stamp>,
    /// Number of offsets that the batch takes, at least 1.
    pub(crate) count: i32,
}

impl Header {
    pub(crate) fn transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }
}

/// A batch on its way into the log.
#[derive(Debug)]
pub(crate) struct Batch {
    pub(crate) header: Header,
    bytes: BytesMut,
}

impl Batch {
    /// Reads and checks the one batch of a produce request.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, ResponseError> {
        let header = parse_header(bytes).ok_or(ResponseError::CorruptMessage)??;
        Ok(Self { header, bytes: BytesMut::from(bytes) })
    }

    /// Size on the wire and in memory.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Makes every record of the batch carry `now_ms` as its log append time.
    pub(crate) fn set_append_time(&mut self, now_ms: i64) {
        self.header.max_timestamp = now_ms;
        self.header.attributes |= LOG_APPEND_TIME;
        put(&mut self.bytes, ATTRIBUTES, &self.header.attributes.to_be_bytes());
        put(&mut self.bytes, MAX_TIMESTAMP, &now_ms.to_be_bytes());
        seal(&mut self.bytes);
    }

    /// Gives the batch its place in the log.
    pub(crate) fn place(mut self, base_offset: i64) -> Bytes {
        put(&mut self.bytes, 0, &base_offset.to_be_bytes());
        put(&mut self.bytes, LENGTH_END, &LEADER_EPOCH.to_be_bytes());
        self.bytes.freeze()
    }

    /// Decodes the records: off the hot path, for what cannot be told from the header.
    pub(crate) fn records(&self) -> Result<Vec<Record>, ResponseError> {
        records(self.bytes.clone().freeze()).ok_or(ResponseError::CorruptMessage)
    }
}

/// The records of a stored batch; `None` if they cannot be decoded.
pub(crate) fn records(mut bytes: Bytes) -> Option<Vec<Record>> {
    match RecordBatchDecoder::decode(&mut bytes) {
        Ok(set) => Some(set.records),
        Err(error) => {
            tracing::debug!(%error, "cannot decode a record batch");
            None
        }
    }
}

/// The control batch that ends a transaction in one partition; it takes one offset.
pub(crate) fn marker(base_offset: i64, producer_id: i64, epoch: i16, commit: bool, now_ms: i64) -> Bytes {
    let mut bytes = BytesMut::with_capacity(HEADER + 17);
    bytes.put_i64(base_offset);
    bytes.put_i32(66); // all after this field: 49 bytes of header, 17 of the record
    bytes.put_i32(LEADER_EPOCH);
    bytes.put_i8(2);
    bytes.put_u32(0);
    bytes.put_i16(TRANSACTIONAL | CONTROL);
    bytes.put_i32(0);
    bytes.put_i64(now_ms);
    bytes.put_i64(now_ms);
    bytes.put_i64(producer_id);
    bytes.put_i16(epoch);
    bytes.put_i32(-1);
    bytes.put_i32(1);
    // One record: varints are zigzag, so length 16 is 32, key length 4 is 8, value length 6 is 12.
    bytes.put_slice(&[32, 0, 0, 0, 8]);
    bytes.put_i16(0);
    bytes.put_i16(i16::from(commit));
    bytes.put_u8(12);
    bytes.put_i16(0);
    bytes.put_i32(0);
    bytes.put_u8(0);
    seal(&mut bytes);
    bytes.freeze()
}

/// `None` if the bytes end too early.
fn parse_header(bytes: &[u8]) -> Option<Result<Header, ResponseError>> {
    let mut rest = bytes;
    rest.try_get_i64().ok()?;
    let length = rest.try_get_i32().ok()?;
    match usize::try_from(length).ok()?.cmp(&rest.len()) {
        Ordering::Greater => return None,
        Ordering::Equal => {}
        // Since produce v3 a partition's records are exactly one batch.
        Ordering::Less => return Some(Err(ResponseError::InvalidRecord)),
    }
    rest.try_get_i32().ok()?;
    if rest.try_get_i8().ok()? != 2 {
        return Some(Err(ResponseError::UnsupportedForMessageFormat));
    }
    let crc = rest.try_get_u32().ok()?;
    if crc32c::crc32c(rest) != crc {
        return Some(Err(ResponseError::CorruptMessage));
    }
    let attributes = rest.try_get_i16().ok()?;
    let last_offset_delta = rest.try_get_i32().ok()?;
    rest.try_get_i64().ok()?;
    let max_timestamp = rest.try_get_i64().ok()?;
    let producer_id = rest.try_get_i64().ok()?;
    let epoch = rest.try_get_i16().ok()?;
    let sequence = rest.try_get_i32().ok()?;
    let count = rest.try_get_i32().ok()?;
    if count < 1 || last_offset_delta != count - 1 || attributes & CONTROL != 0 {
        return Some(Err(ResponseError::InvalidRecord));
    }
    let stamp = (producer_id >= 0).then_some(Stamp { producer_id, epoch, sequence });
    if stamp.is_none() && attributes & TRANSACTIONAL != 0 {
        return Some(Err(ResponseError::InvalidRecord));
    }
    Some(Ok(Header { attributes, max_timestamp, stamp, count }))
}

fn seal(bytes: &mut BytesMut) {
    let crc = bytes.get(CRC_END..).map_or(0, crc32c::crc32c);
    put(bytes, CRC_START, &crc.to_be_bytes());
}

/// Overwrites bytes that a parsed header is known to have.
fn put(bytes: &mut BytesMut, at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use kafka_protocol::records::{Compression, RecordBatchEncoder, RecordEncodeOptions, TimestampType};

    /// A batch as a producer would send it, one record per timestamp.
    pub(crate) fn encoded(timestamps: &[i64], stamp: Option<Stamp>, transactional: bool) -> Bytes {
        let stamp = stamp.unwrap_or(Stamp {
            producer_id: -1,
            epoch: -1,
            sequence: 0, // the encoder would split a batch whose sequence stands still
        });
        let records: Vec<Record> = timestamps
            .iter()
            .zip(0i32..)
            .map(|(&timestamp, index)| Record {
                transactional,
                control: false,
                delete_horizon: false,
                partition_leader_epoch: -1,
                producer_id: stamp.producer_id,
                producer_epoch: stamp.epoch,
                timestamp_type: TimestampType::Creation,
                offset: i64::from(index),
                sequence: stamp.sequence + index,
                timestamp,
                key: Some(Bytes::from_static(b"key")),
                value: Some(Bytes::from_static(b"value")),
                headers: Default::default(),
            })
            .collect();
        let mut bytes = BytesMut::new();
        let options = RecordEncodeOptions { version: 2, compression: Compression::None };
        RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
        bytes.freeze()
    }

    #[test]
    fn the_header_is_read_and_the_place_is_written_under_an_unchanged_checksum() {
        let stamp = Stamp { producer_id: 7, epoch: 3, sequence: 40 };
        let batch = Batch::parse(&encoded(&[100, 300, 200], Some(stamp), true)).unwrap();
        assert_eq!(batch.header.stamp, Some(stamp));
        assert_eq!(batch.header.count, 3);
        assert_eq!(batch.header.max_timestamp, 300);
        assert!(batch.header.transactional());

        let placed = batch.place(1000);
        assert!(Batch::parse(&placed).is_ok());
        let offsets: Vec<i64> = records(placed).unwrap().iter().map(|record| record.offset).collect();
        assert_eq!(offsets, [1000, 1001, 1002]);
    }

    #[test]
    fn append_time_reaches_every_record_and_the_checksum_follows() {
        let mut batch = Batch::parse(&encoded(&[1, 2], None, false)).unwrap();
        batch.set_append_time(5000);
        let bytes = batch.place(0);
        let again = Batch::parse(&bytes).unwrap();
        assert_eq!(again.header.max_timestamp, 5000);
        assert_ne!(again.header.attributes & LOG_APPEND_TIME, 0);
    }

    #[test]
    fn damage_is_refused() {
        let good = encoded(&[1], None, false);
        let mut damaged = BytesMut::from(&good[..]);
        damaged[HEADER] ^= 1;
        assert_eq!(Batch::parse(&damaged).unwrap_err(), ResponseError::CorruptMessage);
        assert_eq!(Batch::parse(&good[..20]).unwrap_err(), ResponseError::CorruptMessage);
        let twice = [&good[..], &good[..]].concat();
        assert_eq!(Batch::parse(&twice).unwrap_err(), ResponseError::InvalidRecord);
        assert_eq!(Batch::parse(&[]).unwrap_err(), ResponseError::CorruptMessage);
    }

    #[test]
    fn a_marker_decodes_as_one_control_record() {
        for (commit, kind) in [(false, 0), (true, 1)] {
            let decoded = records(marker(12, 7, 3, commit, 99)).unwrap();
            assert_eq!(decoded.len(), 1);
            let record = &decoded[0];
            assert!(record.control && record.transactional);
            assert_eq!((record.offset, record.producer_id, record.producer_epoch), (12, 7, 3));
            assert_eq!(record.key.as_deref(), Some(&[0, 0, 0, kind][..]));
        }
    }
}
