//! When a shard commits (design §3.4): at once where output waits, else at the tick, else now and then for the positions; and
//! never more often than the log bears.
//!
//! ```text
//! output waits      begun ──min interval──► due        min interval = 2 × commit latency, 25 ms to the commit interval
//! rows changed      begun ──commit interval──► due
//! positions moved   begun ──heartbeat──► due
//! ```

use crate::time::Tick;

/// The spans between commits, in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// A shard with changed rows commits at least this often.
    pub commit_interval: u64,
    /// The least time between two commits; rises with the measured latency.
    pub min_interval: u64,
    /// A shard of which only positions moved commits this often.
    pub heartbeat: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { commit_interval: 100, min_interval: 25, heartbeat: 3_000 }
    }
}

/// How much a shard wants to commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    /// Nothing changed.
    Nothing,
    /// Positions or in-band watermarks moved.
    Moved,
    /// Rows changed.
    Dirty,
    /// Results or dead letters wait.
    Output,
}

/// Paces the commits of one shard.
#[derive(Clone, Debug)]
pub struct CommitPacer {
    pace: Pace,
    /// When the last commit began; before the first, when the shard was taken over.
    begun: Tick,
    /// Whether a commit has begun at all, and whether one is in flight.
    phase: Phase,
    /// Eighths of a ms, smoothed; `None` before the first measurement.
    latency: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    InFlight,
    Rests,
}

impl CommitPacer {
    /// Paces a shard that was taken over at `now`.
    #[must_use]
    pub const fn new(pace: Pace, now: Tick) -> Self {
        Self { pace, begun: now, phase: Phase::Fresh, latency: None }
    }

    /// When the next commit may begin; `None` while one is in flight or nothing is to be committed.
    #[must_use]
    pub fn due(&self, urgency: Urgency) -> Option<Tick> {
        let after = match (self.phase, urgency) {
            (Phase::InFlight, _) | (_, Urgency::Nothing) => return None,
            (Phase::Fresh, Urgency::Output) => 0,
            (Phase::Rests, Urgency::Output) => self.min_interval(),
            (_, Urgency::Dirty) => self.pace.commit_interval,
            (_, Urgency::Moved) => self.pace.heartbeat.max(self.pace.commit_interval),
        };
        Some(Tick(self.begun.0.saturating_add(after)))
    }

    /// A commit begins.
    pub fn begin(&mut self, now: Tick) {
        (self.begun, self.phase) = (now, Phase::InFlight);
    }

    /// The commit is known to be in the log.
    pub fn committed(&mut self, now: Tick) {
        self.phase = Phase::Rests;
        let sample = now.since(self.begun).saturating_mul(8);
        self.latency = Some(match self.latency {
            None => sample,
            Some(latency) => (latency.saturating_mul(3).saturating_add(sample)) / 4,
        });
    }

    /// The least time between two commits as of now, in ms.
    #[must_use]
    pub fn min_interval(&self) -> u64 {
        let twice_latency = self.latency.unwrap_or(0) / 4;
        twice_latency.max(self.pace.min_interval).min(self.pace.commit_interval)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pacer() -> CommitPacer {
        CommitPacer::new(Pace::default(), Tick(1_000))
    }

    fn commit(pacer: &mut CommitPacer, at: u64, latency: u64) {
        pacer.begin(Tick(at));
        pacer.committed(Tick(at + latency));
    }

    #[test]
    fn the_more_waits_the_sooner_it_commits() {
        let mut pacer = pacer();
        assert_eq!(pacer.due(Urgency::Nothing), None);
        assert_eq!(pacer.due(Urgency::Output), Some(Tick(1_000)), "the first output waits for nothing");
        commit(&mut pacer, 2_000, 5);
        assert_eq!(pacer.due(Urgency::Output), Some(Tick(2_025)));
        assert_eq!(pacer.due(Urgency::Dirty), Some(Tick(2_100)));
        assert_eq!(pacer.due(Urgency::Moved), Some(Tick(5_000)));
        assert_eq!(pacer.due(Urgency::Nothing), None);
    }

    #[test]
    fn one_commit_is_in_flight_at_a_time() {
        let mut pacer = pacer();
        pacer.begin(Tick(1_000));
        assert_eq!(pacer.due(Urgency::Output), None);
        pacer.committed(Tick(1_010));
        assert_eq!(pacer.due(Urgency::Output), Some(Tick(1_025)));
    }

    #[test]
    fn a_slow_log_is_given_time_up_to_the_commit_interval() {
        let mut pacer = pacer();
        commit(&mut pacer, 2_000, 30);
        assert_eq!(pacer.min_interval(), 60);
        commit(&mut pacer, 3_000, 4_000);
        assert_eq!(pacer.min_interval(), 100, "output is never later than the tick");
        for at in 10..40 {
            commit(&mut pacer, at * 1_000, 3);
        }
        assert_eq!(pacer.min_interval(), 25, "and recovers");
    }

    #[test]
    fn a_commit_interval_below_the_minimum_wins() {
        let pace = Pace { commit_interval: 10, ..Pace::default() };
        let mut pacer = CommitPacer::new(pace, Tick(0));
        commit(&mut pacer, 100, 50);
        assert_eq!(pacer.due(Urgency::Output), Some(Tick(110)));
    }
}
