//! Dead letters that came back: which they are, as the changelog says, and what results may have of them.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, anyhow};
use serde_json::Value;
use tidegate_coordinator::replay_record::{DeadLetterTopic, ReplayRecord};
use tidegate_core::{
    block::{Assembler, Change},
    entry::EntryKey,
    job::WindowSpec,
    replay::{Answered, AnsweredBlock, Outcome},
    time::Shard,
};
use tidegate_job::{Job, KeySource};
use tidegate_kafka::{KafkaConfig, Record};

use super::{Inputs, Letter, Parsed, Verdict, Window, aggregates::Place, check_result, windows_of};
use crate::topics;

/// What each shard has answered for.
#[derive(Debug, Default)]
pub(super) struct Returned {
    shards: HashMap<u32, Answered>,
    /// The dead-letter topics that replays were asked of, by their numbers.
    topics: Vec<DeadLetterTopic>,
}

impl Returned {
    /// Reads the changelog of a job that asks for replays, and which replays there were.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn read(job: &Job, kafka: &KafkaConfig) -> Result<Self> {
        let mut returned = Self::default();
        if job.dead_letter.replay_ttl.is_none() {
            return Ok(returned);
        }
        let mut assemblers: HashMap<u32, Assembler> = HashMap::new();
        topics::read_all(kafka, &job.changelog_topic(), |record| {
            let shard = record.partition().0;
            let chunk = record.value().context("a changelog record without a value")?;
            let Some(block) = assemblers.entry(shard).or_default().push(chunk)? else { return Ok(()) };
            for change in block.entries.iter() {
                let Change::Upsert(key, value) = change? else { continue };
                if let Some(EntryKey::Answered(partition, at)) = EntryKey::decode(key) {
                    let block = AnsweredBlock::decode(value).context("a replayed set does not read")?;
                    returned.shards.entry(shard).or_default().restore(partition, at, block);
                }
            }
            Ok(())
        })?;
        let mut newest = None;
        topics::read_all(kafka, &job.control_topic(), |record| {
            let number = record.key().and_then(ReplayRecord::number_of);
            if let (true, Some(value)) = (number.is_some() && number >= newest, record.value()) {
                let replay =
                    ReplayRecord::decode(value).map_err(|why| anyhow!("a replay's record: {why}"))?;
                (newest, returned.topics) = (number, replay.topics);
            }
            Ok(())
        })?;
        Ok(returned)
    }

    /// The number under which shards keep what they have answered for of a dead-letter topic.
    pub(super) fn number_of(&self, topic: &str) -> u32 {
        let known = self.topics.iter().rposition(|known| known.name == topic);
        u32::try_from(known.unwrap_or(self.topics.len())).unwrap_or(u32::MAX)
    }

    /// What became of a dead letter that came back; `None`: it did not.
    pub(super) fn outcome(
        &self,
        job: &Job,
        parsed: &Parsed,
        record: &Record<'_>,
        letter: &Letter,
    ) -> Option<Outcome> {
        let key = match job.source.key {
            KeySource::RecordKey => record.key()?,
            KeySource::Field(_) => parsed.key.as_bytes(),
        };
        let (partition, offset) = letter.at;
        self.shards.get(&Shard::of(key, job.core.shards).0)?.outcome(partition, offset)
    }
}

/// What dead letters may add to the windows that they missed.
#[derive(Debug, Default)]
pub(super) struct Late(BTreeMap<Window, Vec<Missing>>);

/// A dead letter in a window that it missed.
#[derive(Debug)]
struct Missing {
    value: Value,
    place: Place,
    /// It is in the state of the shard: whoever corrects the window has it in the result.
    partial: bool,
    /// It came back, and was applied.
    came: bool,
    /// This is the last of its windows.
    last: bool,
}

impl Late {
    /// Takes a dead letter: into `windows` where it counts for certain.
    pub(super) fn expect(
        &mut self,
        job: &Job,
        spec: &WindowSpec,
        (partition, offset): (u32, u64),
        parsed: Parsed,
        (letter, came): (&Letter, bool),
        windows: &mut BTreeMap<Window, Inputs>,
    ) {
        let place = (parsed.time, partition, offset);
        let partial = letter.reason == "late_partial";
        let ends = windows_of(spec, parsed.time);
        for (start, end) in &ends {
            let window = (parsed.key.clone(), *start, *end);
            if partial && letter.missed.is_none_or(|(_, missed)| *end > missed) {
                windows.entry(window).or_default().add(job, &parsed.value, place);
            } else if partial || came {
                let last = ends.last().is_some_and(|(_, last)| end == last);
                let value = parsed.value.clone();
                self.0.entry(window).or_default().push(Missing { value, place, partial, came, last });
            }
        }
    }

    /// Whether dead letters may have changed the result of a window.
    pub(super) fn changes(&self, window: &Window) -> bool {
        self.0.contains_key(window)
    }

    /// All windows that they may have changed.
    pub(super) fn windows(&self) -> impl Iterator<Item = &Window> {
        self.0.keys()
    }

    /// Whether a window has a result for what came back alone: it was kept for the last of its records at least.
    pub(super) fn must_be(&self, window: &Window) -> bool {
        self.0.get(window).is_some_and(|missing| missing.iter().any(|missing| missing.came && missing.last))
    }

    /// Compares the result of a window that may have been corrected. Where windows overlap, an entry counts in those that were kept when it came,
    /// and which these were is not written down: a result with `pane: replay` has what came back; another may have it, if the window was
    /// open then. A partly late record may be in any corrected result.
    pub(super) fn check(
        &self,
        job: &Job,
        first: usize,
        (window, inputs): (&Window, &Inputs),
        result: &Value,
        verdict: &mut Verdict,
    ) {
        let missing = self.0.get(window).map(Vec::as_slice).unwrap_or_default();
        let with = |counts: &dyn Fn(&Missing) -> bool| {
            let mut with = inputs.clone();
            for missing in missing.iter().filter(|missing| counts(missing)) {
                with.add(job, &missing.value, missing.place);
            }
            with
        };
        let corrected = result.get("pane").and_then(Value::as_str) == Some("replay");
        let possible = if corrected {
            [with(&|missing| missing.came), with(&|missing| missing.came || missing.partial)]
        } else {
            // Also without those whose other windows alone were kept.
            [
                with(&|missing| missing.came && !missing.partial),
                with(&|missing| missing.came && !missing.partial && missing.last),
            ]
        };
        let fits = |inputs: &Inputs| {
            job.core.aggregates.iter().enumerate().all(|(at, aggregate)| {
                let got = result.get(&aggregate.name).unwrap_or(&Value::Null);
                inputs.fits(job, aggregate, got) || (at >= first && got.is_null())
            })
        };
        if !possible.iter().any(fits) {
            let [most, _] = &possible;
            check_result(job, first, (window, most), result, verdict);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tidegate_core::{
        job::OperatorSpec,
        time::{Offset, Partition},
    };
    use tidegate_job::JobFile;

    use super::*;

    const JOB: &str = "
name: j
source: { topic: in, key: { field: /k } }
watermark: { delay: 0ms }
window: { hopping: { size: 10s, step: 5s } }
aggregates: [{ name: n, fn: count }]
sink: { topic: out }
dead_letter: { topic: dead, replay: { ttl: 1h } }
";

    /// Mismatches of results for [0, 10 s) and [5 s, 15 s), with one good record and a dead letter at 7 s in both.
    fn mismatches(reason: &str, came: bool, results: [(&str, u64); 2]) -> u64 {
        let job = JobFile::parse(JOB, "job.yaml").unwrap();
        let OperatorSpec::Windows(spec) = &job.core.operator else { panic!("windows") };
        let missed = (reason == "late_partial").then_some((0, 10_000));
        let at = (Partition(0), Offset(0));
        let letter =
            Letter { at, reason: reason.to_owned(), watermark: None, missed, key: None, value: None };
        let (mut late, mut windows) = (Late::default(), BTreeMap::new());
        for (start, end) in [(0, 10_000), (5_000, 15_000)] {
            let inputs: &mut Inputs = windows.entry(("a".to_owned(), start, end)).or_default();
            inputs.add(&job, &json!({}), (7_000, 0, 0));
        }
        let parsed = Parsed { key: "a".to_owned(), time: 7_000, value: json!({}) };
        late.expect(&job, spec, (0, 1), parsed, (&letter, came), &mut windows);
        let mut verdict = Verdict::default();
        for ((window, inputs), (pane, count)) in windows.iter().zip(results) {
            let result = json!({ "pane": pane, "n": count });
            if late.changes(window) {
                late.check(&job, usize::MAX, (window, inputs), &result, &mut verdict);
            } else {
                check_result(&job, usize::MAX, (window, inputs), &result, &mut verdict);
            }
        }
        verdict.mismatches()
    }

    #[test]
    fn what_did_not_come_back_counts_nowhere() {
        assert_eq!(mismatches("late", false, [("final", 1), ("final", 1)]), 0);
        assert_eq!(mismatches("late", false, [("final", 2), ("final", 1)]), 1);
    }

    #[test]
    fn what_came_back_is_in_every_corrected_result_and_in_its_last_window() {
        assert_eq!(mismatches("late", true, [("replay", 2), ("replay", 2)]), 0);
        assert_eq!(mismatches("late", true, [("final", 1), ("replay", 2)]), 0, "the first was gone");
        assert_eq!(mismatches("late", true, [("replay", 1), ("replay", 2)]), 1);
        assert_eq!(mismatches("late", true, [("final", 1), ("final", 1)]), 1);
    }

    #[test]
    fn a_partly_late_record_counts_where_it_was_not_late_and_may_be_in_corrected_results() {
        assert_eq!(mismatches("late_partial", false, [("final", 1), ("final", 2)]), 0);
        assert_eq!(mismatches("late_partial", false, [("replay", 2), ("final", 2)]), 0);
        assert_eq!(mismatches("late_partial", false, [("final", 2), ("final", 2)]), 1);
        assert_eq!(mismatches("late_partial", true, [("replay", 1), ("final", 2)]), 1);
        assert_eq!(mismatches("late_partial", false, [("final", 1), ("final", 1)]), 1);
    }
}
