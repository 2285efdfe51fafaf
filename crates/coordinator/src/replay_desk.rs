//! The owner's desk for replays: the machine, what waits to be written, and who waits for that.

use std::collections::{BTreeMap, VecDeque};

use tidegate_core::coordinator::ReaderId;
use tidegate_core::replay_request::{ReplayFilter, ReplayRange};
use tidegate_core::time::Tick;
use tidegate_job::Job;
use tidegate_kafka::PartitionEnds;
use tidegate_proto::v1;
use tokio::sync::mpsc;
use tonic::Status;
use v1::ingest_directive::Message as ToIngest;

use crate::event::{Look, ReplayEvent, TicketReply};
use crate::metrics::Metrics;
use crate::replay_record::{DeadLetterTopic, ReplayRecord};
use crate::replays::{Order, Progress, Replays, Request, View};
use crate::scribe::Errand;

/// Something that an ingest is to be told.
pub(crate) type Directive = (ReaderId, ToIngest);

/// The desk.
pub(crate) struct ReplayDesk {
    job: String,
    /// Whether the job keeps anything that a replay could correct.
    keeps: bool,
    machine: Replays,
    errands: mpsc::Sender<Errand>,
    queue: VecDeque<Errand>,
    waiting: BTreeMap<u64, Vec<TicketReply>>,
    metrics: Metrics,
}

impl ReplayDesk {
    pub(crate) fn new(
        job: &Job,
        records: Vec<ReplayRecord>,
        errands: mpsc::Sender<Errand>,
        metrics: Metrics,
        now: Tick,
    ) -> Self {
        Self {
            job: job.name.clone(),
            keeps: job.dead_letter.replay_ttl.is_some(),
            machine: Replays::new(records, job.dead_letter.replay_every, now),
            errands,
            queue: VecDeque::new(),
            waiting: BTreeMap::new(),
            metrics,
        }
    }

    /// Takes an event; what ingests are to be told at once.
    pub(crate) fn handle(&mut self, event: ReplayEvent, at: i64) -> Option<Directive> {
        match event {
            ReplayEvent::Asked { job, request, reply } => match self.refusal(&job) {
                Some(refusal) => answer(reply, Err(refusal)),
                None => match self.machine.asked(request.token) {
                    Some(number) => self.answer_when_written(number, reply),
                    None if self.machine.is_full() => answer(
                        reply,
                        Err(Status::resource_exhausted(
                            "a hundred replays wait already; wait for some to end, or cancel some",
                        )),
                    ),
                    None => {
                        self.queue.push_back(Errand::Look(Look { request, reply: Some(reply) }));
                    }
                },
            },
            ReplayEvent::Cancelled { job, number, reply } => {
                if let Some(refusal) = self.other_job(&job) {
                    answer(reply, Err(refusal));
                    return None;
                }
                let Some((writes, stops)) = self.machine.cancel(number, at) else {
                    answer(
                        reply,
                        Err(Status::not_found(format!(
                            "job `{job}` has no replay {number}, or not any more"
                        ))),
                    );
                    return None;
                };
                self.write(writes);
                self.answer_when_written(number, reply);
                return stops.map(|reader| (reader, ToIngest::StopReplay(number)));
            }
            ReplayEvent::Looked(look, found) => self.looked(look, found, at),
            ReplayEvent::Written(numbers) => {
                self.machine.written(&numbers);
                for number in numbers {
                    for reply in self.waiting.remove(&number).unwrap_or_default() {
                        answer(reply, Ok(v1::ReplayTicket { number }));
                    }
                }
            }
        }
        None
    }

    fn looked(
        &mut self,
        Look { request, reply }: Look,
        found: Result<(DeadLetterTopic, Vec<PartitionEnds>), String>,
        at: i64,
    ) {
        let (topic, ends) = match found {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(error, "cannot look where the dead-letter topic ends");
                if let Some(reply) = reply {
                    let why = format!("cannot look where the dead-letter topic ends: {error}");
                    answer(reply, Err(Status::unavailable(why)));
                }
                return;
            }
        };
        let ranges = if request.automatic {
            self.machine.grown(&topic, &ends)
        } else {
            let whole = |ends: &PartitionEnds| ReplayRange {
                partition: ends.partition,
                from: ends.log_start,
                to: ends.last_stable,
            };
            ends.iter().map(whole).collect()
        };
        if ranges.is_empty() && request.automatic {
            return;
        }
        let automatic = request.automatic;
        let (number, writes) = self.machine.request(request, &topic, ranges, at);
        tracing::info!(number, automatic, "a replay of dead letters is asked for");
        self.write(writes);
        if let Some(reply) = reply {
            self.answer_when_written(number, reply);
        }
    }

    /// What an ingest says of its order.
    pub(crate) fn progress(&mut self, reader: ReaderId, progress: Progress, at: i64) {
        let writes = self.machine.progress(reader, progress, at);
        if !writes.is_empty() {
            let Progress { number, tally, .. } = progress;
            self.metrics.replays_done.inc();
            tracing::info!(
                number,
                applied = tally.applied,
                expired = tally.expired,
                known = tally.known,
                failed = tally.failed,
                "a replay is done"
            );
        }
        self.write(writes);
    }

    /// The stream of an ingest has ended.
    pub(crate) fn gone(&mut self, reader: ReaderId) {
        self.machine.gone(reader);
    }

    /// What time brings, and what can be begun.
    pub(crate) fn step(&mut self, now: Tick, readers: impl Iterator<Item = ReaderId>) -> Option<Directive> {
        if self.machine.looks(now) {
            let request = Request {
                token: uuid::Uuid::new_v4().as_u64_pair().0,
                automatic: true,
                dry_run: false,
                filter: ReplayFilter::late(),
            };
            self.queue.push_back(Errand::Look(Look { request, reply: None }));
        }
        while let Some(errand) = self.queue.pop_front() {
            if let Err(mpsc::error::TrySendError::Full(errand) | mpsc::error::TrySendError::Closed(errand)) =
                self.errands.try_send(errand)
            {
                self.queue.push_front(errand);
                break;
            }
        }
        let Order { reader, record } = self.machine.next(readers)?;
        tracing::info!(number = record.number, offsets = record.offsets(), "an ingest is to do a replay");
        let order = v1::ReplayOrder {
            number: record.number,
            filter: Some((&record.filter).into()),
            ranges: record.ranges.iter().map(Into::into).collect(),
            dry_run: record.dry_run,
            topic: record.topic,
        };
        Some((reader, ToIngest::Replay(order)))
    }

    /// Tells the metrics how many there are.
    pub(crate) fn measure(&self) {
        let states: Vec<_> = self.machine.views().map(|view| view.state).collect();
        self.metrics.replay_states(states.iter().copied());
    }

    /// All of them, for people.
    pub(crate) fn status(&self) -> Vec<v1::ReplayStatus> {
        let status = |view: View<'_>| v1::ReplayStatus {
            number: view.record.number,
            automatic: view.record.automatic,
            state: view.state.to_owned(),
            filter: Some((&view.record.filter).into()),
            dry_run: view.record.dry_run,
            requested_ms: view.record.requested,
            ended_ms: view.record.end.map(|end| end.at),
            tally: Some(view.tally.into()),
            offsets: view.record.offsets(),
            read: view.read,
        };
        self.machine.views().map(status).collect()
    }

    fn refusal(&self, job: &str) -> Option<Status> {
        let keeps_nothing = || {
            Status::failed_precondition(format!(
                "job `{job}` keeps no windows for replays, so that all dead letters would expire; give it `dead_letter.replay` \
                 with a `ttl` and start its services anew"
            ))
        };
        self.other_job(job).or_else(|| (!self.keeps).then(keeps_nothing))
    }

    fn other_job(&self, job: &str) -> Option<Status> {
        let ours = &self.job;
        (job != ours).then(|| {
            Status::failed_precondition(format!(
                "this coordinator leads job `{ours}`, not `{job}`; give the name of the job, or the --coordinator of the other"
            ))
        })
    }

    fn answer_when_written(&mut self, number: u64, reply: TicketReply) {
        if self.machine.is_written(number) {
            answer(reply, Ok(v1::ReplayTicket { number }));
        } else {
            self.waiting.entry(number).or_default().push(reply);
        }
    }

    fn write(&mut self, writes: crate::replays::Writes) {
        if !writes.is_empty() {
            self.queue.push_back(Errand::Write(writes));
        }
    }
}

/// Whoever asked may be gone.
fn answer(reply: TicketReply, answer: Result<v1::ReplayTicket, Status>) {
    let _ = reply.send(answer);
}
