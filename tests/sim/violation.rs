//! How a check ends a run.

use std::fmt;

/// An invariant by its name, and what was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub invariant: String,
    pub seen: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} — {}", self.invariant, self.seen)
    }
}

/// Ends the run; the runner catches it.
pub fn violated(invariant: &str, seen: String) -> ! {
    std::panic::resume_unwind(Box::new(Violation { invariant: invariant.to_owned(), seen }))
}

pub fn ensure(holds: bool, invariant: &str, seen: impl FnOnce() -> String) {
    if !holds {
        violated(invariant, seen());
    }
}
