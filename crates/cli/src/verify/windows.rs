//! Windows and sessions by definition.

use std::collections::BTreeMap;

use tidegate_core::job::{SessionSpec, WindowSpec};
use tidegate_job::Job;

use super::{Inputs, Parsed, local};

/// Key, start, end.
pub(super) type Window = (String, i64, i64);

/// Start and end of each window that holds `time`, by definition.
pub(super) fn windows_of(spec: &WindowSpec, time: i64) -> Vec<(i64, i64)> {
    let (size, step, offset) = (spec.size.millis(), spec.step.millis(), spec.offset.millis());
    if let Some(zone) = spec.zone {
        return local::windows(zone.name(), (size, step, offset), time);
    }
    let last_start = (time - offset).div_euclid(step) * step + offset;
    let mut windows: Vec<_> = (0..)
        .map(|back| last_start - back * step)
        .take_while(|start| start + size > time)
        .map(|start| (start, start + size))
        .collect();
    windows.reverse();
    windows
}

pub(super) fn apply(
    job: &Job,
    spec: &WindowSpec,
    place: (u32, u64),
    parsed: &Parsed,
    windows: &mut BTreeMap<Window, Inputs>,
) {
    for (start, end) in windows_of(spec, parsed.time) {
        let window = (parsed.key.clone(), start, end);
        let inputs = windows.entry(window).or_default();
        inputs.add(job, &parsed.value, (parsed.time, place.0, place.1));
    }
}

/// The end of a session whose last record is at `time`.
pub(super) fn session_end(spec: &SessionSpec, time: i64) -> i64 {
    let end = time.saturating_add(spec.gap.millis());
    let cut =
        spec.cut.map(|cut| time.div_euclid(cut.millis()).saturating_add(1).saturating_mul(cut.millis()));
    cut.map_or(end, |cut| cut.min(end))
}

/// The sessions by definition: a record at or after the end of what its key has so far begins a new one.
pub(super) fn sessions(
    spec: &SessionSpec,
    records: BTreeMap<(String, i64), Inputs>,
) -> BTreeMap<Window, Inputs> {
    let mut sessions = BTreeMap::new();
    let mut open: Option<(Window, Inputs)> = None;
    for ((key, time), inputs) in records {
        match &mut open {
            Some(((of, _, end), joined)) if *of == key && time < *end => {
                *end = session_end(spec, time);
                joined.join(inputs);
            }
            _ => {
                let end = session_end(spec, time);
                sessions.extend(open.replace(((key, time, end), inputs)));
            }
        }
    }
    sessions.extend(open);
    sessions
}
