//! What the reader of a partition does, call by call.

mod align;
mod idleness;

use std::collections::BTreeSet;

use super::*;
use crate::{
    announcement::Term,
    dead_letter::Payload,
    job::{OperatorSpec, WatermarkSpec},
    lane::{RejectedRecord, Row},
    time::EventTime,
};

const A: WorkerRef = WorkerRef(1);
const B: WorkerRef = WorkerRef(2);
const P: Partition = Partition(3);

fn job(shards: u32) -> Arc<JobSpec> {
    let watermark = WatermarkSpec::bounded(Span(10));
    Arc::new(JobSpec { shards, watermark, ..JobSpec::of(OperatorSpec::tumbling(Span(60))) })
}

fn source(shards: u32) -> SourcePartition {
    SourcePartition::new(job(shards), P, ReaderEpoch(1), Timing::default(), Tick(0))
}

fn want(shard: u32, next: u64, in_band: Option<i64>) -> Want {
    Want {
        shard: Shard(shard),
        assignment: AssignmentId { term: Term(1), number: 1 },
        next: Offset(next),
        in_band: in_band.map(EventTime),
        watermark: None,
        payloads: false,
    }
}

fn row(shard: u32, offset: u64, time: i64) -> Row<'static> {
    Row {
        offset: Offset(offset),
        time: EventTime(time),
        believed: true,
        key: b"k",
        shard: Shard(shard),
        values: &[],
        text: &[],
    }
}

/// Gives the record to a lane; whether it was wanted, and what followed.
fn read(
    source: &mut SourcePartition,
    kind: LaneKind,
    shard: u32,
    offset: u64,
    time: i64,
) -> (bool, Vec<Effect>) {
    let mut effects = Vec::new();
    let taken = source.row(kind, &row(shard, offset, time), Tick(5), Payload::default, &mut effects);
    (taken, effects)
}

fn starts(effects: &[Effect]) -> Vec<(LaneKind, u64)> {
    let start = |effect: &Effect| match effect {
        Effect::Start(kind, offset) => Some((*kind, offset.0)),
        _ => None,
    };
    effects.iter().filter_map(start).collect()
}

fn opens(effects: &[Effect]) -> Vec<(WorkerRef, Vec<u32>, u64)> {
    let open = |effect: &Effect| match effect {
        Effect::Open(worker, opening) => {
            Some((*worker, opening.shards.iter().map(|shard| shard.0).collect(), opening.from.0))
        }
        _ => None,
    };
    effects.iter().filter_map(open).collect()
}

fn frames(effects: &[Effect]) -> Vec<(WorkerRef, &Frame)> {
    let frame = |effect| match effect {
        &Effect::Frame(worker, ref frame) => Some((worker, frame)),
        _ => None,
    };
    effects.iter().filter_map(frame).collect()
}

/// Worker, from, to and number of rows of each frame.
fn spans(effects: &[Effect]) -> Vec<(WorkerRef, u64, u64, usize)> {
    let rows = |frame: &Frame| frame.rows.iter().map(|(_, rows)| rows.len()).sum();
    frames(effects).iter().map(|(worker, frame)| (*worker, frame.from.0, frame.to.0, rows(frame))).collect()
}

fn report(effects: &[Effect]) -> Option<Report> {
    effects.iter().find_map(|effect| match effect {
        Effect::Report(report) => Some(*report),
        _ => None,
    })
}

#[test]
fn reading_starts_at_the_maximum_once_all_shards_are_known_and_the_rest_catch_up() {
    let mut source = source(3);
    assert_eq!(source.wants(A, &[want(0, 5, None)], Tick(0)), []);
    assert_eq!(source.wants(A, &[want(1, 9, Some(40))], Tick(1)), []);
    let effects = source.wants(B, &[want(2, 2, None)], Tick(2));
    assert_eq!(starts(&effects), [(LaneKind::Main, 9), (LaneKind::CatchUp, 5), (LaneKind::CatchUp, 2)]);
    assert_eq!(opens(&effects), [(A, vec![0], 5), (A, vec![1], 9), (B, vec![2], 2)]);
    assert_eq!(source.catch_up().map(Lane::position), Some(Offset(2)), "the lowest is read");
    assert_eq!(
        report(&source.tick(Tick(3))).and_then(|report| report.watermark),
        Some(EventTime(40)),
        "seeded"
    );
}

#[test]
fn after_the_grace_it_starts_without_the_shards_that_nobody_spoke_for() {
    let mut source = source(2);
    source.wants(A, &[want(0, 7, None)], Tick(0));
    assert_eq!(source.tick(Tick(2_999)), []);
    assert_eq!(starts(&source.tick(Tick(3_000))), [(LaneKind::Main, 7)]);
    let later = source.wants(B, &[want(1, 20, Some(3))], Tick(3_001));
    assert_eq!((starts(&later), opens(&later)), (vec![], vec![(B, vec![1], 20)]));
    read(&mut source, LaneKind::Main, 1, 19, 100);
    read(&mut source, LaneKind::Main, 1, 20, 101);
    let sent = source.tick(Tick(3_002));
    assert_eq!(spans(&sent), [(A, 7, 21, 0), (B, 20, 21, 1)], "what lies before its start is not sent");
}

#[test]
fn a_catch_up_joins_at_exactly_the_position_of_the_main_lane() {
    let mut source = source(2);
    source.wants(A, &[want(0, 10, Some(50))], Tick(0));
    source.wants(B, &[want(1, 4, Some(20))], Tick(0));
    read(&mut source, LaneKind::Main, 0, 12, 100);
    read(&mut source, LaneKind::Main, 1, 13, 110);
    let (taken, _) = read(&mut source, LaneKind::CatchUp, 1, 5, 35);
    assert!(taken);
    let behind = source.tick(Tick(6));
    assert_eq!(spans(&behind), [(B, 4, 6, 1), (A, 10, 14, 1)]);
    let watermarks: Vec<_> = frames(&behind).iter().map(|(_, frame)| frame.watermark).collect();
    assert_eq!(
        watermarks,
        [Some(EventTime(25)), Some(EventTime(100))],
        "a catch-up has a tracker of its own"
    );
    read(&mut source, LaneKind::CatchUp, 1, 13, 110);
    let (taken, joined) = read(&mut source, LaneKind::CatchUp, 1, 14, 111);
    assert!(!taken, "the main lane has it");
    assert_eq!(spans(&joined), [(B, 6, 14, 1)]);
    assert!(joined.contains(&Effect::Stop(LaneKind::CatchUp)) && source.catch_up().is_none());
    read(&mut source, LaneKind::Main, 1, 14, 111);
    assert_eq!(spans(&source.tick(Tick(7))), [(A, 14, 15, 0), (B, 14, 15, 1)], "live from there on");
}

#[test]
fn a_lane_whose_records_are_gone_goes_on_where_the_log_begins() {
    let mut source = source(1);
    source.wants(A, &[want(0, 10, Some(50))], Tick(0));
    read(&mut source, LaneKind::Main, 0, 12, 100);
    let mut effects = Vec::new();
    assert_eq!(source.lost_below(LaneKind::Main, Offset(40), &mut effects), 27, "13 to 39");
    assert_eq!(starts(&effects), [(LaneKind::Main, 40)]);
    read(&mut source, LaneKind::Main, 0, 41, 110);
    let frames = source.tick(Tick(6));
    assert_eq!(
        spans(&frames),
        [(A, 10, 42, 2)],
        "what is missing is a gap in the offsets, no end of the session"
    );
    let mut effects = Vec::new();
    assert_eq!(source.lost_below(LaneKind::Main, Offset(40), &mut effects), 0, "nothing is lost twice");
    assert_eq!(starts(&effects), [(LaneKind::Main, 42)]);
}

#[test]
fn a_catch_up_whose_records_are_gone_joins_the_main_lane() {
    let mut source = source(2);
    source.wants(A, &[want(0, 30, None)], Tick(0));
    source.wants(B, &[want(1, 4, None)], Tick(0));
    let mut effects = Vec::new();
    assert_eq!(source.lost_below(LaneKind::CatchUp, Offset(20), &mut effects), 16);
    assert_eq!(starts(&effects), [(LaneKind::CatchUp, 20)]);
    let mut effects = Vec::new();
    assert_eq!(
        source.lost_below(LaneKind::CatchUp, Offset(50), &mut effects),
        10,
        "the rest is for the main lane"
    );
    assert!(starts(&effects).is_empty() && source.catch_up().is_none());
    assert_eq!(spans(&effects), [(B, 4, 30, 0), (A, 30, 30, 0)]);
    let mut effects = Vec::new();
    assert_eq!(source.lost_below(LaneKind::Main, Offset(50), &mut effects), 20);
    assert_eq!(starts(&effects), [(LaneKind::Main, 50)]);
    assert_eq!(spans(&source.tick(Tick(6))), [(A, 30, 50, 0), (B, 30, 50, 0)]);
}

#[test]
fn a_catch_up_that_comes_to_the_end_joins_behind_markers() {
    let mut source = source(2);
    source.wants(A, &[want(0, 10, None)], Tick(0));
    source.wants(B, &[want(1, 4, None)], Tick(0));
    let mut effects = Vec::new();
    source.end(LaneKind::CatchUp, Offset(9), &mut effects);
    assert!(effects.is_empty() && source.catch_up().is_some(), "not there yet");
    source.end(LaneKind::CatchUp, Offset(12), &mut effects);
    assert_eq!(spans(&effects), [(B, 4, 12, 0), (A, 10, 10, 0)]);
    assert!(source.catch_up().is_none());
    read(&mut source, LaneKind::Main, 1, 12, 50);
    assert_eq!(spans(&source.tick(Tick(6))), [(A, 10, 13, 0), (B, 12, 13, 1)]);
}

#[test]
fn a_session_that_loses_a_shard_goes_on_under_a_new_number() {
    let mut source = source(2);
    let first = source.wants(A, &[want(0, 0, None), want(1, 0, None)], Tick(0));
    assert_eq!(opens(&first), [(A, vec![0, 1], 0)]);
    read(&mut source, LaneKind::Main, 1, 0, 50);
    let moved = source.wants(B, &[want(1, 0, None)], Tick(1));
    assert_eq!(spans(&moved), [(A, 0, 1, 1)], "what the old session covered is sent under its number");
    assert_eq!(opens(&moved), [(A, vec![0], 1), (B, vec![1], 0)]);
    let numbers = |effects: &[Effect]| -> BTreeSet<SessionId> {
        let sessions = effects.iter().filter_map(|effect| match effect {
            Effect::Open(_, opening) => Some(opening.session),
            Effect::Frame(_, frame) => Some(frame.session),
            _ => None,
        });
        sessions.collect()
    };
    read(&mut source, LaneKind::Main, 0, 1, 60);
    let after = numbers(&source.tick(Tick(2)));
    assert!(
        after.is_disjoint(&numbers(&first)),
        "nothing more comes in a session that worker 1 reads as both shards'"
    );
}

#[test]
fn an_older_assignment_is_ignored_until_a_later_coordinator_stands_by_it() {
    let mut source = source(1);
    let by = |term, number| AssignmentId { term: Term(term), number };
    source.wants(B, &[Want { assignment: by(2, 1), ..want(0, 0, None) }], Tick(0));
    let old = Want { assignment: by(1, 9), ..want(0, 0, None) };
    assert_eq!(opens(&source.wants(A, &[old], Tick(1))), []);
    assert!(
        !source.owned(Term(2), &[(Shard(0), by(1, 9))]),
        "the coordinator that gave it on does not take it back"
    );
    assert!(source.owned(Term(3), &[(Shard(0), by(1, 9))]));
    assert_eq!(opens(&source.wants(A, &[old], Tick(2))), [(A, vec![0], 0)]);
}

#[test]
fn when_the_last_live_session_goes_the_catch_up_becomes_the_main_lane() {
    let mut source = source(2);
    source.wants(A, &[want(0, 10, Some(50))], Tick(0));
    source.wants(B, &[want(1, 4, Some(20))], Tick(0));
    read(&mut source, LaneKind::CatchUp, 1, 5, 40);
    let effects = source.worker_gone(A, Tick(1));
    assert_eq!(spans(&effects), [(B, 4, 6, 1), (A, 10, 10, 0)], "what was open is cut first");
    assert_eq!(starts(&effects), [(LaneKind::Main, 6)]);
    assert_eq!(source.main().map(Lane::position), Some(Offset(6)));
    assert!(source.catch_up().is_none());
    assert_eq!(report(&source.tick(Tick(2))).and_then(|report| report.watermark), Some(EventTime(30)));
}

#[test]
fn without_any_session_reading_stops_and_starts_again_where_the_shards_are() {
    let mut source = source(1);
    source.wants(A, &[want(0, 0, None)], Tick(0));
    read(&mut source, LaneKind::Main, 0, 0, 50);
    let effects = source.worker_gone(A, Tick(1));
    assert!(effects.contains(&Effect::Stop(LaneKind::Main)) && source.main().is_none());
    assert_eq!(source.tick(Tick(2)), [], "nothing is reported of a partition that is not read");
    assert_eq!(starts(&source.wants(B, &[want(0, 0, None)], Tick(3))), [(LaneKind::Main, 0)]);
}

/// The rows of shard 0 that brought their payload, by offset delta.
fn with_payload(effects: &[Effect]) -> Vec<u32> {
    let rows = frames(effects).into_iter().flat_map(|(_, frame)| &frame.rows);
    rows.flat_map(|(_, rows)| rows.payloads.iter().map(|(row, _)| rows.offsets[*row as usize])).collect()
}

fn announcement(version: u64, watermark: i64, excluded: &[u64]) -> Announcement {
    Announcement {
        term: Term(1),
        version,
        partitions: 4,
        watermark: Some(EventTime(watermark)),
        excluded: excluded.iter().map(|at| (P, Offset(*at))).collect(),
    }
}

#[test]
fn a_payload_travels_where_it_may_be_needed() {
    let mut source = source(1);
    source.wants(A, &[Want { watermark: Some(EventTime(30)), ..want(0, 0, None) }], Tick(0));
    read(&mut source, LaneKind::Main, 0, 0, 100);
    assert_eq!(with_payload(&source.tick(Tick(1))), [0], "all, until an announcement counts the partition");
    source.announce(&announcement(1, 50, &[]));
    for (offset, time) in [(1, 95), (2, 89), (3, 90), (4, 49)] {
        read(&mut source, LaneKind::Main, 0, offset, time);
    }
    assert_eq!(with_payload(&source.tick(Tick(2))), [1, 3], "below the partition's own watermark, 90");
    source.announce(&announcement(2, 95, &[]));
    read(&mut source, LaneKind::Main, 0, 5, 94);
    read(&mut source, LaneKind::Main, 0, 6, 95);
    assert_eq!(with_payload(&source.tick(Tick(3))), [0], "below the newest W announced");
    source.announce(&announcement(3, 95, &[7]));
    read(&mut source, LaneKind::Main, 0, 7, 300);
    assert_eq!(with_payload(&source.tick(Tick(4))), [0], "all, while it is excluded");
}

#[test]
fn a_shard_that_lacked_a_payload_gets_a_session_that_brings_all() {
    let mut source = source(1);
    source.wants(A, &[want(0, 0, None)], Tick(0));
    source.tick(Tick(0));
    source.announce(&announcement(1, 0, &[]));
    for offset in 0..4 {
        read(&mut source, LaneKind::Main, 0, offset, 100);
    }
    assert_eq!(with_payload(&source.tick(Tick(1))), Vec::<u32>::new());
    let nack = source.wants(A, &[Want { payloads: true, ..want(0, 2, None) }], Tick(2));
    assert_eq!((starts(&nack), opens(&nack)), (vec![(LaneKind::Main, 2)], vec![(A, vec![0], 2)]));
    source.announce(&announcement(2, 0, &[]));
    read(&mut source, LaneKind::Main, 0, 2, 100);
    read(&mut source, LaneKind::Main, 0, 3, 100);
    assert_eq!(with_payload(&source.tick(Tick(4))), [0, 1]);
}

#[test]
fn rejects_go_to_the_shard_that_writes_their_letters() {
    let mut source = source(2);
    source.wants(A, &[want(0, 0, None), want(1, 0, None)], Tick(0));
    let rejected = RejectedRecord {
        reason: crate::dead_letter::Reason::Tombstone,
        detail: String::new(),
        event_time: None,
        payload: Payload { key: Some(b"k".to_vec()), ..Payload::default() },
    };
    let mut effects = Vec::new();
    assert!(source.reject(LaneKind::Main, Offset(6), rejected, Tick(1), &mut effects));
    let sent = source.tick(Tick(2));
    let [(_, frame)] = frames(&sent)[..] else { panic!("one frame: {sent:?}") };
    let [(shard, rows)] = &frame.rows[..] else { panic!("one shard: {frame:?}") };
    assert_eq!((*shard, rows.rejects[0].offset_delta), (Shard::of_rejects(P, 2), 6));
    assert_eq!(frame.watermark, None, "a record without a usable time moves no watermark");
}

#[test]
fn the_group_offset_is_the_least_of_all_shards() {
    let mut source = source(2);
    source.committed(Shard(0), Offset(9));
    assert_eq!(source.group_offset(), None);
    source.committed(Shard(1), Offset(4));
    source.committed(Shard(1), Offset(3));
    assert_eq!(source.group_offset(), Some(Offset(4)));
}

#[test]
fn a_lane_that_starts_again_between_refusals_takes_up_the_watermark_of_the_one_before() {
    let mut source = source(2);
    source.wants(A, &[want(0, 0, None), want(1, 0, None)], Tick(0));
    for (shard, offset, time) in [(0, 0, 50), (0, 1, 90), (1, 2, 60)] {
        read(&mut source, LaneKind::Main, shard, offset, time);
    }
    source.tick(Tick(1));
    // Shard 0 lacks the payload of its record at 1, shard 1 that at 2: only catching up is the largest event time read again.
    let refused = |shard, next, in_band| Want { payloads: true, ..want(shard, next, in_band) };
    let effects = source.wants(A, &[refused(0, 1, Some(40)), refused(1, 2, None)], Tick(2));
    assert_eq!(starts(&effects), [(LaneKind::Main, 2), (LaneKind::CatchUp, 1)]);
    assert_eq!(report(&source.tick(Tick(3))).and_then(|report| report.watermark), Some(EventTime(40)));
    read(&mut source, LaneKind::Main, 1, 2, 60);
    let sent = source.tick(Tick(4));
    assert_eq!(
        frames(&sent).iter().map(|(_, frame)| frame.watermark).collect::<Vec<_>>(),
        [Some(EventTime(80))]
    );
    assert_eq!(report(&sent).and_then(|report| report.watermark), Some(EventTime(80)));
}
