//! What `tidegate profile` says, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;
use tidegate_core::time::{EventTime, Partition, Span};

use super::advice::{Advice, LADDER};
use super::measure::{PartitionMeasure, as_float, quantile};
use super::words;

/// What was measured, as JSON. All times and lengths in milliseconds.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    pub(crate) topic: String,
    pub(crate) records: u64,
    /// The share of late records that the recommended delay allows.
    pub(crate) target: f64,
    pub(crate) partitions: Vec<PartitionReport>,
    /// All partitions together.
    pub(crate) late: Vec<Late>,
    pub(crate) recommended: Recommended,
}

#[derive(Debug, Serialize)]
pub(crate) struct PartitionReport {
    pub(crate) partition: u32,
    pub(crate) records: u64,
    pub(crate) first_offset: Option<u64>,
    pub(crate) last_offset: Option<u64>,
    /// Records with an event time that counts.
    pub(crate) event_times: u64,
    /// Records that the job would not take, by reason.
    pub(crate) rejected: BTreeMap<&'static str, u64>,
    /// Records too far ahead, which do not count.
    pub(crate) future: u64,
    pub(crate) create_time: u64,
    pub(crate) log_append_time: u64,
    pub(crate) no_timestamp: u64,
    pub(crate) first_event_time: Option<i64>,
    pub(crate) last_event_time: Option<i64>,
    pub(crate) out_of_order: u64,
    /// How far behind the newest event time records come.
    pub(crate) lateness: Option<Lateness>,
    pub(crate) late: Vec<Late>,
    /// The smallest delay that keeps the target.
    pub(crate) delay_for_target: i64,
    /// Event time − timestamp.
    pub(crate) clock_offset: Option<ClockOffset>,
    /// Between one timestamp and the next.
    pub(crate) silence: Option<Silence>,
    /// The largest step of the newest event time.
    pub(crate) largest_jump: i64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Lateness {
    pub(crate) p50: i64,
    pub(crate) p90: i64,
    pub(crate) p99: i64,
    pub(crate) p999: i64,
    pub(crate) max: i64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Late {
    pub(crate) delay: i64,
    pub(crate) records: u64,
    pub(crate) share: f64,
}

#[derive(Debug, Serialize)]
pub(crate) struct ClockOffset {
    pub(crate) min: i64,
    pub(crate) p1: i64,
    pub(crate) p50: i64,
    pub(crate) p99: i64,
    pub(crate) max: i64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Silence {
    pub(crate) p50: i64,
    pub(crate) p99: i64,
    pub(crate) max: i64,
}

#[derive(Debug, Serialize)]
pub(crate) struct Recommended {
    /// Absent where every record was in order.
    pub(crate) delay: Option<i64>,
    pub(crate) idle_timeout: Option<i64>,
    pub(crate) max_future_skew: Option<i64>,
    /// The section of the job file.
    pub(crate) watermark: String,
}

impl Report {
    pub(crate) fn new(
        topic: &str,
        target: f64,
        measured: &BTreeMap<Partition, PartitionMeasure>,
        advice: &Advice,
    ) -> Self {
        let timed = measured.values().map(|partition| partition.timed).sum::<u64>();
        let late = LADDER.into_iter().map(|delay| {
            let records = measured.values().map(|partition| partition.late(delay)).sum();
            let share = if timed == 0 { 0.0 } else { as_float(records) / as_float(timed) };
            Late { delay: delay.millis(), records, share }
        });
        Self {
            topic: topic.to_owned(),
            records: measured.values().map(|partition| partition.records).sum(),
            target,
            partitions: measured
                .iter()
                .map(|(p, measure)| PartitionReport::new(*p, measure, target))
                .collect(),
            late: late.collect(),
            recommended: Recommended {
                delay: advice.delay.map(Span::millis),
                idle_timeout: advice.idle_timeout.map(Span::millis),
                max_future_skew: advice.max_future_skew.map(Span::millis),
                watermark: advice.yaml(),
            },
        }
    }
}

impl PartitionReport {
    fn new(partition: Partition, measure: &PartitionMeasure, target: f64) -> Self {
        let at = |share| measure.lateness_at(share).millis();
        let late = |delay: Span| {
            let records = measure.late(delay);
            Late { delay: delay.millis(), records, share: measure.share(records) }
        };
        let skews = measure.sorted_skews();
        let skew = |share| quantile(&skews, share);
        let silence = |share| measure.silence_at(share).map(Span::millis);
        Self {
            partition: partition.0,
            records: measure.records,
            first_offset: measure.offsets.map(|(first, _)| first.0),
            last_offset: measure.offsets.map(|(_, last)| last.0),
            event_times: measure.timed,
            rejected: measure.rejects.clone(),
            future: measure.future,
            create_time: measure.create,
            log_append_time: measure.append,
            no_timestamp: measure.untimed,
            first_event_time: measure.first.map(EventTime::millis),
            last_event_time: measure.newest.map(EventTime::millis),
            out_of_order: measure.out_of_order(),
            lateness: (measure.timed > 0).then(|| Lateness {
                p50: at(0.5),
                p90: at(0.9),
                p99: at(0.99),
                p999: at(0.999),
                max: at(1.0),
            }),
            late: LADDER.into_iter().map(late).collect(),
            delay_for_target: measure.delay_for(target).millis(),
            clock_offset: skew(0.5).and_then(|p50| {
                Some(ClockOffset {
                    min: *skews.first()?,
                    p1: skew(0.01)?,
                    p50,
                    p99: skew(0.99)?,
                    max: *skews.last()?,
                })
            }),
            silence: silence(0.5)
                .and_then(|p50| Some(Silence { p50, p99: silence(0.99)?, max: silence(1.0)? })),
            largest_jump: measure.jump.millis(),
        }
    }
}

/// The report as text.
pub(crate) fn text(report: &Report) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_text(&mut out, report);
    out
}

fn write_text(out: &mut String, report: &Report) -> std::fmt::Result {
    let span = |millis: i64| words::span(Span(millis));
    writeln!(
        out,
        "topic {}: {} records of {} partitions",
        report.topic,
        report.records,
        report.partitions.len()
    )?;
    writeln!(
        out,
        "\n{:>9} {:>10}  {:13} {:20}  {:20}",
        "partition", "records", "timestamps", "event times from", "to"
    )?;
    for p in &report.partitions {
        let time = |time: Option<i64>| time.map_or("-".to_owned(), |millis| words::time(EventTime(millis)));
        let kind = timestamps(p);
        let (first, last) = (time(p.first_event_time), time(p.last_event_time));
        let line = format!("{:>9} {:>10}  {kind:13} {first:20}  {last:20}", p.partition, p.records);
        let rejected: Vec<_> = p.rejected.iter().map(|(reason, count)| format!("{count} {reason}")).collect();
        let future = (p.future > 0).then(|| format!("{} far ahead", p.future));
        let notes: Vec<_> = rejected.into_iter().chain(future).collect();
        writeln!(out, "{}", format!("{line}  {}", notes.join(", ")).trim_end())?;
    }

    writeln!(out, "\nhow far behind the newest event time of their partition records come")?;
    writeln!(
        out,
        "{:>9} {:>12} {:>9} {:>9} {:>9} {:>9} {:>9}",
        "partition", "out of order", "p50", "p90", "p99", "p99.9", "max"
    )?;
    for p in &report.partitions {
        let Some(l) = &p.lateness else { continue };
        let share = as_float(p.out_of_order) / as_float(p.event_times.max(1));
        let columns = [l.p50, l.p90, l.p99, l.p999, l.max].map(|millis| format!(" {:>9}", span(millis)));
        writeln!(out, "{:>9} {:>12}{}", p.partition, words::percent(share), columns.concat())?;
    }

    let shown = shown(&report.late);
    writeln!(out, "\nshare of late records with a delay of")?;
    let head: Vec<_> = shown.iter().map(|late| format!(" {:>9}", span(late.delay))).collect();
    writeln!(out, "{:>9}{}", "partition", head.concat())?;
    let row = |late: &[Late]| -> String {
        let wanted = |late: &&Late| shown.iter().any(|shown| shown.delay == late.delay);
        late.iter().filter(wanted).map(|late| format!(" {:>9}", words::percent(late.share))).collect()
    };
    for p in report.partitions.iter().filter(|p| p.event_times > 0) {
        writeln!(out, "{:>9}{}", p.partition, row(&p.late))?;
    }
    if report.partitions.len() > 1 {
        writeln!(out, "{:>9}{}", "all", row(&report.late))?;
    }

    let untold = |p: &PartitionReport| p.clock_offset.as_ref().is_none_or(|c| c.min == 0 && c.max == 0);
    if report.partitions.iter().all(untold) {
        writeln!(
            out,
            "\nevent times are the records' timestamps: nothing can be told of the producers' clocks"
        )?;
    } else {
        writeln!(
            out,
            "\nevent time minus the record's timestamp (the producer's clock with CreateTime, arrival with LogAppendTime)"
        )?;
        let head = ["min", "p1", "p50", "p99", "max"].map(|name| format!(" {name:>9}"));
        writeln!(out, "{:>9}{}", "partition", head.concat())?;
        for p in &report.partitions {
            let Some(c) = &p.clock_offset else { continue };
            let columns = [c.min, c.p1, c.p50, c.p99, c.max].map(|millis| format!(" {:>9}", span(millis)));
            writeln!(out, "{:>9}{}", p.partition, columns.concat())?;
        }
    }

    writeln!(out, "\nsilence between one timestamp and the next; largest step of event time")?;
    writeln!(out, "{:>9} {:>9} {:>9} {:>9} {:>9}", "partition", "p50", "p99", "longest", "step")?;
    for p in &report.partitions {
        match &p.silence {
            Some(s) => {
                let columns =
                    [s.p50, s.p99, s.max, p.largest_jump].map(|millis| format!(" {:>9}", span(millis)));
                writeln!(out, "{:>9}{}", p.partition, columns.concat())?;
            }
            None if p.records == 0 => {
                writeln!(out, "{:>9} no records: idle once this is proven", p.partition)?
            }
            None => writeln!(out, "{:>9} too few timestamps", p.partition)?,
        }
    }
    writeln!(
        out,
        "\nrecommended, so that at most {} of each partition's records is late:\n\n{}",
        words::percent(report.target),
        report.recommended.watermark.trim_end()
    )
}

fn timestamps(p: &PartitionReport) -> &'static str {
    match (p.create_time > 0, p.log_append_time > 0, p.no_timestamp > 0) {
        (true, false, false) => "CreateTime",
        (false, true, false) => "LogAppendTime",
        (false, false, true) => "none",
        (false, false, false) => "-",
        _ => "mixed",
    }
}

/// The steps of the ladder from the last at which as much is late as without delay to the first at which nothing is.
fn shown(late: &[Late]) -> Vec<&Late> {
    let first = late.first().map_or(0, |late| late.records);
    let start = late.iter().rposition(|late| late.records == first).unwrap_or(0);
    let end = late.iter().position(|late| late.records == 0).unwrap_or(late.len());
    let start = start.min(end);
    late.iter()
        .enumerate()
        .filter(|(at, _)| *at == 0 || (*at > start && *at <= end))
        .map(|(_, late)| late)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ladder_shows_where_the_share_changes() {
        let late = |records: &[u64]| -> Vec<Late> {
            records
                .iter()
                .zip(0..)
                .map(|(records, delay)| Late { delay, records: *records, share: 0.0 })
                .collect()
        };
        let delays =
            |records: &[u64]| shown(&late(records)).iter().map(|late| late.delay).collect::<Vec<_>>();
        assert_eq!(delays(&[9, 9, 9, 4, 1, 0, 0]), [0, 3, 4, 5]);
        assert_eq!(delays(&[0, 0, 0]), [0]);
        assert_eq!(delays(&[5, 4]), [0, 1]);
    }
}
