//! What a job computes, as checked values. The job file's text lives in `tidegate-job`; this is what the state machines see.

use crate::time::Span;

/// How a partition's watermark follows its records.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatermarkSpec {
    /// Bound on disorder: the watermark is the largest event time seen minus this. Zero for ascending sources.
    pub delay: Span,
    /// A partition at its end without records for this long stops holding the watermark back.
    pub idle_timeout: Span,
    /// What the watermark does when every partition is idle.
    pub on_quiet: OnQuiet,
    /// Records further ahead of the clock than this are dead letters and do not move the watermark; `None`: no bound.
    pub max_future_skew: Option<Span>,
    /// Consecutive records older than candidate − delay after which the candidate is re-anchored to them; `None`: never.
    pub reanchor_after: Option<u32>,
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

/// Fixed-size windows `[k·step + offset, k·step + offset + size)`; tumbling when `step == size`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowSpec {
    /// Length of a window, > 0.
    pub size: Span,
    /// Distance between the starts of two windows, > 0 and ≤ size.
    pub step: Span,
    /// Shift of the grid from the Unix epoch.
    pub offset: Span,
}

/// An aggregate of a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// One input of the aggregates: a number taken out of the payload as an integer in units of 10^−scale.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ColumnSpec {
    /// JSON pointer into the payload.
    pub pointer: String,
    /// Decimal places kept, 0 to 18.
    pub scale: u32,
}

/// What the core needs to know of a job.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JobSpec {
    /// Number of shards S, > 0; fixed for the job's life.
    pub shards: u32,
    /// The watermark of each partition.
    pub watermark: WatermarkSpec,
    /// The windows.
    pub window: WindowSpec,
    /// How long after its end a window still takes late records.
    pub allowed_lateness: Span,
    /// The inputs of the aggregates, without repetition.
    pub columns: Vec<ColumnSpec>,
    /// The aggregates, in the order of the result's fields.
    pub aggregates: Vec<AggregateSpec>,
}
