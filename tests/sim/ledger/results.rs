//! Results of windows, revision by revision, and early ones.

use tidegate_core::{
    dead_letter::Reason,
    job::OperatorSpec,
    shard::{CanonicalState, Pane, ResultRow, ShardState},
    time::Shard,
};

use super::{
    Ledger,
    letters::{Letter, misses},
    next,
};
use crate::{oracle, topic::Record, violation::ensure};

impl Ledger {
    pub(super) fn take_result(&mut self, shard: Shard, after: &ShardState, row: &ResultRow) {
        let seen = || format!("shard {shard}: {row:?}");
        let own = Shard::of(&row.key, self.scenario.job.shards) == shard;
        ensure(own, "I4: a result is of the shard's keys", seen);
        if row.pane == Pane::Early {
            return self.take_early(after, row);
        }
        let window = (row.key.clone(), row.start, row.end);
        let emitted = self.results.entry(window.clone()).or_default();
        // Of a session that had become another before it was over.
        let provisional = emitted.is_empty()
            && (row.pane, row.revision) == (Pane::Retracted, 1)
            && self.early.contains(&window);
        let over = Some(row.end) <= after.watermark();
        ensure(over || provisional, "I4: a window is emitted after its end", seen);
        // Where a key has only partly late records in a window, its first result is the second revision.
        let next = emitted.last().map_or(0, |last| last.revision + 1);
        let skips = row.pane == Pane::Replay && emitted.is_empty() && row.revision == 1;
        let partial = |letter: &Letter| {
            let record = self.topic.log(letter.letter.partition).record(letter.letter.offset);
            record.is_some_and(|record| record.key == row.key)
                && misses(&self.scenario.job, &letter.letter, row.end)
        };
        let counts_up = row.revision == next || provisional || (skips && self.letters.values().any(partial));
        ensure(counts_up, "I4: revisions count up, each once", || format!("{row:?} after {emitted:?}"));
        self.early.remove(&window);
        self.emitted.insert(window.clone(), self.commits);
        let pane = (row.pane, row.revision);
        ensure(!matches!(pane, (Pane::Final, 1..)), "I4: the final result is the first", seen);
        if let Some(answer) = self.answer.as_ref().filter(|_| !provisional) {
            let right = answer
                .get(&window)
                .is_some_and(|values| oracle::same(&self.scenario.job, &row.values, values));
            ensure(right, "I4: a result is that of the batch", || {
                format!("{row:?}, batch {:?}", answer.get(&window))
            });
        }
        emitted.push(row.clone());
    }

    /// An early result is what a batch says of the records that its commit has covered; none comes behind one that counts.
    fn take_early(&mut self, after: &ShardState, row: &ResultRow) {
        let seen = || format!("{row:?} at W {:?}", after.watermark());
        let window = (row.key.clone(), row.start, row.end);
        let open = Some(row.end) > after.watermark() && row.revision == 0;
        let first = !self.results.contains_key(&window);
        ensure(open && first, "I4: no early result after the final one", seen);
        let letter = |record: &Record| self.letters.get(&(record.partition, record.offset));
        let covered = self.topic.records().filter(|record| {
            record.key == row.key
                && match letter(record) {
                    None => record.rejected.is_none() && record.offset < next(after, record.partition),
                    Some(letter) if letter.letter.reason == Reason::LatePartial => true,
                    Some(letter) => letter.replayed.is_some_and(|(_, applied)| applied),
                }
        });
        let job = &self.scenario.job;
        let answer = oracle::batch(job, covered, |record, end| {
            letter(record).is_some_and(|letter| self.is_missing(record, letter, end))
        });
        let right = match answer.get(&window) {
            Some(values) => oracle::same(job, &row.values, values),
            // A part of a session of which another part is forgotten.
            None => matches!(job.operator, OperatorSpec::Sessions(_)) && self.answer.is_none(),
        };
        ensure(right, "I4: an early result is of the records so far", || {
            format!("{}, batch {:?}", seen(), answer.get(&window))
        });
        self.early.insert(window);
    }

    /// No early result is the last of a window that the shard has passed.
    pub(super) fn check_early(&self, shard: Shard, after: &CanonicalState) {
        let passed = after.closing.as_ref().map_or(after.watermark, |closing| closing.done);
        let own = |key: &[u8]| Shard::of(key, self.scenario.job.shards) == shard;
        let left = self.early.iter().find(|(key, _, end)| Some(*end) <= passed && own(key));
        ensure(left.is_none(), "I4: no early result is the last", || format!("shard {shard}: {left:?}"));
    }
}
