//! A worker against both brokers, with coordinator and ingests played by the test.

#![allow(clippy::disallowed_methods, reason = "tests measure real time and run tasks of their own")]

mod broker;
mod coordinator;
mod failing;
mod ingest;
mod inspecting;
mod owning;
mod rig;

/// One test for each check and broker.
macro_rules! on_both_brokers {
    ($($theme:ident { $($check:ident,)+ })+) => {
        mod apache {
            $(mod $theme {
                $(#[test]
                fn $check() -> anyhow::Result<()> {
                    tidegate_tests::apache_kafka()
                        .map_or(Ok(()), |broker| crate::rig::on(broker.bootstrap(), crate::$theme::$check))
                })+
            })+
        }

        mod dev {
            $(mod $theme {
                $(#[test]
                fn $check() -> anyhow::Result<()> {
                    crate::rig::on(tidegate_tests::dev_kafka().bootstrap(), crate::$theme::$check)
                })+
            })+
        }
    };
}

on_both_brokers! {
    owning {
        a_window_comes_out_when_the_watermark_passes_it,
        a_worker_is_ready_once_its_shards_have_caught_up,
        a_late_record_is_a_whole_dead_letter,
        what_a_shard_cannot_cover_it_asks_for,
        an_ingest_has_one_stream_the_last,
        a_stopped_worker_leaves_its_shards_committed,
        a_worker_leaves_a_silent_coordinator_for_the_next,
        a_worker_that_no_coordinator_answers_stops_at_once,
        the_local_store_is_where_a_shard_goes_on,
    }
    broker {
        a_producer_that_is_fenced_while_its_worker_owns_the_shard_is_replaced,
        a_result_too_large_for_its_topic_stops_its_shard_only_and_comes_once_there_is_room,
        a_damaged_store_is_wiped_and_built_again_from_the_log,
    }
    inspecting {
        a_key_is_told_its_open_windows_as_of_the_last_commit,
    }
    failing {
        another_job_or_job_file_is_refused,
        a_worker_that_vanishes_is_succeeded_without_loss_or_double,
        a_zombie_is_fenced_and_drops_the_shard,
        a_shard_that_is_given_anew_starts_over_from_its_log,
        a_shard_whose_output_is_refused_stands_still_and_loses_nothing,
    }
}
