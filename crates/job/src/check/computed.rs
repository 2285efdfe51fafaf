//! What is computed: windows and aggregates.

use super::Checker;
use crate::file::{JobFile, SessionSection, SlidingSection, WindowChoice};
use crate::quantity::{duration_text, parse_duration};
use crate::report::nearest;
use crate::zones;
use tidegate_core::job::{AggregateSpec, ColumnSpec, OperatorSpec, SessionSpec, SlidingSpec, WindowSpec};
use tidegate_core::time::Span;
use tidegate_core::zone::ZoneTable;

/// No shorter than the shortest `state.commit_interval`.
const EARLY_LEAST: Span = Span(10);
const HOUR: i64 = 3_600_000;
const DAY: i64 = 24 * HOUR;

impl Checker<'_> {
    pub(super) fn computed(
        &mut self,
        file: &JobFile,
    ) -> Option<(OperatorSpec, Vec<ColumnSpec>, Vec<AggregateSpec>)> {
        if file.reorder.is_some() {
            return self.reorder(file);
        }
        let window = match &file.window {
            Some(choice) => self.window(file, choice),
            None => {
                self.refuse("", "key `window` is missing", "add `window: { tumbling: { size: … } }`");
                None
            }
        };
        let aggregates = match file.aggregates.as_deref() {
            Some([]) => {
                self.refuse("aggregates", "the list is empty", "add one, as in `{ name: count, fn: count }`");
                None
            }
            Some(entries) => self.aggregates(entries),
            None => {
                let fix = "add `aggregates: [{ name: count, fn: count }]`";
                self.refuse("", "key `aggregates` is missing", fix);
                None
            }
        };
        let (columns, aggregates) = aggregates?;
        Some((window?, columns, aggregates))
    }

    /// `Some(None)`: no early results asked for.
    pub(super) fn early(&mut self, file: &JobFile) -> Option<Option<Span>> {
        let Some(early) = &file.early else { return Some(None) };
        let without = match (&file.reorder, &file.window) {
            (Some(_), _) => Some("a reordered record is in no window that could be open"),
            (None, Some(WindowChoice::Sliding(_))) => {
                Some("a sliding window ends with its record: none is ever open")
            }
            (None, _) => None,
        };
        if let Some(what) = without {
            self.refuse("early", what, "remove `early`");
        }
        let every = self.duration("early.every", Some(&early.every), EARLY_LEAST)?;
        if every < EARLY_LEAST {
            let least = duration_text(EARLY_LEAST);
            self.refuse("early.every", "is too short", format!("use at least `{least}`"));
        }
        Some(Some(every))
    }

    /// The records themselves leave: nothing is computed of them.
    fn reorder(&mut self, file: &JobFile) -> Option<(OperatorSpec, Vec<ColumnSpec>, Vec<AggregateSpec>)> {
        let given = [
            ("window", file.window.is_some(), "a reordered record is in no window"),
            ("aggregates", file.aggregates.is_some(), "nothing is computed of a reordered record"),
        ];
        for (path, _, what) in given.iter().filter(|(_, given, _)| *given) {
            self.refuse(path, *what, format!("remove `{path}`, or `reorder`"));
        }
        let what = "with `reorder` a late record cannot be put where it belongs: those behind it are out";
        self.no_lateness(file, what);
        Some((OperatorSpec::Reorder, Vec::new(), Vec::new()))
    }

    fn sliding(&mut self, file: &JobFile, section: &SlidingSection) -> Option<OperatorSpec> {
        let size = self.above_zero("window.sliding.size", &section.size);
        let what =
            "with `sliding` a late record would change the results of all that came within `size` after it";
        self.no_lateness(file, what);
        Some(OperatorSpec::Sliding(SlidingSpec { size: size? }))
    }

    fn no_lateness(&mut self, file: &JobFile, what: &str) {
        let lateness = file.allowed_lateness.as_ref().and_then(|text| parse_duration(&text.0).ok());
        if lateness.is_some_and(|lateness| lateness > Span::ZERO) {
            self.refuse("allowed_lateness", what, "remove it; a larger `watermark.delay` waits longer");
        }
    }

    fn window(&mut self, file: &JobFile, choice: &WindowChoice) -> Option<OperatorSpec> {
        let (kind, size, step, offset, timezone) = match choice {
            WindowChoice::Tumbling(section) => {
                ("tumbling", &section.size, None, &section.offset, &section.timezone)
            }
            WindowChoice::Hopping(section) => {
                ("hopping", &section.size, Some(&section.step), &section.offset, &section.timezone)
            }
            WindowChoice::Sliding(section) => return self.sliding(file, section),
            WindowChoice::Session(section) => return self.sessions(section),
        };
        let path = |key: &str| format!("window.{kind}.{key}");
        let size = self.above_zero(&path("size"), size);
        let step = match step {
            Some(step) => self.above_zero(&path("step"), step),
            None => size,
        };
        let offset = self.duration(&path("offset"), offset.as_ref(), Span::ZERO);
        let zone = match timezone {
            Some(name) => self.zone(&path("timezone"), name).map(Some),
            None => Some(None),
        };
        let (size, step, offset) = (size?, step?, offset?);
        if timezone.is_some() {
            self.local_sizes(kind, size, step);
        }
        if step > size {
            let what =
                format!("`step` {} is larger than `size` {}", duration_text(step), duration_text(size));
            self.refuse(&path("step"), what, "records between two windows would be lost: use at most `size`");
        }
        if offset >= step {
            let what = format!("must be less than {}, the distance of two windows", duration_text(step));
            self.refuse(&path("offset"), what, format!("the same grid has `{}`", rest(offset, step)));
        }
        Some(OperatorSpec::Windows(WindowSpec { size, step, offset, zone: zone? }))
    }

    fn zone(&mut self, path: &str, name: &str) -> Option<&'static ZoneTable> {
        let zone = zones::zone(name);
        if zone.is_none() {
            let names = zones::names();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let what = format!("`{}` is no time zone", name.escape_debug());
            let fix =
                nearest(name, &names).unwrap_or_else(|| "use an IANA name, as in `Europe/Berlin`".to_owned());
            self.refuse(path, what, fix);
        }
        zone
    }

    /// Of local time are days, and the hours that a day divides into: everything else would begin at another time of each day.
    fn local_sizes(&mut self, kind: &str, size: Span, step: Span) {
        let is_days = |span: Span| span.millis() % DAY == 0;
        let is_hours = |span: Span| span.millis() % HOUR == 0 && DAY % span.millis() == 0;
        let path = |key: &str| format!("window.{kind}.{key}");
        if step != size {
            for (key, span) in [("size", size), ("step", step)] {
                if !is_days(span) {
                    let what =
                        format!("`{}` with a `timezone` is no whole number of days", duration_text(span));
                    self.refuse(&path(key), what, "write days, as in `7d`, or remove `timezone`");
                }
            }
        } else if !is_days(size) && !is_hours(size) {
            let what = format!(
                "`{}` with a `timezone` is neither a whole number of days nor hours that a day divides into",
                duration_text(size)
            );
            self.refuse(
                &path("size"),
                what,
                "write `1d`, `1h`, `2h`, `3h`, `4h`, `6h`, `8h` or `12h`, or remove `timezone`",
            );
        }
    }

    fn sessions(&mut self, section: &SessionSection) -> Option<OperatorSpec> {
        let gap = self.above_zero("window.session.gap", &section.gap);
        let cut = self.optional_above_zero("window.session.cut", section.cut.as_ref());
        let (gap, cut) = (gap?, cut?);
        if let Some(cut) = cut.filter(|cut| *cut < gap) {
            let what = format!("{} is less than `gap` {}", duration_text(cut), duration_text(gap));
            self.refuse(
                "window.session.cut",
                what,
                "use at least `gap`: each session ends that long after a record",
            );
        }
        Some(OperatorSpec::Sessions(SessionSpec { gap, cut }))
    }
}

fn rest(offset: Span, step: Span) -> String {
    duration_text(Span(offset.millis().checked_rem(step.millis()).unwrap_or(0)))
}
