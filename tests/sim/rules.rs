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

mod answers;
mod broken;
mod catching_up;
mod logs;
mod ownership;
mod slow_workers;

use crate::{
    dice::Dice,
    mutation::Mutation,
    runner::{self, Outcome},
    scenario::Scenario,
    world::World,
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
