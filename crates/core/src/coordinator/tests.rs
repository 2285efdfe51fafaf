//! The rules of design §4 one by one, under the names they have there.

mod announcing;
mod drift;
mod explaining;
mod quiet;

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
