//! From what was measured to a `watermark` section that the job file takes.

use tidegate_core::time::Span;
use tidegate_job::duration_text;

use super::measure::{Measured, as_float};
use super::words::{self, nice};

/// The delays for which the share of late records is shown.
pub(crate) const LADDER: [Span; 16] = [
    Span(0),
    Span(100),
    Span(500),
    Span(1_000),
    Span(2_000),
    Span(5_000),
    Span(10_000),
    Span(30_000),
    Span(MINUTE),
    Span(5 * MINUTE),
    Span(15 * MINUTE),
    Span(HOUR),
    Span(6 * HOUR),
    Span(DAY),
    Span(7 * DAY),
    Span(30 * DAY),
];

const MINUTE: i64 = 60_000;
const HOUR: i64 = 60 * MINUTE;
const DAY: i64 = 24 * HOUR;
/// Silences below this are not worth an idle timeout of their own.
const IDLE: (Span, Span) = (Span(5_000), Span(5 * MINUTE));

/// What to write, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Advice {
    /// `None`: all records were in order.
    pub(crate) delay: Option<Span>,
    pub(crate) idle_timeout: Option<Span>,
    pub(crate) max_future_skew: Option<Span>,
    /// Lines of YAML: a key of the section and the reason for it.
    lines: Vec<(String, String)>,
}

impl Advice {
    /// So that at most `share` of each partition's records is late.
    pub(crate) fn of(measured: &Measured, share: f64) -> Self {
        let timed = || measured.partitions.values().filter(|partition| partition.timed > 0);
        let mut advice = Self { delay: None, idle_timeout: None, max_future_skew: None, lines: Vec::new() };
        let worst = timed().map(|partition| partition.lateness_at(1.0)).max().unwrap_or_default();
        if worst == Span::ZERO {
            advice.line(
                "strategy: ascending",
                "every record was in order; a retry of a producer may change that",
            );
        } else {
            let delay = nice(timed().map(|partition| partition.delay_for(share)).max().unwrap_or_default());
            let late = timed().map(|partition| partition.late(delay)).sum::<u64>();
            let share = as_float(late) / as_float(timed().map(|partition| partition.timed).sum());
            advice.delay = Some(delay);
            advice.line("strategy: bounded_out_of_orderness", "");
            let reason = match late {
                0 => "no record late".to_owned(),
                _ => {
                    let none = duration_text(nice(worst));
                    format!("{} of the records late; with {none} none", words::percent(share))
                }
            };
            advice.line(&format!("delay: {}", duration_text(delay)), &reason);
        }
        let silence = timed().filter_map(|partition| partition.silence_at(0.999)).max();
        if let Some(silence) = silence {
            let idle = nice(Span(silence.millis().saturating_mul(3))).clamp(IDLE.0, IDLE.1);
            advice.idle_timeout = Some(idle);
            advice.line(
                &format!("idle_timeout: {}", duration_text(idle)),
                &format!("99.9 % of the silences are {} or shorter", words::span(silence)),
            );
        }
        if let Some(bound) = measured.bound {
            let ahead = measured.partitions.values().map(|partition| partition.future).sum::<u64>();
            advice.max_future_skew = Some(bound);
            let reason = match ahead {
                0 => "no record is further ahead".to_owned(),
                _ => format!("{ahead} records are further ahead, and were left out"),
            };
            advice.line(&format!("max_future_skew: {}", duration_text(bound)), &reason);
        }
        advice
    }

    fn line(&mut self, text: &str, reason: &str) {
        self.lines.push((text.to_owned(), reason.to_owned()));
    }

    /// The section as YAML.
    pub(crate) fn yaml(&self) -> String {
        let width = self.lines.iter().map(|(text, _)| text.len()).max().unwrap_or(0);
        self.lines.iter().fold("watermark:\n".to_owned(), |yaml, (text, reason)| {
            let comment = if reason.is_empty() { String::new() } else { format!("  # {reason}") };
            yaml + format!("  {text:width$}{comment}").trim_end() + "\n"
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tidegate_core::record::Timestamp;
    use tidegate_core::time::{EventTime, Offset, Partition};
    use tidegate_job::JobFile;

    use super::*;
    use crate::profile::measure::{Clock, Measure, Seen};

    fn measured(records: &[(i64, i64)]) -> Measured {
        let mut measure = Measure::new(std::iter::empty());
        for (index, (time, timestamp)) in records.iter().enumerate() {
            let seen = Seen {
                offset: Offset(index as u64),
                timestamp: Timestamp::CreateTime(EventTime(*timestamp)),
                time: Some(EventTime(*time)),
                reject: None,
            };
            measure.see(Partition(u32::try_from(index % 2).unwrap()), &seen);
        }
        measure.finish(Clock { now: EventTime(i64::MAX), bound: None })
    }

    fn job_with(yaml: &str) -> tidegate_job::Job {
        let text = format!(
            "name: j\nsource: {{ topic: t, key: record_key }}\n{yaml}window: {{ tumbling: {{ size: 1s }} }}\n\
             aggregates: [{{ name: n, fn: count }}]\nsink: {{ topic: o }}\ndead_letter: {{ topic: d }}\n"
        );
        JobFile::parse(&text, "job.yaml").unwrap_or_else(|report| panic!("{report} in\n{text}"))
    }

    #[test]
    fn records_in_order_need_no_delay() {
        let advice = Advice::of(&measured(&[(1, 5), (2, 6), (3, 7), (4, 8)]), 0.001);
        assert!(advice.yaml().contains("strategy: ascending"), "{}", advice.yaml());
        job_with(&advice.yaml());
    }

    #[test]
    fn old_records_say_nothing_of_the_future() {
        let now = 1_700_000_000_000;
        assert_eq!(Advice::of(&measured(&[(1, now), (2, now)]), 0.0).max_future_skew, None);
        let live = Advice::of(&measured(&[(now + 90_000, now), (now, now)]), 0.0);
        assert_eq!(live.max_future_skew, Some(Span(180_000)));
        assert!(live.yaml().contains("no record is further ahead"), "{}", live.yaml());
    }

    proptest! {
        #[test]
        fn the_section_is_one_that_a_job_file_takes_and_keeps_its_promise(
            records in prop::collection::vec((0_i64..10_000_000, 0_i64..100_000), 1..60), share in 0.0..0.5
        ) {
            let partitions = measured(&records);
            let advice = Advice::of(&partitions, share);
            let job = job_with(&advice.yaml());
            for partition in partitions.partitions.values().filter(|partition| partition.timed > 0) {
                let delay = advice.delay.unwrap_or(Span::ZERO);
                prop_assert!(partition.share(partition.late(delay)) <= share);
            }
            prop_assert_eq!(advice.idle_timeout.is_none() || advice.idle_timeout == Some(job.core.watermark.idle_timeout), true);
        }
    }
}
