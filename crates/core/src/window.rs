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

use crate::{
    job::WindowSpec,
    time::{EventTime, Span},
};

/// Window and slice arithmetic of a [`WindowSpec`]; right for negative times, saturating at the ends of time.
#[derive(Clone, Copy, Debug)]
pub struct Grid {
    size: i64,
    step: i64,
    offset: i64,
    slice: i64,
}

impl Grid {
    /// The grid of `spec`, whose size and step are positive and step ≤ size (checked where the job file is read).
    #[must_use]
    pub fn new(spec: &WindowSpec) -> Self {
        let (size, step) = (spec.size.0.max(1), spec.step.0.max(1));
        Self { size, step, offset: spec.offset.0, slice: gcd(size, step) }
    }

    /// Length of a window.
    #[must_use]
    pub const fn size(&self) -> Span {
        Span(self.size)
    }

    /// Width of a slice.
    #[must_use]
    pub const fn slice_width(&self) -> Span {
        Span(self.slice)
    }

    /// Start of the slice that holds `time`.
    #[must_use]
    #[inline]
    pub const fn slice_of(&self, time: EventTime) -> EventTime {
        EventTime(floor_to(time.0, self.slice, self.offset))
    }

    /// End of the earliest window that contains `time`.
    #[must_use]
    pub const fn first_end(&self, time: EventTime) -> EventTime {
        self.next_end(time)
    }

    /// End of the last window that contains `time`.
    #[must_use]
    pub const fn last_end(&self, time: EventTime) -> EventTime {
        EventTime(floor_to(time.0, self.step, self.offset).saturating_add(self.size))
    }

    /// The smallest window end > `after`.
    #[must_use]
    pub const fn next_end(&self, after: EventTime) -> EventTime {
        let ends = self.offset.wrapping_add(self.size);
        EventTime(floor_to(after.0, self.step, ends).saturating_add(self.step))
    }

    /// The largest window end ≤ `watermark`: records at or after it are in no closed window.
    #[must_use]
    pub const fn last_closed_end(&self, watermark: EventTime) -> EventTime {
        EventTime(floor_to(watermark.0, self.step, self.offset.wrapping_add(self.size)))
    }

    /// Start of the window that ends at `end`.
    #[must_use]
    pub const fn start_of(&self, end: EventTime) -> EventTime {
        EventTime(end.0.saturating_sub(self.size))
    }

    /// Start of the earliest slice of which some window ends after `purged`.
    #[must_use]
    pub const fn first_live_slice(&self, purged: EventTime) -> EventTime {
        EventTime(
            floor_to(purged.0.saturating_sub(self.size), self.step, self.offset).saturating_add(self.step),
        )
    }

    /// Ends of all windows that contain `time`, ascending.
    pub fn ends_of(&self, time: EventTime) -> impl Iterator<Item = EventTime> + use<> {
        let (step, last) = (self.step, self.last_end(time));
        std::iter::successors(Some(self.first_end(time)), move |end| {
            end.0.checked_add(step).map(EventTime).filter(|next| *next <= last)
        })
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
    use proptest::prelude::*;

    fn grid(size: i64, step: i64, offset: i64) -> Grid {
        Grid::new(&WindowSpec { size: Span(size), step: Span(step), offset: Span(offset) })
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
        assert_eq!(grid.slice_width(), Span(2));
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
