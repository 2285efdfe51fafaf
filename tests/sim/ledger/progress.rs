//! How far everything is, and what is missing to the end.

use tidegate_core::{
    block::Closing,
    job::OnQuiet,
    time::{Partition, Watermark},
};

use super::{Account, Ledger, next};

impl Ledger {
    /// Whether every record is covered and all windows up to the watermarks are out, as far as committed.
    pub fn is_complete(&self) -> bool {
        let least = self.final_watermark();
        self.shards.iter().all(|account| {
            let ends = self.topic.partitions.iter().enumerate();
            account.state.watermark() >= least
                && account.state.closing().is_none()
                && ends.into_iter().all(|(p, log)| next(&account.state, Partition(p as u32)) >= log.end())
        })
    }

    /// Rises with everything that brings the end nearer: offsets covered, results emitted, watermarks, and how far closings are
    /// in which nothing ends where it is looked up.
    pub fn progress(&self) -> (u64, usize, Vec<(Watermark, Option<Closing>)>) {
        let covered = self.shards.iter().flat_map(|a| a.state.inputs()).map(|input| input.next.0).sum();
        let least = self.final_watermark();
        let closing =
            |account: &Account| (account.state.watermark().min(least), account.state.closing().cloned());
        let watermarks = self.shards.iter().map(closing).collect();
        let reordered: usize = self.shards.iter().map(|account| account.reordered.len()).sum();
        (covered, self.results.values().map(Vec::len).sum::<usize>() + reordered, watermarks)
    }

    /// What every shard's watermark has to come to.
    fn final_watermark(&self) -> Watermark {
        let job = &self.scenario.job;
        let largest = self.topic.partitions.iter().map(|log| log.largest_below(log.end())).max().flatten();
        match job.watermark.on_quiet {
            // Where a silence was taken for the end, the watermark was raised beyond records yet to come, and no longer tells a
            // successor of theirs.
            OnQuiet::Finish if self.scenario.exact || self.scenario.backlog => {
                largest.map(|largest| largest.plus(job.operator.reach()))
            }
            _ => largest.map(|largest| largest.minus(job.watermark.strategy.most_delay())),
        }
    }

    /// What stands between the present and the end.
    pub fn missing(&self) -> String {
        let least = self.final_watermark();
        let mut missing = String::new();
        for (shard, account) in self.shards.iter().enumerate() {
            let positions: Vec<_> = self
                .topic
                .partitions
                .iter()
                .enumerate()
                .map(|(p, log)| format!("{}/{}", next(&account.state, Partition(p as u32)), log.end()))
                .collect();
            missing += &format!(
                "shard {shard}: W {:?} of {least:?}, positions {positions:?}, closing {:?}; ",
                account.state.watermark(),
                account.state.closing()
            );
        }
        missing
    }
}
