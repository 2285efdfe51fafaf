//! What a check has found: one line each, in groups.

use std::fmt::Write;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Ok,
    Warning,
    Error,
}

impl Level {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One finding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    pub(crate) group: &'static str,
    /// What was looked at, the same word for the same thing: for machines.
    pub(crate) name: &'static str,
    pub(crate) level: Level,
    pub(crate) text: String,
    /// What to do; absent where nothing is to be done.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) fix: Option<String>,
}

impl Finding {
    pub(crate) fn ok(group: &'static str, name: &'static str, text: impl Into<String>) -> Self {
        Self { group, name, level: Level::Ok, text: text.into(), fix: None }
    }

    pub(crate) fn warning(
        group: &'static str,
        name: &'static str,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { group, name, level: Level::Warning, text: text.into(), fix: Some(fix.into()) }
    }

    pub(crate) fn error(
        group: &'static str,
        name: &'static str,
        text: impl Into<String>,
        fix: impl Into<String>,
    ) -> Self {
        Self { group, name, level: Level::Error, text: text.into(), fix: Some(fix.into()) }
    }
}

/// All findings.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Findings {
    pub(crate) findings: Vec<Finding>,
    pub(crate) errors: usize,
    pub(crate) warnings: usize,
}

impl Findings {
    pub(crate) fn of(findings: Vec<Finding>) -> Self {
        let count = |level: Level| findings.iter().filter(|finding| finding.level == level).count();
        Self { errors: count(Level::Error), warnings: count(Level::Warning), findings }
    }

    /// Whether the job may be started.
    pub(crate) const fn passes(&self, strict: bool) -> bool {
        self.errors == 0 && (self.warnings == 0 || !strict)
    }

    /// As text, grouped.
    pub(crate) fn render(&self) -> String {
        let mut out = String::new();
        let mut group = "";
        for finding in &self.findings {
            if finding.group != group {
                group = finding.group;
                let _ = writeln!(out, "{group}");
            }
            let fix = finding.fix.as_ref().map(|fix| format!("; {fix}")).unwrap_or_default();
            let _ =
                writeln!(out, "  {:7}  {:11} {}{fix}", finding.level.as_str(), finding.name, finding.text);
        }
        let Self { errors, warnings, findings } = self;
        let _ = writeln!(out, "findings: {}, errors: {errors}, warnings: {warnings}", findings.len());
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn findings_are_lines_in_groups_and_decide_whether_the_job_may_start() {
        let ok = Finding::ok("source", "topic", "it is there");
        let warning = Finding::warning("source", "retention", "it is short", "raise it");
        let error = Finding::error("cluster", "transactions", "refused", "allow them");
        let findings = Findings::of(vec![ok.clone(), warning.clone()]);
        assert_eq!(
            findings.render(),
            "source\n  ok       topic       it is there\n  warning  retention   it is short; raise it\n\
             findings: 2, errors: 0, warnings: 1\n"
        );
        assert!(findings.passes(false) && !findings.passes(true));
        assert!(!Findings::of(vec![ok.clone(), error]).passes(false));
        assert!(Findings::of(vec![ok]).passes(true));
    }
}
