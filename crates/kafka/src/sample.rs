//! Part of a topic into a callback, on the calling thread, without a group: nothing on the cluster tells of it.

use std::time::Duration;

use tidegate_core::time::{EventTime, Offset};

use crate::config::KafkaConfig;
use crate::error::{Error, Result};
use crate::native::batch::Record;
use crate::scan::{Scan, Step, Stretch};
use crate::topic::PartitionEnds;

/// Which records of a topic.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// So many offsets at the end of the topic, as evenly from its partitions as they have them.
    Newest(u64),
    /// From the first record on whose timestamp is this or later.
    Since(EventTime),
    /// All.
    Everything,
}

/// A part of a topic that is about to be read: up to the last stable offsets of the moment it was opened.
pub struct Sample {
    scan: Scan,
    stretches: Vec<Stretch>,
    ends: Vec<PartitionEnds>,
}

impl Sample {
    /// Finds the offsets.
    ///
    /// # Errors
    /// When the broker does not answer, or the topic does not exist.
    pub fn open(config: &KafkaConfig, topic: &str, extent: Extent) -> Result<Self> {
        let scan = Scan::open(config, topic)?;
        let partitions = scan.partitions()?;
        let ends = scan.ends(&partitions)?;
        let starts: Vec<Offset> = match extent {
            Extent::Everything => ends.iter().map(|ends| ends.log_start).collect(),
            Extent::Newest(count) => newest(&ends, count),
            Extent::Since(time) => {
                let found = scan.since(&partitions, time)?;
                ends.iter().zip(found).map(|(ends, found)| found.max(ends.log_start)).collect()
            }
        };
        let stretches = ends.iter().zip(starts).map(|(ends, start)| Stretch {
            partition: ends.partition,
            start: start.min(ends.last_stable),
            end: Some(ends.last_stable),
        });
        Ok(Self { stretches: stretches.collect(), scan, ends })
    }

    /// Where each partition begins and ends.
    #[must_use]
    pub fn ends(&self) -> &[PartitionEnds] {
        &self.ends
    }

    /// How many offsets are read: as many records, or fewer.
    #[must_use]
    pub fn offsets(&self) -> u64 {
        self.stretches.iter().map(span).sum()
    }

    /// Reads them. Records of a partition come in order, those of different partitions as they arrive.
    ///
    /// # Errors
    /// When nothing arrives for `patience`; what `on_record` returns.
    pub fn read<E: From<Error>>(
        &self,
        patience: Duration,
        mut on_record: impl FnMut(Record<'_>) -> Result<(), E>,
    ) -> Result<(), E> {
        let on_record = |record: Record<'_>| on_record(record).map(|()| Step::Continue);
        self.scan.read(&self.stretches, patience, on_record, || Ok(Step::Continue))
    }
}

/// Whether the records of a topic can be read, by trying; none of them is looked at. Blocks.
///
/// # Errors
///
/// What the brokers answer where they refuse; when they do not answer for `patience`.
pub fn readable(config: &KafkaConfig, topic: &str, patience: Duration) -> Result<()> {
    Scan::open(config, topic)?.try_read(patience)
}

fn span(stretch: &Stretch) -> u64 {
    stretch.end.map_or(0, |end| end.0.saturating_sub(stretch.start.0))
}

/// What short partitions do not have comes from the others.
fn newest(ends: &[PartitionEnds], count: u64) -> Vec<Offset> {
    let held = |ends: &PartitionEnds| ends.last_stable.0.saturating_sub(ends.log_start.0);
    let mut by_size: Vec<_> = ends.iter().enumerate().map(|(index, ends)| (held(ends), index)).collect();
    by_size.sort_unstable();
    let mut starts: Vec<_> = ends.iter().map(|ends| ends.last_stable).collect();
    let (mut left, mut partitions) = (count, u64::try_from(ends.len()).unwrap_or(u64::MAX));
    for (held, index) in by_size {
        let share = held.min(left.div_ceil(partitions.max(1)));
        if let Some(start) = starts.get_mut(index) {
            *start = Offset(start.0.saturating_sub(share));
        }
        left = left.saturating_sub(share);
        partitions = partitions.saturating_sub(1);
    }
    starts
}

#[cfg(test)]
mod tests {
    use tidegate_core::time::Partition;

    use super::*;

    #[test]
    fn the_newest_are_taken_evenly_and_what_short_partitions_lack_from_the_others() {
        let ends: Vec<_> = [(0, 10), (5, 105), (0, 0), (0, 1000)]
            .into_iter()
            .enumerate()
            .map(|(partition, (log_start, end))| PartitionEnds {
                partition: Partition(u32::try_from(partition).unwrap()),
                log_start: Offset(log_start),
                last_stable: Offset(end),
                high_watermark: Offset(end),
            })
            .collect();
        let taken = |count| {
            let starts = newest(&ends, count);
            ends.iter().zip(starts).map(|(ends, start)| ends.last_stable.0 - start.0).collect::<Vec<_>>()
        };
        assert_eq!(taken(40), [10, 15, 0, 15]);
        assert_eq!(taken(410), [10, 100, 0, 300]);
        assert_eq!(taken(10_000), [10, 100, 0, 1000]);
        assert_eq!(taken(0), [0, 0, 0, 0]);
    }
}
