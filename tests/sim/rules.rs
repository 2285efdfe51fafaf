//! A test for each ◆ rule of the design that is built: either the rule is broken on purpose, in the shells around the core or in
//! what they pass on, and the simulation has to see it; or a directed schedule shows what the rule is for; or, where the rule is
//! one of I/O, the test that has the I/O.
//!
//! | § | rule | test |
//! |---|---|---|
//! | 1 | one number for `to`, idle position and end | `a_frames_end_the_idle_position_and_the_end_are_one_number` |
//! | 1 | an expired reader epoch is forgotten | `a_recreated_group_is_accepted` |
//! | 1 | genesis block | `a_log_without_its_beginning_is_an_error` |
//! | 2 | another job or job file is refused | worker `another_job_or_job_file_is_refused`, coordinator `peers_of_another_job_file_are_refused` |
//! | 3.2 | which payloads travel unasked, `maybe_excluded` among them | core `a_payload_travels_where_it_may_be_needed`: without it results stay right, and more is asked for |
//! | 3.2 | a payload that is lacking is asked for | `a_payload_that_is_lacking_is_asked_for`, `a_session_that_is_asked_for_its_payloads_brings_them` |
//! | 3.2 | frames without rows go on change | `frames_without_rows_travel` |
//! | 3.2 | only shards write dead letters | `rejects_travel_to_their_shard` |
//! | 3.3 | a gap is refused, a nack opens a session | `a_refused_session_is_opened_anew`, `a_gap_is_never_covered` |
//! | 3.3 | what is below the position is dropped | `what_is_covered_is_dropped` |
//! | 3.3 | a session covers its shards as long as it lives | core `a_session_that_loses_a_shard_goes_on_under_a_new_number` |
//! | 3.3 | what is kept is bounded by the credit window, over streams that break too | `what_waits_of_an_ended_stream_goes` |
//! | 3.4 | heartbeat | `positions_alone_are_committed_too` |
//! | 3.4 | at most once per interval | `commits_are_paced`, core `pacing` |
//! | 3.4 | bounded commits, the resume key in the delta | `a_commit_is_bounded`, `a_closing_resumes_where_the_last_commit_ended` |
//! | 3.4 | what ended before X is gone, in that order | `what_is_gone_is_in_the_delta`, `rebuild = owner` at every commit of every seed |
//! | 3.4 | chunks, sizes of outputs | every seed cuts blocks; log `transaction`, worker `a_result_too_large_for_its_topic_…` |
//! | 3.5 | rolling snapshot | `a_log_is_cut_only_before_a_whole_snapshot`, `a_log_is_cut` |
//! | 3.6 | the group's offset is the least of all shards | core `the_group_offset_is_the_least_of_all_shards` |
//! | 3.6 | identity of the local store | `a_store_off_the_chain_is_not_believed`, `a_store_ahead_of_the_log_is_said` |
//! | 3.7 | a shard's outputs go to one partition | worker `render::tests`: readers of one broker are no part of the simulation |
//! | 4 | W_s needs the in-band watermark | `an_announcement_alone_closes_nothing` |
//! | 4 | an excluded partition counts below its idle position | `an_excluded_partition_counts_below_its_idle_position` |
//! | 4 | partitions come from the metadata, new ones hold W | `new_partitions_hold_the_watermark` |
//! | 4 | unowned and expired ones hold W; highest epoch wins | `unowned_partitions_hold_the_watermark`, core `coordinator::tests`; `a_recreated_group_is_accepted` |
//! | 4 | highest term wins | `the_highest_term_wins` |
//! | 4 | idle is proven | `idleness_is_proven`, core `source::tests` |
//! | 4 | an open source transaction is lagging | `an_open_transaction_is_not_the_end` |
//! | 4 | the last to go idle: W is the largest | `when_all_are_idle_the_watermark_is_the_largest` |
//! | 4 | quiet goes through ingest, behind the records | `a_finished_job_has_every_window_out`; core `source::tests` |
//! | 4 | a tracker in mid-stream is seeded | `a_reader_in_mid_stream_is_seeded` |
//! | 4 | blocked is not idle | core `a_held_partition_is_blocked_and_its_timer_starts_anew`: at its end a held partition is idle all the same, so that nothing breaks |
//! | 4 | a raise is for the position at which the partition is idle | core `a_raise_is_for_an_idle_partition_at_its_position_and_goes_behind_its_records` |
//! | 4 | what W waits for is never paused | `what_the_watermark_waits_for_is_not_paused`, `a_pause_is_lifted` |
//! | 4 | what catches up waits for the shards that it feeds, but for the slowest | `what_catches_up_waits_for_its_shards`, `what_catches_up_is_read_on`, `what_a_shard_waits_for_is_read_on` |
//! | 4 | a pause only for what N records agree on | core `coordinator::tests`, `tracker::tests` |
//! | 5 | ownership is the transactional id | `an_older_owner_is_fenced`, `a_zombie_ends` |
//! | 5 | a fenced owner drops the shard, and never takes it back by itself | worker `a_zombie_is_fenced_and_drops_the_shard`: broken, owners fence each other for a while, and results stay right |
//! | 5 | an owner that reads a later assignment stands down | core `a_newer_assignment_in_the_log_makes_an_owner_stand_down`: broken, the same |
//! | 5 | fenced while still the owner: smaller commits, further apart | worker `caution::tests`, `a_producer_that_is_fenced_while_its_worker_owns_the_shard_is_replaced` |
//! | 5 | a lost worker's shards are fenced at once | coordinator `a_lost_workers_shards_are_fenced_and_come_back_to_it`: the new owner fences too, so that only readers notice |
//! | 5 | the new reader starts at the maximum | core `reading_starts_at_the_maximum_once_all_shards_are_known_and_the_rest_catch_up`: starting lower only reads twice |
//! | 5 | topics are created and verified | coordinator `starting` |
//! | 5 | a source that was cut, or is another one | e2e `broker` |
//! | 5 | read to the end after the fence | `a_restore_reads_to_the_end` |
//! | 5 | an outcome is never inferred | `an_unknown_outcome_is_read_from_the_log` |
//! | 5 | worker down: the others go on | `while_a_worker_is_down_the_other_shards_go_on` |
//! | 5 | no credit for a while demotes, not when the commits stall | `a_stuck_worker_does_not_hold_the_others`, `a_parked_worker_is_asked_again`, core `credit::tests` |
//! | 5 | catch-up ends exactly where the main reading is | core `a_catch_up_joins_at_exactly_the_position_of_the_main_lane` |
//! | 5 | two readers of a partition are harmless | `two_readers_of_a_partition_are_harmless` |
//! | 5 | a restarted coordinator waits a grace period and moves nothing | `a_coordinator_restart_moves_no_shard` |
//! | 7 | aggregates are deterministic | every seed: each result equals the batch, whatever the interleaving |
//! | 7 | hopping: `late_partial` | every seed, counted in `runner::EXERCISED` |
//! | 7 | a session record is merged first, then judged | core `a_record_is_merged_before_it_is_judged_and_what_has_no_session_left_is_a_dead_letter` |
//! | 7 | merging away an emitted session retracts it, in the same commit | `what_was_merged_away_is_retracted`, core `folded_results_equal_the_batch` |
//! | 7 | early results: as of their commit, none after the final one, none left of a session that is no more | every seed with such a job |
//! | 7 | reorder: purged by X, never deleted by name; resumed where it stopped | `what_is_gone_is_in_the_delta`, `reordering_resumes_where_the_last_commit_ended` |
//! | 7 | a replayed entry counts once, is answered for once committed, and never becomes a dead letter | `an_entry_is_known_however_often_it_is_asked_for`, `an_entry_is_answered_for_once_that_is_committed`, `what_a_request_leaves_out_may_be_asked_for`; a dead letter comes once: every seed |
//! | 7 | sliding: each result is that of the definition, ties included, whatever was restored | every seed with such a job |
//!
//! Not built, so without a test: the shard's own frames after a rollback (§3.3: it restores, and gets new sessions, decision
//! 0003).

use crate::{
    changelog::JOB,
    context::{Event, Process, Role},
    dice::Dice,
    mutation::Mutation,
    runner::{self, Outcome},
    scenario::{FaultKind, Faults, Scenario, reordering},
    store::{Found, restore},
    topic::Log,
    world::World,
};
use tidegate_core::{
    block::Block,
    coordinator::WatermarkConfig,
    credit::Terms,
    job::{OnQuiet, WatermarkStrategy, WindowSpec},
    shard::{RestoreError, ShardState},
    time::{EventTime, Offset, Partition, Shard, Span},
};

/// Within this many seeds a broken rule has to show.
const SOUGHT: u64 = 6_000;

/// Breaks a rule and looks for a seed that violates one of `invariants`, and that holds with the rule.
fn shows(mutation: Mutation, invariants: &[&str]) {
    for seed in 0..SOUGHT {
        let Some(violation) = runner::run_seed(seed, Some(mutation), false).violation else { continue };
        let expected = invariants.iter().any(|invariant| violation.invariant.starts_with(invariant));
        assert!(expected, "seed {seed} with {mutation:?}: {violation}");
        let held = runner::run_seed(seed, None, false).violation;
        assert_eq!(held, None, "seed {seed} fails with the rule too");
        return;
    }
    panic!("{SOUGHT} seeds do not show that {mutation:?} is wrong");
}

fn holds(outcome: &Outcome) {
    assert_eq!(outcome.violation, None, "{:#?}", outcome.shown);
}

fn count(outcome: &Outcome, what: &str) -> u64 {
    outcome.census.get(what).copied().unwrap_or(0)
}

fn world(scenario: Scenario, seed: u64) -> World {
    World::of(scenario, Dice::new(seed), None, true)
}

#[test]
fn an_announcement_alone_closes_nothing() {
    shows(Mutation::AnnouncementsAlone, &["I3", "I4"]);
}

#[test]
fn an_excluded_partition_counts_below_its_idle_position() {
    shows(Mutation::ExclusionWithoutPosition, &["I3", "I4"]);
}

#[test]
fn a_frames_end_the_idle_position_and_the_end_are_one_number() {
    shows(Mutation::IdleBeyondTheEnd, &["quiescence"]);
}

#[test]
fn idleness_is_proven() {
    shows(Mutation::IdleWithoutProof, &["I3", "I4"]);
}

#[test]
fn an_open_transaction_is_not_the_end() {
    shows(Mutation::OpenTransactionsAreTheEnd, &["I3", "I4"]);
}

#[test]
fn new_partitions_hold_the_watermark() {
    shows(Mutation::PartitionsFromReports, &["I3", "I4"]);
}

#[test]
fn a_reader_in_mid_stream_is_seeded() {
    shows(Mutation::SeedsAreLost, &["quiescence"]);
}

#[test]
fn a_pause_is_lifted() {
    shows(Mutation::PausesAreNeverLifted, &["quiescence"]);
}

#[test]
fn a_recreated_group_is_accepted() {
    shows(Mutation::EpochsAreRemembered, &["quiescence"]);
}

#[test]
fn the_highest_term_wins() {
    shows(Mutation::TermsAreIgnored, &["quiescence"]);
}

#[test]
fn rejects_travel_to_their_shard() {
    shows(Mutation::RejectsStay, &["I5"]);
}

#[test]
fn frames_without_rows_travel() {
    shows(Mutation::EmptyFramesStay, &["quiescence"]);
}

#[test]
fn a_session_that_is_asked_for_its_payloads_brings_them() {
    shows(Mutation::LackingPayloadsAreNotAskedFor, &["quiescence"]);
}

#[test]
fn what_is_covered_is_dropped() {
    shows(Mutation::KnownRecordsAreTakenAgain, &["I2", "I4", "I5"]);
}

#[test]
fn a_commit_is_bounded() {
    shows(Mutation::CommitsAreUnbounded, &["I7"]);
}

#[test]
fn what_was_merged_away_is_retracted() {
    shows(Mutation::RetractionsAreLost, &["I4"]);
}

#[test]
fn an_entry_is_known_however_often_it_is_asked_for() {
    shows(Mutation::ReplayedAreTakenAgain, &["L2: an entry counts once", "L2: what is answered"]);
}

#[test]
fn an_entry_is_answered_for_once_that_is_committed() {
    shows(Mutation::ReplaysAreAnsweredEarly, &["L2: what is answered"]);
}

#[test]
fn what_a_request_leaves_out_may_be_asked_for() {
    shows(Mutation::WhatIsLeftOutIsCovered, &["L2: what is answered"]);
}

#[test]
fn commits_are_paced() {
    shows(Mutation::CommitsAreNotPaced, &["I7"]);
}

#[test]
fn what_is_gone_is_in_the_delta() {
    shows(Mutation::PurgesAreForgotten, &["rebuild", "restore"]);
}

#[test]
fn unowned_partitions_hold_the_watermark() {
    shows(Mutation::UnownedDoNotHold, &["I3", "I4"]);
}

#[test]
fn what_the_watermark_waits_for_is_not_paused() {
    shows(Mutation::PausesHoldTheSlowest, &["quiescence"]);
}

#[test]
fn a_refused_session_is_opened_anew() {
    shows(Mutation::NacksAreLost, &["quiescence"]);
}

#[test]
fn a_gap_is_never_covered() {
    shows(Mutation::GapsAreCovered, &["I4", "I5"]);
}

#[test]
fn positions_alone_are_committed_too() {
    shows(Mutation::NoHeartbeat, &["quiescence"]);
}

#[test]
fn a_closing_resumes_where_the_last_commit_ended() {
    shows(Mutation::ClosingsAreForgotten, &["rebuild", "I4"]);
}

#[test]
fn a_log_is_cut_only_before_a_whole_snapshot() {
    shows(Mutation::TruncatesTooFar, &["restore", "rebuild"]);
}

#[test]
fn a_log_is_cut() {
    shows(Mutation::NeverTruncates, &["I7"]);
}

#[test]
fn an_older_owner_is_fenced() {
    shows(Mutation::NoFencing, &["I6"]);
}

#[test]
fn an_unknown_outcome_is_read_from_the_log() {
    shows(Mutation::UnknownIsCommitted, &["I6"]);
}

#[test]
fn a_restore_reads_to_the_end() {
    shows(Mutation::RestoreStopsEarly, &["rebuild"]);
}

#[test]
fn a_store_off_the_chain_is_not_believed() {
    shows(Mutation::StoreIsBelieved, &["rebuild"]);
}

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

#[test]
fn a_parked_worker_is_asked_again() {
    shows(Mutation::ParkedAreForgotten, &["quiescence"]);
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

#[test]
fn what_catches_up_is_read_on() {
    shows(Mutation::CatchUpIsNotReadOn, &["quiescence"]);
}

#[test]
fn what_a_shard_waits_for_is_read_on() {
    shows(Mutation::CatchUpHoldsTheSlowest, &["quiescence"]);
}

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

#[test]
fn a_log_without_its_beginning_is_an_error() {
    let job = Scenario::plain().job;
    let block = Block { incarnation: 7, sequence: 1, ..Block::default() };
    assert_eq!(ShardState::empty(&job).fold(&block), Err(RestoreError::NoBeginning { found: 1 }));
}

#[test]
fn a_store_ahead_of_the_log_is_said() {
    let job = Scenario::plain().job;
    let genesis = ShardState::genesis(JOB, &[(Partition(0), Offset(0))]);
    let next = Block { incarnation: 7, sequence: 1, ..Block::default() };
    let log = [(Offset(0), genesis.clone())];
    let longer = [(Offset(0), genesis), (Offset(2), next)];
    let mut store = None;
    assert_eq!(restore(&job, &mut store, &longer, false).1, Found::LogAlone);
    assert_eq!(restore(&job, &mut store.clone(), &log, false).1, Found::Ahead);
    assert_eq!(restore(&job, &mut store, &longer, false).1, Found::Store);
}

#[test]
fn a_seed_replays_exactly() {
    let run = |seed| {
        let outcome = runner::run_seed(seed, None, true);
        (outcome.events, outcome.census, outcome.shown)
    };
    for seed in [3, 77, 1_234] {
        assert_eq!(run(seed), run(seed));
    }
}

#[test]
fn the_oracle_is_right_by_hand() {
    let spec = WindowSpec { size: Span(20), step: Span(10), offset: Span(3), zone: None };
    let ends = |time| crate::oracle::window_ends(&spec, time);
    assert_eq!(ends(0), [EventTime(3), EventTime(13)], "[-17, 3) and [-7, 13)");
    assert_eq!(ends(3), [EventTime(13), EventTime(23)], "half-open");
    assert_eq!(ends(-8), [EventTime(-7), EventTime(3)], "negative times");
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
