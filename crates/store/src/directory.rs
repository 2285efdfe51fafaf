//! The state directory of a worker process: its lock, and which database in it is ours.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::{Error, FORMAT};

/// How often, and how far apart, a held lock is tried again: a killed process may take a moment to be gone.
const LOCK_TRIES: usize = 20;
const LOCK_PAUSE: Duration = Duration::from_millis(50);

/// A state directory that this process owns.
#[derive(Debug)]
pub(crate) struct Directory {
    path: PathBuf,
    /// What the names of this job's databases in this format begin with.
    prefix: String,
    _lock: File,
}

impl Directory {
    /// Creates and locks `path`, and removes the databases of other jobs and formats, and all of ours but the newest.
    /// Returns the newest one's number. Files that are not named as a database of ours are left alone.
    pub(crate) fn open(path: &Path, job: [u8; 16]) -> Result<(Self, u64), Error> {
        fs::create_dir_all(path).map_err(failed("create the state directory", path))?;
        let job = u128::from_be_bytes(job);
        let directory =
            Self { path: path.to_owned(), prefix: format!("cache-{FORMAT}-{job:032x}-"), _lock: lock(path)? };
        let newest = directory.clear()?;
        Ok((directory, newest))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Where database `number` lies.
    pub(crate) fn database(&self, number: u64) -> PathBuf {
        self.path.join(format!("{}{number}", self.prefix))
    }

    /// Removes database `number`, as far as the file system lets us: what stays is removed at the next start.
    pub(crate) fn remove(&self, number: u64) {
        let path = self.database(number);
        match fs::remove_dir_all(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %path.display(), %error, "cannot remove a damaged cache");
            }
            Ok(()) | Err(_) => {}
        }
    }

    fn clear(&self) -> Result<u64, Error> {
        let listing = failed("list", &self.path);
        let mut ours = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(&listing)? {
            let name = entry.map_err(&listing)?.file_name();
            let Some(name) = name.to_str().filter(|name| name.starts_with("cache-")) else {
                continue;
            };
            let number = name.strip_prefix(&self.prefix).map(str::parse);
            if let Some(Ok(number)) = number {
                ours.push(number);
                continue;
            }
            let path = self.path.join(name);
            tracing::warn!(path = %path.display(), "wiped a cache of another job or format");
            remove_any(&path).map_err(failed("remove", &path))?;
        }
        ours.sort_unstable();
        let newest = ours.pop().unwrap_or(1);
        for number in ours {
            self.remove(number);
        }
        Ok(newest)
    }
}

/// An [`Error::Io`] from what was tried on `path`.
pub(crate) fn failed(what: &'static str, path: &Path) -> impl Fn(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { what, path: path.clone(), source }
}

fn remove_any(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) }
}

fn lock(dir: &Path) -> Result<File, Error> {
    let path = dir.join("lock");
    let mut file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(failed("open", &path))?;
    for _ in 0..LOCK_TRIES {
        match file.try_lock() {
            Ok(()) => {
                let pid = std::process::id();
                file.set_len(0)
                    .and_then(|()| file.rewind())
                    .and_then(|()| writeln!(file, "{pid}"))
                    .map_err(failed("write", &path))?;
                return Ok(file);
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PAUSE),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path)(source)),
        }
    }
    let mut holder = String::new();
    let read = file.read_to_string(&mut holder);
    Err(Error::Locked { dir: dir.to_owned(), holder: read.ok().and_then(|_| holder.trim().parse().ok()) })
}
