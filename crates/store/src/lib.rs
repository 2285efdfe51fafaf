//! The cache behind the changelog: per shard an ordered map of opaque entries, its meta, and the identity of the last
//! commit included.
//!
//! Promises:
//! - **An apply is atomic**, identity and meta included: whatever happens, a store is found at an identity with exactly
//!   the contents of that identity, or empty with none.
//! - **It is a cache.** What is lost, foreign, of another format or damaged is wiped with one log line and rebuilt from
//!   the changelog by the caller; nothing sled does, panics included, leaves this crate except as an [`Error`].
//! - **A complete scan proves it.** Damaged files may hold a mixture of states; the scan that restores a shard then ends in
//!   an error. Scan a shard that has an identity before the first apply to it.
//! - **After an error from a store, [`ShardStore::wipe`] it.** A wiped store is empty and without identity: the next
//!   apply has to carry the whole state of the shard, not a difference.
//! - Calls block on the disk: keep them off the async executor's threads.
//!
//! ```text
//! <dir>/lock                          held by the process that owns the directory, with its pid
//! <dir>/cache-<format>-<job>-<n>/     one sled database; n grows when a damaged one is given up
//!     tree "shard-<s>"                i → identity   m → meta   e<key> → value
//!     tree "chunks-<s>"               name → chunk of spilled rows
//! ```
//! Beside them are files without names, one for each shard that needs scratch ([`ScratchFile`]).

mod changes;
mod chunks;
mod database;
mod directory;
mod memory;
mod scratch;
mod shard;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

pub use changes::{Changes, FORMAT, Identity};
pub use chunks::SledChunks;
pub use database::Stores;
pub use memory::MemoryStore;
pub use scratch::ScratchFile;
pub use shard::SledShard;

/// What can go wrong with a store.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process owns the directory.
    #[error(
        "the state directory {} is in use by {}: stop that process, or give this worker a directory of its own",
        .dir.display(),
        .holder.map_or_else(|| "another process".to_owned(), |pid| format!("process {pid}"))
    )]
    Locked {
        /// The directory.
        dir: PathBuf,
        /// The process that holds it, if it said so.
        holder: Option<u32>,
    },
    /// The file system refused; wiping does not help.
    #[error("cannot {what} {}: {source}; check that the state directory is writable and has space", .path.display())]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file or directory.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The database of the process was damaged and given up, with all its shards: wipe this shard and write it anew.
    #[error("the cache in {} was damaged and is lost, with all its shards: rebuild it from the changelog", .dir.display())]
    Damaged {
        /// The state directory.
        dir: PathBuf,
    },
}

/// What a scan calls with each key and value; breaking ends the scan.
pub type Visit<'a> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'a;

/// One shard's part of the cache.
pub trait ShardStore: Send {
    /// The last commit included; `None` in an empty store.
    ///
    /// # Errors
    /// [`Error::Damaged`]
    fn identity(&self) -> Result<Option<Identity>, Error>;

    /// The meta bytes last applied.
    ///
    /// # Errors
    /// [`Error::Damaged`]
    fn meta(&self) -> Result<Option<Vec<u8>>, Error>;

    /// Calls `visit` with each key and value in key order until it breaks.
    ///
    /// # Errors
    /// [`Error::Damaged`], possibly after all entries were visited: believe them when the scan has ended well.
    fn scan(&self, visit: &mut Visit<'_>) -> Result<(), Error>;

    /// Applies all of `changes` or, if the process dies or the call fails, none; in memory until synced.
    ///
    /// # Errors
    /// [`Error::Damaged`]; the store is of no use until it is wiped.
    fn apply(&mut self, changes: &Changes) -> Result<(), Error>;

    /// Empties the store; after [`Error::Damaged`] this makes it usable again.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`]
    fn wipe(&mut self) -> Result<(), Error>;

    /// Makes what was applied outlive a loss of power.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`]
    fn sync(&mut self) -> Result<(), Error>;
}
