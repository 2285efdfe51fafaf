//! Workers that are down, stuck, or lose their streams: the others go on.

use tidegate_core::{
    credit::Terms,
    time::{Offset, Partition, Shard},
};

use super::{count, holds, world};
use crate::{
    context::{Process, Role},
    dice::Dice,
    mutation::Mutation,
    runner,
    scenario::Scenario,
    topic::Log,
    world::World,
};

#[test]
fn while_a_worker_is_down_the_other_shards_go_on() {
    let mut scenario = Scenario::plain();
    scenario.assignment.return_timeout_ms = 60_000;
    let mut world = world(scenario, 3);
    world.run_until(1_000);
    let lost = *world.workers.keys().next().unwrap();
    let shards: Vec<Shard> = world.workers[&lost].shards.keys().copied().collect();
    assert_eq!(shards.len(), 2, "two workers share four shards");
    let name = world.workers[&lost].name.clone();
    world.stop_worker(lost);
    world.run_until(3_000);
    for shard in (0..4).map(Shard) {
        for (partition, log) in (0..).map(Partition).zip(&world.ctx.topic.partitions) {
            let next = world.ctx.ledger.state(shard).inputs()[partition.0 as usize].next;
            let (before, after) = (log.stable(1_000), log.stable(2_500));
            if shards.contains(&shard) {
                assert!(next <= before, "shard {shard} waits for its owner's return");
            } else {
                assert!(next >= after, "shard {shard} is at {next} of partition {partition}, not {after}");
            }
        }
    }
    world.start(Role::Worker(name));
    world.run();
    let caught_up = world.ctx.census["catch-up readings"];
    assert!(caught_up >= 3, "the returned shards catch up in every partition: {caught_up}");
}

/// The streams to a worker that applies nothing break again and again; each brings its own credit.
#[test]
fn what_waits_of_an_ended_stream_goes() {
    let flapping = |mutation| {
        let mut scenario = Scenario { backlog: true, batch: 1, ..Scenario::plain() };
        scenario.credit = Terms { window: 600, ..scenario.credit };
        let mut world = World::of(scenario, Dice::new(5), mutation, true);
        world.run_until(150);
        for time in (200..2_000).step_by(60) {
            world.workers.values_mut().for_each(|worker| worker.slow_until = 2_000);
            let feeds = |ends: &[Process; 2]| matches!(ends, [Process::Ingest(_), Process::Worker(_)]);
            let links = world.ctx.links.iter().filter(|(_, link)| feeds(&link.ends));
            let links: Vec<_> = links.map(|(id, _)| *id).collect();
            links.into_iter().for_each(|link| world.ctx.break_link(link));
            world.run_until(time);
        }
        runner::run(world)
    };
    let outcome = flapping(None);
    holds(&outcome);
    assert!(count(&outcome, "frames of ended streams") > 20, "{:?}", outcome.census);
    let broken = std::panic::catch_unwind(|| flapping(Some(Mutation::EndedStreamsWait)).violation);
    let violation = broken.unwrap_or_else(|payload| Some(runner::as_violation(payload)));
    assert!(violation.is_some_and(|seen| seen.invariant.starts_with("I7")), "what waits adds up");
}

/// One of two workers is stuck for two seconds. Gives the world at the end of them, the shards of the stuck one,
/// and whether those of the other one were held up.
fn beside_a_stuck_worker(credit: Terms, mutation: Option<Mutation>) -> (World, Vec<Shard>, bool) {
    let mut world = World::of(Scenario { credit, ..Scenario::plain() }, Dice::new(3), mutation, true);
    world.run_until(1_000);
    let (_, slow) = world.workers.iter_mut().next().unwrap();
    slow.slow_until = 3_000;
    let shards: Vec<Shard> = slow.shards.keys().copied().collect();
    assert_eq!(shards.len(), 2, "two workers share four shards");
    world.run_until(2_900);
    let others = (0..4).map(Shard).filter(|shard| !shards.contains(shard));
    let behind =
        others.flat_map(|shard| positions(&world, shard)).any(|(next, log)| next < log.stable(2_500));
    (world, shards, behind)
}

/// Where a shard is in each partition, and the partition.
fn positions(world: &World, shard: Shard) -> Vec<(Offset, &Log)> {
    let inputs = world.ctx.ledger.state(shard).inputs();
    inputs.iter().map(|input| input.next).zip(&world.ctx.topic.partitions).collect()
}

fn catches_up(mut world: World) {
    world.run();
    let caught_up = world.ctx.census["catch-up readings"];
    assert!(caught_up >= 2, "the shards that were slow catch up where records came meanwhile: {caught_up}");
}

/// A worker that is connected, answers, and applies nothing: the shards of the other one go on, and it catches up later.
#[test]
fn a_stuck_worker_does_not_hold_the_others() {
    let terms = Terms { patience: 100, ..Terms::of_window(600) };
    let (world, shards, held_up) = beside_a_stuck_worker(terms, None);
    assert!(!held_up);
    for (next, log) in shards.iter().flat_map(|shard| positions(&world, *shard)) {
        assert!(next <= log.stable(1_100), "a shard is stuck, and yet at {next}");
    }
    assert_eq!(world.ctx.census["workers parked"], 1);
    catches_up(world);
    assert!(beside_a_stuck_worker(terms, Some(Mutation::NobodyIsParked)).2);
}
