//! Parts of a slice that have become many are merged into one, away from the record path.

use std::{collections::BTreeMap, sync::Arc};

use super::{ChunkId, Merge, MergedRow, Part, PartWriter, Runs, Unreadable, Walk};
use crate::{
    aggregate::Layout,
    fragments::{BY_KEY, KeyRow, drop_ended, join, take_key},
    slices::Slices,
    time::{EventTime, Watermark},
};

/// A slice with so many parts is compacted.
const MANY: usize = 8;
/// At least so many are merged at once.
const AT_LEAST: usize = 4;

/// Parts of a slice to be merged into one: what a worker does on a thread of its own.
#[derive(Debug)]
pub struct Compaction {
    slice: EventTime,
    inputs: Vec<Arc<Part>>,
    runs: Runs,
    layout: Arc<Layout>,
    writer: PartWriter,
    merging: Merging,
}

/// How rows of a key become one.
#[derive(Clone, Copy, Debug)]
enum Merging {
    /// Partial aggregates of a slice.
    Rows,
    /// Fragments of sessions.
    Fragments,
    /// Fragments of sessions, and these are all there are: those that ended by then go.
    AllFragments(Watermark),
}

impl Runs {
    /// A compaction that is due. Runs up to `boundary` are never merged with later ones: a snapshot walks the former only.
    pub(crate) fn compaction(&mut self, boundary: Option<u64>, layout: &Arc<Layout>) -> Option<Compaction> {
        let inputs = self.slices.values().find_map(|parts| due(parts, boundary))?;
        self.compaction_of(inputs, Merging::Rows, layout)
    }

    /// The same of the fragments of sessions.
    pub(crate) fn compaction_of_sessions(
        &mut self,
        boundary: Option<u64>,
        layout: &Arc<Layout>,
    ) -> Option<Compaction> {
        let inputs = due(self.of_slice(BY_KEY), boundary)?;
        self.compaction_of(inputs, Merging::Fragments, layout)
    }

    /// A compaction of all runs up to `run`, with which sessions go that ended by `purged`: no later record is to touch these, so
    /// that memory must have been empty when `run` had been written, at this X. `None` where the boundary or nothing is in between.
    pub(crate) fn purge_of_sessions(
        &mut self,
        (run, purged): (u64, Watermark),
        boundary: Option<u64>,
        layout: &Arc<Layout>,
    ) -> Option<Compaction> {
        if boundary.is_some_and(|boundary| boundary < run) {
            return None;
        }
        let inputs = self.of_slice(BY_KEY).iter().filter(|part| part.run <= run).cloned().collect();
        self.compaction_of(inputs, Merging::AllFragments(purged), layout)
    }

    fn compaction_of(
        &mut self,
        inputs: Vec<Arc<Part>>,
        merging: Merging,
        layout: &Arc<Layout>,
    ) -> Option<Compaction> {
        let newest = inputs.last()?;
        let (slice, run) = (newest.slice, newest.run);
        let writer = self.writer(slice, run);
        let runs = Self { slices: BTreeMap::new(), store: self.store.clone(), ..*self };
        Some(Compaction { slice, inputs, runs, layout: Arc::clone(layout), writer, merging })
    }
}

/// The newest parts, up to one that is more than twice as large as those after it: so a row is rewritten a few times in all, however
/// many runs there are.
fn due(parts: &[Arc<Part>], boundary: Option<u64>) -> Option<Vec<Arc<Part>>> {
    if parts.len() < MANY {
        return None;
    }
    let split = parts.partition_point(|part| boundary.is_some_and(|boundary| part.run <= boundary));
    let (before, after) = parts.split_at(split);
    let group = [after, before].into_iter().find(|group| group.len() >= MANY)?;
    let (mut taken, mut bytes) = (0, 0);
    for part in group.iter().rev() {
        if taken >= AT_LEAST && part.bytes > 2 * bytes {
            break;
        }
        taken += 1;
        bytes += part.bytes;
    }
    Some(group.iter().skip(group.len() - taken).cloned().collect())
}

impl Compaction {
    /// Merges; `store` is given each chunk of the output as it is full.
    ///
    /// # Errors
    /// An input that does not read, or what `store` says.
    pub fn run<E: From<Unreadable>>(
        mut self,
        mut store: impl FnMut(ChunkId, Arc<[u8]>) -> Result<(), E>,
    ) -> Result<Compacted, E> {
        match self.merging {
            Merging::Rows => self.merge_rows(&mut store)?,
            Merging::Fragments => self.merge_fragments(None, &mut store)?,
            Merging::AllFragments(purged) => self.merge_fragments(Some(purged), &mut store)?,
        }
        let mut output = self.writer.finish();
        for (id, bytes) in output.held() {
            store(id, bytes)?;
        }
        output.forget_held();
        let inputs = self.inputs;
        debug_assert!(inputs.iter().all(|part| part.slice == self.slice), "a compaction is of one slice");
        Ok(Compacted { inputs, output })
    }

    fn merge_rows<E: From<Unreadable>>(
        &mut self,
        store: &mut impl FnMut(ChunkId, Arc<[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let memory = Slices::default();
        let mut merge = Merge::default();
        for part in &self.inputs {
            merge.add_part(Arc::clone(part), None, &self.runs)?;
        }
        let mut row = MergedRow::new(&self.layout);
        let mut value = Vec::new();
        while merge.next(&memory, &self.runs, &self.layout, &mut row)? {
            value.clear();
            self.layout.encode(row.row.row(), &mut value);
            self.writer.push(&row.key, &value);
            for (id, bytes) in self.writer.release() {
                store(id, bytes)?;
            }
        }
        Ok(())
    }

    /// `all`: these are all fragments there are, and X.
    fn merge_fragments<E: From<Unreadable>>(
        &mut self,
        all: Option<Watermark>,
        store: &mut impl FnMut(ChunkId, Arc<[u8]>) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut walk = Walk::from_start(self.inputs.iter(), &self.runs)?;
        let mut value = Vec::new();
        while let Some((key, row)) = take_key(&mut walk, &self.runs, &self.layout)? {
            let mut joined = join(row.fragments, &self.layout);
            if let Some(purged) = all {
                drop_ended(&mut joined, purged);
            }
            let fragments =
                joined.into_iter().flat_map(|joined| joined.into_fragments(&self.layout)).collect();
            let row = KeyRow { hides: row.hides && all.is_none(), fragments };
            if row.fragments.is_empty() && !row.hides {
                continue;
            }
            value.clear();
            row.encode(&self.layout, &mut value);
            self.writer.push(&key, &value);
            for (id, bytes) in self.writer.release() {
                store(id, bytes)?;
            }
        }
        Ok(())
    }
}

/// What a compaction came to.
#[derive(Debug)]
pub struct Compacted {
    /// The parts that were merged.
    pub inputs: Vec<Arc<Part>>,
    /// The part that replaces them.
    pub output: Part,
}
