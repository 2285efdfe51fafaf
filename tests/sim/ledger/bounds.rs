//! I7: commits and logs are bounded.

use tidegate_core::{job::OperatorSpec, time::Shard};

use super::Ledger;
use crate::{context::CommitRequest, replay::MOST_ROWS, violation::ensure};

impl Ledger {
    /// I7: a commit is bounded, by its limit and what one frame may add to it.
    pub(super) fn check_size(&self, request: &CommitRequest) {
        let row = 80 + 24 * self.scenario.job.aggregates.len();
        let letters = request.commit.dead_letters.iter().map(|letter| 80 + letter.payload.bytes());
        let reordered = request.commit.reordered.iter().map(|record| 80 + record.payload.bytes());
        let bytes = request.commit.results.len() * row + letters.sum::<usize>() + reordered.sum::<usize>();
        // A late record counts with its entry before the commit, and with its result in it.
        let frame = self.scenario.credit.window as usize + 400 * self.scenario.batch;
        let replayed = request.replayed.len().min(MOST_ROWS as usize) * self.windows_of_a_record() * row;
        let bound = self.scenario.limits.commit_bytes * row / 48 + 2 * frame + replayed;
        ensure(bytes <= bound, "I7: a commit is bounded", || format!("{bytes} of {bound} bytes"));
    }

    /// At most so many.
    fn windows_of_a_record(&self) -> usize {
        match &self.scenario.job.operator {
            OperatorSpec::Windows(spec) => (spec.size.0 / spec.step.0) as usize + 1,
            // What it joins is retracted.
            OperatorSpec::Sessions(_) => 3,
            OperatorSpec::Reorder | OperatorSpec::Sliding(_) => 1,
        }
    }

    /// I7: snapshots keep the log near the size of the state. An owner that dies between a snapshot and the deletion of what it
    /// makes superfluous leaves that to the next one.
    pub fn check_log(&self, shard: Shard, bytes: usize) {
        let record = if self.scenario.job.operator.buffers_records() { 60 } else { 0 };
        let row = 60 + 30 * self.scenario.job.aggregates.len() + record;
        let account = &self.shards[shard.0 as usize];
        let live = account.most_rows * row + account.most_summaries + 100 * self.topic.partitions.len();
        let begins = (self.scenario.limits.snapshot_log_bytes as usize).max(2 * live) + 1_000;
        // Rows with summaries are large against so small a state: the block with which a snapshot ends weighs.
        let last = if account.most_summaries > 0 { account.largest_block } else { 0 };
        ensure(bytes <= 2 * begins + last, "I7: the log is bounded by the state", || {
            format!("shard {shard}: {bytes} bytes, a snapshot begins at about {begins}")
        });
    }
}
