//! What is known of partitions and of W for those who ask.

use super::*;

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
