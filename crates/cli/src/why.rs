//! `tidegate why`: why has nothing come out, and where did a record go?
//!
//! ```text
//! coordinator: status ──► watermark: which partition holds W, and what would release it
//!         worker: inspect ──► shard: W_s against W, the key's windows
//!   source, dead letters, results ──► record: covered, applied, or a dead letter
//! ```

mod lookup;
mod record;
mod replay;
mod shard;
mod text;
mod watermark;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use serde::Serialize;
use tidegate_core::replay_request::partition_of_topic;
use tidegate_core::time::{Partition, Shard};
use tidegate_job::{Job, JobFile};
use tidegate_kafka::Access;
use tidegate_proto::v1;
use tidegate_runtime::tls;

use crate::inputs::Inputs;
use crate::inspect::{inspect, shard_of};
use crate::moment::{self, moment};
use crate::status::StatusClient;
use lookup::{Found, Topics};
use record::{Letter, RecordFate, RecordWindow};
use replay::Replay;
use shard::{ShardState, Window};
use watermark::GlobalWatermark;

pub(crate) use watermark::shard_state;

/// Why has nothing come out? Asks the coordinator, and for a key or a record its worker.
#[derive(Args, Debug)]
pub(crate) struct WhyArgs {
    /// A group key: its shard, its open windows and when they close
    key: Option<String>,
    /// Start of a window: milliseconds since the Unix epoch, or RFC 3339
    #[arg(long, value_name = "START", value_parser = moment::parse, allow_negative_numbers = true)]
    window: Option<i64>,
    /// A record of the source: its partition
    #[arg(long, value_name = "P", requires_all = ["offset", "job", "kafka"], conflicts_with_all = ["key", "window"])]
    partition: Option<u32>,
    /// A record of the source: its offset
    #[arg(long, value_name = "O", requires = "partition")]
    offset: Option<u64>,
    /// Job file, to read key and event time out of the record
    #[arg(long, value_name = "FILE")]
    job: Option<PathBuf>,
    /// The cluster, to look for the record, its dead letter and results
    #[arg(long, value_name = "BROKERS")]
    kafka: Option<String>,
    #[command(flatten)]
    access: Access,
    /// Addresses of the coordinators, separated by commas
    #[arg(long, value_name = "ADDRESSES", default_value = "127.0.0.1:7400", value_delimiter = ',')]
    coordinator: Vec<String>,
    #[command(flatten)]
    tls: tls::Flags,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// All that is answered.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Answer {
    pub(crate) job: String,
    pub(crate) watermark: GlobalWatermark,
    /// The shard of the key or record asked for; else the one furthest behind W, if one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) shard: Option<ShardState>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) key: Option<KeyAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) window: Option<WindowAnswer>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) record: Option<RecordFate>,
    pub(crate) notes: Vec<String>,
}

/// A key's windows.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct KeyAnswer {
    pub(crate) key: String,
    pub(crate) windows: Vec<Window>,
    /// How many there are in all.
    pub(crate) windows_total: u64,
    pub(crate) verdict: String,
}

/// A window, whatever the key.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct WindowAnswer {
    pub(crate) start_ms: i64,
    pub(crate) end_ms: i64,
    pub(crate) expected: String,
    /// The results of the key in it that are out; only with a key and `--kafka`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) results: Vec<serde_json::Value>,
}

/// Runs `tidegate why`.
///
/// # Errors
/// When no coordinator leads, a window does not exist, or a topic cannot be read.
pub(crate) async fn run(args: WhyArgs) -> Result<()> {
    let status = StatusClient::new(&args.coordinator, &args.tls)?
        .get()
        .await
        .context("the job does not run here, or --coordinator is wrong")?;
    let answer = answer(&args, &status).await?;
    if args.json {
        println!("{}", serde_json::to_string(&answer)?);
    } else {
        print!("{}", text::render(&answer));
    }
    Ok(())
}

async fn answer(args: &WhyArgs, status: &v1::JobStatus) -> Result<Answer> {
    let mut answer = Answer {
        job: status.name.clone(),
        watermark: watermark::explain(status),
        shard: None,
        key: None,
        window: None,
        record: None,
        notes: watermark::notes(status),
    };
    if let Some(start) = args.window {
        answer.window = Some(window(status, &answer.watermark, start)?);
    }
    match (&args.key, args.partition.zip(args.offset)) {
        (Some(key), _) => key_answer(args, status, key, &mut answer).await?,
        (None, Some(place)) => record_answer(args, status, place, &mut answer).await?,
        (None, None) => answer.shard = behind(status, &args.tls).await?,
    }
    Ok(answer)
}

fn window(status: &v1::JobStatus, watermark: &GlobalWatermark, start: i64) -> Result<WindowAnswer> {
    let facts = status.facts.clone().unwrap_or_default();
    if facts.window_size_ms == 0 {
        bail!(
            "--window: the windows of this job do not start at fixed times; `tidegate why KEY` lists what a key has"
        )
    }
    if let Err((before, behind)) = shard::aligned(&facts, start) {
        bail!(
            "no window starts at {}; the ones nearest start at {} and {}",
            moment(start),
            moment(before),
            moment(behind)
        );
    }
    let end_ms = shard::end_of(&facts, start);
    Ok(WindowAnswer {
        start_ms: start,
        end_ms,
        expected: watermark::expected(watermark, end_ms),
        results: Vec::new(),
    })
}

async fn key_answer(args: &WhyArgs, status: &v1::JobStatus, key: &str, answer: &mut Answer) -> Result<()> {
    let facts = status.facts.clone().unwrap_or_default();
    let shard = shard_of(status, key.as_bytes())?;
    let inspected = inspect(status, &args.tls, shard, Some(key.as_bytes()), None).await?;
    answer.shard = Some(shard::shard_state(status, shard, &inspected));
    let Ok(inspected) = inspected else { return Ok(()) };
    let mut windows = shard::windows(&inspected, &answer.watermark);
    if let Some(asked) = &mut answer.window {
        windows.retain(|window| window.start_ms == asked.start_ms);
        if windows.is_empty() {
            windows.push(shard::absent(&inspected, &facts, &answer.watermark, asked.start_ms));
        }
        if let Some(brokers) = &args.kafka {
            let topics = Topics::open(brokers, &args.access)?;
            let start_ms = asked.start_ms;
            let found = topics
                .results(&facts.sink_topic, Shard(shard), key.as_bytes(), move |(start, _)| start == start_ms)
                .await?;
            asked.results = found.into_iter().map(|(_, result)| result).collect();
        }
    }
    let verdict = match (inspected.windows_total, args.window) {
        (0, _) => format!(
            "the shard holds no record of this key: it has never come, or the windows that it was in have closed (topic `{}`), \
             or its records are dead letters (topic `{}`)",
            facts.sink_topic, facts.dead_letter_topic
        ),
        (all, _) if inspected.aggregates.is_empty() => format!("{all} of its records wait in memory"),
        (all, _) => format!("it has records in {all} {}", if all == 1 { "window" } else { "windows" }),
    };
    let windows_total = inspected.windows_total;
    answer.key = Some(KeyAnswer { key: key.to_owned(), windows, windows_total, verdict });
    Ok(())
}

async fn record_answer(
    args: &WhyArgs,
    status: &v1::JobStatus,
    place: (u32, u64),
    answer: &mut Answer,
) -> Result<()> {
    // clap has seen to both.
    let (Some(path), Some(brokers)) = (&args.job, &args.kafka) else { bail!("--job and --kafka are needed") };
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("cannot read the job file {}", path.display()))?;
    let job = JobFile::parse(&text, &path.display().to_string())?;
    if job.name != status.name {
        bail!("{} is of job `{}`, and the coordinator leads job `{}`", path.display(), job.name, status.name);
    }
    let topics = Topics::open(brokers, &args.access)?;
    let (partition, offset) = place;
    let found = topics.source_record(&job, Inputs::open(&job, path)?, partition, offset).await?;
    let shard = found.shard(partition, job.core.shards);
    let key = match &found {
        Found::Taken { key, .. } => Some(key.as_slice()),
        Found::Rejected { .. } | Found::Missing(_) => None,
    };
    // Before the topics are read: what is covered by now is in them.
    let inspected = match shard {
        Some(shard) => Some(inspect(status, &args.tls, shard.0, key, None).await?),
        None => None,
    };
    let letter = topics
        .dead_letter(&job.source.topic, &job.dead_letter.topic, (shard, job.core.shards), place)
        .await?;
    let results = match (&found, shard) {
        (Found::Taken { time, key }, Some(shard)) => {
            let (operator, time) = (job.core.operator, *time);
            let belongs = move |window| record::belongs(&operator, time, window);
            topics.results(&job.sink.topic, shard, key, belongs).await?
        }
        _ => Vec::new(),
    };
    answer.shard =
        shard.zip(inspected.as_ref()).map(|(s, inspected)| shard::shard_state(status, s.0, inspected));
    let replay = match &letter {
        Some(letter) if job.dead_letter.replay_ttl.is_some() => {
            Some(came_back(args, status, &topics, &job, (letter, &found, shard)).await?)
        }
        _ => None,
    };
    answer.record = Some(record::fate(&job, place, &found, inspected.as_ref(), (letter, replay), results));
    Ok(())
}

/// What became of a dead letter since.
async fn came_back(
    args: &WhyArgs,
    status: &v1::JobStatus,
    topics: &Topics,
    job: &Job,
    (letter, found, shard): (&Letter, &Found, Option<Shard>),
) -> Result<Replay> {
    let (replays, topic) = topics.replays(&job.control_topic(), &job.dead_letter.topic).await?;
    let partition = partition_of_topic(topic, Partition(letter.dead_partition)).0;
    let dead_letter = v1::DeadLetterPlace { partition, offset: letter.dead_offset };
    let says = match (found, shard) {
        (Found::Taken { .. }, Some(shard)) => {
            inspect(status, &args.tls, shard.0, None, Some(dead_letter)).await?.map(|answer| answer.replayed)
        }
        // No shard answers for what cannot be read.
        (Found::Rejected { .. }, _) => Ok(None),
        _ => Err("the record is gone from the source, and its key says which shard to ask".to_owned()),
    };
    Ok(replay::became(&replays, letter, found, &says))
}

/// The shard furthest behind W, where that is more than the way of a commit.
async fn behind(status: &v1::JobStatus, tls: &tls::Flags) -> Result<Option<ShardState>> {
    let Some(watermark) = crate::status::watermark(status) else { return Ok(None) };
    let stats = status.workers.iter().filter_map(|worker| worker.stats.as_ref());
    let owned = stats
        .flat_map(|stats| &stats.shards)
        .filter(|owned| status.owners.iter().any(|owner| owner.shard == owned.shard));
    let Some(last) = owned.min_by_key(|owned| owned.watermark_ms) else { return Ok(None) };
    // Two seconds' way at the present pace, for a watermark that moves.
    let moved =
        i64::try_from(status.watermark_pace.unwrap_or_default()).unwrap_or(i64::MAX).saturating_mul(2);
    let tolerated = if status.watermark_risen_ms.is_some_and(|stands| stands < 2_000) { moved } else { 0 };
    if last.watermark_ms.is_some_and(|at| watermark.saturating_sub(at) <= tolerated) {
        return Ok(None);
    }
    let inspected = inspect(status, tls, last.shard, None, None).await?;
    let state = shard::shard_state(status, last.shard, &inspected);
    Ok(Some(state).filter(|state| state.unknown_because.is_some() || !state.holders.is_empty()))
}
