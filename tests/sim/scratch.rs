//! Scratch of an owner, which goes with it, and may have no room.

use std::collections::BTreeMap;

use tidegate_core::scratch::Scratch;

/// Pages by where they are.
#[derive(Debug, Default)]
pub struct OwnersScratch {
    pages: BTreeMap<u64, Vec<u8>>,
    next: u64,
    /// As many pages does it take.
    room: Option<u64>,
}

impl OwnersScratch {
    pub fn new(room: Option<u64>) -> Self {
        Self { room, ..Self::default() }
    }
}

impl Scratch for OwnersScratch {
    fn write(&mut self, bytes: &[u8]) -> Result<u64, String> {
        if self.room == Some(self.next) {
            return Err("the disk is full".to_owned());
        }
        self.next += 1;
        self.pages.insert(self.next, bytes.to_vec());
        Ok(self.next)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), String> {
        let page = self.pages.get(&at).ok_or_else(|| format!("no page is at {at}"))?;
        assert_eq!(page.len(), into.len(), "a page is read as long as it is");
        into.copy_from_slice(page);
        Ok(())
    }

    fn free(&mut self, at: u64, length: usize) {
        let page = self.pages.remove(&at);
        assert_eq!(page.map(|page| page.len()), Some(length), "a page is freed once, and whole");
    }
}
