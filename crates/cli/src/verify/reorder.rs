//! The oracle of reordering: of each key, what came out is what came in, sorted, and nothing in it has changed.

use std::{
    collections::{BTreeMap, HashMap, hash_map::DefaultHasher},
    hash::{Hash, Hasher},
};

use anyhow::Result;
use tidegate_job::Job;
use tidegate_kafka::{KafkaConfig, Record, Timestamp};

use super::{Difference, Earlier, Parsed, Verdict, read};
use crate::topics;

/// Partition and offset in the source topic.
type Place = (u32, u64);

/// What has to come out.
#[derive(Debug, Default)]
pub(super) struct Order {
    /// By group key: event time and place, and what the record is.
    expected: BTreeMap<String, Vec<(i64, Place, u64)>>,
}

impl Order {
    /// A record that is no dead letter.
    pub(super) fn expect(&mut self, parsed: Parsed, record: &Record<'_>) {
        let place = (record.partition().0, record.offset().0);
        self.expected.entry(parsed.key).or_default().push((parsed.time, place, print(record)));
    }

    /// Compares with the result topic: the records below `watermark`, sorted, and no other.
    pub(super) fn compare(
        mut self,
        job: &Job,
        (kafka, earlier): (&KafkaConfig, &Earlier),
        watermark: Option<i64>,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let mut came: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        topics::read_each(kafka, earlier.results(job), |record| {
            match read(job, &record) {
                Ok(parsed) => came.entry(parsed.key).or_default().push(print(&record)),
                Err(reason) => {
                    let place = (record.partition().0, record.offset().0);
                    let what = format_args!("result {place:?} is no record of the source: {reason}");
                    verdict.differ(Difference::Wrong, what);
                }
            }
            Ok(())
        })?;
        for (key, records) in &mut self.expected {
            records.sort_unstable();
            records.retain(|(time, ..)| watermark.is_some_and(|watermark| *time < watermark));
            verdict.windows += records.len() as u64;
            compare_key(key, records, &came.remove(key).unwrap_or_default(), verdict);
        }
        for (key, records) in came {
            compare_key(&key, &[], &records, verdict);
        }
        Ok(())
    }
}

fn compare_key(key: &str, expected: &[(i64, Place, u64)], came: &[u64], verdict: &mut Verdict) {
    let mut counts: HashMap<u64, i64> = HashMap::new();
    came.iter().for_each(|print| *counts.entry(*print).or_default() += 1);
    let before = verdict.mismatches();
    for (time, place, print) in expected {
        let left = counts.entry(*print).or_default();
        *left -= 1;
        if *left < 0 {
            let what =
                format_args!("{place:?} (key {key}, event time {time}) is not among the results, whole");
            verdict.differ(Difference::Lost, what);
        }
    }
    let known: HashMap<u64, ()> = expected.iter().map(|(_, _, print)| (*print, ())).collect();
    for (print, left) in counts.into_iter().filter(|(_, left)| *left > 0) {
        let (difference, how) = if known.contains_key(&print) {
            (Difference::Duplicated, "too often")
        } else {
            (Difference::Wrong, "and should not be")
        };
        verdict.differ(difference, format_args!("a record of key {key} is there {how} ({left} times)"));
    }
    let in_order = expected.iter().map(|(_, _, print)| print).eq(came);
    if !in_order && verdict.mismatches() == before {
        let at = expected.iter().zip(came).position(|((_, _, one), other)| one != other).unwrap_or_default();
        let what = format_args!("the records of key {key} are out of order from the one at {at} on");
        verdict.differ(Difference::Wrong, what);
    }
}

/// A number that stands for key, value, headers and timestamp.
fn print(record: &Record<'_>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (record.key(), record.value()).hash(&mut hasher);
    record.headers().for_each(|header| header.hash(&mut hasher));
    let timestamp = match record.timestamp() {
        Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => Some(time.millis()),
        Timestamp::NotAvailable => None,
    };
    timestamp.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(came: &[u64]) -> [u64; 3] {
        let mut verdict = Verdict::default();
        compare_key("k", &[(1, (0, 0), 11), (1, (1, 0), 12), (2, (0, 1), 13)], came, &mut verdict);
        [verdict.lost, verdict.duplicated, verdict.wrong]
    }

    #[test]
    fn what_is_missing_twice_out_of_order_or_strange_is_told() {
        assert_eq!(verdict(&[11, 12, 13]), [0, 0, 0]);
        assert_eq!(verdict(&[11, 13]), [1, 0, 0]);
        assert_eq!(verdict(&[11, 12, 12, 13]), [0, 1, 0]);
        assert_eq!(verdict(&[12, 11, 13]), [0, 0, 1], "ties go by partition, then offset");
        assert_eq!(verdict(&[11, 12, 13, 14]), [0, 0, 1]);
    }
}
