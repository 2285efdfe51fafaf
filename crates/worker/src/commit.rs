//! One commit: its content becomes records, the records one transaction, the transaction one known end.

use tidegate_core::{
    block::Block,
    shard::Commit,
    time::{Offset, Shard},
};
use tidegate_kafka::{Outcome, TransactionalProducer};
use tidegate_runtime::span::{Attributes, Span};

use crate::{
    render::Renderer,
    traces::{CommitSpans, TracedResult},
};

/// What a commit came to.
pub(crate) struct Done {
    /// The producer, where it is of further use.
    pub(crate) producer: Option<TransactionalProducer>,
    /// The block that the commit held.
    pub(crate) block: Block,
    /// How it ended.
    pub(crate) end: End,
}

/// How a commit ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It is in the log; the offset of the block's first chunk, where the broker said.
    Committed { offset: Option<Offset> },
    /// It is not in the log: a record cannot be written.
    Refused { reason: String },
    /// It is not in the log.
    Aborted { reason: String },
    /// Another owner has the shard, or the transaction took too long.
    Fenced,
    /// Only the log can tell.
    Unknown { reason: String },
}

/// Renders and commits; for a thread that may block.
pub(crate) fn run(
    renderer: &Renderer,
    shard: Shard,
    mut producer: TransactionalProducer,
    commit: Commit,
    traced: Vec<TracedResult>,
) -> Done {
    let results = commit.results.len() + commit.reordered.len();
    let (sequence, dead_letters) = (commit.block.sequence, commit.dead_letters.len());
    let logged = tracing::info_span!("commit", shard = shard.0, sequence, results, dead_letters);
    let _logged = logged.enter();
    let span = span_of(shard, sequence, results, dead_letters);
    let _in_span = span.as_ref().map(|span| span.context().enter());
    let mut rendered = renderer.render(shard, commit);
    let mut spans = CommitSpans::default();
    spans.results(shard, traced, &mut rendered.records, renderer.message_bytes);
    spans.dead_letters(shard, rendered.records.get(results..rendered.first_chunk).unwrap_or_default());
    let end = match producer.commit(&rendered.records) {
        Outcome::Committed { offsets } => {
            End::Committed { offset: offsets.get(rendered.first_chunk).copied().flatten() }
        }
        Outcome::RecordRefused { reason, .. } => End::Refused { reason },
        Outcome::Aborted { reason } => End::Aborted { reason },
        Outcome::Fenced => End::Fenced,
        Outcome::Unknown { reason } => End::Unknown { reason },
    };
    drop(spans);
    // A lost producer is closed here, where closing may block.
    let of_use = !matches!(end, End::Fenced | End::Unknown { .. });
    Done { producer: of_use.then_some(producer), block: rendered.block, end }
}

/// A span for the commit, if it is one of those that are sampled.
fn span_of(shard: Shard, sequence: u64, results: usize, dead_letters: usize) -> Option<Span> {
    let mut span = Span::root("commit")?;
    let number = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    let attributes = Attributes::with_capacity(4)
        .with("shard", i64::from(shard.0))
        .with("sequence", number(sequence))
        .with("results", number(results as u64))
        .with("dead_letters", number(dead_letters as u64));
    span.set(attributes);
    Some(span)
}
