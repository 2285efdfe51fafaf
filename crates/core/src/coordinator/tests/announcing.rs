//! What is announced, and when.

use super::*;

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
