//! What is computed: windows and aggregates.

use super::Checker;
use crate::file::{JobFile, SessionSection, WindowChoice};
use crate::quantity::duration_text;
use tidegate_core::job::{AggregateSpec, ColumnSpec, OperatorSpec, SessionSpec, WindowSpec};
use tidegate_core::time::Span;

impl Checker<'_> {
    pub(super) fn computed(
        &mut self,
        file: &JobFile,
    ) -> Option<(OperatorSpec, Vec<ColumnSpec>, Vec<AggregateSpec>)> {
        if file.early.is_some() {
            self.unsupported("early", "early results", "remove `early`");
        }
        if file.reorder.is_some() {
            self.unsupported("reorder", "reordering", "use `window` and `aggregates`");
            return None;
        }
        let window = match &file.window {
            Some(choice) => self.window(choice),
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

    fn window(&mut self, choice: &WindowChoice) -> Option<OperatorSpec> {
        let instead = "use `tumbling`, `hopping` or `session`";
        let (kind, size, step, offset) = match choice {
            WindowChoice::Tumbling(section) => ("tumbling", &section.size, None, &section.offset),
            WindowChoice::Hopping(section) => {
                ("hopping", &section.size, Some(&section.step), &section.offset)
            }
            WindowChoice::Sliding(_) => {
                self.unsupported("window.sliding", "sliding windows", instead);
                return None;
            }
            WindowChoice::Session(section) => return self.sessions(section),
        };
        let path = |key: &str| format!("window.{kind}.{key}");
        let size = self.above_zero(&path("size"), size);
        let step = match step {
            Some(step) => self.above_zero(&path("step"), step),
            None => size,
        };
        let offset = self.duration(&path("offset"), offset.as_ref(), Span::ZERO);
        let (size, step, offset) = (size?, step?, offset?);
        if step > size {
            let what =
                format!("`step` {} is larger than `size` {}", duration_text(step), duration_text(size));
            self.refuse(&path("step"), what, "records between two windows would be lost: use at most `size`");
        }
        if offset >= step {
            let what = format!("must be less than {}, the distance of two windows", duration_text(step));
            self.refuse(&path("offset"), what, format!("the same grid has `{}`", rest(offset, step)));
        }
        Some(OperatorSpec::Windows(WindowSpec { size, step, offset }))
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
