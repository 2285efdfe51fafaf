//! `tidegate profile TOPIC`: how far out of order a topic's records are, and which `watermark` section suits it.

mod advice;
mod measure;
mod plot;
mod report;
mod words;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use tidegate_core::dead_letter::Reason;
use tidegate_core::record::RecordView;
use tidegate_core::time::{EventTime, Span};
use tidegate_job::{Job, JobFile, duration};
use tidegate_kafka::{Access, Extent, KafkaConfig, Record, Sample};

use crate::inputs::Inputs;
use crate::topics;
use advice::Advice;
use measure::{Clock, Measure, Seen};
use report::Report;

/// How long a read may wait for the next record.
const PATIENCE: Duration = Duration::from_secs(30);
/// The progress bar moves after so many records.
const STRIDE: u64 = 1000;

/// How far out of order a topic's records are, and what to write into the job file.
#[derive(Args, Debug)]
pub(crate) struct ProfileArgs {
    /// Topic to look at; without it the source of the job
    topic: Option<String>,
    /// The cluster
    #[arg(long, value_name = "BROKERS", default_value = "127.0.0.1:9092")]
    kafka: String,
    #[command(flatten)]
    access: Access,
    /// Job file whose `source` says where the event time is
    #[arg(long, value_name = "FILE", conflicts_with = "event_time")]
    job: Option<PathBuf>,
    /// Where the event time is, tried in order, without a job file: `header:NAME`, `field:/POINTER` or `record_timestamp`, the
    /// first two perhaps with a unit behind: `field:/ts:rfc3339`
    #[arg(long, value_name = "PLACE", value_delimiter = ',')]
    event_time: Vec<String>,
    /// How many records, the newest of all partitions
    #[arg(long, value_name = "N", default_value_t = 500_000, value_parser = clap::value_parser!(u64).range(1..))]
    records: u64,
    /// Instead: the records of this long until now, by their timestamps, as in `2h`
    #[arg(long, value_name = "TIME", value_parser = span, conflicts_with = "records")]
    last: Option<Span>,
    /// Instead: all records
    #[arg(long, conflicts_with_all = ["records", "last"])]
    all: bool,
    /// Share of each partition's records that may be late with the recommended delay, in percent
    #[arg(long, value_name = "PERCENT", default_value_t = 0.1, value_parser = percent)]
    late: f64,
    /// Records further ahead of their timestamps, or of the clock, than this do not count; without it, what 99 % of them keep decides
    #[arg(long, value_name = "TIME", value_parser = span)]
    max_future_skew: Option<Span>,
    /// Draw the share of late records and the skew: `.svg` or `.png`
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Print the report as JSON
    #[arg(long)]
    json: bool,
}

fn span(text: &str) -> Result<Span, String> {
    duration(text)
}

fn percent(text: &str) -> Result<f64, String> {
    let percent = text.parse::<f64>().map_err(|error| error.to_string())?;
    if (0.0..100.0).contains(&percent) { Ok(percent) } else { Err("use 0 to below 100".to_owned()) }
}

/// Runs `tidegate profile`.
///
/// # Errors
/// When the topic cannot be read, or holds nothing that can be measured.
pub(crate) async fn run(args: ProfileArgs) -> Result<()> {
    let drawing = args.plot.as_deref().map(plot::Kind::of).transpose()?;
    let (job, path) = source(&args)?;
    let inputs = Inputs::open(&job, &path)?;
    let kafka = args.access.config(&args.kafka, "tidegate-profile")?;
    let extent = match (args.last, args.all) {
        (Some(span), _) => Extent::Since(EventTime(topics::unix_millis()).minus(span)),
        (None, true) => Extent::Everything,
        (None, false) => Extent::Newest(args.records),
    };
    let topic = job.source.topic.clone();
    let reading = Reading { inputs };
    let measured = {
        let topic = topic.clone();
        tokio::task::spawn_blocking(move || reading.measure(&kafka, &topic, extent)).await??
    };
    let clock = Clock { now: EventTime(topics::unix_millis()), bound: args.max_future_skew };
    let measured = measured.finish(clock);
    let records: u64 = measured.partitions.values().map(|partition| partition.records).sum();
    let timed: u64 = measured.partitions.values().map(|partition| partition.timed).sum();
    if records == 0 {
        bail!("topic `{topic}` has no records there; wait for some, or take more with --all");
    }
    let target = args.late / 100.0;
    let advice = Advice::of(&measured, target);
    let report = Report::new(&topic, target, &measured.partitions, &advice);
    if timed == 0 {
        bail!(
            "none of the {records} records of topic `{topic}` has an event time that counts: {}; say where it is with --job or \
             --event-time",
            without_time(&report)
        );
    }
    if let (Some(path), Some(kind)) = (&args.plot, drawing) {
        plot::draw(path, kind, &report, &measured.partitions)
            .with_context(|| format!("cannot draw {}", path.display()))?;
    }
    if args.json {
        println!("{}", serde_json::to_string_pretty(&report)?);
    } else {
        print!("{}", report::text(&report));
    }
    Ok(())
}

/// Why records have no event time that counts.
fn without_time(report: &Report) -> String {
    let mut reasons: std::collections::BTreeMap<&str, u64> = std::collections::BTreeMap::new();
    for partition in &report.partitions {
        for (reason, count) in &partition.rejected {
            *reasons.entry(reason).or_default() += count;
        }
        if partition.future > 0 {
            *reasons.entry("future").or_default() += partition.future;
        }
    }
    reasons.iter().map(|(reason, count)| format!("{count} {reason}")).collect::<Vec<_>>().join(", ")
}

/// The job whose source is looked at, and where files that it names are found.
fn source(args: &ProfileArgs) -> Result<(Job, PathBuf)> {
    let (mut job, path) = match &args.job {
        Some(path) => {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("cannot read the job file {}", path.display()))?;
            (JobFile::parse(&text, &path.display().to_string())?, path.clone())
        }
        None => {
            let topic = args.topic.as_deref().context("name a topic, or a job file with --job")?;
            let text = job_of(topic, &args.event_time)?;
            (JobFile::parse(&text, "--event-time")?, Path::new(".").join("job.yaml"))
        }
    };
    if let Some(topic) = &args.topic {
        job.source.topic.clone_from(topic);
    }
    // Only event times are asked for: a record that an aggregate cannot use has one.
    job.core.columns.clear();
    job.core.aggregates.clear();
    Ok((job, path))
}

/// A job of which only the source counts.
fn job_of(topic: &str, places: &[String]) -> Result<String> {
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    let mut format = "raw";
    let mut entries = Vec::new();
    for place in places {
        let (kind, rest) = place.split_once(':').unwrap_or((place, ""));
        let (name, unit) = match rest.rsplit_once(':') {
            Some((name, unit @ ("s" | "ms" | "us" | "ns" | "rfc3339"))) => (name, unit),
            _ => (rest, "ms"),
        };
        match kind {
            "record_timestamp" if rest.is_empty() => entries.push("record_timestamp".to_owned()),
            "header" | "field" if !name.is_empty() => {
                if kind == "field" {
                    format = "json";
                }
                entries.push(format!("{{ {kind}: {}, unit: {unit} }}", quoted(name)));
            }
            _ => bail!(
                "--event-time: `{place}` is no place of an event time; write `header:NAME`, `field:/POINTER` or \
                 `record_timestamp`"
            ),
        }
    }
    let event_time =
        if entries.is_empty() { String::new() } else { format!("  event_time: [{}]\n", entries.join(", ")) };
    Ok(format!(
        "name: tidegate-profile\nsource:\n  topic: {}\n  format: {format}\n  key: record_key\n{event_time}\
         watermark: {{ strategy: ascending }}\nwindow: {{ tumbling: {{ size: 1s }} }}\n\
         aggregates: [{{ name: n, fn: count }}]\nsink: {{ topic: tidegate-profile.sink }}\n\
         dead_letter: {{ topic: tidegate-profile.dead }}\n",
        quoted(topic)
    ))
}

struct Reading {
    inputs: Inputs,
}

impl Reading {
    fn measure(mut self, kafka: &KafkaConfig, topic: &str, extent: Extent) -> Result<Measure> {
        let sample = Sample::open(kafka, topic, extent)?;
        let partitions = sample.ends().iter().map(|ends| ends.partition);
        let mut measure = Measure::new(partitions);
        let bar = bar(sample.offsets());
        let mut count = 0_u64;
        sample.read(PATIENCE, |record| -> Result<()> {
            count += 1;
            if count.is_multiple_of(STRIDE) {
                bar.set_position(count);
            }
            let seen = self.see(&record)?;
            measure.see(record.partition(), &seen);
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(measure)
    }

    fn see(&mut self, record: &Record<'_>) -> Result<Seen> {
        let (time, reject) = match self.inputs.extract(record)? {
            Ok(extracted) => (Some(extracted.time), None),
            // That there is no key does not matter here.
            Err(reject) if reject.reason == Reason::NoKey => (reject.event_time, None),
            Err(reject) => (reject.event_time, Some(reject.reason)),
        };
        Ok(Seen { offset: record.offset(), timestamp: RecordView::timestamp(record), time, reject })
    }
}

/// A progress bar, where there is a terminal to see it.
fn bar(length: u64) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template("reading {wide_bar} {human_pos}/{human_len} {eta}");
    ProgressBar::new(length).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()))
}

#[cfg(test)]
mod tests {
    use tidegate_job::{Format, KeySource, TimeSource, TimeUnit};

    use super::*;

    fn job(places: &[&str]) -> Result<Job> {
        let places: Vec<_> = places.iter().map(|place| (*place).to_owned()).collect();
        Ok(JobFile::parse(&job_of("clicks", &places)?, "--event-time")?)
    }

    #[test]
    fn places_of_the_event_time_are_those_of_a_job_file() {
        let source =
            job(&["header:at:us", "field:/a/b:c", "field:/t:rfc3339", "record_timestamp"]).unwrap().source;
        assert_eq!(source.key, KeySource::RecordKey);
        assert_eq!(source.format, Format::Json);
        let field = |pointer: &str, unit| TimeSource::Field { pointer: pointer.to_owned(), unit };
        assert_eq!(
            source.event_time,
            [
                TimeSource::Header { name: "at".to_owned(), unit: TimeUnit::Micros },
                field("/a/b:c", TimeUnit::Millis),
                field("/t", TimeUnit::Rfc3339),
                TimeSource::RecordTimestamp,
            ]
        );
    }

    #[test]
    fn without_a_field_the_payload_may_be_anything() {
        assert_eq!(job(&["header:at"]).unwrap().source.format, Format::Raw);
        let source = job(&[]).unwrap().source;
        assert_eq!(source.event_time.len(), 2, "the default of a job file: {source:?}");
    }

    #[test]
    fn what_is_no_place_is_refused_in_clear_words() {
        for (place, word) in
            [("at", "`at` is no place"), ("header:", "is no place"), ("field:at", "begin with `/`")]
        {
            let error = format!("{:#}", job(&[place]).unwrap_err());
            assert!(error.contains(word), "{error}");
        }
    }
}
