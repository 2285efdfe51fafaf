//! Whether a partition is idle.

use super::*;

/// A source with one live session, read up to offset 5, and the time from which it can be idle.
fn at_its_end() -> SourcePartition {
    let mut source = source(1);
    source.wants(A, &[want(0, 0, None)], Tick(0));
    read(&mut source, LaneKind::Main, 0, 4, 100);
    source
}

#[test]
fn idle_is_proven_by_an_end_asked_for_after_the_timeout() {
    let mut source = at_its_end();
    assert!(!source.tick(Tick(1_004)).contains(&Effect::ProveEnd));
    assert!(source.tick(Tick(1_005)).contains(&Effect::ProveEnd));
    source.end_proven(Offset(6), Offset(6), Tick(1_010));
    assert_eq!(source.state(), PartitionState::Active, "a record is on its way");
    source.tick(Tick(2_005));
    source.end_proven(Offset(5), Offset(6), Tick(2_010));
    assert_eq!(source.state(), PartitionState::Lagging, "an open transaction");
    source.tick(Tick(3_005));
    source.end_proven(Offset(5), Offset(5), Tick(3_010));
    let idle = report(&source.tick(Tick(3_011))).unwrap();
    assert_eq!((idle.state, idle.position, idle.lag), (PartitionState::Idle, Offset(5), 0));
    read(&mut source, LaneKind::Main, 0, 5, 101);
    assert_eq!(source.state(), PartitionState::Active);
}

#[test]
fn the_lag_is_what_fetches_have_shown_and_not_only_what_was_proven() {
    let mut source = at_its_end();
    assert_eq!(report(&source.tick(Tick(6))).unwrap().lag, 0, "nothing was shown");
    source.see_end(Offset(9));
    source.see_end(Offset(7));
    assert_eq!(report(&source.tick(Tick(7))).unwrap().lag, 4, "offsets 5 to 8");
    read(&mut source, LaneKind::Main, 0, 8, 101);
    assert_eq!(report(&source.tick(Tick(8))).unwrap().lag, 0);
}

#[test]
fn an_answer_that_was_asked_for_before_the_last_record_proves_nothing() {
    let mut source = at_its_end();
    assert!(source.tick(Tick(1_005)).contains(&Effect::ProveEnd));
    let mut effects = Vec::new();
    source.row(LaneKind::Main, &row(0, 5, 101), Tick(1_006), Payload::default, &mut effects);
    source.end_proven(Offset(6), Offset(6), Tick(2_500));
    assert_eq!(source.state(), PartitionState::Active);
    source.end_proven(Offset(6), Offset(6), Tick(2_501));
    assert_eq!(source.state(), PartitionState::Active, "nor does one that was not asked for");
}

#[test]
fn a_held_partition_is_blocked_and_its_timer_starts_anew() {
    let mut source = at_its_end();
    source.tick(Tick(1_005));
    source.set_held(true, Tick(1_006));
    source.end_proven(Offset(5), Offset(5), Tick(1_007));
    assert_eq!(source.state(), PartitionState::Blocked, "not read is not idle");
    source.set_held(false, Tick(5_000));
    assert_eq!(source.state(), PartitionState::Active);
    assert!(!source.tick(Tick(5_999)).contains(&Effect::ProveEnd));
    assert!(source.tick(Tick(6_000)).contains(&Effect::ProveEnd));
}

#[test]
fn a_raise_is_for_an_idle_partition_at_its_position_and_goes_behind_its_records() {
    let mut source = at_its_end();
    source.tick(Tick(1_005));
    source.raise(Offset(5), EventTime(500));
    source.end_proven(Offset(5), Offset(5), Tick(1_006));
    source.raise(Offset(4), EventTime(500));
    let before = source.tick(Tick(1_007));
    assert_eq!(report(&before).and_then(|report| report.watermark), Some(EventTime(90)), "void elsewhere");
    source.raise(Offset(5), EventTime(500));
    let raised = source.tick(Tick(1_008));
    assert_eq!(spans(&raised), [(A, 5, 5, 0)]);
    assert_eq!(frames(&raised)[0].1.watermark, Some(EventTime(500)));
    assert_eq!(report(&raised).and_then(|report| report.watermark), Some(EventTime(500)));
}
