//! Sessions that came out in parts.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;
use tidegate_core::job::AggregateFn;
use tidegate_job::Job;

use super::Window;

/// Results by key, to find those of sessions that came out in parts.
pub(super) struct Parts<'a>(BTreeMap<&'a str, BTreeMap<(i64, i64), &'a Value>>);

/// Results that lie in a session of the batch.
pub(super) struct Split<'a> {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) windows: Vec<Window>,
    pub(super) values: Vec<&'a Value>,
}

impl<'a> Parts<'a> {
    pub(super) fn of(results: &'a HashMap<Window, (u64, Value)>) -> Self {
        let mut parts: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
        for ((key, start, end), (_, value)) in results {
            parts.entry(key.as_str()).or_default().insert((*start, *end), value);
        }
        Self(parts)
    }

    /// What came out within a session, if anything did.
    pub(super) fn of_session(&self, (key, start, end): &Window) -> Option<Split<'a>> {
        let within = self.0.get(key.as_str())?.range((*start, i64::MIN)..(*end, i64::MIN));
        let within: Vec<_> = within.filter(|((_, part_end), _)| part_end <= end).collect();
        let (first, _) = within.first()?;
        Some(Split {
            start: first.0,
            end: within.iter().map(|((_, end), _)| *end).max()?,
            windows: within.iter().map(|((start, end), _)| (key.clone(), *start, *end)).collect(),
            values: within.iter().map(|(_, value)| **value).collect(),
        })
    }
}

impl Split<'_> {
    /// The records that the parts count; `None` where the job counts none.
    pub(super) fn records(&self, job: &Job) -> Option<u64> {
        let counts = |aggregate: &&tidegate_core::job::AggregateSpec| {
            aggregate.function == AggregateFn::Count && aggregate.column.is_none()
        };
        let count = job.core.aggregates.iter().find(counts)?;
        self.values.iter().map(|value| value.get(&count.name).and_then(Value::as_u64)).sum()
    }
}
