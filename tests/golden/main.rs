//! Bytes that outlive a process, frozen: a change here needs a new format version, or the state of running jobs is lost.

use prost::Message;
use tidegate_core::{
    announcement::{AssignmentId, PartitionState, Term},
    block::{Assembler, Block, Closing, Entries, JobId, Scalars},
    dead_letter::Payload,
    entry::{EntryKey, Input},
    frame::{Frame, Rows, SessionId},
    job::{AggregateFn, AggregateSpec, JobSpec, OperatorSpec},
    ordered::{Buffered, Place},
    replay::{
        Answered, AnsweredBlock,
        Outcome::{Applied, Expired},
    },
    shard::ShardState,
    time::{EventTime, Offset, Partition, Shard, Span},
};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn the_shard_of_a_key() {
    let shards: Vec<u32> =
        ["", "a", "user-1", "user-2", "JFK", "é"].map(|key| Shard::of(key.as_bytes(), 16).0).into();
    assert_eq!(shards, SHARDS);
}

#[test]
fn state_entries() {
    let key = |entry: EntryKey<'_>| {
        let mut out = Vec::new();
        entry.encode(&mut out);
        hex(&out)
    };
    assert_eq!(key(EntryKey::Position(Partition(258))), "0000000102");
    assert_eq!(key(EntryKey::Row(EventTime(1_000), b"ab")), "0180000000000003e86162");
    assert_eq!(key(EntryKey::Row(EventTime(-1), b"")), "017fffffffffffffff");
    assert_eq!(key(EntryKey::Revision(EventTime(0), b"k")), "0280000000000000006b");
    assert_eq!(key(EntryKey::Base(EventTime(0), b"k")), "0380000000000000006b");
    assert_eq!(key(EntryKey::Index(EventTime(0), 258)), "0480000000000000000000000000000102");
    assert_eq!(key(EntryKey::Session(EventTime(0), b"k")), "0580000000000000006b");
    assert_eq!(key(EntryKey::Answered(Partition(258), 3)), "06000001020000000000000003");
    assert_eq!(key(EntryKey::Pulled(b"k")), "076b");
    let place = Place { time: EventTime(1_000), partition: Partition(258), offset: Offset(3) };
    assert_eq!(key(EntryKey::Buffered(place)), "1080000000000003e8000001020000000000000003");
    assert_eq!(key(EntryKey::BufferedBase(place)), "1180000000000003e8000001020000000000000003");
    let mut value = Vec::new();
    Input { next: Offset(300), watermark: Some(EventTime(-2)), applied: 5, dead: 1 }.encode(&mut value);
    assert_eq!(hex(&value), "ac0201fffffffffffffffe0501");
}

#[test]
fn what_a_shard_has_answered_for() {
    let value = "020103050401";
    let block = AnsweredBlock::decode(&bytes(value)).unwrap();
    let mut encoded = Vec::new();
    block.encode(&mut encoded);
    assert_eq!(hex(&encoded), value);
    let mut answered = Answered::default();
    answered.restore(Partition(0), 1, block);
    let outcome = |offset: u64| answered.outcome(Partition(0), Offset(65_536 + offset));
    assert_eq!([2, 3, 4, 7, 8].map(outcome), [None, Some(Applied), Some(Expired), Some(Applied), None]);
    assert_eq!(answered.counts(), (2, 1));
}

#[test]
fn a_record_that_waits() {
    let headers = vec![("h".to_owned(), None)];
    let payload = Payload { key: None, value: Some(b"v".to_vec()), headers, timestamp: Some(-2) };
    let mut value = Vec::new();
    Buffered::Whole { key: b"ab".as_slice().into(), payload: payload.into() }.encode(&mut value);
    assert_eq!(hex(&value), "0261620001017601016800".to_owned() + "01fffffffffffffffe");
}

#[test]
fn a_changelog_chunk() {
    let mut entries = Entries::default();
    entries.upsert(b"key", b"value");
    entries.delete(b"gone");
    let block = Block {
        incarnation: 0x0102_0304_0506_0708,
        sequence: 9,
        assignment: AssignmentId { term: Term(3), number: 200 },
        begins: Some(JobId(*b"0123456789abcdef")),
        base: true,
        scalars: Scalars {
            watermark: Some(EventTime(1_000)),
            purged: None,
            closing: Some(Closing { done: Some(EventTime(500)), key: Some(b"k".to_vec()) }),
            log_bytes: 77,
            run: 300,
        },
        entries,
    };
    let chunks = block.chunks(1_000);
    assert_eq!(chunks.len(), 1);
    assert_eq!(hex(&chunks[0]), CHUNK);
    assert_eq!(Assembler::default().push(&chunks[0]).unwrap(), Some(block));
}

/// What was written before there were runs is read.
#[test]
fn a_changelog_chunk_of_format_1() {
    let block = Assembler::default().push(&bytes(CHUNK_1)).unwrap().unwrap();
    assert_eq!((block.sequence, block.base, block.scalars.run, block.scalars.log_bytes), (9, false, 0, 77));
    assert_eq!(block.begins, Some(JobId(*b"0123456789abcdef")));
    assert_eq!(block.entries.iter().filter(Result::is_ok).count(), 2);
}

#[test]
fn a_part_of_a_run() {
    let mut state = ShardState::empty(&job());
    state.fold(&ShardState::genesis(JobId([1; 16]), &[])).unwrap();
    let mut block = Block { incarnation: 1, sequence: 1, ..Block::default() };
    let mut key = Vec::new();
    EntryKey::Row(EventTime(10), b"ab").encode(&mut key);
    block.entries.upsert(&key, &[3]);
    block.scalars.run = 5;
    state.fold(&block).unwrap();
    let part = state.runs().parts().next().unwrap();
    let (id, chunk) = part.held().next().unwrap();
    assert_eq!(hex(&id.to_bytes()), "800000000000000a000000000000000100000000");
    assert_eq!((hex(&part.to_index()), hex(&chunk)), (PART_INDEX.to_owned(), PART_CHUNK.to_owned()));
}

fn job() -> JobSpec {
    JobSpec {
        aggregates: vec![AggregateSpec::new("n", AggregateFn::Count, None)],
        ..JobSpec::of(OperatorSpec::tumbling(Span(10)))
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let pairs = (0..hex.len()).step_by(2);
    pairs.map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn a_frame_on_the_wire() {
    let mut rows = Rows::new(1);
    rows.push(0, EventTime(1_000), b"ab", &[Some(-7)], &[]);
    rows.push(3, EventTime(-1), b"c", &[None], &[]);
    let frame = Frame {
        session: SessionId(5),
        partition: Partition(2),
        from: Offset(100),
        to: Offset(104),
        watermark: Some(EventTime(900)),
        state: PartitionState::Active,
        rows: vec![(Shard(4), rows)],
    };
    assert_eq!(hex(&tidegate_proto::frame::to_wire(frame).encode_to_vec()), FRAME);
}

/// xxh3_64 of "" is 2d06800538d394c2 and of "a" e6c632b61e964e1f, by the published test vectors.
const SHARDS: [u32; 6] = [2, 15, 9, 4, 15, 3];
const PART_INDEX: &str = "00010d026162";
const PART_CHUNK: &str = "4eb76f140a3a2cf60261620103";
const CHUNK: &str = "544702010203040506070800000000000000090000000000000001c4d4c36c2b995f4b03c80102303132333435363738396162636465660100000000000003e800020100000000000001f4016b4dac0201036b65790576616c75650204676f6e65";
const CHUNK_1: &str = "544701010203040506070800000000000000090000000000000001014ca5cc15a8cc6003c80101303132333435363738396162636465660100000000000003e800020100000000000001f4016b4d01036b65790576616c75650204676f6e65";
const FRAME: &str = "08051064186820880e280132440804120800000000030000001a10e803000000000000ffffffffffffffff22036162632a08020000000300000032150a10f9ffffffffffffff0000000000000000120101";
