//! Runs seeds, and shows what a failing one did.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use crate::{context::Census, mutation::Mutation, violation::Violation, world::World};

/// Seeds without `SEEDS` in the environment.
const SEEDS: u64 = 4_000;
const THREADS: u64 = 2;
/// What has to have happened at least once in that many seeds.
const EXERCISED: [&str; 47] = [
    "catch-up readings",
    "catch-up readings that waited",
    "closings over several commits",
    "commits",
    "commits aborted",
    "commits fenced",
    "compactions",
    "early",
    "early results outdated in runs",
    "faults",
    "final",
    "gaps refused",
    "late",
    "late_partial",
    "logs restored",
    "logs truncated",
    "main readings",
    "no_event_time",
    "owners that stood down",
    "parked workers asked",
    "pauses for drift",
    "payloads asked for",
    "raises",
    "reordered",
    "replayed",
    "replayed before",
    "replayed too late",
    "replays begun anew",
    "replays done",
    "runs",
    "runs of sessions",
    "sessions joined",
    "sessions joined for replays",
    "sessions retracted",
    "sessions split",
    "spans that came back",
    "spans that found no room",
    "spans that left memory",
    "stores that lost a chunk",
    "stores used",
    "tombstone",
    "unknown outcomes",
    "unreadable",
    "wants of parked workers",
    "windows corrected",
    "windows corrected by replays",
    "workers parked",
];

/// How a run went.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub events: u64,
    pub census: Census,
    /// The last things that happened, when traced.
    pub shown: Vec<String>,
    pub scenario: String,
}

pub fn run(mut world: World) -> Outcome {
    let result = catch_unwind(AssertUnwindSafe(|| world.run()));
    Outcome {
        violation: result.err().map(as_violation),
        events: world.ctx.events,
        census: world.ctx.census.clone(),
        shown: world.ctx.shown(),
        scenario: format!("{:?}", world.ctx.scenario),
    }
}

pub fn run_seed(seed: u64, mutation: Option<Mutation>, traced: bool) -> Outcome {
    run(World::new(seed, mutation, traced))
}

/// What a run that panicked says.
pub fn as_violation(payload: Box<dyn std::any::Any + Send>) -> Violation {
    let payload = match payload.downcast::<Violation>() {
        Ok(violation) => return *violation,
        Err(other) => other,
    };
    let seen = payload
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| payload.downcast_ref::<&str>().map(|text| (*text).to_owned()))
        .unwrap_or_default();
    Violation { invariant: "a panic".to_owned(), seen }
}

/// What the environment asks for: one seed, or many.
pub fn run_seeds() {
    if let Some(seed) = number_of("SEED") {
        let outcome = run_seed(seed, None, true);
        show(seed, &outcome);
        assert!(outcome.violation.is_none(), "seed {seed} violates an invariant");
        return;
    }
    let count = number_of("SEEDS").unwrap_or(SEEDS);
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let events = AtomicU64::new(0);
    let census = Mutex::new(Census::new());
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while !failed.load(Ordering::Relaxed) {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= count {
                        return;
                    }
                    let outcome = run_seed(seed, None, false);
                    events.fetch_add(outcome.events, Ordering::Relaxed);
                    let mut census = census.lock().expect("no thread panics with it");
                    outcome.census.iter().for_each(|(what, count)| *census.entry(what).or_default() += count);
                    drop(census);
                    if outcome.violation.is_some() && !failed.swap(true, Ordering::Relaxed) {
                        show(seed, &run_seed(seed, None, true));
                    }
                }
            });
        }
    });
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "simulation: {count} seeds, {} events, {:.0} seeds/s",
        events.into_inner(),
        count as f64 / seconds
    );
    assert!(!failed.into_inner(), "a seed violates an invariant: see above");
    let census = census.into_inner().expect("no thread panicked with it");
    println!("  {census:?}");
    let idle: Vec<_> = EXERCISED.iter().filter(|what| !census.contains_key(*what)).collect();
    assert!(
        count < SEEDS || idle.is_empty(),
        "{count} seeds went by without {idle:?}: they show nothing about it"
    );
}

fn number_of(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok().filter(|text| !text.is_empty())?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number of seeds or a seed")))
}

fn show(seed: u64, outcome: &Outcome) {
    let what = outcome.violation.as_ref().map_or_else(|| "holds".to_owned(), ToString::to_string);
    println!("seed {seed}: {what}");
    println!("  {}", outcome.scenario);
    for line in &outcome.shown {
        println!("  {line}");
    }
    println!(
        "  after {} events, {} commits",
        outcome.events,
        outcome.census.get("commits").copied().unwrap_or(0)
    );
    println!("  replay: SEED={seed} cargo test -p tidegate-tests --test sim every_seed -- --nocapture");
}

#[test]
fn a_seed_replays_exactly() {
    let run = |seed| {
        let outcome = run_seed(seed, None, true);
        (outcome.events, outcome.census, outcome.shown)
    };
    for seed in [3, 77, 1_234] {
        assert_eq!(run(seed), run(seed));
    }
}
