use super::*;
use tidegate_core::{
    block::Scalars,
    entry::EntryKey,
    job::{OperatorSpec, WindowSpec},
    time::{EventTime, Span},
};
use tidegate_runtime::clock::Clock;
use tidegate_store::ShardStore;

const OPERATOR: OperatorSpec =
    OperatorSpec::Windows(WindowSpec { size: Span(10), step: Span(10), offset: Span(0), zone: None });

fn key(slice: i64, key: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    EntryKey::Row(EventTime(slice), key.as_bytes()).encode(&mut bytes);
    bytes
}

fn revision(end: i64) -> Vec<u8> {
    let mut bytes = Vec::new();
    EntryKey::Revision(EventTime(end), b"k").encode(&mut bytes);
    bytes
}

fn block(sequence: u64, purged: Option<i64>, rows: &[(i64, &str, &[u8])]) -> (Block, Option<Offset>) {
    let mut block = Block { incarnation: 7, sequence, ..Block::default() };
    block.scalars = Scalars { purged: purged.map(EventTime), ..Scalars::default() };
    for (slice, name, value) in rows {
        block.entries.upsert(&key(*slice, name), value);
    }
    (block, Some(Offset(100 + sequence)))
}

fn pending(blocks: Vec<(Block, Option<Offset>)>) -> Pending {
    let grid = OPERATOR;
    let mut pending = Pending::new(JobId([1; 16]), grid);
    for (block, offset) in blocks {
        pending.push(block, offset);
    }
    pending
}

#[test]
fn blocks_are_written_as_one_change_in_which_the_last_value_counts() {
    let mut deletes = block(2, None, &[(20, "b", b"2")]);
    deletes.0.entries.delete(&revision(40));
    let mut first = block(1, None, &[(0, "gone", b"1"), (20, "a", b"1"), (20, "b", b"1")]);
    first.0.entries.upsert(&revision(40), b"1");
    let blocks = vec![first, deletes, block(3, Some(10), &[(20, "a", b"3")])];

    let at_once = pending(blocks.clone());
    let merged = at_once.into_changes().unwrap();
    let upserts: Vec<_> = merged.upserts.clone().into_iter().collect();
    assert_eq!(upserts, [(key(20, "a"), b"3".to_vec()), (key(20, "b"), b"2".to_vec())]);
    assert_eq!(merged.deletes.iter().collect::<Vec<_>>(), [&revision(40)]);
    assert_eq!(merged.identity.changelog_offset, 103);
    let meta =
        tidegate_core::block::Assembler::default().push(merged.meta.as_ref().unwrap()).unwrap().unwrap();
    assert_eq!((meta.sequence, meta.scalars.purged), (3, Some(EventTime(10))));

    let mut one_by_one = pending(vec![]);
    for (block, offset) in blocks {
        one_by_one.push(block, offset);
        one_by_one.merge();
    }
    assert_eq!(one_by_one.into_changes().unwrap(), merged);
}

#[test]
fn a_block_whose_place_is_not_known_waits_for_one_whose_place_is() {
    let (unplaced, _) = block(2, None, &[(20, "a", b"2")]);
    let mut pending = pending(vec![block(1, None, &[(20, "a", b"1")]), (unplaced, None)]);
    assert!(!pending.is_placed());
    let (placed, offset) = block(3, None, &[]);
    pending.push(placed, offset);
    assert!(pending.is_placed());
    let merged = pending.into_changes().unwrap();
    assert_eq!((merged.identity.sequence, &merged.upserts[&key(20, "a")]), (3, &b"2".to_vec()));
}

#[test]
fn of_blocks_without_a_place_only_those_before_the_last_place_are_written() {
    let (unplaced, _) = block(2, None, &[(20, "a", b"2")]);
    let pending = pending(vec![block(1, None, &[(20, "a", b"1")]), (unplaced, None)]);
    let merged = pending.into_changes().unwrap();
    assert_eq!((merged.identity.sequence, &merged.upserts[&key(20, "a")]), (1, &b"1".to_vec()));
}

#[test]
fn a_cache_follows_the_log_and_is_found_where_it_was_left() {
    let directory = tempfile::tempdir().unwrap();
    let stores = Stores::open(directory.path(), [1; 16]).unwrap();
    let clock = Clock::start();
    let writer = CacheWriter::start(clock).unwrap();
    let mut cache = ShardCache::new(stores, Shard(3), JobId([1; 16]), OPERATOR);
    assert_eq!(cache.reclaim().unwrap().identity().unwrap(), None);
    let (first, offset) = block(1, None, &[(20, "a", b"1")]);
    cache.committed(first, offset, Tick(0));
    cache.follow(&writer, Tick(INTERVAL));
    let (second, offset) = block(2, None, &[(20, "a", b"2")]);
    cache.committed(second, offset, Tick(0));
    cache.follow(&writer, Tick(INTERVAL + 1));
    let identity = cache.reclaim().unwrap().identity().unwrap().unwrap();
    assert_eq!((identity.sequence, identity.changelog_offset), (1, 101), "the second is not due yet");
    let (second, offset) = block(2, None, &[(20, "a", b"2")]);
    cache.committed(second, offset, Tick(0));
    let stores = cache.stores.clone();
    cache.close(true);
    let identity = stores.shard(3).unwrap().identity().unwrap().unwrap();
    assert_eq!((identity.sequence, identity.changelog_offset), (2, 102));
}

#[test]
fn many_rows_that_wait_when_a_shard_is_closed_are_left_to_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let stores = Stores::open(directory.path(), [1; 16]).unwrap();
    let mut cache = ShardCache::new(stores.clone(), Shard(3), JobId([1; 16]), OPERATOR);
    assert_eq!(cache.reclaim().unwrap().identity().unwrap(), None);
    let value = vec![1; 2 * CLOSE_BYTES];
    let (large, offset) = block(1, None, &[(20, "a", &value)]);
    cache.committed(large, offset, Tick(0));
    cache.close(true);
    assert_eq!(stores.shard(3).unwrap().identity().unwrap(), None, "it was not written by half either");
}
