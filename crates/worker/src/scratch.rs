//! Where what sliding windows span goes beyond the shard's memory: a file that lasts as long as the owner.

use tidegate_core::scratch::Scratch;
use tidegate_store::{ScratchFile, Stores};

/// A scratch file, as a shard uses it.
#[derive(Debug)]
pub(crate) struct SpanScratch(ScratchFile);

impl SpanScratch {
    pub(crate) fn new(stores: &Stores) -> Self {
        Self(stores.scratch())
    }
}

impl Scratch for SpanScratch {
    fn write(&mut self, bytes: &[u8]) -> Result<u64, String> {
        self.0.write(bytes).map_err(|error| error.to_string())
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), String> {
        self.0.read(at, into).map_err(|error| error.to_string())
    }

    fn free(&mut self, at: u64, length: usize) {
        self.0.free(at, length);
    }
}
