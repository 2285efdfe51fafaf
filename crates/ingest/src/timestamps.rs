//! Whose clock the records' timestamps are of, counted for each partition.
//!
//! The timestamp of a `LogAppendTime` topic says when a record arrived. Taken as event time it makes every record come in
//! order: that is said once, since nothing else would show it.

use std::collections::BTreeMap;

use tidegate_core::{record::Timestamp, time::Partition};
use tidegate_job::{Job, TimeSource};

/// Records by the type of their timestamp.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The producer's clock.
    pub(crate) create: u64,
    /// The broker's clock at arrival.
    pub(crate) append: u64,
    /// None.
    pub(crate) none: u64,
}

/// Counts, and warns.
#[derive(Debug)]
pub(crate) struct TimestampWatch {
    topic: String,
    /// Whether the job may take the record's timestamp as event time, and nobody was warned yet.
    warns: bool,
    counts: BTreeMap<Partition, Counts>,
    told: BTreeMap<Partition, Counts>,
    /// The partition of the record before, whose count is not in `counts` yet.
    last: Option<(Partition, Counts)>,
}

impl TimestampWatch {
    pub(crate) fn new(job: &Job) -> Self {
        Self {
            topic: job.source.topic.clone(),
            warns: job.source.event_time.contains(&TimeSource::RecordTimestamp),
            counts: BTreeMap::new(),
            told: BTreeMap::new(),
            last: None,
        }
    }

    /// Counts a record.
    #[inline]
    pub(crate) fn see(&mut self, partition: Partition, timestamp: Timestamp) {
        if self.last.is_none_or(|(last, _)| last != partition) {
            self.settle();
            self.last = Some((partition, self.counts.get(&partition).copied().unwrap_or_default()));
        }
        let Some((_, counts)) = &mut self.last else { return };
        match timestamp {
            Timestamp::CreateTime(_) => counts.create += 1,
            Timestamp::LogAppendTime(_) => {
                counts.append += 1;
                if self.warns {
                    self.warn();
                }
            }
            Timestamp::NotAvailable => counts.none += 1,
        }
    }

    #[cold]
    fn warn(&mut self) {
        self.warns = false;
        tracing::warn!(
            topic = self.topic,
            "source.event_time may take the record's timestamp, and the topic has message.timestamp.type=LogAppendTime: \
             that is the time of arrival, in whose order nothing is ever late"
        );
    }

    fn settle(&mut self) {
        if let Some((partition, counts)) = self.last.take() {
            self.counts.insert(partition, counts);
        }
    }

    /// The counts since the last call, of each partition that has any.
    pub(crate) fn changed(&mut self) -> Vec<(Partition, Counts)> {
        self.settle();
        let mut changed = Vec::new();
        for (partition, now) in &self.counts {
            let before = self.told.insert(*partition, *now).unwrap_or_default();
            if before != *now {
                let rest = Counts {
                    create: now.create.saturating_sub(before.create),
                    append: now.append.saturating_sub(before.append),
                    none: now.none.saturating_sub(before.none),
                };
                changed.push((*partition, rest));
            }
        }
        changed
    }

    /// The counts of each partition that is read here, since it is.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Partition, Counts)> {
        self.counts.iter().map(|(partition, counts)| (*partition, *counts))
    }

    /// A partition is no longer read here.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.settle();
        self.counts.remove(&partition);
        self.told.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use tidegate_core::time::EventTime;
    use tidegate_job::JobFile;

    use super::*;

    fn watch(event_time: &str) -> TimestampWatch {
        let text = format!(
            "name: j\nsource: {{ topic: t, key: record_key, event_time: {event_time} }}\nwatermark: {{ delay: 1s }}\n\
             window: {{ tumbling: {{ size: 1s }} }}\naggregates: [{{ name: n, fn: count }}]\nsink: {{ topic: o }}\n\
             dead_letter: {{ topic: d }}\n"
        );
        TimestampWatch::new(&JobFile::parse(&text, "job.yaml").unwrap())
    }

    #[test]
    fn each_partition_has_its_counts() {
        let mut watch = watch("[record_timestamp]");
        let (create, append) = (Timestamp::CreateTime(EventTime(1)), Timestamp::LogAppendTime(EventTime(1)));
        for (partition, timestamp) in [(0, create), (1, append), (0, create), (0, Timestamp::NotAvailable)] {
            watch.see(Partition(partition), timestamp);
        }
        let zero = Counts { create: 2, append: 0, none: 1 };
        let one = Counts { create: 0, append: 1, none: 0 };
        assert_eq!(watch.changed(), [(Partition(0), zero), (Partition(1), one)]);
        watch.see(Partition(1), append);
        assert_eq!(watch.changed(), [(Partition(1), one)], "only what is new");
        assert_eq!(watch.all().collect::<Vec<_>>().len(), 2);
        watch.forget(Partition(0));
        assert_eq!(watch.all().map(|(partition, _)| partition.0).collect::<Vec<_>>(), [1]);
    }

    #[test]
    fn only_a_job_that_takes_the_time_of_arrival_as_event_time_is_warned_and_once() {
        let append = Timestamp::LogAppendTime(EventTime(1));
        let mut warned = watch("[{ header: t }, record_timestamp]");
        assert!(warned.warns);
        warned.see(Partition(0), Timestamp::CreateTime(EventTime(1)));
        assert!(warned.warns);
        warned.see(Partition(0), append);
        assert!(!warned.warns, "said");
        assert!(!watch("[{ header: t }]").warns);
    }
}
