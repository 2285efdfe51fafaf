//! How the watermark follows the records.

use super::Checker;
use crate::file::{DurationText, OnFutureWord, OnQuietWord, Strategy, WatermarkSection};
use crate::quantity::{duration_text, parse_share};
use tidegate_core::job::{OnFuture, OnQuiet, PerMillion, WatermarkSpec, WatermarkStrategy};
use tidegate_core::time::Span;

const IDLE_TIMEOUT: Span = Span(30_000);
const REANCHOR_AFTER: u32 = 3;
const LATE_SHARE: PerMillion = PerMillion(1_000);
/// Less than the smallest mistake of a time zone, more than clocks that are looked after are apart (decision 0010).
const MAX_FUTURE_SKEW: Span = Span(10 * 60_000);

impl Checker<'_> {
    pub(super) fn watermark(&mut self, section: &WatermarkSection) -> Option<WatermarkSpec> {
        let strategy = self.strategy(section);
        let idle_timeout = match &section.idle_timeout {
            None => Some(IDLE_TIMEOUT),
            Some(text) => self.above_zero("watermark.idle_timeout", text),
        };
        let future = self.future(section);
        let reanchor_after =
            self.number("watermark.reanchor_after", section.reanchor_after, REANCHOR_AFTER, 1..=1_000_000);
        let (max_future_skew, on_future) = future?;
        Some(WatermarkSpec {
            strategy: strategy?,
            idle_timeout: idle_timeout?,
            on_quiet: match section.on_quiet {
                None | Some(OnQuietWord::Hold) => OnQuiet::Hold,
                Some(OnQuietWord::Advance) => OnQuiet::Advance,
                Some(OnQuietWord::Finish) => OnQuiet::Finish,
            },
            max_future_skew,
            on_future,
            reanchor_after: Some(reanchor_after?),
        })
    }

    fn strategy(&mut self, section: &WatermarkSection) -> Option<WatermarkStrategy> {
        self.only_of_its_strategy(section);
        match section.strategy {
            None | Some(Strategy::BoundedOutOfOrderness) => {
                let Some(delay) = &section.delay else {
                    let fix = "add `delay: …`, the bound on the disorder, as in `delay: 5s`";
                    self.refuse("watermark", "`bounded_out_of_orderness` needs a `delay`", fix);
                    return None;
                };
                let delay = self.duration("watermark.delay", Some(delay), Span::ZERO)?;
                Some(WatermarkStrategy::Bounded { delay })
            }
            Some(Strategy::Ascending) => Some(WatermarkStrategy::Bounded { delay: Span::ZERO }),
            Some(Strategy::SlidingMin) => {
                let Some(span) = &section.span else {
                    let fix = "add `span: …`, how far behind the largest event time a record counts, as in `span: 5s`";
                    self.refuse("watermark", "`sliding_min` needs a `span`", fix);
                    return None;
                };
                let span = self.above_zero("watermark.span", span);
                let delay = self.duration("watermark.delay", section.delay.as_ref(), Span::ZERO);
                Some(WatermarkStrategy::SlidingMin { span: span?, delay: delay? })
            }
            Some(Strategy::Adaptive) => self.adaptive(section),
        }
    }

    fn adaptive(&mut self, section: &WatermarkSection) -> Option<WatermarkStrategy> {
        let late = match &section.late_share {
            None => Some(LATE_SHARE),
            Some(text) => self.accept("watermark.late_share", parse_share(&text.0)),
        };
        let min_delay = self.duration("watermark.min_delay", section.min_delay.as_ref(), Span::ZERO);
        let Some(max_delay) = &section.max_delay else {
            let fix = "add `max_delay: …`, the longest that results may wait for late records, as in `max_delay: 1m`";
            self.refuse("watermark", "`adaptive` needs a `max_delay`", fix);
            return None;
        };
        let max_delay = self.above_zero("watermark.max_delay", max_delay);
        let (late, min_delay, max_delay) = (late?, min_delay?, max_delay?);
        if min_delay > max_delay {
            let what = format!("is longer than `max_delay`, {}", duration_text(max_delay));
            self.refuse("watermark.min_delay", what, "use at most `max_delay`");
            return None;
        }
        Some(WatermarkStrategy::Adaptive { late, min_delay, max_delay })
    }

    /// Refuses what says something of another strategy.
    fn only_of_its_strategy(&mut self, section: &WatermarkSection) {
        let strategy = section.strategy.unwrap_or(Strategy::BoundedOutOfOrderness);
        let name = match strategy {
            Strategy::BoundedOutOfOrderness => "bounded_out_of_orderness",
            Strategy::Ascending => "ascending",
            Strategy::SlidingMin => "sliding_min",
            Strategy::Adaptive => "adaptive",
        };
        let given = |text: &Option<DurationText>| text.is_some();
        let (sliding, adaptive) = (strategy == Strategy::SlidingMin, strategy == Strategy::Adaptive);
        let keys = [
            (
                "delay",
                given(&section.delay),
                !adaptive && strategy != Strategy::Ascending,
                "bounded_out_of_orderness",
            ),
            ("span", given(&section.span), sliding, "sliding_min"),
            ("late_share", section.late_share.is_some(), adaptive, "adaptive"),
            ("min_delay", given(&section.min_delay), adaptive, "adaptive"),
            ("max_delay", given(&section.max_delay), adaptive, "adaptive"),
        ];
        for (key, given, fits, owner) in keys {
            if given && !fits {
                let fix = format!("remove `{key}`, or use `{owner}`");
                self.refuse(&format!("watermark.{key}"), format!("`{name}` has no `{key}`"), fix);
            }
        }
    }

    fn future(&mut self, section: &WatermarkSection) -> Option<(Option<Span>, OnFuture)> {
        let skew = match &section.max_future_skew {
            None => Some(MAX_FUTURE_SKEW),
            Some(text) => self.above_zero("watermark.max_future_skew", text),
        };
        match section.on_future {
            None | Some(OnFutureWord::DeadLetter) => Some((Some(skew?), OnFuture::DeadLetter)),
            Some(OnFutureWord::Clamp) => Some((Some(skew?), OnFuture::Clamp)),
            Some(OnFutureWord::Accept) if section.max_future_skew.is_some() => {
                let fix = "remove one of the two";
                self.refuse("watermark.max_future_skew", "`on_future: accept` has no bound", fix);
                None
            }
            Some(OnFutureWord::Accept) => Some((None, OnFuture::DeadLetter)),
        }
    }
}
