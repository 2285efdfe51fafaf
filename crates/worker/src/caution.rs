//! How carefully a shard commits after commits that failed (design §5: halve the commit bound, back off).

use std::time::Duration;

use tidegate_core::time::Tick;

/// After this long without a failure, in ms, a failure is the first again.
const FORGET: u64 = 60_000;
/// Commits are halved at most this often: 8 MiB become 256 KiB.
const MAX_HALVINGS: u32 = 5;
const FIRST_DELAY: Duration = Duration::from_millis(50);
const MAX_DELAY: Duration = Duration::from_secs(10);

/// The failures of a shard's commits in a row; travels with the shard from one owner task of the process to the next.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Caution {
    failures: u32,
    last: Tick,
}

impl Caution {
    /// A commit failed.
    pub(crate) fn failed(&mut self, now: Tick) {
        self.failures = if now.since(self.last) > FORGET { 1 } else { self.failures.saturating_add(1) };
        self.last = now;
    }

    /// How long to wait before the shard is restored.
    pub(crate) fn delay(&self) -> Duration {
        match self.failures {
            0 => Duration::ZERO,
            failures => FIRST_DELAY.saturating_mul(1 << failures.min(16)).min(MAX_DELAY),
        }
    }

    /// How large a commit may be where it is `bytes` without failures.
    pub(crate) fn bound(&self, bytes: usize) -> usize {
        bytes >> self.failures.min(MAX_HALVINGS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_in_a_row_halve_commits_and_double_the_wait_until_they_are_long_ago() {
        let mut caution = Caution::default();
        assert_eq!((caution.delay(), caution.bound(8 << 20)), (Duration::ZERO, 8 << 20));
        caution.failed(Tick(1_000));
        assert_eq!((caution.delay(), caution.bound(8 << 20)), (Duration::from_millis(100), 4 << 20));
        for second in 2..30 {
            caution.failed(Tick(second * 1_000));
        }
        assert_eq!((caution.delay(), caution.bound(8 << 20)), (Duration::from_secs(10), 256 << 10));
        caution.failed(Tick(200_000));
        assert_eq!((caution.delay(), caution.bound(8 << 20)), (Duration::from_millis(100), 4 << 20));
    }
}
