//! A block of the changelog: refused with its place, or folded without a panic; what is understood is written back as it was.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tidegate_core::{
    block::{Assembler, JobId},
    shard::ShardState,
};
use tidegate_job::JobFile;
use xxhash_rust::xxh3::{xxh3_64, xxh3_64_with_seed};

/// Length of a chunk's header; its last 8 bytes are the checksum.
const HEADER: usize = 35;

fuzz_target!(|data: &[u8]| {
    let mut assembler = Assembler::default();
    assert!(assembler.push(data).is_err() || data.len() >= HEADER);

    // The same bytes with a header whose checksum is right, as a faulty writer would have left them.
    let template = ShardState::genesis(JobId([1; 16]), &[]).chunks(usize::MAX).remove(0);
    let mut chunk = template[..HEADER - 8].to_vec();
    let checksum = xxh3_64_with_seed(data, xxh3_64(&chunk));
    chunk.extend_from_slice(&checksum.to_be_bytes());
    chunk.extend_from_slice(data);
    let Ok(Some(block)) = Assembler::default().push(&chunk) else { return };
    let again = Assembler::default().push(&block.chunks(usize::MAX)[0]).unwrap().unwrap();
    assert_eq!(again, block);
    let spec = JobFile::parse(include_str!("job.yaml"), "job.yaml").unwrap().core;
    let _ = ShardState::empty(&spec).fold(&block);
});
