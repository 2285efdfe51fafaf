//! The global watermark W from the reports of all partitions (design §4; spec T6, T7, T9).
//!
//! ```text
//! ingest ── report ──► WatermarkMachine ── announcement ──► workers, ingests
//!    ▲                        │
//!    └── raise/pause/resume ──┘
//! ```
//!
//! Promises:
//! - W never falls, and never below what a worker has committed or seen announced (I1).
//! - W rises only to a value that every partition of the broker's metadata has reached, except those proven idle. One
//!   that is unknown, has lost its reader, expired, or counts without a watermark holds W where it is.
//! - When all are idle, W is the largest of their watermarks, whoever idled first.
//! - A pause for drift never stops the partition that W waits for.
//!
//! Cost: a report is O(1); an announcement or a tick is one linear scan (`examples/announce_round.rs` measures it).

mod align;
mod explain;
mod pace;
mod quiet;
mod source;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod transitions;

use crate::announcement::{Announcement, Report, Term};
use crate::job::{JobSpec, OnQuiet};
use crate::time::{EventTime, Offset, Partition, Span, Tick, Watermark};

pub use explain::{PartitionStatus, WatermarkStatus};
pub use source::{ReaderId, Reading, ReportOutcome, SourceState};

use pace::Pace;
use quiet::Quiet;
use source::{Ground, Heard, Source};

/// A partition expires after this many report intervals without a report.
const EXPIRY_INTERVALS: u64 = 3;

/// What the machine needs to know of the job and of the shell around it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatermarkConfig {
    /// What W does when every partition is idle.
    pub on_quiet: OnQuiet,
    /// The most that a tracker is behind the largest event time.
    pub delay: Span,
    /// The window size: no record is in a window that ends later than its event time plus this.
    pub window: Span,
    /// A partition further ahead of W than this is paused; `None`: never.
    pub max_drift: Option<Span>,
    /// Readers report each of their partitions at least this often.
    pub report_interval_ms: u64,
    /// Announcements are at least this far apart.
    pub coalesce_ms: u64,
}

impl WatermarkConfig {
    /// The job's values, with a report interval of 300 ms, announcements 10 ms apart and no bound on drift.
    #[must_use]
    pub fn of(job: &JobSpec) -> Self {
        Self {
            on_quiet: job.watermark.on_quiet,
            delay: job.watermark.strategy.most_delay(),
            window: job.operator.reach(),
            max_drift: None,
            report_interval_ms: 300,
            coalesce_ms: 10,
        }
    }
}

/// What a reader is asked to do. A pause lasts at most as long as the stream it came on; all may be repeated and are
/// idempotent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatermarkEffect {
    /// If `partition` is still at `at`, raise its in-band watermark to `to`, behind its records, and report again. The
    /// tracker must not fall below it later.
    Raise {
        /// Who reads the partition.
        reader: ReaderId,
        /// The idle partition.
        partition: Partition,
        /// The position at which it was proven idle; void at any other.
        at: Offset,
        /// The new watermark.
        to: EventTime,
    },
    /// Stop fetching the partition, keep polling, report it as blocked.
    Pause {
        /// Who reads the partition.
        reader: ReaderId,
        /// The partition that is too far ahead of W.
        partition: Partition,
    },
    /// Fetch the partition again.
    Resume {
        /// Who reads the partition.
        reader: ReaderId,
        /// The paused partition.
        partition: Partition,
    },
}

/// The coordinator's view of time; see the module's promises.
#[derive(Clone, Debug)]
pub struct WatermarkMachine {
    term: Term,
    config: WatermarkConfig,
    sources: Vec<Source>,
    watermark: Watermark,
    ground: Ground,
    /// The sources changed since `ground` was taken.
    stale_ground: bool,
    /// P, W or the excluded set may differ from the last announcement.
    unannounced: bool,
    announced: Option<(Announcement, Tick)>,
    /// The largest event time any reader has accepted, for `finish`.
    seen: Option<EventTime>,
    quiet: Option<Quiet>,
    pace: Pace,
    /// The least watermark that was reported before W was defined: until then drift is measured from it.
    beginning: Watermark,
    /// A reader came or went since the last tick: every pause is lifted and judged anew.
    lift_pauses: bool,
}

impl WatermarkMachine {
    /// A machine that knows nothing yet: no partition, no watermark, nothing announced in `term`.
    #[must_use]
    pub fn new(term: Term, config: WatermarkConfig) -> Self {
        Self {
            term,
            config,
            sources: Vec::new(),
            watermark: None,
            ground: Ground::Held,
            stale_ground: false,
            unannounced: false,
            announced: None,
            seen: None,
            quiet: None,
            pace: Pace::default(),
            beginning: None,
            lift_pauses: false,
        }
    }

    /// The source topic has `partitions` partitions. P only grows; new ones hold W from here on.
    pub fn metadata(&mut self, partitions: u32) {
        let count = index(Partition(partitions));
        if count > self.sources.len() {
            self.sources.resize_with(count, Source::new);
            self.sources_changed();
            self.quiet = None;
        }
    }

    /// What a worker tells at registration: the largest W_s it has committed, and the newest announcement it has seen,
    /// of whichever term. Neither W nor P falls below them (I1).
    pub fn recover(&mut self, committed: Watermark, announced: Option<&Announcement>) {
        if let Some(announced) = announced {
            self.metadata(announced.partitions);
        }
        self.raise_watermark(committed.max(announced.and_then(|a| a.watermark)));
    }

    /// One reader's word on one partition.
    pub fn report(&mut self, reader: ReaderId, report: &Report, now: Tick) -> ReportOutcome {
        let limit = self.expiry_ms();
        let Some(source) = self.sources.get_mut(index(report.partition)) else {
            return ReportOutcome::UnknownPartition;
        };
        source.expire(now, limit);
        let before = source.state;
        match source.hear(reader, report, now, self.config.delay) {
            Heard::Stale => return ReportOutcome::Stale,
            Heard::Same => {}
            Heard::Changed { new_reader } => {
                if !stays_idle(before, source.state) {
                    self.quiet = None;
                }
                self.lift_pauses |= new_reader;
                self.sources_changed();
            }
        }
        let seen = self.sources.get(index(report.partition)).and_then(|source| source.seen);
        self.seen = self.seen.max(seen);
        ReportOutcome::Accepted
    }

    /// The stream of `reader` closed: nobody vouches for its partitions until another reader, or the same one on a new
    /// stream, reports them. They hold W; they are not idle.
    pub fn reader_gone(&mut self, reader: ReaderId) {
        let mut gone = false;
        for source in &mut self.sources {
            if source.owner.is_some_and(|owner| owner.reader == reader) {
                source.disown();
                gone = true;
            }
        }
        if gone {
            self.owner_lost();
        }
    }

    /// Expires silent partitions, raises quiet ones and bounds drift. `clock` is the calibrated clock, in the
    /// milliseconds of event time. Call it at least each report interval, for `advance` each 100 ms.
    pub fn tick(&mut self, now: Tick, clock: EventTime) -> Vec<WatermarkEffect> {
        let limit = self.expiry_ms();
        let mut expired = false;
        for source in &mut self.sources {
            expired |= source.expire(now, limit);
        }
        if expired {
            self.owner_lost();
        }
        self.settle();
        self.pace.note(now, self.watermark);
        let mut effects = Vec::new();
        self.align(&mut effects);
        self.raise_quiet(now, clock, &mut effects);
        effects
    }

    /// The next announcement, if (P, W, excluded) changed since the last and that is long enough ago.
    pub fn announce(&mut self, now: Tick) -> Option<Announcement> {
        if self.announce_due().is_none_or(|due| now < due) {
            return None;
        }
        self.settle();
        self.unannounced = false;
        let next = Announcement {
            term: self.term,
            version: self.announced.as_ref().map_or(1, |(last, _)| last.version.saturating_add(1)),
            partitions: u32::try_from(self.sources.len()).unwrap_or(u32::MAX),
            watermark: self.watermark,
            excluded: self.excluded(),
        };
        let same = self.current().is_some_and(|last| {
            (last.partitions, last.watermark) == (next.partitions, next.watermark)
                && last.excluded == next.excluded
        });
        if same {
            return None;
        }
        debug_assert!(
            self.current().is_none_or(|last| last.watermark <= next.watermark),
            "I1: the global watermark fell"
        );
        self.announced = Some((next.clone(), now));
        Some(next)
    }

    /// When to call [`announce`](Self::announce) next; `None` while there is nothing new to say.
    #[must_use]
    pub fn announce_due(&self) -> Option<Tick> {
        if !self.unannounced || self.sources.is_empty() {
            return None;
        }
        Some(match &self.announced {
            Some((_, at)) => Tick(at.0.saturating_add(self.config.coalesce_ms)),
            None => Tick(0),
        })
    }

    /// The last announcement, for a worker or ingest that has just connected.
    #[must_use]
    pub const fn current(&self) -> Option<&Announcement> {
        match &self.announced {
            Some((announcement, _)) => Some(announcement),
            None => None,
        }
    }

    /// W as of the last announcement or tick.
    #[must_use]
    pub const fn watermark(&self) -> Watermark {
        self.watermark
    }

    fn excluded(&self) -> Vec<(Partition, Offset)> {
        let idle = |(partition, source): (Partition, &Source)| match source.state {
            SourceState::Idle(at) => Some((partition, at.position)),
            _ => None,
        };
        (0..).map(Partition).zip(&self.sources).filter_map(idle).collect()
    }

    const fn expiry_ms(&self) -> u64 {
        self.config.report_interval_ms.saturating_mul(EXPIRY_INTERVALS)
    }

    const fn sources_changed(&mut self) {
        self.stale_ground = true;
        self.unannounced = true;
    }

    const fn owner_lost(&mut self) {
        self.sources_changed();
        self.lift_pauses = true;
        self.quiet = None;
    }

    /// Lets W rise to what the sources now allow.
    fn settle(&mut self) {
        if !self.stale_ground {
            return;
        }
        self.stale_ground = false;
        self.ground = Ground::of(&self.sources);
        match self.ground {
            Ground::Held => {}
            Ground::Counting(least) => self.raise_watermark(Some(least)),
            Ground::Quiet(most) => self.raise_watermark(most),
        }
    }

    fn raise_watermark(&mut self, to: Watermark) {
        if to > self.watermark {
            self.watermark = to;
            self.unannounced = true;
        }
    }
}

/// Whether no record came between two reports of an idle partition.
fn stays_idle(before: SourceState, after: SourceState) -> bool {
    match (before, after) {
        (SourceState::Idle(before), SourceState::Idle(after)) => before.position == after.position,
        _ => false,
    }
}

/// Place of a partition in `sources`; out of reach where an address does not fit.
fn index(partition: Partition) -> usize {
    usize::try_from(partition.0).unwrap_or(usize::MAX)
}
