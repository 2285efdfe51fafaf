//! The changelog of a shard, read back when the shard is taken over.
//!
//! The caller has fenced all earlier writers (`init_transactions`), so the high watermark taken at the start is final but
//! for markers: once the fetch position has passed it, everything that was ever committed has been seen. A transaction left
//! open by another producer holds the last stable offset below it; that ends as an error which names the place.

use std::time::Duration;

use tidegate_core::time::{Offset, Partition};

use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::batch::Record;
use crate::scan::{Scan, Step, Stretch};
use crate::topic::PartitionEnds;

/// A record of the changelog.
#[derive(Clone, Copy, Debug)]
pub struct Entry<'a> {
    /// Its offset.
    pub offset: Offset,
    /// Its key.
    pub key: Option<&'a [u8]>,
    /// Its value.
    pub value: Option<&'a [u8]>,
}

/// What a changelog partition held when it was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChangelogEnd {
    /// The first offset there was.
    pub log_start: Offset,
    /// The high watermark up to which was read: where the next commit goes, or above.
    pub end: Offset,
}

/// Reads partitions of one changelog topic, one after the other, on the calling thread.
pub struct ChangelogReader(Scan);

impl ChangelogReader {
    /// Opens a reader of `topic`.
    ///
    /// # Errors
    ///
    /// When the client refuses its configuration.
    pub fn open(config: &KafkaConfig, topic: &str) -> Result<Self> {
        Ok(Self(Scan::open(config, topic)?))
    }

    /// Where a partition begins and ends now.
    ///
    /// # Errors
    ///
    /// When the broker does not answer or knows no such partition.
    pub fn ends(&self, partition: Partition) -> Result<PartitionEnds> {
        self.0.ends(&[partition])?.first().copied().ok_or_else(|| self.unknown(partition))
    }

    /// Reads from `from` (without it: from the log start) to the high watermark of this moment.
    ///
    /// # Errors
    ///
    /// [`Error::OffsetOutOfRange`] when `from` is not in the log: below its start, or above its end, which means that
    /// committed data was lost. [`Error::OpenTransaction`] when an open transaction keeps readers below the high watermark
    /// for `patience`. What `on_entry` returns.
    pub fn read<E: From<Error>>(
        &self,
        partition: Partition,
        from: Option<Offset>,
        patience: Duration,
        mut on_entry: impl FnMut(Entry<'_>) -> Result<(), E>,
    ) -> Result<ChangelogEnd, E> {
        let ends = self.ends(partition)?;
        let start = from.unwrap_or(ends.log_start);
        if start < ends.log_start || start > ends.high_watermark {
            return Err(E::from(Error::OffsetOutOfRange {
                topic: self.0.topic().to_owned(),
                partition,
                offset: start,
                log_start: Some(ends.log_start),
                end: Some(ends.high_watermark),
            }));
        }
        let stretch = Stretch { partition, start, end: Some(ends.high_watermark) };
        let on_record = |record: Record<'_>| {
            on_entry(Entry { offset: record.offset(), key: record.key(), value: record.value() })?;
            Ok(Step::Continue)
        };
        self.0.read::<E>(&[stretch], patience, on_record, || Ok(Step::Continue))?;
        Ok(ChangelogEnd { log_start: ends.log_start, end: ends.high_watermark })
    }

    fn unknown(&self, partition: Partition) -> Error {
        Error::UnknownPartition { topic: self.0.topic().to_owned(), partition }
    }
}
