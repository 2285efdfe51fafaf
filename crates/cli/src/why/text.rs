//! The answer as text for people.

use std::fmt::Write;

use super::watermark::{GlobalWatermark, Holder};
use super::{Answer, KeyAnswer, RecordFate, RecordWindow, ShardState, WindowAnswer};
use crate::moment::{moment, span, watermark};

/// Partitions that are told of one by one.
const SHOWN: usize = 8;

/// The whole answer.
pub(crate) fn render(answer: &Answer) -> String {
    let mut out = String::new();
    if let Some(record) = &answer.record {
        let _ = record_text(&mut out, record);
    }
    if let Some(key) = &answer.key {
        let _ = key_text(&mut out, key);
    }
    if let Some(window) = &answer.window {
        let _ = window_text(&mut out, window);
    }
    if let Some(shard) = &answer.shard {
        let _ = shard_text(&mut out, shard);
    }
    let _ = watermark_text(&mut out, &answer.job, &answer.watermark);
    for note in &answer.notes {
        let _ = writeln!(out, "note: {note}");
    }
    out
}

fn watermark_text(out: &mut String, job: &str, w: &GlobalWatermark) -> std::fmt::Result {
    writeln!(out, "job {job}: watermark W is {}", watermark(w.watermark_ms))?;
    if let Some(ms) = w.watermark_ms {
        let behind = w.clock_ms.saturating_sub(ms);
        write!(out, "  {}", beside_clock(behind))?;
        if let Some(stands) = w.stands_for_ms {
            write!(out, "; it has stood there for {}", span(stands))?;
        }
        if let Some(pace) = w.pace_ms_per_second {
            write!(out, "; over the last minute it moved {} of event time a second", span(pace))?;
        }
        writeln!(out)?;
    }
    writeln!(out, "  {}", w.verdict)?;
    for holder in w.holders.iter().take(SHOWN) {
        holder_text(out, holder)?;
    }
    if w.holders.len() > SHOWN {
        writeln!(out, "  … and {} more (`--json` shows all)", w.holders.len() - SHOWN)?;
    }
    Ok(())
}

fn holder_text(out: &mut String, holder: &Holder) -> std::fmt::Result {
    let Holder { partition, state, position, lag, .. } = holder;
    let since = holder.since_ms.map(|ms| format!(" for {}", span(ms))).unwrap_or_default();
    writeln!(
        out,
        "  partition {partition}: {state}{since}, position {position}, lag {lag}, watermark {}",
        watermark(holder.watermark_ms)
    )?;
    writeln!(out, "    why: {}", holder.why)?;
    writeln!(out, "    released by: {}", holder.release)?;
    if let (Some(newest), Some(behind)) = (holder.newest_ms, holder.behind_clock_ms) {
        writeln!(out, "    newest event time: {}, {}", moment(newest), beside_clock(behind))?;
    }
    if let Some(delay) = holder.delay_ms {
        let learning = if holder.learning { ", the most it may: it has not seen enough yet" } else { "" };
        writeln!(out, "    delay in force: {}{learning}", span(delay))?;
    }
    if let (Some(median), Some(most)) = (holder.skew_p50_ms, holder.skew_p99_ms) {
        writeln!(
            out,
            "    skew of its records of late: median {}, 99th percentile {}",
            beside_clock(median),
            beside_clock(most)
        )?;
    }
    Ok(())
}

/// A distance to the clock, negative for what is ahead.
fn beside_clock(behind: i64) -> String {
    let side = if behind < 0 { "ahead of" } else { "behind" };
    format!("{} {side} the clock", span(behind.unsigned_abs()))
}

fn shard_text(out: &mut String, shard: &ShardState) -> std::fmt::Result {
    let owner = shard.worker.as_ref().map(|worker| format!(" of worker `{worker}`")).unwrap_or_default();
    writeln!(out, "shard {}{owner}: {}", shard.shard, shard.verdict)?;
    if shard.unknown_because.is_some() {
        return Ok(());
    }
    writeln!(
        out,
        "  its watermark is {}, W as it knows it {}",
        watermark(shard.watermark_ms),
        watermark(shard.announced_ms)
    )?;
    for holder in shard.holders.iter().take(SHOWN) {
        let read = holder.read_to.map(|to| format!(" of {to} read")).unwrap_or_default();
        writeln!(
            out,
            "  it waits for partition {}: covered up to offset {}{read}, watermark there {}",
            holder.partition,
            holder.next,
            watermark(holder.in_band_ms)
        )?;
    }
    Ok(())
}

fn key_text(out: &mut String, key: &KeyAnswer) -> std::fmt::Result {
    writeln!(out, "key `{}`: {}", key.key, key.verdict)?;
    for window in &key.windows {
        writeln!(
            out,
            "  window {} to {}: {}, {} records",
            moment(window.start_ms),
            moment(window.end_ms),
            window.state,
            window.records
        )?;
        if !window.values.is_empty() {
            let values: Vec<_> =
                window.values.iter().map(|(name, value)| format!("{name}={value}")).collect();
            writeln!(out, "    now: {}", values.join(" "))?;
        }
        writeln!(
            out,
            "    {}: {}",
            if window.state == "open" { "closes" } else { "result" },
            window.expected
        )?;
    }
    let shown = key.windows.len() as u64;
    if key.windows_total > shown && shown > 1 {
        writeln!(out, "  … and {} more", key.windows_total - shown)?;
    }
    Ok(())
}

fn window_text(out: &mut String, window: &WindowAnswer) -> std::fmt::Result {
    writeln!(
        out,
        "window {} to {}, closes: {}",
        moment(window.start_ms),
        moment(window.end_ms),
        window.expected
    )?;
    for result in &window.results {
        writeln!(out, "  result: {result}")?;
    }
    Ok(())
}

fn record_text(out: &mut String, record: &RecordFate) -> std::fmt::Result {
    writeln!(out, "record at partition {} offset {}: {}", record.partition, record.offset, record.verdict)?;
    if let Some(time) = record.event_time_ms {
        let key = record.key.as_ref().map(|key| format!(", key `{key}`")).unwrap_or_default();
        let shard = record.shard.map(|shard| format!(", shard {shard}")).unwrap_or_default();
        writeln!(out, "  event time {}{key}{shard}", moment(time))?;
    }
    if let Some(letter) = &record.dead_letter {
        if let (Some(from), Some(to)) = (letter.missed_from_ms, letter.missed_to_ms) {
            writeln!(out, "  it missed the windows from {} to {}", moment(from), moment(to))?;
        }
        writeln!(
            out,
            "  the dead letter is at partition {} offset {}",
            letter.dead_partition, letter.dead_offset
        )?;
    }
    for RecordWindow { start_ms, end_ms, open_records, results } in &record.windows {
        let now = match open_records {
            Some(records) => format!("open, with {records} records of the key"),
            None if results.is_empty() => "closed; its result is not in the topic (any more)".to_owned(),
            None => "closed".to_owned(),
        };
        writeln!(out, "  window {} to {}: {now}", moment(*start_ms), moment(*end_ms))?;
        for result in results {
            writeln!(out, "    result: {result}")?;
        }
    }
    Ok(())
}
