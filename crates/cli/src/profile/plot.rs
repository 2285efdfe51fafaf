//! The report as a picture: the share of late records against the delay, and how far event times are from timestamps over time.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::BufWriter;
use std::ops::Range;
use std::path::Path;
use std::sync::Once;

use anyhow::{Result, bail};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint, Ranged};
use plotters::prelude::*;
use plotters::style::{FontStyle, register_font};
use tidegate_core::time::{EventTime, Partition, Span};

use super::measure::{PartitionMeasure, as_float, quantile};
use super::report::Report;
use super::words;

const SIZE: (u32, u32) = (1200, 900);
/// Latin letters, digits and what else the pictures say, of DejaVu Sans; so that a picture is the same on every machine.
const FONT: &[u8] = include_bytes!("../../assets/dejavu-sans.ttf");
const FAMILY: &str = "DejaVu Sans";
/// Steps of the delay axis.
const POINTS: u32 = 240;
/// Stretches of the time axis.
const STRETCHES: usize = 160;
/// So many partitions have a line of their own; of more there are only all together and the worst.
const MOST_LINES: usize = 12;

const INK: RGBColor = RGBColor(40, 44, 52);
const FAINT: RGBColor = RGBColor(225, 228, 232);
const ADVICE: RGBColor = RGBColor(200, 40, 40);
const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(23, 190, 207),
    RGBColor(140, 86, 75),
];

/// How a picture is written.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Svg,
    Png,
}

impl Kind {
    /// By the end of the file's name.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        match path.extension().and_then(|end| end.to_str()) {
            Some("svg") => Ok(Self::Svg),
            Some("png") => Ok(Self::Png),
            _ => bail!("--plot: `{}` ends neither in .svg nor in .png", path.display()),
        }
    }
}

/// Draws into a file.
pub(crate) fn draw(
    path: &Path,
    kind: Kind,
    report: &Report,
    measured: &BTreeMap<Partition, PartitionMeasure>,
) -> Result<()> {
    static FONTS: Once = Once::new();
    FONTS.call_once(|| {
        // Only bytes that are no font are refused, and these are one.
        let _ = register_font(FAMILY, FontStyle::Normal, FONT);
    });
    match kind {
        Kind::Svg => {
            let mut text = String::new();
            both(&SVGBackend::with_string(&mut text, SIZE).into_drawing_area(), report, measured)?;
            std::fs::write(path, text)?;
        }
        Kind::Png => {
            let (width, height) = SIZE;
            let mut pixels = vec![0; usize::try_from(width * height * 3)?];
            both(&BitMapBackend::with_buffer(&mut pixels, SIZE).into_drawing_area(), report, measured)?;
            let mut encoder = png::Encoder::new(BufWriter::new(File::create(path)?), width, height);
            encoder.set_color(png::ColorType::Rgb);
            encoder.set_depth(png::BitDepth::Eight);
            encoder.write_header()?.write_image_data(&pixels)?;
        }
    }
    Ok(())
}

fn both<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    report: &Report,
    measured: &BTreeMap<Partition, PartitionMeasure>,
) -> Result<()> {
    let drawn = |error: &dyn std::fmt::Display| anyhow::anyhow!("{error}");
    area.fill(&WHITE).map_err(|error| drawn(&error))?;
    let area = area.margin(14, 0, 0, 24);
    let title =
        format!("{}: {} records, {} partitions", report.topic, report.records, report.partitions.len());
    let area = area.titled(&title, (FAMILY, 26).into_font().color(&INK)).map_err(|error| drawn(&error))?;
    let (upper, lower) = area.split_vertically(430);
    late_shares(&upper, report, measured).map_err(|error| drawn(&error))?;
    skew(&lower, measured).map_err(|error| drawn(&error))?;
    area.present().map_err(|error| drawn(&error))
}

type Drawn<B> = Result<(), DrawingAreaErrorKind<<B as DrawingBackend>::ErrorType>>;

fn late_shares<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    report: &Report,
    measured: &BTreeMap<Partition, PartitionMeasure>,
) -> Drawn<B> {
    let timed: Vec<_> = measured.iter().filter(|(_, partition)| partition.timed > 0).collect();
    let worst = timed.iter().map(|(_, partition)| partition.lateness_at(1.0)).max().unwrap_or_default();
    let most = (float(worst.millis()).max(10.0) * 1.6).log10();
    // Below the least lateness there is nothing to see.
    let from = timed.iter().filter_map(|(_, partition)| partition.least_lateness()).min();
    let from = float(from.map_or(1, Span::millis).max(1)).log10().floor().min(most - 1.0);
    let all = timed.iter().map(|(_, partition)| partition.timed).sum::<u64>();
    let least = (0.5 / as_float(all.max(1))).log10().min((report.target / 2.0).max(1e-9).log10()).max(-7.0);
    let mut chart = ChartBuilder::on(area)
        .caption("share of late records with a delay of \u{3b4}", (FAMILY, 18).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(80)
        .build_cartesian_2d(
            Axis { range: from..most, ticks: delay_ticks(from, most) },
            Axis { range: least..0.0, ticks: share_ticks(least) },
        )?;
    chart
        .configure_mesh()
        .label_style((FAMILY, 15).into_font().color(&INK))
        .axis_style(INK)
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .x_label_formatter(&|exponent| words::span(Span(whole(10_f64.powf(*exponent)))))
        .y_label_formatter(&|exponent| words::percent(10_f64.powi(small(*exponent))))
        .x_desc("\u{3b4}")
        .draw()?;
    let delays = (0..=POINTS).map(|point| from + (most - from) * f64::from(point) / f64::from(POINTS));
    let delays: Vec<_> = delays.map(|exponent| (exponent, Span(whole(10_f64.powf(exponent))))).collect();
    let line = |late: &dyn Fn(Span) -> f64| -> Vec<(f64, f64)> {
        let shares = delays.iter().map(|(at, delay)| (*at, late(*delay)));
        shares
            .take_while(|(_, share)| *share > 0.0)
            .map(|(at, share)| (at, share.log10().max(least)))
            .collect()
    };
    if timed.len() <= MOST_LINES {
        for ((partition, measure), colour) in timed.iter().zip(COLOURS.iter().cycle()) {
            let points = line(&|delay| measure.share(measure.late(delay)));
            let (colour, width) = (*colour, if timed.len() > 1 { 2 } else { 3 });
            chart
                .draw_series(LineSeries::new(points, colour.stroke_width(width)))?
                .label(format!("partition {partition}"))
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
        }
    } else if let Some((worst, measure)) =
        timed.iter().max_by_key(|(_, measure)| measure.delay_for(report.target))
    {
        let points = line(&|delay| measure.share(measure.late(delay)));
        let colour = COLOURS[0];
        chart
            .draw_series(LineSeries::new(points, colour.stroke_width(2)))?
            .label(format!("partition {worst}, the worst"))
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    if timed.len() > 1 {
        let late = |delay| timed.iter().map(|(_, measure)| measure.late(delay)).sum::<u64>();
        let points = line(&|delay| as_float(late(delay)) / as_float(all.max(1)));
        chart
            .draw_series(LineSeries::new(points, INK.stroke_width(3)))?
            .label("all")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], INK.stroke_width(3)));
    }
    if report.target > 0.0 {
        let target = report.target.log10().max(least);
        chart.draw_series(DashedLineSeries::new(
            [(from, target), (most, target)],
            6,
            5,
            ADVICE.mix(0.6).stroke_width(1),
        ))?;
    }
    if let Some(delay) = report.recommended.delay {
        let at = float(delay.max(1)).log10();
        chart
            .draw_series(LineSeries::new([(at, least), (at, 0.0)], ADVICE.stroke_width(2)))?
            .label(format!("recommended: {}", words::span(Span(delay))))
            .legend(|(x, y)| PathElement::new([(x, y), (x + 18, y)], ADVICE.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(FAINT)
        .label_font((FAMILY, 14).into_font().color(&INK))
        .draw()
}

/// Delays at which the axis has a line.
const TICKS: [i64; 20] = [
    1,
    10,
    100,
    1_000,
    10_000,
    60_000,
    600_000,
    3_600_000,
    6 * 3_600_000,
    86_400_000,
    7 * 86_400_000,
    30 * 86_400_000,
    365 * 86_400_000,
    5,
    50,
    500,
    5_000,
    30_000,
    300_000,
    1_800_000,
];

/// An axis with lines where we want them.
struct Axis {
    range: Range<f64>,
    ticks: Vec<f64>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (low, high): (i32, i32)) -> i32 {
        let share = (value - self.range.start) / (self.range.end - self.range.start);
        small(f64::from(low) + share * f64::from(high - low))
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // The bold lines have labels; there are no others.
        if hint.bold_points() > 0 { self.ticks.clone() } else { Vec::new() }
    }

    fn range(&self) -> Range<f64> {
        self.range.clone()
    }
}

fn delay_ticks(from: f64, most: f64) -> Vec<f64> {
    // Over many decades every second tick would be too much.
    let count = if most - from > 4.0 { 13 } else { TICKS.len() };
    let ticks = TICKS.into_iter().take(count).map(|millis| float(millis).log10());
    ticks.filter(|tick| (from..=most).contains(tick)).collect()
}

fn share_ticks(least: f64) -> Vec<f64> {
    (0..8).map(|power| -f64::from(power)).filter(|tick| *tick >= least).collect()
}

/// About eight lines between two lengths of time, at lengths that people use.
fn span_ticks(low: f64, high: f64) -> Vec<f64> {
    let step = words::nice(Span(whole((high - low) / 9.0).max(1))).millis();
    let first = whole(low).div_euclid(step).saturating_add(1);
    (first..)
        .map(|number| float(number.saturating_mul(step)))
        .take_while(|tick| *tick <= high)
        .take(40)
        .collect()
}

/// One stretch of time: middle and bounds of the event times' distance from the timestamps.
struct Stretch {
    at: i64,
    least: i64,
    median: i64,
    most: i64,
}

fn skew<B: DrawingBackend>(
    area: &DrawingArea<B, Shift>,
    measured: &BTreeMap<Partition, PartitionMeasure>,
) -> Drawn<B> {
    let stretches = stretches(measured.values().flat_map(|partition| &partition.skews).copied());
    let caption =
        "event time minus the record's timestamp, over its timestamp: all records, and their median";
    let (Some(first), Some(last)) = (stretches.first(), stretches.last()) else {
        return empty(area, "the records have no timestamps: there is no skew to show");
    };
    if stretches.iter().all(|stretch| stretch.least == 0 && stretch.most == 0) {
        return empty(area, "event times are the records' timestamps: there is no skew to show");
    }
    let least = stretches.iter().map(|stretch| stretch.least).min().unwrap_or(0);
    let most = stretches.iter().map(|stretch| stretch.most).max().unwrap_or(0);
    let room = float(most.saturating_sub(least)).max(10.0) * 0.06;
    // Zero is in the picture unless all is far from it.
    let near = |edge: i64| float(edge).abs() < 2.0 * float(most.saturating_sub(least));
    let low = if near(least) { least.min(0) } else { least };
    let high = if near(most) { most.max(0) } else { most };
    let (low, high) = (float(low) - room, float(high) + room);
    let (from, to) = (float(first.at), float(last.at.max(first.at.saturating_add(1))));
    let long = to - from > 3.0 * 86_400_000.0;
    let mut chart = ChartBuilder::on(area)
        .caption(caption, (FAMILY, 18).into_font().color(&INK))
        .margin(12)
        .x_label_area_size(34)
        .y_label_area_size(80)
        .build_cartesian_2d(from..to, Axis { range: low..high, ticks: span_ticks(low, high) })?;
    chart
        .configure_mesh()
        .label_style((FAMILY, 15).into_font().color(&INK))
        .axis_style(INK)
        .light_line_style(TRANSPARENT)
        .bold_line_style(FAINT)
        .x_labels(6)
        .x_label_formatter(&|millis| {
            let text = words::time(EventTime(whole(*millis)));
            let (day, clock) = text.split_once('T').unwrap_or((&text, ""));
            if long { day.to_owned() } else { clock.trim_end_matches('Z').to_owned() }
        })
        .y_label_formatter(&|millis| words::span(Span(whole(*millis))))
        .draw()?;
    let upper = stretches.iter().map(|stretch| (float(stretch.at), float(stretch.most)));
    let lower = stretches.iter().rev().map(|stretch| (float(stretch.at), float(stretch.least)));
    chart.draw_series([Polygon::new(upper.chain(lower).collect::<Vec<_>>(), COLOURS[0].mix(0.25))])?;
    let median: Vec<_> = stretches.iter().map(|stretch| (float(stretch.at), float(stretch.median))).collect();
    chart.draw_series(LineSeries::new(median, COLOURS[0].stroke_width(2)))?;
    if low < 0.0 && high > 0.0 {
        chart.draw_series(LineSeries::new([(from, 0.0), (to, 0.0)], INK.stroke_width(1)))?;
    }
    Ok(())
}

fn empty<B: DrawingBackend>(area: &DrawingArea<B, Shift>, text: &str) -> Drawn<B> {
    area.draw_text(text, &(FAMILY, 18).into_font().color(&INK), (60, 60))
}

/// Timestamps and skews, in stretches of time of the same length.
fn stretches(records: impl Iterator<Item = (i64, i64)>) -> Vec<Stretch> {
    let mut records: Vec<_> = records.collect();
    records.sort_unstable();
    let (Some((first, _)), Some((last, _))) = (records.first(), records.last()) else { return Vec::new() };
    let count = i64::try_from(STRETCHES).unwrap_or(1);
    let length = last.saturating_sub(*first).div_euclid(count).saturating_add(1);
    let number = |at: i64| at.saturating_sub(*first).div_euclid(length);
    records
        .chunk_by(|(a, _), (b, _)| number(*a) == number(*b))
        .filter_map(|stretch| {
            let mut skews: Vec<_> = stretch.iter().map(|(_, skew)| *skew).collect();
            skews.sort_unstable();
            Some(Stretch {
                at: stretch.first()?.0,
                least: *skews.first()?,
                median: quantile(&skews, 0.5)?,
                most: *skews.last()?,
            })
        })
        .collect()
}

fn float(millis: i64) -> f64 {
    millis as f64
}

#[allow(clippy::cast_possible_truncation, reason = "a picture's labels are whole numbers")]
fn whole(value: f64) -> i64 {
    value.round() as i64
}

#[allow(clippy::cast_possible_truncation, reason = "pixels, and powers of ten of a share")]
fn small(value: f64) -> i32 {
    value.round() as i32
}
