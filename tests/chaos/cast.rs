//! Who takes part, and what may happen to whom.

use crate::schedule::{Action, Target, Weights};

/// Those that are there from the beginning, in the order in which they are started, and stopped at the end.
pub const SERVICES: &[&str] =
    &["ingest-0", "ingest-1", "worker-0", "worker-1", "worker-2", GUEST, "coordinator-0", "coordinator-1"];
/// Not there at first: the first action that hits it adds it, a later one removes it.
pub const GUEST: &str = "worker-3";
/// The host of the broker.
pub const BROKER: &str = "broker";

const WORKER: Weights = &[(Action::Kill, 8), (Action::Halt, 8), (Action::Stop, 4), (Action::Wreck, 2)];
const INGEST: Weights = &[(Action::Kill, 8), (Action::Halt, 8), (Action::Stop, 2)];
const COORDINATOR: Weights = &[(Action::Kill, 8), (Action::Halt, 8), (Action::Stop, 2)];
const LINK: Weights = &[(Action::Cut, 3), (Action::Slow, 3)];
const PATH: Weights = &[(Action::Part, 1)];

/// What the processes may meet.
pub fn processes() -> Vec<(Target, Weights)> {
    let process = |name: &str| Target::Process(name.to_owned());
    vec![
        (process("worker-0"), WORKER),
        (process("worker-1"), WORKER),
        (process("worker-2"), WORKER),
        (process(GUEST), &[(Action::Stop, 12), (Action::Kill, 4)]),
        (process("ingest-0"), INGEST),
        (process("ingest-1"), INGEST),
        (Target::Leader, COORDINATOR),
        (Target::Standby, &[(Action::Kill, 3), (Action::Halt, 3), (Action::Stop, 1)]),
        // Never killed: see `ApacheKafka::kill`.
        (Target::Broker, &[(Action::Stop, 4), (Action::Halt, 6)]),
    ]
}

/// What their network may meet: each host's link, and each way on which one has something to say to another.
pub fn network() -> Vec<(Target, Weights)> {
    let hosts = || std::iter::once(BROKER).chain(SERVICES.iter().copied());
    let links = hosts().map(|host| (Target::Link(host.to_owned()), LINK));
    let kind = |host: &str| host.split('-').next().unwrap_or_default().to_owned();
    let paths = hosts().flat_map(|from| {
        let others = hosts().filter(move |to| kind(to) != kind(from));
        others.map(move |to| (Target::Path(from.to_owned(), to.to_owned()), PATH))
    });
    links.chain(paths).collect()
}
