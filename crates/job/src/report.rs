//! What is wrong with a job file: each problem with its place, its key, what is wrong and what to do.

use crate::file::NOT_SUPPORTED_YET;
use std::fmt;

/// A place in the text, both counted from 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position {
    pub(crate) line: usize,
    pub(crate) column: usize,
}

impl Position {
    pub(crate) const START: Self = Self { line: 1, column: 1 };
}

/// One thing that is wrong with a job file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the file, from 1.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// The key, as in `source.event_time[1].unit`; empty for the file as a whole.
    pub path: String,
    /// What is wrong.
    pub what: String,
    /// What to do.
    pub fix: String,
}

impl Problem {
    pub(crate) fn new(at: Position, path: &str, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { line: at.line, column: at.column, path: path.to_owned(), what: what.into(), fix: fix.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}; {}", self.what, self.fix)
    }
}

/// What is wrong with a value, wherever it stands.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Flaw {
    pub(crate) what: String,
    pub(crate) fix: String,
}

impl Flaw {
    pub(crate) fn new(what: impl Into<String>, fix: impl Into<String>) -> Self {
        Self { what: what.into(), fix: fix.into() }
    }
}

/// Why a job file was refused; displays as one line `file:line:column: key: what; what to do` for each problem.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Report {
    /// The name of the file, as given by the caller.
    pub file: String,
    /// At least one, in the order of the file.
    pub problems: Vec<Problem>,
}

impl Report {
    pub(crate) fn new(file: &str, mut problems: Vec<Problem>) -> Self {
        problems.sort_by_key(|problem| (problem.line, problem.column));
        Self { file: file.to_owned(), problems }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{}:{problem}", self.file)?;
        }
        Ok(())
    }
}

/// What to do about a word that is none of `known`: the nearest one if there is one, else the list.
pub(crate) fn suggestion(word: &str, known: &[&str]) -> String {
    nearest(word, known).unwrap_or_else(|| {
        if known.is_empty() {
            return "no key is known here: write `{}`".to_owned();
        }
        format!("known here: {}", listed(known))
    })
}

/// The word that was meant, if one is near.
pub(crate) fn nearest(word: &str, known: &[&str]) -> Option<String> {
    let nearest = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(word, candidate), *candidate))
        .min()
        .filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1));
    nearest.map(|(_, candidate)| format!("did you mean `{candidate}`?"))
}

/// The words that a user can choose from.
pub(crate) fn listed(known: &[&str]) -> String {
    let supported: Vec<&str> =
        known.iter().copied().filter(|word| !NOT_SUPPORTED_YET.contains(word)).collect();
    supported.join(", ")
}
