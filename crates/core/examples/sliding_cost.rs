//! What sliding windows cost a shard: a million records over windows of 10 s (count, sum and max of one field), 100,000 records a second of
//! event time, a commit each 100 ms; with all in memory, and with a share of it (pages of the scratch in memory: the disk is not measured).
//! `cargo run --release -p tidegate-core --example sliding_cost`
#![expect(clippy::print_stdout, reason = "a measurement prints")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

mod clicks;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use tidegate_core::{
    job::{OperatorSpec, SlidingSpec},
    runs::{ChunkId, Chunks},
    scratch::Scratch,
    time::{Offset, Span},
};

/// Pages by where they are.
#[derive(Debug, Default)]
struct Pages(HashMap<u64, Vec<u8>>, u64);

impl Scratch for Pages {
    fn write(&mut self, bytes: &[u8]) -> Result<u64, String> {
        self.1 += 1;
        self.0.insert(self.1, bytes.to_vec());
        Ok(self.1)
    }

    fn read(&mut self, at: u64, into: &mut [u8]) -> Result<(), String> {
        into.copy_from_slice(self.0.get(&at).ok_or("no such page")?);
        Ok(())
    }

    fn free(&mut self, at: u64, _: usize) {
        self.0.remove(&at);
    }
}

/// Chunks of runs by name.
#[derive(Debug, Default)]
struct Stored(Mutex<HashMap<ChunkId, Arc<[u8]>>>);

impl Chunks for Stored {
    fn read(&self, id: ChunkId) -> Result<Arc<[u8]>, String> {
        let chunks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        chunks.get(&id).map(Arc::clone).ok_or_else(|| "no such chunk".to_owned())
    }
}

fn main() {
    for keys in [1_000, 10_000, 100_000] {
        for share in [None, Some(32 << 20), Some(8 << 20)] {
            run(keys, share);
        }
    }
}

fn run(keys: u64, share: Option<usize>) {
    let job = clicks::job(OperatorSpec::Sliding(SlidingSpec { size: Span(10_000) }));
    let Some(mut state) = clicks::empty(&job) else { return };
    let stored = Arc::new(Stored::default());
    state.set_store(stored.clone());
    let Some(mut machine) = clicks::owner(&job, state) else { return };
    machine.set_memory(share);
    machine.set_scratch(Box::new(Pages::default()));
    machine.announce(&clicks::announcement());
    let frames = clicks::frames(keys);
    let (mut results, mut left, mut back, mut most) = (0, 0, 0, (0, 0));
    let begun = Instant::now();
    for frame in &frames {
        machine.apply(frame);
        while let Some(commit) = machine.plan() {
            results += commit.results.len();
            machine.committed(commit.block.sequence, Offset(commit.block.sequence));
            let held = machine.state().runs().held();
            let mut chunks = stored.0.lock().unwrap_or_else(PoisonError::into_inner);
            let ids: Vec<_> = held.iter().map(|(id, _)| *id).collect();
            chunks.extend(held);
            drop(chunks);
            machine.stored(&ids);
            let (in_memory, away) = machine.span_bytes();
            most = (most.0.max(in_memory), most.1.max(away));
            let spans = machine.take_span_traffic();
            (left, back) = (left + spans.left, back + spans.back);
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let share = share.map_or_else(|| "all".to_owned(), |share| format!("{}MiB", share >> 20));
    println!(
        "sliding_cost: keys={keys} memory={share} results={results} seconds={seconds:.3} spans_mib={:.1} away_mib={:.1} left={left} back={back}",
        mib(most.0),
        mib(most.1)
    );
}

#[expect(clippy::cast_precision_loss, reason = "a figure to read")]
fn mib(bytes: usize) -> f64 {
    bytes as f64 / 1_048_576.0
}
