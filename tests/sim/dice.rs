//! Chance, all of it from one seed.

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// The only source of chance of a run: what it gives depends on the seed and the order of the calls alone.
#[derive(Debug)]
pub struct Dice(SmallRng);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A number in `[from, to]`.
    pub fn within(&mut self, from: u64, to: u64) -> u64 {
        self.0.random_range(from..=to.max(from))
    }

    /// A number in `[from, to]`.
    pub fn signed(&mut self, from: i64, to: i64) -> i64 {
        self.0.random_range(from..=to.max(from))
    }

    /// True with `per_mille` out of a thousand.
    pub fn chance(&mut self, per_mille: u64) -> bool {
        per_mille > 0 && self.within(1, 1_000) <= per_mille
    }

    pub fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.within(0, of.len() as u64 - 1) as usize]
    }

    /// Any 64 bits but zero.
    pub fn bits(&mut self) -> u64 {
        self.within(1, u64::MAX)
    }
}
