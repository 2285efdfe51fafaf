//! The coordinator against both brokers, with ingests and workers played by the test.

#![allow(clippy::disallowed_methods, reason = "tests measure real time and run threads of their own")]

mod electing;
mod failing;
mod peers;
mod rig;
mod serving;
mod starting;

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
    electing {
        of_two_coordinators_one_leads_and_the_other_refuses,
        a_clean_stop_hands_over_at_once_and_nothing_moves,
        one_that_does_not_know_of_its_successor_is_fenced_and_stands_by,
    }
    starting {
        a_new_job_gets_its_topics_its_record_and_a_first_block_in_every_shard,
        a_founding_that_fails_leaves_nothing_and_may_be_repeated,
        a_restart_keeps_the_job_and_raises_the_term,
        a_changed_job_file_is_refused_and_deposes_nobody,
        a_job_goes_on_with_added_aggregates_and_not_back,
        a_source_that_is_missing_is_named,
        a_source_that_was_created_anew_is_refused,
        a_topic_with_settings_that_lose_data_is_refused,
        a_changelog_without_its_record_is_refused,
        a_record_without_its_changelog_is_refused,
    }
    serving {
        a_shard_finds_its_worker_and_the_ingests_hear_of_it,
        reports_become_announcements_that_everybody_gets,
        the_watermark_does_not_fall_below_what_a_worker_has_committed,
        a_lost_workers_shards_are_fenced_and_come_back_to_it,
        peers_of_another_job_file_are_refused,
        health_and_reflection_are_served,
        the_status_shows_partitions_workers_and_owners,
    }
}
