//! How often the result of each group key has been emitted: only in windows that late or replayed records changed.

use std::collections::BTreeMap;

use crate::time::EventTime;

/// Results emitted, by window end and group key.
#[derive(Clone, Debug, Default)]
pub(super) struct Revisions {
    windows: BTreeMap<EventTime, BTreeMap<Vec<u8>, u32>>,
    written_bytes: usize,
}

/// What an entry takes in a log beside its key: kinds, lengths, end and number.
const ENTRY_BYTES: usize = 14;

impl Revisions {
    pub(super) fn get(&self, end: EventTime, key: &[u8]) -> Option<u32> {
        self.windows.get(&end)?.get(key).copied()
    }

    pub(super) fn set(&mut self, end: EventTime, key: &[u8], emitted: u32) {
        let keys = self.windows.entry(end).or_default();
        match keys.get_mut(key) {
            Some(known) => *known = emitted,
            None => {
                keys.insert(key.to_vec(), emitted);
                self.written_bytes += ENTRY_BYTES + key.len();
            }
        }
    }

    pub(super) fn remove(&mut self, end: EventTime, key: &[u8]) {
        if let Some(keys) = self.windows.get_mut(&end)
            && keys.remove(key).is_some()
        {
            self.written_bytes -= ENTRY_BYTES + key.len();
        }
    }

    /// Forgets the windows that ended at or before `purged`.
    pub(super) fn purge(&mut self, purged: EventTime) {
        while let Some(window) = self.windows.first_entry().filter(|window| *window.key() <= purged) {
            let keys = window.remove();
            self.written_bytes -= keys.keys().map(|key| ENTRY_BYTES + key.len()).sum::<usize>();
        }
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (EventTime, &Vec<u8>, u32)> {
        self.windows
            .iter()
            .flat_map(|(end, keys)| keys.iter().map(move |(key, emitted)| (*end, key, *emitted)))
    }

    /// What they take in a log, about.
    pub(super) const fn written_bytes(&self) -> usize {
        self.written_bytes
    }
}
