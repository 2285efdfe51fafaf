//! Draws the pictures of docs/time.md from runs of the core: trackers, and the coordinator's machine over reports.
//! `cargo run -p tidegate-core --example time_pictures -- docs/time`
#![expect(clippy::print_stdout, reason = "says what it has written, and what it measured")]

mod chart;
mod runs;

use std::path::Path;

use chart::{BLUE, Chart, GREEN, GREY, ORANGE, RED};
use runs::{Backlog, Stream};
use tidegate_core::{
    job::{PerMillion, WatermarkStrategy},
    time::{EventTime, Span},
    tracker::Tracker,
};

type Pictures = [(&'static str, Chart); 4];

fn main() -> std::io::Result<()> {
    let folder = std::env::args().nth(1).unwrap_or_else(|| "docs/time".to_owned());
    std::fs::create_dir_all(&folder)?;
    let pictures: Pictures =
        [("strategies", strategies()), ("poisoned", poisoned()), ("idle", idle()), ("drift", drift())];
    for (name, chart) in pictures {
        let path = Path::new(&folder).join(format!("{name}.svg"));
        std::fs::write(&path, chart.svg())?;
        println!("{}", path.display());
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "times of a drawing are small")]
const fn seconds(millis: i64) -> f64 {
    millis as f64 / 1_000.0
}

/// Watermarks of one partition by strategy: dense, then sparse.
fn strategies() -> Chart {
    let title = "One partition: event times as they arrive, and the watermark by strategy";
    let mut chart = Chart::new(title, ("time of arrival, s", "event time, s"), (0.0, 60.0), (0.0, 60.0));
    let records = Stream::new(11).dense_then_sparse();
    let late_share = PerMillion(20_000);
    let strategies = [
        ("bounded, delay 8 s", BLUE, WatermarkStrategy::Bounded { delay: Span(8_000) }),
        ("sliding_min, span 6 s", GREEN, WatermarkStrategy::SlidingMin { span: Span(6_000), delay: Span(0) }),
        (
            "adaptive, 2 % late, at most 12 s",
            ORANGE,
            WatermarkStrategy::Adaptive { late: late_share, min_delay: Span(0), max_delay: Span(12_000) },
        ),
    ];
    let every_eighth = records.iter().enumerate().filter(|(n, (at, _))| n % 8 == 0 || *at > 40_000);
    let shown: Vec<_> = every_eighth.map(|(_, (at, time))| (seconds(*at), seconds(*time))).collect();
    chart.dots("records (dense: every eighth)", GREY, &shown);
    for (name, colour, strategy) in strategies {
        let mut tracker = Tracker::new(strategy, Some(3), None);
        let mut line = Vec::new();
        for (at, time) in &records {
            tracker.observe(EventTime(*time));
            line.extend(tracker.watermark().map(|watermark| (seconds(*at), seconds(watermark.millis()))));
        }
        chart.steps(name, colour, &line);
    }
    chart
}

/// One record from a clock that is ahead, with and without a bound.
fn poisoned() -> Chart {
    let title = "One record 30 s ahead at 20 s: its partition with and without max_future_skew 5 s";
    let mut chart = Chart::new(title, ("time of arrival, s", "event time, s"), (0.0, 60.0), (0.0, 60.0));
    let mut records = Stream::new(5).live();
    records.push((20_000, 50_000));
    records.sort_by_key(|(at, _)| *at);
    let strategy = WatermarkStrategy::Bounded { delay: Span(2_000) };
    let (mut bound, mut free) =
        (Tracker::new(strategy, Some(3), None), Tracker::new(strategy, Some(3), None));
    let (mut with, mut without, mut candidate, mut late) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for (at, time) in &records {
        if Some(EventTime(*time)) < free.watermark() {
            late.push((seconds(*at), seconds(*time)));
        }
        free.observe(EventTime(*time));
        if *time <= at + 5_000 {
            bound.observe(EventTime(*time));
        }
        let point = |time: Option<EventTime>| time.map(|time| (seconds(*at), seconds(time.millis())));
        with.extend(point(bound.watermark()));
        without.extend(point(free.watermark()));
        candidate.extend(point(free.candidate()));
    }
    let shown: Vec<_> = records.iter().map(|(at, time)| (seconds(*at), seconds(*time))).collect();
    chart.dots("records", GREY, &shown);
    chart.dots("late without the bound", RED, &late);
    chart.steps("watermark without", RED, &without);
    chart.steps("largest event time believed in", ORANGE, &candidate);
    chart.steps("watermark with the bound", BLUE, &with);
    chart
}

/// A silent partition: idle after the timeout, and back at its own time.
fn idle() -> Chart {
    let title = "Two partitions: one falls silent at 20 s, idle_timeout 10 s, and comes back at 42 s";
    let mut chart = Chart::new(title, ("time, s", "event time, s"), (0.0, 60.0), (0.0, 60.0));
    chart.span(20.0, 30.0, "silent: holds");
    chart.span(30.5, 42.0, "idle: does not count");
    let [first, second, global] = runs::silence();
    chart.steps("watermark of the one that goes on", GREY, &first);
    chart.steps("watermark of the silent one", ORANGE, &second);
    chart.steps("global watermark", BLUE, &global);
    chart
}

/// Open windows while a backlog is read whose partitions are hours apart.
fn drift() -> Chart {
    let title = "A backlog of 4 partitions, 0 to 6 hours apart: windows of a minute that are open";
    let (free, bound) = (Backlog::new(None).run(), Backlog::new(Some(Span(600_000))).run());
    let most = |windows: &[(f64, f64)]| windows.iter().map(|(_, open)| *open).fold(0.0, f64::max);
    let last = free.last().map_or(1.0, |(at, _)| *at).max(bound.last().map_or(1.0, |(at, _)| *at));
    println!("drift: peak open windows {} without a bound, {} with max_drift 10m", most(&free), most(&bound));
    let mut chart =
        Chart::new(title, ("records read, thousands", "open windows"), (0.0, last), (0.0, most(&free)));
    chart.line("no bound", RED, &free);
    chart.line("max_drift 10 minutes", BLUE, &bound);
    chart
}
