//! `chaos`: the whole system as processes on Apache Kafka, under load and a seeded schedule of faults; then the batch oracle.
//!
//! ```text
//! load ──► source ──► ingest ×2 ──► worker ×3(+1) ──► results, dead letters ──► tidegate verify
//!                        └──► coordinator ◄──┘              the schedule hits each of these and the broker
//! ```
//! Prints what it does as it does it, and at last
//! `chaos: faults=… records=… windows=… lost=… duplicated=… wrong=…`. The exit code is 0 only if the last three are 0.
//! The broker is stopped and halted, never killed: see `ApacheKafka::kill`.

#![allow(clippy::disallowed_methods, reason = "this program measures real time and makes chaos with it")]

mod load;
mod progress;
mod schedule;
mod system;

use std::{
    path::PathBuf,
    process::{Command, ExitCode, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use serde::Deserialize;
use tidegate_tests::{ApacheKafka, clients::create_topic_named, free_port};

use crate::{
    load::Load,
    progress::{Progress, Standing},
    schedule::{Action, BROKER, Step, Target},
    system::{System, beside_this_program},
};

const JOB: &str = include_str!("job.yaml");
// As in the job.
const TOPIC: &str = "chaos-clicks";
const PARTITIONS: u32 = 6;
const SHARDS: usize = 12;
const WINDOW_MS: i64 = 5_000;

/// How long the system may take to finish once all is healed.
const FINISH: Duration = Duration::from_secs(180);
/// How often processes are looked after.
const TICK: Duration = Duration::from_millis(50);

const WORKER: &[(Action, u32)] =
    &[(Action::Kill, 4), (Action::Halt, 4), (Action::Stop, 2), (Action::Wreck, 1)];
const INGEST: &[(Action, u32)] = &[(Action::Kill, 4), (Action::Halt, 4), (Action::Stop, 1)];
const COORDINATOR: &[(Action, u32)] = &[(Action::Kill, 4), (Action::Halt, 4), (Action::Stop, 1)];
const TARGETS: &[Target] = &[
    Target { name: "worker-0", actions: WORKER },
    Target { name: "worker-1", actions: WORKER },
    Target { name: "worker-2", actions: WORKER },
    // Not there at first: the first action that hits it adds it, a later one removes it.
    Target { name: "worker-3", actions: &[(Action::Stop, 6), (Action::Kill, 2)] },
    Target { name: "ingest-0", actions: INGEST },
    Target { name: "ingest-1", actions: INGEST },
    Target { name: "coordinator", actions: COORDINATOR },
    Target { name: BROKER, actions: &[(Action::Stop, 2), (Action::Halt, 3)] },
];
/// The services in the order in which they are stopped.
const SERVICES: &[&str] =
    &["ingest-0", "ingest-1", "worker-0", "worker-1", "worker-2", "worker-3", "coordinator"];

/// Runs tidegate under faults and checks what comes out.
#[derive(Parser, Debug)]
struct Args {
    /// How long faults go on
    #[arg(long, value_name = "TIME", default_value = "60s", value_parser = tidegate_runtime::config::duration)]
    duration: Duration,
    /// Seed of the schedule and the load
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// Records a second
    #[arg(long, value_name = "N", default_value_t = 3_000)]
    rate: u64,
    /// The longest time from one fault to the next; an eighth of it is the shortest
    #[arg(long, value_name = "TIME", default_value = "4s", value_parser = tidegate_runtime::config::duration)]
    gap: Duration,
    /// Only faults of targets whose name starts so, or of all
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,
    /// Folder of logs and state; emptied first [default: target/chaos/seed-<N>]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// What the services log
    #[arg(long, value_name = "FILTER", default_value = "info")]
    log: String,
}

/// What `tidegate verify --json` says.
#[derive(Debug, Deserialize)]
struct Verdict {
    records: u64,
    windows: u64,
    dead_letters: u64,
    overtaken: u64,
    lost: u64,
    duplicated: u64,
    wrong: u64,
}

fn main() -> Result<ExitCode> {
    let args = Args::parse();
    if !ApacheKafka::can_run("chaos") {
        bail!("no Apache Kafka on this machine");
    }
    let folder =
        args.folder.clone().unwrap_or_else(|| PathBuf::from(format!("target/chaos/seed-{}", args.seed)));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
    }
    std::fs::create_dir_all(&folder)?;
    let mut run = Run::start(&args, folder)?;
    let faults = run.make_chaos(&args)?;
    let standing = run.finish()?;
    let mut verdict = run.verify(standing.watermark)?;
    // Conservation: what the shards have counted of each partition is what it holds.
    let (missing, surplus) = standing.imbalance();
    verdict.lost += missing;
    verdict.duplicated += surplus;
    // No partition was idle, so no watermark may have passed a record within the delay.
    verdict.wrong += verdict.overtaken;
    let Verdict { records, windows, dead_letters, overtaken, lost, duplicated, wrong } = verdict;
    println!(
        "seed={} covered={:?} dead_letters={dead_letters} overtaken={overtaken} surprises={}  logs in {}",
        args.seed,
        standing.covered,
        run.system.surprises,
        run.folder.display()
    );
    println!(
        "chaos: faults={faults} records={records} windows={windows} lost={lost} duplicated={duplicated} wrong={wrong}"
    );
    let good = standing.missing.is_none() && lost + duplicated + wrong == 0;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Run {
    // Before the broker: the services end first.
    system: System,
    broker: ApacheKafka,
    load: Option<Load>,
    coordinator: String,
    job: PathBuf,
    folder: PathBuf,
    started: Instant,
}

impl Run {
    fn start(args: &Args, folder: PathBuf) -> Result<Self> {
        let job = folder.join("job.yaml");
        std::fs::write(&job, JOB)?;
        let broker = ApacheKafka::start()?;
        create_topic_named(broker.bootstrap(), TOPIC, i32::try_from(PARTITIONS)?, &[])?;
        let coordinator = format!("127.0.0.1:{}", free_port()?);
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
        let job_name = job.display().to_string();
        let common = words(&["--job", &job_name, "--kafka", broker.bootstrap(), "--log", &args.log]);
        let mut system = System::new(&folder, common);
        system.add(
            "coordinator",
            "watermark-coordinator",
            words(&["--listen", &coordinator, "--worker-return-timeout", "5s", "--grace", "3s"]),
        )?;
        for name in SERVICES {
            if name.starts_with("ingest") {
                system.add(name, "ingest", words(&["--coordinator", &coordinator]))?;
            } else if name.starts_with("worker") {
                let state = system.state(name).display().to_string();
                let listen = format!("127.0.0.1:{}", free_port()?);
                let arguments =
                    ["--coordinator", &coordinator, "--listen", &listen, "--name", name, "--state", &state];
                system.add(name, "window-worker", words(&arguments))?;
            }
        }
        for name in SERVICES.iter().filter(|name| **name != "worker-3") {
            system.apply(name, Action::Start)?;
        }
        let load = Load::start(broker.bootstrap(), TOPIC, PARTITIONS, args.rate, args.seed)?;
        Ok(Self { system, broker, load: Some(load), coordinator, job, folder, started: Instant::now() })
    }

    /// Follows the schedule; gives the number of faults.
    fn make_chaos(&mut self, args: &Args) -> Result<u64> {
        let targets: Vec<_> =
            TARGETS.iter().copied().filter(|target| target.name.starts_with(&args.only)).collect();
        let mut steps = schedule::draw(args.seed, args.duration, args.gap, &targets).into_iter().peekable();
        let mut faults = 0;
        while self.started.elapsed() < args.duration {
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
        let at = self.started.elapsed().as_secs_f64();
        println!("{at:8.3} {action} {target}");
        if *target != BROKER {
            return self.system.apply(target, *action);
        }
        match action {
            Action::Halt => self.broker.freeze(),
            Action::Resume => self.broker.resume(),
            Action::Start => self.broker.restart(),
            Action::Stop | Action::Kill | Action::Wreck => self.broker.stop(),
        }
    }

    /// Heals everything, ends the load, and waits until all has come out, or cannot in time.
    fn finish(&mut self) -> Result<Standing> {
        println!("{:8.3} heal all", self.started.elapsed().as_secs_f64());
        match self.broker.pid() {
            Some(_) => self.broker.resume()?,
            None => self.broker.restart()?,
        }
        self.system.heal()?;
        let produced = self.load.take().context("no load")?.stop()?;
        let healed = Instant::now();
        println!("{:8.3} the load ends after {produced} records", self.started.elapsed().as_secs_f64());
        let progress = Progress::new(&self.coordinator, self.broker.bootstrap())?;
        let mut said = String::new();
        loop {
            self.system.supervise()?;
            let in_time = healed.elapsed() < FINISH;
            let missing = match progress.look() {
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

    fn verify(&self, watermark: Option<i64>) -> Result<Verdict> {
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
