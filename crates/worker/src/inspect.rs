//! Questions about a shard, for people: answered by its owner, as of a commit.
//!
//! ```text
//! Worker.Inspect ──► actor: nothing waits for a commit ──────────────────► answer
//!                           something does ── the next commit is known ──► answer as of that commit
//!                           no commit within a second ── asked again ────► answer as it is, and said so
//! ```

use std::{sync::Arc, time::Duration};

use tidegate_core::{
    announcement::AssignmentId,
    replay::Outcome,
    shard::{InputView, ShardMachine, WindowView},
    time::{EventTime, Offset, Partition, Shard},
};
use tidegate_job::Job;
use tidegate_proto::v1;
use tokio::{sync::oneshot, time::timeout};
use tonic::Status;

use crate::{actor::ToShard, roster::Routes};

/// How long an answer as of a commit is waited for.
const COMMIT: Duration = Duration::from_secs(1);
/// How long an actor may take to answer at once.
const ANSWER: Duration = Duration::from_secs(2);
/// Windows in an answer, where the question does not say.
const WINDOWS: u32 = 100;

/// What is asked of a shard's owner.
#[derive(Debug)]
pub(crate) struct Question {
    key: Option<Vec<u8>>,
    windows: usize,
    dead_letter: Option<v1::DeadLetterPlace>,
    /// Whether the answer has to wait for the commit of what it tells.
    pub(crate) committed: bool,
    reply: oneshot::Sender<v1::InspectResponse>,
}

/// An answer that waits for its commit.
#[derive(Debug)]
pub(crate) struct Answer {
    reply: oneshot::Sender<v1::InspectResponse>,
    response: v1::InspectResponse,
}

impl Question {
    /// Whether nobody waits for the answer any more.
    pub(crate) fn is_closed(&self) -> bool {
        self.reply.is_closed()
    }

    /// The answer from the state as it is; none where rows that left memory do not read: the shard is restored then.
    pub(crate) fn answer(
        self,
        machine: &ShardMachine,
        job: &Arc<Job>,
        assignment: AssignmentId,
        committed: bool,
    ) -> Option<Answer> {
        let view = machine.explain();
        let found = self.key.as_deref().map(|key| machine.inspect(key, self.windows)).transpose();
        let (windows, total) = found.ok()?.unwrap_or_default();
        let aggregates = job.core.aggregates.iter().map(|aggregate| aggregate.name.clone());
        let response = v1::InspectResponse {
            worker: String::new(),
            assignment: Some(assignment.into()),
            committed,
            watermark_ms: view.watermark.map(EventTime::millis),
            announced_ms: view.announced.map(EventTime::millis),
            purged_ms: view.purged.map(EventTime::millis),
            closing: view.closing,
            inputs: view.inputs.iter().map(input).collect(),
            aggregates: aggregates.collect(),
            windows: windows.iter().map(window).collect(),
            windows_total: total as u64,
            replayed: self.dead_letter.and_then(|place| replayed(machine, place)).map(str::to_owned),
        };
        Some(Answer { reply: self.reply, response })
    }
}

impl Answer {
    /// Gives the answer.
    pub(crate) fn give(self) {
        // Whoever asked may be gone.
        let _ = self.reply.send(self.response);
    }
}

fn replayed(machine: &ShardMachine, place: v1::DeadLetterPlace) -> Option<&'static str> {
    Some(match machine.replayed(Partition(place.partition), Offset(place.offset))? {
        Outcome::Applied => "applied",
        Outcome::Expired => "expired",
    })
}

fn input(view: &InputView) -> v1::InspectedInput {
    let InputView { partition, input, counts, holds } = *view;
    v1::InspectedInput {
        partition: partition.0,
        next: input.next.0,
        in_band_ms: input.watermark.map(EventTime::millis),
        applied: input.applied,
        dead_lettered: input.dead,
        counts,
        holds,
    }
}

fn window(view: &WindowView) -> v1::InspectedWindow {
    v1::InspectedWindow {
        start_ms: view.start.millis(),
        end_ms: view.end.millis(),
        records: view.records,
        values: view.values.iter().map(ToString::to_string).collect(),
        closed: view.closed,
        emitted: view.emitted,
    }
}

/// Asks the owner of the shard, if it is here.
///
/// # Errors
/// `NOT_FOUND` where this worker does not have the shard, `UNAVAILABLE` while it is being restored or does not answer.
pub(crate) async fn inspect(
    routes: &Routes,
    worker: &str,
    request: v1::InspectRequest,
) -> Result<v1::InspectResponse, Status> {
    let shard = Shard(request.shard);
    let Some(route) = routes.get(&shard) else {
        return Err(Status::not_found(format!("worker `{worker}` does not have shard {shard}")));
    };
    let windows = if request.windows == 0 { WINDOWS } else { request.windows };
    for (committed, patience) in [(true, COMMIT), (false, ANSWER)] {
        let (reply, answer) = oneshot::channel();
        let question = Question {
            key: request.key.as_ref().map(|key| key.to_vec()),
            windows: windows as usize,
            dead_letter: request.dead_letter,
            committed,
            reply,
        };
        let asked = async {
            let restored = |_| Status::unavailable(format!("shard {shard} is being restored; ask again"));
            route.inbox.send(ToShard::Inspect(question)).await.map_err(|_| {
                Status::unavailable(format!("worker `{worker}` is leaving shard {shard}; ask again"))
            })?;
            answer.await.map_err(restored)
        };
        if let Ok(answered) = timeout(patience, asked).await {
            return Ok(v1::InspectResponse { worker: worker.to_owned(), ..answered? });
        }
    }
    Err(Status::unavailable(format!("shard {shard} of worker `{worker}` does not answer")))
}
