use super::*;

fn values(windows: &[WindowView]) -> Vec<(i64, i64, u64, String, bool)> {
    let text =
        |window: &WindowView| window.values.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
    windows.iter().map(|w| (w.start.0, w.end.0, w.records, text(w), w.closed)).collect()
}

#[test]
fn a_key_is_shown_with_each_of_its_windows_and_their_present_values() {
    let mut shard = owner(&spec(20, 10, 0));
    shard.set_memory(Some(0));
    shard.apply(&frame(0, 0, 4, &[(1, "a", 3), (12, "a", 1), (12, "b", 9)]));
    assert!(commit(&mut shard).spilled.is_some(), "part of it is in a run");
    shard.apply(&frame(0, 3, 4, &[(12, "a", 3), (31, "a", 1)]));
    let (windows, all) = shard.inspect(b"a", 10).unwrap();
    assert_eq!(
        values(&windows),
        [
            (-10, 10, 1, "1 3".into(), false),
            (0, 20, 3, "3 7".into(), false),
            (10, 30, 2, "2 4".into(), false),
            (20, 40, 1, "1 1".into(), false),
            (30, 50, 1, "1 1".into(), false),
        ]
    );
    assert_eq!(all, 5);
    let (first, all) = shard.inspect(b"a", 2).unwrap();
    assert_eq!((first.len(), all), (2, 5), "the oldest ones, and how many there are");
    assert_eq!(shard.inspect(b"nobody", 10), Ok((Vec::new(), 0)));
}

#[test]
fn a_window_that_has_ended_is_shown_as_closed_while_late_records_correct_it_and_not_after() {
    let mut shard = owner(&spec(10, 10, 5));
    shard.announce(&announcement(1, 1, 100, &[]));
    shard.apply(&frame(0, 0, 12, &[(1, "a", 3), (11, "a", 1)]));
    let (windows, _) = shard.inspect(b"a", 10).unwrap();
    assert_eq!(values(&windows), [(0, 10, 1, "1 3".into(), true), (10, 20, 1, "1 1".into(), false)]);
    assert_eq!(windows[0].emitted, None);
    shard.apply(&frame(0, 2, 12, &[(2, "a", 4)]));
    commit(&mut shard);
    assert_eq!(shard.inspect(b"a", 1).unwrap().0[0].emitted, Some(2), "final, then corrected");
    shard.apply(&frame(0, 3, 15, &[]));
    assert_eq!(shard.state().watermark(), Some(EventTime(15)));
    let (windows, _) = shard.inspect(b"a", 10).unwrap();
    assert_eq!(values(&windows), [(10, 20, 1, "1 1".into(), false)]);
}

#[test]
fn the_partition_that_keeps_the_shard_below_the_announced_watermark_is_named() {
    let mut shard = owner(&spec(10, 10, 0));
    let holders = |shard: &ShardMachine| -> Vec<u32> {
        shard.explain().inputs.iter().filter(|input| input.holds).map(|input| input.partition.0).collect()
    };
    assert_eq!(holders(&shard), [0; 0], "nothing was announced, so nothing is waited for");
    shard.apply(&frame(0, 0, 50, &[(1, "a", 1)]));
    shard.apply(&frame(1, 0, 30, &[(1, "a", 1)]));
    shard.announce(&announcement(1, 3, 40, &[(2, 5)]));
    assert_eq!(holders(&shard), [2], "idle at 5, and the shard is at 0");
    assert!(shard.explain().inputs[2].counts);
    shard.announce(&announcement(2, 3, 40, &[(2, 0)]));
    assert_eq!(holders(&shard), [1]);
    let view = shard.explain();
    assert!(!view.inputs[2].counts);
    assert_eq!((view.watermark, view.announced), (Some(EventTime(30)), Some(EventTime(40))));
    shard.apply(&frame(1, 1, 41, &[]));
    assert_eq!(holders(&shard), [0; 0]);
}
