//! Where the records come from.

use super::Checker;
use crate::file::{KeyChoice, OnDataLossWord, SourceSection, StartFromWord, TimeEntry, TimePlace, UnitWord};
use crate::job::{KeySource, OnDataLoss, Source, StartFrom, TimeSource, TimeUnit};
use crate::names;

const EVENT_TIME_HEADER: &str = "event-time";

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
        let on_data_loss = match section.on_data_loss {
            None | Some(OnDataLossWord::Stop) => OnDataLoss::Stop,
            Some(OnDataLossWord::Skip) => OnDataLoss::Skip,
        };
        let format = self.format(section.format.as_ref());
        let key = match &section.key {
            KeyChoice::Field(pointer) => self.pointer("source.key.field", pointer).map(KeySource::Field),
            KeyChoice::RecordKey => Some(KeySource::RecordKey),
        };
        let event_time = self.event_time(section.event_time.as_deref());
        Some(Source {
            topic: topic?,
            partitions: partitions?,
            start_from,
            on_data_loss,
            format: format?,
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
}
