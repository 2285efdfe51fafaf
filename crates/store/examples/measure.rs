//! Measures the cache: what a transaction of n entries costs, and how long a large store takes to open, scan and wipe.
//!
//! `cargo run -p tidegate-store --example measure [DIRECTORY]`

use std::error::Error;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::Instant;

use tidegate_store::{Changes, Identity, ShardStore, Stores};

const ENTRIES: u64 = 1_000_000;
const JOB: [u8; 16] = [1; 16];

fn main() -> Result<(), Box<dyn Error>> {
    let dir = std::env::args().nth(1).map_or_else(
        || std::env::temp_dir().join(format!("tidegate-store-measure-{}", std::process::id())),
        PathBuf::from,
    );
    let measured = applies(&dir).and_then(|()| reopened(&dir)).and_then(|()| removals(&dir));
    std::fs::remove_dir_all(&dir)?;
    measured
}

fn applies(dir: &Path) -> Result<(), Box<dyn Error>> {
    let stores = Stores::open(dir, JOB)?;
    let mut shard = stores.shard(0)?;
    let started = now();
    let mut sequence = 0;
    while sequence < ENTRIES / 20_000 {
        shard.apply(&changes(sequence, sequence * 20_000, 20_000, 1))?;
        sequence += 1;
    }
    shard.sync()?;
    println!("fill: {ENTRIES} entries in {:.2} s", started.elapsed().as_secs_f64());

    for size in [100, 1000, 4000, 10_000, 50_000, 200_000] {
        for _ in 0..3 {
            sequence += 1;
            let changes = changes(sequence, sequence * 7919, size, ENTRIES / size);
            let started = now();
            shard.apply(&changes)?;
            let applied = started.elapsed();
            shard.sync()?;
            let synced = started.elapsed() - applied;
            println!(
                "apply: {size} of {ENTRIES} entries in {applied:.1?}, sync {synced:.1?}, resident {} MB",
                resident()?
            );
        }
    }
    Ok(())
}

fn removals(dir: &Path) -> Result<(), Box<dyn Error>> {
    let stores = Stores::open(dir, JOB)?;
    let mut shard = stores.shard(0)?;
    let mut purge = Changes::at(identity(u64::MAX));
    purge.purge_below.push((key(0), key(300_000)));
    let started = now();
    shard.apply(&purge)?;
    println!("purge: 300000 entries in {:.1?}", started.elapsed());
    let mut shard = stores.shard(1)?;
    shard.apply(&changes(1, 0, 300_000, 1))?;
    let started = now();
    shard.wipe()?;
    println!("wipe: 300000 entries in {:.1?}", started.elapsed());
    Ok(())
}

fn reopened(dir: &Path) -> Result<(), Box<dyn Error>> {
    let started = now();
    let stores = Stores::open(dir, JOB)?;
    let shard = stores.shard(0)?;
    let opened = started.elapsed();
    let mut entries = 0_u64;
    shard.scan(&mut |_, _| {
        entries += 1;
        ControlFlow::Continue(())
    })?;
    let scanned = started.elapsed() - opened;
    println!("open: {opened:.1?}, scan of {entries} entries {scanned:.1?}, resident {} MB", resident()?);
    Ok(())
}

/// `count` entries of 60 bytes: a window end and a key, every `stride`th one.
fn changes(sequence: u64, first: u64, count: u64, stride: u64) -> Changes {
    let mut changes = Changes::at(identity(sequence));
    for at in 0..count {
        let value = [sequence.to_be_bytes(), at.to_be_bytes(), [3; 8], [4; 8]].concat();
        changes.upserts.insert(key((first + at * stride) % ENTRIES), value);
    }
    changes
}

fn key(number: u64) -> Vec<u8> {
    let scattered = (number % 10_000).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    [(number / 10_000).to_be_bytes(), scattered.to_be_bytes(), number.to_be_bytes()].concat()
}

const fn identity(sequence: u64) -> Identity {
    Identity { job: JOB, incarnation: 1, sequence, changelog_offset: sequence }
}

#[allow(clippy::disallowed_methods)] // a measurement reads the clock
fn now() -> Instant {
    Instant::now()
}

fn resident() -> Result<u64, Box<dyn Error>> {
    let statm = std::fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = statm.split_whitespace().nth(1).ok_or("statm")?.parse()?;
    Ok((pages * 4096) >> 20)
}
