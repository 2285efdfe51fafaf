//! A frame from the wire: refused, or applied to a shard without a panic, with all it covers accounted for (I5).
#![no_main]

use libfuzzer_sys::fuzz_target;
use prost::Message;
use tidegate_core::{
    announcement::AssignmentId,
    block::JobId,
    frame::SessionId,
    shard::{Applied, Limits, ShardMachine, ShardState},
    source::Opening,
    time::{Offset, Partition, Shard},
};
use tidegate_job::JobFile;
use tidegate_proto::{frame, v1};

const JOB: &str = include_str!("job.yaml");

fuzz_target!(|data: &[u8]| {
    let Ok(message) = v1::Frame::decode(data) else { return };
    let spec = JobFile::parse(JOB, "job.yaml").unwrap().core;
    let opening = Opening {
        session: SessionId(1),
        partition: Partition(0),
        shards: vec![Shard(0), Shard(1)],
        from: Offset(0),
    };
    let Ok(frames) = frame::from_wire(message, &opening, 1, spec.columns.len()) else { return };
    for (shard, frame) in frames {
        let mut state = ShardState::empty(&spec);
        let start = frame.from;
        state.fold(&ShardState::genesis(JobId([1; 16]), &[(Partition(0), start)])).unwrap();
        let owner = AssignmentId::default();
        let mut machine = ShardMachine::take_over(shard, &spec, Limits::default(), state, 7, owner).unwrap();
        let offered = (frame.rows.len() + frame.rows.rejects.len()) as u64;
        let applied = machine.apply(&frame);
        let input = machine.input(Partition(0));
        if applied == Applied::Covered {
            assert_eq!(input.next, frame.to);
        }
        assert!(input.applied + input.dead <= offered);
        if let Some(commit) = machine.plan() {
            assert_eq!(commit.dead_letters.len() as u64, input.dead);
        }
    }
});
