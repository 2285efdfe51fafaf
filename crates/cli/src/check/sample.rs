//! The last records of each partition of the source, as the job would take them.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use tidegate_core::record::Timestamp;
use tidegate_core::time::{Offset, Partition};
use tidegate_job::Job;
use tidegate_kafka::{Between, KafkaConfig, PartitionEnds, Record, Step, between};

use crate::inputs::Inputs;

/// How long a read may wait for the next record.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the last records of a partition are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PartitionSample {
    pub(crate) partition: u32,
    /// Offsets that were looked at.
    pub(crate) offsets: u64,
    /// Records among them; fewer where markers, aborted or compacted records leave gaps.
    pub(crate) records: u64,
    /// Records with a `LogAppendTime` timestamp.
    pub(crate) append_times: u64,
    /// Records that are no input, by reason: how many, and the first: offset and detail.
    pub(crate) rejects: BTreeMap<&'static str, (u64, u64, String)>,
    /// Records further ahead of the clock than the job allows, or than a minute where it does not say.
    pub(crate) future: u64,
    /// How far the one furthest ahead is.
    pub(crate) most_ahead_ms: i64,
    /// Records further behind the largest event time before them than the watermark's delay.
    pub(crate) late: u64,
    /// How far the one furthest behind is.
    pub(crate) most_behind_ms: i64,
    /// The least and the largest event time.
    pub(crate) oldest_ms: Option<i64>,
    pub(crate) newest_ms: Option<i64>,
}

/// A clock that is this far ahead is wrong, where the job does not say, in ms.
const FUTURE: i64 = 60_000;

/// Takes records of a partition in their order.
struct Sampler {
    inputs: Inputs,
    delay: i64,
    future: i64,
    now_ms: i64,
    partitions: BTreeMap<u32, PartitionSample>,
}

impl Sampler {
    fn take(&mut self, record: &Record<'_>) -> Result<()> {
        let Some(sample) = self.partitions.get_mut(&record.partition().0) else { return Ok(()) };
        sample.records += 1;
        sample.append_times += u64::from(matches!(record.timestamp(), Timestamp::LogAppendTime(_)));
        match self.inputs.extract(record)? {
            Ok(taken) => sample.time(taken.time.millis(), self.now_ms, self.delay, self.future),
            Err(reject) => {
                let first = (0, record.offset().0, reject.detail);
                sample.rejects.entry(reject.reason.as_str()).or_insert(first).0 += 1;
            }
        }
        Ok(())
    }
}

impl PartitionSample {
    /// The event time of the next record.
    fn time(&mut self, time: i64, now_ms: i64, delay: i64, future: i64) {
        let ahead = time.saturating_sub(now_ms);
        if ahead > future {
            self.future += 1;
            self.most_ahead_ms = self.most_ahead_ms.max(ahead);
            // It would move no watermark.
            return;
        }
        let behind = self.newest_ms.map_or(0, |newest| newest.saturating_sub(time));
        self.late += u64::from(behind > delay);
        self.most_behind_ms = self.most_behind_ms.max(behind);
        self.oldest_ms = Some(self.oldest_ms.map_or(time, |oldest| oldest.min(time)));
        self.newest_ms = Some(self.newest_ms.map_or(time, |newest| newest.max(time)));
    }
}

/// Reads the last `count` offsets of each partition; blocks.
///
/// # Errors
/// When the topic cannot be read.
pub(crate) fn sample(
    kafka: &KafkaConfig,
    job: &Job,
    inputs: Inputs,
    ends: &[PartitionEnds],
    count: u64,
    now_ms: i64,
) -> Result<Vec<PartitionSample>> {
    let from = |ends: &PartitionEnds| ends.log_start.0.max(ends.last_stable.0.saturating_sub(count));
    let stretches: Vec<_> = ends
        .iter()
        .map(|ends| Between { partition: ends.partition, from: Offset(from(ends)), to: ends.last_stable })
        .collect();
    let empty = |between: &Between| {
        let Partition(partition) = between.partition;
        let offsets = between.to.0.saturating_sub(between.from.0);
        (partition, PartitionSample { partition, offsets, ..PartitionSample::default() })
    };
    let watermark = &job.core.watermark;
    let mut sampler = Sampler {
        inputs,
        delay: watermark.strategy.most_delay().millis(),
        future: watermark.max_future_skew.map_or(FUTURE, |skew| skew.millis()),
        now_ms,
        partitions: stretches.iter().map(empty).collect(),
    };
    between::<anyhow::Error>(kafka, &job.source.topic, &stretches, PATIENCE, |record| {
        sampler.take(&record)?;
        Ok(Step::Continue)
    })
    .with_context(|| format!("reading topic `{}`", job.source.topic))?;
    Ok(sampler.partitions.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn disorder_is_measured_against_the_newest_before_and_future_times_are_left_out_of_it() {
        let mut sample = PartitionSample::default();
        for time in [1_000, 5_000, 2_999, 99_000, 5_500] {
            sample.time(time, 6_000, 2_000, 10_000);
        }
        assert_eq!((sample.late, sample.most_behind_ms), (1, 2_001));
        assert_eq!((sample.future, sample.most_ahead_ms), (1, 93_000));
        assert_eq!((sample.oldest_ms, sample.newest_ms), (Some(1_000), Some(5_500)));
    }
}
