//! The watermark of one partition, as its records arrive (spec T3 to T5).
//!
//! ```text
//! record ─► candidate: the largest event time believed in ─► strategy: how far behind it ─► published: never falls
//!               ▲ re-anchored when N records in a row are older than the strategy tolerates
//! ```
//!
//! | strategy | behind the candidate by |
//! |---|---|
//! | bounded, ascending | a fixed delay, zero |
//! | [`sliding_min`](sliding_min) | the distance of the smallest event time within a span, and a delay |
//! | [`adaptive`](adaptive) | what keeps the share of late records at a target |
//!
//! A tracker knows nothing of what came before it. Until it has seen enough (a full span; a settled sample) it is behind the
//! candidate by the most that its strategy allows, which no tracker with more knowledge would be; and never below its seed.
//!
//! ```
//! use tidegate_core::{job::WatermarkStrategy, time::{EventTime, Span}, tracker::Tracker};
//! let mut tracker = Tracker::new(WatermarkStrategy::Bounded { delay: Span(2_000) }, Some(3), None);
//! tracker.observe(EventTime(10_000));
//! assert_eq!(tracker.watermark(), Some(EventTime(8_000)));
//! ```
//! Nothing is allocated per record. Cost: `cargo run --release -p tidegate-core --example tracker_rate`.

mod adaptive;
mod sliding_min;

#[cfg(test)]
mod tests;

use crate::{
    job::{PerMillion, WatermarkStrategy},
    time::{EventTime, Span, Watermark},
};

use adaptive::Adaptive;
use sliding_min::SlidingMin;

/// Follows the event times of one partition. One owner, no lock.
#[derive(Clone, Debug)]
pub struct Tracker {
    rule: Rule,
    /// Records older than the candidate by more than this speak against it.
    tolerated: Span,
    reanchor_after: u32,
    candidate: Option<EventTime>,
    published: Watermark,
    max_seen: Option<EventTime>,
    older_run: u32,
    older_max: EventTime,
    agreement: Agreement,
}

/// What N records agree on: one that is far ahead of the others is a candidate, and nobody is paused for it.
#[derive(Clone, Copy, Debug, Default)]
struct Agreement {
    agreed: Watermark,
    /// The candidate that is looked at, and how many records have reached it, but for what the strategy tolerates.
    asked: Watermark,
    support: u32,
}

#[derive(Clone, Debug)]
enum Rule {
    Bounded(Span),
    SlidingMin(Box<SlidingMin>),
    Adaptive(Box<Adaptive>),
}

/// Why the watermark is where it is: for status, metrics and `tidegate why`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Delay {
    /// How far the strategy is behind the candidate now.
    pub in_force: Span,
    /// It has not seen enough yet, and is behind by the most it may be.
    pub learning: bool,
    /// The share of recent records that were later than that; only `adaptive` measures it.
    pub late: Option<PerMillion>,
}

impl Tracker {
    /// A tracker whose watermark starts at `seed`: the one held by the shard at whose position reading starts. After
    /// `reanchor_after` records in a row that the strategy does not tolerate it believes those; `None`: never.
    #[must_use]
    pub fn new(strategy: WatermarkStrategy, reanchor_after: Option<u32>, seed: Watermark) -> Self {
        let rule = match strategy {
            WatermarkStrategy::Bounded { delay } => Rule::Bounded(delay),
            WatermarkStrategy::SlidingMin { span, delay } => {
                Rule::SlidingMin(Box::new(SlidingMin::new(span, delay)))
            }
            WatermarkStrategy::Adaptive { late, min_delay, max_delay } => {
                Rule::Adaptive(Box::new(Adaptive::new(late, min_delay, max_delay)))
            }
        };
        Self {
            rule,
            tolerated: strategy.most_delay(),
            reanchor_after: reanchor_after.unwrap_or(u32::MAX),
            candidate: None,
            published: seed,
            max_seen: None,
            older_run: 0,
            older_max: EventTime(i64::MIN),
            agreement: Agreement::default(),
        }
    }

    /// Takes the event time of the next record into account.
    #[inline]
    pub fn observe(&mut self, time: EventTime) {
        self.saw(time);
        match self.candidate {
            Some(candidate) if time <= candidate => self.observe_older(time, candidate),
            _ => {
                self.older_run = 0;
                self.rise(time);
            }
        }
        self.agree(time);
    }

    #[inline]
    fn agree(&mut self, time: EventTime) {
        let Agreement { agreed, asked, support } = &mut self.agreement;
        match *asked {
            None => (*asked, *support) = (self.candidate, 1),
            Some(at) if time >= at.minus(self.tolerated) => *support += 1,
            Some(_) => {}
        }
        if *support >= self.reanchor_after {
            *agreed = (*agreed).max(*asked);
            *asked = None;
        }
    }

    /// A record with this event time is accepted, and does not move the watermark.
    #[inline]
    pub fn saw(&mut self, time: EventTime) {
        if self.max_seen < Some(time) {
            self.max_seen = Some(time);
        }
    }

    #[inline]
    fn observe_older(&mut self, time: EventTime, candidate: EventTime) {
        match &mut self.rule {
            Rule::Bounded(_) => {}
            Rule::SlidingMin(window) => window.insert(time),
            Rule::Adaptive(adaptive) => {
                adaptive.observe(candidate.since(time));
                // Its delay may have shrunk.
                let reached = candidate.minus(adaptive.delay());
                self.publish(reached);
            }
        }
        if time >= candidate.minus(self.tolerated) {
            self.older_run = 0;
            return;
        }
        self.older_max = if self.older_run == 0 { time } else { self.older_max.max(time) };
        self.older_run = self.older_run.saturating_add(1);
        if self.older_run >= self.reanchor_after {
            self.reanchor();
        }
    }

    fn reanchor(&mut self) {
        match &mut self.rule {
            Rule::Bounded(_) => {}
            Rule::SlidingMin(window) => window.restart(),
            Rule::Adaptive(adaptive) => adaptive.take_back(self.older_run),
        }
        self.older_run = 0;
        // So many agree on this one.
        self.agreement = Agreement { agreed: Some(self.older_max), asked: None, support: 0 };
        self.rise(self.older_max);
    }

    /// Believes in a new candidate: larger than the one before, or re-anchored.
    #[inline]
    fn rise(&mut self, candidate: EventTime) {
        self.candidate = Some(candidate);
        let reached = match &mut self.rule {
            Rule::Bounded(delay) => candidate.minus(*delay),
            Rule::SlidingMin(window) => window.rise(candidate, self.published),
            Rule::Adaptive(adaptive) => {
                adaptive.observe(Span::ZERO);
                candidate.minus(adaptive.delay())
            }
        };
        self.publish(reached);
    }

    #[inline]
    fn publish(&mut self, reached: EventTime) {
        if self.published < Some(reached) {
            self.published = Some(reached);
        }
    }

    /// Lifts the published watermark to at least `to`: a quiet topic moves on by time, or is finished.
    pub fn raise(&mut self, to: EventTime) {
        self.published = self.published.max(Some(to));
    }

    /// The published watermark.
    #[must_use]
    #[inline]
    pub const fn watermark(&self) -> Watermark {
        self.published
    }

    /// How far the published watermark is not one record's word alone: what as many records agree on as it takes to re-anchor.
    #[must_use]
    pub fn agreed(&self) -> Watermark {
        match (self.reanchor_after, self.candidate) {
            // One record is not to be believed less than another, or nothing has been read yet.
            (u32::MAX, _) | (_, None) => self.published,
            _ => self.published.min(self.agreement.agreed),
        }
    }

    /// The largest event time believed in; falls when re-anchored.
    #[must_use]
    pub const fn candidate(&self) -> Option<EventTime> {
        self.candidate
    }

    /// The largest event time observed at all.
    #[must_use]
    pub const fn max_seen(&self) -> Option<EventTime> {
        self.max_seen
    }

    /// How far behind the candidate the strategy is, and why.
    #[must_use]
    pub fn delay(&self) -> Delay {
        match &self.rule {
            Rule::Bounded(delay) => Delay { in_force: *delay, learning: false, late: None },
            Rule::SlidingMin(window) => {
                Delay { in_force: window.behind(), learning: window.is_learning(), late: None }
            }
            Rule::Adaptive(adaptive) => {
                let learning = adaptive.is_learning();
                Delay { in_force: adaptive.delay(), learning, late: Some(adaptive.late()) }
            }
        }
    }
}
