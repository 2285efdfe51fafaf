//! Where one record of the source went.

use serde::Serialize;
use serde_json::Value;
use tidegate_core::job::OperatorSpec;
use tidegate_core::time::EventTime;
use tidegate_core::window::Grid;
use tidegate_job::Job;
use tidegate_proto::v1;

use super::lookup::Found;
use super::replay::{Outcome, Replay};
use crate::moment::moment;

/// What became of a record.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RecordFate {
    pub(crate) partition: u32,
    pub(crate) offset: u64,
    /// What the job takes out of it; absent where the log does not hold it (any more), or it is a reject.
    pub(crate) event_time_ms: Option<i64>,
    pub(crate) key: Option<String>,
    pub(crate) shard: Option<u32>,
    /// Whether its shard has covered it; absent where that is not known.
    pub(crate) covered: Option<bool>,
    pub(crate) dead_letter: Option<Letter>,
    /// What became of the dead letter since; absent where the job keeps nothing for replays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) replay: Option<Replay>,
    /// The windows that it counts in.
    pub(crate) windows: Vec<RecordWindow>,
    pub(crate) verdict: String,
}

/// The dead letter of a record.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Letter {
    pub(crate) reason: String,
    pub(crate) detail: Option<String>,
    /// The shard's watermark at the decision.
    pub(crate) watermark_ms: Option<i64>,
    /// Start of the first and end of the last window that it missed.
    pub(crate) missed_from_ms: Option<i64>,
    pub(crate) missed_to_ms: Option<i64>,
    /// Where it is in the dead-letter topic.
    pub(crate) dead_partition: u32,
    pub(crate) dead_offset: u64,
}

/// A window that a record counts in.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RecordWindow {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// Records of the key in it now, where it is open.
    pub(crate) open_records: Option<u64>,
    /// Its results that are out, by revision.
    pub(crate) results: Vec<Value>,
}

/// What became of the record, from all that was found.
pub(crate) fn fate(
    job: &Job,
    (partition, offset): (u32, u64),
    found: &Found,
    answer: Option<&Result<v1::InspectResponse, String>>,
    (letter, replay): (Option<Letter>, Option<Replay>),
    results: Vec<((i64, i64), Value)>,
) -> RecordFate {
    let shard = found.shard(partition, job.core.shards);
    let input = answer.and_then(|answer| answer.as_ref().ok()).map(|answer| {
        answer.inputs.iter().find(|input| input.partition == partition).copied().unwrap_or_default()
    });
    // A dead letter is committed together with the position.
    let covered = if letter.is_some() { Some(true) } else { input.map(|input| input.next > offset) };
    let (time, key) = match found {
        Found::Taken { time, key } => (Some(*time), Some(String::from_utf8_lossy(key).into_owned())),
        Found::Rejected { time, .. } => (*time, None),
        Found::Missing(_) => (None, None),
    };
    let windows = match (found, covered) {
        (Found::Taken { time, .. }, Some(true)) => {
            let came_back = replay.as_ref().is_some_and(|replay| replay.outcome == Outcome::Applied);
            counted(job, *time, letter.as_ref().filter(|_| !came_back), answer, results)
        }
        _ => Vec::new(),
    };
    let verdict = match (found, covered, &letter) {
        (Found::Taken { time, .. }, Some(true), None) if job.core.operator.keeps_records() => {
            released(*time, answer.and_then(|answer| answer.as_ref().ok()))
        }
        _ => {
            let letter = letter.as_ref().map(|letter| (letter, replay.as_ref()));
            verdict(found, answer, input.map(|input| input.next), covered, letter, &windows)
        }
    };
    RecordFate {
        partition,
        offset,
        event_time_ms: time,
        key,
        shard: shard.map(|shard| shard.0),
        covered,
        dead_letter: letter,
        replay,
        windows,
        verdict,
    }
}

/// The windows that a record with this event time counts in.
fn counted(
    job: &Job,
    time: i64,
    letter: Option<&Letter>,
    answer: Option<&Result<v1::InspectResponse, String>>,
    results: Vec<((i64, i64), Value)>,
) -> Vec<RecordWindow> {
    if letter.is_some_and(|letter| letter.reason != "late_partial") {
        return Vec::new();
    }
    let missed = letter.and_then(|letter| letter.missed_to_ms);
    let open = answer.and_then(|answer| answer.as_ref().ok());
    let kept = open.iter().flat_map(|open| &open.windows).map(|window| (window.start_ms, window.end_ms));
    let mut windows: Vec<_> = match job.core.operator {
        OperatorSpec::Windows(spec) => {
            let grid = Grid::new(&spec);
            grid.ends_of(EventTime(time)).map(|end| (grid.start_of(end).millis(), end.millis())).collect()
        }
        OperatorSpec::Sessions(_) => kept.chain(results.iter().map(|(window, _)| *window)).collect(),
        OperatorSpec::Reorder => Vec::new(),
        OperatorSpec::Sliding(spec) => vec![(time.saturating_sub(spec.size.millis()), time)],
    };
    windows.retain(|window| belongs(&job.core.operator, time, *window));
    windows.retain(|(_, end)| missed.is_none_or(|missed| *end > missed));
    windows.sort_unstable();
    windows.dedup();
    let view = |(start_ms, end_ms): (i64, i64)| {
        let now = open.and_then(|open| open.windows.iter().find(|window| window.start_ms == start_ms));
        let own = results.iter().filter(|(window, _)| *window == (start_ms, end_ms));
        RecordWindow {
            start_ms,
            end_ms,
            open_records: now.filter(|window| !window.closed).map(|window| window.records),
            results: own.map(|(_, result)| result.clone()).collect(),
        }
    };
    windows.into_iter().map(view).collect()
}

/// Whether a record with this event time may belong to a window of its key.
pub(super) fn belongs(operator: &OperatorSpec, time: i64, (start, end): (i64, i64)) -> bool {
    let on_grid = operator.grid().is_none_or(|grid| {
        grid.ends_of(EventTime(time))
            .any(|other| other.millis() == end && grid.start_of(other).millis() == start)
    });
    if let OperatorSpec::Sliding(_) = operator {
        return start < time && time <= end;
    }
    on_grid && start <= time && time < end
}

/// Where a record is that leaves as it came.
fn released(time: i64, answer: Option<&v1::InspectResponse>) -> String {
    match answer.and_then(|answer| answer.watermark_ms) {
        Some(watermark) if time < watermark => {
            format!("it is out, in its place: its shard's watermark {} has passed it", moment(watermark))
        }
        Some(watermark) => {
            format!("it waits until its shard's watermark, which is {}, has passed it", moment(watermark))
        }
        None => "it waits: its shard's watermark is undefined".to_owned(),
    }
}

fn verdict(
    found: &Found,
    answer: Option<&Result<v1::InspectResponse, String>>,
    next: Option<u64>,
    covered: Option<bool>,
    letter: Option<(&Letter, Option<&Replay>)>,
    windows: &[RecordWindow],
) -> String {
    if let Some((letter, replay)) = letter {
        let detail = letter.detail.as_ref().map(|detail| format!(" ({detail})")).unwrap_or_default();
        let at = letter.watermark_ms.map_or_else(
            || "while its shard's watermark was undefined".to_owned(),
            |at| format!("when its shard's watermark was {}", moment(at)),
        );
        let partial = letter.reason == "late_partial" && !windows.is_empty();
        let partly = if partial { "; it counts in its other windows" } else { "" };
        let replay = replay.map(|replay| format!("; {}", replay.verdict)).unwrap_or_default();
        return format!("dead letter, reason `{}`{detail}, {at}{partly}{replay}", letter.reason);
    }
    match (found, covered) {
        (Found::Missing(why), _) => format!("{why}; it is no dead letter"),
        (_, None) => match answer {
            Some(Err(why)) => format!("not known: {why}"),
            _ => "not known: its shard was not asked".to_owned(),
        },
        (Found::Rejected { reason, detail, .. }, Some(false)) => {
            format!(
                "not covered yet: its shard is at offset {}; it will be a dead letter, reason `{reason}` {detail}",
                next.unwrap_or_default()
            )
        }
        (Found::Taken { .. }, Some(false)) => {
            format!("not covered yet: its shard is at offset {} of the partition", next.unwrap_or_default())
        }
        (Found::Rejected { reason, .. }, Some(true)) => {
            format!("covered; its dead letter, reason `{reason}`, is not in the topic (any more)")
        }
        (Found::Taken { .. }, Some(true)) => {
            let out = windows.iter().filter(|window| !window.results.is_empty()).count();
            let open = windows.iter().filter(|window| window.open_records.is_some()).count();
            format!(
                "applied to {} {}: {open} open, {out} with a result",
                windows.len(),
                if windows.len() == 1 { "window" } else { "windows" }
            )
        }
    }
}
