//! Owners that come and go: a shard has one, and what it has committed is all there is.

use tidegate_core::time::Shard;

use super::{count, holds, world};
use crate::{
    context::{Event, Role},
    runner,
    scenario::{FaultKind, Faults, Scenario},
};

#[test]
fn a_coordinator_restart_moves_no_shard() {
    let moved = |grace_ms: u64, seed| {
        let mut scenario = Scenario::plain();
        (scenario.assignment.grace_ms, scenario.assignment.settle_ms) = (grace_ms, grace_ms.min(50));
        let mut world = world(scenario, seed);
        world.run_until(1_000);
        let first = *world.coordinators.keys().next().unwrap();
        world.stop_coordinator(first);
        world.run_until(1_500);
        world.start(Role::Coordinator);
        world.run();
        (0..4).map(Shard).filter(|shard| world.ctx.ledger.owners(*shard) > 1).count()
    };
    for seed in 0..10 {
        assert_eq!(moved(200, seed), 0, "seed {seed}: every shard kept its owner");
    }
    assert!((0..10).any(|seed| moved(0, seed) > 0), "without the grace period some would have moved");
}

/// A worker that the coordinator has given up goes on until it is fenced, and the chain stays one.
#[test]
fn a_zombie_ends() {
    let mut fenced = 0;
    for seed in 0..20 {
        let faults = Faults { count: 4, kinds: vec![FaultKind::CutWorkerOff], ..Faults::default() };
        let outcome = runner::run(world(Scenario { faults, chaos_until: 3_000, ..Scenario::plain() }, seed));
        holds(&outcome);
        let count = count(&outcome, "commits fenced");
        assert!(count <= 4 * 4, "seed {seed}: a contest for a shard ends, and {count} commits were fenced");
        fenced += count;
    }
    assert!(fenced > 10, "zombies were to commit, and {fenced} tried");
}

#[test]
fn two_readers_of_a_partition_are_harmless() {
    let mut known = 0;
    for seed in 0..20 {
        let faults = Faults { count: 4, kinds: vec![FaultKind::CutIngestOff], ..Faults::default() };
        let scenario = Scenario { faults, ingests: 2, chaos_until: 3_000, ..Scenario::plain() };
        let outcome = runner::run(world(scenario, seed));
        holds(&outcome);
        known += count(&outcome, "records dropped as known");
    }
    assert!(known > 20, "records were to come twice, and {known} did");
}

#[test]
fn a_commit_that_arrives_after_its_owner_is_gone_is_fenced() {
    let mut fenced = 0;
    for seed in 0..20 {
        let kinds = vec![FaultKind::CrashWorker];
        let faults = Faults { count: 6, kinds, commit_delayed: 500, ..Faults::default() };
        let outcome = runner::run(world(Scenario { faults, chaos_until: 3_000, ..Scenario::plain() }, seed));
        holds(&outcome);
        fenced += count(&outcome, "commits fenced");
    }
    assert!(fenced > 20, "late commits were to arrive, and {fenced} did");
}

/// A crash of everything at once, several times: what is committed is all there is.
#[test]
fn nothing_is_lost_when_every_process_dies_at_once() {
    for seed in 0..20 {
        let mut world = world(Scenario::plain(), seed);
        for time in [700, 1_400, 2_100] {
            world.run_until(time);
            let (ingests, workers): (Vec<_>, Vec<_>) =
                (world.ingests.keys().copied().collect(), world.workers.keys().copied().collect());
            let coordinators: Vec<_> = world.coordinators.keys().copied().collect();
            ingests.into_iter().for_each(|id| world.stop_ingest(id));
            coordinators.into_iter().for_each(|id| world.stop_coordinator(id));
            for id in workers {
                let name = world.workers[&id].name.clone();
                world.stop_worker(id);
                world.ctx.after(50, Event::Start(Role::Worker(name)));
            }
            world.start(Role::Coordinator);
            world.start(Role::Ingest);
        }
        holds(&runner::run(world));
    }
}
