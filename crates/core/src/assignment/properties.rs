//! The promises of the assignment under arbitrary schedules: workers that come, go, return, drain and reconnect, late and
//! lost messages, fenced owners, restarts of the coordinator.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use proptest::prelude::*;

use super::*;

const WORKERS: u64 = 5;

#[derive(Clone, Debug)]
enum Step {
    Start(u64),
    /// The process dies; its stream is seen to close.
    Kill(u64),
    /// The stream is cut, the process lives on with what it owns; `Start` connects it again.
    Cut(u64),
    /// The process dies and comes back before its stream is seen to close.
    Bounce(u64),
    /// The stream breaks and what is on it is lost; the process reconnects with what it owns.
    Reconnect(u64),
    /// The next message to the worker arrives, and its answer goes back.
    Deliver(u64),
    Drain(u64),
    /// An owner finds itself fenced.
    Fenced {
        worker: u64,
        pick: usize,
    },
    Wait(u64),
    RestartCoordinator,
}

fn step() -> impl Strategy<Value = Step> {
    let worker = || 0..WORKERS;
    prop_oneof![
        4 => worker().prop_map(Step::Start),
        2 => worker().prop_map(Step::Kill),
        1 => worker().prop_map(Step::Cut),
        1 => worker().prop_map(Step::Bounce),
        1 => worker().prop_map(Step::Reconnect),
        12 => worker().prop_map(Step::Deliver),
        1 => worker().prop_map(Step::Drain),
        2 => (worker(), 0..8_usize).prop_map(|(worker, pick)| Step::Fenced { worker, pick }),
        6 => (0..3000_u64).prop_map(Step::Wait),
        1 => (0..12_000_u64).prop_map(Step::Wait),
        1 => Just(Step::RestartCoordinator),
    ]
}

/// A worker's process.
#[derive(Debug, Default)]
struct Process {
    stream: u64,
    draining: bool,
    cut: bool,
    owns: BTreeMap<Shard, AssignmentId>,
    inbox: VecDeque<AssignmentEffect>,
}

#[derive(Debug)]
struct World {
    shards: u32,
    machine: AssignmentMachine,
    now: Tick,
    term: u64,
    next_stream: u64,
    processes: BTreeMap<WorkerId, Process>,
    /// Every assignment ever made.
    made: BTreeSet<AssignmentId>,
    last_of: BTreeMap<Shard, AssignmentId>,
    owners_version: u64,
    releases: usize,
    assigns: usize,
}

fn worker(n: u64) -> WorkerId {
    WorkerId(format!("worker-{n}"))
}

impl World {
    fn new(shards: u32) -> Self {
        Self {
            shards,
            machine: AssignmentMachine::new(Term(1), shards, AssignmentConfig::default()),
            now: Tick(0),
            term: 1,
            next_stream: 0,
            processes: BTreeMap::new(),
            made: BTreeSet::new(),
            last_of: BTreeMap::new(),
            owners_version: 0,
            releases: 0,
            assigns: 0,
        }
    }

    fn step(&mut self, step: &Step) -> Result<(), TestCaseError> {
        match *step {
            Step::Start(n) => {
                let process = self
                    .processes
                    .entry(worker(n))
                    .or_insert_with(|| Process { cut: true, ..Process::default() });
                if process.cut {
                    self.register(&worker(n))?;
                }
            }
            Step::Kill(n) => {
                if let Some(process) = self.processes.remove(&worker(n)) {
                    self.lose(&worker(n), process.stream)?;
                }
            }
            Step::Cut(n) => {
                if let Some(process) = self.connected(n) {
                    process.cut = true;
                    process.inbox.clear();
                    let stream = process.stream;
                    self.lose(&worker(n), stream)?;
                }
            }
            Step::Bounce(n) => {
                if let Some(process) = self.connected(n) {
                    let old = std::mem::take(process).stream;
                    self.register(&worker(n))?;
                    let effects = self.machine.lost(&worker(n), StreamId(old), self.now);
                    prop_assert_eq!(effects, [], "the old stream's end is void");
                }
            }
            Step::Reconnect(n) => {
                if let Some(process) = self.connected(n) {
                    process.inbox.clear();
                    let stream = process.stream;
                    self.lose(&worker(n), stream)?;
                    self.register(&worker(n))?;
                }
            }
            Step::Deliver(n) => self.deliver(&worker(n))?,
            Step::Drain(n) => {
                if let Some(process) = self.connected(n) {
                    process.draining = true;
                    let effects = self.machine.draining(&worker(n), self.now);
                    self.take(effects)?;
                }
            }
            Step::Fenced { worker: n, pick } => self.fence_one(n, pick)?,
            Step::Wait(ms) => self.wait(ms)?,
            Step::RestartCoordinator => self.restart_coordinator()?,
        }
        self.check()
    }

    fn connected(&mut self, n: u64) -> Option<&mut Process> {
        self.processes.get_mut(&worker(n)).filter(|process| !process.cut)
    }

    fn lose(&mut self, id: &WorkerId, stream: u64) -> Result<(), TestCaseError> {
        let effects = self.machine.lost(id, StreamId(stream), self.now);
        self.take(effects)
    }

    fn register(&mut self, id: &WorkerId) -> Result<(), TestCaseError> {
        self.next_stream += 1;
        let process = self.processes.get_mut(id).unwrap();
        process.stream = self.next_stream;
        process.cut = false;
        process.inbox.clear();
        let (draining, claims) = (process.draining, process.owns.clone());
        let registration = Registration {
            worker: id.clone(),
            stream: StreamId(self.next_stream),
            address: format!("{id}:1"),
            incarnation: self.next_stream,
            claims,
        };
        let effects = self.machine.registered(registration, self.now);
        self.take(effects)?;
        if draining {
            let effects = self.machine.draining(id, self.now);
            self.take(effects)?;
        }
        Ok(())
    }

    fn deliver(&mut self, id: &WorkerId) -> Result<(), TestCaseError> {
        let Some(process) = self.processes.get_mut(id) else { return Ok(()) };
        match process.inbox.pop_front() {
            Some(AssignmentEffect::Assign { shard, assignment, .. }) => {
                process.owns.insert(shard, assignment);
                let effects = self.machine.ready(shard, id, self.now);
                self.take(effects)?;
            }
            Some(AssignmentEffect::Release { shard, assignment, .. }) => {
                if process.owns.get(&shard) == Some(&assignment) {
                    process.owns.remove(&shard);
                    let effects = self.machine.released(shard, id, assignment, self.now);
                    self.take(effects)?;
                }
            }
            Some(AssignmentEffect::Fence { .. }) | None => {}
        }
        Ok(())
    }

    fn fence_one(&mut self, n: u64, pick: usize) -> Result<(), TestCaseError> {
        let Some(process) = self.connected(n) else { return Ok(()) };
        let Some((&shard, &assignment)) = process.owns.iter().nth(pick) else { return Ok(()) };
        process.owns.remove(&shard);
        let effects = self.machine.fenced(shard, &worker(n), assignment, self.now);
        self.take(effects)
    }

    fn wait(&mut self, ms: u64) -> Result<(), TestCaseError> {
        let until = self.now.0 + ms;
        while self.now.0 < until {
            self.now.0 = (self.now.0 + 100).min(until);
            let effects = self.machine.tick(self.now);
            self.take(effects)?;
        }
        Ok(())
    }

    fn restart_coordinator(&mut self) -> Result<(), TestCaseError> {
        self.term += 1;
        self.machine = AssignmentMachine::new(Term(self.term), self.shards, AssignmentConfig::default());
        self.owners_version = 0;
        let connected = self.processes.iter().filter(|(_, process)| !process.cut);
        let ids: Vec<WorkerId> = connected.map(|(id, _)| id.clone()).collect();
        for id in ids {
            self.register(&id)?;
            self.wait(100)?;
        }
        Ok(())
    }

    /// Routes effects, and checks what holds for each.
    fn take(&mut self, effects: Vec<AssignmentEffect>) -> Result<(), TestCaseError> {
        for effect in effects {
            let to = match &effect {
                AssignmentEffect::Assign { shard, worker, assignment } => {
                    self.assigns += 1;
                    prop_assert_eq!(assignment.term, Term(self.term));
                    prop_assert!(self.made.insert(*assignment), "{assignment:?} was made twice");
                    let last = self.last_of.insert(*shard, *assignment);
                    prop_assert!(Some(*assignment) > last, "{shard}: {assignment:?} after {last:?}");
                    worker
                }
                AssignmentEffect::Release { worker, .. } => {
                    self.releases += 1;
                    worker
                }
                AssignmentEffect::Fence { .. } => continue,
            };
            let process = self.processes.get_mut(to);
            prop_assert!(
                process.as_ref().is_some_and(|process| !process.cut),
                "told a dead worker: {effect:?}"
            );
            process.unwrap().inbox.push_back(effect);
        }
        Ok(())
    }

    fn check(&mut self) -> Result<(), TestCaseError> {
        let owners = self.machine.owners();
        prop_assert!(owners.version >= self.owners_version);
        self.owners_version = owners.version;
        for (shard, state) in self.machine.shards() {
            let listed = owners.owners.get(&shard).map(|owner| (&owner.worker, owner.assignment));
            let owned = match state {
                ShardState::Owned { worker, assignment } => Some((worker, *assignment)),
                _ => None,
            };
            prop_assert_eq!(listed, owned);
            if let Some((worker, _)) = owned {
                let connected = self.processes.get(worker).is_some_and(|process| !process.cut);
                prop_assert!(connected, "{shard} is owned by a lost worker");
            }
        }
        Ok(())
    }

    /// Delivers everything and lets time pass until nothing happens any more.
    fn calm(&mut self) -> Result<(), TestCaseError> {
        // All that waits for a time has come after the first rounds; shards move one after the other.
        for round in 0..8 + self.shards {
            self.wait(if round < 8 { 4000 } else { 100 })?;
            let ids: Vec<WorkerId> = self.processes.keys().cloned().collect();
            for id in ids {
                while self.processes.get(&id).is_some_and(|process| !process.inbox.is_empty()) {
                    self.deliver(&id)?;
                }
            }
        }
        self.check()
    }

    /// Shards that have left one worker and are not yet at another, or are told to leave.
    fn moving(&self) -> usize {
        let arrived = |shard: Shard, worker: &WorkerId| self.processes[worker].owns.contains_key(&shard);
        let moving = |(shard, state): &(Shard, &ShardState)| match state {
            ShardState::Owned { worker, .. } => !arrived(*shard, worker),
            ShardState::Releasing { .. } => true,
            ShardState::Unassigned | ShardState::Held { .. } => false,
        };
        self.machine.shards().filter(moving).count()
    }

    /// Shards by live worker that is not draining.
    fn counts(&self) -> BTreeMap<WorkerId, usize> {
        let live = self.processes.iter().filter(|(_, process)| !process.draining && !process.cut);
        live.map(|(id, process)| (id.clone(), process.owns.len())).collect()
    }

    fn check_calm(&self) -> Result<(), TestCaseError> {
        let counts = self.counts();
        for (id, process) in self.processes.iter().filter(|(_, process)| !process.cut) {
            let believed: BTreeMap<Shard, AssignmentId> = self
                .machine
                .owners()
                .owners
                .iter()
                .filter(|(_, owner)| owner.worker == *id)
                .map(|(shard, owner)| (*shard, owner.assignment))
                .collect();
            prop_assert_eq!(&process.owns, &believed, "{} and the coordinator disagree", id);
            prop_assert!(counts.is_empty() || !process.draining || process.owns.is_empty());
        }
        if let (Some(most), Some(least)) = (counts.values().max(), counts.values().min()) {
            prop_assert!(most - least <= 1, "not balanced: {counts:?}");
            prop_assert_eq!(counts.values().sum::<usize>(), self.shards as usize, "not all owned");
        }
        Ok(())
    }
}

/// The fewest shards that have to leave their workers so that all of `counts` differ by at most one.
fn fewest_moves(counts: &BTreeMap<WorkerId, usize>, shards: usize) -> usize {
    let mut sorted: Vec<usize> = counts.values().copied().collect();
    sorted.sort_unstable_by(|a, b| b.cmp(a));
    let (quota, extra) = (shards / sorted.len(), shards % sorted.len());
    let over = |(place, count): (usize, &usize)| count.saturating_sub(quota + usize::from(place < extra));
    sorted.iter().enumerate().map(over).sum()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn every_assignment_is_new_and_calm_brings_balance(
        shards in 1..20_u32,
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(shards);
        for step in &steps {
            world.step(step)?;
        }
        world.calm()?;
        world.check_calm()?;
    }

    /// D6: whoever was there is there again; no shard moves, no assignment is made.
    #[test]
    fn a_restart_of_the_coordinator_moves_nothing(
        shards in 1..20_u32,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(shards);
        world.step(&Step::Start(0))?;
        for step in steps.iter().filter(|step| !matches!(step, Step::Drain(_))) {
            world.step(step)?;
        }
        world.calm()?;
        world.check_calm()?;
        let before = (world.assigns, world.releases, world.counts());
        world.step(&Step::RestartCoordinator)?;
        world.calm()?;
        world.check_calm()?;
        prop_assert_eq!((world.assigns, world.releases, world.counts()), before);
    }

    /// Never is more than one shard under way for balance, and balance comes all the same.
    #[test]
    fn balance_moves_one_shard_at_a_time(shards in 2..40_u32, first in 1..4_u64, more in 1..4_u64) {
        let mut world = World::new(shards);
        for n in 0..first {
            world.step(&Step::Start(n))?;
        }
        world.calm()?;
        for n in first..first + more {
            world.step(&Step::Start(n))?;
        }
        for _ in 0..2 * shards {
            world.wait(600)?;
            for n in 0..first + more {
                prop_assert!(world.moving() <= 1);
                world.deliver(&worker(n))?;
                prop_assert!(world.moving() <= 1);
            }
        }
        world.calm()?;
        world.check_calm()?;
    }

    /// D5: new workers cost exactly the moves that balance takes.
    #[test]
    fn scaling_out_takes_the_fewest_moves(shards in 1..40_u32, first in 1..4_u64, more in 1..4_u64) {
        let mut world = World::new(shards);
        for n in 0..first {
            world.step(&Step::Start(n))?;
        }
        world.calm()?;
        prop_assert_eq!(world.releases, 0);
        for n in first..first + more {
            world.step(&Step::Start(n))?;
        }
        let fewest = fewest_moves(&world.counts(), shards as usize);
        world.calm()?;
        world.check_calm()?;
        prop_assert_eq!(world.releases, fewest);
    }

    /// D4: a lost worker moves nothing but its own shards, and nothing at all if it comes back in time.
    #[test]
    fn a_lost_worker_disturbs_nobody_else(shards in 1..40_u32, workers in 2..5_u64, returns: bool) {
        let mut world = World::new(shards);
        for n in 0..workers {
            world.step(&Step::Start(n))?;
        }
        world.calm()?;
        let before: Vec<_> = world.machine.owners().owners.clone().into_iter().collect();
        let lost = world.processes[&worker(0)].owns.len();
        let assigns = world.assigns;
        world.step(&Step::Kill(0))?;
        world.step(&Step::Wait(9000))?;
        if returns {
            world.step(&Step::Start(0))?;
        }
        world.calm()?;
        world.check_calm()?;
        prop_assert_eq!(world.assigns - assigns, lost);
        prop_assert_eq!(world.releases, 0);
        for (shard, owner) in before {
            let now = &world.machine.owners().owners[&shard];
            let same = if owner.worker == worker(0) { now.worker == owner.worker } else { *now == owner };
            prop_assert_eq!(same, returns || owner.worker != worker(0));
        }
    }
}
