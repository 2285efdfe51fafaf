//! The store in memory, for `memory` state and the simulation: it keeps the promises of [`ShardStore`] and can crash.

use std::collections::BTreeMap;

use crate::{Changes, Error, Identity, ShardStore, Visit};

/// A [`ShardStore`] in memory.
///
/// A crash loses what was applied since the last [`sync`](ShardStore::sync), whole applies at a time and the newest
/// first, as sled does.
#[derive(Clone, Debug, Default)]
pub struct MemoryStore {
    current: State,
    synced: State,
    unsynced: Vec<Step>,
}

#[derive(Clone, Debug, Default)]
struct State {
    entries: BTreeMap<Vec<u8>, Vec<u8>>,
    meta: Option<Vec<u8>>,
    identity: Option<Identity>,
}

#[derive(Clone, Debug)]
enum Step {
    Apply(Changes),
    Wipe,
}

impl State {
    fn step(&mut self, step: &Step) {
        match step {
            Step::Apply(changes) => self.apply(changes),
            Step::Wipe => *self = Self::default(),
        }
    }

    fn apply(&mut self, changes: &Changes) {
        let upserts = changes.upserts.iter();
        self.entries.extend(upserts.map(|(key, value)| (key.clone(), value.clone())));
        for key in &changes.deletes {
            self.entries.remove(key);
        }
        for (from, to) in changes.purge_below.iter().filter(|(from, to)| from < to) {
            let mut kept = self.entries.split_off(from);
            self.entries.append(&mut kept.split_off(to));
        }
        if changes.meta.is_some() {
            self.meta.clone_from(&changes.meta);
        }
        self.identity = Some(changes.identity);
    }
}

impl MemoryStore {
    /// An empty store.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Loses everything that was not synced.
    pub fn crash(&mut self) {
        self.crash_keeping(0);
    }

    /// Crashes; the first `survivors` applies since the last sync had reached the disk by chance.
    pub fn crash_keeping(&mut self, survivors: usize) {
        for step in self.unsynced.drain(..).take(survivors) {
            self.synced.step(&step);
        }
        self.current = self.synced.clone();
    }

    /// How many applies and wipes a crash may lose.
    #[must_use]
    pub fn unsynced(&self) -> usize {
        self.unsynced.len()
    }
}

impl ShardStore for MemoryStore {
    fn identity(&self) -> Result<Option<Identity>, Error> {
        Ok(self.current.identity)
    }

    fn meta(&self) -> Result<Option<Vec<u8>>, Error> {
        Ok(self.current.meta.clone())
    }

    fn scan(&self, visit: &mut Visit<'_>) -> Result<(), Error> {
        for (key, value) in &self.current.entries {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }

    fn apply(&mut self, changes: &Changes) -> Result<(), Error> {
        self.current.apply(changes);
        self.unsynced.push(Step::Apply(changes.clone()));
        Ok(())
    }

    fn wipe(&mut self) -> Result<(), Error> {
        self.current = State::default();
        self.unsynced.push(Step::Wipe);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        for step in self.unsynced.drain(..) {
            self.synced.step(&step);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(sequence: u64) -> Changes {
        let mut changes =
            Changes::at(Identity { job: [1; 16], incarnation: 1, sequence, changelog_offset: sequence });
        changes.upserts.insert(sequence.to_be_bytes().to_vec(), vec![1]);
        changes
    }

    fn sequence(store: &MemoryStore) -> Option<u64> {
        store.identity().unwrap().map(|identity| identity.sequence)
    }

    #[test]
    fn a_crash_loses_what_was_not_synced_and_nothing_else() {
        let mut store = MemoryStore::new();
        store.apply(&at(1)).unwrap();
        store.sync().unwrap();
        store.apply(&at(2)).unwrap();
        store.apply(&at(3)).unwrap();
        store.apply(&at(4)).unwrap();
        assert_eq!(store.unsynced(), 3);
        store.crash_keeping(1);
        assert_eq!(sequence(&store), Some(2));
        assert_eq!(store.current.entries.len(), 2);
        store.wipe().unwrap();
        assert_eq!(sequence(&store), None);
        store.crash();
        assert_eq!(sequence(&store), Some(2));
    }
}
