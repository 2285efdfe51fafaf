use std::sync::Arc;

use prometheus_client::registry::Registry;
use tempfile::TempDir;
use tidegate_core::{
    aggregate::{Layout, RowBuf},
    block::JobId,
    entry::EntryKey,
    job::JobSpec,
    time::{EventTime, Span},
};
use tidegate_devbroker::DevBroker;
use tidegate_job::{Job, JobFile};
use tidegate_kafka::{KafkaConfig, NewTopic, Outcome, OutputRecord, TopicRole, TransactionOptions};
use tidegate_runtime::clock::Clock;
use tidegate_store::Stores;

use super::*;
use crate::{
    ground::{KnownJob, Parts},
    stats::Stats,
};

const JOB: JobId = JobId(*b"a job in a test.");
const SHARD: Shard = Shard(0);

/// A broker with the topics of a job, and a state directory.
struct Rig {
    _broker: DevBroker,
    ground: Ground,
    _state: TempDir,
}

impl Rig {
    async fn new() -> Self {
        let broker = DevBroker::start(tidegate_devbroker::Config::default()).await.unwrap();
        let job = Arc::new(job());
        let kafka = KafkaConfig::new(broker.address().to_string(), "test");
        let admin = tidegate_kafka::Admin::open(&kafka).unwrap();
        for topic in [job.sink.topic.clone(), job.dead_letter.topic.clone(), job.changelog_topic()] {
            admin.create(&NewTopic::of_role(topic, 1, TopicRole::Changelog)).await.unwrap();
        }
        let state = tempfile::tempdir().unwrap();
        let stores = Stores::open(state.path(), JOB.0).unwrap();
        let stats = Arc::new(Stats::new(&mut Registry::default(), u64::MAX));
        let known = KnownJob { job_id: JOB, generations: Vec::new() };
        let parts = Parts { job, known, clock: Clock::start(), kafka, stores, stats };
        Self { _broker: broker, ground: Ground::lay(parts).await.unwrap(), _state: state }
    }

    /// Commits blocks to the log, each in a transaction of its own, in chunks; gives their offsets.
    async fn write(&self, blocks: &[Block]) -> Vec<Offset> {
        let (kafka, id) = (self.ground.kafka.clone(), self.ground.job.transactional_id(SHARD));
        let topic = Arc::clone(&self.ground.renderer.changelog);
        let blocks = blocks.to_vec();
        let write = move || {
            let mut producer =
                TransactionalProducer::open(&kafka, &id, TransactionOptions::default()).unwrap();
            producer.init(INIT_PATIENCE).unwrap();
            blocks.iter().map(|block| commit(&mut producer, &topic, block)).collect()
        };
        tokio::task::spawn_blocking(write).await.unwrap()
    }

    /// Makes the changelog anew, without any record.
    async fn lose_log(&self) {
        let topic = self.ground.job.changelog_topic();
        self.ground.admin.delete(&topic).await.unwrap();
        self.ground.admin.create(&NewTopic::of_role(topic, 1, TopicRole::Changelog)).await.unwrap();
    }

    async fn end(&self) -> Offset {
        let topic = self.ground.job.changelog_topic();
        self.ground.admin.ends(&topic).await.unwrap()[0].high_watermark
    }

    /// Writes a record to the log as it is.
    async fn append(&self, value: Vec<u8>) {
        let (kafka, topic) = (self.ground.kafka.clone(), self.ground.job.changelog_topic());
        let write = move || {
            let mut producer = tidegate_kafka::Producer::open(&kafka).unwrap();
            producer.send(&topic, Partition(SHARD.0), None, Some(&value), &[], None).unwrap();
            producer.flush(INIT_PATIENCE).unwrap();
        };
        tokio::task::spawn_blocking(write).await.unwrap();
    }

    async fn cut_log(&self, before: Offset) {
        let topic = self.ground.job.changelog_topic();
        self.ground.admin.delete_records(&topic, Partition(SHARD.0), before).await.unwrap();
    }

    /// Restores the shard, and leaves its local store written.
    async fn restore(&self) -> Result<ShardState, Error> {
        let ground = self.ground.clone();
        let restore = move || {
            let mut cache = ShardCache::new(ground.stores.clone(), SHARD, JOB, ground.operator);
            let state = super::restore(&ground, SHARD, &mut None, &mut cache);
            cache.close(true);
            state
        };
        tokio::task::spawn_blocking(restore).await.unwrap()
    }

    /// What the local store is at.
    fn cached(&self) -> Option<(u64, u64)> {
        let identity = self.ground.stores.shard(SHARD.0).unwrap().identity().unwrap();
        identity.map(|identity| (identity.incarnation, identity.sequence))
    }
}

fn commit(producer: &mut TransactionalProducer, topic: &Arc<str>, block: &Block) -> Offset {
    let records: Vec<_> = block
        .chunks(60)
        .into_iter()
        .map(|chunk| OutputRecord {
            topic: Arc::clone(topic),
            partition: Partition(SHARD.0),
            key: None,
            value: Some(chunk.into()),
            headers: vec![],
            timestamp: None,
        })
        .collect();
    match producer.commit(&records) {
        Outcome::Committed { offsets } => offsets[0].unwrap(),
        other => panic!("{other:?}"),
    }
}

fn job() -> Job {
    let text = "name: restored
source:
  topic: source
  format: json
  key: { field: /user }
  event_time: [{ field: /ts, unit: ms }]
watermark: { strategy: bounded_out_of_orderness, delay: 1s, idle_timeout: 1s, on_quiet: hold }
window:
  tumbling: { size: 10ms }
aggregates:
  - { name: count, fn: count }
sink: { topic: results }
dead_letter: { topic: dead }
state: { shards: 1 }
";
    JobFile::parse(text, "test.yaml").unwrap()
}

fn genesis() -> Block {
    ShardState::genesis(JOB, &[(Partition(0), Offset(0))])
}

/// Block `sequence` of the owner `incarnation`: a row of its own.
fn block(incarnation: u64, sequence: u64) -> Block {
    let spec: JobSpec = job().core;
    let layout = Layout::new(&spec);
    let (mut key, mut value) = (Vec::new(), Vec::new());
    let mut row = RowBuf::new(&layout);
    (0..sequence).for_each(|_| layout.add_record(&mut row.row_mut()));
    EntryKey::Row(
        spec.operator.grid().expect("windows").slice_of(EventTime(50)),
        format!("key-{sequence}").as_bytes(),
    )
    .encode(&mut key);
    layout.encode(row.row(), &mut value);
    let mut block = Block { incarnation, sequence, ..Block::default() };
    block.scalars.watermark = Some(EventTime(0).plus(Span(i64::try_from(sequence).unwrap())));
    block.entries.upsert(&key, &value);
    block
}

fn fold(blocks: &[Block]) -> ShardState {
    let mut state = ShardState::empty(&job().core);
    for block in blocks {
        state.fold(block).unwrap();
    }
    state
}

#[tokio::test]
async fn a_shard_is_what_its_log_folds_to_and_the_store_follows() {
    let rig = Rig::new().await;
    let blocks = [genesis(), block(7, 1), block(7, 2)];
    rig.write(&blocks).await;
    assert_eq!(rig.cached(), None);
    let state = rig.restore().await.unwrap();
    assert_eq!(state.canonical(), fold(&blocks).canonical());
    assert_eq!(state.identity(), (7, 2));
    assert_eq!(rig.cached(), Some((7, 2)));
}

#[tokio::test]
async fn a_store_on_the_chain_is_continued_from() {
    let rig = Rig::new().await;
    let mut blocks = vec![genesis(), block(7, 1)];
    let offsets = rig.write(&blocks).await;
    rig.restore().await.unwrap();
    blocks.extend([block(8, 2), block(8, 3)]);
    rig.write(&blocks[2..]).await;
    // Without its beginning the log alone folds to nothing: only with the store does it.
    rig.cut_log(offsets[1]).await;
    let state = rig.restore().await.unwrap();
    assert_eq!(state.canonical(), fold(&blocks).canonical());
    assert_eq!((state.identity(), state.job()), ((8, 3), Some(JOB)));
    assert_eq!(rig.cached(), Some((8, 3)));
}

#[tokio::test]
async fn a_store_behind_the_log_start_is_built_anew() {
    let rig = Rig::new().await;
    let old = [genesis(), block(7, 1)];
    rig.write(&old).await;
    rig.restore().await.unwrap();
    let begins = Block { begins: Some(JOB), ..block(7, 2) };
    let blocks = [begins, block(7, 3)];
    let offsets = rig.write(&blocks).await;
    rig.cut_log(offsets[0]).await;
    let state = rig.restore().await.unwrap();
    assert_eq!(state.canonical(), fold(&blocks).canonical());
    assert_eq!(rig.cached(), Some((7, 3)));
    let again = rig.restore().await.unwrap();
    assert_eq!(again.canonical(), state.canonical(), "nothing of the old store is left");
}

#[tokio::test]
async fn a_store_off_the_chain_is_built_anew_where_the_log_has_more() {
    let rig = Rig::new().await;
    rig.write(&[genesis(), block(7, 1), block(7, 2)]).await;
    rig.restore().await.unwrap();
    rig.lose_log().await;
    let blocks = [genesis(), block(9, 1), block(9, 2), block(9, 3)];
    rig.write(&blocks).await;
    let state = rig.restore().await.unwrap();
    assert_eq!(state.canonical(), fold(&blocks).canonical());
    assert_eq!(rig.cached(), Some((9, 3)));
}

#[tokio::test]
async fn a_store_ahead_of_the_log_is_lost_data_however_often_it_is_asked() {
    let rig = Rig::new().await;
    rig.write(&[genesis(), block(7, 1), block(7, 2)]).await;
    rig.restore().await.unwrap();
    rig.lose_log().await;
    rig.write(&[genesis()]).await;
    for _ in 0..2 {
        let error = rig.restore().await.unwrap_err();
        assert!(matches!(error, Error::DataLoss { cached: 2, .. }), "{error}");
    }
    // Another owner has written on, past the place of what was committed, but not as much.
    let begins = Block { begins: Some(JOB), ..block(9, 0) };
    rig.lose_log().await;
    rig.write(&vec![genesis(); 6]).await;
    rig.write(&[begins]).await;
    let error = rig.restore().await.unwrap_err();
    assert!(matches!(error, Error::DataLoss { cached: 2, .. }), "{error}");
    assert_eq!(rig.cached(), Some((7, 2)), "the proof is kept");
}

#[tokio::test]
async fn a_log_without_its_beginning_or_another_jobs_is_never_a_state() {
    let rig = Rig::new().await;
    let error = rig.restore().await.unwrap_err();
    assert!(matches!(error, Error::NoGenesis { shard: SHARD, .. }), "{error}");

    let offsets = rig.write(&[genesis(), block(7, 1)]).await;
    rig.cut_log(offsets[1]).await;
    let error = rig.restore().await.unwrap_err();
    let expected = RestoreError::NoBeginning { found: 1 };
    assert!(
        matches!(&error, Error::Restore { offset, source, .. } if *offset == offsets[1] && *source == expected),
        "{error}"
    );

    rig.lose_log().await;
    rig.write(&[ShardState::genesis(JobId([9; 16]), &[])]).await;
    let error = rig.restore().await.unwrap_err();
    assert!(matches!(error, Error::Restore { source: RestoreError::OtherJob, .. }), "{error}");
}

/// Kafka hands out what its disk holds; the sum of each chunk is ours.
#[tokio::test]
async fn a_flipped_byte_in_the_log_is_named_with_its_place_and_never_a_state() {
    let rig = Rig::new().await;
    let offsets = rig.write(&[genesis(), block(7, 1)]).await;
    let whole = block(7, 2).chunks(usize::MAX).remove(0);
    let mut places: Vec<_> = (0..whole.len()).step_by(whole.len() / 8).collect();
    places.push(whole.len() - 1);
    let at = rig.end().await;
    for place in places {
        let mut chunk = whole.clone();
        chunk[place] ^= 0x10;
        rig.append(chunk).await;
        for _ in 0..2 {
            let error = rig.restore().await.unwrap_err();
            let Error::Restore { topic, shard, offset, source } = &error else { panic!("{error}") };
            assert_eq!((topic, *shard, *offset), (&rig.ground.job.changelog_topic(), SHARD, at), "{error}");
            assert!(matches!(source, RestoreError::Block(_)), "byte {place}: {error}");
        }
        rig.lose_log().await;
        assert_eq!(rig.write(&[genesis(), block(7, 1)]).await, offsets);
    }
    rig.write(&[block(7, 2)]).await;
    assert_eq!(rig.restore().await.unwrap().identity(), (7, 2));
}
