//! I4 at the end: what is there is what a batch over the same records says.

use std::collections::BTreeMap;

use tidegate_core::{
    aggregate::Value,
    dead_letter::Reason,
    job::OperatorSpec,
    shard::{Pane, ResultRow},
    time::Shard,
};

use super::{Ledger, letters::misses};
use crate::{
    oracle::{self, Answer, Window},
    topic::Record,
    violation::ensure,
};

impl Ledger {
    /// I4 at the end: what is there equals the batch over the records that were not dead-lettered.
    pub fn check_answer(&self) {
        for record in self.topic.records().filter(|record| record.rejected.is_some()) {
            ensure(
                self.letters.contains_key(&(record.partition, record.offset)),
                "I4: every reject is there",
                || format!("{record:?}"),
            );
        }
        let letter = |record: &Record| self.letters.get(&(record.partition, record.offset));
        let counts = |record: &Record| match letter(record) {
            None => true,
            Some(letter) => letter.replayed.is_some_and(|(_, applied)| applied),
        };
        if let OperatorSpec::Sliding(spec) = self.scenario.job.operator {
            let kept: Vec<_> = self.topic.records().filter(|record| counts(record)).collect();
            for record in &kept {
                let account = &self.shards[record.home(self.scenario.job.shards).0 as usize];
                account.reordered.check(record, account.state.watermark());
                account.reordered.check_window(&self.scenario.job, spec.size, record, &kept);
            }
            return;
        }
        if self.scenario.job.operator.keeps_records() {
            for record in self.topic.records().filter(|record| counts(record)) {
                let account = &self.shards[record.home(self.scenario.job.shards).0 as usize];
                account.reordered.check(record, account.state.watermark());
            }
        }
        let partial = |record: &Record| {
            letter(record).is_some_and(|letter| letter.letter.reason == Reason::LatePartial)
        };
        let kept = || self.topic.records().filter(|record| counts(record) || partial(record));
        let expected = oracle::batch(&self.scenario.job, kept(), |record, end| {
            letter(record).is_some_and(|letter| self.is_missing(record, letter, end))
        });
        if let OperatorSpec::Sessions(_) = self.scenario.job.operator {
            return self.check_sessions(&expected);
        }
        for (window, rows) in &self.results {
            let same = |values: &Vec<Value>| {
                rows.last().is_some_and(|row| oracle::same(&self.scenario.job, &row.values, values))
            };
            // A partly late record of the commit of the last result may have come after that.
            let cuts = |record: &Record| {
                let letter = letter(record).filter(|_| partial(record) && record.key == window.0);
                letter.map(|letter| letter.at).filter(|at| Some(&at.0) == self.emitted.get(window))
            };
            let without = |cut: (u64, usize)| {
                let batch = oracle::batch(&self.scenario.job, kept(), |record, end| {
                    let letter = letter(record);
                    letter.is_some_and(|letter| {
                        self.is_missing(record, letter, end)
                            || (misses(&self.scenario.job, &letter.letter, end) && letter.at >= cut)
                    })
                });
                batch.get(window).is_some_and(same)
            };
            let right = expected.get(window).is_some_and(same) || kept().filter_map(cuts).any(without);
            ensure(right, "I4: the last revision is that of the batch", || {
                format!("{rows:?}, batch {:?}", expected.get(window))
            });
        }
        for (window, values) in &expected {
            let emitted = self.results.contains_key(window);
            ensure(emitted || !self.is_over(window), "I4: every window that is over is there", || {
                format!("{window:?}: {values:?}")
            });
        }
    }

    fn is_over(&self, (key, _, end): &Window) -> bool {
        let shard = Shard::of(key, self.scenario.job.shards);
        Some(*end) <= self.state(shard).watermark()
    }

    /// A session of the batch is there as one; or, where a record came so late that what it joins had been forgotten, in parts
    /// that overlap and hold all of it.
    fn check_sessions(&self, expected: &Answer) {
        let last = self.results.iter().filter_map(|(window, rows)| Some((window, rows.last()?)));
        let mut kept: BTreeMap<&Window, &ResultRow> =
            last.filter(|(_, row)| row.pane != Pane::Retracted).collect();
        for (window, values) in expected {
            let (key, start, end) = window;
            let (from, to) = ((key.clone(), *start, *start), (key.clone(), *end, *start));
            let parts: Vec<&ResultRow> = kept.range::<Window, _>(&from..&to).map(|(_, row)| *row).collect();
            let seen = || format!("{window:?}: {values:?}, parts {parts:?}");
            let fits = parts.iter().all(|part| part.end <= *end);
            ensure(fits, "I4: a session is within that of the batch", seen);
            if let [part] = parts.as_slice()
                && part.end == *end
                && part.start == *start
            {
                ensure(
                    oracle::same(&self.scenario.job, &part.values, values),
                    "I4: the last revision is that of the batch",
                    seen,
                );
            } else if self.is_over(window) {
                let records = |value: Option<&Value>| match value {
                    Some(Value::Count(count)) => *count,
                    other => panic!("the first aggregate counts records, {other:?}"),
                };
                let counted: u64 = parts.iter().map(|part| records(part.values.first())).sum();
                let joined = parts.windows(2).all(|pair| pair[1].start < pair[0].end);
                let whole = parts.first().is_some_and(|part| part.start == *start)
                    && parts.iter().map(|part| part.end).max() == Some(*end);
                let right = joined && whole && counted == records(values.first()) && self.answer.is_none();
                ensure(right, "I4: the parts of a session are all of it", seen);
                self.split.set(self.split.get() + 1);
            }
            kept.retain(|(of, from, _), _| of != key || from < start || from >= end);
        }
        ensure(kept.is_empty(), "I4: a result is of records", || format!("{kept:?}"));
    }

    /// Sessions that came out in parts.
    pub const fn split(&self) -> u64 {
        self.split.get()
    }
}
