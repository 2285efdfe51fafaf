//! The grid of tumbling and hopping windows, and the slices that windows share.
//!
//! A hopping window is a run of slices of width gcd(size, step): a record goes into one slice whatever size/step is, and a
//! window is put together from its slices when it closes (Traub et al., "Scotty", and Flink's shared slices).
//!
//! ```text
//! size 6, step 4:   windows  [0      6)
//!                                [4      10)
//!                   slices   |--|--|--|--|--|   width 2
//! ```

use crate::{job::WindowSpec, time::EventTime, zone::ZoneTable};

/// Window and slice arithmetic of a [`WindowSpec`]; right for negative times, saturating at the ends of time.
///
/// With a time zone sizes, steps and offsets are of local time: a day has as many hours as it has there. Windows that end at the
/// same instant, because clocks were set forward over the end of one of them, are one window, the longest of them.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    size: i64,
    step: i64,
    offset: i64,
    slice: i64,
    zone: Option<&'static ZoneTable>,
}

impl Grid {
    /// The grid of `spec`, whose size and step are positive and step ≤ size (checked where the job file is read).
    #[must_use]
    pub fn new(spec: &WindowSpec) -> Self {
        let (size, step) = (spec.size.0.max(1), spec.step.0.max(1));
        Self { size, step, offset: spec.offset.0, slice: gcd(size, step), zone: spec.zone }
    }

    /// Start of the slice that holds `time`.
    #[must_use]
    #[inline]
    pub fn slice_of(&self, time: EventTime) -> EventTime {
        self.instant(floor_to(self.reached(time), self.slice, self.offset))
    }

    /// Start of the slice that holds `time`, and of the one behind it.
    #[must_use]
    #[inline]
    pub fn slice_around(&self, time: EventTime) -> (EventTime, EventTime) {
        let start = floor_to(self.reached(time), self.slice, self.offset);
        (self.instant(start), self.instant(start.saturating_add(self.slice)))
    }

    /// End of the earliest window that contains `time`.
    #[must_use]
    pub fn first_end(&self, time: EventTime) -> EventTime {
        self.next_end(time)
    }

    /// End of the last window that contains `time`.
    #[must_use]
    pub fn last_end(&self, time: EventTime) -> EventTime {
        self.instant(floor_to(self.reached(time), self.step, self.offset).saturating_add(self.size))
    }

    /// The smallest window end > `after`.
    #[must_use]
    pub fn next_end(&self, after: EventTime) -> EventTime {
        self.instant(self.next_local_end(after))
    }

    /// The largest window end ≤ `watermark`: records at or after it are in no closed window.
    #[must_use]
    pub fn last_closed_end(&self, watermark: EventTime) -> EventTime {
        self.instant(floor_to(self.reached(watermark), self.step, self.offset.wrapping_add(self.size)))
    }

    /// Start of the window that ends at `end`.
    #[must_use]
    pub fn start_of(&self, end: EventTime) -> EventTime {
        match self.zone {
            None => EventTime(end.0.saturating_sub(self.size)),
            Some(zone) => {
                let end = self.next_local_end(EventTime(end.0.saturating_sub(1)));
                zone.instant(end.saturating_sub(self.size))
            }
        }
    }

    /// Start of the earliest slice of which some window ends after `purged`.
    #[must_use]
    pub fn first_live_slice(&self, purged: EventTime) -> EventTime {
        let gone = self.reached(purged).saturating_sub(self.size);
        self.instant(floor_to(gone, self.step, self.offset).saturating_add(self.step))
    }

    /// Ends of all windows that contain `time`, ascending.
    pub fn ends_of(&self, time: EventTime) -> impl Iterator<Item = EventTime> + use<> {
        let (grid, last) = (*self, self.last_end(time));
        std::iter::successors(Some(self.first_end(time)), move |end| {
            (*end < last).then(|| grid.next_end(*end)).filter(|next| next > end)
        })
    }

    /// The smallest window end > `after`, in local time.
    fn next_local_end(&self, after: EventTime) -> i64 {
        let ends = self.offset.wrapping_add(self.size);
        floor_to(self.reached(after), self.step, ends).saturating_add(self.step)
    }

    #[inline]
    fn reached(&self, time: EventTime) -> i64 {
        self.zone.map_or(time.0, |zone| zone.reached(time))
    }

    #[inline]
    fn instant(&self, local: i64) -> EventTime {
        self.zone.map_or(EventTime(local), |zone| zone.instant(local))
    }
}

const fn floor_to(value: i64, width: i64, offset: i64) -> i64 {
    value.saturating_sub(value.wrapping_sub(offset).rem_euclid(width))
}

const fn gcd(a: i64, b: i64) -> i64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{time::Span, zone::tests::zones};
    use proptest::prelude::*;

    fn grid(size: i64, step: i64, offset: i64) -> Grid {
        local(size, step, offset, None)
    }

    fn local(size: i64, step: i64, offset: i64, zone: Option<&'static ZoneTable>) -> Grid {
        Grid::new(&WindowSpec { size: Span(size), step: Span(step), offset: Span(offset), zone })
    }

    #[test]
    fn tumbling_windows_are_half_open_and_floor_negative_times() {
        let grid = grid(10, 10, 0);
        assert_eq!(grid.first_end(EventTime(-1)), EventTime(0));
        assert_eq!(grid.first_end(EventTime(0)), EventTime(10));
        assert_eq!(grid.last_end(EventTime(9)), EventTime(10));
        assert_eq!(grid.last_closed_end(EventTime(19)), EventTime(10));
        assert_eq!(grid.last_closed_end(EventTime(20)), EventTime(20));
    }

    #[test]
    fn hopping_windows_share_slices_of_their_common_width() {
        let grid = grid(6, 4, 0);
        assert_eq!(grid.slice_around(EventTime(5)), (EventTime(4), EventTime(6)));
        let ends: Vec<_> = grid.ends_of(EventTime(5)).map(EventTime::millis).collect();
        assert_eq!(ends, [6, 10]);
        let ends: Vec<_> = grid.ends_of(EventTime(3)).map(EventTime::millis).collect();
        assert_eq!(ends, [6]);
    }

    proptest! {
        #[test]
        fn ends_are_those_of_the_definition(
            time in -10_000i64..10_000, step in 1i64..50, extra in 0i64..100, offset in -200i64..200
        ) {
            let size = step + extra;
            let grid = grid(size, step, offset);
            let by_definition: Vec<i64> = (-400_i64..400)
                .map(|k| k * step + offset + ((time - offset).div_euclid(step)) * step)
                .filter(|start| *start <= time && time < start + size)
                .map(|start| start + size)
                .collect();
            let mut expected = by_definition; expected.sort_unstable();
            let got: Vec<i64> = grid.ends_of(EventTime(time)).map(EventTime::millis).collect();
            prop_assert_eq!(got, expected);
        }

        /// By definition the windows of a zone are between the instants of their local starts and ends; those that end together are
        /// one, the longest.
        #[test]
        fn windows_of_a_zone_are_those_of_the_definition(
            zone in zones(), time in -500i64..1_200, step in 1i64..60, more in 0i64..4, offset in 0i64..60
        ) {
            let (size, offset) = (step * (1 + more), offset % step);
            let grid = local(size, step, offset, Some(zone));
            let mut expected: Vec<(i64, i64)> = Vec::new();
            for k in (-800 / step - more - 2)..(1_500 / step + 2) {
                let start = zone.instant(k * step + offset).0;
                let end = zone.instant(k * step + offset + size).0;
                if start <= time && time < end && expected.last().is_none_or(|(_, last)| *last < end) {
                    expected.push((start, end));
                }
            }
            let got: Vec<_> =
                grid.ends_of(EventTime(time)).map(|end| (grid.start_of(end).0, end.0)).collect();
            prop_assert_eq!(&got, &expected);
            prop_assert_eq!(grid.last_end(EventTime(time)).0, expected.last().unwrap().1);
            let (slice, next) = grid.slice_around(EventTime(time));
            prop_assert!(slice.0 <= time && time < next.0);
            prop_assert_eq!(grid.slice_of(EventTime(time)), slice);
            for (start, end) in got {
                prop_assert!(start <= slice.0 && next.0 <= end, "a slice lies in or out of a window");
                prop_assert!(end - time <= size + zone.spread().0, "the reach of a record");
            }
            let closed = grid.last_closed_end(EventTime(time));
            prop_assert!(closed.0 <= time && grid.next_end(closed).0 > time);
        }

        #[test]
        fn a_slice_of_a_zone_lives_exactly_as_long_as_its_last_window(
            zone in zones(), time in -500i64..1_200, purged in -500i64..1_200, step in 1i64..60, more in 0i64..4
        ) {
            let grid = local(step * (1 + more), step, 0, Some(zone));
            let slice = grid.slice_of(EventTime(time));
            prop_assert_eq!(slice >= grid.first_live_slice(EventTime(purged)), grid.last_end(slice) > EventTime(purged));
            prop_assert_eq!(grid.last_end(slice), grid.last_end(EventTime(time)));
            prop_assert_eq!(grid.first_end(slice), grid.first_end(EventTime(time)));
        }

        #[test]
        fn a_slice_lives_exactly_as_long_as_its_last_window(
            time in -10_000i64..10_000, purged in -10_000i64..10_000, step in 1i64..50, extra in 0i64..100, offset in -200i64..200
        ) {
            let grid = grid(step + extra, step, offset);
            let slice = grid.slice_of(EventTime(time));
            prop_assert_eq!(slice >= grid.first_live_slice(EventTime(purged)), grid.last_end(slice) > EventTime(purged));
            prop_assert_eq!(grid.last_end(slice), grid.last_end(EventTime(time)));
            prop_assert_eq!(grid.first_end(slice), grid.first_end(EventTime(time)));
        }
    }
}
