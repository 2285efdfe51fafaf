//! The partitions that the group gives, and their readers.

use std::sync::Arc;

use tidegate_core::{
    announcement::ReaderEpoch,
    frame::SessionId,
    lane::{RejectedRecord, Row},
    source::{LaneKind, SourcePartition},
    time::{Offset, Partition, Tick},
};

use super::Ingest;
use crate::{
    context::{Context, Event},
    mutation::Mutation,
};

#[derive(Debug)]
pub struct Reading {
    pub source: SourcePartition,
    main: Reader,
    catch_up: Reader,
    pub(super) paused: bool,
    /// What catches up waits for the shards that it feeds.
    pub(super) catch_up_waits: bool,
}

/// A consumer of one partition; a new start makes what was under way void.
#[derive(Debug, Default)]
pub(super) struct Reader {
    pub(super) reading: u64,
    position: Offset,
}

impl Ingest {
    /// The group's word on what this process reads.
    pub fn assigned(&mut self, generation: u64, partitions: &[Partition], ctx: &mut Context) {
        let epoch = ReaderEpoch(generation);
        self.partitions.retain(|partition, _| partitions.contains(partition));
        self.reports.retain(|partition, _| partitions.contains(partition));
        for partition in partitions {
            if let Some(reading) = self.partitions.get_mut(partition) {
                reading.source.set_epoch(epoch);
                continue;
            }
            let (job, timing) = (Arc::clone(&ctx.scenario.job), ctx.scenario.timing);
            self.readings += 1;
            let mut source = SourcePartition::new(job, *partition, epoch, timing, Tick(ctx.now))
                .with_sessions_behind(SessionId(self.readings << 32));
            if let Some(announced) = &self.announced {
                source.announce(announced);
            }
            let reading = Reading {
                source,
                main: Reader::default(),
                catch_up: Reader::default(),
                paused: false,
                catch_up_waits: false,
            };
            self.partitions.insert(*partition, reading);
        }
        self.ask_all(ctx);
    }

    /// A reader's turn: a batch, or the news that it is at the end.
    pub fn read(&mut self, partition: Partition, lane: LaneKind, reading: u64, ctx: &mut Context) {
        let held = match lane {
            LaneKind::Main => self.held.main,
            LaneKind::CatchUp => self.held.catch_up,
        };
        let Some(known) = self.partitions.get_mut(&partition) else { return };
        let paused = match lane {
            LaneKind::Main => known.paused,
            LaneKind::CatchUp => known.catch_up_waits,
        };
        let Reading { source, main, catch_up, .. } = known;
        let reader = match lane {
            LaneKind::Main => main,
            LaneKind::CatchUp => catch_up,
        };
        if reader.reading != reading {
            return;
        }
        let again = Event::Read { ingest: self.id, partition, lane, reading };
        if held || paused {
            ctx.after(ctx.scenario.tick, again);
            return;
        }
        let mut effects = Vec::new();
        let topic = std::rc::Rc::clone(&ctx.topic);
        let log = topic.log(partition);
        let items = log.read(reader.position, ctx.now, ctx.scenario.batch);
        let now = Tick(ctx.now);
        let ended = items.is_empty();
        for item in items {
            reader.position = item.offset.next();
            let Some(record) = &item.record else { continue };
            let taken = match record.rejected {
                Some(reason) => {
                    let rejected = RejectedRecord {
                        reason,
                        detail: String::new(),
                        event_time: None,
                        payload: record.payload(),
                    };
                    source.reject(lane, item.offset, rejected, now, &mut effects)
                }
                None => {
                    let row = Row {
                        offset: item.offset,
                        time: record.time,
                        believed: true,
                        key: &record.key,
                        shard: record.shard,
                        values: &record.values,
                        text: &[],
                    };
                    source.row(lane, &row, now, || record.payload(), &mut effects)
                }
            };
            if !taken {
                break;
            }
        }
        if ended {
            reader.position = reader.position.max(log.stable(ctx.now));
            source.end(lane, reader.position, &mut effects);
        }
        let tick = ctx.scenario.tick;
        let pause = if ended { ctx.dice.within(tick, 4 * tick) } else { ctx.dice.within(0, tick) };
        let slow = if (partition, lane) == (Partition(0), LaneKind::CatchUp) {
            ctx.scenario.slow_catch_up
        } else {
            0
        };
        ctx.after(pause + slow, again);
        self.perform(partition, effects, ctx);
    }

    pub fn end_answered(&mut self, partition: Partition, stable: Offset, high: Offset, ctx: &Context) {
        let Some(reading) = self.partitions.get_mut(&partition) else { return };
        let position = reading.source.main().map_or(Offset(0), |main| main.position());
        let (stable, high) = match ctx.mutation {
            Some(Mutation::IdleWithoutProof) => (position, position),
            Some(Mutation::OpenTransactionsAreTheEnd) => (stable, stable),
            _ => (stable, high),
        };
        reading.source.end_proven(stable, high, Tick(ctx.now));
    }

    pub(super) fn reader(&mut self, partition: Partition, lane: LaneKind) -> &mut Reader {
        let reading = self.partitions.get_mut(&partition).expect("effects are of a partition that is read");
        match lane {
            LaneKind::Main => &mut reading.main,
            LaneKind::CatchUp => &mut reading.catch_up,
        }
    }

    pub(super) fn start(&mut self, partition: Partition, lane: LaneKind, offset: Offset, ctx: &mut Context) {
        let reading = ctx.number();
        ctx.count(if lane == LaneKind::Main { "main readings" } else { "catch-up readings" });
        ctx.note(|| format!("ingest {} reads p{partition} {lane:?} from {offset}", self.id));
        *self.reader(partition, lane) = Reader { reading, position: offset };
        if lane == LaneKind::CatchUp {
            self.set_catch_up_waits(partition, false);
        }
        let latency = ctx.latency();
        ctx.after(latency, Event::Read { ingest: self.id, partition, lane, reading });
    }
}
