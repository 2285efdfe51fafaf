//! Credit: how much may be under way to each worker, what a worker without credit holds up, and when it is parked (design §5).
//!
//! ```text
//! with credit ── window under way ──► without ── patience, and another worker that it holds up is well ──► parked
//!      ▲  ▲                              │                                                                    │
//!      │  └────────── credit ────────────┘                                                                    │
//!      └──────── asked for its positions ◄── after the back-off ◄── half the window is free ◄─────────────────┘
//! ```
//!
//! A worker without credit holds the reading of the lanes that feed it. One that has been parked has no sessions: the others go
//! on, and it is asked for its positions when it can take frames again; a catch-up lane then brings it back. Where no other
//! worker is well it is the commits or the brokers that stall: reading waits, and nobody is parked.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    lane::WorkerRef,
    source::{LaneKind, SourcePartition},
    time::Tick,
};

/// Sizes and spans of credit; spans in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// Bytes of frames that may be under way to a worker, as of [`Frame::cost`](crate::frame::Frame::cost).
    pub window: u64,
    /// A worker may be without credit this long before it is parked.
    pub patience: u64,
    /// A worker that is parked again so soon after it was asked waits before it is asked again.
    pub recent: u64,
    /// How long it waits at first; twice as long each time.
    pub first_wait: u64,
    /// The longest wait.
    pub longest_wait: u64,
}

impl Terms {
    /// The usual spans, with a window of so many bytes.
    #[must_use]
    pub const fn of_window(window: u64) -> Self {
        Self { window, patience: 500, recent: 30_000, first_wait: 500, longest_wait: 8_000 }
    }
}

/// Which workers have sessions on some partition's main lane, and on some partition's catch-up lane.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feeding {
    /// Fed live.
    pub main: BTreeSet<WorkerRef>,
    /// Catching up.
    pub catch_up: BTreeSet<WorkerRef>,
}

impl Feeding {
    /// Of all partitions that a process reads.
    #[must_use]
    pub fn of<'a>(partitions: impl Iterator<Item = &'a SourcePartition>) -> Self {
        let mut feeding = Self::default();
        for partition in partitions {
            feeding.main.extend(partition.fed(LaneKind::Main));
            feeding.catch_up.extend(partition.fed(LaneKind::CatchUp));
        }
        feeding
    }
}

/// Which lanes may not be read on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The main lanes of all partitions.
    pub main: bool,
    /// The catch-up lanes of all partitions.
    pub catch_up: bool,
}

/// What is to be done about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Close all its sessions, and ignore what it wants until it is asked.
    Park(WorkerRef),
    /// Ask it for its positions: it can take frames again.
    Ask(WorkerRef),
}

/// The credit of all workers of an ingest process.
#[derive(Debug)]
pub struct Credit {
    terms: Terms,
    accounts: BTreeMap<WorkerRef, Account>,
}

#[derive(Debug, Default)]
struct Account {
    under_way: u64,
    /// Since when it has had no credit.
    out_since: Option<Tick>,
    /// When it last gave credit back.
    heard: Option<Tick>,
    parked: Option<Parked>,
    /// When it was last asked after it had been parked, and how long it had waited for that.
    returned: Option<(Tick, u64)>,
}

#[derive(Debug)]
struct Parked {
    /// Since when half its window is free.
    ready: Option<Tick>,
    wait: u64,
}

impl Credit {
    /// No workers yet.
    #[must_use]
    pub const fn new(terms: Terms) -> Self {
        Self { terms, accounts: BTreeMap::new() }
    }

    /// A worker is connected, with all its credit.
    pub fn up(&mut self, worker: WorkerRef) {
        self.accounts.insert(worker, Account::default());
    }

    /// A worker is gone, and its credit with it.
    pub fn down(&mut self, worker: WorkerRef) {
        self.accounts.remove(&worker);
    }

    /// So many bytes are on their way to the worker.
    pub fn spend(&mut self, worker: WorkerRef, bytes: u64, now: Tick) {
        if let Some(account) = self.accounts.get_mut(&worker) {
            account.under_way = account.under_way.saturating_add(bytes);
            if account.under_way >= self.terms.window {
                account.out_since.get_or_insert(now);
            }
        }
    }

    /// The worker has committed or dropped so many bytes.
    pub fn give_back(&mut self, worker: WorkerRef, bytes: u64, now: Tick) {
        if let Some(account) = self.accounts.get_mut(&worker) {
            account.under_way = account.under_way.saturating_sub(bytes);
            account.heard = Some(now);
            if account.under_way < self.terms.window {
                account.out_since = None;
            }
        }
    }

    /// Bytes on their way to the worker.
    #[must_use]
    pub fn under_way(&self, worker: WorkerRef) -> u64 {
        self.accounts.get(&worker).map_or(0, |account| account.under_way)
    }

    /// Whether the worker is parked: it gets no sessions, whatever it wants.
    #[must_use]
    pub fn is_parked(&self, worker: WorkerRef) -> bool {
        self.accounts.get(&worker).is_some_and(|account| account.parked.is_some())
    }

    /// Which lanes wait for credit. `feeding` is looked at only where some worker has none.
    pub fn held(&self, feeding: impl FnOnce() -> Feeding) -> Held {
        if self.accounts.values().all(|account| account.out_since.is_none()) {
            return Held::default();
        }
        let feeding = feeding();
        let is_out =
            |worker: &WorkerRef| self.accounts.get(worker).is_some_and(|account| account.out_since.is_some());
        Held { main: feeding.main.iter().any(is_out), catch_up: feeding.catch_up.iter().any(is_out) }
    }

    /// Decides who is parked and who is asked again; call every few ms. What it says is taken as done.
    pub fn look(&mut self, now: Tick, feeding: impl FnOnce() -> Feeding) -> Vec<Step> {
        let mut steps = self.asked_again(now);
        let slow: Vec<_> = self.impatient(now).collect();
        if slow.is_empty() {
            return steps;
        }
        let feeding = feeding();
        let parked: Vec<_> = slow
            .into_iter()
            .filter(|(worker, since)| {
                [&feeding.main, &feeding.catch_up].into_iter().any(|lane| {
                    lane.contains(worker) && lane.iter().any(|other| self.is_well(*other, *since))
                })
            })
            .collect();
        for (worker, _) in parked {
            self.park(worker, now);
            steps.push(Step::Park(worker));
        }
        steps
    }

    /// The workers without credit for too long, and since when.
    fn impatient(&self, now: Tick) -> impl Iterator<Item = (WorkerRef, Tick)> {
        let patience = self.terms.patience;
        self.accounts.iter().filter(|(_, account)| account.parked.is_none()).filter_map(
            move |(worker, account)| {
                account.out_since.filter(|since| now.since(*since) >= patience).map(|since| (*worker, since))
            },
        )
    }

    /// Whether a worker takes what it gets: it has credit, and it has committed something since the other one ran out, or has
    /// nothing to commit. Without that it may be the commits that stall.
    fn is_well(&self, worker: WorkerRef, since: Tick) -> bool {
        self.accounts.get(&worker).is_some_and(|account| {
            let answers = account.under_way == 0 || account.heard.is_some_and(|heard| heard >= since);
            account.out_since.is_none() && answers
        })
    }

    fn park(&mut self, worker: WorkerRef, now: Tick) {
        let Terms { recent, first_wait, longest_wait, .. } = self.terms;
        if let Some(account) = self.accounts.get_mut(&worker) {
            let wait = match account.returned {
                Some((at, before)) if now.since(at) < recent => {
                    before.saturating_mul(2).max(first_wait).min(longest_wait)
                }
                _ => 0,
            };
            account.parked = Some(Parked { ready: None, wait });
        }
    }

    fn asked_again(&mut self, now: Tick) -> Vec<Step> {
        let mut steps = Vec::new();
        for (worker, account) in &mut self.accounts {
            let Some(parked) = &mut account.parked else { continue };
            if account.under_way > self.terms.window / 2 {
                continue;
            }
            let ready = *parked.ready.get_or_insert(now);
            if now.since(ready) >= parked.wait {
                account.returned = Some((now, parked.wait));
                account.parked = None;
                steps.push(Step::Ask(*worker));
            }
        }
        steps
    }
}

#[cfg(test)]
mod tests;
