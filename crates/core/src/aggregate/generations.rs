//! How a layout is laid out: the aggregates that a job began with, then those that were added, each time as a generation.

#![allow(clippy::indexing_slicing, reason = "columns are numbered by the layout that places them")]

use std::ops::Range;

use super::{AT_AND_VALUE, ColumnWords, Layout, moments, summary_of};
use crate::job::{AggregateFn, AggregateSpec, ColumnKind, JobSpec};

/// Aggregates that have seen the same records.
#[derive(Clone, Debug)]
pub(super) struct Generation {
    /// Where its records are counted; its other words follow.
    pub(super) records: usize,
    pub(super) columns: Vec<usize>,
    pub(super) summaries: Range<usize>,
}

/// One value of a result.
#[derive(Clone, Debug)]
pub(super) struct Output {
    pub(super) spec: AggregateSpec,
    pub(super) column: Option<usize>,
    /// Where its generation counts records.
    pub(super) records: usize,
}

impl Layout {
    /// The layout for the aggregates of `job`, which had so many of them before each time that others were added behind them.
    #[must_use]
    pub fn grown(job: &JobSpec, before: &[usize]) -> Self {
        let mut layout = Self {
            stride: 0,
            columns: Vec::new(),
            inputs: job.columns.len(),
            summaries: Vec::new(),
            outputs: Vec::new(),
            generations: Vec::new(),
            later_records: Vec::new(),
        };
        let mut placed: Vec<Option<ColumnWords>> = vec![None; job.columns.len()];
        let mut further = Vec::new();
        let ends = before.iter().copied().chain([job.aggregates.len()]);
        let mut begun = 0;
        for end in ends {
            let aggregates = job.aggregates.get(begun..end).unwrap_or_default();
            let inputs =
                if before.is_empty() { (0..job.columns.len()).collect() } else { inputs_of(aggregates) };
            begun = end;
            let (records, first_summary) = (layout.take(1), layout.summaries.len());
            let mut columns = Vec::new();
            for input in inputs {
                let column = layout.column(job, aggregates, input);
                columns.push(if placed[input].is_none() {
                    placed[input] = Some(column);
                    input
                } else {
                    further.push((input, column));
                    job.columns.len() + further.len() - 1
                });
            }
            for aggregate in aggregates {
                let of_input = |at: &&usize| input_at(**at, &further, job.columns.len()) == aggregate.column;
                let column = columns.iter().find(of_input).copied();
                layout.outputs.push(Output { spec: aggregate.clone(), column, records });
            }
            let summaries = first_summary..layout.summaries.len();
            layout.generations.push(Generation { records, columns, summaries });
        }
        layout.later_records =
            layout.generations.iter().skip(1).map(|generation| generation.records).collect();
        layout.columns = placed.into_iter().flatten().collect();
        debug_assert_eq!(layout.columns.len(), layout.inputs, "each input is of some aggregate");
        for (input, column) in further {
            let mut last = input;
            while let Some(next) = layout.columns[last].next {
                last = next;
            }
            layout.columns[last].next = Some(layout.columns.len());
            layout.columns[last].has_more = true;
            layout.columns.push(column);
        }
        layout
    }

    fn take(&mut self, words: usize) -> usize {
        let at = self.stride;
        self.stride += words;
        at
    }

    /// The words for what `aggregates` need of an input.
    fn column(&mut self, job: &JobSpec, aggregates: &[AggregateSpec], input: usize) -> ColumnWords {
        let kind = job.columns[input].kind;
        let of_column = || aggregates.iter().filter(move |a| a.column == Some(input));
        let wants = |functions: &[AggregateFn]| {
            kind != ColumnKind::AsIs && of_column().any(|a| functions.contains(&a.function))
        };
        let first_summary = self.summaries.len();
        for kind in of_column().filter_map(|aggregate| summary_of(&aggregate.function, kind)) {
            if !self.summaries[first_summary..].contains(&kind) {
                self.summaries.push(kind);
            }
        }
        let sums = [AggregateFn::Sum, AggregateFn::Avg, AggregateFn::Variance, AggregateFn::Stddev];
        let mut column = ColumnWords {
            kind,
            scale: job.columns[input].scale(),
            values: self.take(1),
            sum: wants(&sums).then(|| self.take(2)),
            min: wants(&[AggregateFn::Min]).then(|| self.take(1)),
            max: wants(&[AggregateFn::Max]).then(|| self.take(1)),
            squares: wants(&[AggregateFn::Variance, AggregateFn::Stddev]).then(|| self.take(moments::WORDS)),
            first: wants(&[AggregateFn::First]).then(|| self.take(AT_AND_VALUE)),
            last: wants(&[AggregateFn::Last]).then(|| self.take(AT_AND_VALUE)),
            summaries: first_summary..self.summaries.len(),
            next: None,
            has_more: false,
        };
        let places = [column.squares, column.first, column.last];
        column.has_more = places.iter().any(Option::is_some) || !column.summaries.is_empty();
        column
    }
}

/// The inputs that `aggregates` need, as a job that had no others would have them in order: what is only counted comes last.
pub(super) fn inputs_of(aggregates: &[AggregateSpec]) -> Vec<usize> {
    let counts = |aggregate: &&AggregateSpec| aggregate.function == AggregateFn::Count;
    let computed = aggregates.iter().filter(|aggregate| !counts(aggregate));
    let mut inputs = Vec::new();
    for input in computed.chain(aggregates.iter().filter(counts)).filter_map(|aggregate| aggregate.column) {
        if !inputs.contains(&input) {
            inputs.push(input);
        }
    }
    inputs
}

/// The input of a column, where the `further` ones stand behind those of the inputs.
fn input_at<T>(column: usize, further: &[(usize, T)], inputs: usize) -> Option<usize> {
    match column.checked_sub(inputs) {
        None => Some(column),
        Some(at) => further.get(at).map(|(input, _)| *input),
    }
}
