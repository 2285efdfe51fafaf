//! The runs behind the pictures.

use std::collections::BTreeSet;

use tidegate_core::{
    announcement::{Observed, PartitionState, ReaderEpoch, Report, Term},
    coordinator::{ReaderId, WatermarkConfig, WatermarkEffect, WatermarkMachine},
    job::{OnQuiet, WatermarkStrategy},
    time::{EventTime, Offset, Partition, Span, Tick},
    tracker::Tracker,
};

use crate::seconds;

const READER: ReaderId = ReaderId(1);

/// Records by a fixed linear congruential generator: time of arrival and event time, ms.
pub(crate) struct Stream(u64);

impl Stream {
    pub(crate) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn below(&mut self, bound: i64) -> i64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        i64::try_from(self.0 >> 33).unwrap_or_default() % bound
    }

    /// Forty a second, most within 2 s, some 7 s behind; from 40 s on one every 3 s.
    pub(crate) fn dense_then_sparse(mut self) -> Vec<(i64, i64)> {
        let mut records = Vec::new();
        let mut at = 0;
        while at < 57_000 {
            at += if at < 40_000 { 25 } else { 3_000 };
            let behind = if self.below(100) == 0 { 5_000 + self.below(2_500) } else { self.below(2_000) };
            records.push((at, at - behind));
        }
        records
    }

    /// Four a second, within 1.5 s.
    pub(crate) fn live(mut self) -> Vec<(i64, i64)> {
        (0..240).map(|at| (at * 250, at * 250 - self.below(1_500))).collect()
    }
}

fn machine(partitions: u32, max_drift: Option<Span>) -> WatermarkMachine {
    let config = WatermarkConfig {
        on_quiet: OnQuiet::Hold,
        delay: Span(1_000),
        window: Span(60_000),
        max_drift,
        report_interval_ms: 500,
        coalesce_ms: 10,
    };
    let mut machine = WatermarkMachine::new(Term(1), config);
    machine.metadata(partitions);
    machine
}

fn report(partition: u32, tracker: &Tracker, position: u64, state: PartitionState) -> Report {
    Report {
        partition: Partition(partition),
        epoch: ReaderEpoch(1),
        watermark: tracker.watermark(),
        agreed: tracker.agreed(),
        position: Offset(position),
        state,
        max_event_time: tracker.max_seen(),
        lag: 0,
        observed: Observed::default(),
    }
}

/// Watermarks of two partitions and the global one.
pub(crate) fn silence() -> [Vec<(f64, f64)>; 3] {
    const IDLE_TIMEOUT: i64 = 10_000;
    let mut machine = machine(2, None);
    let strategy = WatermarkStrategy::Bounded { delay: Span(1_000) };
    let mut trackers = [Tracker::new(strategy, None, None), Tracker::new(strategy, None, None)];
    let mut lines = [Vec::new(), Vec::new(), Vec::new()];
    let mut last_of_second = 0;
    for at in (0..60_000).step_by(250) {
        let silent = (20_000..42_000).contains(&at);
        if !silent {
            last_of_second = at;
        }
        let now = Tick(u64::try_from(at).unwrap_or_default());
        for (p, tracker) in (0..).zip(&mut trackers) {
            if p == 0 || !silent {
                tracker.observe(EventTime(at));
            }
            let idle = p == 1 && at - last_of_second >= IDLE_TIMEOUT;
            let state = if idle { PartitionState::Idle } else { PartitionState::Active };
            machine.report(READER, &report(p, tracker, now.0, state), now);
        }
        machine.tick(now, EventTime(i64::MAX));
        let watermarks = [trackers[0].watermark(), trackers[1].watermark(), machine.watermark()];
        for (line, watermark) in lines.iter_mut().zip(watermarks) {
            line.extend(watermark.map(|watermark| (seconds(at), seconds(watermark.millis()))));
        }
    }
    lines
}

/// Four partitions of one record a second of event time, which begin 0, 2, 4 and 6 hours apart and end together.
pub(crate) struct Backlog {
    machine: WatermarkMachine,
    lanes: Vec<(Tracker, EventTime, bool)>,
}

const HOUR: i64 = 3_600_000;
const END: EventTime = EventTime(8 * HOUR);
/// A batch that a reader takes of a partition.
const BATCH: usize = 100;

impl Backlog {
    pub(crate) fn new(max_drift: Option<Span>) -> Self {
        let strategy = WatermarkStrategy::Bounded { delay: Span(1_000) };
        let lane = |begins: i64| (Tracker::new(strategy, Some(3), None), EventTime(begins * HOUR), false);
        Self { machine: machine(4, max_drift), lanes: [0, 2, 4, 6].map(lane).into() }
    }

    /// Reads all; how many windows are open as the records go by.
    pub(crate) fn run(mut self) -> Vec<(f64, f64)> {
        let mut open = BTreeSet::new();
        let mut line = Vec::new();
        let (mut read, mut round) = (0u32, 0u64);
        while self.lanes.iter().any(|(_, next, _)| *next < END) {
            round += 1;
            for (p, (tracker, next, paused)) in (0..).zip(&mut self.lanes) {
                for _ in 0..BATCH {
                    if *paused || *next >= END {
                        break;
                    }
                    tracker.observe(*next);
                    open.insert(next.millis() / 60_000);
                    *next = next.plus(Span(1_000));
                    read += 1;
                }
                let ended = *next >= END;
                let state = match (*paused, ended) {
                    (true, _) => PartitionState::Blocked,
                    (false, true) => PartitionState::Idle,
                    (false, false) => PartitionState::Active,
                };
                let position = u64::try_from(next.millis()).unwrap_or_default();
                self.machine.report(READER, &report(p, tracker, position, state), Tick(round * 10));
            }
            for effect in self.machine.tick(Tick(round * 10), EventTime(i64::MAX)) {
                let (partition, paused) = match effect {
                    WatermarkEffect::Pause { partition, .. } => (partition, true),
                    WatermarkEffect::Resume { partition, .. } => (partition, false),
                    WatermarkEffect::Raise { .. } => continue,
                };
                if let Some(lane) = self.lanes.get_mut(partition.0 as usize) {
                    lane.2 = paused;
                }
            }
            if let Some(watermark) = self.machine.watermark() {
                open.retain(|window| (window + 1) * 60_000 > watermark.millis());
            }
            #[expect(clippy::cast_precision_loss, reason = "a count for a drawing")]
            line.push((f64::from(read) / 1_000.0, open.len() as f64));
        }
        line
    }
}
