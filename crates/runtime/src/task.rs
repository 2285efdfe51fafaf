//! Named tasks, and how a process ends: intake stops, tasks drain, the process leaves.
//!
//! ```text
//! SIGTERM, SIGINT ─┐
//! a task fails     ├─► Shutdown requested ─► tasks drain and end ─► Outcome ─► exit code
//! a task panics ───┘                         └ not within the bound: leave without them
//! second signal ──► leave at once, 128 + its number
//! ```
//!
//! Signals are heard, and the bound is kept, by a thread of their own: a call that blocks the threads of the runtime, such as
//! the closing of a client whose broker does not answer, holds up neither.
//!
//! A task started by a task of a group, with [`spawn`], belongs to that group as far as panics go.

use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use tracing::Instrument;

use crate::Error;

/// The target of the spans around tasks, which say in each line of the log whose it is.
pub(crate) const SPAN_TARGET: &str = "tidegate::task";

/// How long tasks may drain unless told otherwise.
pub const DRAIN: Duration = Duration::from_secs(20);

/// What a runtime gets beyond the bound, to say which tasks are left and to flush its telemetry.
const LAST_WORDS: Duration = Duration::from_secs(2);

tokio::task_local! {
    static GROUP: Shutdown;
}

/// Why a shutdown was requested.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// From outside.
    Signal(Signal),
    /// A task ended with an error or a panic.
    Failed {
        /// The task.
        task: String,
        /// What it said.
        error: String,
    },
    /// The work is done.
    Done,
}

/// A signal that asks the process to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Signal {
    /// The exit code of a process that a signal ended.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interrupt => "SIGINT",
            Self::Terminate => "SIGTERM",
        })
    }
}

/// The request to end, heard by all tasks; clones are the same request. The first reason stands.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
    reason: Arc<OnceLock<Reason>>,
}

impl Shutdown {
    /// No request yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Requests the end.
    pub fn request(&self, reason: Reason) {
        let _first_stands = self.reason.set(reason);
        self.token.cancel();
    }

    /// Ready once the end is requested; cancel safe.
    pub async fn requested(&self) {
        self.token.cancelled().await;
    }

    /// Whether the end is requested.
    #[must_use]
    pub fn is_requested(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Why, once it is.
    #[must_use]
    pub fn reason(&self) -> Option<&Reason> {
        self.reason.get()
    }

    /// The bare token, for libraries that take one.
    #[must_use]
    pub const fn token(&self) -> &CancellationToken {
        &self.token
    }

    fn fail(&self, task: &str, error: String) {
        self.request(Reason::Failed { task: task.to_owned(), error });
    }
}

/// Starts a task by name. Its log lines carry the name; its panic is logged and, if it was started by a task of a group,
/// shuts the process down.
pub fn spawn<F>(name: impl Into<String>, future: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    let name = name.into();
    let group = GROUP.try_with(Clone::clone).ok();
    let span = tracing::info_span!(target: SPAN_TARGET, "task", task = name.as_str());
    let task = async move {
        match caught(inherit(group.clone(), future)).await {
            Ok(output) => output,
            Err(panic) => {
                let error = panic_text(&*panic);
                tracing::error!(task = name, error, "task panicked");
                if let Some(group) = group {
                    group.fail(&name, error);
                }
                resume_unwind(panic)
            }
        }
    };
    #[allow(clippy::disallowed_methods, reason = "tasks are started here")]
    tokio::spawn(task.instrument(span))
}

/// The tasks of a process; clones are the same group.
#[derive(Clone, Debug, Default)]
pub struct Tasks {
    shutdown: Shutdown,
    tracker: TaskTracker,
    running: Arc<Mutex<BTreeMap<u64, String>>>,
    started: Arc<AtomicU64>,
}

/// How the process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All tasks ended by themselves, or were asked to by one of them.
    Finished,
    /// A signal came and all tasks drained.
    Drained(Signal),
    /// A task failed; the others drained.
    Failed {
        /// The task.
        task: String,
        /// What it said.
        error: String,
    },
    /// These tasks did not drain within the bound.
    Stuck(Vec<String>),
}

impl Outcome {
    /// 0 if everything went well.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Finished | Self::Drained(_) => 0,
            Self::Failed { .. } | Self::Stuck(_) => 1,
        }
    }

    /// Ends the process without waiting for threads that a stuck task holds. Drop what has to be flushed first.
    pub fn exit(&self) -> ! {
        std::process::exit(i32::from(self.code()))
    }
}

impl From<Outcome> for ExitCode {
    fn from(outcome: Outcome) -> Self {
        Self::from(outcome.code())
    }
}

impl Tasks {
    /// An empty group.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The request to end that this group makes and obeys.
    #[must_use]
    pub const fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Starts a task of the group. If it fails or panics the group shuts down; it may end well at any time.
    pub fn spawn<F, E>(&self, name: impl Into<String>, future: F) -> JoinHandle<()>
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: fmt::Display,
    {
        let name = name.into();
        let span = tracing::info_span!(target: SPAN_TARGET, "task", task = name.as_str());
        let running = Running::enter(self, &name);
        let shutdown = self.shutdown.clone();
        let task = async move {
            let _running = running;
            let ended = caught(inherit(Some(shutdown.clone()), future)).await;
            let error = match ended {
                Ok(Ok(())) => return,
                Ok(Err(error)) => {
                    let error = error.to_string();
                    tracing::error!(task = name, error, "task failed");
                    error
                }
                Err(panic) => {
                    let error = format!("panicked: {}", panic_text(&*panic));
                    tracing::error!(task = name, error, "task panicked");
                    error
                }
            };
            shutdown.fail(&name, error);
        };
        self.tracker.spawn(task.instrument(span))
    }

    /// Waits until all tasks have ended, or a signal or a failure asks for the end; then lets them drain for `drain`.
    ///
    /// A second signal ends the process here and now. So does the bound, a little later, where not even this returns by then.
    ///
    /// # Errors
    /// [`Error::Signals`] when signals cannot be heard.
    pub async fn run_until_shutdown(&self, drain: Duration) -> Result<Outcome, Error> {
        let _keeper = self.keep(drain).map_err(Error::Signals)?;
        self.tracker.close();
        tokio::select! {
            biased;
            () = self.tracker.wait() => {}
            () = self.shutdown.requested() => {}
        }
        if self.shutdown.is_requested() {
            let tasks = self.names();
            tracing::info!(reason = ?self.shutdown.reason(), ?tasks, "shutting down");
        }
        tokio::select! {
            biased;
            () = self.tracker.wait() => {}
            () = tokio::time::sleep(drain) => {
                let tasks = self.names();
                tracing::error!(?tasks, drain_s = drain.as_secs(), "tasks did not drain in time; left without them");
                return Ok(Outcome::Stuck(tasks));
            }
        }
        Ok(match self.shutdown.reason() {
            None | Some(Reason::Done) => Outcome::Finished,
            Some(Reason::Signal(signal)) => Outcome::Drained(*signal),
            Some(Reason::Failed { task, error }) => {
                Outcome::Failed { task: task.clone(), error: error.clone() }
            }
        })
    }

    /// Starts the thread that hears signals and keeps the bound; it ends when the guard is dropped. Signals are heard from
    /// the return on.
    fn keep(&self, drain: Duration) -> io::Result<DropGuard> {
        let over = CancellationToken::new();
        let (tasks, ended) = (self.clone(), over.clone());
        let (heard, hears) = std::sync::mpsc::channel();
        std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
            let listening = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let listening = listening.and_then(|runtime| {
                let _inside = runtime.enter();
                let signals = Signals::listen()?;
                Ok((runtime, signals))
            });
            match listening {
                Ok((runtime, signals)) => {
                    let _waits = heard.send(Ok(()));
                    runtime.block_on(tasks.see_to_the_end(signals, drain, ended));
                }
                Err(error) => {
                    let _waits = heard.send(Err(error));
                }
            }
        })?;
        hears.recv().unwrap_or_else(|gone| Err(io::Error::other(gone)))?;
        Ok(over.drop_guard())
    }

    async fn see_to_the_end(&self, mut signals: Signals, drain: Duration, over: CancellationToken) {
        tokio::select! {
            biased;
            () = over.cancelled() => return,
            () = self.shutdown.requested() => {}
            signal = signals.next() => self.shutdown.request(Reason::Signal(signal)),
        }
        tokio::select! {
            biased;
            () = over.cancelled() => {}
            signal = signals.next() => {
                tracing::warn!(%signal, tasks = ?self.names(), "left at once");
                std::process::exit(i32::from(signal.exit_code()))
            }
            () = tokio::time::sleep(drain + LAST_WORDS) => {
                tracing::error!(tasks = ?self.names(), "the process is blocked; left as it is");
                std::process::exit(1)
            }
        }
    }

    fn names(&self) -> Vec<String> {
        let running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        running.values().cloned().collect()
    }
}

/// A task's place in the list of those that run; dropping it, however the task ends, gives it up.
struct Running {
    id: u64,
    list: Arc<Mutex<BTreeMap<u64, String>>>,
}

impl Running {
    fn enter(tasks: &Tasks, name: &str) -> Self {
        let id = tasks.started.fetch_add(1, Ordering::Relaxed);
        let list = Arc::clone(&tasks.running);
        list.lock().unwrap_or_else(PoisonError::into_inner).insert(id, name.to_owned());
        Self { id, list }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.list.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

struct Signals {
    interrupt: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.interrupt.recv() => Signal::Interrupt,
            _ = self.terminate.recv() => Signal::Terminate,
        }
    }
}

async fn inherit<F: Future>(group: Option<Shutdown>, future: F) -> F::Output {
    match group {
        Some(group) => GROUP.scope(group, future).await,
        None => future.await,
    }
}

async fn caught<F: Future>(future: F) -> std::thread::Result<F::Output> {
    let mut future = pin!(future);
    poll_fn(|context| match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(context))) {
        Ok(polled) => polled.map(Ok),
        Err(panic) => std::task::Poll::Ready(Err(panic)),
    })
    .await
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    let text = text.or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("without a message").to_owned()
}
