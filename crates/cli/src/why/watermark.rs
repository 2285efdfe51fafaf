//! Why the global watermark stands where it stands, from what the coordinator tells.

use serde::Serialize;
use tidegate_proto::v1;

use crate::moment::{moment, span};

/// A clock that is this far ahead of ours is worth a word, in ms.
const AHEAD: i64 = 60_000;

/// A watermark that has stood for less than this moves, in ms.
const MOVES: u64 = 2_000;

/// The global watermark, and what it waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct GlobalWatermark {
    /// W; absent while undefined.
    pub(crate) watermark_ms: Option<i64>,
    /// How long it has stood there.
    pub(crate) stands_for_ms: Option<u64>,
    /// How far it has moved over the last minute, ms of event time a second.
    pub(crate) pace_ms_per_second: Option<u64>,
    /// The least of the ingests' clocks.
    pub(crate) clock_ms: i64,
    /// The answer in a sentence.
    pub(crate) verdict: String,
    /// The partitions that W waits for.
    pub(crate) holders: Vec<Holder>,
}

/// A partition that W waits for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Holder {
    pub(crate) partition: u32,
    pub(crate) state: String,
    /// How long it is in that state.
    pub(crate) since_ms: Option<u64>,
    /// When it was last reported.
    pub(crate) heard_ms: Option<u64>,
    pub(crate) watermark_ms: Option<i64>,
    /// How long its watermark has stood.
    pub(crate) stands_for_ms: Option<u64>,
    pub(crate) position: u64,
    pub(crate) lag: u64,
    /// The largest event time it has had, and how far that is behind the clock (negative: ahead).
    pub(crate) newest_ms: Option<i64>,
    pub(crate) behind_clock_ms: Option<i64>,
    /// How far its watermark's strategy is behind the largest event time, and whether it has yet to see enough.
    pub(crate) delay_ms: Option<u64>,
    pub(crate) learning: bool,
    /// The clock minus the event time of its records of late: median and 99th percentile; negative for what is ahead.
    pub(crate) skew_p50_ms: Option<i64>,
    pub(crate) skew_p99_ms: Option<i64>,
    /// Why it does not move.
    pub(crate) why: String,
    /// What would release it.
    pub(crate) release: String,
}

/// What W waits for.
pub(crate) fn explain(status: &v1::JobStatus) -> GlobalWatermark {
    let facts = status.facts.clone().unwrap_or_default();
    let holders: Vec<_> =
        status.partitions.iter().filter(|p| p.holds).map(|p| holder(status, &facts, p)).collect();
    GlobalWatermark {
        watermark_ms: crate::status::watermark(status),
        stands_for_ms: status.watermark_risen_ms,
        pace_ms_per_second: status.watermark_pace,
        clock_ms: status.clock_ms,
        verdict: verdict(status, &facts, holders.len()),
        holders,
    }
}

fn verdict(status: &v1::JobStatus, facts: &v1::JobFacts, holders: usize) -> String {
    let all = status.partitions.len();
    if holders > 0 {
        let partitions = if all == 1 { "partition" } else { "partitions" };
        let moves = status.watermark_risen_ms.is_some_and(|stands| stands < MOVES);
        return match (crate::status::watermark(status), moves) {
            (None, _) => format!("W is undefined: it waits for {holders} of {all} {partitions}"),
            (Some(_), true) => format!("W moves; what it follows is {holders} of {all} {partitions}"),
            (Some(_), false) => format!("W waits for {holders} of {all} {partitions}"),
        };
    }
    if status.partitions.iter().all(|partition| partition.watermark_ms.is_none()) {
        return "every partition is at its end and none has ever had a record: W is undefined until one comes".to_owned();
    }
    match facts.on_quiet.as_str() {
        "advance" => {
            "every partition is idle, and W moves on with the clock (watermark.on_quiet: advance)".to_owned()
        }
        "finish" => "every partition is idle, and W has passed the end of every window that a record can be in \
                     (watermark.on_quiet: finish): all has come out"
            .to_owned(),
        _ => "every partition is idle, so W stays where the last records brought it (watermark.on_quiet: hold); it \
              moves with the next record, or with `on_quiet: advance` or `finish`"
            .to_owned(),
    }
}

fn holder(status: &v1::JobStatus, facts: &v1::JobFacts, p: &v1::PartitionStatus) -> Holder {
    let (why, release) = reason(status, facts, p);
    let observed = p.observed.as_ref();
    let skew = observed.and_then(|observed| observed.skew.as_ref());
    Holder {
        partition: p.partition,
        state: p.state.clone(),
        since_ms: p.since_ms,
        heard_ms: p.heard_ms,
        watermark_ms: p.watermark_ms,
        stands_for_ms: p.risen_ms,
        position: p.position,
        lag: p.lag,
        newest_ms: p.max_event_time_ms,
        behind_clock_ms: p.max_event_time_ms.map(|newest| status.clock_ms.saturating_sub(newest)),
        delay_ms: observed.and_then(|observed| observed.delay_ms),
        learning: observed.is_some_and(|observed| observed.learning),
        skew_p50_ms: skew.map(|skew| skew.p50_ms),
        skew_p99_ms: skew.map(|skew| skew.p99_ms),
        why,
        release,
    }
}

/// Why a partition holds W, and what would release it.
fn reason(status: &v1::JobStatus, facts: &v1::JobFacts, p: &v1::PartitionStatus) -> (String, String) {
    let idle = span(facts.idle_timeout_ms);
    let said = |(why, release): (&str, &str)| (why.to_owned(), release.to_owned());
    match p.state.as_str() {
        "unknown" if status.partitions.iter().all(|other| other.state == "unknown") => said((
            "no ingest has reported any partition to this coordinator yet",
            "an ingest that runs with this coordinator's address and has joined the consumer group; its log says what it waits for",
        )),
        "unknown" => said((
            "no ingest has reported it to this coordinator yet",
            "the ingest that gets it from the consumer group; if that lasts, see the logs of the ingests",
        )),
        "unowned" => said((
            "the stream of the ingest that read it has ended, and no other has taken it over",
            "another ingest, which gets it from the consumer group at once, or 10 s after a kill; or that one when it is back",
        )),
        "expired" => (
            format!("its ingest has said nothing for {}", span(p.heard_ms.unwrap_or_default())),
            "the ingest, if it only hangs or cannot reach the coordinator; or another one".to_owned(),
        ),
        "lagging" => (
            format!(
                "a producer of the source has an open transaction: nothing behind offset {} can be read, {} offsets wait",
                p.position, p.lag
            ),
            format!(
                "the end of that transaction: by its producer, by its transaction.timeout.ms, or by hand. Find it: \
                 kafka-transactions.sh --bootstrap-server BROKERS describe-producers --topic {} --partition {}",
                facts.source_topic, p.partition
            ),
        ),
        "blocked" if p.paused => said((
            "it is further ahead than watermark.max_drift and paused",
            "the partitions behind it, when they have caught up",
        )),
        "blocked" => said((
            "it is not read: a worker that its records go to takes nothing more until it has committed",
            "that worker: see its log for commits that fail or take long, and the brokers",
        )),
        _ if p.watermark_ms.is_none() && p.lag == 0 => (
            "it has never had a record, so it has no watermark".to_owned(),
            format!("its first record; or nothing at all: after {idle} at its end (watermark.idle_timeout) it no longer counts"),
        ),
        _ if p.watermark_ms.is_none() => (
            format!("no record of it has given a usable event time yet; {} offsets are not read", p.lag),
            "the first record with an event time; dead letters with reason `no_event_time` say what is wrong with the others".to_owned(),
        ),
        _ if p.lag > 0 => (
            format!("it has the oldest records: {} offsets are not read yet", p.lag),
            "reading on; more ingests (up to one a partition) or workers if that is too slow".to_owned(),
        ),
        _ => (
            "it has the oldest newest record, and is at its end".to_owned(),
            format!("its next record; or none: after {idle} without one (watermark.idle_timeout) it no longer counts"),
        ),
    }
}

/// Clocks that run ahead, shards that nobody has, workers that are gone.
pub(crate) fn notes(status: &v1::JobStatus) -> Vec<String> {
    let facts = status.facts.clone().unwrap_or_default();
    let mut notes = Vec::new();
    let ahead =
        |time: Option<i64>| time.map(|time| time.saturating_sub(status.clock_ms)).filter(|by| *by > AHEAD);
    let bound = match facts.max_future_skew_ms {
        Some(bound) => format!("watermark.max_future_skew is {}", span(bound)),
        None => "take out `watermark.on_future: accept`, so that such records move nothing".to_owned(),
    };
    if let Some(by) = ahead(crate::status::watermark(status)).filter(|_| facts.on_quiet != "finish") {
        notes.push(format!(
            "W is {} ahead of the clock: a record from a clock that runs ahead has moved it, and what comes now is late; {bound}",
            span(by.unsigned_abs())
        ));
    } else {
        for p in &status.partitions {
            if let Some(by) = ahead(p.max_event_time_ms) {
                notes.push(format!(
                    "partition {} has had an event time {} ahead of the clock; {bound}",
                    p.partition,
                    span(by.unsigned_abs())
                ));
            }
        }
    }
    if status.workers.is_empty() {
        notes.push("no worker is connected: nothing is computed".to_owned());
    }
    let homeless: Vec<_> = status.shards.iter().filter(|shard| shard.state != "owned").collect();
    if !homeless.is_empty() && !status.workers.is_empty() {
        let listed: Vec<_> = homeless.iter().take(8).map(|shard| shard_state(shard)).collect();
        let more = homeless.len().saturating_sub(8);
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        notes.push(format!("shards without an owner put nothing out: {}{more}", listed.join("; ")));
    }
    notes
}

/// A shard that nobody owns, in words.
pub(crate) fn shard_state(shard: &v1::ShardStatus) -> String {
    let v1::ShardStatus { shard, state, worker } = shard;
    match state.as_str() {
        "held" => format!("{shard} waits for the return of worker `{worker}`"),
        "releasing" => format!("{shard} is on its way from worker `{worker}` to another"),
        "owned" => format!("{shard} is owned by worker `{worker}`"),
        _ => format!("{shard} waits for a worker"),
    }
}

/// When the watermark may be expected at `end`, as it has moved of late.
pub(crate) fn expected(watermark: &GlobalWatermark, end: i64) -> String {
    let left = watermark.watermark_ms.map(|at| end.saturating_sub(at));
    match (left, watermark.pace_ms_per_second) {
        (None, _) => "not before W is defined".to_owned(),
        (Some(left), _) if left <= 0 => "W has passed its end".to_owned(),
        (Some(left), Some(pace)) if pace > 0 => {
            let ms = u64::try_from(i128::from(left) * 1_000 / i128::from(pace)).unwrap_or(u64::MAX);
            format!("in about {}, if W goes on as in the last minute", span(ms.max(1)))
        }
        (Some(left), _) => {
            format!("when W reaches {}, {} from here; it stands now", moment(end), span(left.unsigned_abs()))
        }
    }
}

#[cfg(test)]
mod tests;
