//! Where looks for single keys have come to: keys that are looked up in order read each chunk once.

use std::{collections::BTreeMap, sync::Arc};

use super::{CHECKSUM, Part, Runs, Unreadable, take_row};

/// One chunk of each part at most, by the part's number. Chunks never change, so that what is here holds as long as the part is there.
#[derive(Debug, Default)]
pub(crate) struct Looks(BTreeMap<u64, Look>);

#[derive(Debug)]
struct Look {
    index: usize,
    bytes: Arc<[u8]>,
    /// All rows before this are before `key`, the one that was looked up last.
    at: usize,
    key: Vec<u8>,
}

impl Looks {
    /// What `take` makes of the row that `key` has in a part; its `None` is a row that does not read.
    pub(crate) fn with_row<T>(
        &mut self,
        runs: &Runs,
        part: &Part,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> Option<T>,
    ) -> Result<Option<T>, Unreadable> {
        let Some(index) = part.chunk_of(key) else { return Ok(None) };
        if self.0.get(&part.file).is_none_or(|look| look.index != index) {
            let bytes = runs.read(part, index)?;
            self.0.insert(part.file, Look { index, bytes, at: CHECKSUM, key: Vec::new() });
        }
        let Some(look) = self.0.get_mut(&part.file) else { return Ok(None) };
        if *key < *look.key {
            look.at = CHECKSUM;
        }
        look.key.clear();
        look.key.extend_from_slice(key);
        let mut rest = look.bytes.get(look.at..).unwrap_or_default();
        loop {
            look.at = look.bytes.len() - rest.len();
            match take_row(&mut rest) {
                Some((other, value)) if other == key => {
                    return take(value).map(Some).ok_or_else(|| part.damaged(index));
                }
                Some((other, _)) if other < key => {}
                _ => return Ok(None),
            }
        }
    }
}
