//! What has come out at the end of directed schedules.

use tidegate_core::{
    coordinator::WatermarkConfig,
    job::{OnQuiet, WatermarkStrategy},
    time::{Shard, Span},
};

use super::{count, holds, world};
use crate::{
    dice::Dice,
    mutation::Mutation,
    runner,
    scenario::{Scenario, reordering},
    world::World,
};

#[test]
fn a_payload_that_is_lacking_is_asked_for() {
    let scenario = || {
        let mut scenario = Scenario { exact: false, bare: true, ..Scenario::plain() };
        let mut job = (*scenario.job).clone();
        job.watermark.strategy = WatermarkStrategy::Bounded { delay: Span(0) };
        scenario.job = job.into();
        scenario
    };
    let mut asked = 0;
    for seed in 0..20 {
        let outcome = runner::run(world(scenario(), seed));
        holds(&outcome);
        asked += count(&outcome, "payloads asked for");
    }
    assert!(asked > 20, "late records without payload were to be seen, and {asked} were");
}

#[test]
fn when_all_are_idle_the_watermark_is_the_largest() {
    for seed in 0..20 {
        let mut world = world(Scenario::plain(), seed);
        world.run();
        let (topic, ledger) = (&world.ctx.topic, &world.ctx.ledger);
        let largest =
            topic.records().filter(|record| record.rejected.is_none()).map(|record| record.time).max();
        for shard in (0..4).map(Shard) {
            let expected = largest.map(|largest| largest.minus(Span(20)));
            assert_eq!(ledger.state(shard).watermark(), expected, "seed {seed}, shard {shard}");
        }
    }
}

/// Every record leaves in order, in many small commits, with rows in runs and faults at every commit.
#[test]
fn reordering_resumes_where_the_last_commit_ended() {
    let scenario = |dice: &mut Dice| {
        let mut scenario = Scenario { exact: false, memory: Some(700), backlog: true, ..Scenario::plain() };
        let mut job = reordering((*scenario.job).clone());
        job.watermark.on_quiet = OnQuiet::Finish;
        scenario.watermark = WatermarkConfig { report_interval_ms: 100, ..WatermarkConfig::of(&job) };
        scenario.job = job.into();
        scenario.limits.commit_bytes = 900;
        scenario.limits.chunk_bytes = *dice.pick(&[1, 200]);
        scenario.faults.commit_answer_lost = 100;
        scenario
    };
    let mut resumed = 0;
    for seed in 0..30 {
        let mut dice = Dice::new(seed);
        let outcome = runner::run(world(scenario(&mut dice), seed));
        holds(&outcome);
        assert!(count(&outcome, "reordered") > 0, "seed {seed}: {:?}", outcome.census);
        resumed += count(&outcome, "closings over several commits");
    }
    assert!(resumed > 100, "{resumed} closings went over several commits");
    let forgotten = |seed| {
        let mut dice = Dice::new(seed);
        let world =
            World::of(scenario(&mut dice), Dice::new(seed), Some(Mutation::ClosingsAreForgotten), true);
        runner::run(world).violation.is_some()
    };
    assert!((0..30).any(forgotten), "without the resume key it shows");
}

#[test]
fn a_finished_job_has_every_window_out() {
    let mut scenario = Scenario::plain();
    let mut job = (*scenario.job).clone();
    job.watermark.on_quiet = OnQuiet::Finish;
    scenario.watermark.on_quiet = OnQuiet::Finish;
    scenario.job = job.into();
    let outcome = runner::run(world(scenario, 1));
    holds(&outcome);
    assert!(count(&outcome, "raises") >= 3, "every idle partition is raised by its reader");
}
