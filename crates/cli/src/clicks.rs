//! The generated clicks stream: what a badly ordered topic looks like.
//!
//! Users click; producers batch and retry, so records are up to 2 s out of order. One producer's clock jumps ten minutes ahead
//! now and then. A few records come some seconds late, a few half a minute. The last partition gets one record and then falls silent.

use rand::{Rng, SeedableRng, rngs::SmallRng};

/// Every so many records one comes from the clock that jumps ahead.
const JUMP_EVERY: u64 = 5_000;
/// Every so many records one is some seconds late: a correction.
const BEHIND_EVERY: u64 = 150;
/// Every so many records one is half a minute late: a dead letter.
const LATE_EVERY: u64 = 400;
/// Records are out of order by up to this.
const DISORDER_MS: i64 = 2_000;

/// One generated record.
#[derive(Debug)]
pub(crate) struct Click {
    /// Its partition.
    pub(crate) partition: u32,
    /// Its event time, ms.
    pub(crate) time: i64,
    /// Its JSON.
    pub(crate) value: String,
}

/// What the stream is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClicksSpec {
    /// Partitions of the topic.
    pub(crate) partitions: u32,
    /// Users, which are the group keys.
    pub(crate) users: u32,
    /// Whether producers misbehave as the module says; without, event times only differ within the disorder.
    pub(crate) trouble: bool,
    /// The seed of chance.
    pub(crate) seed: u64,
}

impl ClicksSpec {
    /// The stream of the demo.
    #[must_use]
    pub(crate) const fn demo(partitions: u32) -> Self {
        Self { partitions, users: 100, trouble: true, seed: 1 }
    }
}

/// Generates clicks.
#[derive(Debug)]
pub(crate) struct Clicks {
    spec: ClicksSpec,
    chance: SmallRng,
    made: u64,
}

impl Clicks {
    /// The stream of `spec`.
    #[must_use]
    pub(crate) fn new(spec: ClicksSpec) -> Self {
        Self { spec, chance: SmallRng::seed_from_u64(spec.seed), made: 0 }
    }

    /// The next click, made while the time is `now_ms`.
    pub(crate) fn next(&mut self, now_ms: i64) -> Click {
        self.made += 1;
        let made = self.made;
        let user = self.chance.random_range(0..self.spec.users);
        let cents = self.chance.random_range(1..10_000);
        let mut time = now_ms - self.chance.random_range(0..DISORDER_MS);
        if self.spec.trouble && made.is_multiple_of(JUMP_EVERY) {
            time = now_ms + 600_000;
        } else if self.spec.trouble && made.is_multiple_of(LATE_EVERY) {
            time = now_ms - self.chance.random_range(30_000..40_000);
        } else if self.spec.trouble && made.is_multiple_of(BEHIND_EVERY) {
            time = now_ms - self.chance.random_range(4_000..7_000);
        }
        let partition = self.partition(user);
        let value = format!(
            "{{\"user\":\"user-{user}\",\"ts\":{time},\"amount\":{}.{:02},\"page\":\"/shop/item/{}\",\"session\":\"{:016x}\",\"agent\":\"mobile\"}}",
            cents / 100,
            cents % 100,
            self.chance.random_range(0..1_000),
            self.chance.random::<u64>(),
        );
        Click { partition, time, value }
    }

    fn partition(&self, user: u32) -> u32 {
        let last = self.spec.partitions.saturating_sub(1);
        if !self.spec.trouble || last == 0 {
            return user % self.spec.partitions.max(1);
        }
        if self.made == 1 { last } else { user % last }
    }
}
