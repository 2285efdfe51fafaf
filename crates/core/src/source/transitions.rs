//! Every sequence of five events of one reader, against a table: idleness is proven, never guessed.

use super::*;
use crate::{
    announcement::Term,
    dead_letter::Payload,
    job::{OperatorSpec, WatermarkSpec},
    lane::Row,
    time::EventTime,
};

const WORKER: WorkerRef = WorkerRef(1);
const TIMEOUT: u64 = 1_000;
const DEPTH: u32 = 5;

#[derive(Clone, Copy, Debug)]
enum Happens {
    /// A record is read.
    Record,
    /// No credit, or a pause.
    Held,
    Released,
    /// The idle timeout goes by, and a moment less.
    Waits,
    WaitsLess,
    /// The broker answers: the position is the end; there is an open transaction; there is more to read.
    AtTheEnd,
    OpenTransaction,
    Behind,
}

const EVENTS: [Happens; 8] = [
    Happens::Record,
    Happens::Held,
    Happens::Released,
    Happens::Waits,
    Happens::WaitsLess,
    Happens::AtTheEnd,
    Happens::OpenTransaction,
    Happens::Behind,
];

struct Pair {
    source: SourcePartition,
    now: Tick,
    next: u64,
    /// The table.
    state: PartitionState,
    held: bool,
    quiet_since: Tick,
    asked: Option<Tick>,
}

impl Pair {
    fn new() -> Self {
        let job = JobSpec {
            watermark: WatermarkSpec::bounded(Span(10)),
            ..JobSpec::of(OperatorSpec::tumbling(Span(60)))
        };
        let mut source =
            SourcePartition::new(Arc::new(job), Partition(0), ReaderEpoch(1), Timing::default(), Tick(0));
        let want = Want {
            shard: Shard(0),
            assignment: AssignmentId { term: Term(1), number: 1 },
            next: Offset(0),
            in_band: None,
            watermark: None,
            payloads: false,
        };
        source.wants(WORKER, &[want], Tick(0));
        Self {
            source,
            now: Tick(0),
            next: 0,
            state: PartitionState::Active,
            held: false,
            quiet_since: Tick(0),
            asked: None,
        }
    }

    fn step(&mut self, event: Happens) {
        match event {
            Happens::Record => {
                let row = Row {
                    offset: Offset(self.next),
                    time: EventTime(5),
                    believed: true,
                    key: b"k",
                    shard: Shard(0),
                    values: &[],
                    text: &[],
                };
                self.next += 1;
                self.source.row(LaneKind::Main, &row, self.now, Payload::default, &mut Vec::new());
                self.quiet_since = self.now;
                if !self.held {
                    self.state = PartitionState::Active;
                }
            }
            Happens::Held => {
                self.source.set_held(true, self.now);
                (self.held, self.state) = (true, PartitionState::Blocked);
            }
            Happens::Released => {
                self.source.set_held(false, self.now);
                if self.held {
                    (self.held, self.state, self.quiet_since) = (false, PartitionState::Active, self.now);
                }
            }
            Happens::Waits => self.wait(TIMEOUT),
            Happens::WaitsLess => self.wait(TIMEOUT - 1),
            Happens::AtTheEnd => self.answer(0, 0, PartitionState::Idle),
            Happens::OpenTransaction => self.answer(0, 3, PartitionState::Lagging),
            Happens::Behind => self.answer(3, 3, self.state),
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now.0 += ms;
        let asks = self.source.tick(self.now).contains(&Effect::ProveEnd);
        let quiet = self.now.since(self.quiet_since) >= TIMEOUT;
        let settled = matches!(self.state, PartitionState::Idle | PartitionState::Blocked);
        let lately = self.asked.is_some_and(|asked| self.now.since(asked) < 1_000);
        assert_eq!(asks, quiet && !settled && !lately, "asks when it is quiet");
        if asks {
            self.asked = Some(self.now);
        }
    }

    /// The broker says how far the stable end and the end lie beyond the position.
    fn answer(&mut self, stable: u64, high: u64, then: PartitionState) {
        let at = |beyond: u64| Offset(self.next + beyond);
        self.source.end_proven(at(stable), at(high), self.now);
        // It counts only if it was asked for after a whole timeout without a record, and none has come since.
        let proof = self.asked.take().is_some_and(|asked| asked.since(self.quiet_since) >= TIMEOUT);
        if proof && !self.held {
            self.state = then;
        }
    }
}

#[test]
fn every_sequence_of_events_leads_where_the_table_says() {
    let mut idle = 0;
    for number in 0..EVENTS.len().pow(DEPTH) {
        let mut pair = Pair::new();
        let mut path = Vec::new();
        let mut rest = number;
        for _ in 0..DEPTH {
            let event = EVENTS[rest % EVENTS.len()];
            rest /= EVENTS.len();
            path.push(event);
            pair.step(event);
            assert_eq!(pair.source.state(), pair.state, "after {path:?}");
        }
        idle += u32::from(pair.state == PartitionState::Idle);
    }
    assert!(idle > 1_000, "idleness was to be seen, and {idle} sequences end in it");
}
