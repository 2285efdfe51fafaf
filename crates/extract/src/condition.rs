//! Which records an aggregate takes, evaluated on the fields of a record.

use std::cmp::Ordering;

use tidegate_core::job::{Comparison, Condition, Literal};

use crate::pointers::{Pointers, Slot};
use crate::value::{Fields, Value};

/// A condition whose fields have been found.
#[derive(Debug)]
pub(crate) enum Test {
    Any(Vec<Test>),
    All(Vec<Test>),
    Not(Box<Test>),
    Exists(Slot),
    Compare { slot: Slot, comparison: Comparison, literal: Literal },
}

impl Test {
    pub(crate) fn new(condition: &Condition, pointers: &Pointers) -> Self {
        let all = |conditions: &[Condition]| conditions.iter().map(|one| Self::new(one, pointers)).collect();
        match condition {
            Condition::Any(conditions) => Self::Any(all(conditions)),
            Condition::All(conditions) => Self::All(all(conditions)),
            Condition::Not(condition) => Self::Not(Box::new(Self::new(condition, pointers))),
            Condition::Exists(pointer) => Self::Exists(pointers.slot(pointer)),
            Condition::Compare { pointer, comparison, literal } => Self::Compare {
                slot: pointers.slot(pointer),
                comparison: *comparison,
                literal: literal.clone(),
            },
        }
    }

    /// Whether it holds. A comparison with what is missing, null or of another type than the literal does not, whichever it is.
    pub(crate) fn holds(&self, fields: Fields<'_>, room: &mut String) -> bool {
        match self {
            Self::Any(tests) => tests.iter().any(|test| test.holds(fields, room)),
            Self::All(tests) => tests.iter().all(|test| test.holds(fields, room)),
            Self::Not(test) => !test.holds(fields, room),
            Self::Exists(slot) => fields.value(*slot).is_some_and(|value| !value.is_null()),
            Self::Compare { slot, comparison, literal } => fields
                .value(*slot)
                .and_then(|value| compare(value, literal, room))
                .is_some_and(|ordering| match comparison {
                    Comparison::Equal => ordering.is_eq(),
                    Comparison::NotEqual => ordering.is_ne(),
                    Comparison::Less => ordering.is_lt(),
                    Comparison::AtMost => ordering.is_le(),
                    Comparison::Greater => ordering.is_gt(),
                    Comparison::AtLeast => ordering.is_ge(),
                }),
        }
    }
}

/// `None` where the two cannot be compared.
fn compare(value: Value<'_>, literal: &Literal, room: &mut String) -> Option<Ordering> {
    match literal {
        Literal::Number { units, scale } => value.compared(*units, i32::try_from(*scale).ok()?, room),
        Literal::Text(text) => {
            if !value.is_text() {
                return None;
            }
            Some(value.key(room).ok()?.cmp(text.as_bytes()))
        }
        Literal::Boolean(boolean) => Some(value.boolean()?.cmp(boolean)),
    }
}
