//! How far ahead of a watermark a reading may be before it waits (spec T9).

use crate::time::Span;

/// A bound on drift, and whether a reading waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DriftBound(pub Span);

impl DriftBound {
    /// Whether a reading that is `ahead` waits; `None` for one that pausing does not concern. One that waits goes on at three
    /// quarters of the bound, so that a reading at the bound does not flap.
    #[must_use]
    pub fn holds(self, waits: bool, ahead: Option<Span>) -> bool {
        let bound = if waits { self.0.0 / 4 * 3 } else { self.0.0 };
        ahead.is_some_and(|ahead| ahead.0 > bound)
    }
}
