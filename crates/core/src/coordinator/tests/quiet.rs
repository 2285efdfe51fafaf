//! What happens when every partition is idle.

use super::*;

fn raises(effects: &[WatermarkEffect]) -> Vec<(u32, u64, i64)> {
    let raise = |effect: &WatermarkEffect| match *effect {
        WatermarkEffect::Raise { partition, at, to, .. } => Some((partition.0, at.0, to.0)),
        WatermarkEffect::Pause { .. } | WatermarkEffect::Resume { .. } => None,
    };
    effects.iter().filter_map(raise).collect()
}

#[test]
fn quiet_hold_asks_for_nothing() {
    let mut m = machine(1, config());
    m.report(A, &idle(0, 10, 4), Tick(0));
    assert_eq!(m.tick(Tick(500), NO_CLOCK), []);
    assert_eq!(m.watermark(), Some(EventTime(10)));
}

#[test]
fn quiet_finish_raises_every_partition_past_the_last_window() {
    let mut m = machine(3, WatermarkConfig { on_quiet: OnQuiet::Finish, ..config() });
    m.report(A, &idle(0, 10, 4), Tick(0));
    m.report(A, &report(1, PartitionState::Idle, None, 0), Tick(0));
    m.report(A, &active(2, 90, 9), Tick(0));
    assert_eq!(m.tick(Tick(1), NO_CLOCK), [], "not yet quiet");
    m.report(A, &idle(2, 90, 9), Tick(2));
    // The largest event time is 100: every window it can be in ends by 160.
    assert_eq!(raises(&m.tick(Tick(3), NO_CLOCK)), [(0, 4, 160), (1, 0, 160), (2, 9, 160)]);
    assert_eq!(m.watermark(), Some(EventTime(90)), "W waits for the readers");
    assert_eq!(m.tick(Tick(4), NO_CLOCK), [], "asked once");

    let raised =
        |p, position| Report { max_event_time: None, ..report(p, PartitionState::Idle, Some(160), position) };
    m.report(A, &raised(0, 4), Tick(5));
    m.report(A, &raised(1, 0), Tick(5));
    assert_eq!(w(&mut m, Tick(6)), Some(160));
    // The third reader lost the request: it is repeated after an interval.
    assert_eq!(raises(&m.tick(Tick(303), NO_CLOCK)), [(2, 9, 160)]);
    m.report(A, &raised(2, 9), Tick(304));
    assert_eq!(m.tick(Tick(700), NO_CLOCK), [], "the target does not chase itself");
    // Nor when the readers come back on new streams.
    for (p, position) in [(0, 4), (1, 0), (2, 9)] {
        m.report(B, &raised(p, position), Tick(701));
    }
    assert_eq!(m.tick(Tick(702), NO_CLOCK), []);
    assert_eq!(m.watermark(), Some(EventTime(160)));
}

#[test]
fn quiet_finish_that_is_heard_of_only_on_a_new_stream_does_not_chase_itself() {
    let mut m = machine(1, WatermarkConfig { on_quiet: OnQuiet::Finish, ..config() });
    m.report(A, &idle(0, 90, 9), Tick(0));
    assert_eq!(raises(&m.tick(Tick(1), NO_CLOCK)), [(0, 9, 160)]);
    m.reader_gone(A);
    m.report(B, &Report { max_event_time: Some(EventTime(100)), ..idle(0, 160, 9) }, Tick(2));
    assert_eq!(m.tick(Tick(3), NO_CLOCK), [], "the raise that it was asked for is no record");
    assert_eq!(m.watermark(), Some(EventTime(160)));
}

#[test]
fn quiet_finish_after_a_restart_of_all_takes_the_seeded_watermark_plus_the_delay() {
    let mut m = machine(1, WatermarkConfig { on_quiet: OnQuiet::Finish, ..config() });
    m.report(A, &Report { max_event_time: None, ..idle(0, 90, 9) }, Tick(0));
    assert_eq!(raises(&m.tick(Tick(1), NO_CLOCK)), [(0, 9, 160)]);
}

#[test]
fn records_after_finish_are_finished_too() {
    let mut m = machine(1, WatermarkConfig { on_quiet: OnQuiet::Finish, ..config() });
    m.report(A, &idle(0, 90, 9), Tick(0));
    m.tick(Tick(1), NO_CLOCK);
    m.report(A, &active(0, 990, 10), Tick(2));
    assert_eq!(m.tick(Tick(3), NO_CLOCK), []);
    m.report(A, &idle(0, 990, 10), Tick(4));
    assert_eq!(raises(&m.tick(Tick(5), NO_CLOCK)), [(0, 10, 1060)]);
}

#[test]
fn quiet_advance_moves_on_by_elapsed_time_in_steps_up_to_the_clock() {
    let mut m = machine(2, WatermarkConfig { on_quiet: OnQuiet::Advance, ..config() });
    let clock = EventTime(10_400);
    m.report(A, &idle(0, 10_000, 4), Tick(0));
    m.report(A, &idle(1, 9_000, 4), Tick(0));
    assert_eq!(m.tick(Tick(0), clock), []);
    assert_eq!(m.tick(Tick(99), clock), [], "less than a step");
    assert_eq!(raises(&m.tick(Tick(100), clock)), [(0, 4, 10_100), (1, 4, 10_100)]);
    assert_eq!(m.tick(Tick(101), clock), []);
    m.report(A, &idle(0, 10_100, 4), Tick(110));
    m.report(A, &idle(1, 10_100, 4), Tick(110));
    assert_eq!(raises(&m.tick(Tick(250), clock)), [(0, 4, 10_250), (1, 4, 10_250)], "from where it began");
    assert_eq!(m.watermark(), Some(EventTime(10_100)));
    m.report(A, &idle(0, 10_250, 4), Tick(260));
    m.report(A, &idle(1, 10_250, 4), Tick(260));
    assert_eq!(raises(&m.tick(Tick(900), clock)), [(0, 4, 10_390), (1, 4, 10_390)], "clock less delay");

    // A record ends the quiet; the next begins at the W of then.
    m.report(A, &active(0, 10_260, 5), Tick(901));
    assert_eq!(m.tick(Tick(902), clock), []);
    m.report(A, &idle(0, 10_260, 5), Tick(903));
    m.report(A, &idle(1, 10_250, 4), Tick(903));
    assert_eq!(m.tick(Tick(904), clock), []);
    assert_eq!(
        raises(&m.tick(Tick(1010), clock)),
        [(0, 5, 10_366)],
        "the other still has a higher request at its position"
    );
}

#[test]
fn finish_reaches_what_seeded_a_reader_though_it_has_read_only_older_records() {
    let mut m = machine(1, WatermarkConfig { on_quiet: OnQuiet::Finish, ..config() });
    let seeded = Report { max_event_time: Some(EventTime(3)), ..idle(0, 100, 9) };
    m.report(A, &seeded, Tick(0));
    assert_eq!(raises(&m.tick(Tick(1), NO_CLOCK)), [(0, 9, 170)], "a record at 110 made the watermark 100");
    m.report(A, &Report { max_event_time: Some(EventTime(3)), ..idle(0, 170, 9) }, Tick(2));
    assert_eq!(raises(&m.tick(Tick(3), NO_CLOCK)), [], "a raise is no record");
}
