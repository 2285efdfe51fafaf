//! One shard's part of the cache: a tree in sled, and how changes are written to it.
//!
//! What has to be known about sled 0.34.7. Figures are wall times of `examples/measure.rs` in the development profile, on 2
//! cores that others use too; twice to three times as much when the machine is overloaded:
//! - `transaction` is atomic over a kill and keeps memory and disk flat; `apply_batch` does neither, so it is not used.
//! - A write costs about 16 µs whatever the size of its transaction: 1,000 entries 15 ms, 10,000 0.16 s, 50,000 0.85 s. As one
//!   transaction, memory is flat to 10,000 entries and grows beyond (200,000: 0.9 GB), and a lock of the whole process is
//!   held. So changes beyond [`BOUND_WRITES`] or [`BOUND_BYTES`] go through several: all but the last leave the store
//!   without an identity. One found without was interrupted, and is wiped.
//! - Over damaged files it may open at a mixture of states without a word. So the identity is stored with a sum over all
//!   entries and the meta, kept up from the old values that a transaction reads anyway, and a scan proves it.
//! - One million entries of 60 bytes, on the overloaded machine: opened in 1.3 s, scanned and proved in 2.7 s. Purging
//!   300,000 costs as many writes, 4 s or more; a wipe of as many 0.2 s.

use std::sync::Arc;

use sled::IVec;
use sled::transaction::{
    TransactionError, TransactionResult, TransactionalTree, UnabortableTransactionError,
};

use crate::changes::{Seal, hash};
use crate::database::{Cause, Shared, guarded};
use crate::{Changes, Error, Identity, ShardStore, SledChunks, Visit};

/// Most in one sled transaction. A kill in the middle of a larger apply costs the shard its cache.
const BOUND_WRITES: usize = 16_384;
const BOUND_BYTES: usize = 16 << 20;

const IDENTITY: &[u8] = b"i";
const META: &[u8] = b"m";
const ENTRY: u8 = b'e';
const AFTER_ENTRIES: u8 = b'f';

/// One shard's tree; all of it is lost together with the database when that is damaged.
#[derive(Debug)]
pub struct SledShard {
    shard: u32,
    number: u64,
    tree: sled::Tree,
    pub(crate) chunks: SledChunks,
    shared: Arc<Shared>,
}

impl SledShard {
    /// Opens the tree of `shard`; what no apply of this job has left is wiped.
    pub(crate) fn open(shard: u32, shared: Arc<Shared>) -> Result<Self, Error> {
        let ([tree, chunks], number) = shared.open_trees(shard, false)?;
        let chunks = SledChunks { number, tree: chunks, shared: Arc::clone(&shared) };
        let mut store = Self { shard, number, tree, chunks, shared };
        match store.usable() {
            Ok(true) => {}
            Ok(false) => {
                tracing::warn!(shard, "wiped the cache of a shard: incomplete, foreign or of another format");
                store.wipe()?;
            }
            // Given up, with a log line.
            Err(_) => store.wipe()?,
        }
        Ok(store)
    }

    /// Whether the tree is what an apply of this job left: at an identity, or empty.
    fn usable(&self) -> Result<bool, Error> {
        match self.get(IDENTITY)? {
            Some(bytes) => {
                let seal = Seal::from_bytes(&bytes);
                Ok(seal.is_some_and(|seal| seal.identity.job == self.shared.job))
            }
            None => self.call(|| Ok(self.tree.iter().next().transpose()?.is_none())),
        }
    }

    fn seal(&self) -> Result<Option<Seal>, Error> {
        Ok(self.get(IDENTITY)?.and_then(|bytes| Seal::from_bytes(&bytes)))
    }

    fn get(&self, key: &[u8]) -> Result<Option<IVec>, Error> {
        self.call(|| self.tree.get(key))
    }

    /// Calls sled on a database that is still in use; a failure gives it up.
    fn call<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
        if !self.shared.in_use(self.number) {
            return Err(self.shared.damaged());
        }
        guarded(work).map_err(|cause| self.shared.give_up(self.number, &cause))
    }

    /// Writes all of `writes`, and `identity` or none at all, to a tree with the sum `sum`; returns the new sum.
    fn transact(&self, writes: &[Write], sum: u64, identity: Option<Identity>) -> Result<u64, Error> {
        self.call(|| {
            let done: TransactionResult<u64, sled::Error> = self.tree.transaction(|tree| {
                let mut sum = sum;
                for (key, value) in writes {
                    sum = write(tree, key, value.as_ref(), sum)?;
                }
                match identity {
                    Some(identity) => tree.insert(IDENTITY, Seal { identity, sum }.to_bytes())?,
                    None => tree.remove(IDENTITY)?,
                };
                Ok(sum)
            });
            done.map_err(|error| match error {
                TransactionError::Abort(error) | TransactionError::Storage(error) => error,
            })
        })
    }

    /// Fills `writes` up to the bounds; whether there may be more.
    fn fill(
        &self,
        writes: &mut Vec<Write>,
        source: &mut dyn Iterator<Item = sled::Result<Write>>,
    ) -> Result<bool, Error> {
        self.call(|| {
            let mut bytes = 0_usize;
            while writes.len() < BOUND_WRITES && bytes < BOUND_BYTES {
                let Some((key, value)) = source.next().transpose()? else {
                    return Ok(false);
                };
                bytes = bytes.saturating_add(key.len() + value.as_ref().map_or(0, |value| value.len()));
                writes.push((key, value));
            }
            Ok(true)
        })
    }
}

/// A key with its kind, and its value or `None` to remove it.
type Write = (IVec, Option<IVec>);

/// Does one write to a tree with the sum `sum`; returns the new sum.
fn write(
    tree: &TransactionalTree,
    key: &IVec,
    value: Option<&IVec>,
    sum: u64,
) -> Result<u64, UnabortableTransactionError> {
    let old = match value {
        Some(value) => tree.insert(key, value)?,
        None => tree.remove(key)?,
    };
    let hash_of = |value: Option<&IVec>| value.map_or(0, |value| hash(key, value));
    Ok(sum.wrapping_add(hash_of(value)).wrapping_sub(hash_of(old.as_ref())))
}

impl ShardStore for SledShard {
    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(self.seal()?.map(|seal| seal.identity))
    }

    fn meta(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.get(META)?.map(|bytes| bytes.to_vec()))
    }

    fn scan(&self, visit: &mut Visit<'_>) -> Result<(), Error> {
        let mut entries = self.call(|| Ok(self.tree.range([ENTRY]..[AFTER_ENTRIES])))?;
        let mut sum = self.get(META)?.map_or(0, |meta| hash(META, &meta));
        // The visitor's own panics are the caller's: only the step of the iterator is guarded.
        while let Some((key, value)) = self.call(|| entries.next().transpose())? {
            sum = sum.wrapping_add(hash(&key, &value));
            let Some((_, key)) = key.split_first() else { continue };
            if visit(key, &value).is_break() {
                return Ok(());
            }
        }
        if sum == self.seal()?.map_or(0, |seal| seal.sum) {
            return Ok(());
        }
        let cause = Cause(format!("the contents of shard {} are not those of its identity", self.shard));
        Err(self.shared.give_up(self.number, &cause))
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        let upserts = changes
            .surviving_upserts()
            .map(|(key, value)| Ok((entry(key), Some(IVec::from(value.as_slice())))));
        let deletes = changes.deletes.iter().map(|key| Ok((entry(key), None)));
        let purges = changes.purge_below.iter().filter(|(from, to)| from < to);
        let purges = purges
            .flat_map(|(from, to)| self.tree.range(entry(from)..entry(to)).keys())
            .map(|key| Ok((key?, None)));
        let mut source = upserts.chain(deletes).chain(purges);

        let mut sum = self.seal()?.map_or(0, |seal| seal.sum);
        let mut writes = Vec::new();
        while self.fill(&mut writes, &mut source)? {
            sum = self.transact(&writes, sum, None)?;
            writes.clear();
        }
        let meta = changes.meta.as_deref();
        writes.extend(meta.map(|meta| (META.into(), Some(meta.into()))));
        self.transact(&writes, sum, Some(changes.identity))?;
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), Error> {
        ([self.tree, self.chunks.tree], self.number) = self.shared.open_trees(self.shard, true)?;
        self.chunks.number = self.number;
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.shared.sync()
    }
}

fn entry(key: &[u8]) -> IVec {
    let mut bytes = Vec::with_capacity(key.len().saturating_add(1));
    bytes.push(ENTRY);
    bytes.extend_from_slice(key);
    bytes.into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Stores;
    use std::ops::ControlFlow;

    const JOB: [u8; 16] = [7; 16];

    fn changes(sequence: u64) -> Changes {
        let mut changes =
            Changes::at(Identity { job: JOB, incarnation: 1, sequence, changelog_offset: sequence });
        changes.upserts.insert(b"key".to_vec(), sequence.to_be_bytes().to_vec());
        changes
    }

    fn entries(store: &SledShard) -> usize {
        let mut count = 0;
        store
            .scan(&mut |_, _| {
                count += 1;
                ControlFlow::Continue(())
            })
            .unwrap();
        count
    }

    #[test]
    fn a_panic_of_sled_costs_all_shards_their_cache_and_a_wipe_brings_them_back() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::open(dir.path(), JOB).unwrap();
        let mut one = stores.shard(1).unwrap();
        let mut two = stores.shard(2).unwrap();
        one.apply(&changes(1)).unwrap();
        two.apply(&changes(1)).unwrap();

        let failed = one.call(|| -> sled::Result<()> { panic!("as sled does on some damage") });
        assert!(matches!(failed, Err(Error::Damaged { .. })), "{failed:?}");
        assert!(matches!(one.apply(&changes(2)), Err(Error::Damaged { .. })));
        assert!(matches!(two.identity(), Err(Error::Damaged { .. })));
        assert!(matches!(two.apply(&changes(2)), Err(Error::Damaged { .. })));

        for store in [&mut one, &mut two] {
            store.wipe().unwrap();
            assert_eq!(store.identity().unwrap(), None);
            assert_eq!(entries(store), 0);
            store.apply(&changes(3)).unwrap();
            store.sync().unwrap();
        }
        let directory = &one.shared.directory;
        assert!(!directory.database(1).exists());
        assert!(directory.database(2).exists());
        drop((one, two, stores));
        let stores = Stores::open(dir.path(), JOB).unwrap();
        assert_eq!(stores.shard(2).unwrap().identity().unwrap(), Some(changes(3).identity));
    }

    #[test]
    fn a_scan_finds_contents_that_are_not_those_of_the_identity() {
        for (key, value) in
            [(&b"ekey"[..], Some(b"stale")), (b"ekey", None), (b"eother", Some(b"stale")), (META, None)]
        {
            let dir = tempfile::tempdir().unwrap();
            let stores = Stores::open(dir.path(), JOB).unwrap();
            let mut store = stores.shard(1).unwrap();
            let mut changes = changes(1);
            changes.meta = Some(vec![1]);
            store.apply(&changes).unwrap();
            assert_eq!(entries(&store), 1);
            match value {
                Some(value) => store.tree.insert(key, value).unwrap(),
                None => store.tree.remove(key).unwrap(),
            };
            let scanned = store.scan(&mut |_, _| ControlFlow::Continue(()));
            assert!(matches!(scanned, Err(Error::Damaged { .. })), "{scanned:?}");
        }
    }

    #[test]
    fn an_interrupted_apply_is_wiped_at_the_next_start() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::open(dir.path(), JOB).unwrap();
        let mut store = stores.shard(1).unwrap();
        store.apply(&changes(1)).unwrap();
        store.transact(&[], 0, None).unwrap();
        drop((store, stores));
        let stores = Stores::open(dir.path(), JOB).unwrap();
        let store = stores.shard(1).unwrap();
        assert_eq!(store.identity().unwrap(), None);
        assert_eq!(entries(&store), 0);
    }

    #[test]
    fn another_jobs_or_formats_identity_in_the_tree_is_wiped() {
        let seal = Seal { identity: changes(1).identity, sum: 0 };
        let mut newer = seal.to_bytes();
        newer[0] += 1;
        let mut foreign = seal;
        foreign.identity.job = [8; 16];
        for bytes in [newer, foreign.to_bytes()] {
            let dir = tempfile::tempdir().unwrap();
            let stores = Stores::open(dir.path(), JOB).unwrap();
            let mut store = stores.shard(1).unwrap();
            store.apply(&changes(1)).unwrap();
            store.tree.insert(IDENTITY, bytes).unwrap();
            let store = stores.shard(1).unwrap();
            assert_eq!(store.identity().unwrap(), None);
            assert_eq!(entries(&store), 0);
        }
    }
}
