//! Partitions that are paused because they are far ahead.

use super::*;

#[test]
fn a_partition_too_far_ahead_is_paused_and_resumes_below_the_bound() {
    let mut m = machine(3, WatermarkConfig { max_drift: Some(Span(100)), ..config() });
    m.report(A, &active(0, 0, 1), Tick(0));
    m.report(A, &active(1, 100, 1), Tick(0));
    m.report(B, &active(2, 101, 1), Tick(0));
    assert_eq!(m.tick(Tick(0), NO_CLOCK), [], "a reader came: judged from the next tick on");
    assert_eq!(
        m.tick(Tick(1), NO_CLOCK),
        [WatermarkEffect::Pause { reader: B, partition: Partition(2) }],
        "exactly at the bound is not beyond it"
    );
    assert_eq!(m.tick(Tick(2), NO_CLOCK), []);
    m.report(A, &active(0, 25, 2), Tick(3));
    assert_eq!(m.tick(Tick(3), NO_CLOCK), [], "hysteresis");
    m.report(A, &active(0, 26, 3), Tick(4));
    assert_eq!(m.tick(Tick(4), NO_CLOCK), [WatermarkEffect::Resume { reader: B, partition: Partition(2) }]);
}

#[test]
fn before_there_is_a_watermark_drift_is_measured_from_the_least_known() {
    let mut m = machine(3, WatermarkConfig { max_drift: Some(Span(100)), ..config() });
    m.report(A, &active(0, 0, 1), Tick(0));
    m.report(A, &active(1, 500, 1), Tick(0));
    m.tick(Tick(0), NO_CLOCK);
    assert_eq!(m.tick(Tick(1), NO_CLOCK), [WatermarkEffect::Pause { reader: A, partition: Partition(1) }]);
    // A paused partition counts as active.
    m.report(A, &report(1, PartitionState::Blocked, Some(500), 1), Tick(2));
    m.report(A, &idle(0, 0, 1), Tick(2));
    m.report(A, &idle(2, 0, 1), Tick(2));
    m.tick(Tick(3), NO_CLOCK);
    assert_eq!(m.watermark(), Some(EventTime(500)));
    assert!(!m.explain().partitions[1].paused, "the last one that counts goes on");
}

#[test]
fn before_there_is_a_watermark_partitions_wait_near_where_the_first_began() {
    let mut m = machine(3, WatermarkConfig { max_drift: Some(Span(100)), ..config() });
    m.report(A, &active(0, 1_000, 1), Tick(0));
    m.report(A, &active(1, 1_050, 1), Tick(0));
    m.tick(Tick(0), NO_CLOCK);
    // Nobody has read partition 2.
    m.report(A, &active(0, 1_101, 2), Tick(1));
    m.report(A, &active(1, 1_100, 2), Tick(1));
    assert_eq!(m.tick(Tick(1), NO_CLOCK), [WatermarkEffect::Pause { reader: A, partition: Partition(0) }]);
    m.report(B, &active(2, 1_040, 1), Tick(2));
    m.tick(Tick(2), NO_CLOCK);
    m.tick(Tick(3), NO_CLOCK);
    assert_eq!(m.watermark(), Some(EventTime(1_040)));
    assert!(!m.explain().partitions[0].paused);
}

#[test]
fn a_reader_change_lifts_every_pause() {
    let mut m = machine(3, WatermarkConfig { max_drift: Some(Span(100)), ..config() });
    m.report(A, &active(0, 0, 1), Tick(0));
    m.report(A, &active(1, 500, 1), Tick(0));
    m.report(B, &active(2, 500, 1), Tick(0));
    m.tick(Tick(0), NO_CLOCK);
    assert_eq!(m.tick(Tick(1), NO_CLOCK).len(), 2);
    m.reader_gone(B);
    assert_eq!(
        m.tick(Tick(2), NO_CLOCK),
        [WatermarkEffect::Resume { reader: A, partition: Partition(1) }],
        "the other's pause ended with its stream"
    );
    assert_eq!(m.tick(Tick(3), NO_CLOCK), [WatermarkEffect::Pause { reader: A, partition: Partition(1) }]);
}

#[test]
fn a_reader_that_expired_while_paused_is_told_anew_when_it_comes_back() {
    let mut m = machine(2, WatermarkConfig { max_drift: Some(Span(100)), ..config() });
    m.report(A, &active(0, 0, 1), Tick(0));
    m.report(B, &active(1, 500, 1), Tick(0));
    m.tick(Tick(0), NO_CLOCK);
    assert_eq!(m.tick(Tick(1), NO_CLOCK), [WatermarkEffect::Pause { reader: B, partition: Partition(1) }]);
    m.report(A, &active(0, 450, 9), Tick(950));
    m.tick(Tick(950), NO_CLOCK);
    m.report(B, &report(1, PartitionState::Blocked, Some(500), 1), Tick(951));
    assert_eq!(m.tick(Tick(951), NO_CLOCK), [WatermarkEffect::Resume { reader: B, partition: Partition(1) }]);
}

#[test]
fn a_pause_outlives_a_new_epoch_on_the_same_stream_until_it_is_lifted() {
    let mut m = machine(2, WatermarkConfig { max_drift: Some(Span(100)), ..config() });
    m.report(A, &active(0, 0, 1), Tick(0));
    m.report(B, &active(1, 500, 1), Tick(0));
    m.tick(Tick(0), NO_CLOCK);
    m.tick(Tick(1), NO_CLOCK);
    m.report(
        B,
        &Report { epoch: ReaderEpoch(6), ..report(1, PartitionState::Blocked, Some(500), 1) },
        Tick(2),
    );
    assert_eq!(m.tick(Tick(2), NO_CLOCK), [WatermarkEffect::Resume { reader: B, partition: Partition(1) }]);
}

/// The word of one record: W would pass what lies unread in a partition that is paused for it.
#[test]
fn a_partition_is_paused_only_for_what_several_records_agree_on() {
    let mut m = machine(2, WatermarkConfig { max_drift: Some(Span(100)), ..config() });
    m.report(A, &active(0, 0, 1), Tick(0));
    m.report(B, &Report { agreed: Some(EventTime(40)), ..active(1, 9_000, 2) }, Tick(0));
    m.tick(Tick(0), NO_CLOCK);
    assert_eq!(m.tick(Tick(1), NO_CLOCK), []);
    m.report(B, &Report { agreed: Some(EventTime(9_000)), ..active(1, 9_000, 4) }, Tick(2));
    assert_eq!(m.tick(Tick(2), NO_CLOCK), [WatermarkEffect::Pause { reader: B, partition: Partition(1) }]);
}
