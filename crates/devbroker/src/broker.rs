//! What every connection of one broker shares.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use crate::state::State;
use crate::{Config, Faults};

/// The one broker of the cluster.
pub(crate) const NODE_ID: i32 = 1;

#[derive(Debug)]
pub(crate) struct Broker {
    pub(crate) config: Config,
    pub(crate) faults: Faults,
    pub(crate) cluster_id: String,
    /// Never held over an await.
    state: Mutex<State>,
}

impl Broker {
    pub(crate) fn new(config: Config) -> Self {
        Self {
            state: Mutex::new(State::new(&config)),
            faults: Faults::default(),
            cluster_id: uuid::Uuid::new_v4().simple().to_string(),
            config,
        }
    }

    pub(crate) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The wall clock, in ms since 1970: for log append times and markers.
#[expect(
    clippy::disallowed_methods,
    reason = "the edge of the broker; pure parts take the time as an argument"
)]
pub(crate) fn wall_clock_ms() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
