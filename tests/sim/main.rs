//! The simulation: many state machines of the core, driven from a seed through crashes, zombies, lost and late messages,
//! moves and unknown outcomes, with the invariants of the design (§6) checked at every commit and the answer against a batch.
//!
//! `SEEDS=2000 cargo test -p tidegate-tests --test sim` runs more seeds; `SEED=17` replays one and shows what happened.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::disallowed_methods,
    reason = "a test: what must not happen ends it, numbers are small, and the time it takes is printed"
)]

mod changelog;
mod context;
mod coordinator;
mod dice;
mod faults;
mod group;
mod ingest;
mod ledger;
mod mutation;
mod oracle;
mod reordered;
mod replay;
mod rules;
mod runner;
mod scenario;
mod scratch;
mod store;
mod topic;
mod violation;
mod worker;
mod world;

#[test]
fn the_invariants_hold_for_every_seed() {
    runner::run_seeds();
}
