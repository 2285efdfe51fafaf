//! Says when most of what a partition brings is from the future: then it is rather this machine's clock that is wrong, or a
//! producer that writes local time as UTC.

use std::collections::BTreeSet;

use tidegate_core::{
    skew::SkewSummary,
    time::{Partition, Span},
};

/// Which partitions that has been said of; it is said again when they were well in between.
#[derive(Debug)]
pub(crate) struct Ahead {
    bound: Option<Span>,
    told: BTreeSet<Partition>,
}

impl Ahead {
    /// Looks for what is beyond `bound`; `None`: nothing is.
    pub(crate) const fn new(bound: Option<Span>) -> Self {
        Self { bound, told: BTreeSet::new() }
    }

    /// What is usual in a partition now; true when something was said.
    pub(crate) fn look(&mut self, partition: Partition, skew: Option<SkewSummary>) -> bool {
        let (Some(bound), Some(skew)) = (self.bound, skew) else { return false };
        if skew.p50.millis() >= -bound.millis() {
            self.told.remove(&partition);
            return false;
        }
        let news = self.told.insert(partition);
        if news {
            tracing::warn!(
                partition = partition.0,
                ahead_ms = -skew.p50.millis(),
                max_future_skew_ms = bound.millis(),
                "half of the records or more are from the future: look at the clock of this machine and at the time zone of the producers"
            );
        }
        news
    }

    /// The partition is no longer read here.
    pub(crate) fn forget(&mut self, partition: Partition) {
        self.told.remove(&partition);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(1);

    const fn usual(p50: i64) -> Option<SkewSummary> {
        Some(SkewSummary { p50: Span(p50), p99: Span(p50 + 10), most_ahead: Span(50_000) })
    }

    #[test]
    fn it_is_said_once_until_the_partition_was_well() {
        let mut ahead = Ahead::new(Some(Span(1_000)));
        let said = [usual(5), usual(-1_000), usual(-1_001), usual(-9_000), None, usual(0), usual(-2_000)]
            .map(|skew| ahead.look(P, skew));
        assert_eq!(said, [false, false, true, false, false, false, true]);
        ahead.forget(P);
        assert!(ahead.look(P, usual(-2_000)));
    }

    #[test]
    fn without_a_bound_nothing_is_from_the_future() {
        assert!(!Ahead::new(None).look(P, usual(-1_000_000)));
    }
}
