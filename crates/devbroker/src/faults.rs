//! Faults on purpose, set through a handle and never over the wire.
//!
//! ```
//! # use tidegate_devbroker::{ApiKey, Fault, Faults};
//! # let faults = Faults::default();
//! faults.once(ApiKey::EndTxn, Fault::DropResponseAfterApply); // the commit happens, the client never hears of it
//! faults.always(ApiKey::Fetch, Fault::Delay(std::time::Duration::from_millis(50)));
//! faults.clear(ApiKey::Fetch);
//! ```

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kafka_protocol::messages::ApiKey;

/// What goes wrong with a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The request is applied and answered, this much later.
    Delay(Duration),
    /// The connection closes before the request is applied.
    Disconnect,
    /// The request is applied; the connection closes instead of the response.
    DropResponseAfterApply,
}

/// Handle to the faults of a running broker. Clones share the same faults.
///
/// Faults of one kind of request are used up in the order in which they were set.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    planned: Arc<Mutex<Planned>>,
}

#[derive(Debug, Default)]
struct Planned {
    rules: HashMap<ApiKey, VecDeque<Rule>>,
    fired: HashMap<ApiKey, u64>,
}

#[derive(Debug)]
struct Rule {
    fault: Fault,
    count: Count,
}

#[derive(Debug)]
enum Count {
    Left(u32),
    Always,
}

impl Faults {
    /// The next request of this kind meets the fault.
    pub fn once(&self, api: ApiKey, fault: Fault) {
        self.times(api, 1, fault);
    }

    /// The next `count` requests of this kind meet the fault.
    pub fn times(&self, api: ApiKey, count: u32, fault: Fault) {
        if count > 0 {
            self.plan(api, fault, Count::Left(count));
        }
    }

    /// Every request of this kind meets the fault, until [`Faults::clear`].
    pub fn always(&self, api: ApiKey, fault: Fault) {
        self.plan(api, fault, Count::Always);
    }

    /// Requests of this kind are served normally again.
    pub fn clear(&self, api: ApiKey) {
        self.lock().rules.remove(&api);
    }

    /// All requests are served normally again.
    pub fn clear_all(&self) {
        self.lock().rules.clear();
    }

    /// How many requests of this kind have met a fault since the broker started.
    pub fn fired(&self, api: ApiKey) -> u64 {
        self.lock().fired.get(&api).copied().unwrap_or(0)
    }

    /// The fault that the request at hand meets.
    pub(crate) fn take(&self, api: ApiKey) -> Option<Fault> {
        let mut planned = self.lock();
        let rules = planned.rules.get_mut(&api)?;
        let rule = rules.front_mut()?;
        let fault = rule.fault;
        match &mut rule.count {
            Count::Always => {}
            Count::Left(1) => {
                rules.pop_front();
            }
            Count::Left(left) => *left -= 1,
        }
        *planned.fired.entry(api).or_default() += 1;
        Some(fault)
    }

    fn plan(&self, api: ApiKey, fault: Fault, count: Count) {
        let rule = Rule { fault, count };
        self.lock().rules.entry(api).or_default().push_back(rule);
    }

    fn lock(&self) -> MutexGuard<'_, Planned> {
        self.planned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_used_up_in_order_and_counted() {
        let faults = Faults::default();
        faults.times(ApiKey::Fetch, 2, Fault::Disconnect);
        faults.always(ApiKey::Fetch, Fault::DropResponseAfterApply);
        assert_eq!(faults.take(ApiKey::Produce), None);
        assert_eq!(faults.take(ApiKey::Fetch), Some(Fault::Disconnect));
        assert_eq!(faults.take(ApiKey::Fetch), Some(Fault::Disconnect));
        assert_eq!(faults.take(ApiKey::Fetch), Some(Fault::DropResponseAfterApply));
        assert_eq!(faults.take(ApiKey::Fetch), Some(Fault::DropResponseAfterApply));
        assert_eq!(faults.fired(ApiKey::Fetch), 4);
        faults.clear(ApiKey::Fetch);
        assert_eq!(faults.take(ApiKey::Fetch), None);
    }
}
