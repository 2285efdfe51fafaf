//! Cost of one announcement round: every partition reports, the machine ticks, announces, and the announcement is copied
//! for each worker; with fewer partitions too, to see how it grows. And the memory that the machine takes.
//! `cargo run --release -p tidegate-core --example announce_round`
#![expect(
    clippy::disallowed_methods,
    clippy::print_stdout,
    reason = "a measurement reads the clock and prints"
)]

use std::hint::black_box;
use std::time::Instant;

use tidegate_core::announcement::{Observed, PartitionState, ReaderEpoch, Report, Term};
use tidegate_core::coordinator::{ReaderId, WatermarkConfig, WatermarkMachine};
use tidegate_core::job::OnQuiet;
use tidegate_core::time::{EventTime, Offset, Partition, Span, Tick};

const WORKERS: usize = 100;
const ROUNDS: u32 = 200;

fn main() {
    // Once without looking: the first to run finds a cold machine.
    measure(1_000);
    for partitions in [1_000, 2_500, 10_000] {
        println!("announce_round: {}", measure(partitions));
    }
}

fn measure(partitions: u32) -> String {
    let before = resident_kib();
    let mut machine = WatermarkMachine::new(
        Term(1),
        WatermarkConfig {
            on_quiet: OnQuiet::Hold,
            delay: Span(2000),
            window: Span(10_000),
            max_drift: Some(Span(60_000)),
            report_interval_ms: 300,
            coalesce_ms: 10,
        },
    );
    machine.metadata(partitions);
    let (mut reports, mut rounds, mut copies) = (0.0, 0.0, 0.0);
    let (mut announced, mut excluded) = (0, 0);
    for round in 1..=ROUNDS {
        let now = Tick(u64::from(round) * 10);
        let start = Instant::now();
        for partition in 0..partitions {
            // Every tenth is idle, another tenth each round.
            let state =
                if partition % 10 == round % 10 { PartitionState::Idle } else { PartitionState::Active };
            let time = EventTime(i64::from(round) * 10 + i64::from(partition % 7));
            machine.report(
                ReaderId(u64::from(partition % 16)),
                &Report {
                    partition: Partition(partition),
                    epoch: ReaderEpoch(1),
                    watermark: Some(time),
                    agreed: Some(time),
                    position: Offset(u64::from(round)),
                    state,
                    max_event_time: Some(time),
                    lag: 0,
                    observed: Observed::default(),
                },
                now,
            );
        }
        reports += start.elapsed().as_secs_f64();
        let start = Instant::now();
        black_box(machine.tick(now, EventTime(0)));
        let announcement = machine.announce(now);
        rounds += start.elapsed().as_secs_f64();
        if let Some(announcement) = &announcement {
            announced += 1;
            excluded += announcement.excluded.len();
        }
        let start = Instant::now();
        for _ in 0..WORKERS {
            black_box(announcement.clone());
        }
        copies += start.elapsed().as_secs_f64();
    }
    let rounds_ms = |seconds: f64| seconds * 1000.0 / f64::from(ROUNDS);
    let memory = resident_kib().saturating_sub(before);
    black_box(&machine);
    format!(
        "partitions={partitions} workers={WORKERS} ms_a_round={:.3} (reports {:.3}, tick and announce {:.3}, copies {:.3}) memory_kib={memory} announced={announced} of {ROUNDS} excluded={}",
        rounds_ms(reports + rounds + copies),
        rounds_ms(reports),
        rounds_ms(rounds),
        rounds_ms(copies),
        excluded / announced.max(1)
    )
}

/// What the process has in memory.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
