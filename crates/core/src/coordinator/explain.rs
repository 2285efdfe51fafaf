//! Why W stands where it stands: read access for status, console and `tidegate why`.

use super::source::{Ground, Pause, ReaderId, Source, SourceState};
use super::{WatermarkConfig, WatermarkMachine};
use crate::announcement::{Observed, ReaderEpoch, Term};
use crate::time::{Partition, Tick, Watermark};

/// The global watermark and everything it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WatermarkStatus {
    /// The coordinator's term.
    pub term: Term,
    /// The last announced version; `None` before the first.
    pub version: Option<u64>,
    /// W as of the last announcement or tick.
    pub watermark: Watermark,
    /// Since when W stands there; `None` while it is undefined.
    pub risen: Option<Tick>,
    /// How far W has moved of late, in milliseconds of event time a second; `None` while that cannot be told.
    pub pace: Option<u64>,
    /// Every partition of the source topic, in order.
    pub partitions: Vec<PartitionStatus>,
}

/// One partition's part in the global watermark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PartitionStatus {
    /// The partition.
    pub partition: Partition,
    /// Its state, with watermark and position.
    pub state: SourceState,
    /// Who reads it, and in which epoch; `None` before the first report and once expired.
    pub reader: Option<(ReaderId, ReaderEpoch)>,
    /// Offsets between its position and its end, as last reported.
    pub lag: u64,
    /// When it was reported last; `None` before the first report.
    pub heard: Option<Tick>,
    /// Since when it is in its state; `None` before the first report.
    pub since: Option<Tick>,
    /// Since when its watermark stands where it is; `None` before the first report.
    pub risen: Option<Tick>,
    /// The delay in force and the skew, as its reader last said.
    pub observed: Observed,
    /// Whether it is paused for drift.
    pub paused: bool,
    /// Whether W waits for it.
    pub holds: bool,
}

impl WatermarkMachine {
    /// The state of every partition, and which of them hold W.
    #[must_use]
    pub fn explain(&self) -> WatermarkStatus {
        let ground = Ground::of(&self.sources);
        let status = |(partition, source): (Partition, &Source)| PartitionStatus {
            partition,
            state: source.state,
            reader: source.owner.map(|owner| (owner.reader, owner.epoch)),
            lag: source.lag,
            heard: source.since.map(|_| source.heard_at),
            since: source.since,
            risen: source.risen,
            observed: source.observed,
            paused: source.pause == Pause::Paused,
            holds: holds(source, ground),
        };
        WatermarkStatus {
            term: self.term,
            version: self.current().map(|last| last.version),
            watermark: self.watermark,
            risen: self.pace.risen(),
            pace: self.pace.per_second(),
            partitions: (0..).map(Partition).zip(&self.sources).map(status).collect(),
        }
    }

    /// The values it was built with.
    #[must_use]
    pub const fn config(&self) -> &WatermarkConfig {
        &self.config
    }
}

fn holds(source: &Source, ground: Ground) -> bool {
    match source.state {
        SourceState::Unknown | SourceState::Unowned(_) | SourceState::Expired(_) => true,
        SourceState::Idle(_) => false,
        SourceState::Active(at) | SourceState::Blocked(at) | SourceState::Lagging(at) => match ground {
            Ground::Held => at.watermark.is_none(),
            Ground::Counting(least) => at.watermark == Some(least),
            Ground::Quiet(_) => false,
        },
    }
}
