//! The source topic: everything that will ever be in it, with the time at which it can be seen.
//!
//! Offsets have gaps; markers take offsets and are no records; an open transaction keeps what was appended from being read.

use tidegate_core::{
    dead_letter::{Payload, Reason},
    time::{EventTime, Offset, Partition, Shard},
};

use crate::{dice::Dice, scenario::Scenario};

#[derive(Debug)]
pub struct Topic {
    pub partitions: Vec<Log>,
}

/// One partition, from the offset at which the job starts.
#[derive(Debug)]
pub struct Log {
    pub created: u64,
    pub start: Offset,
    pub items: Vec<Item>,
    /// The largest event time in `items[..i]`.
    largest: Vec<Option<EventTime>>,
    shards: Vec<ShardView>,
}

/// What of a partition belongs to one shard.
#[derive(Debug, Default)]
struct ShardView {
    offsets: Vec<u64>,
    /// The smallest event time in the shard's records from `i` on.
    least_from: Vec<Option<EventTime>>,
}

/// Something at an offset: a record, or a marker.
#[derive(Debug)]
pub struct Item {
    pub offset: Offset,
    pub appended: u64,
    /// When the last stable offset passes it.
    pub stable: u64,
    pub record: Option<Record>,
}

#[derive(Debug)]
pub struct Record {
    pub partition: Partition,
    pub offset: Offset,
    pub time: EventTime,
    pub key: Vec<u8>,
    pub shard: Shard,
    pub values: Vec<Option<i64>>,
    pub rejected: Option<Reason>,
}

impl Record {
    /// The shard of its key.
    pub fn home(&self, shards: u32) -> Shard {
        Shard::of(&self.key, shards)
    }

    /// What a dead letter of this record has to carry.
    pub fn payload(&self) -> Payload {
        let value = format!("{} {} {}", self.partition, self.offset, self.time);
        Payload { key: Some(self.key.clone()), value: Some(value.into_bytes()), ..Payload::default() }
    }
}

impl Topic {
    pub fn generate(scenario: &Scenario, dice: &mut Dice) -> Self {
        let partitions = (0..scenario.partitions + scenario.new_partitions)
            .map(|partition| generate_log(Partition(partition), scenario, dice))
            .collect();
        Self { partitions }
    }

    /// How many partitions the broker's metadata shows at `now`.
    pub fn visible(&self, now: u64) -> u32 {
        self.partitions.iter().filter(|log| log.created <= now).count() as u32
    }

    pub fn log(&self, partition: Partition) -> &Log {
        &self.partitions[partition.0 as usize]
    }

    /// When everything has been appended and can be read.
    pub fn complete_at(&self) -> u64 {
        let ends = self.partitions.iter().map(|log| log.items.last().map_or(log.created, |item| item.stable));
        ends.max().unwrap_or(0)
    }

    pub fn records(&self) -> impl Iterator<Item = &Record> {
        self.partitions.iter().flat_map(|log| log.items.iter().filter_map(|item| item.record.as_ref()))
    }
}

impl Log {
    fn new(created: u64, start: Offset, items: Vec<Item>, shards: u32) -> Self {
        let mut largest = vec![None];
        for item in &items {
            let time =
                item.record.as_ref().filter(|record| record.rejected.is_none()).map(|record| record.time);
            largest.push(time.max(*largest.last().unwrap()));
        }
        let shards = (0..shards).map(|shard| ShardView::new(&items, Shard(shard))).collect();
        Self { created, start, items, largest, shards }
    }

    /// The high watermark at `now`.
    pub fn high(&self, now: u64) -> Offset {
        self.behind(self.items.partition_point(|item| item.appended <= now))
    }

    /// The last stable offset at `now`.
    pub fn stable(&self, now: u64) -> Offset {
        self.behind(self.items.partition_point(|item| item.stable <= now))
    }

    /// The fetch position behind everything.
    pub fn end(&self) -> Offset {
        self.behind(self.items.len())
    }

    fn behind(&self, count: usize) -> Offset {
        count.checked_sub(1).map_or(self.start, |last| self.items[last].offset.next())
    }

    /// At most `count` items from `from` on that a `read_committed` reader gets at `now`.
    pub fn read(&self, from: Offset, now: u64, count: usize) -> &[Item] {
        let first = self.items.partition_point(|item| item.offset < from);
        let last = self.items.partition_point(|item| item.stable <= now).min(first + count);
        self.items.get(first..last).unwrap_or_default()
    }

    pub fn record(&self, offset: Offset) -> Option<&Record> {
        let at = self.items.binary_search_by_key(&offset, |item| item.offset).ok()?;
        self.items[at].record.as_ref()
    }

    /// How many of the shard's records lie below `next`.
    pub fn covered(&self, shard: Shard, next: Offset) -> u64 {
        self.shards[shard.0 as usize].offsets.partition_point(|offset| *offset < next.0) as u64
    }

    /// The smallest event time of the shard's records at or above `next`, ever.
    pub fn least_from(&self, shard: Shard, next: Offset) -> Option<EventTime> {
        let view = &self.shards[shard.0 as usize];
        view.least_from[view.offsets.partition_point(|offset| *offset < next.0)]
    }

    /// The largest event time below `next`.
    pub fn largest_below(&self, next: Offset) -> Option<EventTime> {
        self.largest[self.items.partition_point(|item| item.offset < next)]
    }
}

impl ShardView {
    fn new(items: &[Item], shard: Shard) -> Self {
        let own: Vec<_> =
            items.iter().filter_map(|item| item.record.as_ref()).filter(|r| r.shard == shard).collect();
        let mut least: Option<EventTime> = None;
        let mut least_from = vec![None];
        for record in own.iter().rev() {
            if record.rejected.is_none() {
                least = Some(least.map_or(record.time, |least| least.min(record.time)));
            }
            least_from.push(least);
        }
        least_from.reverse();
        Self { offsets: own.iter().map(|record| record.offset.0).collect(), least_from }
    }
}

fn generate_log(partition: Partition, scenario: &Scenario, dice: &mut Dice) -> Log {
    let new = partition.0 >= scenario.partitions;
    let created = if new { dice.within(1, scenario.appends_until) } else { 0 };
    let start = Offset(if new { 0 } else { dice.within(0, 3) });
    let count = if dice.chance(120) { 0 } else { dice.within(1, scenario.records) };
    let mut items = Vec::new();
    let mut next = start.0;
    let (mut appended, mut stable) = (created, created);
    if new {
        appended += scenario.refresh + 50;
    }
    let delay = scenario.job.watermark.strategy.least_delay().0;
    // Event time is the time of arrival (`tied`), or runs at a pace of the partition's own.
    let (tied, base, pace) = (scenario.tied, dice.signed(-2_000, 2_000), dice.signed(1, 4));
    let mut largest = i64::MIN;
    let silence = scenario.silence(new);
    for _ in 0..count {
        if !scenario.backlog {
            let gap = if dice.chance(150) { dice.within(0, silence) } else { dice.within(0, silence / 8) };
            appended += gap;
        }
        next += if dice.chance(150) { dice.within(1, 4) } else { 0 };
        stable = stable.max(appended);
        if scenario.transactions && !scenario.backlog && dice.chance(100) {
            stable += dice.within(1, 400);
        }
        let middle =
            if tied { stable as i64 } else { base + pace * appended as i64 + items.len() as i64 * 7 };
        let mut time = middle + dice.signed(-delay / 2, delay / 2);
        if !scenario.exact && dice.chance(80) {
            time -= dice.signed(0, 4 * delay + 2 * scenario.job.operator.reach().0);
        } else if !scenario.exact && dice.chance(10) {
            time += dice.signed(0, 3_000);
        } else if !tied && largest > i64::MIN {
            time = time.max(largest - delay);
        }
        let rejected = dice
            .chance(40)
            .then(|| *dice.pick(&[Reason::Unreadable, Reason::NoEventTime, Reason::Tombstone]));
        if rejected.is_none() {
            largest = largest.max(time);
        }
        let key = format!("k{}", dice.within(0, scenario.keys - 1)).into_bytes();
        let shards = scenario.job.shards;
        let shard =
            if rejected.is_some() { Shard::of_rejects(partition, shards) } else { Shard::of(&key, shards) };
        let values =
            scenario.job.columns.iter().map(|_| (!dice.chance(100)).then(|| dice.signed(-50, 50))).collect();
        let record =
            Record { partition, offset: Offset(next), time: EventTime(time), key, shard, values, rejected };
        items.push(Item { offset: Offset(next), appended, stable, record: Some(record) });
        next += 1;
        if dice.chance(100) {
            items.push(Item { offset: Offset(next), appended, stable, record: None });
            next += 1;
        }
    }
    Log::new(created, start, items, scenario.job.shards)
}
