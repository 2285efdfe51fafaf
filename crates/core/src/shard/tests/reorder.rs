//! Records leave in order, whole, each once.

use super::*;

fn places(commit: &Commit) -> Vec<(i64, u32, u64)> {
    commit.reordered.iter().map(|r| (r.place.time.0, r.place.partition.0, r.place.offset.0)).collect()
}

#[test]
fn records_leave_in_order_of_time_partition_offset_once_the_watermark_has_passed_them() {
    let mut shard = owner(&reordering());
    shard.announce(&announcement(1, 2, 100, &[]));
    shard.apply(&frame(1, 0, 7, &[(7, "b", 0), (5, "a", 0), (6, "a", 0)]));
    shard.apply(&frame(0, 0, 7, &[(6, "a", 0), (5, "b", 0), (5, "a", 0)]));
    let commit = commit(&mut shard);
    let expected = [(5, 0, 1), (5, 0, 2), (5, 1, 1), (6, 0, 0), (6, 1, 2)];
    assert_eq!(places(&commit), expected, "what is at W stays: more may come for it");
    assert_eq!(commit.reordered[0].payload.value.as_deref(), Some(b"b".as_slice()));
    assert_eq!((shard.state().buffer.len(), shard.input(Partition(1)).applied), (1, 3));
}

#[test]
fn what_arrives_and_leaves_between_two_commits_is_not_logged() {
    let mut shard = owner(&reordering());
    shard.announce(&announcement(1, 1, 100, &[]));
    shard.apply(&frame(0, 0, 6, &[(5, "a", 0), (6, "a", 0)]));
    let buffered = |commit: &Commit| {
        let entries = commit.block.entries.iter().map(Result::unwrap);
        entries
            .filter(|change| matches!(change, crate::block::Change::Upsert(key, _) if key[0] == 16))
            .count()
    };
    let first = commit(&mut shard);
    assert_eq!((places(&first), buffered(&first)), (vec![(5, 0, 0)], 1));
    shard.apply(&frame(0, 2, 7, &[]));
    let second = commit(&mut shard);
    assert_eq!((places(&second), buffered(&second)), (vec![(6, 0, 1)], 0));
    assert!(second.block.entries.iter().all(|entry| !matches!(entry, Ok(crate::block::Change::Delete(_)))));
}

#[test]
fn a_record_that_the_watermark_has_passed_is_a_dead_letter() {
    let mut shard = owner(&reordering());
    shard.announce(&announcement(1, 1, 100, &[]));
    shard.apply(&frame(0, 0, 10, &[(10, "a", 0)]));
    shard.apply(&frame(0, 1, 10, &[(9, "late", 0), (10, "b", 0)]));
    let commit = commit(&mut shard);
    assert_eq!(commit.dead_letters.len(), 1);
    let letter = &commit.dead_letters[0];
    assert_eq!((letter.reason, letter.offset, letter.missed), (Reason::Late, Offset(1), None));
    assert_eq!(letter.payload.value.as_deref(), Some(b"late".as_slice()));
    let input = shard.input(Partition(0));
    assert_eq!((input.applied, input.dead), (2, 1));
}

#[test]
fn a_record_without_its_payload_is_asked_for() {
    let mut shard = owner(&reordering());
    let mut bare = frame(0, 0, 5, &[(5, "a", 0), (6, "b", 0)]);
    bare.rows.payloads.remove(1);
    let nack = Nack { partition: Partition(0), next: Offset(1), payloads: true };
    assert_eq!(shard.apply(&bare), Applied::Refused(nack));
    assert_eq!(shard.apply(&frame(0, 1, 5, &[(6, "b", 0)])), Applied::Covered);
    assert_eq!(shard.state().buffer.len(), 2);
}

/// Records of 1 MB each, one of them alone more than a commit: a release goes over several commits and resumes behind what is out, in
/// memory and from runs, after a restore too.
#[test]
fn large_records_leave_in_bounded_commits() {
    const RECORD: usize = 1 << 20;
    let job = reordering();
    for share in [None, Some(3 * RECORD)] {
        let limits = Limits { commit_bytes: 3 * RECORD, ..Limits::default() };
        let mut shard = owner_with(&job, limits);
        shard.set_memory(share);
        let chunks = Arc::new(super::spilling::MemoryChunks::default());
        shard.state.set_store(chunks.clone());
        let mut log = vec![ShardState::genesis(JOB, &[(Partition(0), Offset(0))])];
        for offset in 0..8u64 {
            let mut one = frame(0, offset, -10, &[(8 - offset as i64, "a", 0)]);
            let value = vec![u8::try_from(offset).unwrap(); RECORD];
            one.rows.payloads[0].1 = Arc::new(Payload { value: Some(value), ..Payload::default() });
            assert!(shard.takes_frames(), "a commit comes before the buffer of changes is full");
            shard.apply(&one);
            let commit = commit(&mut shard);
            assert!(commit.block.entries.len() < 8 * RECORD);
            log.push(commit.block);
            for (id, bytes) in shard.state().runs().held() {
                assert!(bytes.len() < 8_000, "large values are cut");
                chunks.put(id, bytes);
                shard.stored(&[id]);
            }
        }
        shard.announce(&announcement(1, 1, 100, &[]));
        shard.apply(&frame(0, 8, 100, &[]));
        let mut out = Vec::new();
        while let Some(commit) = shard.plan() {
            let bytes: usize = commit.reordered.iter().map(|record| record.payload.bytes()).sum();
            assert!(bytes <= 3 * RECORD, "{bytes} bytes in one commit");
            assert!(commit.reordered.iter().all(|record| record.payload.bytes() > RECORD));
            out.extend(places(&commit));
            let sequence = commit.block.sequence;
            log.push(commit.block);
            let restored = fold(&job, &log).unwrap().canonical();
            assert!(restored == shard.state().canonical(), "rebuild = owner");
            shard.committed(sequence, Offset(0));
        }
        let expected: Vec<_> = (0..8u64).map(|back| (back as i64 + 1, 0, 7 - back)).collect();
        assert_eq!(out, expected);
        assert!(shard.state().buffer.is_empty() && shard.state().runs().is_empty());
    }
}
