//! The database of a worker process in sled: opened, synced, and given up when it is damaged.
//!
//! What has to be known about sled 0.34.7:
//! - `flush` hands the log to the kernel and no further, and values that make a page larger than 128 KiB go to files of
//!   their own that are never synced: [`Stores::sync`] syncs both.
//! - It panics on some damage. Then, as after an error, the whole database is given up: a new one is opened beside it, its
//!   files are removed, its handle is leaked (dropping it could panic or hang), and every shard hears of it.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::directory::{Directory, failed};
use crate::{Error, ScratchFile, SledShard};

/// Memory for sled's pages: it holds what is being written; the shards hold their state themselves, and read spilled rows in order.
const PAGE_CACHE_BYTES: u64 = 16 << 20;

/// Tries to open a database that was closed a moment ago: sled's own threads give up its lock a little later.
const OPEN_TRIES: usize = 40;
const OPEN_PAUSE: Duration = Duration::from_millis(50);

/// The caches of all shards of one worker process, in one directory.
#[derive(Clone, Debug)]
pub struct Stores {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) directory: Directory,
    pub(crate) job: [u8; 16],
    current: Mutex<Current>,
    /// The files of large values that need no sync any more.
    synced_blobs: Mutex<HashSet<OsString>>,
}

/// The database in use; `db` is `None` when it was given up and no new one could be opened.
#[derive(Debug)]
struct Current {
    number: u64,
    db: Option<sled::Db>,
}

impl Stores {
    /// Opens the cache of `job` in `dir`, creating what is missing and wiping what is foreign or damaged.
    ///
    /// # Errors
    /// [`Error::Locked`] after a second of trying, [`Error::Io`]
    pub fn open(dir: &Path, job: [u8; 16]) -> Result<Self, Error> {
        let (directory, number) = Directory::open(dir, job)?;
        let mut current = Current { number, db: None };
        match open_database(&directory.database(number)) {
            Ok(db) => current.db = Some(db),
            Err(cause) => {
                let path = directory.database(number);
                tracing::warn!(path = %path.display(), error = %cause.0, "wiped a damaged cache");
                current.replace(&directory)?;
            }
        }
        Ok(Self {
            shared: Arc::new(Shared {
                directory,
                job,
                current: Mutex::new(current),
                synced_blobs: Mutex::default(),
            }),
        })
    }

    /// The store of one shard: at an identity of this job, or empty. Ask once for each shard owned.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`] if even a new database fails
    pub fn shard(&self, shard: u32) -> Result<SledShard, Error> {
        SledShard::open(shard, Arc::clone(&self.shared))
    }

    /// Room for one shard that lasts as long as its owner.
    #[must_use]
    pub fn scratch(&self) -> ScratchFile {
        ScratchFile::new(self.shared.directory.path())
    }

    /// Makes what was applied to any shard outlive a loss of power.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Damaged`]
    pub fn sync(&self) -> Result<(), Error> {
        self.shared.sync()
    }
}

impl Shared {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether database `number` is still the one in use.
    pub(crate) fn in_use(&self, number: u64) -> bool {
        self.current().number == number
    }

    /// The trees of `shard`, of entries and of chunks, emptied or as they are, and the number of their database; in a new database
    /// if this one fails.
    pub(crate) fn open_trees(&self, shard: u32, empty: bool) -> Result<([sled::Tree; 2], u64), Error> {
        match self.try_open_trees(shard, empty) {
            Err(Error::Damaged { .. }) => self.try_open_trees(shard, empty),
            opened => opened,
        }
    }

    fn try_open_trees(&self, shard: u32, empty: bool) -> Result<([sled::Tree; 2], u64), Error> {
        let (db, number) = {
            let mut current = self.current();
            if current.db.is_none() {
                current.replace(&self.directory)?;
            }
            (current.db.clone(), current.number)
        };
        let Some(db) = db else { return Err(self.damaged()) };
        let open = |kind: &str| {
            let name = format!("{kind}-{shard}");
            if empty {
                db.drop_tree(&name)?;
            }
            db.open_tree(&name)
        };
        // Entries first: chunks without entries that name them are of no harm.
        match guarded(|| Ok([open("shard")?, open("chunks")?])) {
            Ok(trees) => Ok((trees, number)),
            Err(cause) => Err(self.give_up(number, &cause)),
        }
    }

    pub(crate) fn sync(&self) -> Result<(), Error> {
        let (db, number) = {
            let current = self.current();
            (current.db.clone(), current.number)
        };
        let Some(db) = db else { return Err(self.damaged()) };
        if let Err(cause) = guarded(|| db.flush()) {
            return Err(self.give_up(number, &cause));
        }
        let path = self.directory.database(number);
        match self.sync_files(&path) {
            // Another shard gave the database up, and its files with it.
            Err(_) if !self.in_use(number) => Err(self.damaged()),
            synced => synced.map_err(failed("sync", &path)),
        }
    }

    fn sync_files(&self, path: &Path) -> io::Result<()> {
        let mut synced = self.synced_blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut present = HashSet::new();
        for entry in fs::read_dir(path.join("blobs"))? {
            let name = entry?.file_name();
            if !synced.contains(&name) {
                match File::open(path.join("blobs").join(&name)) {
                    Ok(file) => file.sync_data()?,
                    // Removed by sled since it was listed.
                    Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                    Err(error) => return Err(error),
                }
            }
            present.insert(name);
        }
        if !present.is_subset(&synced) {
            File::open(path.join("blobs"))?.sync_all()?;
        }
        *synced = present;
        File::open(path.join("db"))?.sync_data()
    }

    /// Replaces database `number`, unless another shard has done so already.
    pub(crate) fn give_up(&self, number: u64, cause: &Cause) -> Error {
        let mut current = self.current();
        if current.number == number && current.db.is_some() {
            let path = self.directory.database(number);
            tracing::warn!(path = %path.display(), error = %cause.0, "gave up a damaged cache");
            if let Err(error) = current.replace(&self.directory) {
                tracing::warn!(%error, "cannot open a new cache");
            }
        }
        self.damaged()
    }

    pub(crate) fn damaged(&self) -> Error {
        Error::Damaged { dir: self.directory.path().to_owned() }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let db = self.current().db.take();
        if let Err(cause) = guarded(|| {
            drop(db);
            Ok(())
        }) {
            tracing::warn!(error = %cause.0, "the cache failed as it was closed");
        }
    }
}

impl Current {
    /// Leaks and removes the database in use and opens an empty one under the next number.
    fn replace(&mut self, directory: &Directory) -> Result<(), Error> {
        std::mem::forget(self.db.take());
        directory.remove(self.number);
        self.number = self.number.saturating_add(1);
        let path = directory.database(self.number);
        directory.remove(self.number);
        let opened = open_database(&path).map_err(|cause| io::Error::other(cause.0));
        self.db = Some(opened.map_err(failed("open a new cache in", &path))?);
        Ok(())
    }
}

/// Why a call of sled failed: its error, or its panic.
pub(crate) struct Cause(pub(crate) String);

pub(crate) fn guarded<T>(work: impl FnOnce() -> sled::Result<T>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| Cause(error.to_string())),
        Err(panic) => {
            let text = panic.downcast_ref::<&str>().copied();
            let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
            Err(Cause(format!("sled panicked: {}", text.unwrap_or("without a message"))))
        }
    }
}

fn open_database(path: &Path) -> Result<sled::Db, Cause> {
    let mut tries = 1;
    loop {
        let opened = guarded(|| sled::Config::new().path(path).cache_capacity(PAGE_CACHE_BYTES).open());
        match opened {
            Err(cause) if cause.0.contains("could not acquire lock") && tries < OPEN_TRIES => {
                tries += 1;
                thread::sleep(OPEN_PAUSE);
            }
            other => return other,
        }
    }
}
