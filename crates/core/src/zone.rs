//! Local time: the offsets of a time zone from UTC, as a table. Where the table comes from is not known here.
//!
//! Windows of local days lie on a grid of local time. Local time goes back where clocks are set back and skips where they are set
//! forward, so it is no order. What is, is how far local time has come at all:
//!
//! ```text
//! reached(t) = the largest local time shown up to t        instant(b) = the first t at which local time b is reached
//!
//! instant(b) ≤ t  exactly where  b ≤ reached(t)
//! ```
//! so that arithmetic on local time says which instants lie in which window (property-tested against the definition).

use std::fmt;

use crate::time::{EventTime, Span};

/// The offsets of a time zone. Compared by name and offsets.
#[derive(Clone, PartialEq, Eq)]
pub struct ZoneTable {
    name: String,
    periods: Vec<Period>,
    /// Largest less smallest offset.
    spread: i64,
}

/// From one change of the offset to the next; all in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Period {
    from: i64,
    offset: i64,
    /// The largest local time shown before it.
    before: i64,
}

impl Period {
    fn reached(self, time: i64) -> i64 {
        self.before.max(time.saturating_add(self.offset))
    }
}

impl ZoneTable {
    /// A zone that is `first` ahead of UTC, and from each of the `changes`, which ascend, as far ahead as it says.
    #[must_use]
    pub fn new(name: &str, first: Span, changes: impl IntoIterator<Item = (EventTime, Span)>) -> Self {
        let mut last = Period { from: i64::MIN, offset: first.0, before: i64::MIN };
        let mut periods = vec![last];
        for (from, offset) in changes {
            last = Period { from: from.0, offset: offset.0, before: last.reached(from.0.saturating_sub(1)) };
            periods.push(last);
        }
        let offsets = periods.iter().map(|period| period.offset);
        let spread = offsets.clone().max().unwrap_or(0) - offsets.min().unwrap_or(0);
        Self { name: name.to_owned(), periods, spread }
    }

    /// Its name, as in `Europe/Berlin`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// By how much a window of local time may be longer than its size says.
    #[must_use]
    pub const fn spread(&self) -> Span {
        Span(self.spread)
    }

    /// The largest local time shown up to `time`, in ms since local midnight of 1970-01-01.
    #[must_use]
    pub fn reached(&self, time: EventTime) -> i64 {
        let after = self.periods.partition_point(|period| period.from <= time.0);
        let period = self.periods.get(after.saturating_sub(1));
        period.map_or(time.0, |period| period.reached(time.0))
    }

    /// The first instant at which local time `local` is reached.
    #[must_use]
    pub fn instant(&self, local: i64) -> EventTime {
        let after = self.periods.partition_point(|period| period.reached(period.from) < local);
        let at = after.saturating_sub(1);
        let Some(period) = self.periods.get(at) else { return EventTime(local) };
        let time = local.saturating_sub(period.offset);
        // Where clocks are set forward over it, it is reached when they are.
        EventTime(self.periods.get(at + 1).map_or(time, |next| time.min(next.from)))
    }
}

impl fmt::Debug for ZoneTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Zones with changes of the offset, not closer together than by their own size.
    pub(crate) fn zones() -> impl Strategy<Value = &'static ZoneTable> {
        let changes = prop::collection::vec((20i64..200, -30i64..30), 0..6);
        (-30i64..30, changes).prop_map(|(first, changes)| {
            let mut at = -300;
            let changes = changes.into_iter().map(|(gap, offset)| {
                at += gap;
                (EventTime(at), Span(offset))
            });
            &*Box::leak(Box::new(ZoneTable::new("Test/Zone", Span(first), changes)))
        })
    }

    #[test]
    fn a_local_time_that_comes_twice_is_reached_once_and_one_that_is_skipped_with_the_skip() {
        // At 100 from 20 ahead to 10 ahead, at 200 back.
        let zone = ZoneTable::new("", Span(20), [(EventTime(100), Span(10)), (EventTime(200), Span(20))]);
        let reached: Vec<_> = [99, 100, 109, 110, 199, 200].map(|time| zone.reached(EventTime(time))).into();
        assert_eq!(reached, [119, 119, 119, 120, 209, 220]);
        let instants: Vec<_> = [119, 120, 209, 210, 215, 220, 221].map(|local| zone.instant(local).0).into();
        assert_eq!(instants, [99, 110, 199, 200, 200, 200, 201]);
        assert_eq!(zone.spread(), Span(10));
    }

    proptest! {
        #[test]
        fn an_instant_is_the_first_at_which_a_local_time_is_reached(
            zone in zones(), time in -500i64..1_200, local in -600i64..1_300
        ) {
            let instant = zone.instant(local);
            prop_assert!(zone.reached(instant) >= local);
            prop_assert!(zone.reached(EventTime(instant.0 - 1)) < local);
            prop_assert_eq!(instant.0 <= time, local <= zone.reached(EventTime(time)));
        }
    }
}
