//! Dead letters that a shard is given again: applied by its owner, answered once what became of them is committed.
//!
//! ```text
//! Worker.Replay ──► actor: no live frame waits ─► apply ─► commit ─► answer
//!                          the shard is left, restored, or its commit fails ─► no answer: the ingest sends it again
//! ```

use tidegate_core::{
    replay::{ReplayFrame, Replayed},
    time::Shard,
};
use tidegate_proto::v1;
use tokio::sync::oneshot;
use tonic::Status;

use crate::{actor::ToShard, roster::Routes};

/// A frame that a shard is given.
#[derive(Debug)]
pub(crate) struct Given {
    pub(crate) frame: ReplayFrame,
    reply: oneshot::Sender<v1::ReplayAnswer>,
}

impl Given {
    /// Whether nobody waits for the answer any more: it has been sent again since.
    pub(crate) fn is_closed(&self) -> bool {
        self.reply.is_closed()
    }

    /// The answer that is given once what became of the frame is committed.
    pub(crate) fn became(self, replayed: Replayed) -> Became {
        let Replayed { applied, expired, known } = replayed;
        Became { reply: self.reply, answer: v1::ReplayAnswer { applied, expired, known } }
    }
}

/// What became of a frame; dropped where its commit fails.
#[derive(Debug)]
pub(crate) struct Became {
    reply: oneshot::Sender<v1::ReplayAnswer>,
    answer: v1::ReplayAnswer,
}

impl Became {
    /// Gives the answer.
    pub(crate) fn give(self) {
        // Whoever sent the frame may be gone.
        let _ = self.reply.send(self.answer);
    }
}

/// Gives the owner of the shard a frame, if it is here.
///
/// # Errors
/// `NOT_FOUND` where this worker does not have the shard, `UNAVAILABLE` where the frame has to be sent again.
pub(crate) async fn replay(
    routes: &Routes,
    worker: &str,
    shard: Shard,
    frame: ReplayFrame,
) -> Result<v1::ReplayAnswer, Status> {
    let Some(route) = routes.get(&shard) else {
        return Err(Status::not_found(format!("worker `{worker}` does not have shard {shard}")));
    };
    let (reply, answer) = oneshot::channel();
    let again =
        |what: &str| Status::unavailable(format!("shard {shard} of worker `{worker}` {what}; send it again"));
    let given = Given { frame, reply };
    route.inbox.send(ToShard::Replay(Box::new(given))).await.map_err(|_| again("is being left"))?;
    answer.await.map_err(|_| again("was restored or left before the commit"))
}
