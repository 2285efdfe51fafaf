//! One run: the broker, the services and the load come up, the schedule hits them, everything is healed, and what came out is
//! judged.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use tidegate_tests::{ApacheKafka, Place, clients::create_topic_named, free_port};

use crate::{
    cast::{BROKER, GUEST, SERVICES},
    load::Load,
    network::Network,
    progress::{Progress, Standing},
    schedule::{Action, Step, Target},
    system::{System, beside_this_program},
};

const JOB: &str = include_str!("job.yaml");
// As in the job.
pub const TOPIC: &str = "chaos-clicks";
pub const PARTITIONS: u32 = 6;
pub const SHARDS: usize = 12;
pub const WINDOW_MS: i64 = 5_000;

/// How long the system may take to finish once all is healed.
const FINISH: Duration = Duration::from_secs(240);
/// How often processes are looked after.
const TICK: Duration = Duration::from_millis(50);
/// How long a coordinator may take to say that it leads.
const ANSWER: Duration = Duration::from_millis(300);

/// What `tidegate verify --json` says.
#[derive(Debug, Deserialize)]
pub struct Verdict {
    pub records: u64,
    pub windows: u64,
    pub dead_letters: u64,
    pub overtaken: u64,
    pub lost: u64,
    pub duplicated: u64,
    pub wrong: u64,
}

/// The running system.
pub struct Run {
    // In this order they end: the services before the broker, and both before their network.
    pub system: System,
    broker: ApacheKafka,
    network: Option<Network>,
    load: Option<Load>,
    progress: Progress,
    /// Which coordinator was hit as the one that leads, or as the one that does not.
    hit: BTreeMap<String, usize>,
    job: PathBuf,
    started: Instant,
}

impl Run {
    /// Starts everything but the guest.
    pub fn start(
        folder: &Path,
        network: Option<Network>,
        filter: &str,
        rate: u64,
        seed: u64,
    ) -> Result<Self> {
        let job = folder.join("job.yaml");
        std::fs::write(&job, JOB)?;
        let place = |name: &str| network.as_ref().map_or_else(|| Ok(Place::default()), |net| net.place(name));
        let broker = ApacheKafka::start_in(place(BROKER)?)?;
        create_topic_named(broker.bootstrap(), TOPIC, i32::try_from(PARTITIONS)?, &[])?;

        let mut addresses = BTreeMap::new();
        for name in SERVICES.iter().filter(|name| !name.starts_with("ingest")) {
            addresses.insert(*name, format!("{}:{}", place(name)?.address, free_port()?));
        }
        let coordinators = addresses.iter().filter(|(name, _)| name.starts_with("coordinator"));
        let coordinators: Vec<String> = coordinators.map(|(_, address)| address.clone()).collect();
        let peers = coordinators.join(",");
        let job_name = job.display().to_string();
        let common = ["--job", &job_name, "--kafka", broker.bootstrap(), "--log", filter];
        let mut system = System::new(folder, common.map(str::to_owned).into());
        for name in SERVICES {
            let enter = place(name)?.enter;
            let address = addresses.get(name).map_or("", String::as_str);
            let state = system.state(name).display().to_string();
            if name.starts_with("coordinator") {
                let arguments = ["--listen", address, "--worker-return-timeout", "5s", "--grace", "3s"];
                system.add(name, enter, "watermark-coordinator", &arguments)?;
            } else if name.starts_with("ingest") {
                system.add(name, enter, "ingest", &["--coordinator", &peers])?;
            } else {
                let arguments =
                    ["--coordinator", &peers, "--listen", address, "--name", name, "--state", &state];
                system.add(name, enter, "window-worker", &arguments)?;
            }
        }
        for name in SERVICES.iter().filter(|name| **name != GUEST) {
            system.apply(name, Action::Start)?;
        }
        let load = Load::start(broker.bootstrap(), TOPIC, PARTITIONS, rate, seed)?;
        let progress = Progress::new(&coordinators, broker.bootstrap())?;
        Ok(Self {
            system,
            broker,
            network,
            load: Some(load),
            progress,
            hit: BTreeMap::new(),
            job,
            started: Instant::now(),
        })
    }

    /// Follows the schedule; gives the number of faults.
    pub fn make_chaos(&mut self, steps: Vec<Step>, duration: Duration) -> Result<u64> {
        let mut steps = steps.into_iter().peekable();
        let mut faults = 0;
        while self.started.elapsed() < duration {
            if let Some(step) = steps.next_if(|step| step.at <= self.started.elapsed()) {
                faults += u64::from(step.action.is_fault());
                self.apply(&step)?;
                continue;
            }
            self.system.supervise()?;
            std::thread::sleep(TICK);
        }
        Ok(faults)
    }

    fn apply(&mut self, step: &Step) -> Result<()> {
        let Step { action, target, .. } = step;
        let coordinator = match target {
            Target::Leader | Target::Standby => Some(self.coordinator(*action, target)),
            _ => None,
        };
        let name = coordinator.as_ref().map_or(String::new(), |name| format!(" ({name})"));
        println!("{:8.3} {action} {target}{name}", self.started.elapsed().as_secs_f64());
        match (target, &self.network) {
            (Target::Broker, _) => match action {
                Action::Halt => self.broker.freeze(),
                Action::Resume => self.broker.resume(),
                // Its link may be cut.
                Action::Start => self.broker.restart_without_waiting(),
                _ => self.broker.stop(),
            },
            (Target::Process(name), _) => self.system.apply(name, *action),
            (Target::Leader | Target::Standby, _) => {
                self.system.apply(&coordinator.context("no coordinator")?, *action)
            }
            (Target::Link(_) | Target::Path(..), None) => Ok(()),
            (Target::Link(host), Some(network)) => match action {
                Action::Cut => network.cut(host),
                Action::Slow => network.slow_down(host),
                _ => network.join(host),
            },
            (Target::Path(from, to), Some(network)) => match action {
                Action::Part => network.part(from, to),
                _ => network.join_path(from, to),
            },
        }
    }

    /// The coordinator that is meant, now that it is hit; the same when it is healed.
    fn coordinator(&mut self, action: Action, target: &Target) -> String {
        let role = target.to_string();
        let at = if action.is_fault() {
            let taken: Vec<usize> = self.hit.values().copied().collect();
            let leader = self.progress.leader(ANSWER).unwrap_or(0);
            let wanted = if *target == Target::Leader { leader } else { usize::from(leader == 0) };
            let at = if taken.contains(&wanted) { 1 - wanted } else { wanted };
            self.hit.insert(role, at);
            at
        } else {
            self.hit.remove(&role).unwrap_or(0)
        };
        format!("coordinator-{at}")
    }

    /// Heals everything, ends the load, and waits until all has come out, or cannot in time.
    pub fn finish(&mut self) -> Result<Standing> {
        println!("{:8.3} heal all", self.started.elapsed().as_secs_f64());
        if let Some(network) = &self.network {
            network.join_all()?;
        }
        match self.broker.pid() {
            Some(_) => self.broker.resume()?,
            None => self.broker.restart_without_waiting()?,
        }
        self.broker.wait_until_ready()?;
        self.system.heal()?;
        let produced = self.load.take().context("no load")?.stop()?;
        let healed = Instant::now();
        println!("{:8.3} the load ends after {produced} records", self.started.elapsed().as_secs_f64());
        let mut said = String::new();
        loop {
            self.system.supervise()?;
            let in_time = healed.elapsed() < FINISH;
            let missing = match self.progress.look() {
                // The counts come with the next statistics; they have to be right in the end.
                Ok(standing)
                    if standing.missing.is_none() && (standing.covered == standing.records || !in_time) =>
                {
                    println!("{:8.3} all has come out", self.started.elapsed().as_secs_f64());
                    self.system.stop(SERVICES)?;
                    return Ok(standing);
                }
                Ok(standing) if !in_time => {
                    println!("         not finished in {FINISH:?}: {standing:?}");
                    return Ok(standing);
                }
                Ok(Standing { missing: Some(missing), .. }) => missing,
                Ok(standing) => format!("covered {:?} of {:?}", standing.covered, standing.records),
                Err(error) if in_time => format!("{error:#}"),
                Err(error) => return Err(error.context("the job did not finish")),
            };
            let kind = missing.split(" at ").next().unwrap_or_default().to_owned();
            if said != kind {
                println!("{:8.3} waiting: {missing}", self.started.elapsed().as_secs_f64());
                said = kind;
            }
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    /// What a run that went wrong leaves behind to be looked at.
    pub fn keep_broker(&mut self) {
        println!("data and log of the broker are in {}", self.broker.keep().display());
    }

    /// Compares with the batch answer.
    pub fn verify(&self, watermark: Option<i64>) -> Result<Verdict> {
        let mut command = Command::new(beside_this_program("tidegate")?);
        command.args(["verify", "--json", "--kafka", self.broker.bootstrap(), "--job"]).arg(&self.job);
        if let Some(watermark) = watermark {
            command.arg("--watermark").arg(watermark.to_string());
        }
        let output = command.stderr(Stdio::inherit()).output()?;
        ensure!(!output.stdout.is_empty(), "tidegate verify: {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}
