//! What the clients of a process say while brokers do not answer: one line for an outage, then at most one a minute.
//!
//! A worker has a client for each shard, and each of them complains of each attempt to connect. What is not said at `warn` is
//! said at `debug`.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Lines of one outage are at least this far apart.
const EVERY: Duration = Duration::from_secs(60);
/// An outage is over when nobody has complained for so long; clients try at least every 10 s.
const QUIET: Duration = Duration::from_secs(25);

/// The outage of this process's brokers, if there is one.
static OUTAGE: Mutex<Outage> = Mutex::new(Outage { complained: None, said: None, withheld: 0 });

/// How many complaints were withheld since the last line, where this one is to be said; `None` where it is withheld too.
pub(crate) fn admit() -> Option<u64> {
    #[allow(clippy::disallowed_methods, reason = "spaces log lines; nothing else is decided by this clock")]
    let now = Instant::now();
    OUTAGE.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
}

/// Complaints of one outage.
#[derive(Debug)]
struct Outage {
    complained: Option<Instant>,
    said: Option<Instant>,
    withheld: u64,
}

impl Outage {
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let within = |since: Option<Instant>, bound| {
            since.is_some_and(|since| now.saturating_duration_since(since) < bound)
        };
        let withhold = within(self.complained, QUIET) && within(self.said, EVERY);
        self.complained = Some(now);
        if withhold {
            self.withheld += 1;
            return None;
        }
        self.said = Some(now);
        Some(std::mem::take(&mut self.withheld))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outage_is_said_once_then_each_minute_and_the_next_at_once() {
        #[allow(clippy::disallowed_methods, reason = "any instant to count from")]
        let start = Instant::now();
        let mut outage = Outage { complained: None, said: None, withheld: 0 };
        let mut at = |second: u64| outage.admit(start + Duration::from_secs(second));
        assert_eq!(at(0), Some(0));
        let said: Vec<_> =
            (1..=130).filter_map(|second| at(second).map(|withheld| (second, withheld))).collect();
        assert_eq!(said, [(60, 59), (120, 59)]);
        // Over since second 130; the next one is another.
        assert_eq!(at(130 + QUIET.as_secs()), Some(10));
        assert_eq!(at(131 + QUIET.as_secs()), None);
    }
}
