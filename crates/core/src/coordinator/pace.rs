//! How fast W has moved of late: what tells when a window may be expected to close.

use std::collections::VecDeque;

use crate::time::{EventTime, Tick, Watermark};

/// Samples are this far apart, in ms.
const APART: u64 = 1_000;
/// How far back the pace looks, in ms.
const SPAN: u64 = 60_000;

/// W over the last minute, and since when it stands.
#[derive(Clone, Debug, Default)]
pub(super) struct Pace {
    samples: VecDeque<(Tick, EventTime)>,
    last: Watermark,
    risen: Option<Tick>,
}

impl Pace {
    /// W is `watermark` now; call it at each tick.
    pub(super) fn note(&mut self, now: Tick, watermark: Watermark) {
        let Some(at) = watermark else { return };
        if self.last < watermark {
            (self.last, self.risen) = (watermark, Some(now));
        }
        if self.samples.back().is_none_or(|(last, _)| now.since(*last) >= APART) {
            self.samples.push_back((now, at));
        }
        while self.samples.front().is_some_and(|(first, _)| now.since(*first) > SPAN) {
            self.samples.pop_front();
        }
    }

    /// Since when W stands where it is; `None` while it is undefined.
    pub(super) const fn risen(&self) -> Option<Tick> {
        self.risen
    }

    /// Milliseconds of event time a second, over the last minute at most; `None` where that is less than a second.
    pub(super) fn per_second(&self) -> Option<u64> {
        let ((first, from), (last, to)) = (self.samples.front()?, self.samples.back()?);
        let elapsed = last.since(*first);
        let moved = u128::try_from(to.since(*from).millis()).unwrap_or(0);
        let pace = (moved * 1_000).checked_div(u128::from(elapsed))?;
        u64::try_from(pace).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pace(samples: impl IntoIterator<Item = (u64, i64)>) -> Pace {
        let mut pace = Pace::default();
        for (now, at) in samples {
            pace.note(Tick(now), Some(EventTime(at)));
        }
        pace
    }

    #[test]
    fn the_pace_is_that_of_the_last_minute() {
        assert_eq!(Pace::default().per_second(), None);
        assert_eq!(pace([(0, 5)]).per_second(), None, "one look is no pace");
        assert_eq!(pace((0..=20).map(|i| (i * 100, i64::try_from(i).unwrap() * 50))).per_second(), Some(500));
        let stopped = (0..200).map(|i| (i * 1_000, i64::try_from(i.min(100)).unwrap() * 1_000));
        assert_eq!(pace(stopped).per_second(), Some(0), "it has stood for more than a minute");
    }

    #[test]
    fn it_is_known_since_when_the_watermark_stands() {
        assert_eq!(Pace::default().risen(), None);
        assert_eq!(pace([(100, 5), (200, 9), (300, 9), (9_000, 9)]).risen(), Some(Tick(200)));
    }
}
