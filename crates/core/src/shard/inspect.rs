//! Read access to a shard for people: why W_s stands where it stands, and what a group key has in its windows.
//!
//! Nothing here changes the shard. The rows of a key are reached only through [`ShardState::rows_of`].

use std::collections::{BTreeMap, BTreeSet};

use super::{ShardMachine, ShardState, state::Operator};
use crate::{
    aggregate::{RowBuf, Value},
    entry::Input,
    fragments::Joined,
    ordered::Place,
    runs::{Looks, Unreadable},
    time::{EventTime, Partition, Span, Watermark},
    window::Grid,
};

/// Where a shard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardView {
    /// W_s.
    pub watermark: Watermark,
    /// W as it was announced to this shard last.
    pub announced: Watermark,
    /// A record for windows that ended by then is a dead letter; some may be kept for replays.
    pub purged: Option<EventTime>,
    /// Windows that ended by W_s are still being put out, over several commits.
    pub closing: bool,
    /// Every partition of the source, in order.
    pub inputs: Vec<InputView>,
}

/// A partition as a shard sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InputView {
    /// The partition.
    pub partition: Partition,
    /// Position, in-band watermark, counts.
    pub input: Input,
    /// Whether it counts for W_s: not while it is proven idle and covered up to there.
    pub counts: bool,
    /// Whether it is what keeps W_s below the W announced.
    pub holds: bool,
}

/// A window in which a group key has records.
#[derive(Clone, Debug, PartialEq)]
pub struct WindowView {
    /// Start, inclusive.
    pub start: EventTime,
    /// End, exclusive.
    pub end: EventTime,
    /// Records in it.
    pub records: u64,
    /// The aggregates over them, in the job's order.
    pub values: Vec<Value>,
    /// Whether it has ended by W_s: its result is out, or on its way; late records still correct it.
    pub closed: bool,
    /// How many results have been put out, where late records have corrected it.
    pub emitted: Option<u32>,
}

impl ShardMachine {
    /// Why W_s stands where it stands.
    #[must_use]
    pub fn explain(&self) -> ShardView {
        let announced = self.announced.as_ref();
        let known = u32::try_from(self.state.inputs.len()).unwrap_or(u32::MAX);
        let partitions = announced.map_or(known, |announced| announced.partitions.max(known));
        let counts = |partition: Partition| {
            announced.is_none_or(|announced| {
                let idle = announced.excluded.iter().find(|(other, _)| *other == partition);
                partition.0 < announced.partitions
                    && idle.is_none_or(|(_, at)| self.input(partition).next < *at)
            })
        };
        let counted = (0..partitions).map(Partition).filter(|partition| counts(*partition));
        let least = counted.map(|partition| self.input(partition).watermark).min().flatten();
        let wanted = announced.and_then(|announced| announced.watermark);
        let view = |partition: Partition| {
            let (input, counts) = (self.input(partition), counts(partition));
            let holds = counts && input.watermark < wanted && input.watermark == least;
            InputView { partition, input, counts, holds }
        };
        ShardView {
            watermark: self.state.watermark,
            announced: wanted,
            purged: self.missed_by(),
            closing: self.state.closing.is_some(),
            inputs: (0..partitions).map(Partition).map(view).collect(),
        }
    }

    /// The windows of `key` that hold records, oldest first, at most `limit`; and how many there are in all.
    ///
    /// # Errors
    /// A chunk of a run that does not read.
    pub fn inspect(&self, key: &[u8], limit: usize) -> Result<(Vec<WindowView>, usize), Unreadable> {
        match &self.state.operator {
            Operator::Windows(grid) => self.inspect_windows(*grid, key, limit),
            Operator::Sessions(_) => self.inspect_sessions(key, limit),
            Operator::Reorder | Operator::Sliding(_) => Ok(self.inspect_buffer(key, limit)),
        }
    }

    fn inspect_windows(
        &self,
        grid: Grid,
        key: &[u8],
        limit: usize,
    ) -> Result<(Vec<WindowView>, usize), Unreadable> {
        let rows = self.state.rows_of(key)?;
        let ends = rows.keys().flat_map(|slice| grid.ends_of(*slice));
        let missed_by = self.missed_by();
        let ends: BTreeSet<_> = ends.filter(|end| Some(*end) > missed_by).collect();
        let windows = ends.iter().take(limit).map(|end| self.window_of(grid, key, &rows, *end));
        Ok((windows.collect(), ends.len()))
    }

    fn inspect_sessions(&self, key: &[u8], limit: usize) -> Result<(Vec<WindowView>, usize), Unreadable> {
        let layout = &self.state.layout;
        let of_key = self.state.sessions_of(key, &mut Looks::default())?;
        let view = |Joined { session, .. }: &Joined| WindowView {
            start: session.start,
            end: session.end,
            records: layout.records(session.row.row()),
            values: layout.results(session.row.row()),
            closed: Some(session.end) <= self.state.watermark,
            // One may have been an early one.
            emitted: (session.emitted > 1).then_some(session.emitted),
        };
        Ok((of_key.iter().take(limit).map(view).collect(), of_key.len()))
    }

    /// The records of `key` that wait in memory, each as a window of its own; those in runs are not read for this.
    fn inspect_buffer(&self, key: &[u8], limit: usize) -> (Vec<WindowView>, usize) {
        let places = self
            .state
            .buffer
            .behind(None)
            .filter(|(place, record)| *record.key() == *key && Some(place.time) >= self.state.watermark);
        let places: Vec<_> = places.map(|(place, _)| place).collect();
        let view = |place: &Place| WindowView {
            start: place.time,
            end: place.time.plus(Span(1)),
            records: 1,
            values: Vec::new(),
            closed: Some(place.time) < self.state.watermark,
            emitted: None,
        };
        (places.iter().take(limit).map(view).collect(), places.len())
    }

    fn window_of(
        &self,
        grid: Grid,
        key: &[u8],
        rows: &BTreeMap<EventTime, RowBuf>,
        end: EventTime,
    ) -> WindowView {
        let state = &self.state;
        let start = grid.start_of(end);
        let mut window = RowBuf::new(&state.layout);
        for row in rows.range(start..end).map(|(_, row)| row) {
            state.layout.merge(&mut window.row_mut(), row.row());
        }
        WindowView {
            start,
            end,
            records: state.layout.records(window.row()),
            values: state.layout.results(window.row()),
            closed: Some(end) <= state.watermark,
            emitted: state.revisions.get(end, key),
        }
    }
}

impl ShardState {
    /// The rows of `key`, by slice.
    fn rows_of(&self, key: &[u8]) -> Result<BTreeMap<EventTime, RowBuf>, Unreadable> {
        let in_memory = self
            .slices
            .iter()
            .filter_map(|slice| Some((slice.start, slice.row(&self.layout, slice.find(key)?).to_owned())));
        let mut rows: BTreeMap<_, _> = in_memory.collect();
        for (slice, _) in self.runs.range(EventTime(i64::MIN), EventTime(i64::MAX)) {
            let in_memory = rows.remove(&slice);
            let was_there = in_memory.is_some();
            let mut row = in_memory.unwrap_or_else(|| RowBuf::new(&self.layout));
            if self.runs.find(slice, key, &self.layout, &mut row.row_mut())? || was_there {
                rows.insert(slice, row);
            }
        }
        Ok(rows)
    }
}
