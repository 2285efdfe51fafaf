//! What Kafka does to a worker: fencing, timeouts, answers that are lost, limits; and a disk that goes bad.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_core::time::Shard;
use tidegate_devbroker::{ApiKey, Fault};
use tidegate_kafka::{TransactionOptions, TransactionalProducer};
use tidegate_proto::v1::worker_report::Message as Report;
use tidegate_tests::DevKafka;
use tidegate_tests::clients::PATIENCE;

use crate::coordinator::Stream;
use crate::ingest::Ingest;
use crate::rig::{Rig, shared_state};

/// Two records of the first window, and one that closes it.
async fn feed_a_window(ingest: &mut Ingest, shard: u32) -> Result<()> {
    let mut session = ingest.open(shard, 0).await?;
    ingest.feed(&mut session, 1, &[(1, "a", 1), (2, "a", 1)]).await?;
    ingest.feed(&mut session, 12, &[(11, "b", 1)]).await
}

/// The one result of [`feed_a_window`].
async fn ensure_one_result(rig: &Rig, shard: u32) -> Result<()> {
    let results = rig.results(shard).await?;
    ensure!(results.len() == 1 && results[0].contains(r#""count":2"#), "{results:?}");
    Ok(())
}

async fn fenced(stream: &mut Stream) -> Result<u32> {
    stream
        .until(|report| match report {
            Report::Fenced(left) => Some(left.shard),
            _ => None,
        })
        .await
}

/// Feeds the window until its result is durable, however often the shard starts over.
async fn feed_until_durable(ingest: &mut Ingest, stream: &mut Stream, shard: u32) -> Result<()> {
    loop {
        feed_a_window(ingest, shard).await?;
        tokio::select! {
            durable = ingest.durable(shard, 3) => return durable,
            ready = stream.until(|report| matches!(report, Report::Ready(_)).then_some(())) => ready?,
        }
    }
}

pub async fn a_producer_that_is_fenced_while_its_worker_owns_the_shard_is_replaced(
    mut rig: Rig,
) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(1, 1).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ingest.want(1).await?;

    // The coordinator does so to a worker that it has lost for a moment.
    let (kafka, id) = (rig.kafka.clone(), rig.job.transactional_id(Shard(1)));
    tokio::task::spawn_blocking(move || {
        TransactionalProducer::open(&kafka, &id, TransactionOptions::default())?.init(PATIENCE)
    })
    .await??;
    feed_a_window(&mut ingest, 1).await?;
    ensure!(fenced(&mut coordinator).await? == 1, "it does not take the id back by itself");
    ensure!(rig.results(1).await? == [""; 0]);

    coordinator.assign(1, 2).await?;
    let want = ingest.want(1).await?;
    ensure!(want.next == 0, "{want:?}");
    feed_until_durable(&mut ingest, &mut coordinator, 1).await?;
    ensure_one_result(&rig, 1).await?;
    worker.stop().await
}

pub async fn a_result_too_large_for_its_topic_stops_its_shard_only_and_comes_once_there_is_room(
    mut rig: Rig,
) -> Result<()> {
    rig.recreate_sink(&[("max.message.bytes", "1500")]).await?;
    let state = shared_state(&rig);
    let (worker, mut coordinator) = rig.worker_in("w", &state).await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(0, 1).await?;
    coordinator.assign(1, 2).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ingest.want(1).await?;

    // The block of the open window is larger than any record may be, and is written in chunks.
    let key = "k".repeat(2_000);
    let before = rig.chunks(1).await?;
    let mut session = ingest.open(1, 0).await?;
    ingest.feed(&mut session, 1, &[(1, &key, 1)]).await?;
    ingest.durable(1, 1).await?;
    ensure!(rig.chunks(1).await? - before >= 2, "one record");

    // Its result is not.
    ingest.feed(&mut session, 12, &[(11, "b", 1)]).await?;
    let want = ingest.want(1).await.context("it reads its log again")?;
    ensure!(want.next == 1, "{want:?}");
    let mut other =
        Ingest::connect(&coordinator.hello.address, crate::rig::JOB, rig.job.fingerprint()).await?;
    other.ask().await?;
    other.want(0).await?;
    feed_a_window(&mut other, 0).await?;
    other.durable(0, 3).await.context("the other shard goes on")?;
    ensure_one_result(&rig, 0).await?;
    worker.stop().await?;

    rig.recreate_sink(&[]).await?;
    let (worker, mut coordinator) = rig.worker_in("w", &state).await?;
    coordinator.announce(1, 1, 100).await?;
    coordinator.assign(1, 3).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ensure!(ingest.want(1).await?.next == 1);
    let mut session = ingest.open(1, 1).await?;
    ingest.feed(&mut session, 12, &[(11, "b", 1)]).await?;
    ingest.durable(1, 2).await?;
    let results = rig.results(1).await?;
    ensure!(results.len() == 1 && results[0].contains(&key), "{results:?}");
    worker.stop().await
}

/// All files of the store, except its lock.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path)?);
        } else if !path.ends_with("lock") {
            found.push(path);
        }
    }
    Ok(found)
}

pub async fn a_damaged_store_is_wiped_and_built_again_from_the_log(mut rig: Rig) -> Result<()> {
    let state = shared_state(&rig);
    type Damage = fn(&mut Vec<u8>);
    let damages: [Damage; 3] = [
        |bytes| bytes.iter_mut().step_by(7).for_each(|byte| *byte ^= 0x55),
        |bytes| bytes.truncate(bytes.len() / 2),
        |bytes| *bytes = b"garbage".repeat(100),
    ];
    for (round, damage) in (0u64..).zip(damages) {
        let (worker, mut coordinator) = rig.worker_in("w", &state).await?;
        coordinator.announce(1, 1, 100).await?;
        let ready = coordinator.assign(1, round + 1).await?;
        ensure!(ready.applied == round, "{ready:?}");
        let mut ingest = rig.ingest(&coordinator).await?;
        ensure!(ingest.want(1).await?.next == round);
        let mut session = ingest.open(1, round).await?;
        ingest.feed(&mut session, 5, &[(1, "a", 1)]).await?;
        ingest.durable(1, round + 1).await?;
        worker.stop().await?;
        let damaged = files(&state)?;
        ensure!(!damaged.is_empty(), "there is a store");
        for path in damaged {
            let mut bytes = std::fs::read(&path)?;
            damage(&mut bytes);
            std::fs::write(&path, bytes)?;
        }
    }
    // Another job's folder, too.
    std::fs::create_dir_all(state.join("cache-9-ffffffffffffffffffffffffffffffff-1"))?;
    let (worker, mut coordinator) = rig.worker_in("w", &state).await?;
    coordinator.announce(1, 1, 100).await?;
    ensure!(coordinator.assign(1, 9).await?.applied == 3);
    let mut ingest = rig.ingest(&coordinator).await?;
    let mut session = ingest.open(1, 3).await?;
    ingest.feed(&mut session, 12, &[(11, "b", 1)]).await?;
    ingest.durable(1, 4).await?;
    let results = rig.results(1).await?;
    ensure!(results.len() == 1 && results[0].contains(r#""count":3"#), "{results:?}");
    worker.stop().await
}

/// Runs a window through a worker while `fault` meets the requests of a kind, until it is healed.
fn with_fault(api: ApiKey, fault: Fault, healed: fn(u64, Duration) -> bool) -> Result<()> {
    let broker = DevKafka::start()?;
    let faults = broker.faults().clone();
    crate::rig::on(broker.bootstrap(), |mut rig| async move {
        let (worker, mut coordinator) = rig.worker("w").await?;
        coordinator.announce(1, 1, 100).await?;
        coordinator.assign(1, 1).await?;
        let mut ingest = rig.ingest(&coordinator).await?;
        ingest.want(1).await?;
        faults.always(api, fault);
        let begun = std::time::Instant::now();
        feed_a_window(&mut ingest, 1).await?;
        while !healed(faults.fired(api), begun.elapsed()) {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        faults.clear_all();
        // Its commit came through, or the shard starts over: by itself, or given anew where it was fenced.
        let mut number = 1;
        loop {
            tokio::select! {
                known = ingest.known(1, 3) => {
                    known?;
                    break;
                }
                report = coordinator.until(|report| match report {
                    Report::Fenced(_) => Some(true),
                    Report::Ready(_) => Some(false),
                    _ => None,
                }) => {
                    if report? {
                        number += 1;
                        coordinator.assign(1, number).await?;
                    }
                    // What has been committed it knows, and drops.
                    feed_a_window(&mut ingest, 1).await?;
                }
            }
        }
        ensure_one_result(&rig, 1).await?;
        worker.stop().await
    })
}

#[test]
fn a_commit_whose_answer_is_lost_gives_its_results_once() -> Result<()> {
    with_fault(ApiKey::EndTxn, Fault::DropResponseAfterApply, |fired, _| fired >= 2)
}

/// Longer than a commit is asked for again (15 s): its outcome stays unknown, and the log tells.
#[test]
fn a_commit_that_is_never_answered_gives_its_results_once() -> Result<()> {
    with_fault(ApiKey::EndTxn, Fault::DropResponseAfterApply, |fired, age| {
        fired >= 2 && age > Duration::from_secs(17)
    })
}

/// Longer than a transaction may take (10 s): the broker's coordinator aborts it.
#[test]
fn a_transaction_that_times_out_gives_its_results_once() -> Result<()> {
    with_fault(ApiKey::Produce, Fault::Disconnect, |fired, age| fired >= 1 && age > Duration::from_secs(12))
}
