//! What state and results of a job depend on, as text and as one number.
//!
//! The text has one `key: value` per line, in a fixed order, and begins with its version; the fingerprint is
//! `xxh3_64` of it. Both outlive the process in the job record and are frozen by a golden test. Not in it is what may
//! change from one start to the next: where the event time is, delays, lateness, the sink, intervals, memory.

use crate::job::{Format, Job, KeySource};
use std::fmt::Write;
use tidegate_core::job::{AggregateFn, ColumnKind, Comparison, Condition, Literal, OperatorSpec, Ranks};

/// Changes only together with what older job records are compared to.
const VERSION: &str = "tidegate job fingerprint: 2";
/// Had `source.event_time` too, an entry a line.
const VERSION_1: &str = "tidegate job fingerprint: 1";
const EVENT_TIME: &str = "source.event_time[";

/// A key in which two jobs differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The key, as in `source.key`.
    pub key: String,
    /// Its value in the first text; `None`: the key is not there.
    pub first: Option<String>,
    /// Its value in the second text; `None`: the key is not there.
    pub second: Option<String>,
}

impl Job {
    /// The same for two jobs whose services may work together.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        xxhash_rust::xxh3::xxh3_64(self.describe().as_bytes())
    }

    /// The text behind the fingerprint; keep it with the state, so that [`continues`] can compare.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = format!("{VERSION}\n");
        let mut line = |key: &str, value: String| {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{key}: {value}");
        };
        line("name", quoted(&self.name));
        line("source.topic", quoted(&self.source.topic));
        // Of JSON it says nothing, as before there were other formats. Where the schema is, and its versions, may change.
        if self.source.format != Format::Json {
            line("source.format", self.source.format.word().to_owned());
        }
        line(
            "source.key",
            match &self.source.key {
                KeySource::Field(pointer) => format!("field {}", quoted(pointer)),
                KeySource::RecordKey => "record_key".to_owned(),
            },
        );
        match &self.core.operator {
            OperatorSpec::Windows(window) => {
                line("window.size_ms", window.size.millis().to_string());
                line("window.step_ms", window.step.millis().to_string());
                line("window.offset_ms", window.offset.millis().to_string());
                // Of UTC it says nothing, as before there were zones.
                if let Some(zone) = window.zone {
                    line("window.timezone", quoted(zone.name()));
                }
            }
            OperatorSpec::Sessions(sessions) => {
                line("window.session.gap_ms", sessions.gap.millis().to_string());
                if let Some(cut) = sessions.cut {
                    line("window.session.cut_ms", cut.millis().to_string());
                }
            }
            OperatorSpec::Sliding(sliding) => {
                line("window.sliding.size_ms", sliding.size.millis().to_string());
            }
            OperatorSpec::Reorder => line("reorder", "yes".to_owned()),
        }
        for (index, column) in self.core.columns.iter().enumerate() {
            let kind = match column.kind {
                ColumnKind::Number { scale } => format!("scale {scale}"),
                ColumnKind::AsIs => "as it is".to_owned(),
                ColumnKind::Records => "records".to_owned(),
            };
            let only =
                column.only.as_ref().map(|only| format!(" where {}", condition(only))).unwrap_or_default();
            line(&format!("columns[{index}]"), format!("{} {kind}{only}", quoted(&column.pointer)));
        }
        for (index, aggregate) in self.core.aggregates.iter().enumerate() {
            let function = function_words(&aggregate.function);
            let of = aggregate.column.map(|column| format!(" of columns[{column}]")).unwrap_or_default();
            line(&format!("aggregates[{index}]"), format!("{} {function}{of}", quoted(&aggregate.name)));
        }
        line("state.shards", self.core.shards.to_string());
        text
    }
}

fn condition(of: &Condition) -> String {
    let joined = |all: &[Condition], word: &str| all.iter().map(condition).collect::<Vec<_>>().join(word);
    match of {
        Condition::Any(all) => format!("({})", joined(all, " or ")),
        Condition::All(all) => format!("({})", joined(all, " and ")),
        Condition::Not(one) => format!("not {}", condition(one)),
        Condition::Exists(pointer) => format!("exists {}", quoted(pointer)),
        Condition::Compare { pointer, comparison, literal } => {
            let sign = match comparison {
                Comparison::Equal => "==",
                Comparison::NotEqual => "!=",
                Comparison::Less => "<",
                Comparison::AtMost => "<=",
                Comparison::Greater => ">",
                Comparison::AtLeast => ">=",
            };
            let literal = match literal {
                Literal::Number { units, scale } => format!("{units} scale {scale}"),
                Literal::Text(text) => format!("text {}", quoted(text)),
                Literal::Boolean(boolean) => boolean.to_string(),
            };
            format!("{} {sign} {literal}", quoted(pointer))
        }
    }
}

fn function_words(function: &AggregateFn) -> String {
    let word = match function {
        AggregateFn::Count => "count",
        AggregateFn::Sum => "sum",
        AggregateFn::Min => "min",
        AggregateFn::Max => "max",
        AggregateFn::Avg => "avg",
        AggregateFn::Variance => "variance",
        AggregateFn::Stddev => "stddev",
        AggregateFn::First => "first",
        AggregateFn::Last => "last",
        AggregateFn::Distinct => "distinct",
        AggregateFn::TopK { k } => return format!("top_k {k}"),
        AggregateFn::Collect { limit } => return format!("collect {limit}"),
        AggregateFn::Quantile { accuracy, ranks } => {
            let ranks = match ranks {
                Ranks::One(rank) => rank.0.to_string(),
                Ranks::Several(ranks) => format!("{:?}", ranks.iter().map(|rank| rank.0).collect::<Vec<_>>()),
            };
            return format!("quantile {ranks} within {} of 1000000", accuracy.0);
        }
    };
    word.to_owned()
}

/// Whether a job that `later` describes may continue from the state of one that `earlier` describes, of this version or an earlier
/// one ([`Job::describe`]): how many aggregates that one had. Others may have been added behind them.
///
/// # Errors
/// The first key that stands against it.
pub fn continues(earlier: &str, later: &str) -> Result<usize, Difference> {
    let (earlier, mut later) = (resolved(earlier), resolved(later));
    let aggregates = earlier.iter().filter(|(key, _)| is_aggregate(key)).count();
    let mut seen = 0;
    later.retain(|(key, _)| {
        seen += usize::from(is_aggregate(key));
        !is_aggregate(key) || seen <= aggregates
    });
    let keys = earlier.iter().chain(&later).map(|(key, _)| key);
    let value = |entries: &[(String, String)], wanted: &str| {
        entries.iter().find(|(key, _)| key == wanted).map(|(_, value)| value.clone())
    };
    let mut differences = keys.map(|key| Difference {
        key: key.clone(),
        first: value(&earlier, key),
        second: value(&later, key),
    });
    differences.find(|difference| difference.first != difference.second).map_or(Ok(aggregates), Err)
}

/// The entries of a text, with what each aggregate is of in place of the columns.
fn resolved(text: &str) -> Vec<(String, String)> {
    let entries = entries(text);
    let columns: Vec<&str> =
        entries.iter().filter(|(key, _)| key.starts_with("columns[")).map(|(_, value)| *value).collect();
    let rest = entries.iter().filter(|(key, _)| !key.starts_with("columns["));
    rest.map(|(key, value)| {
        let of = value.rsplit_once(" of columns[").filter(|_| is_aggregate(key));
        let column = of.and_then(|(function, at)| {
            let column = columns.get(at.trim_end_matches(']').parse::<usize>().ok()?)?;
            Some((function, *column))
        });
        let value = match column {
            None => (*value).to_owned(),
            // However a value is kept, it counts once.
            Some((function, column)) if function.ends_with(" count") => {
                format!("{function} of {}", without_kind(column))
            }
            Some((function, column)) => format!("{function} of {column}"),
        };
        ((*key).to_owned(), value)
    })
    .collect()
}

fn is_aggregate(key: &str) -> bool {
    key.starts_with("aggregates[")
}

/// A column without how its value is taken.
fn without_kind(column: &str) -> String {
    let mut values = serde_json::Deserializer::from_str(column).into_iter::<String>();
    let Some(Ok(pointer)) = values.next() else { return column.to_owned() };
    let condition = column.get(values.byte_offset()..).and_then(|rest| rest.split_once(" where "));
    let condition = condition.map(|(_, condition)| format!(" where {condition}")).unwrap_or_default();
    format!("{}{condition}", quoted(&pointer))
}

fn entries(text: &str) -> Vec<(&str, &str)> {
    let first = text.lines().next() == Some(VERSION_1);
    text.lines()
        .map(|line| if line == VERSION_1 { VERSION } else { line })
        .map(|line| line.split_once(": ").unwrap_or((line, "")))
        .filter(|(key, _)| !(first && key.starts_with(EVENT_TIME)))
        .collect()
}

/// As JSON text, so that no value can look like another line.
fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
