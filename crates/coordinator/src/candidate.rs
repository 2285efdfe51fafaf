//! One coordinator of perhaps several: stands for election, leads while it is elected, stands by otherwise.
//!
//! ```text
//! look at job and topics ─► stand ─► Standby ◄──── not elected any more ────┐
//!                             ▲         └──elected──► lead ─► serve ────────┤
//!                             └── leave the group, wait ◄── deposed ────────┘
//! ```
//!
//! One that starts again where the last leader record is its own does not wait for the group, in which its dead forerunner still
//! sits until its session has run out: it leads at once, and goes on leading when the group elects it. Should the group elect
//! another, that one leads. The record's transactional id fences the forerunner either way.
//!
//! One that was deposed gives up its place in the group before it stands again: what it took for its election may be out of date.
//! So the seat comes to rest with whoever the group elects, and two cannot depose each other in turn.

use std::future::Future;
use std::time::Duration;

use tidegate_core::time::Tick;
use tidegate_kafka::Admin;
use tidegate_runtime::backoff::Backoff;
use tidegate_runtime::clock::Clock;
use tidegate_runtime::task::Shutdown;
use tokio::sync::mpsc;

use crate::config::Config;
use crate::election::{Candidacy, Election, Standing};
use crate::error::{Error, Result};
use crate::fence::Fences;
use crate::leader::{Reign, approach, lead};
use crate::owner::{Owner, Parts};
use crate::replay_desk::ReplayDesk;
use crate::scribe::{Errand, Scribe};
use crate::seat::{Desk, Sign};
use crate::status::job_facts;
use crate::watch::Watch;

/// Events that may wait for the owner.
const WAITING: usize = 4096;
/// What may wait to be written or looked up.
const ERRANDS: usize = 64;
/// How long to wait for an answer of the cluster before it is called out of reach.
const REACH: Duration = Duration::from_secs(3);
/// How soon, and how late, one that was deposed stands again: not before half of the first. The others hear with a heartbeat, one a
/// second, that its place is free; were it back by then, the group would choose between them by chance.
const DEPOSED: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(30));

/// A coordinator.
pub(crate) struct Candidate {
    pub(crate) config: Config,
    pub(crate) admin: Admin,
    pub(crate) sign: Sign,
}

impl Candidate {
    /// Runs until the process is to end.
    ///
    /// # Errors
    ///
    /// What is wrong with job or topics.
    pub(crate) async fn run(&self, shutdown: Shutdown) -> Result<()> {
        let ended = tokio::select! {
            () = shutdown.requested() => Ok(()),
            looked = self.look() => match looked {
                Ok(returns) => self.stand_again_and_again(returns, &shutdown).await,
                Err(error) => Err(error),
            },
        };
        self.sign.away("stopping").await;
        ended
    }

    /// A wrong job file is refused before anybody is deposed by it, and the topic of the election is there. True when it was
    /// this coordinator that led last.
    async fn look(&self) -> Result<bool> {
        let Config { kafka, job, durability, instance, .. } = &self.config;
        let found = self.when_reachable(|| approach(&self.admin, kafka, job, *durability)).await?;
        Ok(found.leader.is_some_and(|leader| leader.is_of(instance.as_deref())))
    }

    async fn stand_again_and_again(&self, mut returns: bool, shutdown: &Shutdown) -> Result<()> {
        let Config { kafka, job, session_timeout, .. } = &self.config;
        let election = Election::of(job, kafka, *session_timeout);
        let mut backoff = Backoff::new(DEPOSED.0, DEPOSED.1);
        loop {
            let mut candidacy = election.stand()?;
            let ended = self.follow(&mut candidacy, std::mem::take(&mut returns), shutdown).await;
            self.sign.away("leaving the election").await;
            candidacy.leave().await;
            match ended {
                Err(error @ Error::Deposed { .. }) => tracing::warn!(%error, "this coordinator stands by"),
                Err(error @ Error::Undecided { .. }) => {
                    tracing::warn!(%error, "this coordinator stands again")
                }
                ended => return ended,
            }
            tokio::select! {
                () = shutdown.requested() => return Ok(()),
                () = tokio::time::sleep(backoff.next_delay()) => {}
            }
        }
    }

    /// Leads whenever it is elected; one that `returns` also until the group has spoken.
    async fn follow(&self, candidacy: &mut Candidacy, returns: bool, shutdown: &Shutdown) -> Result<()> {
        let mut standing = Standing::Joining;
        loop {
            match standing {
                Standing::Joining if returns => tracing::info!("this coordinator led last: it goes on"),
                Standing::Joining => self.sign.away("joining the election").await,
                Standing::Standby => {
                    tracing::info!("on standby: another coordinator leads, or is about to");
                    self.sign.standby().await;
                }
                Standing::Elected => tracing::info!("elected"),
            }
            let leads = |standing| match standing {
                Standing::Elected => true,
                Standing::Joining => returns,
                Standing::Standby => false,
            };
            let no_longer_leads = async {
                let mut known = standing;
                loop {
                    known = candidacy.changed(known).await?;
                    if leads(known) != leads(standing) || !leads(known) {
                        return Ok::<_, Error>(known);
                    }
                    tracing::info!("elected");
                }
            };
            standing = tokio::select! {
                () = shutdown.requested() => return Ok(()),
                changed = no_longer_leads => changed?,
                ended = self.reign(shutdown), if leads(standing) => return ended,
            };
        }
    }

    /// Leads, and serves until another leads or the process is to end.
    async fn reign(&self, shutdown: &Shutdown) -> Result<()> {
        let Config { kafka, job, durability, instance, from_savepoint, .. } = &self.config;
        let (instance, savepoint) = (instance.as_deref(), from_savepoint.as_deref());
        let leading = || lead(&self.admin, kafka, job, *durability, instance, savepoint);
        let (reign, pen) = self.when_reachable(leading).await?;
        let (sender, events) = mpsc::channel(WAITING);
        let (errands, errands_taken) = mpsc::channel(ERRANDS);
        let scribe = Scribe {
            pen,
            admin: self.admin.clone(),
            dead_letters: job.dead_letter.topic.clone(),
            errands: errands_taken,
            events: sender.clone(),
        };
        let desk =
            Desk { fingerprint: job.fingerprint(), shards: reign.record.shards, events: sender.clone() };
        let (watch, owner) = self.parts(reign, errands, sender, events);
        self.sign.leads(desk).await;
        tokio::select! {
            ended = owner.run(shutdown.clone()) => ended,
            error = watch.run() => Err(error),
            error = scribe.run() => Err(error),
        }
    }

    fn parts(
        &self,
        mut reign: Reign,
        errands: mpsc::Sender<Errand>,
        sender: mpsc::Sender<crate::event::Event>,
        events: mpsc::Receiver<crate::event::Event>,
    ) -> (Watch, Owner) {
        let Config { kafka, job, .. } = &self.config;
        let metrics = self.sign.metrics.clone();
        let watch = Watch {
            admin: self.admin.clone(),
            kafka: kafka.clone(),
            job: job.clone(),
            record: reign.record.clone(),
            term: reign.term,
            events: sender.clone(),
            metrics: metrics.clone(),
        };
        let clock = Clock::start();
        let now = Tick(clock.tick());
        let records = std::mem::take(&mut reign.replays);
        let owner = Owner::new(Parts {
            replays: ReplayDesk::new(job, records, errands, metrics.clone(), now),
            name: job.name.clone(),
            facts: job_facts(job),
            watermarks: self.config.watermarks(),
            assignment: self.config.assignment(),
            fences: Fences::new(kafka.clone(), job, metrics.clone()),
            clock,
            metrics,
            sender,
            events,
            reign,
        });
        (watch, owner)
    }

    /// Tries for as long as the cluster is the reason why not: services start in any order.
    async fn when_reachable<T, F: Future<Output = Result<T>>>(&self, step: impl Fn() -> F) -> Result<T> {
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        loop {
            let done = match self.admin.reachable(REACH).await {
                Ok(()) => step().await,
                Err(error) => Err(error.into()),
            };
            match done {
                Err(error) if error.is_retriable() => {
                    let brokers = &self.config.kafka.brokers;
                    tracing::warn!(brokers, %error, "cannot lead the job yet; trying again");
                    self.sign.away(&error.to_string()).await;
                    tokio::time::sleep(backoff.next_delay()).await;
                }
                done => return done,
            }
        }
    }
}
