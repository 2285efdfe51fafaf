//! What a coordinator does for ingests and workers.

use anyhow::{Result, ensure};
use tidegate_core::time::{Partition, Shard};
use tidegate_kafka::{Outcome, OutputRecord, TransactionOptions, TransactionalProducer};
use tidegate_proto::v1;
use tidegate_tests::clients::PATIENCE;
use tonic::Code;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use v1::ingest_directive::Message as ToIngest;
use v1::worker_directive::Message as ToWorker;

use crate::peers::{Ingest, Worker, active, hello, owned};
use crate::rig::{PARTITIONS, Rig, SHARDS};

fn owners(directive: ToIngest) -> Option<v1::Owners> {
    match directive {
        ToIngest::Owners(owners) => Some(owners),
        _ => None,
    }
}

fn announcement(directive: ToIngest) -> Option<v1::Announcement> {
    match directive {
        ToIngest::Announcement(announcement) => Some(announcement),
        _ => None,
    }
}

pub async fn a_shard_finds_its_worker_and_the_ingests_hear_of_it(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    let fingerprint = rig.job.fingerprint();
    let mut ingest = Ingest::connect(&coordinator, fingerprint).await?;
    assert_eq!(ingest.until(owners).await?.owners, [], "told at once, even if there are none");
    let mut worker = Worker::connect(&coordinator, hello("w0", fingerprint)).await?;
    assert_eq!(worker.welcome, ingest.welcome);
    assert_eq!(worker.welcome.shards, SHARDS);
    let assigned = worker.assignments(4).await?;
    assert_eq!(assigned.iter().map(|assign| assign.shard).collect::<Vec<_>>(), [0, 1, 2, 3]);
    let term = worker.welcome.term;
    assert!(assigned.iter().all(|assign| assign.assignment.is_some_and(|id| id.term == term)));
    for assign in &assigned {
        worker.ready(assign, None).await?;
    }
    let all = |directive| owners(directive).filter(|owners| owners.owners.len() == 4);
    let known = ingest.until(all).await?;
    for (owner, assign) in known.owners.iter().zip(&assigned) {
        assert_eq!((owner.shard, owner.assignment), (assign.shard, assign.assignment));
        assert_eq!((owner.worker.as_str(), owner.address.as_str()), ("w0", "http://w0:1"));
    }

    // A second worker gets its share, one shard after the other, each as soon as the first worker has left it.
    let mut second = Worker::connect(&coordinator, hello("w1", fingerprint)).await?;
    for _ in 0..2 {
        let release = loop {
            if let ToWorker::Release(release) = worker.next().await? {
                break release;
            }
        };
        worker.released(&release).await?;
        let moved = second.assignments(1).await?;
        assert_eq!(moved.iter().map(|assign| assign.shard).collect::<Vec<_>>(), [release.shard]);
        second.ready(&moved[0], None).await?;
    }
    let moved = |owners: &v1::Owners| owners.owners.iter().filter(|owner| owner.worker == "w1").count() == 2;
    ingest.until(|directive| owners(directive).filter(moved)).await?;
    coordinator.stop().await
}

pub async fn reports_become_announcements_that_everybody_gets(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    let fingerprint = rig.job.fingerprint();
    let mut ingest = Ingest::connect(&coordinator, fingerprint).await?;
    let mut worker = Worker::connect(&coordinator, hello("w0", fingerprint)).await?;
    let first = worker.announcement().await?;
    assert_eq!((first.partitions, first.watermark_ms), (PARTITIONS, None), "unknown partitions hold");

    ingest.report(&[active(0, 5000, 10), active(1, 4000, 11)]).await?;
    ingest.report(&[active(2, 6000, 12)]).await?;
    let at = |watermark| {
        move |directive| announcement(directive).filter(|found| found.watermark_ms == Some(watermark))
    };
    let found = ingest.until(at(4000)).await?;
    assert_eq!((found.term, found.partitions), (ingest.welcome.term, PARTITIONS));
    while worker.announcement().await?.watermark_ms != Some(4000) {}

    // An idle partition does not hold; its position goes with it.
    let idle = v1::Report { state: v1::PartitionState::Idle.into(), ..active(1, 4000, 11) };
    ingest.report(&[idle]).await?;
    let found = ingest.until(at(5000)).await?;
    assert_eq!(found.excluded, [v1::Excluded { partition: 1, position: 11 }]);

    // Whoever comes later hears it at once.
    let mut late = Worker::connect(&coordinator, hello("w1", fingerprint)).await?;
    assert_eq!(late.announcement().await?.watermark_ms, Some(5000));

    // A reader that leaves holds the watermark, and takes nothing back.
    drop(ingest);
    loop {
        let found = worker.announcement().await?;
        assert!(found.watermark_ms >= Some(4000), "{found:?}");
        if found.excluded.is_empty() && found.watermark_ms == Some(5000) {
            return coordinator.stop().await;
        }
    }
}

pub async fn the_watermark_does_not_fall_below_what_a_worker_has_committed(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    let fingerprint = rig.job.fingerprint();
    let assigned = {
        let mut worker = Worker::connect(&coordinator, hello("w0", fingerprint)).await?;
        worker.assignments(4).await?
    };
    coordinator.stop().await?;

    // The next coordinator knows nothing but what the worker says.
    let coordinator = rig.start().await?;
    let ingest = Ingest::connect(&coordinator, fingerprint).await?;
    let mut claims = hello("w0", fingerprint);
    claims.owned = assigned.iter().map(|assign| owned(assign, Some(7000))).collect();
    claims.last_announcement = Some(v1::Announcement {
        term: 0,
        version: 9,
        partitions: PARTITIONS,
        watermark_ms: Some(7500),
        excluded: vec![],
    });
    let mut worker = Worker::connect(&coordinator, claims).await?;
    while worker.announcement().await?.watermark_ms != Some(7500) {}
    ingest.report(&[active(0, 1000, 1), active(1, 1000, 1), active(2, 1000, 1)]).await?;
    ingest.report(&[active(0, 8000, 2), active(1, 8000, 2), active(2, 8000, 2)]).await?;
    loop {
        let found = worker.announcement().await?;
        ensure!(found.watermark_ms >= Some(7500), "it fell: {found:?}");
        if found.watermark_ms == Some(8000) {
            break;
        }
    }
    // It kept its shards, by the assignments of the former coordinator.
    let claimed = |directive| owners(directive).filter(|owners| owners.owners.len() == 4);
    let mut witness = Ingest::connect(&coordinator, fingerprint).await?;
    let known = witness.until(claimed).await?;
    let mut ids: Vec<_> = known.owners.iter().map(|owner| (owner.shard, owner.assignment)).collect();
    ids.sort_by_key(|(shard, _)| *shard);
    assert_eq!(ids, assigned.iter().map(|assign| (assign.shard, assign.assignment)).collect::<Vec<_>>());
    coordinator.stop().await
}

pub async fn a_lost_workers_shards_are_fenced_and_come_back_to_it(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    let fingerprint = rig.job.fingerprint();
    let mut worker = Worker::connect(&coordinator, hello("w0", fingerprint)).await?;
    let first = worker.assignments(4).await?;
    let (kafka, id) = (rig.kafka.clone(), rig.job.transactional_id(Shard(2)));
    let mut producer = tokio::task::spawn_blocking(move || {
        let mut producer = TransactionalProducer::open(&kafka, &id, TransactionOptions::default())?;
        producer.init(PATIENCE).map(|()| producer)
    })
    .await??;
    drop(worker);
    // One that is back before its loss is noticed is given its shards without a fence: it fences them as it takes them.
    while coordinator.status().await?.workers.iter().any(|worker| worker.state == "live") {
        tokio::task::yield_now().await;
    }

    // It comes back at once: its shards wait for it, by new assignments, given only after the fence.
    let mut worker = Worker::connect(&coordinator, hello("w0", fingerprint)).await?;
    let again = worker.assignments(4).await?;
    for (first, again) in first.iter().zip(&again) {
        assert!(number(again) > number(first), "{first:?} {again:?}");
    }
    let record = OutputRecord {
        topic: rig.job.changelog_topic().into(),
        partition: Partition(2),
        key: None,
        value: Some("by a zombie".into()),
        headers: Vec::new(),
        timestamp: None,
    };
    let outcome = tokio::task::spawn_blocking(move || producer.commit(&[record])).await?;
    assert_eq!(outcome, Outcome::Fenced);
    assert_eq!(rig.committed(&rig.job.changelog_topic(), 2).await?.len(), 1);
    coordinator.stop().await
}

fn number(assign: &v1::Assign) -> u64 {
    assign.assignment.map_or(0, |id| id.number)
}

pub async fn peers_of_another_job_file_are_refused(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    let (ours, theirs) = (rig.job.fingerprint(), rig.with_window("20s")?.fingerprint());
    let refusals = [
        Ingest::connect(&coordinator, theirs).await.err(),
        Worker::connect(&coordinator, hello("w0", theirs)).await.err(),
    ];
    for refusal in refusals {
        let status = refusal.as_ref().and_then(|error| error.downcast_ref::<tonic::Status>());
        let status = status.ok_or_else(|| anyhow::anyhow!("{refusal:?}"))?;
        assert_eq!(status.code(), Code::FailedPrecondition);
        for fingerprint in [ours, theirs] {
            assert!(status.message().contains(&format!("{fingerprint:016x}")), "{status}");
        }
    }
    assert_eq!(coordinator.status().await?.workers, []);
    coordinator.stop().await
}

pub async fn health_and_reflection_are_served(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    coordinator.status().await?;
    let channel = tonic::transport::Endpoint::new(coordinator.url.to_string())?.connect().await?;
    let mut health = HealthClient::new(channel.clone());
    let request = HealthCheckRequest { service: "tidegate.v1.Coordinator".to_owned() };
    let answer = health.check(request).await?.into_inner();
    assert_eq!(answer.status(), ServingStatus::Serving);

    use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
    use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
    use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
    let request = tonic_reflection::pb::v1::ServerReflectionRequest {
        host: String::new(),
        message_request: Some(MessageRequest::ListServices(String::new())),
    };
    let mut reflection = ServerReflectionClient::new(channel);
    let mut answers = reflection.server_reflection_info(tokio_stream::once(request)).await?.into_inner();
    let answer = answers.message().await?.and_then(|answer| answer.message_response);
    let Some(MessageResponse::ListServicesResponse(services)) = answer else { panic!("{answer:?}") };
    let names: Vec<_> = services.service.iter().map(|service| service.name.as_str()).collect();
    assert!(names.contains(&"tidegate.v1.Coordinator"), "{names:?}");
    coordinator.stop().await
}

pub async fn the_status_shows_partitions_workers_and_owners(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    let fingerprint = rig.job.fingerprint();
    let mut ingest = Ingest::connect(&coordinator, fingerprint).await?;
    let mut worker = Worker::connect(&coordinator, hello("w0", fingerprint)).await?;
    worker.assignments(4).await?;
    ingest.report(&[active(0, 5000, 10), active(1, 4000, 11)]).await?;
    ingest.stats(123).await?;
    worker.stats(45).await?;
    // Each stream keeps its order, but the streams do not wait for each other.
    let status = loop {
        let status = coordinator.status().await?;
        if status.records_read == 123 && status.workers.first().is_some_and(|worker| worker.stats.is_some()) {
            break status;
        }
        tokio::task::yield_now().await;
    };
    assert_eq!(status.name, rig.name);
    let partitions: Vec<_> = status
        .partitions
        .iter()
        .map(|p| (p.state.as_str(), p.watermark_ms, p.position, p.lag, p.max_event_time_ms, p.holds))
        .collect();
    assert_eq!(
        partitions,
        [
            ("active", Some(5000), 10, 5, Some(6000), false),
            ("active", Some(4000), 11, 5, Some(5000), false),
            ("unknown", None, 0, 0, None, true),
        ]
    );
    assert_eq!(status.workers.len(), 1);
    assert_eq!((status.workers[0].name.as_str(), status.workers[0].state.as_str()), ("w0", "live"));
    assert_eq!(status.workers[0].stats.as_ref().map(|stats| stats.applied), Some(45));
    assert_eq!(status.owners.len(), 4);

    drop(worker);
    loop {
        let status = coordinator.status().await?;
        if status.workers.first().is_some_and(|worker| worker.state == "lost") {
            assert_eq!(status.owners, [], "held shards have no owner");
            break;
        }
        tokio::task::yield_now().await;
    }
    ingest.until(|directive| owners(directive).filter(|owners| owners.owners.is_empty())).await?;
    coordinator.stop().await
}
