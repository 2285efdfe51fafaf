//! L2: dead letters that came back count once.

use tidegate_core::{
    dead_letter::{DeadLetter, Reason},
    job::{JobSpec, OperatorSpec},
    shard::ShardState,
    time::{EventTime, Offset, Partition, Shard, Watermark},
};

use super::{Ledger, letters::misses};
use crate::{
    context::Replayed,
    oracle,
    topic::Record,
    violation::{ensure, violated},
};

impl Ledger {
    /// L2: what came back was a dead letter of the job, came back once, and expired only if nothing is kept for it.
    pub(super) fn take_replayed(
        &mut self,
        shard: Shard,
        before: &ShardState,
        after: &ShardState,
        replayed: &[Replayed],
    ) {
        let (mut applied, mut expired) = (0, 0);
        for replayed in replayed {
            let seen = || format!("shard {shard}: {replayed:?}");
            let (p, offset) = replayed.record;
            let record =
                self.topic.log(p).record(offset).filter(|r| r.home(self.scenario.job.shards) == shard);
            let Some(record) = record else { violated("L2: what comes back is of the shard", seen()) };
            let Some(letter) = self.letters.get(&replayed.record) else {
                violated("L2: what comes back was a dead letter", seen())
            };
            ensure(letter.replayed.is_none(), "L2: an entry counts once", seen);
            let is_kept = self.is_kept(record, &letter.letter, replayed.watermark);
            // Of sessions the ledger does not know which are kept.
            let sessions = matches!(self.scenario.job.operator, OperatorSpec::Sessions(_));
            let is_applied = replayed.applied.filter(|_| sessions).unwrap_or(is_kept);
            let right = replayed.applied.is_none_or(|applied| applied == is_applied);
            ensure(right && (is_applied || !is_kept), "L2: what has a window that is kept is applied", seen);
            *(if is_applied { &mut applied } else { &mut expired }) += 1;
            if let Some(letter) = self.letters.get_mut(&replayed.record) {
                letter.replayed = Some((replayed.watermark, is_applied));
            }
        }
        let counted = |state: &ShardState| state.answered().counts();
        let (then, now) = (counted(before), counted(after));
        ensure(
            (now.0 - then.0, now.1 - then.1) == (applied, expired),
            "L2: what was replayed is counted",
            || format!("shard {shard}: {then:?}, then {now:?}: {replayed:?}"),
        );
    }

    /// Whether a window of the record, of those that the letter is about, is kept at W_s.
    fn is_kept(&self, record: &Record, letter: &DeadLetter, watermark: Watermark) -> bool {
        let job = &self.scenario.job;
        match &job.operator {
            OperatorSpec::Windows(spec) => {
                let ends = oracle::window_ends(spec, record.time.0);
                let partial = letter.reason == Reason::LatePartial;
                let mut missed = ends.into_iter().filter(|end| !partial || misses(job, letter, *end));
                missed.any(|end| is_kept_at(job, end, watermark))
            }
            OperatorSpec::Sessions(spec) => {
                is_kept_at(job, oracle::session_end(spec, record.time.0), watermark)
            }
            OperatorSpec::Reorder | OperatorSpec::Sliding(_) => Some(record.time) >= watermark,
        }
    }

    /// Whether the record came back to its shard.
    pub fn is_replayed(&self, record: (Partition, Offset)) -> bool {
        self.letters.get(&record).is_some_and(|letter| letter.replayed.is_some())
    }
}

/// Whether a window that ends there is kept for replays at W_s.
pub(super) fn is_kept_at(job: &JobSpec, end: EventTime, watermark: Watermark) -> bool {
    let kept = job.allowed_lateness.0 + job.replay_ttl.0;
    watermark.is_none_or(|watermark| end.0 > watermark.0 - kept)
}
