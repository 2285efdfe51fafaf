//! The services as processes that are killed, halted, stopped and started by name. Those that run end with this value.

use std::{
    collections::BTreeMap,
    fs::File,
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};

use crate::schedule::Action;

/// How long a service may take to stop when asked: its own bound, and as long again as it may be halted.
const STOP: Duration = Duration::from_secs(30);
/// SIGTERM.
const TERM: i32 = 15;
/// How often stopping services are looked at.
const TICK: Duration = Duration::from_millis(20);

/// How to start a service.
#[derive(Debug)]
struct Service {
    /// Program and arguments, and what comes before them.
    command: Vec<String>,
    log: PathBuf,
    state: PathBuf,
    /// Whether it should run.
    wanted: bool,
    child: Option<Child>,
    /// When the child was asked to stop.
    asked: Option<Instant>,
    /// The most memory that it has had, in KiB.
    memory: u64,
}

/// All services.
#[derive(Debug)]
pub struct System {
    services: BTreeMap<&'static str, Service>,
    folder: PathBuf,
    common: Vec<String>,
    /// Services that ended by themselves, and stops that did not end well.
    pub surprises: u64,
}

impl System {
    /// A system without services; `common` is what all are told.
    pub fn new(folder: &Path, common: Vec<String>) -> Self {
        Self { services: BTreeMap::new(), folder: folder.to_owned(), common, surprises: 0 }
    }

    /// Where the service of this name keeps its state.
    pub fn state(&self, name: &str) -> PathBuf {
        self.folder.join("state").join(name)
    }

    /// Makes a service known; does not start it. `enter` is the command that goes where it runs.
    pub fn add(
        &mut self,
        name: &'static str,
        enter: Vec<String>,
        binary: &str,
        arguments: &[&str],
    ) -> Result<()> {
        let binary = beside_this_program(binary)?.display().to_string();
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        let service = Service {
            command: [enter, vec![binary], self.common.clone(), arguments].concat(),
            log: self.folder.join(format!("{name}.log")),
            state: self.state(name),
            wanted: false,
            child: None,
            asked: None,
            memory: 0,
        };
        self.services.insert(name, service);
        Ok(())
    }

    /// Does it to the service, as far as that makes sense to it now.
    pub fn apply(&mut self, name: &str, action: Action) -> Result<()> {
        let service = self.services.get_mut(name).with_context(|| format!("no service {name}"))?;
        match action {
            Action::Kill => service.kill()?,
            Action::Wreck => {
                service.kill()?;
                if service.state.exists() {
                    std::fs::remove_dir_all(&service.state)?;
                }
            }
            Action::Stop => service.ask_to_stop()?,
            Action::Start => {
                service.wanted = true;
                // What is still stopping is started again once it has.
                if service.child.is_none() {
                    service.start()?;
                }
            }
            Action::Halt => service.signal("STOP")?,
            Action::Resume => service.signal("CONT")?,
            Action::Cut | Action::Part | Action::Slow | Action::Join => {
                bail!("{action} is for links, not {name}")
            }
        }
        Ok(())
    }

    /// Says what has ended by itself or not stopped well, and starts again what should run.
    pub fn supervise(&mut self) -> Result<()> {
        for (name, service) in &mut self.services {
            service.weigh();
            if let Some(surprise) = service.ended()? {
                self.surprises += 1;
                println!("         {name} {surprise}; the end of its log:\n{}", service.tail());
            }
            if service.wanted && service.child.is_none() {
                service.start()?;
            }
        }
        Ok(())
    }

    /// The most memory that each service has had, in MiB.
    pub fn memory(&self) -> String {
        let each = self.services.iter().map(|(name, service)| format!("{name}={}", service.memory / 1_024));
        each.collect::<Vec<_>>().join(" ")
    }

    /// Lets everything run that is known.
    pub fn heal(&mut self) -> Result<()> {
        let names: Vec<_> = self.services.keys().copied().collect();
        for name in names {
            self.apply(name, Action::Resume)?;
            self.apply(name, Action::Start)?;
        }
        Ok(())
    }

    /// Asks all to stop, one after the other in this order, and waits for each.
    pub fn stop(&mut self, order: &[&str]) -> Result<()> {
        for name in order {
            self.apply(name, Action::Stop)?;
            while self.services.get(name).is_some_and(|service| service.child.is_some()) {
                self.supervise()?;
                std::thread::sleep(TICK);
            }
        }
        Ok(())
    }
}

impl Service {
    fn start(&mut self) -> Result<()> {
        let out = File::options().create(true).append(true).open(&self.log)?;
        let (program, arguments) = self.command.split_first().context("no command")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {program}"))?;
        self.child = Some(child);
        Ok(())
    }

    /// Looks how much memory the process has had: the kernel keeps the maximum.
    fn weigh(&mut self) {
        let Some(child) = &self.child else { return };
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap_or_default();
        let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let peak = peak.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
        self.memory = self.memory.max(peak.unwrap_or(0));
    }

    fn ask_to_stop(&mut self) -> Result<()> {
        self.wanted = false;
        self.asked = self.child.is_some().then(Instant::now);
        self.signal("TERM")
    }

    fn kill(&mut self) -> Result<()> {
        self.wanted = false;
        self.asked = None;
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            child.wait()?;
        }
        Ok(())
    }

    fn signal(&mut self, signal: &str) -> Result<()> {
        let Some(child) = &mut self.child else { return Ok(()) };
        if child.try_wait()?.is_none() {
            let status =
                Command::new("kill").arg(format!("-{signal}")).arg(child.id().to_string()).status()?;
            ensure!(status.success(), "kill -{signal} {}: {status}", child.id());
        }
        Ok(())
    }

    /// Looks whether the process has ended; says how, unless it was asked to and did so well.
    fn ended(&mut self) -> Result<Option<String>> {
        let Some(child) = &mut self.child else { return Ok(None) };
        let surprise = match (child.try_wait()?, self.asked) {
            (None, Some(asked)) if asked.elapsed() > STOP => {
                child.kill()?;
                child.wait()?;
                Some(format!("did not stop within {STOP:?} and was killed"))
            }
            (None, _) => return Ok(None),
            // The signal itself ends a process that has only just begun.
            (Some(status), Some(_)) if status.success() || status.signal() == Some(TERM) => None,
            (Some(status), Some(_)) => Some(format!("stopped with {status}")),
            (Some(status), None) => Some(format!("ended by itself ({status})")),
        };
        self.child = None;
        self.asked = None;
        Ok(surprise)
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        // The client library repeats itself while there is no broker.
        let lines: Vec<_> = text.lines().rev().filter(|line| !line.contains("librdkafka")).take(8).collect();
        lines.into_iter().rev().map(|line| format!("           {line}\n")).collect()
    }
}

impl Drop for System {
    fn drop(&mut self) {
        for service in self.services.values_mut() {
            let _ = service.kill();
        }
    }
}

/// The program of this name that was built with this one.
pub fn beside_this_program(binary: &str) -> Result<PathBuf> {
    let path = std::env::current_exe()?.with_file_name(binary);
    ensure!(path.exists(), "{} is missing: make chaos builds it", path.display());
    Ok(path)
}
