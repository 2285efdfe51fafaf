//! Several coordinators of one job.

use anyhow::{Result, ensure};
use tidegate_core::time::Partition;
use tidegate_kafka::{Outcome, OutputRecord, TransactionOptions, TransactionalProducer};
use tidegate_proto::v1;
use tidegate_tests::clients::PATIENCE;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

use crate::peers::{Ingest, Worker, active, hello, owned};
use crate::rig::{PARTITIONS, Rig, Running};

async fn health(coordinator: &Running) -> Result<ServingStatus> {
    let channel = tonic::transport::Endpoint::new(coordinator.url.to_string())?.connect().await?;
    let request = HealthCheckRequest { service: "tidegate.v1.Coordinator".to_owned() };
    Ok(HealthClient::new(channel).check(request).await?.into_inner().status())
}

pub async fn of_two_coordinators_one_leads_and_the_other_refuses(rig: Rig) -> Result<()> {
    let leader = rig.start().await?;
    let before = leader.status().await?;
    let standby = rig.start().await?;
    let refused = standby.standby().await?;
    assert_eq!(refused.code(), Code::Unavailable);
    assert!(refused.message().contains(&format!("`{}`", rig.name)), "{refused}");
    assert_eq!(standby.gauges.readiness.why_not(), None, "it is ready to take over");
    assert_eq!(health(&leader).await?, ServingStatus::Serving);
    assert_eq!(health(&standby).await?, ServingStatus::NotServing);

    let (_reports, outgoing) = tokio::sync::mpsc::channel(1);
    let refused = standby.client().await?.ingest(ReceiverStream::new(outgoing)).await.err();
    assert_eq!(refused.map(|status| status.code()), Some(Code::Unavailable));
    let (_reports, outgoing) = tokio::sync::mpsc::channel(1);
    let refused = standby.client().await?.worker(ReceiverStream::new(outgoing)).await.err();
    assert_eq!(refused.map(|status| status.code()), Some(Code::Unavailable));

    assert_eq!(leader.status().await?.term, before.term, "nobody was deposed");
    standby.stop().await?;
    assert_eq!(leader.status().await?.term, before.term, "nor by its end");
    assert_eq!(rig.control("leader").await?.len(), 1);
    leader.stop().await
}

pub async fn a_clean_stop_hands_over_at_once_and_nothing_moves(rig: Rig) -> Result<()> {
    let fingerprint = rig.job.fingerprint();
    let first = rig.start().await?;
    let before = first.status().await?;
    let second = rig.start().await?;
    second.standby().await?;

    let ingest = Ingest::connect(&first, fingerprint).await?;
    let mut worker = Worker::connect(&first, hello("w0", fingerprint)).await?;
    let assigned = worker.assignments(4).await?;
    for assign in &assigned {
        worker.ready(assign, None).await?;
    }
    let reports: Vec<_> = (0..PARTITIONS).map(|partition| active(partition, 5000, 10)).collect();
    ingest.report(&reports).await?;
    let announced = loop {
        let announcement = worker.announcement().await?;
        if announcement.watermark_ms == Some(5000) {
            break announcement;
        }
    };

    let started = std::time::Instant::now();
    first.stop().await?;
    let after = second.status().await?;
    ensure!(started.elapsed().as_secs() < 5, "{:?}: no session had to run out", started.elapsed());
    assert!(after.term > before.term, "{after:?}");
    assert_eq!(after.job, before.job);

    // The worker tells what it owns; an ingest that is behind does not bring the watermark down.
    let claims = assigned.iter().map(|assign| owned(assign, Some(4000))).collect();
    let again =
        v1::WorkerHello { owned: claims, last_announcement: Some(announced), ..hello("w0", fingerprint) };
    let mut worker = Worker::connect(&second, again).await?;
    let ingest = Ingest::connect(&second, fingerprint).await?;
    let reports: Vec<_> = (0..PARTITIONS).map(|partition| active(partition, 4500, 10)).collect();
    ingest.report(&reports).await?;
    let announcement = loop {
        let announcement = worker.announcement().await?;
        if announcement.watermark_ms.is_some() {
            break announcement;
        }
    };
    assert_eq!((announcement.term, announcement.watermark_ms), (after.term, Some(5000)), "it does not fall");
    let reports: Vec<_> = (0..PARTITIONS).map(|partition| active(partition, 6000, 11)).collect();
    ingest.report(&reports).await?;
    while worker.announcement().await?.watermark_ms != Some(6000) {}
    let owners = second.status().await?.owners;
    let kept: Vec<_> = owners.iter().map(|owner| (owner.shard, owner.assignment)).collect();
    let had: Vec<_> = assigned.iter().map(|assign| (assign.shard, assign.assignment)).collect();
    assert_eq!(kept, had, "each shard is where it was, under the assignment it had");
    second.stop().await
}

pub async fn one_that_does_not_know_of_its_successor_is_fenced_and_stands_by(rig: Rig) -> Result<()> {
    let first = rig.start().await?;
    let before = first.status().await?;
    let second = rig.start().await?;
    second.standby().await?;

    // A successor that the group does not know of, as one is for a while that was halted.
    let (kafka, topic) = (rig.kafka.clone(), rig.job.control_topic());
    tokio::task::spawn_blocking(move || {
        let mut producer = TransactionalProducer::open(&kafka, &topic, TransactionOptions::default())?;
        producer.init(PATIENCE)?;
        let record = OutputRecord {
            topic: topic.as_str().into(),
            partition: Partition(0),
            key: Some("leader".into()),
            value: Some(r#"{"version":1,"leader":"another"}"#.into()),
            headers: Vec::new(),
            timestamp: None,
        };
        match producer.commit(&[record]) {
            Outcome::Committed { .. } => Ok(()),
            other => anyhow::bail!("{other:?}"),
        }
    })
    .await??;

    // The first sees the record, gives up its place, and the second has it; both live on.
    let after = second.status().await?;
    assert!(after.term > before.term);
    first.standby().await?;
    let leaders = rig.control("leader").await?;
    assert_eq!(leaders.len(), 3, "the first, the unknown, the second");
    assert_eq!(leaders[2].0.0, after.term);
    assert_eq!(second.status().await?.term, after.term, "and there it rests");
    first.stop().await?;
    second.stop().await
}
