//! What early results cost a shard: a million records a run into tumbling windows of 10 s (count, sum and max of one field), 100,000 records a
//! second of event time, a commit each 100 ms, with early results off and each second.
//! `cargo run --release -p tidegate-core --example early_cost`
#![expect(clippy::print_stdout, reason = "a measurement prints")]
#![expect(clippy::disallowed_methods, reason = "a measurement takes the time")]

mod clicks;

use std::time::Instant;

use tidegate_core::{
    job::OperatorSpec,
    shard::Pane,
    time::{Offset, Span, Tick},
};

fn main() {
    for keys in [1_000, 10_000, 100_000] {
        for every in [None, Some(Span(1_000))] {
            run(keys, every);
        }
    }
}

fn run(keys: u64, every: Option<Span>) {
    let job = clicks::job(OperatorSpec::tumbling(Span(10_000)));
    let Some(state) = clicks::empty(&job) else { return };
    let Some(mut machine) = clicks::owner(&job, state) else { return };
    machine.set_early(every, Tick(0));
    machine.announce(&clicks::announcement());
    let frames = clicks::frames(keys);
    let (mut finals, mut early) = (0, 0);
    let begun = Instant::now();
    for (frame, now) in frames.iter().zip((100..).step_by(100)) {
        machine.apply(frame);
        loop {
            machine.begin_early(Tick(now));
            let Some(commit) = machine.plan() else { break };
            early += commit.results.iter().filter(|row| row.pane == Pane::Early).count();
            finals += commit.results.iter().filter(|row| row.pane == Pane::Final).count();
            machine.committed(commit.block.sequence, Offset(commit.block.sequence));
            if !machine.has_output() {
                break;
            }
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let every = every.map_or_else(|| "off".to_owned(), |every| format!("{}ms", every.millis()));
    println!(
        "early_cost: keys={keys} early={every} results={finals} early_results={early} seconds={seconds:.3}"
    );
}
