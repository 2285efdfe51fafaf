//! The changelog partitions and their transactional ids, as a broker keeps them.

use tidegate_core::{
    block::{Assembler, Block, JobId},
    shard::{Commit, ShardState},
    time::{Offset, Partition, Shard},
};

use crate::{scenario::Scenario, topic::Topic, violation::violated};

pub const JOB: JobId = JobId(*b"job of a run, 16");

#[derive(Debug)]
pub struct Changelog {
    shards: Vec<ShardLog>,
}

#[derive(Debug, Default)]
struct ShardLog {
    epoch: u64,
    chunks: Vec<(Offset, Vec<u8>)>,
    next: u64,
    /// Epoch and sequence of the last transaction, and its first offset.
    last: Option<(u64, u64, Offset)>,
}

/// What a worker is told of a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitOutcome {
    /// In the log; the first chunk of its block is at this offset.
    Committed(Offset),
    Aborted,
    Fenced,
}

impl Changelog {
    /// Every log with its genesis block.
    pub fn new(scenario: &Scenario, topic: &Topic) -> Self {
        let starts: Vec<_> =
            (0..scenario.partitions).map(Partition).map(|p| (p, topic.log(p).start)).collect();
        let genesis = ShardState::genesis(JOB, &starts);
        let log = || {
            let mut log = ShardLog::default();
            log.append(&genesis, scenario.chunk);
            log
        };
        Self { shards: (0..scenario.job.shards).map(|_| log()).collect() }
    }

    fn log(&mut self, shard: Shard) -> &mut ShardLog {
        &mut self.shards[shard.0 as usize]
    }

    /// Fences whoever used the shard's transactional id before.
    pub fn init(&mut self, shard: Shard) -> u64 {
        let log = self.log(shard);
        log.epoch += 1;
        log.epoch
    }

    /// Whether a transaction of `epoch` is taken; `Some` when it has been before.
    pub fn judge(&mut self, shard: Shard, epoch: u64, sequence: u64, fences: bool) -> Option<CommitOutcome> {
        let log = self.log(shard);
        if fences && epoch != log.epoch {
            return Some(CommitOutcome::Fenced);
        }
        log.last
            .filter(|(by, last, _)| *by == epoch && *last >= sequence)
            .map(|(_, _, offset)| CommitOutcome::Committed(offset))
    }

    pub fn commit(&mut self, shard: Shard, epoch: u64, commit: &Commit, chunk: usize) -> Offset {
        let log = self.log(shard);
        let offset = log.append(&commit.block, chunk);
        log.last = Some((epoch, commit.block.sequence, offset));
        offset
    }

    pub fn truncate(&mut self, shard: Shard, before: Offset) {
        self.log(shard).chunks.retain(|(offset, _)| *offset >= before);
    }

    pub fn bytes(&self, shard: Shard) -> usize {
        self.shards[shard.0 as usize].chunks.iter().map(|(_, chunk)| chunk.len()).sum()
    }

    /// All blocks with the offset of their first chunk.
    pub fn blocks(&self, shard: Shard) -> Vec<(Offset, Block)> {
        let mut assembler = Assembler::default();
        let mut first = None;
        let mut blocks = Vec::new();
        for (offset, chunk) in &self.shards[shard.0 as usize].chunks {
            let begins = *first.get_or_insert(*offset);
            let read = assembler.push(chunk);
            let read = read.unwrap_or_else(|error| violated("restore: the log reads", error.to_string()));
            if let Some(block) = read {
                blocks.push((begins, block));
                first = None;
            }
        }
        blocks
    }
}

impl ShardLog {
    fn append(&mut self, block: &Block, chunk: usize) -> Offset {
        let first = Offset(self.next);
        for chunk in block.chunks(chunk) {
            self.chunks.push((Offset(self.next), chunk));
            self.next += 1;
        }
        // The marker of the transaction.
        self.next += 1;
        first
    }
}
