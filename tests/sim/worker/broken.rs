//! What a worker does where a rule is broken on purpose.

use tidegate_core::{
    announcement::{Announcement, Term},
    frame::ShardFrame,
    shard::ShardMachine,
    time::Offset,
};

use crate::{context::Context, mutation::Mutation};

/// The announcement as a broken rule would have it.
pub(super) fn mutated(announcement: &Announcement, ctx: &Context) -> Announcement {
    let mut announcement = announcement.clone();
    if ctx.is_mutated(Mutation::ExclusionWithoutPosition) {
        announcement.excluded.iter_mut().for_each(|(_, at)| *at = Offset(0));
    }
    if ctx.is_mutated(Mutation::IdleBeyondTheEnd) {
        announcement.excluded.iter_mut().for_each(|(_, at)| *at = at.next());
    }
    if ctx.is_mutated(Mutation::TermsAreIgnored) {
        announcement.term = Term(0);
    }
    announcement
}

/// Moves a frame's beginning so that nothing seems to be missing.
pub(super) fn cover_gap(machine: &ShardMachine, frame: &mut ShardFrame) {
    let next = machine.input(frame.partition).next;
    if frame.from > next {
        let gap = (frame.from.0 - next.0) as u32;
        frame.rows.offsets.iter_mut().for_each(|delta| *delta += gap);
        frame.rows.rejects.iter_mut().for_each(|reject| reject.offset_delta += gap);
        frame.from = next;
    }
}

/// Moves a frame that was covered behind what was covered.
pub(super) fn renew(machine: &ShardMachine, frame: &mut ShardFrame) {
    let next = machine.input(frame.partition).next;
    if frame.from < next && !frame.rows.is_empty() {
        frame.to = Offset(next.0 + (frame.to.0 - frame.from.0));
        frame.from = next;
    }
}
