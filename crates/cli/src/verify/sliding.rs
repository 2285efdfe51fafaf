//! The oracle of sliding windows: for each record the aggregates over what its key has in (t − size, t], by definition.

use std::collections::{BTreeMap, HashMap};

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tidegate_core::time::Span;
use tidegate_job::Job;
use tidegate_kafka::KafkaConfig;

use super::{
    Difference, Earlier, Parsed, Verdict, Window, aggregates::Inputs, check_result, first_aggregates,
};
use crate::topics;

/// Partition and offset in the source topic.
type Place = (u32, u64);

/// Results by the place of their record: key, start and end of the window, and the result.
type Found = HashMap<Place, (Window, Value)>;

/// The records of each key that are no dead letters.
#[derive(Debug, Default)]
pub(super) struct Spans {
    records: BTreeMap<String, Vec<(i64, Place, Value)>>,
}

impl Spans {
    /// A record that is no dead letter.
    pub(super) fn expect(&mut self, parsed: Parsed, place: Place) {
        self.records.entry(parsed.key).or_default().push((parsed.time, place, parsed.value));
    }

    /// Compares with the result topic: one result for each record below `watermark`, and no other.
    pub(super) fn compare(
        mut self,
        job: &Job,
        size: Span,
        (kafka, earlier): (&KafkaConfig, &Earlier),
        watermark: Option<i64>,
        verdict: &mut Verdict,
    ) -> Result<()> {
        let mut results = results(job, (kafka, earlier), verdict)?;
        let original = first_aggregates(job, kafka)?;
        verdict.windows = results.len() as u64;
        for (key, records) in &mut self.records {
            records.sort_unstable_by_key(|(time, place, _)| (*time, *place));
            let mut first = 0;
            for tied in records.chunk_by(|one, other| one.0 == other.0) {
                let Some((time, ..)) = tied.first() else { continue };
                let is_inside = |record: &&(i64, Place, Value)| record.0 > time.saturating_sub(size.millis());
                first +=
                    records.get(first..).unwrap_or_default().iter().take_while(|r| !is_inside(r)).count();
                let mut inputs = Inputs::default();
                let until = records.partition_point(|record| record.0 <= *time);
                for (time, place, value) in records.get(first..until).unwrap_or_default() {
                    inputs.add(job, value, (*time, place.0, place.1));
                }
                let closed = watermark.is_some_and(|watermark| *time < watermark);
                for (_, place, _) in tied {
                    let window = (key.clone(), time.saturating_sub(size.millis()), *time);
                    match results.remove(place) {
                        None if closed => {
                            verdict.differ(
                                Difference::Lost,
                                format_args!("no result for {place:?}, {window:?}"),
                            );
                        }
                        None => {}
                        Some(_) if !closed => {
                            let what =
                                format_args!("{place:?}, {window:?} has a result before W has passed it");
                            verdict.differ(Difference::Wrong, what);
                        }
                        Some((found, result)) if found == window => {
                            check_result(job, original, (&window, &inputs), &result, verdict);
                        }
                        Some((found, _)) => {
                            let what =
                                format_args!("{place:?}: a result for {found:?} in place of {window:?}");
                            verdict.differ(Difference::Wrong, what);
                        }
                    }
                }
            }
        }
        for (place, (window, _)) in results {
            verdict.differ(
                Difference::Wrong,
                format_args!("a result for {place:?}, {window:?}, which is no record"),
            );
        }
        Ok(())
    }
}

/// The results by the place of their record.
fn results(job: &Job, (kafka, earlier): (&KafkaConfig, &Earlier), verdict: &mut Verdict) -> Result<Found> {
    let mut results = HashMap::new();
    // Of each partition of the topic, where its last result stands: they come in order.
    let mut last: HashMap<(u32, String), (i64, Place)> = HashMap::new();
    topics::read_each(kafka, earlier.results(job), |record| {
        let result: Value =
            serde_json::from_slice(record.value().unwrap_or_default()).context("a result is not JSON")?;
        let key = result.get("key").and_then(Value::as_str).context("a result without key")?.to_owned();
        let number = |name: &str| result.get(name).and_then(Value::as_i64);
        let (Some(start), Some(end)) = (number("window_start"), number("window_end")) else {
            bail!("a result without window_start or window_end")
        };
        let Some(place) = place_of(&result) else { bail!("a result without the place of its record") };
        let before = last.insert((record.partition().0, key.clone()), (end, place));
        if before.is_some_and(|before| before > (end, place)) {
            verdict.differ(Difference::Wrong, format_args!("the result for {place:?} is out of order"));
        }
        if results.insert(place, ((key, start, end), result)).is_some() {
            verdict.differ(Difference::Duplicated, format_args!("the result for {place:?} is there twice"));
        }
        Ok(())
    })?;
    Ok(results)
}

fn place_of(result: &Value) -> Option<Place> {
    let number = |name| result.get(name).and_then(Value::as_u64);
    Some((number("source_partition")?.try_into().ok()?, number("source_offset")?))
}
