//! The aggregates, and the columns that they need.

use super::Checker;
use crate::condition;
use crate::file::{AggregateEntry, Function, RanksText};
use crate::names;
use crate::quantity::{parse_rank, parse_share};
use crate::report::Flaw;
use tidegate_core::job::{AggregateFn, AggregateSpec, ColumnKind, ColumnSpec, PerMillion, Ranks};

const SCALE: u32 = 6;
const MAX_SCALE: u32 = 18;
const ACCURACY: PerMillion = PerMillion(10_000);
/// Finer ones take summaries of more than a few hundred kilobytes.
const LEAST_ACCURACY: PerMillion = PerMillion(1_000);
const MOST_ACCURACY: PerMillion = PerMillion(200_000);
const MAX_RANKS: usize = 20;
const TOP: u32 = 10;
const MAX_TOP: u32 = 100;
const LIMIT: u32 = 100;
/// So that a result of the longest values stays below the message limit that brokers begin with.
const MAX_LIMIT: u32 = 500;

impl Checker<'_> {
    pub(super) fn aggregates(
        &mut self,
        entries: &[AggregateEntry],
    ) -> Option<(Vec<ColumnSpec>, Vec<AggregateSpec>)> {
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
        let function = self.function(path, entry);
        self.only_of_its_function(path, entry);
        if matches!(entry.function, Function::Count) && entry.scale.is_some() {
            self.refuse(&format!("{path}.scale"), "a count has no decimal places", "remove `scale`");
        }
        let scale = self.number(&format!("{path}.scale"), entry.scale, SCALE, 0..=MAX_SCALE);
        let only = match &entry.only {
            None => None,
            Some(text) => {
                let read = condition::parse(text)
                    .map_err(|flaw| Flaw::new(format!("`{}` {}", text.escape_debug(), flaw.what), flaw.fix));
                Some(self.accept(&format!("{path}.where"), read)?)
            }
        };
        match &entry.field {
            Some(pointer) => {
                let pointer = self.pointer(&format!("{path}.field"), pointer);
                let kind = match entry.scale {
                    None if takes_as_it_is(entry.function) => ColumnKind::AsIs,
                    _ => ColumnKind::Number { scale: scale? },
                };
                Some((function?, Some(ColumnSpec { pointer: pointer?, kind, only })))
            }
            None if function == Some(AggregateFn::Count) => {
                let counted =
                    |only| ColumnSpec { pointer: String::new(), kind: ColumnKind::Records, only: Some(only) };
                Some((AggregateFn::Count, only.map(counted)))
            }
            None => {
                function.as_ref()?;
                let what = format!("`{}` has no `field`", entry.name.escape_debug());
                self.refuse(path, what, "say what it is computed of, as in `field: /amount`");
                None
            }
        }
    }

    fn function(&mut self, path: &str, entry: &AggregateEntry) -> Option<AggregateFn> {
        Some(match entry.function {
            Function::Count => AggregateFn::Count,
            Function::Sum => AggregateFn::Sum,
            Function::Min => AggregateFn::Min,
            Function::Max => AggregateFn::Max,
            Function::Avg => AggregateFn::Avg,
            Function::Variance => AggregateFn::Variance,
            Function::Stddev => AggregateFn::Stddev,
            Function::First => AggregateFn::First,
            Function::Last => AggregateFn::Last,
            Function::Quantile => return self.quantile(path, entry),
            Function::Distinct => AggregateFn::Distinct,
            Function::TopK => {
                AggregateFn::TopK { k: self.number(&format!("{path}.k"), entry.k, TOP, 1..=MAX_TOP)? }
            }
            Function::Collect => {
                let place = format!("{path}.limit");
                AggregateFn::Collect { limit: self.number(&place, entry.limit, LIMIT, 1..=MAX_LIMIT)? }
            }
            Function::Wasm => return self.unsupported_function(path, "wasm"),
        })
    }

    fn quantile(&mut self, path: &str, entry: &AggregateEntry) -> Option<AggregateFn> {
        let place = format!("{path}.accuracy");
        let accuracy = match &entry.accuracy {
            None => Some(ACCURACY),
            Some(text) => self.accept(&place, parse_share(&text.0)),
        };
        if accuracy.is_some_and(|accuracy| !(LEAST_ACCURACY..=MOST_ACCURACY).contains(&accuracy)) {
            self.refuse(&place, "must be from 0.1% to 20%", "use `1%`, or leave it out");
        }
        let place = format!("{path}.q");
        let ranks = match &entry.q {
            None => {
                self.refuse(path, "`quantile` needs a `q`", "say which, as in `q: 0.99` or `q: [0.5, 0.99]`");
                None
            }
            Some(RanksText::One(text)) => self.accept(&place, parse_rank(text)).map(Ranks::One),
            Some(RanksText::Several(texts)) => {
                if texts.is_empty() || texts.len() > MAX_RANKS {
                    let what = format!("must be a number, or a list of 1 to {MAX_RANKS} of them");
                    self.refuse(&place, what, "write it as in `q: 0.99` or `q: [0.5, 0.99]`");
                    return None;
                }
                let ranks = texts
                    .iter()
                    .enumerate()
                    .map(|(index, text)| self.accept(&format!("{place}[{index}]"), parse_rank(text)));
                ranks.collect::<Vec<_>>().into_iter().collect::<Option<_>>().map(Ranks::Several)
            }
        };
        Some(AggregateFn::Quantile { accuracy: accuracy?, ranks: ranks? })
    }

    /// Refuses what says something of another function.
    fn only_of_its_function(&mut self, path: &str, entry: &AggregateEntry) {
        let quantile = matches!(entry.function, Function::Quantile);
        let keys = [
            ("q", entry.q.is_some(), quantile, "quantile"),
            ("accuracy", entry.accuracy.is_some(), quantile, "quantile"),
            ("k", entry.k.is_some(), matches!(entry.function, Function::TopK), "top_k"),
            ("limit", entry.limit.is_some(), matches!(entry.function, Function::Collect), "collect"),
        ];
        for (key, _, _, function) in keys.into_iter().filter(|(_, given, fits, _)| *given && !fits) {
            let what = format!("`{key}` belongs to `{function}`");
            self.refuse(&format!("{path}.{key}"), what, format!("remove `{key}`, or use `fn: {function}`"));
        }
    }

    fn unsupported_function<T>(&mut self, path: &str, name: &str) -> Option<T> {
        let what = format!("the aggregate `{name}`");
        self.unsupported(&format!("{path}.fn"), &what, "use one of those in docs/job.md");
        None
    }
}

/// Whether a function takes the value as it is, where no `scale` asks for a number.
const fn takes_as_it_is(function: Function) -> bool {
    matches!(
        function,
        Function::First | Function::Last | Function::Distinct | Function::TopK | Function::Collect
    )
}

fn serves(known: &ColumnSpec, function: &AggregateFn, wanted: &ColumnSpec) -> bool {
    known.pointer == wanted.pointer
        && known.only == wanted.only
        && (*function == AggregateFn::Count || known.kind == wanted.kind)
}
