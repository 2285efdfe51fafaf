//! What the facts mean for the job: pure.

mod cluster;
mod outputs;
mod records;
mod source;
#[cfg(test)]
mod tests;

use tidegate_core::time::Span;
use tidegate_job::{Job, duration_text};

use super::facts::{Facts, FoundTopic};
use super::finding::Finding;

/// Findings, in the order in which they are shown.
pub(crate) fn judge(job: &Job, facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    cluster::judge(job, facts, &mut findings);
    source::judge(job, facts, &mut findings);
    records::judge(job, facts, &mut findings);
    outputs::judge(job, facts, &mut findings);
    cluster::attempts(facts, &mut findings);
    findings
}

/// A span of so many ms, as a job file writes it.
fn text_of(ms: i64) -> String {
    duration_text(Span(ms))
}

/// What a topic keeps: `None` for ever.
fn retention(topic: &FoundTopic) -> Option<i64> {
    let deletes = topic.setting("cleanup.policy").is_none() || topic.has_policy("delete");
    topic.number("retention.ms").filter(|ms| *ms >= 0 && deletes)
}
