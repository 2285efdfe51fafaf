//! The promises of the coordinator under arbitrary schedules: several readers a partition, lost and late reports,
//! zombies, recreated groups, new partitions, restarts.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::announcement::{Observed, PartitionState, ReaderEpoch};

const MAX_PARTITIONS: u32 = 5;
const NO_CLOCK: EventTime = EventTime(i64::MAX);

#[derive(Clone, Debug)]
enum Step {
    /// The owner of the partition reads on and says so, or only means to.
    Read {
        partition: u32,
        watermark: Option<i64>,
        records: u64,
        state: PartitionState,
    },
    /// A report under way arrives: the oldest of a stream chosen at random.
    Arrive(usize),
    Lose(usize),
    Rebalance {
        partition: u32,
    },
    RecreateGroup {
        partition: u32,
    },
    StreamClosed(u64),
    MorePartitions(u32),
    Restart,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let partition = || 0..MAX_PARTITIONS;
    let state = prop_oneof![
        4 => Just(PartitionState::Active),
        2 => Just(PartitionState::Idle),
        1 => Just(PartitionState::Blocked),
        1 => Just(PartitionState::Lagging),
    ];
    let read = (partition(), prop::option::weighted(0.9, 0..200_i64), 0..3_u64, state).prop_map(
        |(partition, watermark, records, state)| Step::Read { partition, watermark, records, state },
    );
    prop_oneof![
        8 => read,
        8 => (0..64_usize).prop_map(Step::Arrive),
        2 => (0..64_usize).prop_map(Step::Lose),
        1 => partition().prop_map(|partition| Step::Rebalance { partition }),
        1 => partition().prop_map(|partition| Step::RecreateGroup { partition }),
        1 => (0..16_u64).prop_map(Step::StreamClosed),
        1 => (1..=MAX_PARTITIONS).prop_map(Step::MorePartitions),
        1 => Just(Step::Restart),
        3 => (0..1200_u64).prop_map(Step::Wait),
    ]
}

/// A partition in truth, with its present reader.
#[derive(Clone, Debug)]
struct Truth {
    reader: u64,
    epoch: u64,
    watermark: Watermark,
    position: u64,
}

#[derive(Debug)]
struct World {
    machine: WatermarkMachine,
    now: Tick,
    term: u64,
    next_reader: u64,
    truths: Vec<Truth>,
    /// Reports under way, by stream: a stream keeps its order, streams among each other do not.
    under_way: BTreeMap<u64, Vec<Report>>,
    /// The largest watermark any reader ever claimed, by partition.
    claimed: Vec<Watermark>,
    /// Whether the partition was ever claimed idle.
    was_idle: Vec<bool>,
    last: Option<Announcement>,
}

fn config() -> WatermarkConfig {
    WatermarkConfig {
        on_quiet: OnQuiet::Hold,
        delay: Span(10),
        window: Span(60),
        max_drift: Some(Span(40)),
        report_interval_ms: 300,
        coalesce_ms: 10,
    }
}

impl World {
    fn new() -> Self {
        let truth = |p: u32| Truth { reader: u64::from(p), epoch: 3, watermark: None, position: 0 };
        let mut machine = WatermarkMachine::new(Term(1), config());
        machine.metadata(2);
        Self {
            machine,
            now: Tick(0),
            term: 1,
            next_reader: u64::from(MAX_PARTITIONS),
            truths: (0..MAX_PARTITIONS).map(truth).collect(),
            under_way: BTreeMap::new(),
            claimed: vec![None; MAX_PARTITIONS as usize],
            was_idle: vec![false; MAX_PARTITIONS as usize],
            last: None,
        }
    }

    fn step(&mut self, step: &Step) {
        match *step {
            Step::Read { partition, watermark, records, state } => {
                self.read(partition, watermark, records, state);
            }
            Step::Arrive(pick) => {
                if let Some((reader, report)) = self.take(pick) {
                    self.machine.report(ReaderId(reader), &report, self.now);
                }
            }
            Step::Lose(pick) => drop(self.take(pick)),
            Step::Rebalance { partition } => self.new_reader(partition, |epoch| epoch + 1),
            Step::RecreateGroup { partition } => self.new_reader(partition, |_| 1),
            Step::StreamClosed(reader) => {
                self.under_way.remove(&reader);
                self.machine.reader_gone(ReaderId(reader));
            }
            Step::MorePartitions(count) => self.machine.metadata(count),
            Step::Restart => {
                self.term += 1;
                self.machine = WatermarkMachine::new(Term(self.term), config());
                self.machine.metadata(1);
                self.machine.recover(None, self.last.as_ref());
                self.under_way.clear();
            }
            Step::Wait(ms) => self.now.0 += ms,
        }
    }

    fn read(&mut self, partition: u32, watermark: Option<i64>, records: u64, state: PartitionState) {
        let p = partition as usize;
        let truth = &mut self.truths[p];
        truth.watermark = truth.watermark.max(watermark.map(EventTime));
        truth.position += records;
        self.claimed[p] = self.claimed[p].max(truth.watermark);
        self.was_idle[p] |= state == PartitionState::Idle;
        self.under_way.entry(truth.reader).or_default().push(Report {
            partition: Partition(partition),
            epoch: ReaderEpoch(truth.epoch),
            watermark: truth.watermark,
            agreed: truth.watermark,
            position: Offset(truth.position),
            state,
            max_event_time: truth.watermark,
            lag: 0,
            observed: Observed::default(),
        });
    }

    /// A successor starts again below its predecessor, whose reports may still be under way.
    fn new_reader(&mut self, partition: u32, epoch: impl Fn(u64) -> u64) {
        let truth = &mut self.truths[partition as usize];
        *truth = Truth {
            reader: self.next_reader,
            epoch: epoch(truth.epoch),
            watermark: None,
            position: truth.position / 2,
        };
        self.next_reader += 1;
    }

    fn take(&mut self, pick: usize) -> Option<(u64, Report)> {
        let streams: Vec<u64> = self.under_way.keys().copied().collect();
        let reader = *streams.get(pick % streams.len().max(1))?;
        let queue = self.under_way.get_mut(&reader)?;
        let report = queue.remove(0);
        if queue.is_empty() {
            self.under_way.remove(&reader);
        }
        Some((reader, report))
    }

    /// Checks what holds at every step.
    fn check(&mut self) -> Result<(), TestCaseError> {
        let before = self.machine.watermark();
        self.machine.tick(self.now, NO_CLOCK);
        let after = self.machine.watermark();
        prop_assert!(after >= before, "W fell from {before:?} to {after:?}");
        if after > before {
            self.check_rise(after)?;
        }
        if let Some(next) = self.machine.announce(self.now) {
            if let Some(last) = &self.last {
                prop_assert!(next.newer_than(last), "{next:?} does not replace {last:?}");
                prop_assert!(next.watermark >= last.watermark && next.partitions >= last.partitions);
            }
            prop_assert_eq!(next.watermark, after);
            prop_assert_eq!(self.machine.current(), Some(&next));
            self.last = Some(next);
        }
        Ok(())
    }

    fn check_rise(&self, to: Watermark) -> Result<(), TestCaseError> {
        let status = self.machine.explain();
        let mut all_idle = true;
        for (p, seen) in status.partitions.iter().enumerate() {
            match seen.state {
                SourceState::Idle(_) => prop_assert!(self.was_idle[p], "{p} was never claimed idle"),
                SourceState::Active(at) | SourceState::Blocked(at) | SourceState::Lagging(at) => {
                    all_idle = false;
                    prop_assert!(at.watermark >= to, "rose above what {p} reported");
                    prop_assert!(self.claimed[p] >= to, "rose above what any reader of {p} ever claimed");
                }
                SourceState::Unknown | SourceState::Unowned(_) | SourceState::Expired(_) => {
                    prop_assert!(false, "rose while {p} was {:?}", seen.state);
                }
            }
        }
        if all_idle {
            prop_assert!(self.claimed.iter().any(|claimed| *claimed >= to), "rose above every claim");
        }
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn w_never_falls_nor_passes_what_a_counting_partition_has_reached(
        steps in prop::collection::vec(step(), 1..120),
    ) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
            world.check()?;
        }
    }

    /// Design §8 test 4: whatever came before, once every partition reports and time passes, W moves again.
    #[test]
    fn after_any_chaos_healing_makes_w_move(steps in prop::collection::vec(step(), 1..120)) {
        let mut world = World::new();
        for step in &steps {
            world.step(step);
        }
        world.machine.metadata(MAX_PARTITIONS);
        world.under_way.clear();
        world.now.0 += 1000;
        for partition in 0..MAX_PARTITIONS {
            world.read(partition, Some(1000 + i64::from(partition)), 1, PartitionState::Active);
        }
        while let Some((reader, report)) = world.take(0) {
            let outcome = world.machine.report(ReaderId(reader), &report, world.now);
            prop_assert_eq!(outcome, ReportOutcome::Accepted, "{:?}", report);
        }
        let announced = world.machine.announce(world.now).and_then(|announcement| announcement.watermark);
        prop_assert_eq!(announced, Some(EventTime(1000)));
    }

    /// T9: readers with unequal backlogs, some idle at times, under a tight bound on drift.
    #[test]
    fn alignment_never_deadlocks_and_bounds_the_drift(
        backlogs in prop::collection::vec(0..400_i64, 1..6),
        schedule in prop::collection::vec((0..6_usize, 1..25_i64, any::<bool>()), 0..300),
    ) {
        let mut readers = Readers::new(&backlogs);
        for (pick, stride, flap) in schedule {
            let p = pick % backlogs.len();
            if flap && readers.at[p] == readers.end[p] {
                readers.say(p, PartitionState::Active);
                readers.settle()?;
            }
            readers.read(p, stride)?;
        }
        // A fair schedule: everything is read in bounded rounds and nothing stays paused.
        for _ in 0..400 {
            for p in 0..backlogs.len() {
                readers.read(p, 10)?;
            }
        }
        prop_assert_eq!(&readers.at, &readers.end);
        prop_assert_eq!(&readers.paused, &vec![false; backlogs.len()]);
        prop_assert_eq!(readers.machine.watermark(), readers.end.iter().max().copied().map(EventTime));
    }
}

const DRIFT: i64 = 50;

/// Obedient readers of fixed backlogs, event time = position.
#[derive(Debug)]
struct Readers {
    machine: WatermarkMachine,
    now: Tick,
    at: Vec<i64>,
    end: Vec<i64>,
    paused: Vec<bool>,
}

impl Readers {
    fn new(backlogs: &[i64]) -> Self {
        let config = WatermarkConfig { max_drift: Some(Span(DRIFT)), ..config() };
        let mut machine = WatermarkMachine::new(Term(1), config);
        machine.metadata(u32::try_from(backlogs.len()).unwrap());
        let mut readers = Self {
            machine,
            now: Tick(0),
            at: vec![0; backlogs.len()],
            end: backlogs.to_vec(),
            paused: vec![false; backlogs.len()],
        };
        for p in 0..backlogs.len() {
            readers.say(p, PartitionState::Active);
        }
        readers.machine.tick(readers.now, NO_CLOCK);
        readers
    }

    fn say(&mut self, p: usize, state: PartitionState) {
        let report = Report {
            partition: Partition(u32::try_from(p).unwrap()),
            epoch: ReaderEpoch(1),
            watermark: Some(EventTime(self.at[p])),
            agreed: Some(EventTime(self.at[p])),
            position: Offset(u64::try_from(self.at[p]).unwrap()),
            state,
            max_event_time: None,
            lag: 0,
            observed: Observed::default(),
        };
        self.machine.report(ReaderId(1), &report, self.now);
    }

    fn read(&mut self, p: usize, stride: i64) -> Result<(), TestCaseError> {
        if !self.paused[p] {
            self.at[p] = (self.at[p] + stride).min(self.end[p]);
        }
        for other in 0..self.at.len() {
            let state = match (self.paused[other], self.at[other] == self.end[other]) {
                (true, _) => PartitionState::Blocked,
                (false, true) => PartitionState::Idle,
                (false, false) => PartitionState::Active,
            };
            self.say(other, state);
        }
        self.settle()
    }

    fn settle(&mut self) -> Result<(), TestCaseError> {
        self.now.0 += 10;
        let before = self.machine.watermark();
        for effect in self.machine.tick(self.now, NO_CLOCK) {
            match effect {
                WatermarkEffect::Pause { partition, .. } => self.paused[partition.0 as usize] = true,
                WatermarkEffect::Resume { partition, .. } => self.paused[partition.0 as usize] = false,
                WatermarkEffect::Raise { .. } => prop_assert!(false, "not asked for"),
            }
        }
        let status = self.machine.explain();
        for (p, seen) in status.partitions.iter().enumerate() {
            prop_assert_eq!(seen.paused, self.paused[p], "partition {}", p);
            prop_assert!(!(seen.paused && seen.holds), "W waits for a paused partition: {:?}", status);
            let ahead = self.machine.watermark().map_or(0, |w| self.at[p] - w.0);
            prop_assert!(ahead <= DRIFT || seen.paused || self.at[p] == self.end[p], "{p} is {ahead} ahead");
        }
        if self.paused.contains(&true) {
            let held = status.partitions.iter().any(|seen| seen.holds && !seen.paused);
            prop_assert!(held || self.machine.watermark() > before, "deadlock: {:?}", status);
        }
        Ok(())
    }
}
