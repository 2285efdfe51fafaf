//! Where the records come from, and how their watermark follows.

use super::Checker;
use crate::file::{
    Format, KeyChoice, OnQuietWord, SourceSection, StartFromWord, Strategy, TimeEntry, TimePlace, UnitWord,
    WatermarkSection,
};
use crate::job::{KeySource, Source, StartFrom, TimeSource, TimeUnit};
use crate::names;
use tidegate_core::job::{OnQuiet, WatermarkSpec};
use tidegate_core::time::Span;

const EVENT_TIME_HEADER: &str = "event-time";
const IDLE_TIMEOUT: Span = Span(30_000);
const REANCHOR_AFTER: u32 = 3;

impl Checker<'_> {
    pub(super) fn source(&mut self, section: &SourceSection) -> Option<Source> {
        let topic = self.names("source.topic", &section.topic, names::topic);
        let partitions = match section.partitions {
            None => Some(None),
            Some(count) => self.number("source.partitions", Some(count), count, 1..=10_000).map(Some),
        };
        let start_from = match section.start_from {
            None | Some(StartFromWord::Earliest) => StartFrom::Earliest,
            Some(StartFromWord::Latest) => StartFrom::Latest,
        };
        let format = match section.format {
            None | Some(Format::Json) => None,
            Some(Format::Avro) => Some("the format `avro`"),
            Some(Format::Protobuf) => Some("the format `protobuf`"),
            Some(Format::Raw) => Some("the format `raw`"),
        };
        if let Some(format) = format {
            self.unsupported("source.format", format, "use `json`");
        }
        let key = match &section.key {
            KeyChoice::Field(pointer) => self.pointer("source.key.field", pointer).map(KeySource::Field),
            KeyChoice::RecordKey => Some(KeySource::RecordKey),
        };
        let event_time = self.event_time(section.event_time.as_deref());
        Some(Source {
            topic: topic?,
            partitions: partitions?,
            start_from,
            key: key?,
            event_time: event_time?,
        })
    }

    fn event_time(&mut self, entries: Option<&[TimeEntry]>) -> Option<Vec<TimeSource>> {
        let Some(entries) = entries else {
            let name = EVENT_TIME_HEADER.to_owned();
            let header = TimeSource::Header { name, unit: TimeUnit::Millis };
            return Some(vec![header, TimeSource::RecordTimestamp]);
        };
        if entries.is_empty() {
            self.refuse(
                "source.event_time",
                "the list is empty",
                "name a header, a field or `record_timestamp`",
            );
        }
        let sources: Vec<_> = entries
            .iter()
            .enumerate()
            .map(|(index, entry)| {
                let path = format!("source.event_time[{index}]");
                match entry {
                    TimeEntry::RecordTimestamp => Some(TimeSource::RecordTimestamp),
                    TimeEntry::Named(place) => self.time_place(&path, place),
                }
            })
            .collect();
        sources.into_iter().collect()
    }

    fn time_place(&mut self, path: &str, place: &TimePlace) -> Option<TimeSource> {
        let unit = match place.unit {
            Some(UnitWord::S) => TimeUnit::Seconds,
            None | Some(UnitWord::Ms) => TimeUnit::Millis,
            Some(UnitWord::Us) => TimeUnit::Micros,
            Some(UnitWord::Ns) => TimeUnit::Nanos,
            Some(UnitWord::Rfc3339) => TimeUnit::Rfc3339,
        };
        match (&place.header, &place.field) {
            (Some(name), None) => {
                let name = self.names(&format!("{path}.header"), name, names::header)?;
                Some(TimeSource::Header { name, unit })
            }
            (None, Some(pointer)) => {
                let pointer = self.pointer(&format!("{path}.field"), pointer)?;
                Some(TimeSource::Field { pointer, unit })
            }
            (Some(_), Some(_)) => {
                self.refuse(path, "both `header` and `field` are given", "make two entries of it, in order");
                None
            }
            (None, None) => {
                self.refuse(path, "neither `header` nor `field` is given", "name one of them");
                None
            }
        }
    }

    pub(super) fn watermark(&mut self, section: &WatermarkSection) -> Option<WatermarkSpec> {
        let delay = match (section.strategy, &section.delay) {
            (None | Some(Strategy::BoundedOutOfOrderness), Some(delay)) => {
                self.duration("watermark.delay", Some(delay), Span::ZERO)
            }
            (None | Some(Strategy::BoundedOutOfOrderness), None) => {
                let fix = "add `delay: …`, the bound on the disorder, as in `delay: 5s`";
                self.refuse("watermark", "`bounded_out_of_orderness` needs a `delay`", fix);
                None
            }
            (Some(Strategy::Ascending), None) => Some(Span::ZERO),
            (Some(Strategy::Ascending), Some(_)) => {
                let fix = "remove `delay`, or use `bounded_out_of_orderness`";
                self.refuse("watermark.delay", "`ascending` has no `delay`", fix);
                None
            }
            (Some(strategy @ (Strategy::SlidingMin | Strategy::Adaptive)), _) => {
                let name = if matches!(strategy, Strategy::Adaptive) { "adaptive" } else { "sliding_min" };
                let what = format!("the strategy `{name}`");
                self.unsupported(
                    "watermark.strategy",
                    &what,
                    "use `bounded_out_of_orderness` or `ascending`",
                );
                None
            }
        };
        let idle_timeout = match &section.idle_timeout {
            None => Some(IDLE_TIMEOUT),
            Some(text) => self.above_zero("watermark.idle_timeout", text),
        };
        let max_future_skew =
            self.optional_above_zero("watermark.max_future_skew", section.max_future_skew.as_ref());
        let reanchor_after =
            self.number("watermark.reanchor_after", section.reanchor_after, REANCHOR_AFTER, 1..=1_000_000);
        Some(WatermarkSpec {
            delay: delay?,
            idle_timeout: idle_timeout?,
            on_quiet: match section.on_quiet {
                None | Some(OnQuietWord::Hold) => OnQuiet::Hold,
                Some(OnQuietWord::Advance) => OnQuiet::Advance,
                Some(OnQuietWord::Finish) => OnQuiet::Finish,
            },
            max_future_skew: max_future_skew?,
            reanchor_after: Some(reanchor_after?),
        })
    }
}
