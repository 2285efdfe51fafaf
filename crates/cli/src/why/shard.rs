//! Why a shard puts nothing out, and what a key has in it.

use serde::Serialize;
use serde_json::{Map, Value};
use tidegate_core::{
    job::WindowSpec,
    time::{EventTime, Span},
    window::Grid,
};
use tidegate_proto::v1;

use super::watermark::{GlobalWatermark, expected};

/// Where a shard stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShardState {
    pub(crate) shard: u32,
    /// Who owns it; absent where nobody does, or it does not answer.
    pub(crate) worker: Option<String>,
    /// Why it cannot be asked.
    pub(crate) unknown_because: Option<String>,
    /// Whether what follows is committed.
    pub(crate) committed: bool,
    /// W_s.
    pub(crate) watermark_ms: Option<i64>,
    /// W as the shard knows it.
    pub(crate) announced_ms: Option<i64>,
    pub(crate) verdict: String,
    /// The partitions that keep W_s below W.
    pub(crate) holders: Vec<ShardHolder>,
}

/// A partition whose records or watermark a shard waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct ShardHolder {
    pub(crate) partition: u32,
    pub(crate) in_band_ms: Option<i64>,
    /// The smallest offset that the shard has not covered, and how far the partition is read.
    pub(crate) next: u64,
    pub(crate) read_to: Option<u64>,
}

/// A window of a key.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Window {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    /// Records of the key in it.
    pub(crate) records: u64,
    /// The aggregates as they are now.
    pub(crate) values: Map<String, Value>,
    /// `open`, `closed` (late records still correct it), `gone`, or `empty` (open, without records of the key).
    pub(crate) state: &'static str,
    /// What is to be expected of it.
    pub(crate) expected: String,
}

/// Reads what a worker says of a shard; `answer` is why it says nothing.
pub(crate) fn shard_state(
    status: &v1::JobStatus,
    shard: u32,
    answer: &Result<v1::InspectResponse, String>,
) -> ShardState {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => {
            return ShardState {
                shard,
                worker: None,
                unknown_because: Some(why.clone()),
                committed: false,
                watermark_ms: None,
                announced_ms: None,
                verdict: why.clone(),
                holders: Vec::new(),
            };
        }
    };
    let holder = |input: &v1::InspectedInput| ShardHolder {
        partition: input.partition,
        in_band_ms: input.in_band_ms,
        next: input.next,
        read_to: status.partitions.iter().find(|p| p.partition == input.partition).map(|p| p.position),
    };
    let holders: Vec<_> = answer.inputs.iter().filter(|input| input.holds).map(holder).collect();
    ShardState {
        shard,
        worker: Some(answer.worker.clone()),
        unknown_because: None,
        committed: answer.committed,
        watermark_ms: answer.watermark_ms,
        announced_ms: answer.announced_ms,
        verdict: verdict(answer, &holders),
        holders,
    }
}

fn verdict(answer: &v1::InspectResponse, holders: &[ShardHolder]) -> String {
    let mut verdict = match (answer.announced_ms, holders) {
        (None, _) => "no watermark has been announced to it".to_owned(),
        (Some(_), []) => "it is where W is".to_owned(),
        (Some(_), holders) => {
            let behind = holders.iter().any(|holder| holder.read_to.is_some_and(|read| read > holder.next));
            let why = if behind {
                "records that are read have not reached it, or have not been committed: it catches up, or its commits stall"
            } else {
                "word of the partition's watermark has not reached it"
            };
            format!("it is behind W: {why}")
        }
    };
    if answer.closing {
        verdict.push_str("; windows that have ended are being put out");
    }
    if !answer.committed {
        verdict.push_str("; its commits stall: what is shown is not committed");
    }
    verdict
}

/// The windows of a key as the worker tells them.
pub(crate) fn windows(answer: &v1::InspectResponse, watermark: &GlobalWatermark) -> Vec<Window> {
    answer.windows.iter().map(|window| told(answer, window, watermark)).collect()
}

fn told(answer: &v1::InspectResponse, window: &v1::InspectedWindow, watermark: &GlobalWatermark) -> Window {
    let value = |text: &String| serde_json::from_str(text).unwrap_or(Value::Null);
    let expected = match (window.closed, window.emitted) {
        (false, _) => expected(watermark, window.end_ms),
        (true, None) => "it has ended: its result is out; a late record still corrects it".to_owned(),
        (true, Some(emitted)) => {
            format!(
                "it has ended: {emitted} results are out, the last after a late record; late records still correct it"
            )
        }
    };
    Window {
        start_ms: window.start_ms,
        end_ms: window.end_ms,
        records: window.records,
        values: answer.aggregates.iter().cloned().zip(window.values.iter().map(value)).collect(),
        state: if window.closed { "closed" } else { "open" },
        expected,
    }
}

/// A window in which the key has nothing.
pub(crate) fn absent(
    answer: &v1::InspectResponse,
    facts: &v1::JobFacts,
    watermark: &GlobalWatermark,
    start_ms: i64,
) -> Window {
    let end_ms = end_of(facts, start_ms);
    let (state, expected) = if answer.purged_ms.is_some_and(|purged| end_ms <= purged) {
        let topic = &facts.sink_topic;
        (
            "gone",
            format!(
                "it has closed: its result, if the key had records in it, is in topic `{topic}`; a record for it now is a dead letter"
            ),
        )
    } else if Some(end_ms) <= answer.watermark_ms {
        ("closed", "it has ended without a record of this key; a late one still counts".to_owned())
    } else {
        (
            "empty",
            format!(
                "no record of this key in it has been covered yet; it ends {}",
                expected(watermark, end_ms)
            ),
        )
    };
    Window { start_ms, end_ms, records: 0, values: Map::new(), state, expected }
}

/// The window that starts at `start_ms`.
///
/// # Errors
/// Where there is no such window: the starts of the ones before and behind it.
pub(crate) fn aligned(facts: &v1::JobFacts, start_ms: i64) -> Result<i64, (i64, i64)> {
    let grid = grid(facts);
    let end = grid.last_end(EventTime(start_ms));
    let before = grid.start_of(end);
    if before.millis() == start_ms {
        return Ok(start_ms);
    }
    Err((before.millis(), grid.start_of(grid.next_end(end)).millis()))
}

/// The end of the window that starts at `start_ms`.
pub(crate) fn end_of(facts: &v1::JobFacts, start_ms: i64) -> i64 {
    grid(facts).last_end(EventTime(start_ms)).millis()
}

fn grid(facts: &v1::JobFacts) -> Grid {
    let span = |ms: u64| Span(i64::try_from(ms).unwrap_or(i64::MAX));
    Grid::new(&WindowSpec {
        size: span(facts.window_size_ms),
        step: span(facts.window_step_ms),
        offset: Span(facts.window_offset_ms),
        zone: tidegate_job::zone(&facts.timezone),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> v1::InspectResponse {
        let input = |partition, next, in_band_ms, holds| v1::InspectedInput {
            partition,
            next,
            in_band_ms,
            counts: true,
            holds,
            ..v1::InspectedInput::default()
        };
        v1::InspectResponse {
            worker: "w".to_owned(),
            committed: true,
            watermark_ms: Some(12_000),
            announced_ms: Some(15_000),
            purged_ms: Some(8_000),
            inputs: vec![input(0, 40, Some(15_000), false), input(1, 30, Some(12_000), true)],
            aggregates: vec!["n".to_owned()],
            windows: vec![v1::InspectedWindow {
                start_ms: 10_000,
                end_ms: 20_000,
                records: 3,
                values: vec!["3".to_owned()],
                ..v1::InspectedWindow::default()
            }],
            windows_total: 1,
            ..v1::InspectResponse::default()
        }
    }

    fn status(read_to: u64) -> v1::JobStatus {
        let partition =
            |partition, position| v1::PartitionStatus { partition, position, ..Default::default() };
        v1::JobStatus { partitions: vec![partition(0, 40), partition(1, read_to)], ..Default::default() }
    }

    fn global() -> GlobalWatermark {
        GlobalWatermark {
            watermark_ms: Some(15_000),
            stands_for_ms: Some(0),
            pace_ms_per_second: Some(1_000),
            clock_ms: 0,
            verdict: String::new(),
            holders: Vec::new(),
        }
    }

    fn facts() -> v1::JobFacts {
        v1::JobFacts {
            window_size_ms: 10_000,
            window_step_ms: 5_000,
            window_offset_ms: 1_000,
            ..Default::default()
        }
    }

    #[test]
    fn a_shard_behind_w_names_the_partition_and_what_is_missing_of_it() {
        let state = shard_state(&status(35), 4, &Ok(answer()));
        let holders: Vec<_> = state.holders.iter().map(|h| (h.partition, h.next, h.read_to)).collect();
        assert_eq!(holders, [(1, 30, Some(35))]);
        assert!(state.verdict.contains("records that are read have not reached it"), "{}", state.verdict);
        let state = shard_state(&status(30), 4, &Ok(answer()));
        assert!(state.verdict.contains("word of the partition's watermark"), "{}", state.verdict);
        let stalled = v1::InspectResponse { committed: false, closing: true, ..answer() };
        let state = shard_state(&status(30), 4, &Ok(stalled));
        assert!(state.verdict.contains("being put out") && state.verdict.contains("commits stall"));
        let state = shard_state(&status(30), 4, &Err("nobody has it".to_owned()));
        assert_eq!((state.verdict.as_str(), state.worker), ("nobody has it", None));
    }

    #[test]
    fn a_window_is_told_with_its_values_and_when_it_closes() {
        let [window] = &windows(&answer(), &global())[..] else { panic!() };
        assert_eq!((window.records, window.state, window.values["n"].as_u64()), (3, "open", Some(3)));
        assert!(window.expected.contains("in about 5 s"), "{}", window.expected);
    }

    #[test]
    fn a_window_without_the_key_is_empty_closed_or_gone() {
        let state = |start| absent(&answer(), &facts(), &global(), start).state;
        assert_eq!((state(6_000), state(1_000), state(-4_000)), ("empty", "closed", "gone"));
    }

    #[test]
    fn only_starts_on_the_grid_are_windows() {
        assert_eq!(aligned(&facts(), 6_000), Ok(6_000));
        assert_eq!(aligned(&facts(), -4_000), Ok(-4_000));
        assert_eq!(aligned(&facts(), 7_234), Err((6_000, 11_000)));
        assert_eq!(aligned(&facts(), -1), Err((-4_000, 1_000)));
    }
}
