//! The rules of design §4 one by one, under the names they have there.

use super::*;
use crate::announcement::{Observed, PartitionState, ReaderEpoch};

const A: ReaderId = ReaderId(1);
const B: ReaderId = ReaderId(2);
const NO_CLOCK: EventTime = EventTime(i64::MAX);

fn config() -> WatermarkConfig {
    WatermarkConfig {
        on_quiet: OnQuiet::Hold,
        delay: Span(10),
        window: Span(60),
        max_drift: None,
        report_interval_ms: 300,
        coalesce_ms: 10,
    }
}

fn machine(partitions: u32, config: WatermarkConfig) -> WatermarkMachine {
    let mut machine = WatermarkMachine::new(Term(7), config);
    machine.metadata(partitions);
    machine
}

fn report(partition: u32, state: PartitionState, watermark: Option<i64>, position: u64) -> Report {
    Report {
        partition: Partition(partition),
        epoch: ReaderEpoch(5),
        watermark: watermark.map(EventTime),
        agreed: watermark.map(EventTime),
        position: Offset(position),
        state,
        max_event_time: watermark.map(|at| EventTime(at + 10)),
        lag: 0,
        observed: Observed::default(),
    }
}

fn active(partition: u32, watermark: i64, position: u64) -> Report {
    report(partition, PartitionState::Active, Some(watermark), position)
}

fn idle(partition: u32, watermark: i64, position: u64) -> Report {
    report(partition, PartitionState::Idle, Some(watermark), position)
}

fn w(machine: &mut WatermarkMachine, now: Tick) -> Option<i64> {
    machine.tick(now, NO_CLOCK);
    machine.watermark().map(EventTime::millis)
}

fn raises(effects: &[WatermarkEffect]) -> Vec<(u32, u64, i64)> {
    let raise = |effect: &WatermarkEffect| match *effect {
        WatermarkEffect::Raise { partition, at, to, .. } => Some((partition.0, at.0, to.0)),
        WatermarkEffect::Pause { .. } | WatermarkEffect::Resume { .. } => None,
    };
    effects.iter().filter_map(raise).collect()
}

#[test]
fn no_watermark_before_every_partition_has_reported_once() {
    let mut m = machine(3, config());
    m.report(A, &active(0, 100, 1), Tick(0));
    m.report(A, &idle(1, 500, 1), Tick(0));
    assert_eq!(w(&mut m, Tick(1)), None);
    let holders: Vec<_> = m.explain().partitions.iter().map(|p| p.holds).collect();
    assert_eq!(holders, [false, false, true], "the unknown partition holds");
    m.report(A, &active(2, 50, 1), Tick(1));
    assert_eq!(w(&mut m, Tick(2)), Some(50));
}

#[test]
fn the_minimum_of_counting_partitions_whatever_keeps_them_from_being_read() {
    let mut m = machine(4, config());
    m.report(A, &active(0, 100, 1), Tick(0));
    m.report(A, &report(1, PartitionState::Blocked, Some(70), 1), Tick(0));
    m.report(A, &report(2, PartitionState::Lagging, Some(60), 1), Tick(0));
    m.report(A, &idle(3, 10, 1), Tick(0));
    assert_eq!(w(&mut m, Tick(1)), Some(60));
    m.report(A, &report(2, PartitionState::Lagging, Some(90), 2), Tick(1));
    assert_eq!(w(&mut m, Tick(2)), Some(70));
    let holders: Vec<_> = m.explain().partitions.iter().map(|p| p.holds).collect();
    assert_eq!(holders, [false, true, false, false]);
}

#[test]
fn a_counting_partition_without_a_watermark_holds_and_an_idle_one_that_never_had_a_record_does_not() {
    let mut m = machine(2, config());
    m.report(A, &active(0, 100, 1), Tick(0));
    m.report(A, &report(1, PartitionState::Active, None, 0), Tick(0));
    assert_eq!(w(&mut m, Tick(1)), None);
    m.report(A, &report(1, PartitionState::Idle, None, 0), Tick(2));
    assert_eq!(w(&mut m, Tick(3)), Some(100));
    let announcement = m.announce(Tick(3)).unwrap();
    assert_eq!(announcement.excluded, [(Partition(1), Offset(0))]);
}

#[test]
fn when_all_are_idle_the_largest_counts_whoever_idled_first() {
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let mut m = machine(3, config());
        let last = [10, 30, 20];
        for p in 0..3 {
            m.report(A, &active(p, 5, 1), Tick(0));
        }
        for p in order {
            m.report(A, &idle(p, last[p as usize], 2), Tick(1));
        }
        assert_eq!(w(&mut m, Tick(2)), Some(30), "order {order:?}");
    }
}

#[test]
fn all_idle_without_any_record_has_no_watermark() {
    let mut m = machine(2, config());
    m.report(A, &report(0, PartitionState::Idle, None, 0), Tick(0));
    m.report(A, &report(1, PartitionState::Idle, None, 0), Tick(0));
    assert_eq!(w(&mut m, Tick(1)), None);
    assert_eq!(m.announce(Tick(1)).unwrap().excluded.len(), 2);
}

#[test]
fn an_idle_partition_that_returns_counts_again_without_pulling_the_watermark_back() {
    let mut m = machine(2, config());
    m.report(A, &idle(0, 10, 4), Tick(0));
    m.report(A, &active(1, 100, 9), Tick(0));
    let first = m.announce(Tick(0)).unwrap();
    assert_eq!((first.watermark, first.excluded.len()), (Some(EventTime(100)), 1));

    m.report(A, &active(0, 20, 5), Tick(20));
    m.report(A, &active(1, 200, 19), Tick(20));
    let second = m.announce(Tick(20)).unwrap();
    assert_eq!((second.watermark, second.excluded.len()), (Some(EventTime(100)), 0));

    m.report(A, &active(0, 150, 6), Tick(40));
    assert_eq!(m.announce(Tick(40)).unwrap().watermark, Some(EventTime(150)));
}

#[test]
fn a_partition_without_its_reader_is_not_idle_but_holds() {
    let mut m = machine(2, config());
    m.report(A, &idle(0, 10, 4), Tick(0));
    m.report(B, &active(1, 100, 9), Tick(0));
    assert_eq!(m.announce(Tick(0)).unwrap().excluded.len(), 1);
    m.reader_gone(A);
    m.report(B, &active(1, 200, 19), Tick(20));
    let announcement = m.announce(Tick(20)).unwrap();
    assert_eq!((announcement.watermark, announcement.excluded.len()), (Some(EventTime(100)), 0));
    assert!(matches!(m.explain().partitions[0].state, SourceState::Unowned(_)));
    m.report(B, &idle(0, 10, 4), Tick(30));
    assert_eq!(w(&mut m, Tick(31)), Some(200));
}

#[test]
fn a_partition_expires_after_three_intervals_of_silence_and_holds() {
    let mut m = machine(2, config());
    m.report(A, &idle(0, 10, 4), Tick(0));
    m.report(B, &active(1, 100, 9), Tick(0));
    assert_eq!(w(&mut m, Tick(900)), Some(100));
    m.report(B, &active(1, 200, 19), Tick(901));
    assert_eq!(w(&mut m, Tick(901)), Some(100));
    assert!(matches!(m.explain().partitions[0].state, SourceState::Expired(_)));
    assert_eq!(m.explain().partitions[0].reader, None);
}

#[test]
fn the_highest_reader_epoch_wins_until_it_expires() {
    let mut m = machine(1, config());
    let of_epoch =
        |epoch, watermark, position| Report { epoch: ReaderEpoch(epoch), ..active(0, watermark, position) };
    assert_eq!(m.report(A, &of_epoch(5, 100, 10), Tick(0)), ReportOutcome::Accepted);
    assert_eq!(m.report(B, &of_epoch(4, 900, 90), Tick(10)), ReportOutcome::Stale);
    assert_eq!(w(&mut m, Tick(10)), Some(100));
    // A new owner may start below what its predecessor framed.
    assert_eq!(m.report(B, &of_epoch(6, 90, 8), Tick(20)), ReportOutcome::Accepted);
    m.reader_gone(B);
    assert_eq!(m.report(A, &of_epoch(5, 110, 11), Tick(30)), ReportOutcome::Stale, "a zombie");
    // The group was deleted and made again: its generations start at 1.
    assert_eq!(m.report(A, &of_epoch(1, 120, 12), Tick(920)), ReportOutcome::Stale);
    assert_eq!(m.report(A, &of_epoch(1, 120, 12), Tick(921)), ReportOutcome::Accepted);
    assert_eq!(w(&mut m, Tick(922)), Some(120));
}

#[test]
fn an_older_position_of_the_same_epoch_is_stale_unless_the_owner_is_gone() {
    let mut m = machine(1, config());
    m.report(A, &active(0, 100, 10), Tick(0));
    assert_eq!(m.report(B, &idle(0, 50, 9), Tick(1)), ReportOutcome::Stale);
    m.reader_gone(A);
    assert_eq!(m.report(B, &active(0, 50, 9), Tick(2)), ReportOutcome::Accepted);
}

#[test]
fn new_partitions_hold_from_discovery_and_the_count_never_shrinks() {
    let mut m = machine(1, config());
    m.report(A, &active(0, 100, 10), Tick(0));
    assert_eq!(m.announce(Tick(0)).unwrap().partitions, 1);
    assert_eq!(m.report(A, &active(1, 1, 1), Tick(1)), ReportOutcome::UnknownPartition);
    m.metadata(2);
    m.metadata(1);
    m.report(A, &active(0, 200, 20), Tick(20));
    let announcement = m.announce(Tick(20)).unwrap();
    assert_eq!((announcement.partitions, announcement.watermark), (2, Some(EventTime(100))));
    m.report(A, &active(1, 150, 1), Tick(40));
    assert_eq!(m.announce(Tick(40)).unwrap().watermark, Some(EventTime(150)));
}

#[test]
fn recovery_starts_at_what_was_committed_or_announced() {
    let seen = Announcement {
        term: Term(3),
        version: 90,
        partitions: 2,
        watermark: Some(EventTime(70)),
        excluded: vec![(Partition(0), Offset(5))],
    };
    let mut m = machine(1, config());
    m.recover(Some(EventTime(50)), Some(&seen));
    m.recover(Some(EventTime(60)), None);
    let first = m.announce(Tick(0)).unwrap();
    assert_eq!(
        (first.term, first.version, first.partitions, first.watermark, first.excluded.len()),
        (Term(7), 1, 2, Some(EventTime(70)), 0)
    );
    m.report(A, &active(0, 10, 1), Tick(20));
    m.report(A, &active(1, 20, 1), Tick(20));
    assert_eq!(w(&mut m, Tick(21)), Some(70));
}

#[test]
fn announcements_are_coalesced_numbered_and_only_on_change() {
    let mut m = machine(1, config());
    assert_eq!(m.announce_due(), Some(Tick(0)));
    assert_eq!(m.announce(Tick(100)).map(|a| (a.version, a.watermark)), Some((1, None)));
    assert_eq!(m.announce_due(), None);
    m.report(A, &active(0, 1, 1), Tick(101));
    assert_eq!(m.announce_due(), Some(Tick(110)));
    assert_eq!(m.announce(Tick(109)), None);
    m.report(A, &active(0, 2, 2), Tick(109));
    let second = m.announce(Tick(110)).unwrap();
    assert_eq!((second.version, second.watermark), (2, Some(EventTime(2))));
    assert_eq!(m.current(), Some(&second));
    m.report(A, &active(0, 2, 3), Tick(130));
    assert_eq!(m.announce(Tick(130)), None, "a new position changes nothing for the workers");
    assert_eq!(m.announce_due(), None);
    assert_eq!(m.current().map(|a| a.version), Some(2));
}

#[test]
fn nothing_is_announced_before_the_partition_count_is_known() {
    let mut m = machine(0, config());
    m.recover(Some(EventTime(5)), None);
    assert_eq!(m.announce(Tick(0)), None);
    m.tick(Tick(1), NO_CLOCK);
    assert_eq!(m.watermark(), Some(EventTime(5)));
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

#[test]
fn finish_reaches_what_seeded_a_reader_though_it_has_read_only_older_records() {
    let mut m = machine(1, WatermarkConfig { on_quiet: OnQuiet::Finish, ..config() });
    let seeded = Report { max_event_time: Some(EventTime(3)), ..idle(0, 100, 9) };
    m.report(A, &seeded, Tick(0));
    assert_eq!(raises(&m.tick(Tick(1), NO_CLOCK)), [(0, 9, 170)], "a record at 110 made the watermark 100");
    m.report(A, &Report { max_event_time: Some(EventTime(3)), ..idle(0, 170, 9) }, Tick(2));
    assert_eq!(raises(&m.tick(Tick(3), NO_CLOCK)), [], "a raise is no record");
}

#[test]
fn it_is_known_since_when_a_partition_is_in_its_state_and_its_watermark_stands() {
    let mut m = machine(2, config());
    m.report(A, &active(0, 100, 1), Tick(10));
    m.report(A, &active(0, 120, 2), Tick(20));
    m.report(A, &active(0, 120, 3), Tick(30));
    m.report(A, &report(0, PartitionState::Lagging, Some(120), 3), Tick(40));
    m.report(A, &report(0, PartitionState::Lagging, Some(120), 3), Tick(50));
    let seen = m.explain().partitions;
    assert_eq!(
        (seen[0].since, seen[0].risen, seen[0].heard),
        (Some(Tick(40)), Some(Tick(20)), Some(Tick(50)))
    );
    assert_eq!((seen[1].since, seen[1].risen, seen[1].heard), (None, None, None), "never reported");
    m.reader_gone(A);
    assert_eq!(m.explain().partitions[0].since, Some(Tick(50)), "since it was last heard of");
    m.tick(Tick(5_000), NO_CLOCK);
    let expired = m.explain().partitions[0];
    assert_eq!((expired.state.reading().is_some(), expired.since), (true, Some(Tick(5_000))));
}

#[test]
fn it_is_known_since_when_the_global_watermark_stands_and_how_fast_it_moved() {
    let mut m = machine(1, config());
    assert_eq!((m.explain().risen, m.explain().pace), (None, None));
    for second in 1..=10 {
        m.report(A, &active(0, i64::try_from(second).unwrap() * 500, second), Tick(second * 1_000));
        m.tick(Tick(second * 1_000), NO_CLOCK);
    }
    let status = m.explain();
    assert_eq!((status.risen, status.pace), (Some(Tick(10_000)), Some(500)));
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
