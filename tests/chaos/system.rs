//! The services as processes that are killed, halted, stopped and started by name. Those that run end with this value.

use std::{
    collections::BTreeMap,
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use crate::schedule::Action;

/// How long a service may take to stop when asked.
const STOP: Duration = Duration::from_secs(30);

/// How to start a service.
#[derive(Debug)]
struct Service {
    binary: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    state: PathBuf,
    /// Whether it should run.
    wanted: bool,
    child: Option<Child>,
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

    /// Makes a service known; does not start it.
    pub fn add(&mut self, name: &'static str, binary: &str, arguments: Vec<String>) -> Result<()> {
        let service = Service {
            binary: beside_this_program(binary)?,
            arguments: [self.common.clone(), arguments].concat(),
            log: self.folder.join(format!("{name}.log")),
            state: self.state(name),
            wanted: false,
            child: None,
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
            Action::Stop => {
                service.wanted = false;
                service.signal("TERM")?;
            }
            Action::Start => {
                self.surprises += u64::from(service.stopped(name)?);
                service.start()?;
            }
            Action::Halt => service.signal("STOP")?,
            Action::Resume => service.signal("CONT")?,
        }
        Ok(())
    }

    /// Starts again what has ended by itself, and says so.
    pub fn supervise(&mut self) -> Result<()> {
        for (name, service) in &mut self.services {
            let Some(child) = &mut service.child else { continue };
            let Some(status) = child.try_wait()? else { continue };
            service.child = None;
            if !service.wanted && status.success() {
                continue;
            }
            self.surprises += 1;
            println!("         {name} ended by itself ({status}); the end of its log:\n{}", service.tail());
            if service.wanted {
                service.start()?;
            }
        }
        Ok(())
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
    pub fn stop(&mut self, order: &[&'static str]) -> Result<()> {
        for name in order {
            let Some(service) = self.services.get_mut(name) else { continue };
            service.wanted = false;
            service.signal("TERM")?;
            self.surprises += u64::from(service.stopped(name)?);
        }
        Ok(())
    }
}

impl Service {
    fn start(&mut self) -> Result<()> {
        self.wanted = true;
        if self.child.is_some() {
            return Ok(());
        }
        let out = File::options().create(true).append(true).open(&self.log)?;
        let child = Command::new(&self.binary)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .spawn()
            .with_context(|| format!("start {}", self.binary.display()))?;
        self.child = Some(child);
        Ok(())
    }

    fn kill(&mut self) -> Result<()> {
        self.wanted = false;
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

    /// Waits until a service that was asked to stop has; true if it did not end well.
    fn stopped(&mut self, name: &str) -> Result<bool> {
        if self.wanted {
            return Ok(false);
        }
        let Some(mut child) = self.child.take() else { return Ok(false) };
        let asked = Instant::now();
        let status: Option<ExitStatus> = loop {
            let status = child.try_wait()?;
            if status.is_some() || asked.elapsed() > STOP {
                break status;
            }
            std::thread::sleep(Duration::from_millis(20));
        };
        match status {
            Some(status) if status.success() => Ok(false),
            Some(status) => {
                println!("         {name} stopped with {status}; the end of its log:\n{}", self.tail());
                Ok(true)
            }
            None => {
                child.kill()?;
                child.wait()?;
                println!(
                    "         {name} did not stop within {STOP:?}; the end of its log:\n{}",
                    self.tail()
                );
                Ok(true)
            }
        }
    }

    fn tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = text.lines().rev().take(8).collect();
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
