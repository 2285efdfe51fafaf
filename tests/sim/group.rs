//! The consumer group of the ingests: who reads which partition, and what members believe of it.

use std::collections::BTreeMap;

use tidegate_core::time::Partition;

use crate::context::{Context, Event};

#[derive(Debug, Default)]
pub struct Group {
    generation: u64,
    members: BTreeMap<u64, Member>,
}

#[derive(Debug, Default)]
struct Member {
    partitions: Vec<Partition>,
    /// The group takes it for dead until then: it is told nothing, and goes on as before.
    expelled_until: u64,
    /// When it hears the last word on its way to it.
    told: u64,
}

impl Group {
    pub fn join(&mut self, ingest: u64) {
        self.members.insert(ingest, Member::default());
    }

    pub fn leave(&mut self, ingest: u64) {
        self.members.remove(&ingest);
    }

    pub fn expel(&mut self, ingest: u64, until: u64) {
        if let Some(member) = self.members.get_mut(&ingest) {
            member.expelled_until = until;
        }
    }

    pub fn heal(&mut self, ingests: impl Iterator<Item = u64>) {
        self.members.values_mut().for_each(|member| member.expelled_until = 0);
        debug_assert!(
            ingests.into_iter().all(|ingest| self.members.contains_key(&ingest)),
            "all live ones are members"
        );
    }

    /// Gives every partition to a member: to the one that had it, where the counts allow; `recreated` begins at generation 1.
    pub fn rebalance(&mut self, recreated: bool, ctx: &mut Context) {
        self.generation = if recreated { 1 } else { self.generation + 1 };
        let (now, generation) = (ctx.now, self.generation);
        let count = ctx.topic.visible(now);
        let mut present: Vec<_> = self.members.iter_mut().filter(|(_, m)| m.expelled_until <= now).collect();
        if present.is_empty() {
            return;
        }
        let fair = (count as usize).div_ceil(present.len());
        let mut free: Vec<_> = (0..count).map(Partition).collect();
        for (_, member) in &mut present {
            member.partitions.truncate(fair);
            free.retain(|partition| !member.partitions.contains(partition));
        }
        for partition in free {
            if let Some((_, member)) = present.iter_mut().min_by_key(|(_, member)| member.partitions.len()) {
                member.partitions.push(partition);
            }
        }
        for (ingest, member) in present {
            let delay = if ctx.dice.chance(300) { ctx.dice.within(0, 300) } else { ctx.latency() };
            member.told = member.told.max(now + delay);
            let event =
                Event::Assigned { ingest: *ingest, generation, partitions: member.partitions.clone() };
            ctx.after(member.told - now, event);
        }
    }
}
