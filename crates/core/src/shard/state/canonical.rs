//! A state in a form that can be compared.

use std::{collections::BTreeMap, sync::Arc};

use super::{Operator, ShardState};
use crate::{
    aggregate::RowBuf,
    block::Closing,
    entry::Input,
    ordered::{Buffered, Place},
    replay::AnsweredBlock,
    runs::{Merge, MergedRow, Unreadable},
    shard::reorder::take_record,
    slices::Slices,
    time::{EventTime, Partition, Watermark},
};

impl ShardState {
    /// Everything but the counters of the log, in a canonical form: two states are the same when these are.
    #[must_use]
    pub fn canonical(&self) -> CanonicalState {
        let mut rows = BTreeMap::new();
        for slice in self.slices.iter() {
            for row in 0..slice.len() {
                rows.insert((slice.start, slice.key(row).to_vec()), slice.row(&self.layout, row).to_owned());
            }
        }
        let mut buffered: BTreeMap<_, _> =
            self.buffer.behind(None).map(|(place, record)| (place, record.clone())).collect();
        let (mut sessions, mut outdated) = (BTreeMap::new(), BTreeMap::new());
        let unreadable = match &self.operator {
            Operator::Windows(_) => self.add_runs(&mut rows).err(),
            Operator::Sessions(in_memory) => {
                self.add_sessions(in_memory, (&mut sessions, &mut outdated)).err()
            }
            Operator::Reorder | Operator::Sliding(_) => self.add_records(&mut buffered).err(),
        };
        let revisions =
            self.revisions.iter().map(|(end, key, emitted)| ((end, key.clone()), emitted)).collect();
        // A partition of which nothing is known is the same as one never heard of.
        let known =
            self.inputs.iter().rposition(|input| *input != Input::default()).map_or(0, |last| last + 1);
        CanonicalState {
            inputs: self.inputs.iter().take(known).copied().collect(),
            rows,
            sessions,
            outdated,
            buffered,
            unreadable,
            revisions,
            answered: self.answered.blocks().map(|(p, at, block)| ((p, at), block.clone())).collect(),
            watermark: self.watermark,
            purged: self.purged,
            closing: self.closing.clone(),
            sequence: self.sequence,
        }
    }

    fn add_records(&self, records: &mut BTreeMap<Place, Buffered>) -> Result<(), Unreadable> {
        let mut walk = self.walk(None, u64::MAX)?;
        while let Some((place, record)) = take_record(&mut walk, &self.runs, self.keeps_records())? {
            records.insert(place, record);
        }
        Ok(())
    }

    fn add_runs(&self, rows: &mut BTreeMap<(EventTime, Vec<u8>), RowBuf>) -> Result<(), Unreadable> {
        for part in self.runs.parts() {
            let mut merge = Merge::default();
            merge.add_part(Arc::clone(part), None, &self.runs)?;
            let mut row = MergedRow::new(&self.layout);
            while merge.next(&Slices::default(), &self.runs, &self.layout, &mut row)? {
                let into = rows.entry((part.slice, row.key.clone()));
                let into = into.or_insert_with(|| RowBuf::new(&self.layout));
                self.layout.merge(&mut into.row_mut(), row.row.row());
            }
        }
        Ok(())
    }
}

/// A state that can be compared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[allow(missing_docs, reason = "the fields are those of the state")]
pub struct CanonicalState {
    pub inputs: Vec<Input>,
    pub rows: BTreeMap<(EventTime, Vec<u8>), RowBuf>,
    /// End, results counted, accumulators.
    pub sessions: BTreeMap<(EventTime, Vec<u8>), (EventTime, u32, RowBuf)>,
    /// Early results to be taken back, of intervals that have become parts of sessions: start, end and key; how many are out.
    pub outdated: BTreeMap<(EventTime, EventTime, Vec<u8>), u32>,
    pub buffered: BTreeMap<Place, Buffered>,
    /// Set where some rows could not be read.
    pub unreadable: Option<Unreadable>,
    pub revisions: BTreeMap<(EventTime, Vec<u8>), u32>,
    pub answered: BTreeMap<(Partition, u64), AnsweredBlock>,
    pub watermark: Watermark,
    pub purged: Option<EventTime>,
    pub closing: Option<Closing>,
    pub sequence: u64,
}
