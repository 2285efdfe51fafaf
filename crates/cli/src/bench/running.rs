//! The services of one phase, and what they have used.

use anyhow::{Context, Result, bail};
use tidegate_proto::v1;
use tidegate_runtime::process;

use crate::{
    services::{Deployment, Service},
    status::StatusClient,
};

/// The services of one job, running.
pub(super) struct Running {
    coordinator: Service,
    ingest: Service,
    workers: Vec<Service>,
    broker: Option<u32>,
    status: StatusClient,
}

/// CPU seconds since each process started.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpu {
    pub(super) ingest: f64,
    pub(super) workers: f64,
    pub(super) coordinator: f64,
    /// Where it is known.
    pub(super) broker: Option<f64>,
}

/// Memory in use, MiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Memory {
    pub(super) ingest: u64,
    pub(super) workers: u64,
    pub(super) coordinator: u64,
}

impl Cpu {
    /// That of the services, without the broker.
    pub(super) fn services(&self) -> f64 {
        self.ingest + self.workers + self.coordinator
    }

    /// What was used since `before`, by `divisor`.
    pub(super) fn since(&self, before: &Self, divisor: f64) -> Self {
        Self {
            ingest: (self.ingest - before.ingest) / divisor,
            workers: (self.workers - before.workers) / divisor,
            coordinator: (self.coordinator - before.coordinator) / divisor,
            broker: self.broker.zip(before.broker).map(|(now, before)| (now - before) / divisor),
        }
    }
}

impl Running {
    /// Starts coordinator, ingest and `workers` workers; `broker` is the process to account for besides.
    pub(super) fn start(deployment: &Deployment, workers: u32, broker: Option<u32>) -> Result<Self> {
        Ok(Self {
            coordinator: deployment.start_coordinator("coordinator")?,
            ingest: deployment.start_ingest("ingest-0")?,
            workers: (0..workers)
                .map(|number| deployment.start_worker(&format!("worker-{number}")))
                .collect::<Result<Vec<_>>>()?,
            broker,
            status: StatusClient::new(&deployment.coordinators, &deployment.tls)?,
        })
    }

    /// The status now, if the coordinator gives one; an error when a service has ended.
    pub(super) async fn glance(&mut self) -> Result<Option<v1::JobStatus>> {
        for service in [&mut self.coordinator, &mut self.ingest].into_iter().chain(&mut self.workers) {
            if service.was_killed()? {
                bail!("{} was killed", service.name);
            }
        }
        Ok(self.status.get().await.ok())
    }

    /// Where the services serve their metrics.
    pub(super) fn metrics(&self) -> Vec<String> {
        let services = [&self.coordinator, &self.ingest].into_iter().chain(&self.workers);
        services.map(|service| service.metrics.to_string()).collect()
    }

    /// The client of the coordinator.
    pub(super) const fn status_client(&mut self) -> &mut StatusClient {
        &mut self.status
    }

    /// How many workers there are.
    pub(super) const fn workers(&self) -> usize {
        self.workers.len()
    }

    /// Kills the worker that was started last (`kill -9`); gives its name.
    pub(super) async fn kill_last_worker(&mut self) -> Result<String> {
        let worker = self.workers.pop().context("there is no worker")?;
        worker.kill().await
    }

    /// Starts a worker of this name, with the state that it left.
    pub(super) fn start_worker(&mut self, deployment: &Deployment, name: &str) -> Result<()> {
        self.workers.push(deployment.start_worker(name)?);
        Ok(())
    }

    pub(super) fn cpu(&self) -> Result<Cpu> {
        let of = |service: &Service| Ok(process::cpu_seconds_of(pid(service)?)?);
        Ok(Cpu {
            ingest: of(&self.ingest)?,
            workers: self.workers.iter().map(of).sum::<Result<f64>>()?,
            coordinator: of(&self.coordinator)?,
            broker: broker_cpu(self.broker)?,
        })
    }

    pub(super) fn memory(&self) -> Result<Memory> {
        let of = |service: &Service| Ok(process::rss_bytes_of(pid(service)?)? >> 20);
        Ok(Memory {
            ingest: of(&self.ingest)?,
            workers: self.workers.iter().map(of).sum::<Result<u64>>()?,
            coordinator: of(&self.coordinator)?,
        })
    }

    pub(super) async fn stop(self) -> Result<()> {
        for service in std::iter::once(self.ingest).chain(self.workers).chain([self.coordinator]) {
            service.stop().await?;
        }
        Ok(())
    }
}

/// CPU seconds of the broker since it started, where its process is known.
pub(super) fn broker_cpu(pid: Option<u32>) -> Result<Option<f64>> {
    Ok(pid.map(process::cpu_seconds_of).transpose()?)
}

fn pid(service: &Service) -> Result<u32> {
    service.pid().with_context(|| format!("{} has ended", service.name))
}
