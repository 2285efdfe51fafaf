//! Dead letters: of records that are bad or late, each whole, and once.

use tidegate_core::{
    dead_letter::{DeadLetter, Reason},
    job::{JobSpec, OperatorSpec},
    shard::{Pane, ShardState},
    time::{EventTime, Shard, Watermark},
};

use super::{Ledger, next, replays::is_kept_at};
use crate::{
    oracle,
    topic::Record,
    violation::{ensure, violated},
};

/// A dead letter, and what became of it.
#[derive(Debug)]
pub(super) struct Letter {
    pub(super) letter: DeadLetter,
    /// The number of its commit, and its place in it.
    pub(super) at: (u64, usize),
    /// W_s when it came back to its shard, and whether it was applied.
    pub(super) replayed: Option<(Watermark, bool)>,
}

impl Ledger {
    pub(super) fn take_letter(
        &mut self,
        shard: Shard,
        before: &ShardState,
        after: &ShardState,
        (place, letter): (usize, &DeadLetter),
    ) {
        let seen = || format!("shard {shard}: {letter:?}");
        let (p, offset) = (letter.partition, letter.offset);
        let record = self.topic.log(p).record(offset).filter(|record| record.shard == shard);
        let Some(record) = record else { violated("I4: a dead letter is of a record", seen()) };
        ensure(*letter.payload == record.payload(), "I5: each dead letter is whole", seen);
        let covered = next(before, p) <= offset && offset < next(after, p);
        ensure(covered, "I4: a dead letter comes with the position behind it", seen);
        ensure(!self.letters.contains_key(&(p, offset)), "I4: a dead letter comes once", seen);
        match (letter.reason, record.rejected) {
            (reason, Some(rejected)) => {
                ensure(reason == rejected, "I4: a reject is a dead letter with its reason", seen);
            }
            (Reason::Late | Reason::LatePartial, None) => self.check_late(record, letter),
            (_, None) => violated("I4: a good record is no dead letter", seen()),
        }
        if letter.reason != Reason::LatePartial {
            *self.shards[shard.0 as usize].dead.entry(p).or_default() += 1;
        }
        let letter = Letter { letter: letter.clone(), at: (self.commits, place), replayed: None };
        self.letters.insert((p, offset), letter);
    }

    /// A late record's windows are over, and none that is still open is missed.
    fn check_late(&self, record: &Record, letter: &DeadLetter) {
        let seen = || format!("{letter:?}");
        ensure(!self.scenario.exact, "I4: no record within the delay is late", seen);
        let job = &self.scenario.job;
        let spec = match &job.operator {
            OperatorSpec::Windows(spec) => spec,
            OperatorSpec::Sessions(spec) => {
                let end = oracle::session_end(spec, record.time.0);
                let over = Some(end.plus(job.allowed_lateness)) <= letter.watermark;
                ensure(
                    letter.reason == Reason::Late && over,
                    "I4: what a late record would begin is over",
                    seen,
                );
                let named = letter.missed == Some((record.time, end));
                return ensure(named, "I4: the windows missed are named", seen);
            }
            OperatorSpec::Reorder | OperatorSpec::Sliding(_) => {
                let passed = letter.reason == Reason::Late && Some(record.time) < letter.watermark;
                return ensure(passed, "I4: a late record is one that W has passed", seen);
            }
        };
        let ends = oracle::window_ends(spec, record.time.0);
        let over = |end: &EventTime| Some(end.plus(job.allowed_lateness)) <= letter.watermark;
        let legitimate = match letter.reason {
            Reason::Late => ends.iter().all(over),
            _ => ends.iter().filter(|end| misses(job, letter, **end)).all(over),
        };
        ensure(legitimate, "I4: a late record has missed only windows that are over", seen);
        let named = letter.missed.is_some_and(|(start, end)| {
            ends.contains(&end) && ends.contains(&start.plus(spec.size)) && start < end
        });
        ensure(named, "I4: the windows missed are named", seen);
    }

    /// Whether the letter says that its record is not in the last result of the window that ends at `end`.
    pub(super) fn is_missing(&self, record: &Record, letter: &Letter, end: EventTime) -> bool {
        let job = &self.scenario.job;
        let OperatorSpec::Windows(spec) = &job.operator else { return false };
        match letter.replayed {
            // It is in the state: who corrects the window for whatever reason has it in the result.
            _ if letter.letter.reason == Reason::LatePartial => {
                let window = (record.key.clone(), end.minus(spec.size), end);
                let last = self.results.get(&window).and_then(|rows| rows.last());
                let has_it = last.is_some_and(|row| row.pane == Pane::Replay)
                    && self.emitted.get(&window) >= Some(&letter.at.0);
                misses(job, &letter.letter, end) && !has_it
            }
            Some((watermark, _)) => !is_kept_at(job, end, watermark),
            None => true,
        }
    }
}

/// Whether the letter says that its record is missing in the window that ends at `end`.
pub(super) fn misses(job: &JobSpec, letter: &DeadLetter, end: EventTime) -> bool {
    letter.reason == Reason::LatePartial
        && letter.missed.is_some_and(|(start, last)| start.plus(job.operator.reach()) <= end && end <= last)
}
