//! Room on the disk for what its owner needs no longer than it lives: a file without a name, made with the first write.
//!
//! ```text
//! | 512 | 4096          | 512 |free | 8192            …    a slot is the next power of two; freed ones are used again
//! ```
//! Nothing is synced: with the process the file is gone. Calls block, mostly on the kernel's page cache.

use std::{
    collections::BTreeMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

/// The smallest slot.
const LEAST: u64 = 512;

/// A file without a name.
#[derive(Debug)]
pub struct ScratchFile {
    folder: PathBuf,
    file: Option<File>,
    /// Free slots by their size.
    free: BTreeMap<u64, Vec<u64>>,
    end: u64,
    used: u64,
}

impl ScratchFile {
    /// A file in `folder`.
    #[must_use]
    pub fn new(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), file: None, free: BTreeMap::new(), end: 0, used: 0 }
    }

    /// Keeps `bytes`, and gives where.
    ///
    /// # Errors
    /// What the file system says: often that there is no space.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<u64> {
        let file = match &self.file {
            Some(file) => file,
            None => self.file.insert(tempfile::tempfile_in(&self.folder)?),
        };
        let size = slot(bytes.len());
        let at = self.free.get_mut(&size).and_then(Vec::pop);
        let at = at.unwrap_or(self.end);
        file.write_all_at(bytes, at)?;
        self.end = self.end.max(at + size);
        self.used += size;
        Ok(at)
    }

    /// Reads what was kept at a place.
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&self, at: u64, into: &mut [u8]) -> io::Result<()> {
        let file = self.file.as_ref().ok_or_else(|| io::Error::other("nothing was written"))?;
        file.read_exact_at(into, at)
    }

    /// Forgets the `length` bytes at a place. With the last ones the disk gets its room back.
    pub fn free(&mut self, at: u64, length: usize) {
        let size = slot(length);
        self.used = self.used.saturating_sub(size);
        if self.used > 0 {
            self.free.entry(size).or_default().push(at);
            return;
        }
        (self.free, self.end) = (BTreeMap::new(), 0);
        if let Some(file) = &self.file
            && let Err(error) = file.set_len(0)
        {
            tracing::debug!(%error, "a scratch file stays as long as it was");
        }
    }
}

fn slot(length: usize) -> u64 {
    (length as u64).next_power_of_two().max(LEAST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_read_as_written_and_slots_used_again() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = ScratchFile::new(folder.path());
        let pages: Vec<Vec<u8>> = (1..40u8).map(|at| vec![at; usize::from(at) * 100]).collect();
        let mut kept: Vec<_> = pages.iter().map(|page| file.write(page).unwrap()).collect();
        let end = file.end;
        for round in 0..10 {
            for (page, at) in pages.iter().zip(&mut kept).skip(round % 3).step_by(3) {
                let mut read = vec![0; page.len()];
                file.read(*at, &mut read).unwrap();
                assert_eq!(read, *page);
                file.free(*at, page.len());
                *at = file.write(page).unwrap();
            }
        }
        assert_eq!(file.end, end, "no slot is lost");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "the file has no name");
        for (page, at) in pages.iter().zip(kept) {
            file.free(at, page.len());
        }
        assert_eq!(file.file.unwrap().metadata().unwrap().len(), 0, "the disk has its room back");
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error_of_the_write() {
        let mut file = ScratchFile::new(Path::new("no such folder"));
        assert_eq!(file.write(b"x").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
