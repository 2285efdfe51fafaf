//! What became of a dead letter that came back, or did not.
//!
//! Its shard knows what it has answered for; which replay gave it there is what their records in the control topic leave as possible.

use serde::Serialize;
use tidegate_coordinator::replay_record::ReplayRecord;
use tidegate_core::dead_letter::Reason;
use tidegate_core::replay_request::ReplayRange;
use tidegate_core::time::EventTime;

use super::lookup::Found;
use super::record::Letter;

/// What became of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Outcome {
    /// It counts in what was kept of its windows.
    Applied,
    /// Nothing was kept any more.
    Expired,
    /// It could not be read again.
    Failed,
    /// A replay that means it has not ended, or was taken back.
    Waits,
    /// Filters leave it out.
    LeftOut,
    /// None was asked for since.
    Never,
    /// Its shard does not say.
    Unknown,
}

/// What became of it, and by which replays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Replay {
    pub(crate) outcome: Outcome,
    /// The replays that are about it, by number: of several the first that could.
    pub(crate) numbers: Vec<u64>,
    #[serde(skip)]
    pub(crate) verdict: String,
}

/// From the replays that were asked for, what the job makes of the record now, and what its shard says of the dead letter.
pub(crate) fn became(
    replays: &[ReplayRecord],
    letter: &Letter,
    found: &Found,
    shard_says: &Result<Option<String>, String>,
) -> Replay {
    let about: Vec<_> =
        replays.iter().filter(|replay| !replay.dry_run && covers(&replay.ranges, letter)).collect();
    let meant: Vec<_> = about.iter().copied().filter(|replay| means(replay, letter, found)).collect();
    let numbers = |of: &[&ReplayRecord]| of.iter().map(|replay| replay.number).collect::<Vec<_>>();
    let told =
        |outcome, of: &[&ReplayRecord], verdict: String| Replay { outcome, numbers: numbers(of), verdict };
    let named = named(&numbers(&meant));
    match shard_says {
        Ok(Some(outcome)) if outcome == "applied" => told(
            Outcome::Applied,
            &meant,
            format!("{named} applied it: it counts in what was kept of its windows"),
        ),
        Ok(Some(_)) => {
            let why = "nothing is kept any more of its windows; it stays in the dead-letter topic";
            told(Outcome::Expired, &meant, format!("it had expired when {named} came to it: {why}"))
        }
        Err(why) => told(Outcome::Unknown, &meant, format!("whether it came back is not known: {why}")),
        Ok(None) if about.is_empty() => {
            told(Outcome::Never, &[], "no replay was asked for since it became one".to_owned())
        }
        Ok(None) if meant.is_empty() => {
            let named = self::named(&numbers(&about));
            told(Outcome::LeftOut, &about, format!("{named} left it out, by the filter"))
        }
        Ok(None) if meant.iter().any(|replay| replay.end.is_none()) => {
            told(Outcome::Waits, &meant, format!("{named} has not come to it yet"))
        }
        Ok(None) if meant.iter().all(|replay| replay.end.is_some_and(|end| end.cancelled)) => {
            told(Outcome::Waits, &meant, format!("{named} was taken back before it came to it"))
        }
        Ok(None) => {
            let why = match found {
                Found::Rejected { reason, detail, .. } => {
                    format!("the job as it is now cannot either, reason `{reason}` ({detail})")
                }
                Found::Taken { .. } | Found::Missing(_) => "it may be asked for again".to_owned(),
            };
            told(Outcome::Failed, &meant, format!("{named} could not read it; {why}"))
        }
    }
}

fn covers(ranges: &[ReplayRange], letter: &Letter) -> bool {
    ranges.iter().any(|range| {
        range.partition.0 == letter.dead_partition && (range.from.0..range.to.0).contains(&letter.dead_offset)
    })
}

/// Whether the filter takes it, as far as the record can be read.
fn means(replay: &ReplayRecord, letter: &Letter, found: &Found) -> bool {
    let by_reason = Reason::from_name(&letter.reason).is_none_or(|reason| replay.filter.takes_reason(reason));
    by_reason
        && match found {
            Found::Taken { time, key } => replay.filter.takes(EventTime(*time), key),
            Found::Rejected { .. } | Found::Missing(_) => true,
        }
}

fn named(numbers: &[u64]) -> String {
    let list: Vec<_> = numbers.iter().map(u64::to_string).collect();
    match list.as_slice() {
        // What is kept of replays that have ended is limited.
        [] => "a replay that is no longer listed".to_owned(),
        [one] => format!("replay {one}"),
        all => format!("the first it could of replays {}", all.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use tidegate_coordinator::replay_record::{DeadLetterTopic, ReplayEnd};
    use tidegate_core::replay_request::{ReplayFilter, ReplayTally};
    use tidegate_core::time::{Offset, Partition};

    use super::*;

    fn replay(number: u64, to: u64, reasons: &[Reason], end: Option<bool>) -> ReplayRecord {
        let end = end.map(|cancelled| ReplayEnd { cancelled, at: 0, tally: ReplayTally::default() });
        ReplayRecord {
            number,
            token: number,
            automatic: false,
            dry_run: false,
            filter: ReplayFilter { reasons: reasons.to_vec(), ..ReplayFilter::default() },
            ranges: vec![ReplayRange { partition: Partition(2), from: Offset(0), to: Offset(to) }],
            topics: vec![DeadLetterTopic { name: "dead".to_owned(), id: None }],
            topic: 0,
            requested: 0,
            end,
        }
    }

    fn outcome(replays: &[ReplayRecord], says: Option<&str>) -> (Outcome, Vec<u64>) {
        let letter = Letter {
            reason: "late".to_owned(),
            detail: None,
            watermark_ms: None,
            missed_from_ms: None,
            missed_to_ms: None,
            dead_partition: 2,
            dead_offset: 7,
        };
        let found = Found::Taken { time: 5, key: b"a".to_vec() };
        let replay = became(replays, &letter, &found, &Ok(says.map(str::to_owned)));
        (replay.outcome, replay.numbers)
    }

    #[test]
    fn only_replays_whose_range_and_filter_take_the_letter_are_about_it() {
        let done = Some(false);
        let before = replay(1, 7, &[], done);
        let other_reason = replay(2, 9, &[Reason::NoKey], done);
        let dry_run = ReplayRecord { dry_run: true, ..replay(3, 9, &[], done) };
        let it = replay(4, 9, &[Reason::Late], done);
        assert_eq!(outcome(std::slice::from_ref(&before), None), (Outcome::Never, vec![]));
        let (all, none) = (vec![before, other_reason, dry_run, it], vec![]);
        assert_eq!(outcome(&all[..3], None), (Outcome::LeftOut, vec![2]));
        assert_eq!(outcome(&all, Some("applied")), (Outcome::Applied, vec![4]));
        assert_eq!(outcome(&all, Some("expired")), (Outcome::Expired, vec![4]));
        assert_eq!(outcome(&all, None), (Outcome::Failed, vec![4]));
        // Its record is gone.
        assert_eq!(outcome(&none, Some("applied")), (Outcome::Applied, vec![]));
    }

    #[test]
    fn a_replay_that_runs_or_was_taken_back_has_not_come_to_it() {
        assert_eq!(outcome(&[replay(1, 9, &[], None)], None), (Outcome::Waits, vec![1]));
        assert_eq!(outcome(&[replay(1, 9, &[], Some(true))], None), (Outcome::Waits, vec![1]));
        let both = [replay(1, 9, &[], Some(true)), replay(2, 9, &[], Some(false))];
        assert_eq!(outcome(&both, None), (Outcome::Failed, vec![1, 2]));
    }
}
