//! What tidegate relies on in a Kafka broker, checked alike on Apache Kafka and on the development broker.
//!
//! Each check is a function over the address of a broker, made with unmodified librdkafka. A difference between the two
//! brokers that a check shows is a fault of the development broker.

#![allow(clippy::disallowed_methods, reason = "tests measure real time and run threads of their own")]

mod faults;
mod fixture;
mod groups;
mod offsets;
mod records;
mod topics;
mod transactions;

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
    topics {
        a_created_topic_shows_its_partitions_and_settings,
        a_topic_is_not_created_twice,
        an_unknown_topic_is_an_error_and_is_not_created,
        a_deleted_topic_is_gone_and_comes_back_empty,
        new_partitions_show_up_and_take_records,
    }
    records {
        a_record_comes_back_whole,
        the_broker_stamps_records_where_the_topic_says_so,
        every_codec_comes_back_as_it_went,
        a_record_too_large_for_its_topic_is_refused,
        a_megabyte_comes_back,
        a_compacted_topic_takes_no_record_without_a_key,
        an_idempotent_producer_keeps_order_without_gaps,
    }
    offsets {
        earliest_and_latest_are_the_ends_of_the_partition,
        reading_starts_in_the_middle_of_a_batch,
        offsets_are_found_by_time,
        deleted_records_are_out_of_range,
        reading_past_the_end_is_out_of_range,
    }
    groups {
        members_share_the_partitions_and_inherit_them,
        members_share_the_partitions_cooperatively,
        a_group_goes_on_at_its_commit,
    }
    transactions {
        a_commit_shows_and_an_abort_hides,
        a_transaction_spans_partitions,
        an_open_transaction_holds_back_committed_readers,
        a_second_producer_fences_the_first,
        the_successor_aborts_the_open_transaction,
        a_transaction_that_takes_too_long_is_aborted,
        a_timeout_longer_than_the_broker_allows_is_refused,
        group_offsets_move_with_the_transaction,
    }
}
