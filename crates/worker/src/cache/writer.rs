//! The thread that writes to the local stores of this process, and merges runs there.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    thread,
};

use tidegate_core::{
    entry::purged_chunks,
    job::OperatorSpec,
    runs::{ChunkId, Compacted, Compaction, Unreadable},
    time::{EventTime, Tick},
};
use tidegate_runtime::clock::Clock;
use tidegate_store::{Changes, ShardStore, SledShard};
use tokio::sync::oneshot;

/// After rows written one by one the writer rests this many times as long as it has worked: at most 1/20 of a core, over all shards.
const REST: u64 = 19;
/// One piece of work for each shard at most: never reached.
const QUEUE: usize = 4_096;

/// A handle of the thread.
#[derive(Clone, Debug)]
pub(crate) struct CacheWriter {
    work: SyncSender<Work>,
    rests_until: Arc<AtomicU64>,
    /// Rows of a shard are waiting or being written: others wait for the rest that follows.
    has_rows: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(super) struct Work {
    pub(super) store: SledShard,
    pub(super) task: Task,
    pub(super) done: oneshot::Sender<Done>,
}

/// What is to be done with a store.
#[derive(Debug)]
pub(super) enum Task {
    /// Rows one by one, since they were last written.
    Rows(Write),
    /// A run, and what has to be said of it.
    Run(Write),
    /// Many parts of a slice become one.
    Compact(Compaction),
}

/// What is written, in this order.
#[derive(Debug, Default)]
pub(super) struct Write {
    pub(super) chunks: Vec<(ChunkId, Arc<[u8]>)>,
    pub(super) changes: Option<Changes>,
    /// No longer named by any entry.
    pub(super) obsolete: Vec<ChunkId>,
    /// Windows that ended by then are gone.
    pub(super) purged: Option<(OperatorSpec, EventTime)>,
}

/// The store, unless it failed, and what is in it now.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) store: Option<SledShard>,
    pub(super) stored: Vec<ChunkId>,
    pub(super) compacted: Option<Compacted>,
}

impl CacheWriter {
    /// Starts the thread; it ends with the last handle.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub(crate) fn start(clock: Clock) -> std::io::Result<Self> {
        let (work, queue) = sync_channel(QUEUE);
        let writer = Self { work, rests_until: Arc::default(), has_rows: Arc::default() };
        let (rests_until, has_rows) = (Arc::clone(&writer.rests_until), Arc::clone(&writer.has_rows));
        thread::Builder::new()
            .name("cache".to_owned())
            .spawn(move || write_all(&queue, &rests_until, &has_rows, &clock))?;
        Ok(writer)
    }

    /// Whether rows may be handed over.
    pub(super) fn takes_rows(&self, now: Tick) -> bool {
        self.rests_until.load(Ordering::Relaxed) <= now.0 && !self.has_rows.load(Ordering::Relaxed)
    }

    /// Hands work over; the work itself, where the thread has ended.
    pub(super) fn give(&self, work: Work) -> Result<(), Box<Work>> {
        let is_rows = matches!(work.task, Task::Rows(_));
        match self.work.try_send(work) {
            Ok(()) => {
                self.has_rows.fetch_or(is_rows, Ordering::Relaxed);
                Ok(())
            }
            Err(TrySendError::Full(work) | TrySendError::Disconnected(work)) => Err(Box::new(work)),
        }
    }
}

fn write_all(queue: &Receiver<Work>, rests_until: &AtomicU64, has_rows: &AtomicBool, clock: &Clock) {
    while let Ok(Work { store, task, done }) = queue.recv() {
        let is_rows = matches!(task, Task::Rows(_));
        let begun = clock.tick();
        let result = task.run(store);
        if is_rows {
            let now = clock.tick();
            rests_until.store(now + (now - begun) * REST, Ordering::Relaxed);
            has_rows.store(false, Ordering::Relaxed);
        }
        // An actor that has ended leaves its store to the next.
        let _ = done.send(result);
    }
}

impl Task {
    fn run(self, mut store: SledShard) -> Done {
        let (stored, compacted) = match self {
            Self::Rows(write) | Self::Run(write) => (write.run(&mut store), Ok(None)),
            Self::Compact(compaction) => (Ok(Vec::new()), compact(compaction, &mut store).map(Some)),
        };
        match (stored, compacted) {
            (Ok(stored), Ok(compacted)) => Done { store: Some(store), stored, compacted },
            (Err(error), _) => failed(&error.to_string()),
            (_, Err(error)) => failed(&error),
        }
    }
}

fn failed(error: &str) -> Done {
    tracing::warn!(error, "cannot write to the local store; a shard goes on without it");
    Done { store: None, stored: Vec::new(), compacted: None }
}

impl Write {
    /// Writes here and now; gives the chunks that the store has now.
    pub(super) fn run(self, store: &mut SledShard) -> Result<Vec<ChunkId>, tidegate_store::Error> {
        let mut stored = Vec::with_capacity(self.chunks.len());
        for (id, bytes) in &self.chunks {
            store.put_chunk(&id.to_bytes(), bytes)?;
            stored.push(*id);
        }
        if let Some(changes) = &self.changes {
            store.apply(changes)?;
        }
        for id in &self.obsolete {
            store.remove_chunk(&id.to_bytes())?;
        }
        if let Some((operator, purged)) = &self.purged {
            store.remove_chunks_below(&purged_chunks(operator, *purged))?;
        }
        Ok(stored)
    }
}

fn compact(compaction: Compaction, store: &mut SledShard) -> Result<Compacted, String> {
    enum Failed {
        Store(tidegate_store::Error),
        Input(Unreadable),
    }
    impl From<Unreadable> for Failed {
        fn from(unreadable: Unreadable) -> Self {
            Self::Input(unreadable)
        }
    }
    let done = compaction.run(|id, bytes| store.put_chunk(&id.to_bytes(), &bytes).map_err(Failed::Store));
    done.map_err(|failed| match failed {
        Failed::Store(error) => error.to_string(),
        Failed::Input(error) => error.to_string(),
    })
}
