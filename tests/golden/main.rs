//! Bytes that outlive a process, frozen: a change here needs a new format version, or the state of running jobs is lost.

use prost::Message;
use tidegate_core::{
    announcement::{AssignmentId, PartitionState, Term},
    block::{Assembler, Block, Closing, Entries, JobId, Scalars},
    entry::{EntryKey, Input},
    frame::{Frame, Rows, SessionId},
    time::{EventTime, Offset, Partition, Shard},
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
    let mut value = Vec::new();
    Input { next: Offset(300), watermark: Some(EventTime(-2)), applied: 5, dead: 1 }.encode(&mut value);
    assert_eq!(hex(&value), "ac0201fffffffffffffffe0501");
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
        scalars: Scalars {
            watermark: Some(EventTime(1_000)),
            purged: None,
            closing: Some(Closing { done: Some(EventTime(500)), key: Some(b"k".to_vec()) }),
            log_bytes: 77,
        },
        entries,
    };
    let chunks = block.chunks(1_000);
    assert_eq!(chunks.len(), 1);
    assert_eq!(hex(&chunks[0]), CHUNK);
    assert_eq!(Assembler::default().push(&chunks[0]).unwrap(), Some(block));
}

#[test]
fn a_frame_on_the_wire() {
    let mut rows = Rows::new(1);
    rows.push(0, EventTime(1_000), b"ab", &[Some(-7)]);
    rows.push(3, EventTime(-1), b"c", &[None]);
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
const CHUNK: &str = "544701010203040506070800000000000000090000000000000001014ca5cc15a8cc6003c80101303132333435363738396162636465660100000000000003e800020100000000000001f4016b4d01036b65790576616c75650204676f6e65";
const FRAME: &str = "08051064186820880e280132440804120800000000030000001a10e803000000000000ffffffffffffffff22036162632a08020000000300000032150a10f9ffffffffffffff0000000000000000120101";
