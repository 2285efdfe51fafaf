//! A Kafka client that has come to a stand for good: it reads nothing, and says nothing, although there is something to read.
//!
//! librdkafka was seen to do so once, after the only broker had been restarted. What it cannot be asked is asked of another
//! client: where the partitions end. A lane that does not move while another client sees records before it, again and again for
//! the [patience](Standstill::PATIENCE), is read by a client that stands still. The owner then replaces the client.

use std::{collections::BTreeMap, sync::Arc};

use tidegate_core::{
    source::LaneKind,
    time::{Offset, Partition, Tick},
};
use tidegate_kafka::{Admin, KafkaConfig, PartitionEnds};
use tokio::sync::{Mutex, mpsc};

use crate::event::Event;

/// A lane that has not moved for so long is worth a question, ms; and the next one comes as much later.
const ASK_AFTER: u64 = 5_000;

/// A lane of a partition: whether it is the main one.
type LaneId = (Partition, bool);

/// What is known of the lanes that are being read.
#[derive(Debug, Default)]
pub(crate) struct Standstill {
    lanes: BTreeMap<LaneId, Lane>,
    asked: Option<Tick>,
    /// How often clients have been replaced since a lane that was the reason has moved.
    in_vain: u32,
    blamed: Option<(LaneId, Offset)>,
}

#[derive(Clone, Copy, Debug)]
struct Lane {
    position: Offset,
    since: Tick,
    /// Since when the answers say that there is something to read at the position.
    waits_since: Option<Tick>,
}

impl Standstill {
    /// For how long the answers have to agree before a client is replaced, ms. Doubled, up to sixteen times, while that does
    /// not help.
    pub(crate) const PATIENCE: u64 = 20_000;

    /// Takes the lanes that are read at `now`, neither paused nor without credit, and their positions. True where it is time to
    /// ask where the partitions end.
    pub(crate) fn look(
        &mut self,
        lanes: impl Iterator<Item = (Partition, LaneKind, Offset)>,
        now: Tick,
    ) -> bool {
        let before = std::mem::take(&mut self.lanes);
        for (partition, kind, position) in lanes {
            let id = (partition, kind == LaneKind::Main);
            if self.blamed.is_some_and(|(blamed, at)| blamed == id && position > at) {
                (self.blamed, self.in_vain) = (None, 0);
            }
            let same = before.get(&id).filter(|lane| lane.position == position);
            let lane = same.copied().unwrap_or(Lane { position, since: now, waits_since: None });
            self.lanes.insert(id, lane);
        }
        let rests = self.lanes.values().any(|lane| now.since(lane.since) >= ASK_AFTER);
        let due = self.asked.is_none_or(|asked| now.since(asked) >= ASK_AFTER);
        if rests && due {
            self.asked = Some(now);
        }
        rests && due
    }

    /// Takes an answer; `None` where there was none, which proves nothing: the brokers are away. Gives a lane whose client stands still.
    pub(crate) fn answered(
        &mut self,
        ends: Option<&[PartitionEnds]>,
        now: Tick,
    ) -> Option<(Partition, Offset)> {
        let patience = Self::PATIENCE << self.in_vain.min(4);
        let mut stands = None;
        for (id, lane) in &mut self.lanes {
            let end = ends.into_iter().flatten().find(|ends| ends.partition == id.0);
            let waits = now.since(lane.since) >= ASK_AFTER
                && end.is_some_and(|ends| ends.last_stable > lane.position);
            lane.waits_since = waits.then(|| lane.waits_since.unwrap_or(now));
            if lane.waits_since.is_some_and(|since| now.since(since) >= patience) {
                stands.get_or_insert((*id, lane.position));
            }
        }
        let (id, position) = stands?;
        self.in_vain = self.in_vain.saturating_add(1);
        (self.blamed, self.asked) = (Some((id, position)), None);
        self.lanes.clear();
        Some((id.0, position))
    }
}

/// Asks, by a client of its own, where partitions end.
#[derive(Clone)]
pub(crate) struct Asker {
    kafka: KafkaConfig,
    topic: String,
    /// A client that does not answer is replaced too.
    client: Arc<Mutex<Option<Admin>>>,
}

impl Asker {
    pub(crate) fn new(kafka: KafkaConfig, topic: String) -> Self {
        Self { kafka, topic, client: Arc::default() }
    }

    /// Asks, and sends what comes back as [`Event::Ends`].
    pub(crate) fn ask(&self, events: mpsc::Sender<Event>) {
        let asker = self.clone();
        tidegate_runtime::task::spawn("standstill", async move {
            let ends = asker.ends().await;
            let _ = events.send(Event::Ends(ends)).await;
        });
    }

    async fn ends(&self) -> Option<Vec<PartitionEnds>> {
        let mut kept = self.client.lock().await;
        let asked = match kept.take().map_or_else(|| Admin::open(&self.kafka), Ok) {
            Ok(client) => client.ends(&self.topic).await.map(|ends| (client, ends)),
            Err(error) => Err(error),
        };
        match asked {
            Ok((client, ends)) => {
                *kept = Some(client);
                Some(ends)
            }
            Err(error) => {
                tracing::debug!(%error, "the brokers do not say where the source ends");
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const P: Partition = Partition(3);

    fn ends(last_stable: u64) -> [PartitionEnds; 1] {
        let [log_start, last_stable] = [Offset(0), Offset(last_stable)];
        [PartitionEnds { partition: P, log_start, last_stable, high_watermark: Offset(1_000) }]
    }

    fn at(standstill: &mut Standstill, position: u64, now: u64) -> bool {
        standstill.look([(P, LaneKind::Main, Offset(position))].into_iter(), Tick(now))
    }

    /// Looks and answers each second; when, if at all, a lane is found to stand still.
    fn found(
        standstill: &mut Standstill,
        seconds: std::ops::Range<u64>,
        end: impl Fn(u64) -> Option<u64>,
    ) -> Option<u64> {
        seconds.into_iter().find(|second| {
            let now = second * 1_000;
            at(standstill, 10, now)
                && standstill
                    .answered(end(*second).map(ends).as_ref().map(|ends| &ends[..]), Tick(now))
                    .is_some()
        })
    }

    #[test]
    fn a_lane_that_rests_before_records_is_found_once_the_answers_have_agreed_for_long_enough() {
        assert_eq!(found(&mut Standstill::default(), 0..100, |_| Some(11)), Some(25));
    }

    #[test]
    fn a_lane_at_its_end_and_one_that_moves_are_not() {
        assert_eq!(found(&mut Standstill::default(), 0..1_000, |_| Some(10)), None);
        let mut moves = Standstill::default();
        for second in 0..1_000 {
            assert!(!at(&mut moves, second, second * 1_000));
        }
    }

    #[test]
    fn an_outage_proves_nothing_and_the_time_before_it_does_not_count() {
        let back = |second| (!(20..200).contains(&second)).then_some(11);
        assert_eq!(found(&mut Standstill::default(), 0..1_000, back), Some(220));
    }

    #[test]
    fn while_replacing_does_not_help_it_is_done_more_and_more_seldom() {
        let mut standstill = Standstill::default();
        let mut from = 0;
        let mut spans = Vec::new();
        for _ in 0..7 {
            let when = found(&mut standstill, from..from + 1_000, |_| Some(11)).unwrap();
            spans.push(when - from);
            from = when + 1;
        }
        assert!(spans.is_sorted() && spans[1] >= 40 && spans[5] == spans[6], "{spans:?}");
        // The lane has moved: what comes now is another matter.
        at(&mut standstill, 11, from * 1_000);
        let when = found(&mut standstill, from + 1..from + 1_000, |_| Some(11)).unwrap();
        assert!(when - from <= 27, "{when} {from}");
    }
}
