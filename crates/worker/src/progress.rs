//! How far a shard has come that was given to this worker: what `/readyz` asks.
//!
//! ```text
//! Restoring ── read to the end of its log ──► Behind ── at the watermark announced by then, or the bound is over ──► Serving
//! ```
//! The bound is there because a shard comes no further without ingests and records: that is not for this worker to wait for.

use tidegate_core::time::{EventTime, Shard, Tick, Watermark};

/// How long a restored shard may be behind before the worker is ready all the same, ms.
const CATCH_UP: u64 = 60_000;

/// Where a shard is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// Its state is read.
    Restoring,
    /// It is fed from its positions on.
    Behind {
        /// The global watermark at the restore.
        goal: EventTime,
        /// When it is waited for no longer.
        until: Tick,
    },
    /// It goes with the others.
    Serving,
}

impl Progress {
    /// Restored at `now`, with its own watermark and the one announced.
    pub(crate) fn restored(own: Watermark, announced: Watermark, now: Tick) -> Self {
        match announced {
            Some(goal) if own < Some(goal) => {
                Self::Behind { goal, until: Tick(now.0.saturating_add(CATCH_UP)) }
            }
            _ => Self::Serving,
        }
    }

    /// It has `own` at `now`.
    pub(crate) fn look(&mut self, own: Watermark, now: Tick) {
        if let Self::Behind { goal, until } = *self
            && (own >= Some(goal) || now >= until)
        {
            *self = Self::Serving;
        }
    }
}

/// Why a worker with these shards is not ready; `None` where it is.
pub(crate) fn why_not(shards: impl Iterator<Item = (Shard, Progress)>) -> Option<String> {
    let (mut restoring, mut behind) = (Vec::new(), Vec::new());
    for (shard, progress) in shards {
        match progress {
            Progress::Restoring => restoring.push(shard.0),
            Progress::Behind { .. } => behind.push(shard.0),
            Progress::Serving => {}
        }
    }
    match (restoring.as_slice(), behind.as_slice()) {
        ([], []) => None,
        ([], behind) => Some(format!("shards {behind:?} are not caught up")),
        (restoring, _) => Some(format!("shards {restoring:?} are not restored")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const W: Watermark = Some(EventTime(100));

    #[test]
    fn a_shard_at_the_watermark_serves_once_it_is_restored() {
        assert_eq!(Progress::restored(W, W, Tick(5)), Progress::Serving);
        assert_eq!(Progress::restored(None, None, Tick(5)), Progress::Serving);
        assert_eq!(Progress::restored(W, None, Tick(5)), Progress::Serving);
    }

    #[test]
    fn a_shard_below_it_serves_once_it_has_come_there_or_was_waited_for() {
        for own in [None, Some(EventTime(99))] {
            let mut progress = Progress::restored(own, W, Tick(5));
            progress.look(Some(EventTime(99)), Tick(CATCH_UP));
            assert!(matches!(progress, Progress::Behind { .. }));
            let mut waited_for = progress;
            progress.look(W, Tick(6));
            waited_for.look(own, Tick(5 + CATCH_UP));
            assert_eq!((progress, waited_for), (Progress::Serving, Progress::Serving));
        }
    }

    #[test]
    fn the_reason_names_the_shards() {
        let behind = Progress::Behind { goal: EventTime(0), until: Tick(0) };
        let of = |shards: &[Progress]| why_not((0..).map(Shard).zip(shards.iter().copied()));
        assert_eq!(of(&[]), None);
        assert_eq!(of(&[Progress::Serving]), None);
        assert_eq!(of(&[Progress::Serving, behind]).as_deref(), Some("shards [1] are not caught up"));
        let both = of(&[Progress::Restoring, behind, Progress::Restoring]);
        assert_eq!(both.as_deref(), Some("shards [0, 2] are not restored"));
    }
}
