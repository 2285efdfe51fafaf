//! What catches up waits for the shards that it feeds.

use tidegate_core::time::Span;

use crate::{context::Role, dice::Dice, mutation::Mutation, scenario::Scenario, world::World};

/// A worker is away for two seconds, and the first partition is slow to catch up. Gives how far what catches up in the others
/// was above the shards that it feeds, at most.
fn furthest_catch_up(mutation: Option<Mutation>) -> (i64, World) {
    let mut scenario = Scenario { batch: 1, slow_catch_up: 40, ..Scenario::plain() };
    scenario.assignment.return_timeout_ms = 60_000;
    (scenario.watermark.max_drift, scenario.timing.max_drift) = (Some(DRIFT), Some(DRIFT));
    let mut world = World::of(scenario, Dice::new(3), mutation, true);
    world.run_until(600);
    let lost = *world.workers.keys().next().unwrap();
    let name = world.workers[&lost].name.clone();
    world.stop_worker(lost);
    world.run_until(2_600);
    world.start(Role::Worker(name));
    let mut furthest = 0;
    for time in (2_610..4_600).step_by(10) {
        world.run_until(time);
        let readings = world.ingests.values().flat_map(|ingest| ingest.partitions.values());
        for lane in readings.filter_map(|reading| reading.source.catch_up()) {
            for shard in lane.shards() {
                let reached = world.ctx.ledger.state(shard).watermark();
                let ahead =
                    lane.tracker().watermark().zip(reached).map(|(read, reached)| read.since(reached).0);
                furthest = furthest.max(ahead.unwrap_or_default());
            }
        }
    }
    (furthest, world)
}

const DRIFT: Span = Span(200);

#[test]
fn what_catches_up_waits_for_its_shards() {
    let (furthest, mut world) = furthest_catch_up(None);
    assert!(furthest < 2 * DRIFT.0, "it was {furthest} ms ahead");
    world.run();
    assert!(world.ctx.census["catch-up readings that waited"] > 0);
    let (furthest, _) = furthest_catch_up(Some(Mutation::CatchUpRunsAhead));
    assert!(furthest > 4 * DRIFT.0, "without the rule it would have been far ahead, and not {furthest} ms");
}
