//! What is computed: windows, aggregates, and the columns that these need.

use super::Checker;
use crate::file::{AggregateEntry, Function, JobFile, WindowChoice};
use crate::names;
use crate::quantity::duration_text;
use tidegate_core::job::{AggregateFn, AggregateSpec, ColumnSpec, OperatorSpec, WindowSpec};
use tidegate_core::time::Span;

const SCALE: u32 = 6;
const MAX_SCALE: u32 = 18;

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
        let instead = "use `tumbling` or `hopping`";
        let (kind, size, step, offset) = match choice {
            WindowChoice::Tumbling(section) => ("tumbling", &section.size, None, &section.offset),
            WindowChoice::Hopping(section) => {
                ("hopping", &section.size, Some(&section.step), &section.offset)
            }
            WindowChoice::Sliding(_) => {
                self.unsupported("window.sliding", "sliding windows", instead);
                return None;
            }
            WindowChoice::Session(_) => {
                self.unsupported("window.session", "session windows", instead);
                return None;
            }
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

    fn aggregates(&mut self, entries: &[AggregateEntry]) -> Option<(Vec<ColumnSpec>, Vec<AggregateSpec>)> {
        let mut checked = Vec::new();
        for (index, entry) in entries.iter().enumerate() {
            let path = format!("aggregates[{index}]");
            self.names(&format!("{path}.name"), &entry.name, names::result_field);
            let earlier = entries.iter().take(index).position(|earlier| earlier.name == entry.name);
            if let Some(earlier) = earlier {
                let what =
                    format!("`{}` is already the name of aggregates[{earlier}]", entry.name.escape_debug());
                self.refuse(&format!("{path}.name"), what, "choose another name");
            }
            checked
                .push(self.aggregate(&path, entry).map(|(function, column)| (&entry.name, function, column)));
        }
        let checked: Vec<_> = checked.into_iter().collect::<Option<_>>()?;

        // What is only counted shares the column of what is computed of the same field, whatever its scale.
        let mut columns: Vec<ColumnSpec> = Vec::new();
        let computed = checked.iter().filter(|(_, function, _)| *function != AggregateFn::Count);
        let counted = checked.iter().filter(|(_, function, _)| *function == AggregateFn::Count);
        for (_, function, column) in computed.chain(counted) {
            if let Some(column) = column
                && !columns.iter().any(|known| serves(known, function, column))
            {
                columns.push(column.clone());
            }
        }
        let aggregates = checked.iter().map(|(name, function, column)| AggregateSpec {
            name: (*name).clone(),
            function: function.clone(),
            column: column
                .as_ref()
                .and_then(|column| columns.iter().position(|known| serves(known, function, column))),
        });
        let aggregates = aggregates.collect();
        Some((columns, aggregates))
    }

    fn aggregate(&mut self, path: &str, entry: &AggregateEntry) -> Option<(AggregateFn, Option<ColumnSpec>)> {
        let function = match entry.function {
            Function::Count => AggregateFn::Count,
            Function::Sum => AggregateFn::Sum,
            Function::Min => AggregateFn::Min,
            Function::Max => AggregateFn::Max,
            Function::Avg => AggregateFn::Avg,
            Function::Variance => return self.unsupported_function(path, "variance"),
            Function::Stddev => return self.unsupported_function(path, "stddev"),
            Function::First => return self.unsupported_function(path, "first"),
            Function::Last => return self.unsupported_function(path, "last"),
            Function::Quantile => return self.unsupported_function(path, "quantile"),
            Function::Distinct => return self.unsupported_function(path, "distinct"),
            Function::TopK => return self.unsupported_function(path, "top_k"),
            Function::Collect => return self.unsupported_function(path, "collect"),
            Function::Wasm => return self.unsupported_function(path, "wasm"),
        };
        if function == AggregateFn::Count && entry.scale.is_some() {
            self.refuse(&format!("{path}.scale"), "a count has no decimal places", "remove `scale`");
        }
        let scale = self.number(&format!("{path}.scale"), entry.scale, SCALE, 0..=MAX_SCALE);
        match &entry.field {
            Some(pointer) => {
                let pointer = self.pointer(&format!("{path}.field"), pointer);
                Some((function, Some(ColumnSpec { pointer: pointer?, scale: scale? })))
            }
            None if function == AggregateFn::Count => Some((function, None)),
            None => {
                let what = format!("`{}` has no `field`", entry.name.escape_debug());
                self.refuse(path, what, "say what it is computed of, as in `field: /amount`");
                None
            }
        }
    }

    fn unsupported_function<T>(&mut self, path: &str, name: &str) -> Option<T> {
        let what = format!("the aggregate `{name}`");
        self.unsupported(&format!("{path}.fn"), &what, "use count, sum, min, max or avg");
        None
    }
}

fn serves(known: &ColumnSpec, function: &AggregateFn, wanted: &ColumnSpec) -> bool {
    known.pointer == wanted.pointer && (*function == AggregateFn::Count || known.scale == wanted.scale)
}

fn rest(offset: Span, step: Span) -> String {
    duration_text(Span(offset.millis().checked_rem(step.millis()).unwrap_or(0)))
}
