//! Room outside memory for what follows from the state and is made anew after a restore.
//!
//! Pages are written, read and freed by their owner, at once: nothing of them outlives it, and nothing but it knows where they are.

use std::fmt::Debug;

use thiserror::Error;
use xxhash_rust::xxh3::xxh3_64;

use crate::{aggregate::put_varint, entry::take_u64};

/// Where pages are kept: a file without a name, or memory in a simulation.
pub trait Scratch: Debug + Send {
    /// Keeps `bytes`; gives where.
    ///
    /// # Errors
    /// Why there is no room.
    fn write(&mut self, bytes: &[u8]) -> Result<u64, String>;

    /// Reads what was kept there; `into` is as long as that.
    ///
    /// # Errors
    /// Why it is not to be had.
    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), String>;

    /// Forgets the `length` bytes that were kept there.
    fn free(&mut self, at: u64, length: usize);
}

/// Scratch that took no page, or did not give back what it was given.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the scratch file of sliding windows {0}")]
pub struct ScratchError(pub(crate) String);

/// A page that is kept. It proves itself by its sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    at: u64,
    length: usize,
    sum: u64,
}

/// The pages of an owner.
#[derive(Debug)]
pub(crate) struct Pages {
    scratch: Box<dyn Scratch>,
    bytes: usize,
}

impl Page {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.at, self.length as u64, self.sum] {
            put_varint(out, u128::from(number));
        }
    }

    pub(crate) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let (at, length) = (take_u64(bytes)?, usize::try_from(take_u64(bytes)?).ok()?);
        Some(Self { at, length, sum: take_u64(bytes)? })
    }
}

impl Pages {
    pub(crate) const fn new(scratch: Box<dyn Scratch>) -> Self {
        Self { scratch, bytes: 0 }
    }

    /// Bytes that are kept.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<Page, ScratchError> {
        let at = self.scratch.write(bytes).map_err(|why| ScratchError(format!("took no page: {why}")))?;
        self.bytes += bytes.len();
        Ok(Page { at, length: bytes.len(), sum: xxh3_64(bytes) })
    }

    /// Gives what a page holds, and forgets it.
    pub(crate) fn take(&mut self, page: Page) -> Result<Vec<u8>, ScratchError> {
        let bytes = self.read(page)?;
        self.free(page);
        Ok(bytes)
    }

    /// Gives what a page holds.
    pub(crate) fn read(&mut self, page: Page) -> Result<Vec<u8>, ScratchError> {
        let mut bytes = vec![0; page.length];
        self.scratch
            .read(page.at, &mut bytes)
            .map_err(|why| ScratchError(format!("does not read: {why}")))?;
        if xxh3_64(&bytes) != page.sum {
            return Err(damaged());
        }
        Ok(bytes)
    }

    pub(crate) fn free(&mut self, page: Page) {
        self.scratch.free(page.at, page.length);
        self.bytes -= page.length;
    }
}

/// What is in a page is not what was written.
pub(crate) fn damaged() -> ScratchError {
    ScratchError("gives back another page than it was given: look at the disk".to_owned())
}
