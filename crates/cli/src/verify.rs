//! The batch oracle: the job computed anew from the source topic, and compared with what came out.
//!
//! It shares no code with the shard machine. A record that is a dead letter has to deserve it; all others count in every window
//! that contains them, and of each (key, window) the highest revision has to say exactly that.

mod aggregates;
mod condition;
mod local;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use clap::Args;
use serde_json::Value;
use tidegate_core::{
    job::{AggregateFn, ColumnKind, OnFuture, OperatorSpec, SessionSpec, WindowSpec},
    replay::Outcome,
    time::{Offset, Partition},
};
use tidegate_job::{Format, Job, JobFile, KeySource, TimeSource, TimeUnit};
use tidegate_kafka::{Access, KafkaConfig, Record, Timestamp};

use self::{
    reorder::Order,
    replayed::{Late, Returned},
    sliding::Spans,
};
use crate::topics;
use aggregates::Inputs;

mod reorder;
mod replayed;
mod sliding;

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
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
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
    let verdict = tokio::task::spawn_blocking(move || verify(&job, &kafka, Some(args.watermark))).await??;
    if args.json {
        println!("{}", serde_json::to_string(&verdict)?);
    } else {
        println!("{verdict}");
    }
    Ok(verdict.mismatches() == 0)
}

/// What was compared.
#[derive(Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Verdict {
    /// Records in the source topic.
    pub(crate) records: u64,
    /// (key, window) pairs with a result.
    pub(crate) windows: u64,
    /// Dead letters.
    pub(crate) dead_letters: u64,
    /// Of these, those that came back and count in results.
    pub(crate) replayed: u64,
    /// Dead letters for lateness of records that their own partition had not left behind by more than the delay: only where
    /// the watermark passed a partition that was idle.
    pub(crate) overtaken: u64,
    /// Sessions of which a part had been over and forgotten when a late record joined it with another: each part is there.
    pub(crate) split: u64,
    /// Early results, which are compared with nothing.
    pub(crate) early: u64,
    /// Values that are not there of aggregates that were added to the job since: of windows that have earlier records.
    pub(crate) without: u64,
    /// What should be there and is not, or not in full.
    pub(crate) lost: u64,
    /// What is there more often than it should be.
    pub(crate) duplicated: u64,
    /// What differs in another way.
    pub(crate) wrong: u64,
}

#[derive(Clone, Copy, Debug)]
enum Difference {
    Lost,
    Duplicated,
    Wrong,
}

impl Difference {
    /// Of a number of records that should be `expected`.
    fn of_count(got: Option<u64>, expected: u64) -> Self {
        match got {
            Some(got) if got < expected => Self::Lost,
            Some(got) if got > expected => Self::Duplicated,
            _ => Self::Wrong,
        }
    }
}

impl Verdict {
    /// All differences; the first few are printed.
    pub(crate) fn mismatches(&self) -> u64 {
        self.lost + self.duplicated + self.wrong
    }

    fn differ(&mut self, difference: Difference, what: std::fmt::Arguments<'_>) {
        if self.mismatches() < 10 {
            eprintln!("mismatch ({difference:?}): {what}");
        }
        match difference {
            Difference::Lost => self.lost += 1,
            Difference::Duplicated => self.duplicated += 1,
            Difference::Wrong => self.wrong += 1,
        }
    }
}

/// The line that ends `tidegate dev --verify` and `tidegate verify`.
impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            records,
            windows,
            dead_letters,
            replayed,
            split,
            early,
            without,
            lost,
            duplicated,
            wrong,
            ..
        } = self;
        let mismatches = self.mismatches();
        write!(
            f,
            "verified: records={records} windows={windows} dead_letters={dead_letters} mismatches={mismatches}"
        )?;
        if *replayed > 0 {
            write!(f, " replayed={replayed}")?;
        }
        if *split > 0 {
            write!(f, " split={split}")?;
        }
        if *early > 0 {
            write!(f, " early={early}")?;
        }
        if *without > 0 {
            write!(f, " without={without}")?;
        }
        if mismatches > 0 {
            write!(f, " lost={lost} duplicated={duplicated} wrong={wrong}")?;
        }
        Ok(())
    }
}

/// Key, start, end.
type Window = (String, i64, i64);

/// Compares the job's output with a batch computation over its source, windows that ended by `watermark` included.
///
/// # Errors
/// When a topic cannot be read.
pub(crate) fn verify(job: &Job, kafka: &KafkaConfig, watermark: Option<i64>) -> Result<Verdict> {
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
    let letters = dead_letters(job, kafka, &mut verdict)?;
    let returned = Returned::read(job, kafka)?;
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
            spans.compare(job, spec.size, kafka, watermark, &mut verdict)?;
            return Ok(verdict);
        }
        OperatorSpec::Reorder => {
            order.compare(job, kafka, watermark, &mut verdict)?;
            return Ok(verdict);
        }
    }
    compare(job, kafka, watermark, (&windows, &late), &mut verdict)?;
    Ok(verdict)
}

#[derive(Debug)]
struct Letter {
    /// Where it is in the dead-letter topic.
    at: (Partition, Offset),
    reason: String,
    watermark: Option<i64>,
    missed: Option<(i64, i64)>,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
}

fn dead_letters(
    job: &Job,
    kafka: &KafkaConfig,
    verdict: &mut Verdict,
) -> Result<HashMap<(u32, u64), Letter>> {
    let mut letters = HashMap::new();
    topics::read_all(kafka, &job.dead_letter.topic, |record| {
        let text = |name: &str| {
            record.header(name).flatten().map(|value| String::from_utf8_lossy(value).into_owned())
        };
        let number = |name: &str| text(name).and_then(|text| text.parse::<i64>().ok());
        // Jobs may share a dead-letter topic, and a source.
        let is_of_another_job = text("tidegate-job").is_some_and(|name| name != job.name);
        if is_of_another_job || text("tidegate-topic").as_deref() != Some(job.source.topic.as_str()) {
            return Ok(());
        }
        verdict.dead_letters += 1;
        let place = (number("tidegate-partition"), number("tidegate-offset"));
        let (Some(partition), Some(offset)) = place else {
            bail!("a dead letter without partition and offset")
        };
        let letter = Letter {
            at: (record.partition(), record.offset()),
            reason: text("tidegate-reason").unwrap_or_default(),
            watermark: number("tidegate-watermark"),
            missed: number("tidegate-window-start").zip(number("tidegate-window-end")),
            key: record.key().map(<[u8]>::to_vec),
            value: record.value().map(<[u8]>::to_vec),
        };
        let place = (u32::try_from(partition)?, u64::try_from(offset)?);
        if letters.insert(place, letter).is_some() {
            verdict
                .differ(Difference::Duplicated, format_args!("{place:?} is in the dead-letter topic twice"));
        }
        Ok(())
    })?;
    Ok(letters)
}

#[derive(Debug)]
struct Parsed {
    key: String,
    time: i64,
    value: Value,
}

fn read(job: &Job, record: &Record<'_>) -> Result<Parsed, &'static str> {
    let payload = record.value().ok_or("tombstone")?;
    let value = match job.source.format {
        Format::Raw => Value::Null,
        _ => serde_json::from_slice(payload).map_err(|_| "unreadable")?,
    };
    if job.source.format != Format::Raw && !value.is_object() {
        return Err("unreadable");
    }
    for column in &job.core.columns {
        if column.only.as_ref().is_some_and(|only| !condition::holds(only, &value)) {
            continue;
        }
        let found = value.pointer(&column.pointer).unwrap_or(&Value::Null);
        let only_counted = job.core.aggregates.iter().all(|aggregate| {
            aggregate.function == AggregateFn::Count
                || aggregate.column.and_then(|at| job.core.columns.get(at)) != Some(column)
        });
        let is_scalar = !found.is_object() && !found.is_array();
        if !(only_counted
            || found.is_null()
            || found.is_number()
            || column.kind == ColumnKind::AsIs && is_scalar)
        {
            return Err("unreadable");
        }
    }
    let time = event_time(job, record, &value).ok_or("no_event_time")?;
    let now = topics::unix_millis();
    if job.core.watermark.max_future_skew.is_some_and(|skew| time > now.saturating_add(skew.millis())) {
        return Err("future");
    }
    let key = match &job.source.key {
        KeySource::RecordKey => String::from_utf8_lossy(record.key().ok_or("no_key")?).into_owned(),
        KeySource::Field(pointer) => match value.pointer(pointer) {
            Some(Value::String(text)) => text.clone(),
            Some(scalar @ (Value::Number(_) | Value::Bool(_))) => scalar.to_string(),
            _ => return Err("no_key"),
        },
    };
    Ok(Parsed { key, time, value })
}

fn event_time(job: &Job, record: &Record<'_>, value: &Value) -> Option<i64> {
    job.source.event_time.iter().find_map(|source| match source {
        TimeSource::Header { name, unit } => {
            let text = String::from_utf8(record.header(name)??.to_vec()).ok()?;
            text_time(&text, *unit)
        }
        TimeSource::Field { pointer, unit } => match value.pointer(pointer)? {
            Value::String(text) => text_time(text, *unit),
            Value::Number(number) => text_time(&number.to_string(), *unit),
            _ => None,
        },
        TimeSource::RecordTimestamp => match record.timestamp() {
            Timestamp::CreateTime(time) | Timestamp::LogAppendTime(time) => Some(time.millis()),
            Timestamp::NotAvailable => None,
        },
    })
}

/// The oracle reads integers; what else the job may take is left to the tests of the extraction.
fn text_time(text: &str, unit: TimeUnit) -> Option<i64> {
    let number = || text.trim().parse::<i64>().ok();
    match unit {
        TimeUnit::Seconds => number()?.checked_mul(1_000),
        TimeUnit::Millis => number(),
        TimeUnit::Micros => Some(number()?.div_euclid(1_000)),
        TimeUnit::Nanos => Some(number()?.div_euclid(1_000_000)),
        TimeUnit::Rfc3339 => None,
    }
}

fn check_late(
    job: &Job,
    place: (u32, u64),
    parsed: &Parsed,
    (letter, returned): (&Letter, bool),
    record: &Record<'_>,
    verdict: &mut Verdict,
) {
    if letter.value.as_deref() != record.value() || letter.key.as_deref() != record.key() {
        verdict.differ(Difference::Wrong, format_args!("the dead letter of {place:?} is not whole"));
    }
    let lateness = job.core.allowed_lateness.millis();
    let ends = match &job.core.operator {
        OperatorSpec::Windows(spec) => {
            windows_of(spec, parsed.time).into_iter().map(|(_, end)| end).collect()
        }
        OperatorSpec::Sessions(spec) => vec![session_end(spec, parsed.time)],
        // Late is what the watermark has passed.
        OperatorSpec::Reorder | OperatorSpec::Sliding(_) => vec![parsed.time.saturating_add(1)],
    };
    let gone = |end: i64| letter.watermark.is_some_and(|watermark| end.saturating_add(lateness) <= watermark);
    let deserved = match letter.reason.as_str() {
        "late" => ends.iter().all(|end| gone(*end)),
        "late_partial" => ends.iter().any(|end| gone(*end)) && !ends.iter().all(|end| gone(*end)),
        // The clock has moved on since: what was too far ahead then need not be now.
        "future" => job.core.watermark.max_future_skew.is_some(),
        // The job has been corrected since.
        _ => returned,
    };
    if !deserved {
        verdict.differ(
            Difference::Wrong,
            format_args!(
                "{place:?} (event time {}) should not be a dead letter for {}",
                parsed.time, letter.reason
            ),
        );
    }
}

/// Start and end of each window that holds `time`, by definition.
fn windows_of(spec: &WindowSpec, time: i64) -> Vec<(i64, i64)> {
    let (size, step, offset) = (spec.size.millis(), spec.step.millis(), spec.offset.millis());
    if let Some(zone) = spec.zone {
        return local::windows(zone.name(), (size, step, offset), time);
    }
    let last_start = (time - offset).div_euclid(step) * step + offset;
    let mut windows: Vec<_> = (0..)
        .map(|back| last_start - back * step)
        .take_while(|start| start + size > time)
        .map(|start| (start, start + size))
        .collect();
    windows.reverse();
    windows
}

fn apply(
    job: &Job,
    spec: &WindowSpec,
    place: (u32, u64),
    parsed: &Parsed,
    windows: &mut BTreeMap<Window, Inputs>,
) {
    for (start, end) in windows_of(spec, parsed.time) {
        let window = (parsed.key.clone(), start, end);
        let inputs = windows.entry(window).or_default();
        inputs.add(job, &parsed.value, (parsed.time, place.0, place.1));
    }
}

/// The end of a session whose last record is at `time`.
fn session_end(spec: &SessionSpec, time: i64) -> i64 {
    let end = time.saturating_add(spec.gap.millis());
    let cut =
        spec.cut.map(|cut| time.div_euclid(cut.millis()).saturating_add(1).saturating_mul(cut.millis()));
    cut.map_or(end, |cut| cut.min(end))
}

/// The sessions by definition: a record at or after the end of what its key has so far begins a new one.
fn sessions(spec: &SessionSpec, records: BTreeMap<(String, i64), Inputs>) -> BTreeMap<Window, Inputs> {
    let mut sessions = BTreeMap::new();
    let mut open: Option<(Window, Inputs)> = None;
    for ((key, time), inputs) in records {
        match &mut open {
            Some(((of, _, end), joined)) if *of == key && time < *end => {
                *end = session_end(spec, time);
                joined.join(inputs);
            }
            _ => {
                let end = session_end(spec, time);
                sessions.extend(open.replace(((key, time, end), inputs)));
            }
        }
    }
    sessions.extend(open);
    sessions
}

fn compare(
    job: &Job,
    kafka: &KafkaConfig,
    watermark: Option<i64>,
    (expected, late): (&BTreeMap<Window, Inputs>, &Late),
    verdict: &mut Verdict,
) -> Result<()> {
    let results = results(job, kafka, verdict)?;
    let first = first_aggregates(job, kafka)?;
    verdict.windows = results.len() as u64;
    let parts = Parts::of(&results);
    let mut unmatched: BTreeSet<&Window> = results.keys().collect();
    for (window, inputs) in expected {
        let closed = watermark.is_some_and(|watermark| window.2 <= watermark);
        let split = !results.contains_key(window) && matches!(job.core.operator, OperatorSpec::Sessions(_));
        if let Some(split) = split.then(|| parts.of_session(window)).flatten() {
            verdict.split += 1;
            let whole = (split.start, split.end) == (window.1, window.2)
                && split.records(job).is_none_or(|records| records == inputs.records);
            if closed && !whole {
                verdict.differ(
                    Difference::Wrong,
                    format_args!("the parts of {window:?} are {:?}", split.windows),
                );
            }
            split.windows.iter().for_each(|part| {
                unmatched.remove(part);
            });
            continue;
        }
        match results.get(window) {
            None if closed => verdict.differ(Difference::Lost, format_args!("no result for {window:?}")),
            None => {}
            Some(_) if !closed => {
                verdict.differ(Difference::Wrong, format_args!("{window:?} has a result before its end"))
            }
            Some((_, result)) if late.changes(window) => {
                late.check(job, first, (window, inputs), result, verdict);
            }
            Some((_, result)) => check_result(job, first, (window, inputs), result, verdict),
        }
        unmatched.remove(window);
    }
    for window in late.windows().filter(|window| !expected.contains_key(*window)) {
        let closed = watermark.is_some_and(|watermark| window.2 <= watermark);
        match results.get(window) {
            Some((_, result)) if closed => {
                late.check(job, first, (window, &Inputs::default()), result, verdict);
                unmatched.remove(window);
            }
            None if closed && late.must_be(window) => {
                verdict.differ(
                    Difference::Lost,
                    format_args!("no result for {window:?}, which has dead letters that came back"),
                );
            }
            _ => {}
        }
    }
    for window in unmatched {
        verdict.differ(Difference::Wrong, format_args!("a result for {window:?}, which has no records"));
    }
    Ok(())
}

/// Results by key, to find those of sessions that came out in parts.
struct Parts<'a>(BTreeMap<&'a str, BTreeMap<(i64, i64), &'a Value>>);

/// Results that lie in a session of the batch.
struct Split<'a> {
    start: i64,
    end: i64,
    windows: Vec<Window>,
    values: Vec<&'a Value>,
}

impl<'a> Parts<'a> {
    fn of(results: &'a HashMap<Window, (u64, Value)>) -> Self {
        let mut parts: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((key, start, end), (_, value)) in results {
            parts.entry(key.as_str()).or_default().insert((*start, *end), value);
        }
        Self(parts)
    }

    /// What came out within a session, if anything did.
    fn of_session(&self, (key, start, end): &Window) -> Option<Split<'a>> {
        let within = self.0.get(key.as_str())?.range((*start, i64::MIN)..(*end, i64::MIN));
        let within: Vec<_> = within.filter(|((_, part_end), _)| part_end <= end).collect();
        let (first, _) = within.first()?;
        Some(Split {
            start: first.0,
            end: within.iter().map(|((_, end), _)| *end).max()?,
            windows: within.iter().map(|((start, end), _)| (key.clone(), *start, *end)).collect(),
            values: within.iter().map(|(_, value)| **value).collect(),
        })
    }
}

impl Split<'_> {
    /// The records that the parts count; `None` where the job counts none.
    fn records(&self, job: &Job) -> Option<u64> {
        let counts = |aggregate: &&tidegate_core::job::AggregateSpec| {
            aggregate.function == AggregateFn::Count && aggregate.column.is_none()
        };
        let count = job.core.aggregates.iter().find(counts)?;
        self.values.iter().map(|value| value.get(&count.name).and_then(Value::as_u64)).sum()
    }
}

/// The highest revision of each (key, window) that is over.
fn results(job: &Job, kafka: &KafkaConfig, verdict: &mut Verdict) -> Result<HashMap<Window, (u64, Value)>> {
    let mut results: HashMap<Window, (u64, Value)> = HashMap::new();
    let mut revisions = BTreeSet::new();
    topics::read_all(kafka, &job.sink.topic, |record| {
        let result: Value =
            serde_json::from_slice(record.value().unwrap_or_default()).context("a result is not JSON")?;
        let key = result.get("key").and_then(Value::as_str).context("a result without key")?.to_owned();
        let start =
            result.get("window_start").and_then(Value::as_i64).context("a result without window_start")?;
        let end = result.get("window_end").and_then(Value::as_i64).context("a result without window_end")?;
        let revision = result.get("revision").and_then(Value::as_u64).context("a result without revision")?;
        let window = (key, start, end);
        if result.get("pane").and_then(Value::as_str) == Some("early") {
            verdict.early += 1;
            if results.contains_key(&window) {
                verdict.differ(
                    Difference::Wrong,
                    format_args!("{window:?} has an early result behind its final one"),
                );
            }
            return Ok(());
        }
        if !revisions.insert((window.clone(), revision)) {
            verdict.differ(
                Difference::Duplicated,
                format_args!("{window:?} revision {revision} is there twice"),
            );
        }
        let newer = results.get(&window).is_none_or(|(known, _)| revision >= *known);
        if newer {
            results.insert(window, (revision, result));
        }
        Ok(())
    })?;
    // What was taken back counts no more.
    results.retain(|_, (_, result)| result.get("pane").and_then(Value::as_str) != Some("retracted"));
    Ok(results)
}

/// How many aggregates the job began with, as its record says.
fn first_aggregates(job: &Job, kafka: &KafkaConfig) -> Result<usize> {
    let mut first = None;
    topics::read_all(kafka, &job.control_topic(), |record| {
        if record.key() == Some(b"job") {
            let written: Value = serde_json::from_slice(record.value().unwrap_or_default())
                .context("the job record is not JSON")?;
            first = written.pointer("/generations/0").and_then(Value::as_u64);
        }
        Ok(())
    })?;
    Ok(first.map_or(Ok(usize::MAX), usize::try_from)?)
}

fn check_result(
    job: &Job,
    first: usize,
    (window, expected): (&Window, &Inputs),
    result: &Value,
    verdict: &mut Verdict,
) {
    for (at, aggregate) in job.core.aggregates.iter().enumerate() {
        let got = result.get(&aggregate.name).unwrap_or(&Value::Null);
        if at >= first && got.is_null() {
            verdict.without += u64::from(!expected.fits(job, aggregate, got));
        } else if !expected.fits(job, aggregate, got) {
            let difference = match aggregate.function {
                AggregateFn::Count if aggregate.column.is_none() => {
                    Difference::of_count(got.as_u64(), expected.records)
                }
                _ => Difference::Wrong,
            };
            verdict.differ(difference, format_args!("{window:?}: `{}` is {got}", aggregate.name));
        }
    }
}
