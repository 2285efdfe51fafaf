//! What came out of windows and sessions, against what should have.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Context, Result};
use serde_json::Value;
use tidegate_core::job::{AggregateFn, OperatorSpec};
use tidegate_job::Job;
use tidegate_kafka::KafkaConfig;

use super::{Difference, Earlier, Inputs, Verdict, Window, parts::Parts, replayed::Late};
use crate::topics;

pub(super) fn compare(
    job: &Job,
    (kafka, earlier): (&KafkaConfig, &Earlier),
    watermark: Option<i64>,
    (expected, late): (&BTreeMap<Window, Inputs>, &Late),
    verdict: &mut Verdict,
) -> Result<()> {
    let results = results(job, (kafka, earlier), verdict)?;
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

/// The highest revision of each (key, window) that is over.
fn results(
    job: &Job,
    (kafka, earlier): (&KafkaConfig, &Earlier),
    verdict: &mut Verdict,
) -> Result<HashMap<Window, (u64, Value)>> {
    let mut results: HashMap<Window, (u64, Value)> = HashMap::new();
    let mut revisions = BTreeSet::new();
    topics::read_each(kafka, earlier.results(job), |record| {
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
pub(super) fn first_aggregates(job: &Job, kafka: &KafkaConfig) -> Result<usize> {
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

pub(super) fn check_result(
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
