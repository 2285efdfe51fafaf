//! Time zones by their IANA names, with the rules that are built into the program: it does not depend on the machine's.

use std::sync::{Mutex, PoisonError};

use jiff::{
    Timestamp,
    tz::{Offset, TimeZoneDatabase},
};
use tidegate_core::{
    time::{EventTime, Span},
    zone::ZoneTable,
};

/// Changes of the offset are known up to this year; what comes later is as it was then.
const LAST_YEAR: i16 = 2500;

/// The zones that this process has used; each stays, so that windows can refer to it. There are some hundreds of names.
static KNOWN: Mutex<Vec<&'static ZoneTable>> = Mutex::new(Vec::new());

/// The zone called `name`; `None` where there is none.
#[must_use]
pub fn zone(name: &str) -> Option<&'static ZoneTable> {
    let zone = TimeZoneDatabase::bundled().get(name).ok()?;
    // As the database spells it: the name is part of the fingerprint.
    let name = zone.iana_name()?;
    let mut known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(table) = known.iter().find(|table| table.name() == name) {
        return Some(table);
    }
    let changes = zone
        .following(Timestamp::MIN)
        .map(|change| (change.timestamp(), change.offset()))
        .take_while(|(at, _)| at.to_zoned(jiff::tz::TimeZone::UTC).year() <= LAST_YEAR)
        .map(|(at, offset)| (EventTime(at.as_millisecond()), millis(offset)));
    let table = ZoneTable::new(name, millis(zone.to_offset(Timestamp::MIN)), changes);
    let table: &'static ZoneTable = Box::leak(Box::new(table));
    known.push(table);
    Some(table)
}

/// The names of all zones.
pub(crate) fn names() -> Vec<String> {
    TimeZoneDatabase::bundled().available().map(|name| name.as_str().to_owned()).collect()
}

fn millis(offset: Offset) -> Span {
    Span(i64::from(offset.seconds()) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;
    use jiff::ToSpan;
    use proptest::prelude::*;
    use tidegate_core::{job::WindowSpec, window::Grid};

    /// With DST, without, half hours, half-hour DST, DST at midnight, back over midnight, a day left out.
    const ZONES: [&str; 10] = [
        "UTC",
        "Europe/Berlin",
        "America/New_York",
        "Asia/Kolkata",
        "Australia/Lord_Howe",
        "America/Sao_Paulo",
        "America/Havana",
        "Pacific/Apia",
        "Asia/Beirut",
        "Africa/Casablanca",
    ];
    const DAY: i64 = 86_400_000;

    fn grid(zone_name: &str, size: i64) -> Grid {
        let zone = zone(zone_name);
        assert!(zone.is_some(), "{zone_name}");
        Grid::new(&WindowSpec { size: Span(size), step: Span(size), offset: Span(0), zone })
    }

    #[test]
    fn the_day_on_which_clocks_change_has_23_or_25_hours() {
        let grid = grid("Europe/Berlin", DAY);
        for (noon, hours) in
            [("2025-03-30T12:00:00Z", 23), ("2025-10-26T12:00:00Z", 25), ("2025-07-01T12:00:00Z", 24)]
        {
            let noon: Timestamp = noon.parse().unwrap();
            let (start, end) = grid.slice_around(EventTime(noon.as_millisecond()));
            assert_eq!(end.since(start), Span(hours * 3_600_000), "{noon}");
        }
    }

    #[test]
    fn a_name_is_known_however_it_is_spelt_and_each_zone_is_there_once() {
        let (one, other) = (zone("europe/berlin").unwrap(), zone("Europe/Berlin").unwrap());
        assert!(std::ptr::eq(one, other));
        assert_eq!(one.name(), "Europe/Berlin");
        assert_eq!(zone("Europe/Bern"), None);
    }

    proptest! {
        #[test]
        fn a_local_day_is_that_of_the_calendar(
            at in 0..ZONES.len(), seconds in -2_000_000_000_i64..13_000_000_000
        ) {
            let tz = TimeZoneDatabase::bundled().get(ZONES[at]).unwrap();
            let time = Timestamp::from_second(seconds).unwrap();
            let day = time.to_zoned(tz.clone());
            let (start, end) = grid(ZONES[at], DAY).slice_around(EventTime(time.as_millisecond()));
            prop_assert_eq!(start.millis(), day.start_of_day().unwrap().timestamp().as_millisecond());
            let next = day.date().checked_add(1.day()).unwrap().to_zoned(tz).unwrap().start_of_day().unwrap();
            prop_assert_eq!(end.millis(), next.timestamp().as_millisecond());
        }
    }
}
