//! From entries of the dead-letter topic to frames for shards, a round of a partition at a time.
//!
//! ```text
//! partition 3:   100 101 102 103 104 105        2 = shard 2, 5 = shard 5, · = left out
//!                 2   5   ·   2   ·   2
//! frames:        shard 2: rows 100 103 105 ─┐
//!                shard 5: row  101 ─────────┴─ cover [100,102) [103,104) [105,106)
//! ```
//! All frames of a round cover the same: what lies between their rows and was not left out, gaps and entries of other shards
//! included. So a whole replay is one stretch to each shard, and what was left out can be asked for later.

use std::{collections::BTreeMap, ops::Range, sync::Arc};

use tidegate_core::{
    dead_letter::Payload,
    frame::Rows,
    job::{JobSpec, OperatorSpec},
    replay::{Origin, ReplayFrame},
    time::{Offset, Partition, Shard},
};

use super::entry::Entry;

/// Results that the rows of a round may correct: what a shard takes between two live frames.
const RESULTS: usize = 1024;
/// Bytes of a round, about.
const BYTES: usize = 1 << 20;

/// The open rounds.
pub(super) struct Rounds {
    empty: Rows,
    keeps_records: bool,
    /// How many windows a record is in, at most.
    windows: usize,
    open: BTreeMap<Partition, Round>,
}

struct Round {
    from: Offset,
    /// The first offset not seen.
    next: Offset,
    left_out: Vec<Range<Offset>>,
    shards: BTreeMap<Shard, (Rows, Vec<Origin>)>,
    results: usize,
    bytes: usize,
}

impl Round {
    const fn new(from: Offset) -> Self {
        Self { from, next: from, left_out: Vec::new(), shards: BTreeMap::new(), results: 0, bytes: 0 }
    }
}

impl Rounds {
    /// No rounds yet.
    pub(super) fn new(job: &JobSpec) -> Self {
        let windows = match &job.operator {
            OperatorSpec::Windows(spec) => spec.size.0.saturating_sub(1) / spec.step.0.max(1) + 1,
            OperatorSpec::Sessions(_) | OperatorSpec::Reorder | OperatorSpec::Sliding(_) => 1,
        };
        Self {
            empty: Rows::of(&job.columns),
            keeps_records: job.operator.keeps_records(),
            windows: usize::try_from(windows).unwrap_or(RESULTS),
            open: BTreeMap::new(),
        }
    }

    /// How many windows a record is in, at most.
    pub(super) fn windows(&self) -> u64 {
        self.windows as u64
    }

    /// A partition is read from here on.
    pub(super) fn begin(&mut self, partition: Partition, from: Offset) {
        self.open.insert(partition, Round::new(from));
    }

    /// The first offset of a partition that has not been seen.
    pub(super) fn position(&self, partition: Partition) -> Offset {
        self.open.get(&partition).map_or(Offset(0), |round| round.next)
    }

    /// An entry that goes to its shard; `payload` is asked for where the results are records.
    pub(super) fn take(
        &mut self,
        partition: Partition,
        offset: Offset,
        entry: &Entry<'_>,
        payload: impl FnOnce() -> Payload,
    ) {
        let Some(round) = self.open.get_mut(&partition) else { return };
        let Entry { shard, time, extracted, origin } = entry;
        let (rows, origins) = round.shards.entry(*shard).or_insert_with(|| (self.empty.clone(), Vec::new()));
        let delta = u32::try_from(offset.0.saturating_sub(round.from.0)).unwrap_or(u32::MAX);
        let row = u32::try_from(rows.len()).unwrap_or(u32::MAX);
        rows.push(delta, *time, extracted.key, extracted.columns, extracted.text);
        origins.push(*origin);
        round.bytes += 64 + extracted.key.len() + extracted.text.len() + 8 * extracted.columns.len();
        if self.keeps_records {
            let payload = payload();
            round.bytes += payload.bytes();
            rows.payloads.push((row, Arc::new(payload)));
        }
        round.results += self.windows;
        round.next = offset.next();
    }

    /// Something that nobody will ask for.
    pub(super) fn pass(&mut self, partition: Partition, offset: Offset) {
        if let Some(round) = self.open.get_mut(&partition) {
            round.next = offset.next();
        }
    }

    /// An entry that may be asked for again.
    pub(super) fn leave_out(&mut self, partition: Partition, offset: Offset) {
        let Some(round) = self.open.get_mut(&partition) else { return };
        match round.left_out.last_mut().filter(|last| last.end == round.next) {
            // Nothing was taken since: what lies between is a gap.
            Some(last) => last.end = offset.next(),
            None => round.left_out.push(offset..offset.next()),
        }
        round.next = offset.next();
    }

    /// Whether a round has to be cut, so that what it holds is bounded, and offsets fit.
    pub(super) fn is_full(&self, partition: Partition) -> bool {
        self.open.get(&partition).is_some_and(|round| {
            let span = round.next.0.saturating_sub(round.from.0);
            round.results >= RESULTS || round.bytes >= BYTES || span >= u64::from(u32::MAX / 2)
        })
    }

    /// Ends a round of a partition at `to`: its frames. The next begins there.
    pub(super) fn cut(&mut self, partition: Partition, to: Offset) -> Vec<(Shard, ReplayFrame)> {
        let Some(open) = self.open.get_mut(&partition) else { return Vec::new() };
        let Round { from, left_out, shards, .. } = std::mem::replace(open, Round::new(to));
        if shards.is_empty() {
            return Vec::new();
        }
        let covers = without(from..to, &left_out);
        let frame = |(shard, (rows, origins))| {
            (shard, ReplayFrame { partition, from, covers: covers.clone(), rows, origins })
        };
        shards.into_iter().map(frame).collect()
    }
}

/// `whole` without stretches of it that are ascending and apart.
fn without(whole: Range<Offset>, left_out: &[Range<Offset>]) -> Vec<Range<Offset>> {
    let mut from = whole.start;
    let mut covers = Vec::with_capacity(left_out.len() + 1);
    for out in left_out {
        covers.push(from..out.start);
        from = out.end;
    }
    covers.push(from..whole.end);
    covers.retain(|range| range.start < range.end);
    covers
}

#[cfg(test)]
mod tests {
    use tidegate_core::{dead_letter::Reason, time::EventTime};
    use tidegate_extract::Extracted;
    use tidegate_job::JobFile;

    use super::*;

    const P: Partition = Partition(3);

    fn rounds(job: &str) -> Rounds {
        let head = "name: j\nsource: { topic: a, key: record_key }\nwatermark: { delay: 2s }\n";
        let tail = "sink: { topic: b }\ndead_letter: { topic: c }\n";
        let job = JobFile::parse(&format!("{head}{job}\n{tail}"), "job.yaml").unwrap();
        let mut rounds = Rounds::new(&job.core);
        rounds.begin(P, Offset(100));
        rounds
    }

    fn counting() -> Rounds {
        rounds("window: { tumbling: { size: 10s } }\naggregates: [{ name: n, fn: count }]")
    }

    fn take(rounds: &mut Rounds, offset: u64, shard: u32) {
        let extracted = Extracted { time: EventTime(5), key: b"key", columns: &[], text: b"" };
        let origin =
            Origin { partition: Partition(0), offset: Offset(offset), reason: Reason::Late, missed: None };
        let entry = Entry { shard: Shard(shard), time: EventTime(5), extracted, origin };
        rounds.take(P, Offset(offset), &entry, Payload::default);
    }

    fn covers(frame: &ReplayFrame) -> Vec<(u64, u64)> {
        frame.covers.iter().map(|range| (range.start.0, range.end.0)).collect()
    }

    #[test]
    fn frames_of_a_round_cover_what_was_not_left_out() {
        let mut rounds = counting();
        take(&mut rounds, 100, 2);
        take(&mut rounds, 101, 5);
        rounds.leave_out(P, Offset(102));
        take(&mut rounds, 103, 2);
        rounds.leave_out(P, Offset(104));
        take(&mut rounds, 105, 2);
        assert_eq!(rounds.position(P), Offset(106));
        let frames = rounds.cut(P, Offset(106));
        let shapes: Vec<_> = frames.iter().map(|(shard, frame)| (shard.0, &frame.rows.offsets[..])).collect();
        assert_eq!(shapes, [(2, &[0, 3, 5][..]), (5, &[1][..])]);
        for (_, frame) in &frames {
            assert_eq!(covers(frame), [(100, 102), (103, 104), (105, 106)]);
            assert_eq!(frame.origins.len(), frame.rows.len());
        }
    }

    #[test]
    fn whole_rounds_join_and_gaps_are_covered() {
        let mut rounds = counting();
        take(&mut rounds, 100, 1);
        rounds.pass(P, Offset(107));
        let first = rounds.cut(P, Offset(110));
        take(&mut rounds, 115, 1);
        let second = rounds.cut(P, Offset(120));
        assert_eq!(covers(&first[0].1), [(100, 110)]);
        assert_eq!((second[0].1.from, covers(&second[0].1)), (Offset(110), vec![(110, 120)]));
        assert_eq!(second[0].1.rows.offsets, [5]);
    }

    #[test]
    fn what_is_left_out_in_a_row_is_one_stretch_and_none_where_something_was_taken() {
        let mut rounds = counting();
        for offset in [101, 102, 105] {
            rounds.leave_out(P, Offset(offset));
        }
        take(&mut rounds, 106, 1);
        rounds.leave_out(P, Offset(109));
        let frames = rounds.cut(P, Offset(112));
        // Whether 103 and 104 are gaps or not, nobody asks for them.
        assert_eq!(covers(&frames[0].1), [(100, 101), (106, 109), (110, 112)]);
    }

    #[test]
    fn a_round_without_rows_is_no_frame() {
        let mut rounds = counting();
        rounds.leave_out(P, Offset(100));
        assert!(rounds.cut(P, Offset(200)).is_empty());
        assert_eq!(rounds.position(P), Offset(200));
    }

    #[test]
    fn a_round_is_full_by_the_results_that_its_rows_may_correct_and_by_span() {
        let hopping = "window: { hopping: { size: 64s, step: 1s } }\naggregates: [{ name: n, fn: count }]";
        for (mut rounds, rows) in [(counting(), 1024), (rounds(hopping), 16)] {
            for offset in 0..rows {
                assert!(!rounds.is_full(P));
                take(&mut rounds, 100 + offset, 1);
            }
            assert!(rounds.is_full(P));
        }
        let mut rounds = counting();
        rounds.leave_out(P, Offset(100 + u64::from(u32::MAX)));
        assert!(rounds.is_full(P), "its offsets would not fit");
    }

    #[test]
    fn records_go_along_where_they_are_the_results() {
        for (job, payloads) in [
            ("reorder: {}", 1),
            ("window: { tumbling: { size: 1s } }\naggregates: [{ name: n, fn: count }]", 0),
        ] {
            let mut rounds = rounds(job);
            take(&mut rounds, 100, 1);
            let frames = rounds.cut(P, Offset(101));
            assert_eq!(frames[0].1.rows.payloads.len(), payloads, "{job}");
        }
    }
}
