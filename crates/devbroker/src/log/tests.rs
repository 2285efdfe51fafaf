use super::*;
use crate::batch::Stamp;
use crate::batch::tests::encoded;

fn plain(log: &mut Log, timestamps: &[i64]) -> i64 {
    log.append(Batch::parse(&encoded(timestamps, None, false)).unwrap()).unwrap()
}

fn transactional(log: &mut Log, producer_id: i64, sequence: i32, records: usize) -> i64 {
    let stamp = Stamp { producer_id, epoch: 0, sequence };
    let bytes = encoded(&vec![0; records], Some(stamp), true);
    log.append(Batch::parse(&bytes).unwrap()).unwrap()
}

fn offsets(run: &Run) -> Vec<i64> {
    run.batches
        .iter()
        .flat_map(|bytes| batch::records(bytes.clone()).unwrap())
        .map(|record| record.offset)
        .collect()
}

#[test]
fn a_read_starts_at_the_batch_that_holds_the_offset() {
    let mut log = Log::default();
    for base in [0, 3, 6, 9] {
        assert_eq!(plain(&mut log, &[1, 1, 1]), base);
    }
    assert_eq!(log.end(), 12);
    assert_eq!(offsets(&log.read(4, 12, usize::MAX, false)), [3, 4, 5, 6, 7, 8, 9, 10, 11]);
    assert_eq!(offsets(&log.read(6, 9, usize::MAX, false)), [6, 7, 8]);
    assert!(log.read(12, 12, usize::MAX, true).batches.is_empty());
}

#[test]
fn the_byte_limit_holds_except_for_a_first_batch_that_must_come() {
    let mut log = Log::default();
    plain(&mut log, &[1]);
    plain(&mut log, &[1]);
    let size = log.read(0, 1, usize::MAX, false).bytes;
    assert_eq!(offsets(&log.read(0, 2, 2 * size, false)), [0, 1]);
    assert_eq!(offsets(&log.read(0, 2, 2 * size - 1, false)), [0]);
    assert_eq!(offsets(&log.read(0, 2, 1, true)), [0]);
    assert!(log.read(0, 2, 1, false).batches.is_empty());
}

#[test]
fn the_last_stable_offset_waits_for_the_oldest_open_transaction() {
    let mut log = Log::default();
    plain(&mut log, &[1]);
    transactional(&mut log, 1, 0, 2);
    transactional(&mut log, 2, 0, 1);
    assert_eq!(log.last_stable(), 1);
    log.end_transaction(1, 0, true, 0);
    assert_eq!(log.last_stable(), 3, "producer 2 is still open");
    log.end_transaction(2, 0, false, 0);
    assert_eq!(log.last_stable(), log.end());
    assert_eq!(log.end(), 6, "each marker takes an offset");
}

#[test]
fn aborted_transactions_are_listed_where_they_matter() {
    let mut log = Log::default();
    transactional(&mut log, 1, 0, 2); // 0, 1
    plain(&mut log, &[1]); // 2
    log.end_transaction(1, 0, false, 0); // 3
    transactional(&mut log, 1, 2, 1); // 4
    log.end_transaction(1, 0, true, 0); // 5
    transactional(&mut log, 1, 3, 1); // 6
    log.end_transaction(1, 0, false, 0); // 7
    let firsts = |from, until| log.aborted(from, until).map(|aborted| aborted.first).collect::<Vec<_>>();
    assert_eq!(firsts(0, 8), [0, 6]);
    assert_eq!(firsts(3, 6), [0]);
    assert_eq!(firsts(4, 6), [0i64; 0]);
}

#[test]
fn a_repeated_batch_is_acknowledged_and_not_stored() {
    let mut log = Log::default();
    assert_eq!(transactional(&mut log, 1, 0, 2), 0);
    assert_eq!(transactional(&mut log, 1, 2, 1), 2);
    assert_eq!(transactional(&mut log, 1, 0, 2), 0);
    assert_eq!(log.end(), 3);
}

#[test]
fn a_time_finds_the_first_record_at_or_after_it() {
    let mut log = Log::default();
    plain(&mut log, &[10, 30, 20]);
    plain(&mut log, &[40, 50]);
    let at = |timestamp| log.find_time(timestamp, log.end()).map(|found| (found.offset, found.timestamp));
    assert_eq!(at(0), Some((0, 10)));
    assert_eq!(at(15), Some((1, 30)));
    assert_eq!(at(31), Some((3, 40)));
    assert_eq!(at(51), None);
    assert_eq!(log.find_time(31, 3), None, "below the limit only");
    assert_eq!(log.find_latest_time().map(|found| found.offset), Some(4));
}

#[test]
fn deleted_records_are_out_of_reach_and_their_batches_gone() {
    let mut log = Log::default();
    plain(&mut log, &[1, 1, 1]);
    plain(&mut log, &[1, 1, 1]);
    assert_eq!(log.delete_before(4), Ok(4));
    assert_eq!(log.batches.len(), 1, "the batch that holds offset 4 stays whole");
    assert_eq!(log.delete_before(2), Ok(4), "the start never goes back");
    assert_eq!(log.delete_before(7), Err(ResponseError::OffsetOutOfRange));
    assert_eq!(log.delete_before(6), Ok(6));
    assert!(log.batches.is_empty());
    assert_eq!(plain(&mut log, &[1]), 6);
}
