//! Every sequence of up to five events of one partition, against a table: the state it is in, and what W may do.

use super::*;
use crate::announcement::{PartitionState, ReaderEpoch};

const SUBJECT: Partition = Partition(0);
const COMPANION: Partition = Partition(1);
const COMPANION_READER: ReaderId = ReaderId(1_000);
/// The watermark of the companion, which is always active.
const OTHER: i64 = 1_000;
const DEPTH: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Unknown,
    Active,
    Idle,
    Blocked,
    Lagging,
    Unowned,
    Expired,
}

#[derive(Clone, Copy, Debug)]
enum Happens {
    /// The reader says the state, at the position and watermark of before.
    Says(PartitionState),
    /// It has read a record.
    Reads(PartitionState),
    /// The group gives the partition to another, whose stream begins below.
    NewReader,
    /// The reader of an epoch before speaks up, far ahead and idle.
    Zombie,
    /// The reader's stream closes; it comes back on another.
    StreamCloses,
    /// Three report intervals without a word.
    Silence,
}

const STATES: [PartitionState; 4] =
    [PartitionState::Active, PartitionState::Idle, PartitionState::Blocked, PartitionState::Lagging];

fn events() -> impl Iterator<Item = Happens> {
    let rest = [Happens::NewReader, Happens::Zombie, Happens::StreamCloses, Happens::Silence];
    STATES.into_iter().map(Happens::Says).chain(STATES.into_iter().map(Happens::Reads)).chain(rest)
}

/// The machine, and what the table says.
#[derive(Clone, Debug)]
struct Pair {
    machine: WatermarkMachine,
    now: Tick,
    reader: ReaderId,
    epoch: u64,
    watermark: Watermark,
    position: u64,
    word: Word,
    /// What the coordinator was last told; of whichever reader.
    told: Watermark,
    owned: bool,
    w: Watermark,
}

impl Pair {
    fn new() -> Self {
        let config = WatermarkConfig {
            on_quiet: OnQuiet::Hold,
            delay: Span(10),
            window: Span(60),
            max_drift: None,
            report_interval_ms: 300,
            coalesce_ms: 0,
        };
        let mut machine = WatermarkMachine::new(Term(1), config);
        machine.metadata(2);
        Self {
            machine,
            now: Tick(0),
            reader: ReaderId(1),
            epoch: 5,
            watermark: None,
            position: 0,
            word: Word::Unknown,
            told: None,
            owned: false,
            w: None,
        }
    }

    fn report(&mut self, reader: ReaderId, epoch: u64, state: PartitionState, watermark: Watermark, at: u64) {
        let report = Report {
            partition: SUBJECT,
            epoch: ReaderEpoch(epoch),
            watermark,
            agreed: watermark,
            position: Offset(at),
            state,
            max_event_time: watermark,
            lag: 0,
            observed: Default::default(),
        };
        self.machine.report(reader, &report, self.now);
    }

    /// The present reader speaks: it is always taken.
    fn speak(&mut self, state: PartitionState) {
        self.report(self.reader, self.epoch, state, self.watermark, self.position);
        self.take(state, self.watermark);
    }

    fn take(&mut self, state: PartitionState, watermark: Watermark) {
        (self.told, self.owned) = (watermark, true);
        self.word = match state {
            PartitionState::Active => Word::Active,
            PartitionState::Idle => Word::Idle,
            PartitionState::Blocked => Word::Blocked,
            PartitionState::Lagging => Word::Lagging,
        };
    }

    fn step(&mut self, event: Happens) {
        self.now.0 += 1;
        match event {
            Happens::Says(state) => self.speak(state),
            Happens::Reads(state) => {
                self.position += 1;
                self.watermark = Some(EventTime(self.watermark.map_or(100, |at| at.0 + 100)));
                self.speak(state);
            }
            Happens::NewReader => {
                (self.reader, self.epoch) = (ReaderId(self.reader.0 + 1), self.epoch + 1);
                (self.position, self.watermark) = (self.position / 2, None);
                self.speak(PartitionState::Active);
            }
            Happens::Zombie => {
                let (far, at) = (Some(EventTime(900)), 90);
                self.report(ReaderId(500), self.epoch - 1, PartitionState::Idle, far, at);
                if !self.owned {
                    // Nobody else is known: any epoch may take it. The true reader's next report takes it back.
                    self.take(PartitionState::Idle, far);
                }
            }
            Happens::StreamCloses => {
                self.machine.reader_gone(self.reader);
                let knows = self.owned
                    && self.machine.explain().partitions[0].reader.map(|r| r.0) == Some(self.reader);
                if knows && self.word != Word::Unknown {
                    self.word = Word::Unowned;
                }
                self.reader = ReaderId(self.reader.0 + 1);
            }
            Happens::Silence => {
                self.now.0 += 901;
                if self.owned {
                    (self.word, self.owned) = (Word::Expired, false);
                }
            }
        }
        self.companion();
        self.machine.tick(self.now, EventTime(i64::MAX));
        let least = match self.word {
            Word::Unknown | Word::Unowned | Word::Expired => None,
            Word::Idle => Some(EventTime(OTHER)),
            Word::Active | Word::Blocked | Word::Lagging => self.told.map(|told| told.min(EventTime(OTHER))),
        };
        self.w = self.w.max(least);
    }

    fn companion(&mut self) {
        let report = Report {
            partition: COMPANION,
            epoch: ReaderEpoch(1),
            watermark: Some(EventTime(OTHER)),
            agreed: Some(EventTime(OTHER)),
            position: Offset(1),
            state: PartitionState::Active,
            max_event_time: None,
            lag: 0,
            observed: Default::default(),
        };
        self.machine.report(COMPANION_READER, &report, self.now);
    }

    fn check(&mut self, path: &[Happens]) {
        let status = self.machine.explain();
        let word = match status.partitions[0].state {
            SourceState::Unknown => Word::Unknown,
            SourceState::Active(_) => Word::Active,
            SourceState::Idle(_) => Word::Idle,
            SourceState::Blocked(_) => Word::Blocked,
            SourceState::Lagging(_) => Word::Lagging,
            SourceState::Unowned(_) => Word::Unowned,
            SourceState::Expired(_) => Word::Expired,
        };
        assert_eq!(word, self.word, "after {path:?}");
        assert_eq!(status.watermark, self.w, "W after {path:?}");
        let excluded = self.machine.announce(self.now).map(|announcement| announcement.excluded);
        let excluded = excluded.or_else(|| self.machine.current().map(|current| current.excluded.clone()));
        let subject = excluded.unwrap_or_default().iter().any(|(partition, _)| *partition == SUBJECT);
        assert_eq!(subject, self.word == Word::Idle, "only what is idle is excluded, after {path:?}");
        let holds = status.partitions[0].holds;
        assert!(self.word != Word::Idle || !holds, "an idle partition holds nothing, after {path:?}");
        assert!(
            !matches!(self.word, Word::Unknown | Word::Unowned | Word::Expired) || holds,
            "nobody vouches for it, so it holds, after {path:?}"
        );
    }
}

fn explore(pair: &Pair, path: &mut Vec<Happens>, steps: &mut usize) {
    if path.len() == DEPTH {
        return;
    }
    for event in events() {
        let mut next = pair.clone();
        path.push(event);
        next.step(event);
        next.check(path);
        *steps += 1;
        explore(&next, path, steps);
        path.pop();
    }
}

#[test]
fn every_sequence_of_events_leads_where_the_table_says() {
    let mut steps = 0;
    explore(&Pair::new(), &mut Vec::new(), &mut steps);
    assert_eq!(steps, (1..=5).map(|depth| 12_usize.pow(depth)).sum::<usize>());
}

/// Time goes on from where W is, however far behind the one that comes back is: it counts with its own time, and W waits for it.
#[test]
fn a_partition_that_comes_back_enters_at_its_own_time() {
    let mut pair = Pair::new();
    for event in [Happens::Reads(PartitionState::Active), Happens::Says(PartitionState::Idle)] {
        pair.step(event);
    }
    assert_eq!(pair.machine.watermark(), Some(EventTime(OTHER)), "it does not count while it is idle");
    pair.step(Happens::Reads(PartitionState::Active));
    let status = pair.machine.explain();
    assert_eq!(status.partitions[0].state.counting().and_then(|at| at.watermark), Some(EventTime(200)));
    assert_eq!(status.watermark, Some(EventTime(OTHER)), "I1");
    assert!(status.partitions[0].holds, "W waits until it has caught up");
}
