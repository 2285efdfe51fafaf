use super::*;

const CLOCK: i64 = 1_000_000_000;

fn partition(partition: u32, state: &str, watermark_ms: Option<i64>) -> v1::PartitionStatus {
    v1::PartitionStatus {
        partition,
        state: state.to_owned(),
        watermark_ms,
        holds: state != "idle",
        since_ms: Some(4_000),
        heard_ms: Some(100),
        risen_ms: Some(9_000),
        max_event_time_ms: watermark_ms,
        ..v1::PartitionStatus::default()
    }
}

fn status(partitions: Vec<v1::PartitionStatus>) -> v1::JobStatus {
    let watermark_ms = partitions.iter().filter_map(|p| p.watermark_ms).min();
    v1::JobStatus {
        name: "clicks".to_owned(),
        announcement: Some(v1::Announcement { watermark_ms, ..v1::Announcement::default() }),
        workers: vec![v1::WorkerStatus::default()],
        facts: Some(v1::JobFacts {
            source_topic: "in".to_owned(),
            idle_timeout_ms: 30_000,
            on_quiet: "hold".to_owned(),
            window_size_ms: 10_000,
            window_step_ms: 10_000,
            ..v1::JobFacts::default()
        }),
        clock_ms: CLOCK,
        watermark_risen_ms: Some(9_000),
        partitions,
        ..v1::JobStatus::default()
    }
}

/// What is said of the only partition: why, and what releases it.
fn said(partition: v1::PartitionStatus) -> (String, String) {
    let explained = explain(&status(vec![v1::PartitionStatus { holds: true, ..partition }]));
    let [holder] = &explained.holders[..] else { panic!("{explained:?}") };
    (holder.why.clone(), holder.release.clone())
}

#[test]
fn each_state_has_its_reason_and_what_releases_it() {
    let at = Some(CLOCK - 5_000);
    for (state, watermark, lag, why, release) in [
        ("unknown", None, 0, "no ingest has reported any partition", "an ingest that runs"),
        ("unowned", at, 0, "the ingest that read it has ended", "another ingest"),
        ("expired", at, 0, "has said nothing for 100 ms", "or another one"),
        ("lagging", at, 70, "an open transaction: nothing behind offset 0", "--topic in --partition 3"),
        ("blocked", at, 5, "a worker that its records go to takes nothing", "commits that fail"),
        ("active", None, 0, "never had a record", "after 30 s at its end (watermark.idle_timeout)"),
        ("active", None, 7, "no record of it has given a usable event time yet; 7 offsets", "no_event_time"),
        ("active", at, 7, "7 offsets are not read yet", "reading on"),
        ("active", at, 0, "is at its end", "its next record; or none: after 30 s"),
    ] {
        let said = said(v1::PartitionStatus { lag, ..partition(3, state, watermark) });
        assert!(said.0.contains(why) && said.1.contains(release), "{state}: {said:?}");
    }
    let paused = said(v1::PartitionStatus { paused: true, ..partition(3, "blocked", at) });
    assert!(paused.0.contains("max_drift"), "{paused:?}");
}

#[test]
fn delay_and_skew_of_the_partition_are_told_where_its_reader_tells_them() {
    let skew = Some(v1::Skew { p50_ms: 700, p99_ms: -3_000, most_ahead_ms: 5_000 });
    let observed = Some(v1::Observed { delay_ms: Some(2_000), learning: true, late_per_million: None, skew });
    let explained =
        explain(&status(vec![v1::PartitionStatus { observed, ..partition(0, "active", Some(5)) }]));
    let holder = &explained.holders[0];
    assert_eq!((holder.delay_ms, holder.learning), (Some(2_000), true));
    assert_eq!((holder.skew_p50_ms, holder.skew_p99_ms), (Some(700), Some(-3_000)));
    let silent = explain(&status(vec![partition(0, "active", Some(5))]));
    assert_eq!((silent.holders[0].delay_ms, silent.holders[0].skew_p50_ms), (None, None));
}

#[test]
fn the_partition_that_nobody_reads_is_told_apart_from_a_job_that_nobody_reads() {
    let both = vec![partition(0, "active", Some(5)), partition(1, "unknown", None)];
    let explained = explain(&status(both));
    assert!(explained.holders[1].why.contains("has reported it"), "{explained:?}");
}

#[test]
fn the_verdict_says_whether_time_moves_waits_or_rests() {
    let verdict = |status: &v1::JobStatus| explain(status).verdict;
    let mut two = status(vec![partition(0, "active", Some(5)), partition(1, "idle", Some(9))]);
    assert_eq!(verdict(&two), "W waits for 1 of 2 partitions");
    two.watermark_risen_ms = Some(30);
    assert_eq!(verdict(&two), "W moves; what it follows is 1 of 2 partitions");
    let undefined = status(vec![partition(0, "unknown", None)]);
    assert_eq!(verdict(&undefined), "W is undefined: it waits for 1 of 1 partition");
    assert!(verdict(&status(vec![partition(0, "idle", None)])).contains("none has ever had a record"));
    let mut quiet = status(vec![partition(0, "idle", Some(9))]);
    for (on_quiet, words) in
        [("hold", "stays where"), ("advance", "with the clock"), ("finish", "all has come out")]
    {
        quiet.facts.as_mut().unwrap().on_quiet = on_quiet.to_owned();
        assert!(verdict(&quiet).contains(words), "{}", verdict(&quiet));
    }
}

#[test]
fn a_clock_that_runs_ahead_is_told_of_with_the_partition_or_with_what_it_did() {
    let year = 365 * 86_400_000;
    let one = status(vec![partition(0, "active", Some(CLOCK)), partition(1, "active", Some(CLOCK + year))]);
    let [note] = &notes(&one)[..] else { panic!("{:?}", notes(&one)) };
    assert!(
        note.contains("partition 1 has had an event time 365 d ahead") && note.contains("on_future: accept"),
        "{note}"
    );
    let mut all = status(vec![partition(0, "active", Some(CLOCK + year))]);
    all.facts.as_mut().unwrap().max_future_skew_ms = Some(60_000);
    let [note] = &notes(&all)[..] else { panic!("{:?}", notes(&all)) };
    assert!(note.starts_with("W is 365 d ahead") && note.contains("max_future_skew is 1 min"), "{note}");
}

#[test]
fn shards_that_nobody_has_and_missing_workers_are_told_of() {
    let mut job = status(vec![partition(0, "active", Some(CLOCK))]);
    let shard = |shard, state: &str, worker: &str| v1::ShardStatus {
        shard,
        state: state.to_owned(),
        worker: worker.to_owned(),
    };
    job.shards = vec![shard(0, "owned", "a"), shard(1, "held", "b"), shard(2, "unassigned", "")];
    assert_eq!(
        notes(&job),
        [
            "shards without an owner put nothing out: 1 waits for the return of worker `b`; 2 waits for a worker"
        ]
    );
    job.workers.clear();
    assert_eq!(notes(&job), ["no worker is connected: nothing is computed"]);
}

#[test]
fn the_close_of_a_window_is_expected_by_the_pace_of_the_last_minute() {
    let mut job = status(vec![partition(0, "active", Some(1_000))]);
    let expect = |job: &v1::JobStatus| expected(&explain(job), 10_000);
    assert!(
        expect(&job).starts_with("when W reaches 1970-01-01T00:00:10Z (10000), 9 s from here"),
        "{}",
        expect(&job)
    );
    job.watermark_pace = Some(500);
    assert_eq!(expect(&job), "in about 18 s, if W goes on as in the last minute");
    job.announcement.as_mut().unwrap().watermark_ms = Some(10_000);
    assert_eq!(expect(&job), "W has passed its end");
    job.announcement.as_mut().unwrap().watermark_ms = None;
    assert_eq!(expect(&job), "not before W is defined");
}
