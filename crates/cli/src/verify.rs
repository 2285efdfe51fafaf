//! The batch oracle: the job computed anew from the source topic, and compared with what came out.
//!
//! It shares no code with the shard machine. A record that is a dead letter has to deserve it; all others count in every window
//! that contains them, and of each (key, window) the highest revision has to say exactly that.

mod aggregates;
mod condition;
mod letters;
mod local;
mod parts;
mod reorder;
mod replayed;
mod results;
mod sliding;
mod source;
mod verdict;
mod windows;

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use tidegate_core::{
    job::{OnFuture, OperatorSpec},
    replay::Outcome,
};
use tidegate_job::{Format, Job, JobFile};
use tidegate_kafka::{Access, KafkaConfig};

use self::{
    aggregates::Inputs,
    letters::{Letter, check_late, dead_letters},
    reorder::Order,
    replayed::{Late, Returned},
    results::{check_result, compare, first_aggregates},
    sliding::Spans,
    source::{Parsed, read},
    verdict::Difference,
    windows::{Window, apply, sessions, windows_of},
};
use crate::topics;

pub(crate) use verdict::Verdict;

/// Compares what a job has put out with the batch answer.
#[derive(Args, Debug)]
pub(crate) struct VerifyArgs {
    /// Job file
    #[arg(long, value_name = "FILE")]
    job: PathBuf,
    /// The cluster it ran on
    #[arg(long, value_name = "BROKERS")]
    kafka: String,
    #[command(flatten)]
    access: Access,
    /// Windows that ended by then must have a result, none other may: milliseconds since the Unix epoch
    #[arg(long, value_name = "MS", allow_negative_numbers = true)]
    watermark: i64,
    #[command(flatten)]
    earlier: Earlier,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

/// Topics that the job wrote to before its file named others: what is out in them stays there.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Earlier {
    /// Result topics that the job had before the one in its file, oldest first, separated by commas
    #[arg(long = "earlier-results", value_name = "TOPICS", value_delimiter = ',')]
    results: Vec<String>,
    /// Dead-letter topics that the job had before the one in its file, separated by commas
    #[arg(long = "earlier-dead-letters", value_name = "TOPICS", value_delimiter = ',')]
    dead_letters: Vec<String>,
}

impl Earlier {
    /// All result topics, that of the job file last.
    fn results<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a String> {
        self.results.iter().chain([&job.sink.topic])
    }

    /// All dead-letter topics, that of the job file last.
    fn dead_letters<'a>(&'a self, job: &'a Job) -> impl Iterator<Item = &'a String> {
        self.dead_letters.iter().chain([&job.dead_letter.topic])
    }
}

/// Runs `tidegate verify`; true when nothing differs.
///
/// # Errors
/// When the job file or a topic cannot be read.
pub(crate) async fn run(args: VerifyArgs) -> Result<bool> {
    let text = std::fs::read_to_string(&args.job)
        .with_context(|| format!("cannot read the job file {}", args.job.display()))?;
    let job = JobFile::parse(&text, &args.job.display().to_string())?;
    let kafka = args.access.config(&args.kafka, "tidegate-verify")?;
    let compared = move || verify(&job, &kafka, &args.earlier, Some(args.watermark));
    let verdict = tokio::task::spawn_blocking(compared).await??;
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
    } else {
        println!("{verdict}");
    }
    Ok(verdict.mismatches() == 0)
}

/// Compares the job's output with a batch computation over its source, windows that ended by `watermark` included.
///
/// # Errors
/// When a topic cannot be read.
pub(crate) fn verify(
    job: &Job,
    kafka: &KafkaConfig,
    earlier: &Earlier,
    watermark: Option<i64>,
) -> Result<Verdict> {
    if job.core.watermark.on_future == OnFuture::Clamp {
        bail!(
            "watermark.on_future: a clamped record counts as of its arrival, which is nowhere written down: a batch cannot \
             compute it again; verify a job with `dead_letter` or `accept`"
        )
    }
    if let format @ (Format::Avro(_) | Format::Protobuf(_)) = &job.source.format {
        bail!(
            "cannot verify: the batch computation reads `json` and `raw`, and the job's format is `{}`",
            format.word()
        );
    }
    let mut verdict = Verdict::default();
    let returned = Returned::read(job, kafka)?;
    let letters = dead_letters(job, kafka, (earlier, &returned), &mut verdict)?;
    // What dead letters may add to windows.
    let mut late = Late::default();
    let (mut order, mut spans) = (Order::default(), Spans::default());
    let mut windows: BTreeMap<Window, Inputs> = BTreeMap::new();
    // What has no window before all records are known, by key and time.
    let mut unplaced: BTreeMap<(String, i64), Inputs> = BTreeMap::new();
    let mut seen = 0;
    // The largest event time so far of each partition.
    let mut latest: HashMap<u32, i64> = HashMap::new();
    let delay = job.core.watermark.strategy.least_delay().millis();
    topics::read_all(kafka, &job.source.topic, |record| {
        verdict.records += 1;
        let place = (record.partition().0, record.offset().0);
        let letter = letters.get(&place);
        seen += u64::from(letter.is_some());
        match (read(job, &record), letter) {
            (Err(reason), Some(letter)) => {
                if letter.reason != reason {
                    verdict.differ(
                        Difference::Wrong,
                        format_args!(
                            "{place:?} is a dead letter for {} and should be for {reason}",
                            letter.reason
                        ),
                    );
                }
                if letter.value.as_deref() != record.value() || letter.key.as_deref() != record.key() {
                    verdict
                        .differ(Difference::Wrong, format_args!("the dead letter of {place:?} is not whole"));
                }
            }
            (Err(reason), None) => verdict
                .differ(Difference::Lost, format_args!("{place:?} should be a dead letter for {reason}")),
            (Ok(parsed), letter) => {
                let outcome = letter.and_then(|letter| returned.outcome(job, &parsed, &record, letter));
                let counts = letter.is_none() || outcome == Some(Outcome::Applied);
                if let Some(letter) = letter {
                    check_late(job, place, &parsed, (letter, outcome.is_some()), &record, &mut verdict);
                    verdict.replayed += u64::from(counts);
                    let behind = latest.get(&place.0).is_some_and(|latest| latest - parsed.time > delay);
                    verdict.overtaken += u64::from(!behind && letter.reason.starts_with("late"));
                }
                if letter.is_none_or(|letter| letter.reason != "future") {
                    let latest = latest.entry(place.0).or_insert(parsed.time);
                    *latest = parsed.time.max(*latest);
                }
                match (&job.core.operator, letter) {
                    (OperatorSpec::Windows(spec), Some(letter)) => {
                        let came = outcome == Some(Outcome::Applied);
                        late.expect(job, spec, place, parsed, (letter, came), &mut windows);
                    }
                    _ if !counts => {}
                    (OperatorSpec::Windows(spec), None) => apply(job, spec, place, &parsed, &mut windows),
                    (OperatorSpec::Sessions(_), _) => {
                        let inputs = unplaced.entry((parsed.key.clone(), parsed.time)).or_default();
                        inputs.add(job, &parsed.value, (parsed.time, place.0, place.1));
                    }
                    (OperatorSpec::Reorder, _) => order.expect(parsed, &record),
                    (OperatorSpec::Sliding(_), _) => spans.expect(parsed, place),
                }
            }
        }
        Ok(())
    })?;
    if seen != letters.len() as u64 {
        verdict.differ(
            Difference::Wrong,
            format_args!("{} dead letters are of no source record", letters.len() as u64 - seen),
        );
    }
    match &job.core.operator {
        OperatorSpec::Windows(_) => {}
        OperatorSpec::Sessions(spec) => windows = sessions(spec, unplaced),
        OperatorSpec::Sliding(spec) => {
            spans.compare(job, spec.size, (kafka, earlier), watermark, &mut verdict)?;
            return Ok(verdict);
        }
        OperatorSpec::Reorder => {
            order.compare(job, (kafka, earlier), watermark, &mut verdict)?;
            return Ok(verdict);
        }
    }
    compare(job, (kafka, earlier), watermark, (&windows, &late), &mut verdict)?;
    Ok(verdict)
}
