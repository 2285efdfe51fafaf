//! Cost of one announcement round: every partition reports, the machine ticks, announces, and the announcement is copied
//! for each worker. `cargo run --release -p tidegate-core --example announce_round`
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

const PARTITIONS: u32 = 10_000;
const WORKERS: usize = 100;
const ROUNDS: u32 = 200;

fn main() {
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
    machine.metadata(PARTITIONS);
    let (mut reports, mut rounds, mut copies) = (0.0, 0.0, 0.0);
    for round in 1..=ROUNDS {
        let now = Tick(u64::from(round) * 10);
        let start = Instant::now();
        for partition in 0..PARTITIONS {
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
        let start = Instant::now();
        for _ in 0..WORKERS {
            black_box(announcement.clone());
        }
        copies += start.elapsed().as_secs_f64();
    }
    let rounds_ms = |seconds: f64| seconds * 1000.0 / f64::from(ROUNDS);
    println!(
        "{PARTITIONS} partitions: reports {:.3} ms, tick + announce {:.3} ms, {WORKERS} copies {:.3} ms a round",
        rounds_ms(reports),
        rounds_ms(rounds),
        rounds_ms(copies)
    );
}
