//! What catches up waits for the shards that it feeds.

use super::*;

/// Shards 0 and 1 catch up from 2 on, up to the main lane at 9 that feeds shard 2; they are at 100, and may be 50 behind.
fn catching_up() -> SourcePartition {
    let timing = Timing { max_drift: Some(Span(50)), ..Timing::default() };
    let mut source = SourcePartition::new(job(3), P, ReaderEpoch(1), timing, Tick(0));
    let behind = |shard| Want { watermark: Some(EventTime(100)), ..want(shard, 2, Some(100)) };
    source.wants(A, &[behind(0), behind(1), want(2, 9, Some(100))], Tick(0));
    assert_eq!(source.main().map(Lane::position), Some(Offset(9)));
    source
}

fn holds(source: &mut SourcePartition) -> Option<bool> {
    source.tick(Tick(6)).iter().find_map(|effect| match effect {
        Effect::HoldCatchUp(holds) => Some(*holds),
        _ => None,
    })
}

#[test]
fn what_catches_up_waits_until_the_last_of_its_shards_has_come_near() {
    let mut source = catching_up();
    read(&mut source, LaneKind::Main, 2, 9, 500);
    read(&mut source, LaneKind::CatchUp, 0, 2, 160);
    assert_eq!(holds(&mut source), None, "at the bound");
    read(&mut source, LaneKind::CatchUp, 0, 3, 161);
    assert_eq!(holds(&mut source), Some(true));
    source.reached(Shard(0), Some(EventTime(150)));
    assert_eq!(holds(&mut source), None, "shard 1 is still where it was");
    source.reached(Shard(1), Some(EventTime(114)));
    assert_eq!(holds(&mut source), None, "a reading at the bound would flap");
    source.reached(Shard(1), Some(EventTime(115)));
    assert_eq!(holds(&mut source), Some(false));
}

#[test]
fn what_catches_up_waits_for_no_shard_that_is_gone_or_has_no_watermark() {
    let mut source = catching_up();
    read(&mut source, LaneKind::Main, 2, 9, 500);
    read(&mut source, LaneKind::CatchUp, 0, 2, 300);
    assert_eq!(holds(&mut source), Some(true));
    let effects = source.worker_gone(A, Tick(7));
    assert!(effects.contains(&Effect::Stop(LaneKind::CatchUp)), "{effects:?}");
    assert_eq!(holds(&mut source), None);
    source.wants(B, &[want(2, 10, None)], Tick(8));
    source.wants(B, &[want(0, 3, None)], Tick(4_000));
    read(&mut source, LaneKind::Main, 2, 10, 500);
    read(&mut source, LaneKind::CatchUp, 0, 3, 300);
    assert_eq!(holds(&mut source), None, "the shard's watermark is not known");
    source.reached(Shard(0), Some(EventTime(100)));
    assert_eq!(holds(&mut source), Some(true));
}

#[test]
fn what_catches_up_is_no_further_than_the_main_lane_that_the_watermark_may_wait_for() {
    let mut source = catching_up();
    read(&mut source, LaneKind::CatchUp, 0, 2, 300);
    assert_eq!(holds(&mut source), None, "the main lane is at 100");
    read(&mut source, LaneKind::Main, 2, 9, 500);
    assert_eq!(holds(&mut source), Some(true));
}

#[test]
fn a_catch_up_that_starts_again_waits_anew() {
    let mut source = catching_up();
    read(&mut source, LaneKind::Main, 2, 9, 500);
    read(&mut source, LaneKind::CatchUp, 0, 2, 300);
    assert_eq!(holds(&mut source), Some(true));
    let behind = Want { watermark: Some(EventTime(100)), ..want(1, 1, Some(90)) };
    assert_eq!(starts(&source.wants(B, &[behind], Tick(7))), [(LaneKind::CatchUp, 1)]);
    read(&mut source, LaneKind::CatchUp, 0, 1, 300);
    assert_eq!(holds(&mut source), Some(true), "its reader was started, and does not wait by itself");
}

#[test]
fn what_catches_up_is_read_on_to_where_the_shard_that_is_furthest_back_goes_on() {
    let timing = Timing { max_drift: Some(Span(50)), ..Timing::default() };
    let mut source = SourcePartition::new(job(3), P, ReaderEpoch(1), timing, Tick(0));
    let behind =
        |shard, next, time| Want { watermark: Some(EventTime(time)), ..want(shard, next, Some(time)) };
    source.wants(A, &[behind(0, 2, 100), behind(1, 5, 40), want(2, 9, Some(100))], Tick(0));
    read(&mut source, LaneKind::Main, 2, 9, 500);
    for offset in [2, 3] {
        read(&mut source, LaneKind::CatchUp, 0, offset, 140);
        assert_eq!(holds(&mut source), None, "shard 1 waits for what comes at 5");
    }
    read(&mut source, LaneKind::CatchUp, 0, 4, 140);
    assert_eq!(holds(&mut source), Some(true), "shard 1 waits for another partition");
}
