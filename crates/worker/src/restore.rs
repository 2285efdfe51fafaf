//! Taking a shard over: fence, read the log to its end, fold (design §5).
//!
//! ```text
//! init_transactions ─► high watermark ─► is the local store's last commit in the log where it says?
//!                                           yes: its entries, then the blocks behind it
//!                                           no:  all blocks from the log start; the store is wiped and follows
//! ```
//! Committed data that is missing is an error, never passed over: a log without its beginning, with a gap, or that ends before
//! what the local store holds.

use std::{ops::ControlFlow, time::Duration};

use tidegate_core::{
    block::{Assembler, Block, Change},
    shard::{RestoreError, ShardState, Spilled},
    time::{Offset, Partition, Shard, Tick},
};
use tidegate_kafka::{ChangelogReader, Entry, TransactionalProducer};
use tidegate_store::{Identity, ShardStore};

use crate::{cache::ShardCache, error::Error, ground::Ground};

/// How long the transaction coordinator may take to give us the transactional id.
const INIT_PATIENCE: Duration = Duration::from_secs(30);
/// How long reading may stand still: longer than any transaction is left open.
const READ_PATIENCE: Duration = Duration::from_secs(20);

/// Why a stretch of the log was not folded to its end.
#[derive(Debug)]
enum Stop {
    /// What the local store holds is not in the log at its place, or the store does not read.
    OffChain,
    Failed(Error),
}

impl From<tidegate_kafka::Error> for Stop {
    fn from(error: tidegate_kafka::Error) -> Self {
        Self::Failed(error.into())
    }
}

/// Fences every earlier owner of `shard` (unless `producer` is still ours) and restores its state as of the last commit. Blocks.
///
/// # Errors
/// Fenced, unreachable, or what the log lacks; to be called again where that can pass.
pub(crate) fn restore(
    ground: &Ground,
    shard: Shard,
    producer: &mut Option<TransactionalProducer>,
    cache: &mut ShardCache,
) -> Result<ShardState, Error> {
    if producer.is_none() {
        let id = ground.job.transactional_id(shard);
        let mut fresh = TransactionalProducer::open(&ground.kafka, &id, ground.transactions.clone())?;
        fresh.init(INIT_PATIENCE)?;
        *producer = Some(fresh);
    }
    let reader = ChangelogReader::open(&ground.kafka, &ground.renderer.changelog)?;
    let log = Log { ground, shard, reader };
    let state = log.state(cache)?;
    match state.job() {
        Some(job) if job == ground.job_id => Ok(state),
        Some(_) => Err(log.failed(Offset(0), RestoreError::OtherJob)),
        None => Err(Error::NoGenesis { topic: log.topic(), shard }),
    }
}

/// The changelog partition of a shard.
struct Log<'a> {
    ground: &'a Ground,
    shard: Shard,
    reader: ChangelogReader,
}

impl Log<'_> {
    fn state(&self, cache: &mut ShardCache) -> Result<ShardState, Error> {
        let ends = self.reader.ends(Partition(self.shard.0))?;
        cache.set_share(self.ground.share());
        let cached = cache.reclaim().map(|store| store.identity()).transpose();
        let cached = cached.unwrap_or_else(|error| {
            cache.fail(&error);
            None
        });
        if let Some(cached) = cached.flatten() {
            if cached.changelog_offset >= ends.high_watermark.0 {
                return Err(self.data_loss(&cached, format!("offset {}", ends.high_watermark)));
            }
            if cached.changelog_offset >= ends.log_start.0 {
                match self.resume(&cached, cache) {
                    Ok(state) => return Ok(state),
                    Err(Stop::Failed(error)) => return Err(error),
                    Err(Stop::OffChain) => {
                        let last = self.last_sequence()?;
                        if last < cached.sequence {
                            return Err(self.data_loss(&cached, format!("commit {last}")));
                        }
                        tracing::warn!(
                            shard = self.shard.0,
                            "the local store does not lie on the changelog, rebuilding it"
                        );
                    }
                }
            }
        }
        self.rebuild(cache)
    }

    /// The state in the local store, and what the log has behind it.
    fn resume(&self, cached: &Identity, cache: &mut ShardCache) -> Result<ShardState, Stop> {
        let mut state = self.ground.empty_shard();
        let mut found = false;
        let mut last = None;
        let read = self.read(Some(Offset(cached.changelog_offset)), |block, offset| {
            if found {
                last = Some((block.clone(), offset));
                return self.follow(&mut state, block, offset, cache);
            }
            let expected = (cached.incarnation, cached.sequence, cached.changelog_offset);
            if (block.incarnation, block.sequence, offset.0) != expected {
                return Err(Stop::OffChain);
            }
            found = true;
            self.load(&mut state, cache)
        });
        match read {
            // In the middle of another block is off the chain too.
            Ok(()) | Err(Stop::Failed(Error::Restore { .. })) if !found => Err(Stop::OffChain),
            Ok(()) => {
                if let Some((last, offset)) = last.filter(|_| cache.is_behind()) {
                    cache.write_whole(&mut state, &last, offset);
                }
                Ok(state)
            }
            Err(stop) => Err(stop),
        }
    }

    /// Takes what the local store holds into an empty state.
    fn load(&self, state: &mut ShardState, cache: &mut ShardCache) -> Result<(), Stop> {
        let chunks = cache.chunks().ok_or(Stop::OffChain)?;
        state.set_store(chunks);
        let store = cache.store().ok_or(Stop::OffChain)?;
        let read = read_store(store, state);
        let head = match read {
            Ok(Some(head)) => head,
            Ok(None) => return Err(Stop::OffChain),
            Err(error) => {
                cache.fail(&error);
                return Err(Stop::OffChain);
            }
        };
        state.set_job(self.ground.job_id);
        state.restore_scalars(&head);
        match state.load_image() {
            Ok(image) => cache.loaded(image),
            Err(unreadable) => {
                tracing::warn!(shard = self.shard.0, error = %unreadable, "the local store does not read");
                return Err(Stop::OffChain);
            }
        }
        Ok(())
    }

    /// The state from the whole log; the local store is wiped, takes the runs as they come, and the rest at the end.
    fn rebuild(&self, cache: &mut ShardCache) -> Result<ShardState, Error> {
        cache.wipe();
        let mut state = self.ground.empty_shard();
        if let Some(chunks) = cache.chunks() {
            state.set_store(chunks);
        }
        let mut last = None;
        let read = self.read(None, |block, offset| {
            self.fold(&mut state, &block, offset)?;
            cache.keep_chunks(&mut state);
            last = Some((block, offset));
            Ok(())
        });
        match read {
            Ok(()) => {
                if let Some((last, offset)) = last {
                    cache.write_whole(&mut state, &last, offset);
                }
                Ok(state)
            }
            Err(Stop::Failed(error)) => Err(error),
            Err(Stop::OffChain) => Err(self.failed(Offset(0), RestoreError::OtherJob)),
        }
    }

    fn fold(&self, state: &mut ShardState, block: &Block, offset: Offset) -> Result<(), Stop> {
        state.fold(block).map_err(|source| Stop::Failed(self.failed(offset, source)))
    }

    /// Folds a block behind what the store holds, and has the store follow.
    fn follow(
        &self,
        state: &mut ShardState,
        block: Block,
        offset: Offset,
        cache: &mut ShardCache,
    ) -> Result<(), Stop> {
        let run = state.run();
        self.fold(state, &block, offset)?;
        let now = Tick(self.ground.clock.tick());
        if state.run() > run {
            let parts = state.runs().parts().filter(|part| part.run == run).cloned().collect();
            let spilled = Spilled { parts, small: state.small_entries() };
            cache.spilled(&block, Some(offset), &spilled, now);
            cache.write_run(state);
        } else {
            cache.committed(block, Some(offset), now);
        }
        Ok(())
    }

    fn last_sequence(&self) -> Result<u64, Error> {
        let mut last = 0;
        let read = self.read(None, |block, _| {
            last = block.sequence;
            Ok(())
        });
        match read {
            Ok(()) | Err(Stop::OffChain) => Ok(last),
            Err(Stop::Failed(error)) => Err(error),
        }
    }

    /// Calls `on_block` with each committed block from `from` (without it: from the log start) on, and its first offset.
    fn read(
        &self,
        from: Option<Offset>,
        mut on_block: impl FnMut(Block, Offset) -> Result<(), Stop>,
    ) -> Result<(), Stop> {
        let mut assembler = Assembler::default();
        let mut first = None;
        let on_entry = |entry: Entry<'_>| -> Result<(), Stop> {
            let offset = *first.get_or_insert(entry.offset);
            let chunk = entry.value.unwrap_or_default();
            let block =
                assembler.push(chunk).map_err(|error| Stop::Failed(self.failed(offset, error.into())))?;
            if let Some(block) = block {
                first = None;
                on_block(block, offset)?;
            }
            Ok(())
        };
        self.reader.read(Partition(self.shard.0), from, READ_PATIENCE, on_entry)?;
        Ok(())
    }

    fn topic(&self) -> String {
        self.ground.renderer.changelog.to_string()
    }

    fn failed(&self, offset: Offset, source: RestoreError) -> Error {
        Error::Restore { topic: self.topic(), shard: self.shard, offset, source }
    }

    fn data_loss(&self, cached: &Identity, end: String) -> Error {
        Error::DataLoss {
            topic: self.topic(),
            shard: self.shard,
            cached: cached.sequence,
            offset: Offset(cached.changelog_offset),
            end,
        }
    }
}

/// Reads all entries of `store` into `state`; gives the head of the block at which they stand. `None` when some do not read.
fn read_store(
    store: &dyn ShardStore,
    state: &mut ShardState,
) -> Result<Option<Block>, tidegate_store::Error> {
    let mut readable = true;
    store.scan(&mut |key, value| match state.restore_entry(Change::Upsert(key, value)) {
        Ok(()) => ControlFlow::Continue(()),
        Err(_) => {
            readable = false;
            ControlFlow::Break(())
        }
    })?;
    let head = store.meta()?.and_then(|meta| Assembler::default().push(&meta).ok().flatten());
    Ok(head.filter(|_| readable))
}

#[cfg(test)]
mod tests;
