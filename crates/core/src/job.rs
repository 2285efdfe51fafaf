//! What a job computes, as checked values. The job file's text lives in `tidegate-job`; this is what the state machines see.

use crate::{
    time::{EventTime, Span},
    window::Grid,
    zone::ZoneTable,
};

/// How far behind the largest event time the watermark of a partition is (spec T4).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatermarkStrategy {
    /// By a fixed delay; zero for ascending sources.
    Bounded {
        /// The bound on disorder.
        delay: Span,
    },
    /// By `delay` behind the smallest event time seen within `span` of the largest.
    SlidingMin {
        /// How far behind the largest event time a record still counts.
        span: Span,
        /// What is taken off the smallest.
        delay: Span,
    },
    /// By as much as keeps the share of late records at `late`, within bounds.
    Adaptive {
        /// The share of records that may be late.
        late: PerMillion,
        /// The delay is at least this.
        min_delay: Span,
        /// The delay is at most this.
        max_delay: Span,
    },
}

impl WatermarkStrategy {
    /// The watermark is never less than this behind the largest event time: disorder within it makes no record late.
    #[must_use]
    pub const fn least_delay(&self) -> Span {
        match *self {
            Self::Bounded { delay } | Self::SlidingMin { delay, .. } => delay,
            Self::Adaptive { min_delay, .. } => min_delay,
        }
    }

    /// The watermark is never more than this behind the largest event time believed in.
    #[must_use]
    pub const fn most_delay(&self) -> Span {
        match *self {
            Self::Bounded { delay } => delay,
            Self::SlidingMin { span, delay } => Span(span.0.saturating_add(delay.0)),
            Self::Adaptive { max_delay, .. } => max_delay,
        }
    }
}

/// A share in millionths: 1,000 is 0.1 %.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PerMillion(pub u32);

/// How a partition's watermark follows its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatermarkSpec {
    /// How far it is behind the largest event time.
    pub strategy: WatermarkStrategy,
    /// A partition at its end without records for this long stops holding the watermark back.
    pub idle_timeout: Span,
    /// What the watermark does when every partition is idle.
    pub on_quiet: OnQuiet,
    /// Records further ahead of the clock than this do not move the watermark; `None`: no bound.
    pub max_future_skew: Option<Span>,
    /// What becomes of such records.
    pub on_future: OnFuture,
    /// Consecutive records older than the strategy tolerates, after which the candidate is re-anchored to them; `None`: never.
    pub reanchor_after: Option<u32>,
}

impl WatermarkSpec {
    /// By a fixed delay; a partition is idle after a second, and a quiet topic holds the watermark.
    #[must_use]
    pub const fn bounded(delay: Span) -> Self {
        Self {
            strategy: WatermarkStrategy::Bounded { delay },
            idle_timeout: Span(1_000),
            on_quiet: OnQuiet::Hold,
            max_future_skew: None,
            on_future: OnFuture::DeadLetter,
            reanchor_after: None,
        }
    }
}

/// What becomes of a record that is further ahead of the clock than the job allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFuture {
    /// It is a dead letter.
    DeadLetter,
    /// It counts as of its arrival: its event time is the clock's.
    Clamp,
}

/// What the watermark does when every partition is idle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnQuiet {
    /// It stays.
    Hold,
    /// It moves on by elapsed time.
    Advance,
    /// It moves past the end of every window that a record seen so far can be in: for bounded input.
    Finish,
}

/// What becomes of the records of a group key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperatorSpec {
    /// Aggregates over windows of fixed size.
    Windows(WindowSpec),
    /// Aggregates over sessions.
    Sessions(SessionSpec),
    /// The records themselves, in order of event time.
    Reorder,
    /// Aggregates over a window that ends with each record.
    Sliding(SlidingSpec),
}

impl OperatorSpec {
    /// Windows one after the other, from the Unix epoch on.
    #[must_use]
    pub const fn tumbling(size: Span) -> Self {
        Self::hopping(size, size)
    }

    /// Windows of `size` that start every `step`, from the Unix epoch on.
    #[must_use]
    pub const fn hopping(size: Span, step: Span) -> Self {
        Self::Windows(WindowSpec { size, step, offset: Span::ZERO, zone: None })
    }

    /// How long after the last record the last window ends that it can be in.
    #[must_use]
    pub fn reach(&self) -> Span {
        match self {
            Self::Windows(windows) => windows.longest(),
            Self::Sessions(sessions) => sessions.gap,
            // A record leaves once the watermark has passed it.
            Self::Reorder | Self::Sliding(_) => Span(1),
        }
    }

    /// How long before W the records are that a window to come may hold; of sessions, which have no such bound, those of the last gap.
    #[must_use]
    pub fn trail(&self) -> Span {
        match self {
            Self::Sliding(sliding) => sliding.size,
            Self::Windows(_) | Self::Sessions(_) | Self::Reorder => self.reach(),
        }
    }

    /// The grid of windows of fixed size.
    #[must_use]
    pub fn grid(&self) -> Option<Grid> {
        match self {
            Self::Windows(windows) => Some(Grid::new(windows)),
            Self::Sessions(_) | Self::Reorder | Self::Sliding(_) => None,
        }
    }

    /// Whether the records themselves are the results, so that each needs its payload.
    #[must_use]
    pub const fn keeps_records(&self) -> bool {
        matches!(self, Self::Reorder)
    }

    /// Whether records are kept one by one, in order.
    #[must_use]
    pub const fn buffers_records(&self) -> bool {
        matches!(self, Self::Reorder | Self::Sliding(_))
    }

    /// Slices that start before this are gone, once the windows are that ended at or before `purged`.
    #[must_use]
    pub fn first_live_slice(&self, purged: EventTime) -> EventTime {
        match self {
            Self::Windows(windows) => Grid::new(windows).first_live_slice(purged),
            // Parts of runs stand under their last record, or the last end in them.
            Self::Sessions(_) | Self::Reorder | Self::Sliding(_) => purged,
        }
    }
}

/// A window `(t − size, t]` for each record, which ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SlidingSpec {
    /// Length of a window, > 0.
    pub size: Span,
}

/// Sessions: records of a group key less than `gap` apart are in one.
///
/// A record at t is in a session that holds `[t, t + gap)`; sessions that overlap are one. None crosses a multiple of `cut`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSpec {
    /// A session ends this long after its last record, > 0.
    pub gap: Span,
    /// Sessions are cut at the multiples of this since the Unix epoch, so that none is longer; at least `gap`.
    pub cut: Option<Span>,
}

/// Fixed-size windows `[k·step + offset, k·step + offset + size)`; tumbling when `step == size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    /// Length of a window, > 0.
    pub size: Span,
    /// Distance between the starts of two windows, > 0 and ≤ size.
    pub step: Span,
    /// Shift of the grid from the Unix epoch.
    pub offset: Span,
    /// Whose local time size, step and offset are of; `None`: UTC.
    pub zone: Option<&'static ZoneTable>,
}

impl WindowSpec {
    /// A window is at most this long.
    #[must_use]
    pub fn longest(&self) -> Span {
        Span(self.size.0.saturating_add(self.zone.map_or(0, |zone| zone.spread().0)))
    }
}

/// An aggregate of a window.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AggregateFn {
    /// Number of records; with a column, number of records whose value is not null.
    Count,
    /// Exact sum.
    Sum,
    /// Smallest value.
    Min,
    /// Largest value.
    Max,
    /// Sum divided by number of values.
    Avg,
    /// Sample variance; null of a single value.
    Variance,
    /// Square root of the sample variance.
    Stddev,
    /// The value of the first record that has one, by (event time, partition, offset).
    First,
    /// The value of the last record that has one, by (event time, partition, offset).
    Last,
    /// Quantiles within a relative error.
    Quantile {
        /// The answer is off from the value by at most this share of it.
        accuracy: PerMillion,
        /// Which quantiles: 500,000 is the median.
        ranks: Ranks,
    },
    /// Number of different values.
    Distinct,
    /// The most frequent values.
    TopK {
        /// How many.
        k: u32,
    },
    /// The first values by (event time, partition, offset).
    Collect {
        /// How many at most.
        limit: u32,
    },
}

/// Which quantiles are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ranks {
    /// One, which is the value of the aggregate.
    One(PerMillion),
    /// Several, in the order of the list that they make.
    Several(Vec<PerMillion>),
}

/// One aggregate of the job, with the name of its field in the result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AggregateSpec {
    /// Field name in the result record.
    pub name: String,
    /// What is computed.
    pub function: AggregateFn,
    /// Index into [`JobSpec::columns`]; `None` only for `Count`.
    pub column: Option<usize>,
}

impl AggregateSpec {
    /// The result's field `name`: `function` of the column at `column`.
    #[must_use]
    pub fn new(name: &str, function: AggregateFn, column: Option<usize>) -> Self {
        Self { name: name.to_owned(), function, column }
    }
}

/// One input of the aggregates.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnSpec {
    /// JSON pointer into the payload.
    pub pointer: String,
    /// How the value is taken.
    pub kind: ColumnKind,
    /// Of which records; `None`: of all.
    pub only: Option<Condition>,
}

/// How an input of the aggregates is taken out of the payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ColumnKind {
    /// As a number, in units of 10^−scale.
    Number {
        /// Decimal places kept, 0 to 18.
        scale: u32,
    },
    /// As it is: text, a number as it is written, `true` or `false`.
    AsIs,
    /// Not at all: the records are counted, and there is no pointer.
    Records,
}

/// Which records an aggregate takes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Condition {
    /// Those for which at least one holds.
    Any(Vec<Self>),
    /// Those for which all hold.
    All(Vec<Self>),
    /// Those for which it does not hold.
    Not(Box<Self>),
    /// Those whose field at the JSON pointer is there and not null.
    Exists(String),
    /// Those whose field compares so. With what is missing, null or of another type than the literal no comparison holds.
    Compare {
        /// JSON pointer into the payload.
        pointer: String,
        /// How field and literal compare.
        comparison: Comparison,
        /// What the field is compared with.
        literal: Literal,
    },
}

/// How two values compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Comparison {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
}

/// What a field is compared with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Literal {
    /// `units · 10^−scale`.
    Number {
        /// The number in units of 10^−scale.
        units: i64,
        /// Decimal places.
        scale: u32,
    },
    /// Text, compared byte by byte.
    Text(String),
    /// True or false.
    Boolean(bool),
}

impl Condition {
    /// The fields that it looks at.
    #[must_use]
    pub fn pointers(&self) -> Vec<&str> {
        match self {
            Self::Any(conditions) | Self::All(conditions) => {
                conditions.iter().flat_map(Self::pointers).collect()
            }
            Self::Not(condition) => condition.pointers(),
            Self::Exists(pointer) | Self::Compare { pointer, .. } => vec![pointer],
        }
    }
}

impl ColumnSpec {
    /// A number at `pointer`, in units of 10^−scale.
    #[must_use]
    pub fn number(pointer: &str, scale: u32) -> Self {
        Self { pointer: pointer.to_owned(), kind: ColumnKind::Number { scale }, only: None }
    }

    /// The value at `pointer` as it is.
    #[must_use]
    pub fn as_is(pointer: &str) -> Self {
        Self { pointer: pointer.to_owned(), kind: ColumnKind::AsIs, only: None }
    }

    /// Decimal places kept; none of a value as it is.
    #[must_use]
    pub const fn scale(&self) -> u32 {
        match self.kind {
            ColumnKind::Number { scale } => scale,
            ColumnKind::AsIs | ColumnKind::Records => 0,
        }
    }
}

/// What the core needs to know of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Number of shards S, > 0; fixed for the job's life.
    pub shards: u32,
    /// The watermark of each partition.
    pub watermark: WatermarkSpec,
    /// What becomes of the records of a group key.
    pub operator: OperatorSpec,
    /// How long after its end a window still takes late records.
    pub allowed_lateness: Span,
    /// How long beyond that windows are kept for dead letters that are replayed, along the watermark; zero: not at all.
    pub replay_ttl: Span,
    /// The inputs of the aggregates, without repetition.
    pub columns: Vec<ColumnSpec>,
    /// The aggregates, in the order of the result's fields.
    pub aggregates: Vec<AggregateSpec>,
}

impl JobSpec {
    /// The simplest job: one shard, no disorder, nothing late or replayed, no aggregates.
    #[must_use]
    pub const fn of(operator: OperatorSpec) -> Self {
        Self {
            shards: 1,
            watermark: WatermarkSpec::bounded(Span::ZERO),
            operator,
            allowed_lateness: Span::ZERO,
            replay_ttl: Span::ZERO,
            columns: Vec::new(),
            aggregates: Vec::new(),
        }
    }

    /// How long after its end a window is kept. What is kept record by record goes as the watermark passes it, replay or not.
    #[must_use]
    pub fn retention(&self) -> Span {
        if self.operator.buffers_records() {
            return self.allowed_lateness;
        }
        Span(self.allowed_lateness.0.saturating_add(self.replay_ttl.0))
    }
}
