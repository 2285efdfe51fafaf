//! Rules that are broken on purpose, in the shells around the core or in what they pass on.

use super::shows;
use crate::mutation::Mutation;

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
fn a_parked_worker_is_asked_again() {
    shows(Mutation::ParkedAreForgotten, &["quiescence"]);
}

#[test]
fn what_catches_up_is_read_on() {
    shows(Mutation::CatchUpIsNotReadOn, &["quiescence"]);
}

#[test]
fn what_a_shard_waits_for_is_read_on() {
    shows(Mutation::CatchUpHoldsTheSlowest, &["quiescence"]);
}
