//! Does what the partitions of an ingest say.

use tidegate_core::{
    frame::Frame,
    source::{Effect, SourcePartition},
    time::{Partition, Tick},
};

use super::Ingest;
use crate::{
    context::{Context, Event, LinkId, Message},
    mutation::Mutation,
};

impl Ingest {
    pub(super) fn with(
        &mut self,
        partition: Partition,
        ctx: &mut Context,
        call: impl FnOnce(&mut SourcePartition, Tick) -> Vec<Effect>,
    ) {
        if let Some(reading) = self.partitions.get_mut(&partition) {
            let effects = call(&mut reading.source, Tick(ctx.now));
            self.perform(partition, effects, ctx);
        }
    }

    pub(super) fn perform(&mut self, partition: Partition, effects: Vec<Effect>, ctx: &mut Context) {
        for effect in effects {
            match effect {
                Effect::Start(lane, offset) => self.start(partition, lane, offset, ctx),
                Effect::Stop(lane) => {
                    let reading = ctx.number();
                    self.reader(partition, lane).reading = reading;
                }
                Effect::HoldCatchUp(holds) => self.hold_catch_up(partition, holds, ctx),
                Effect::ProveEnd => {
                    let latency = ctx.latency();
                    ctx.after(latency, Event::EndAsked { ingest: self.id, partition });
                }
                Effect::Open(worker, opening) => {
                    let link = LinkId(worker.0);
                    self.flush_worker(link, ctx);
                    ctx.note(|| format!("ingest {} opens {opening:?} to {link:?}", self.id));
                    if opening.shards.iter().any(|shard| self.asked.remove(&(partition, *shard))) {
                        self.whole.insert(opening.session);
                    }
                    ctx.send(link, self.process(), Message::Open(opening));
                }
                Effect::Frame(_, frame)
                    if frame.rows.is_empty() && ctx.is_mutated(Mutation::EmptyFramesStay) => {}
                Effect::Frame(worker, mut frame) => {
                    if ctx.is_mutated(Mutation::RejectsStay) {
                        frame.rows.iter_mut().for_each(|(_, rows)| rows.rejects.clear());
                    }
                    if ctx.scenario.bare && !self.whole.contains(&frame.session) {
                        frame.rows.iter_mut().for_each(|(_, rows)| rows.payloads.clear());
                    }
                    ctx.note(|| format!("ingest {} p{partition} {}", self.id, shown(&frame)));
                    if let Some(connection) = self.workers.get_mut(&LinkId(worker.0)) {
                        self.credit.spend(worker, frame.cost(), Tick(ctx.now));
                        connection.frames.push(frame);
                    }
                }
                Effect::Report(report) => {
                    if self.told.insert(partition, report.state) != Some(report.state) {
                        ctx.note(|| format!("ingest {} {report:?}", self.id));
                    }
                    self.reports.insert(report.partition, report);
                }
            }
        }
        self.look_at_credit(ctx);
    }
}

fn shown(frame: &Frame) -> String {
    let rows: Vec<_> = frame
        .rows
        .iter()
        .map(|(shard, rows)| format!("s{shard}: {:?} at {:?}", rows.times, rows.offsets))
        .collect();
    format!(
        "frame of session {} [{}, {}) watermark {:?} {:?} {rows:?}",
        frame.session.0 & 0xffff_ffff,
        frame.from,
        frame.to,
        frame.watermark,
        frame.state
    )
}
