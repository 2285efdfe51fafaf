//! The faults of a run, drawn from its seed before it begins.
//!
//! A target is hit again only after it is healed; faults of different targets overlap.

use std::{fmt, ops::Range, time::Duration};

use rand::{Rng, SeedableRng, rngs::SmallRng, seq::IndexedRandom};

/// Nothing goes wrong before the system stands.
const FIRST_MS: u64 = 5_000;

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
    /// Cut off from all others.
    Cut,
    /// Its packets to one other are lost.
    Part,
    /// A slow link.
    Slow,
    /// The link or path is as it was.
    Join,
}

impl Action {
    /// What undoes it.
    fn heal(self) -> Self {
        match self {
            Self::Kill | Self::Wreck | Self::Stop | Self::Start => Self::Start,
            Self::Halt | Self::Resume => Self::Resume,
            Self::Cut | Self::Part | Self::Slow | Self::Join => Self::Join,
        }
    }

    /// How long it lasts, ms.
    fn lasts(self) -> Range<u64> {
        match self {
            Self::Halt | Self::Resume => 1_000..8_000,
            Self::Kill | Self::Wreck | Self::Stop | Self::Start => 0..9_000,
            Self::Cut | Self::Part | Self::Slow | Self::Join => 1_000..10_000,
        }
    }

    /// Whether it is trouble, not the end of trouble.
    pub fn is_fault(self) -> bool {
        !matches!(self, Self::Start | Self::Resume | Self::Join)
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
            Self::Cut => "cut",
            Self::Part => "part",
            Self::Slow => "slow",
            Self::Join => "join",
        })
    }
}

/// Who is hit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// The broker's process.
    Broker,
    /// The process of this name.
    Process(String),
    /// The coordinator that leads when it is hit.
    Leader,
    /// A coordinator that does not lead then.
    Standby,
    /// The link of this host.
    Link(String),
    /// The way of packets from one host to another.
    Path(String, String),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Broker => f.write_str("broker"),
            Self::Process(name) => f.write_str(name),
            Self::Leader => f.write_str("coordinator that leads"),
            Self::Standby => f.write_str("coordinator on standby"),
            Self::Link(host) => write!(f, "link of {host}"),
            Self::Path(from, to) => write!(f, "path {from} -> {to}"),
        }
    }
}

/// What may be done to a target, and how often in proportion.
pub type Weights = &'static [(Action, u32)];

/// A step of the schedule.
#[derive(Clone, Debug)]
pub struct Step {
    /// When, since the start.
    pub at: Duration,
    /// What.
    pub action: Action,
    /// To whom.
    pub target: Target,
}

/// The faults of `seed` until `duration`, each with its healing, in the order of time; heals may come after the end.
/// From one fault to the next passes at most `gap`.
pub fn draw(seed: u64, duration: Duration, gap: Duration, targets: &[(Target, Weights)]) -> Vec<Step> {
    let mut chance = SmallRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    let mut busy: Vec<u64> = vec![0; targets.len()];
    let mut now = FIRST_MS;
    let [end, gap] = [duration, gap].map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
    while now < end {
        let free =
            targets.iter().enumerate().filter(|(at, _)| busy.get(*at).is_some_and(|busy| *busy <= now));
        let choices: Vec<(usize, &Target, Action, u32)> = free
            .flat_map(|(at, (target, weights))| {
                weights.iter().map(move |(action, weight)| (at, target, *action, *weight))
            })
            .collect();
        if let Ok(&(at, target, action, _)) = choices.choose_weighted(&mut chance, |choice| choice.3)
            && let Some(busy) = busy.get_mut(at)
        {
            let healed = now + chance.random_range(action.lasts());
            // Some time to come back before it is hit again, but not always enough.
            *busy = healed + chance.random_range(0..5_000);
            for (at, action) in [(now, action), (healed, action.heal())] {
                steps.push(Step { at: Duration::from_millis(at), action, target: target.clone() });
            }
        }
        now += chance.random_range(gap / 8..=gap).max(1);
    }
    steps.sort_by_key(|step| step.at);
    steps
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cast;

    const MINUTES: Duration = Duration::from_secs(600);

    fn ten_minutes(seed: u64) -> Vec<Step> {
        draw(seed, MINUTES, Duration::from_secs(4), &[cast::processes(), cast::network()].concat())
    }

    #[test]
    fn a_seed_gives_the_same_faults_again() {
        let shown = |seed| format!("{:?}", ten_minutes(seed));
        assert_eq!(shown(7), shown(7));
        assert_ne!(shown(7), shown(8));
    }

    #[test]
    fn every_target_is_hit_and_healed_before_it_is_hit_again() {
        let steps = ten_minutes(7);
        for (target, _) in cast::processes() {
            let of_it: Vec<_> = steps.iter().filter(|step| step.target == target).collect();
            assert!(of_it.len() >= 2, "{target} is never hit");
            for pair in of_it.chunks(2) {
                let [fault, heal] = pair else { panic!("{target}: {:?} is not healed", pair) };
                assert!(fault.action.is_fault() && heal.action == fault.action.heal(), "{fault:?} {heal:?}");
            }
        }
        let faults = steps.iter().filter(|step| step.action.is_fault()).count();
        let network = steps.iter().filter(|step| step.action == Action::Join).count();
        assert!((200..600).contains(&faults), "{faults}");
        assert!(network * 10 > faults * 2, "{network} of {faults} are of the network");
    }
}
