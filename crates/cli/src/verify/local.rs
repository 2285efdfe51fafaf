//! Windows of local time by definition, from the calendar and not from the table that the services use.

use jiff::{
    SignedDuration, Timestamp,
    tz::{AmbiguousOffset, TimeZone, TimeZoneDatabase},
};

/// Start and end of each window `[k·step + offset, k·step + offset + size)` of local time that holds `time`, ascending; of those that
/// end together the longest. Without the zone, or where times are out of the calendar's range, there are none.
pub(super) fn windows(zone: &str, (size, step, offset): (i64, i64, i64), time: i64) -> Vec<(i64, i64)> {
    const DAY: i64 = 86_400_000;
    let Ok(zone) = TimeZoneDatabase::bundled().get(zone) else { return Vec::new() };
    let mut windows: Vec<(i64, i64)> = Vec::new();
    // Local time is at most a day away from UTC, and a day may be left out.
    let mut local = (time - size - 3 * DAY - offset).div_euclid(step) * step + offset;
    while local <= time + 2 * DAY {
        if let (Some(start), Some(end)) = (instant(&zone, local), instant(&zone, local + size))
            && start <= time
            && time < end
            && windows.last().is_none_or(|(_, last)| *last < end)
        {
            windows.push((start, end));
        }
        local += step;
    }
    windows
}

/// The first instant at which clocks show `local` or later.
fn instant(zone: &TimeZone, local: i64) -> Option<i64> {
    let shown = Timestamp::from_millisecond(local).ok()?.to_zoned(TimeZone::UTC).datetime();
    let before = |offset: jiff::tz::Offset| local - i64::from(offset.seconds()) * 1_000;
    Some(match zone.to_ambiguous_timestamp(shown).offset() {
        AmbiguousOffset::Unambiguous { offset } => before(offset),
        AmbiguousOffset::Fold { before: offset, .. } => before(offset),
        // Clocks are set forward over it.
        AmbiguousOffset::Gap { after, .. } => {
            let earlier = Timestamp::from_millisecond(before(after)).ok()? - SignedDuration::from_millis(1);
            zone.following(earlier).next()?.timestamp().as_millisecond()
        }
    })
}
