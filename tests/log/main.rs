//! `tidegate-kafka` against brokers: readers, changelog, transactions, topics.
//!
//! Each check is a function over the address of a broker and runs alike on Apache Kafka and on the development broker.

#![allow(clippy::disallowed_methods, reason = "tests measure real time and run threads of their own")]

mod admin;
mod changelog;
mod outages;
mod reader;
mod support;
mod transaction;

/// One test for each check and broker.
macro_rules! on_both_brokers {
    ($($theme:ident { $($check:ident,)+ })+) => {
        mod apache {
            $(mod $theme {
                $(#[test]
                fn $check() -> anyhow::Result<()> {
                    tidegate_tests::apache_kafka().map_or(Ok(()), |broker| crate::$theme::$check(broker.bootstrap()))
                })+
            })+
        }
        mod dev {
            $(mod $theme {
                $(#[test]
                fn $check() -> anyhow::Result<()> {
                    crate::$theme::$check(tidegate_tests::dev_kafka().bootstrap())
                })+
            })+
        }
    };
}

on_both_brokers! {
    reader {
        a_partition_is_read_from_where_it_is_started,
        a_record_comes_whole,
        a_partition_started_again_is_read_from_there,
        nothing_is_lost_or_doubled_by_a_pause_at_the_end,
        a_record_that_follows_an_end_survives_a_rebalance,
        partitions_move_between_members_and_the_generation_rises,
        the_end_of_a_partition_lies_behind_markers_and_aborted_records,
        the_end_by_request_shows_an_open_transaction,
        an_owner_that_holds_its_batches_stops_the_flow_and_loses_nothing,
        an_owner_that_holds_its_batches_stays_in_its_group,
        a_position_that_is_gone_is_an_error,
        a_missing_topic_is_an_error,
        chosen_partitions_are_read_without_a_group,
        a_group_learns_positions,
    }
    changelog {
        a_changelog_is_read_past_markers_and_aborted_records,
        a_changelog_ends_where_it_ended_when_reading_began,
        an_open_transaction_is_named_with_its_place,
        a_position_outside_of_the_log_is_an_error,
        a_whole_topic_is_drained,
        a_tail_goes_on_until_told_to_stop,
    }
    transaction {
        a_commit_shows_its_records_at_the_offsets_it_names,
        a_commit_of_several_requests_is_whole_and_in_order,
        a_later_producer_fences_and_ends_what_was_open,
        a_record_too_large_for_its_topic_is_named_and_nothing_is_written,
        a_record_too_large_for_the_client_is_named_and_the_next_commit_succeeds,
        a_missing_topic_or_partition_is_named,
        a_large_commit_succeeds,
        a_plain_producer_keeps_what_it_sends,
    }
    admin {
        a_topic_is_made_once,
        a_topic_that_two_make_at_once_is_there_for_both,
        a_topic_made_anew_has_another_id,
        settings_that_lose_data_are_named,
        records_are_deleted_up_to_an_offset,
    }
}

#[test]
fn a_broker_that_is_not_there_is_named_with_the_reason() -> anyhow::Result<()> {
    admin::a_broker_that_is_not_there_is_named_with_the_reason()
}
