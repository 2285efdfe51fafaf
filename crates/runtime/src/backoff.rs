//! How long to wait before the next try: doubling, capped, and spread so that many clients do not come back at once.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The delays of one thing that is tried again and again: each in the upper half of `first × 2ⁿ`, at most `cap`.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    cap: Duration,
    failures: u32,
    state: u64,
}

impl Default for Backoff {
    /// From 100 ms to 5 s.
    fn default() -> Self {
        Self::new(Duration::from_millis(100), Duration::from_secs(5))
    }
}

impl Backoff {
    /// Delays from `first` to `cap`, spread by chance.
    #[must_use]
    pub fn new(first: Duration, cap: Duration) -> Self {
        Self::seeded(first, cap, RandomState::new().hash_one(0_u64))
    }

    /// Delays from `first` to `cap`, the same for the same seed.
    #[must_use]
    pub const fn seeded(first: Duration, cap: Duration, seed: u64) -> Self {
        Self { first, cap, failures: 0, state: seed }
    }

    /// The delay after one more failure.
    pub fn next_delay(&mut self) -> Duration {
        let factor = 1_u32.checked_shl(self.failures).unwrap_or(u32::MAX);
        self.failures = self.failures.saturating_add(1);
        let full = self.first.saturating_mul(factor).min(self.cap);
        let half = full / 2;
        half + half.mul_f64(self.chance())
    }

    /// A success: the next delay is the first again.
    pub const fn reset(&mut self) {
        self.failures = 0;
    }

    /// In `[0, 1)`, by splitmix64.
    fn chance(&mut self) -> f64 {
        self.state = self.state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut bits = self.state;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        bits ^= bits >> 31;
        (bits >> 11) as f64 / (1_u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FIRST: Duration = Duration::from_millis(100);
    const CAP: Duration = Duration::from_secs(5);

    #[test]
    fn delays_double_up_to_the_cap_and_start_over_after_a_success() {
        let mut backoff = Backoff::seeded(FIRST, CAP, 7);
        for expected in [100, 200, 400, 800, 1600, 3200, 5000, 5000] {
            let full = Duration::from_millis(expected);
            let delay = backoff.next_delay();
            assert!(full / 2 <= delay && delay <= full, "{delay:?} of {full:?}");
        }
        for _ in 0..100 {
            assert!(backoff.next_delay() <= CAP);
        }
        backoff.reset();
        assert!(backoff.next_delay() <= FIRST);
    }

    #[test]
    fn delays_are_spread_by_the_seed() {
        let firsts: std::collections::BTreeSet<_> =
            (0..100).map(|seed| Backoff::seeded(FIRST, CAP, seed).next_delay()).collect();
        assert!(firsts.len() > 90, "{firsts:?}");
        assert!(firsts.iter().any(|delay| *delay < FIRST.mul_f64(0.6)));
        assert!(firsts.iter().any(|delay| *delay > FIRST.mul_f64(0.9)));
    }
}
