//! What all processes of a run share: time, chance, the network, the brokers' part, and what is written down.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque},
    rc::Rc,
};

use tidegate_core::{
    announcement::Announcement,
    announcement::{AssignmentId, Report},
    assignment::{Owners, Registration},
    frame::Frame,
    shard::{CanonicalState, Commit},
    source::{LaneKind, Opening, Want},
    time::{EventTime, Offset, Partition, Shard, Watermark},
};

use crate::{
    changelog::{Changelog, CommitOutcome},
    dice::Dice,
    ledger::Ledger,
    mutation::Mutation,
    replay::{Asked, DeadTopic},
    scenario::{FaultKind, Faults, Scenario},
    topic::Topic,
};

/// A process of one of the services; a restarted one has a new number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Process {
    Ingest(u64),
    Worker(u64),
    Coordinator(u64),
}

/// A stream between two processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LinkId(pub u64);

#[derive(Debug)]
pub struct Link {
    /// Who opened it, and to whom.
    pub ends: [Process; 2],
    /// Whether that end still believes in it.
    pub open: [bool; 2],
    broken: bool,
    /// Whether what was under way to that end when it broke still arrives.
    lenient: [bool; 2],
    /// When the last message to that end arrives.
    arrives: [u64; 2],
    /// Most ms that a message takes.
    delay: u64,
}

/// What goes over streams.
#[derive(Clone, Debug)]
pub enum Message {
    Ask(Vec<Partition>),
    Open(Opening),
    Frames(Vec<Frame>),
    Wants(Vec<(Partition, Want)>),
    Credit(u64),
    Committed(Shard, Watermark, Vec<(Partition, Offset)>),
    IngestHello,
    Reports(Vec<Report>),
    Announcement(Announcement),
    Owners(Owners),
    Raise(Partition, Offset, EventTime),
    Pause(Partition, bool),
    WorkerHello(Box<(Registration, Watermark, Option<Announcement>)>),
    /// A shard has been restored, at this W_s.
    Ready(Shard, Watermark),
    Released(Shard, AssignmentId),
    Fenced(Shard, AssignmentId),
    Draining,
    Assign(Shard, AssignmentId),
    Release(Shard, AssignmentId),
}

/// One thing that happens.
#[derive(Debug)]
pub enum Event {
    Deliver {
        link: LinkId,
        to: usize,
        message: Message,
    },
    Down {
        link: LinkId,
        at: usize,
    },
    Tick(Process),
    Read {
        ingest: u64,
        partition: Partition,
        lane: LaneKind,
        reading: u64,
    },
    EndAsked {
        ingest: u64,
        partition: Partition,
    },
    EndAnswered {
        ingest: u64,
        partition: Partition,
        stable: Offset,
        high: Offset,
    },
    /// The group tells a member what it reads from now on.
    Assigned {
        ingest: u64,
        generation: u64,
        partitions: Vec<Partition>,
    },
    Rebalance {
        recreated: bool,
    },
    /// `init_transactions` reaches the broker.
    Init {
        by: Process,
        shard: Shard,
        attempt: u64,
    },
    InitAnswered {
        by: Process,
        shard: Shard,
        attempt: u64,
        epoch: u64,
    },
    /// The worker has read the changelog up to where it ended after its init.
    Restored {
        worker: u64,
        shard: Shard,
        attempt: u64,
        epoch: u64,
    },
    Commit(Box<CommitRequest>),
    CommitAnswered {
        worker: u64,
        shard: Shard,
        attempt: u64,
        outcome: CommitOutcome,
    },
    CommitOverdue {
        worker: u64,
        shard: Shard,
        attempt: u64,
    },
    Truncate {
        shard: Shard,
        before: Offset,
    },
    /// Dead letters are asked for back: the scenario's request of this number.
    Replay(usize),
    ReplayTick,
    ReplayAsked {
        worker: u64,
        asked: Box<Asked>,
    },
    ReplayAnswered {
        run: u64,
        at: usize,
    },
    Fault(FaultKind),
    Start(Role),
    /// Faults end.
    Heal,
    /// Has everything come out?
    Settled,
}

/// What kind of process to start, a worker by name.
#[derive(Clone, Debug)]
pub enum Role {
    Ingest,
    Worker(String),
    Coordinator,
}

/// A transaction on its way to the broker.
#[derive(Clone, Debug)]
pub struct CommitRequest {
    pub worker: u64,
    pub shard: Shard,
    pub attempt: u64,
    pub epoch: u64,
    pub commit: Commit,
    /// The owner's state when the commit was planned.
    pub owner: CanonicalState,
    /// The dead letters that it has answered for.
    pub replayed: Vec<Replayed>,
}

/// A dead letter that came back to a shard.
#[derive(Clone, Copy, Debug)]
pub struct Replayed {
    /// Where its record is in the source.
    pub record: (Partition, Offset),
    /// W_s when it came.
    pub watermark: Watermark,
    /// Whether it was applied; `None`: there were others in its frame.
    pub applied: Option<bool>,
}

#[derive(Debug)]
struct Due {
    at: u64,
    number: u64,
    event: Event,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        Reverse((self.at, self.number)).cmp(&Reverse((other.at, other.number)))
    }
}

#[derive(Debug)]
pub struct Context {
    pub now: u64,
    pub dice: Dice,
    pub scenario: Rc<Scenario>,
    pub topic: Rc<Topic>,
    pub faults: Faults,
    pub mutation: Option<Mutation>,
    pub changelog: Changelog,
    pub dead_topic: DeadTopic,
    pub ledger: Ledger,
    pub links: BTreeMap<LinkId, Link>,
    pub live: BTreeSet<Process>,
    /// Pairs that cannot reach each other, until when.
    pub cut: BTreeMap<(Process, Process), u64>,
    /// Processes that reach no coordinator, until when.
    pub cut_off: BTreeMap<Process, u64>,
    trace: Option<VecDeque<String>>,
    queue: BinaryHeap<Due>,
    numbers: u64,
    pub events: u64,
    pub census: Census,
}

/// How often what a run is there for has happened.
pub type Census = BTreeMap<&'static str, u64>;

/// Events that a failing seed shows.
const SHOWN: usize = 60;

impl Context {
    pub fn new(
        scenario: Rc<Scenario>,
        topic: Rc<Topic>,
        dice: Dice,
        mutation: Option<Mutation>,
        traced: bool,
    ) -> Self {
        Self {
            now: 0,
            dice,
            faults: scenario.faults.clone(),
            mutation,
            changelog: Changelog::new(&scenario, &topic),
            dead_topic: DeadTopic::new(scenario.dead_partitions),
            ledger: Ledger::new(Rc::clone(&scenario), Rc::clone(&topic)),
            scenario,
            topic,
            links: BTreeMap::new(),
            live: BTreeSet::new(),
            cut: BTreeMap::new(),
            cut_off: BTreeMap::new(),
            trace: traced.then(VecDeque::new),
            queue: BinaryHeap::new(),
            numbers: 0,
            events: 0,
            census: Census::new(),
        }
    }

    pub fn count(&mut self, what: &'static str) {
        *self.census.entry(what).or_default() += 1;
    }

    /// A number never given before.
    pub fn number(&mut self) -> u64 {
        self.numbers += 1;
        self.numbers
    }

    pub fn is_mutated(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    pub fn after(&mut self, delay: u64, event: Event) {
        let (at, number) = (self.now + delay, self.number());
        self.queue.push(Due { at, number, event });
    }

    /// As long as a request to a broker or a message takes.
    pub fn latency(&mut self) -> u64 {
        let most = self.scenario.delay;
        self.dice.within(0, most)
    }

    /// When something happens next.
    pub fn due(&self) -> Option<u64> {
        self.queue.peek().map(|due| due.at)
    }

    /// What happens next, and its number.
    pub fn next(&mut self) -> Option<(u64, Event)> {
        let due = self.queue.pop()?;
        self.now = self.now.max(due.at);
        self.events += 1;
        Some((due.number, due.event))
    }

    /// Lets an event happen later, in the order in which it was due among those put off with it.
    pub fn put_off(&mut self, until: u64, number: u64, event: Event) {
        self.queue.push(Due { at: until, number, event });
    }

    pub fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = self.trace.as_mut() {
            if trace.len() >= SHOWN {
                trace.pop_front();
            }
            trace.push_back(format!("{now:>6} {}", what()));
        }
    }

    pub fn shown(&self) -> Vec<String> {
        self.trace.iter().flatten().cloned().collect()
    }

    pub fn is_reachable(&self, one: Process, other: Process) -> bool {
        let is_cut = |pair| self.cut.get(&pair).is_some_and(|until| *until > self.now);
        let is_off = |process| self.cut_off.get(&process).is_some_and(|until| *until > self.now);
        let coordinator = matches!(other, Process::Coordinator(_));
        let cut = is_cut((one, other)) || is_cut((other, one)) || (coordinator && is_off(one));
        self.live.contains(&other) && !cut
    }

    /// Opens a stream, if the other end can be reached.
    pub fn connect(&mut self, from: Process, to: Process) -> Option<LinkId> {
        if !self.is_reachable(from, to) {
            return None;
        }
        let id = LinkId(self.number());
        let most = self.scenario.delay;
        let delay = self.dice.within(0, most);
        let lenient = [self.dice.chance(500), self.dice.chance(500)];
        let link =
            Link { ends: [from, to], open: [true; 2], broken: false, lenient, arrives: [self.now; 2], delay };
        self.links.insert(id, link);
        Some(id)
    }

    /// Sends to the other end; what goes into a broken stream is lost.
    pub fn send(&mut self, link: LinkId, from: Process, message: Message) {
        let now = self.now;
        let Some(known) = self.links.get_mut(&link).filter(|known| !known.broken) else { return };
        let to = usize::from(known.ends[0] == from);
        let delay = self.dice.within(0, known.delay);
        known.arrives[to] = known.arrives[to].max(now + delay);
        let after = known.arrives[to] - now;
        self.after(after, Event::Deliver { link, to, message });
    }

    /// Whether a message that has come through is heard, and by whom.
    pub fn receives(&self, link: LinkId, to: usize) -> Option<Process> {
        let known = self.links.get(&link)?;
        (known.open[to] && (!known.broken || known.lenient[to])).then_some(known.ends[to])
    }

    /// The stream breaks; each end notices in its own time.
    pub fn break_link(&mut self, link: LinkId) {
        let Some(known) = self.links.get_mut(&link).filter(|known| !known.broken) else { return };
        known.broken = true;
        let (open, arrives, now) = (known.open, known.arrives, self.now);
        for at in 0..2 {
            if open[at] {
                let noticed =
                    if self.dice.chance(300) { self.dice.within(0, 500) } else { self.dice.within(0, 30) };
                let after = noticed.max(arrives[at].saturating_sub(now));
                self.after(after, Event::Down { link, at });
            }
        }
    }

    /// One end closes the stream.
    pub fn close(&mut self, link: LinkId, by: Process) {
        if let Some(known) = self.links.get_mut(&link) {
            let at = usize::from(known.ends[0] != by);
            known.open[at] = false;
        }
        self.break_link(link);
    }

    /// A process is gone, with all its streams.
    pub fn gone(&mut self, process: Process) {
        self.live.remove(&process);
        let links: Vec<_> =
            self.links.iter().filter(|(_, l)| l.ends.contains(&process)).map(|(id, _)| *id).collect();
        for link in links {
            self.close(link, process);
        }
    }

    /// The end at `at` has noticed: who it is, if it had not closed the stream itself.
    pub fn down(&mut self, link: LinkId, at: usize) -> Option<Process> {
        let known = self.links.get_mut(&link)?;
        let was_open = std::mem::replace(&mut known.open[at], false);
        let process = known.ends[at];
        if known.open == [false; 2] {
            self.links.remove(&link);
        }
        (was_open && self.live.contains(&process)).then_some(process)
    }
}
