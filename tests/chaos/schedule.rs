//! The faults of a run, drawn from its seed before it begins.
//!
//! A target is hit again only after it is healed; faults of different targets overlap.

use std::{fmt, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

/// Nothing goes wrong before the system stands.
const FIRST_MS: u64 = 5_000;
/// How long a process is halted.
const HALT_MS: std::ops::Range<u64> = 1_000..8_000;
/// How long a process is away.
const AWAY_MS: std::ops::Range<u64> = 0..9_000;

/// The broker, the only target that is no service of ours.
pub const BROKER: &str = "broker";

/// What is done to a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// `kill -9`.
    Kill,
    /// `kill -9`, and its disk is lost.
    Wreck,
    /// Asked to stop, and waited for.
    Stop,
    /// Started, for the first time or again.
    Start,
    /// SIGSTOP.
    Halt,
    /// SIGCONT.
    Resume,
}

impl Action {
    /// What undoes it.
    fn heal(self) -> Self {
        match self {
            Self::Kill | Self::Wreck | Self::Stop | Self::Start => Self::Start,
            Self::Halt | Self::Resume => Self::Resume,
        }
    }

    /// Whether it is trouble, not the end of trouble.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::Start | Self::Resume)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Kill => "kill",
            Self::Wreck => "wreck",
            Self::Stop => "stop",
            Self::Start => "start",
            Self::Halt => "halt",
            Self::Resume => "resume",
        })
    }
}

/// A step of the schedule.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, since the start.
    pub at: Duration,
    /// What.
    pub action: Action,
    /// To whom.
    pub target: &'static str,
}

/// Who may be hit, by what, and how often in proportion. An `away` target is not there at first: it is added and removed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name.
    pub name: &'static str,
    /// Actions with their weights.
    pub actions: &'static [(Action, u32)],
}

/// The faults of `seed` until `duration`, each with its healing, in the order of time; heals may come after the end.
/// From one fault to the next passes at most `gap`.
pub fn draw(seed: u64, duration: Duration, gap: Duration, targets: &[Target]) -> Vec<Step> {
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let mut busy: Vec<u64> = vec![0; targets.len()];
    let mut now = FIRST_MS;
    let [end, gap] = [duration, gap].map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    while now < end {
        let choices: Vec<(usize, Action, u32)> = targets
            .iter()
            .enumerate()
            .filter(|(at, _)| busy.get(*at).is_some_and(|busy| *busy <= now))
            .flat_map(|(at, target)| {
                target.actions.iter().map(move |(action, weight)| (at, *action, *weight))
            })
            .collect();
        if let Ok(&(at, action, _)) = choices.choose_weighted(&mut chance, |choice| choice.2)
            && let (Some(target), Some(busy)) = (targets.get(at), busy.get_mut(at))
        {
            let range = if action == Action::Halt { HALT_MS } else { AWAY_MS };
            let healed = now + chance.random_range(range);
            // Some time to come back before it is hit again, but not always enough.
            *busy = healed + chance.random_range(0..5_000);
            for (at, action) in [(now, action), (healed, action.heal())] {
                steps.push(Step { at: Duration::from_millis(at), action, target: target.name });
            }
        }
        now += chance.random_range(gap / 8..=gap).max(1);
    }
    steps.sort_by_key(|step| step.at);
    steps
}
