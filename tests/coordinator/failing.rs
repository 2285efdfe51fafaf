//! Transactions of the coordinator that fail, on a development broker with faults.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_coordinator::Config;
use tidegate_coordinator::job_record::JobRecord;
use tidegate_coordinator::savepoint::Savepoint;
use tidegate_core::time::{Offset, Partition};
use tidegate_devbroker::{ApiKey, Fault};
use tidegate_kafka::{KafkaConfig, Producer};
use tidegate_proto::v1;
use tidegate_tests::DevKafka;
use tidegate_tests::clients::PATIENCE;

use crate::rig::{PARTITIONS, Rig};

#[test]
fn a_coordinator_whose_record_may_be_in_the_log_stands_again_and_finds_it_there() -> Result<()> {
    stands_again(Fault::DropResponseAfterApply, 1)
}

#[test]
fn a_coordinator_whose_record_is_not_in_the_log_stands_again_and_may_be_asked_again() -> Result<()> {
    stands_again(Fault::Disconnect, 0)
}

fn stands_again(fault: Fault, in_the_log: usize) -> Result<()> {
    let broker = DevKafka::start()?;
    crate::rig::on(broker.bootstrap(), async |rig| {
        let coordinator = rig.start_with(rig.with_replay()?).await?;
        let before = coordinator.status().await?;
        broker.faults().always(ApiKey::EndTxn, fault);
        let request = v1::ReplayRequest { job: rig.name.clone(), token: 7, filter: None, dry_run: false };
        let refused = coordinator.client().await?.replay(request.clone()).await;
        ensure!(refused.is_err(), "{refused:?}: nobody knows whether it is written");
        while coordinator.glance().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        broker.faults().clear_all();

        let after = coordinator.status().await?;
        ensure!(after.term > before.term && after.job == before.job, "{before:?} {after:?}");
        ensure!(after.replays.len() == in_the_log, "{:?}", after.replays);
        let ticket = coordinator.client().await?.replay(request).await?.into_inner();
        ensure!(ticket.number == 1, "the same request is one request: {ticket:?}");
        ensure!(coordinator.status().await?.replays.len() == 1, "it is asked for once");
        coordinator.stop().await
    })
}

#[test]
fn a_founding_from_a_savepoint_that_was_cut_off_begins_with_the_savepoint() -> Result<()> {
    let broker = DevKafka::start()?;
    crate::rig::on(broker.bootstrap(), async |rig| {
        let (folder, begun) = savepoint(&rig).await?;
        // Where the source begins now is not where the state has read to.
        let gone = Offset(1);
        rig.admin.delete_records(&rig.job.source.topic, Partition(0), gone).await?;
        let heir = rig.heir()?;
        let config =
            || Config { from_savepoint: Some(folder.path().join("state")), ..rig.config(heir.clone()) };
        // The leader record is written, the founding is not.
        broker.faults().once(ApiKey::EndTxn, Fault::Delay(Duration::ZERO));
        broker.faults().always(ApiKey::EndTxn, Fault::Disconnect);
        let first = crate::rig::start(config()).await?;
        while broker.faults().fired(ApiKey::EndTxn) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        first.kill().await;
        // Its client lives on in this process and tries again: nothing gets through before the successor has fenced it.
        broker.faults().always(ApiKey::AddPartitionsToTxn, Fault::Delay(Duration::ZERO));
        let second = crate::rig::start(config()).await?;
        while broker.faults().fired(ApiKey::AddPartitionsToTxn) == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        broker.faults().clear_all();

        let term = second.status().await?.term;
        let (at, founded) = founded(&rig, &heir.control_topic()).await?;
        ensure!(at.0 > term, "the first has founded it, at {at}");
        ensure!(founded.starts() == begun.starts(), "{founded:?} does not go on where {begun:?} was");
        second.stop().await
    })
}

/// Lets a job begin and end, and takes its savepoint.
async fn savepoint(rig: &Rig) -> Result<(tempfile::TempDir, JobRecord)> {
    let before = rig.start().await?;
    before.status().await?;
    before.stop().await?;
    let (_, begun) = founded(rig, &rig.job.control_topic()).await?;
    let folder = tempfile::tempdir()?;
    let (kafka, job, to) = (rig.kafka.clone(), rig.job.clone(), folder.path().join("state"));
    let take = move || {
        Savepoint::take(&kafka, &job, true)?.write(&to)?;
        send_to_each_partition(&kafka, &job.source.topic)
    };
    tokio::task::spawn_blocking(take).await??;
    Ok((folder, begun))
}

fn send_to_each_partition(kafka: &KafkaConfig, topic: &str) -> Result<()> {
    let mut producer = Producer::open(kafka)?;
    for partition in 0..PARTITIONS {
        producer.send(topic, Partition(partition), None, Some(b"{}"), &[], None)?;
    }
    Ok(producer.flush(PATIENCE)?)
}

/// The job record in a control topic, and where it is.
async fn founded(rig: &Rig, control: &str) -> Result<(Offset, JobRecord)> {
    let records = rig.committed(control, 0).await?;
    let (at, _, value) = records.iter().rfind(|(_, key, _)| key == "job").context("no job record")?;
    Ok((*at, JobRecord::decode(value).map_err(anyhow::Error::msg)?))
}
