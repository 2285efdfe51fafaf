//! Chunks of spilled rows: values that are written once, read by name, and removed with their slice.
//!
//! They lie in a tree of their own beside the shard's entries. Each is an insert of its own, not part of a transaction: nothing refers
//! to a chunk before the entries that name it are applied, and whoever reads one proves it by its own sum.
//!
//! What has to be known about sled 0.34.7: it keeps its cache to the size it is given with values of 4 KB (320 MB written and read:
//! 47 MB resident for a cache of 16 MiB); with 15 KB or more it does not (330 MB resident), because large pages go to files that its
//! cache does not count.

use std::sync::Arc;

use crate::database::{Shared, guarded};
use crate::{Error, SledShard};

/// The chunks of one shard; a handle may be cloned, and read from any thread.
#[derive(Clone, Debug)]
pub struct SledChunks {
    pub(crate) number: u64,
    pub(crate) tree: sled::Tree,
    pub(crate) shared: Arc<Shared>,
}

impl SledChunks {
    /// The chunk of this name.
    ///
    /// # Errors
    /// [`Error::Damaged`], also where the store has been wiped since the handle was made.
    pub fn get(&self, name: &[u8]) -> Result<Option<Arc<[u8]>>, Error> {
        Ok(self.call(|| self.tree.get(name))?.map(|bytes| bytes.as_ref().into()))
    }

    fn call<T>(&self, work: impl FnOnce() -> sled::Result<T>) -> Result<T, Error> {
        if !self.shared.in_use(self.number) {
            return Err(self.shared.damaged());
        }
        guarded(work).map_err(|cause| self.shared.give_up(self.number, &cause))
    }
}

impl SledShard {
    /// A handle to the chunks, good until the store is wiped.
    #[must_use]
    pub const fn chunks(&self) -> &SledChunks {
        &self.chunks
    }

    /// Writes a chunk.
    ///
    /// # Errors
    /// [`Error::Damaged`]
    pub fn put_chunk(&mut self, name: &[u8], bytes: &[u8]) -> Result<(), Error> {
        self.chunks.call(|| self.chunks.tree.insert(name, bytes).map(drop))
    }

    /// Removes a chunk, if it is there.
    ///
    /// # Errors
    /// [`Error::Damaged`]
    pub fn remove_chunk(&mut self, name: &[u8]) -> Result<(), Error> {
        self.chunks.call(|| self.chunks.tree.remove(name).map(drop))
    }

    /// Removes the chunks whose names are below `bound`.
    ///
    /// # Errors
    /// [`Error::Damaged`]
    pub fn remove_chunks_below(&mut self, bound: &[u8]) -> Result<(), Error> {
        let mut names = self.chunks.call(|| Ok(self.chunks.tree.range(..bound).keys()))?;
        while let Some(name) = self.chunks.call(|| names.next().transpose())? {
            self.chunks.call(|| self.chunks.tree.remove(&name).map(drop))?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::{Error, ShardStore, Stores};

    #[test]
    fn chunks_are_found_until_they_are_removed_and_no_handle_outlives_a_wipe() {
        let dir = tempfile::tempdir().unwrap();
        let stores = Stores::open(dir.path(), [7; 16]).unwrap();
        let mut shard = stores.shard(0).unwrap();
        for name in 0u8..5 {
            shard.put_chunk(&[name, 1], &[name; 4_000]).unwrap();
        }
        let chunks = shard.chunks().clone();
        shard.remove_chunk(&[4, 1]).unwrap();
        shard.remove_chunks_below(&[2]).unwrap();
        let found = (0u8..5).filter(|name| chunks.get(&[*name, 1]).unwrap().is_some());
        assert_eq!(found.collect::<Vec<_>>(), [2, 3]);
        drop(shard);
        let mut shard = stores.shard(0).unwrap();
        assert_eq!(chunks.get(&[2, 1]).unwrap().as_deref(), Some(&[2; 4_000][..]), "as it was left");
        shard.wipe().unwrap();
        assert_eq!(shard.chunks().get(&[2, 1]).unwrap(), None);
        assert!(matches!(chunks.get(&[2, 1]), Ok(None) | Err(Error::Damaged { .. })));
    }
}
