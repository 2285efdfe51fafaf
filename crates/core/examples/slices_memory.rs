//! Memory of open rows: a million (key, window) of the clicks job (count, sum and max of one field, ~10-byte keys) in one slice,
//! then the same over ten slices, then as open sessions. `cargo run --release -p tidegate-core --example slices_memory`
#![expect(clippy::print_stdout, reason = "a measurement prints")]

use std::hint::black_box;

use tidegate_core::{
    aggregate::{At, Layout},
    job::{AggregateFn, AggregateSpec, ColumnSpec, JobSpec, OperatorSpec, SessionSpec, WatermarkSpec},
    sessions::Sessions,
    slices::Slices,
    time::{EventTime, Offset, Partition, Span},
};

const ROWS: u32 = 1_000_000;
const AT: At = At { time: EventTime(0), partition: Partition(0), offset: Offset(0) };

fn main() {
    let layout = Layout::new(&job());
    for slices in [1, 10] {
        let before = resident_kib();
        let mut open = Slices::default();
        for row in 0..ROWS {
            let slice = open.slice_mut(EventTime(i64::from(row % slices) * 10_000));
            let (mut accumulators, _) =
                slice.row_mut(&layout, format!("user-{:05}", row / slices).as_bytes());
            layout.add_record(&mut accumulators);
            layout.add_value(&mut accumulators, 0, i64::from(row), &AT);
        }
        // As after the first commit: what is written is no longer dirty.
        for slice in open.iter_mut() {
            black_box(slice.take_dirty());
        }
        let after = resident_kib();
        println!(
            "slices_memory: rows={} slices={slices} bytes_per_row={} resident_bytes_per_row={}",
            open.rows(),
            open.bytes() / open.rows(),
            (after - before) * 1_024 / open.rows()
        );
    }
    let before = resident_kib();
    let mut open = Sessions::new(SessionSpec { gap: Span(1_800_000), cut: None });
    for row in 0..ROWS {
        let time = EventTime(i64::from(row) * 7 % 1_000_000);
        let (mut accumulators, _) =
            open.session_mut(&layout, format!("user-{row:05}").as_bytes(), time, None, false);
        layout.add_record(&mut accumulators);
        layout.add_value(&mut accumulators, 0, i64::from(row), &AT);
    }
    black_box(open.take_dirty());
    let after = resident_kib();
    println!(
        "sessions_memory: sessions={} bytes_per_session={} resident_bytes_per_session={}",
        open.len(),
        open.bytes() / open.len(),
        (after - before) * 1_024 / open.len()
    );
}

fn job() -> JobSpec {
    let aggregate = AggregateSpec::new;
    JobSpec {
        watermark: WatermarkSpec::bounded(Span(2_000)),
        allowed_lateness: Span(5_000),
        columns: vec![ColumnSpec::number("/amount", 2)],
        aggregates: vec![
            aggregate("clicks", AggregateFn::Count, None),
            aggregate("spend", AggregateFn::Sum, Some(0)),
            aggregate("largest", AggregateFn::Max, Some(0)),
        ],
        ..JobSpec::of(OperatorSpec::tumbling(Span(10_000)))
    }
}

/// What the process has in memory.
fn resident_kib() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok()).unwrap_or_default()
}
