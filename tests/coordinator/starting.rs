//! How a coordinator comes to lead, and when it refuses to.

use anyhow::{Context, Result, ensure};
use tidegate_coordinator::Error;
use tidegate_coordinator::job_record::JobRecord;
use tidegate_core::block::Assembler;
use tidegate_core::shard::ShardState;
use tidegate_core::time::Offset;
use tidegate_kafka::TopicRole;

use crate::peers::{Worker, hello};
use crate::rig::{PARTITIONS, Rig, SHARDS};

async fn record(rig: &Rig) -> Result<JobRecord> {
    let found = rig.control("job").await?;
    ensure!(found.len() == 1, "{} job records", found.len());
    JobRecord::decode(&found[0].1).map_err(anyhow::Error::msg)
}

pub async fn a_new_job_gets_its_topics_its_record_and_a_first_block_in_every_shard(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    let status = coordinator.status().await?;

    let record = record(&rig).await?;
    assert_eq!(record.fingerprint, rig.job.fingerprint());
    assert_eq!(record.description, rig.job.describe());
    assert_eq!((record.shards, record.starts.len()), (SHARDS, 3));
    assert_eq!(status.job, record.job.0.as_slice());
    let leaders = rig.control("leader").await?;
    assert_eq!(leaders.len(), 1);
    assert_eq!(status.term, leaders[0].0.0, "the term is the offset of the leader record");

    let partitions =
        async |topic: &str| anyhow::Ok(rig.admin.topic(topic).await?.context("missing")?.partitions);
    assert_eq!(partitions(&rig.job.source.topic).await?, PARTITIONS);
    assert_eq!(partitions(&rig.job.sink.topic).await?, SHARDS);
    assert_eq!(partitions(&rig.job.dead_letter.topic).await?, SHARDS);
    assert_eq!(partitions(&rig.job.control_topic()).await?, 1);
    assert_eq!(partitions(&rig.job.changelog_topic()).await?, SHARDS);
    rig.admin.verify(&rig.job.changelog_topic(), TopicRole::Changelog).await?;
    rig.admin.verify(&rig.job.control_topic(), TopicRole::Control).await?;

    for shard in 0..SHARDS {
        let chunks = rig.committed(&rig.job.changelog_topic(), shard).await?;
        let mut assembler = Assembler::default();
        let mut state = ShardState::empty(&rig.job.core);
        for (_, _, chunk) in &chunks {
            if let Some(block) = assembler.push(chunk)? {
                state.fold(&block)?;
            }
        }
        assert_eq!(state.job(), Some(record.job), "shard {shard}");
        assert_eq!(state.watermark(), None);
    }
    coordinator.stop().await
}

pub async fn a_founding_that_fails_leaves_nothing_and_may_be_repeated(rig: Rig) -> Result<()> {
    // Room for the marker of a transaction (78 bytes), but not for a first block.
    let changelog = rig.job.changelog_topic();
    let settings = [
        ("retention.ms", "-1"),
        ("retention.bytes", "-1"),
        ("max.message.bytes", "120"),
        ("cleanup.policy", "delete"),
    ];
    rig.create(&changelog, SHARDS, &settings).await?;
    let error = rig.start().await?.failed().await?;
    assert!(matches!(error, Error::Refused { .. }), "{error}");
    assert!(error.to_string().contains(&changelog), "{error}");
    assert_eq!(rig.control("job").await?, []);
    for shard in 0..SHARDS {
        assert_eq!(rig.committed(&changelog, shard).await?, []);
    }

    rig.admin.delete(&changelog).await?;
    while rig.admin.topic(&changelog).await?.is_some() {
        tokio::task::yield_now().await;
    }
    let coordinator = rig.start().await?;
    coordinator.status().await?;
    record(&rig).await?;
    coordinator.stop().await
}

pub async fn a_restart_keeps_the_job_and_raises_the_term(rig: Rig) -> Result<()> {
    let first = rig.start().await?;
    let before = first.status().await?;
    first.stop().await?;
    let second = rig.start().await?;
    let after = second.status().await?;
    second.kill().await;
    let third = rig.start().await?;
    let last = third.status().await?;
    assert_eq!((&before.job, &after.job), (&after.job, &last.job));
    assert!(before.term < after.term && after.term < last.term, "{before:?} {after:?} {last:?}");
    record(&rig).await?;
    for shard in 0..SHARDS {
        assert_eq!(rig.committed(&rig.job.changelog_topic(), shard).await?.len(), 1);
    }
    third.stop().await
}

pub async fn a_changed_job_file_is_refused_and_deposes_nobody(rig: Rig) -> Result<()> {
    let ruling = rig.start().await?;
    let before = ruling.status().await?;
    let error = rig.start_with(rig.with_window("20s")?).await?.failed().await?.to_string();
    let expected =
        format!("`window.size_ms` is 20000 in the job file, but 10000 in the record of job `{}`", rig.name);
    assert!(error.starts_with(&expected), "{error}");
    assert!(error.contains("put it back, or give the job another name"), "{error}");
    assert_eq!(rig.control("leader").await?.len(), 1, "it did not even try to lead");
    assert_eq!(ruling.status().await?.term, before.term);
    ruling.stop().await
}

pub async fn a_job_goes_on_with_added_aggregates_and_not_back(rig: Rig) -> Result<()> {
    let first = rig.start().await?;
    let job = first.status().await?.job;
    let begun = record(&rig).await?;
    first.stop().await?;
    let second = rig.start_with(rig.with_added()?).await?;
    assert_eq!(second.status().await?.job, job, "the job is the same");
    let records = rig.control("job").await?;
    let grown = JobRecord::decode(&records.last().context("no job record")?.1).map_err(anyhow::Error::msg)?;
    assert_eq!((grown.generations, grown.description), (vec![1], rig.with_added()?.describe()));
    assert_eq!((grown.starts, grown.source_id), (begun.starts, begun.source_id));
    let worker = Worker::connect(&second, hello("w0", rig.with_added()?.fingerprint())).await?;
    assert_eq!(worker.welcome.generations, [1]);
    let refused = Worker::connect(&second, hello("w1", rig.job.fingerprint())).await;
    assert!(refused.is_err(), "a worker with the earlier job file was taken");

    let error = rig.start().await?.failed().await?.to_string();
    assert!(error.starts_with("`aggregates[1]` is not there in the job file, but"), "{error}");
    second.stop().await?;
    let third = rig.start_with(rig.with_added()?).await?;
    third.status().await?;
    assert_eq!(rig.control("job").await?.len(), records.len(), "it is written once");
    third.stop().await
}

pub async fn a_source_that_is_missing_is_named(rig: Rig) -> Result<()> {
    let error = rig.start_with(rig.without_partitions()?).await?.failed().await?.to_string();
    let expected = format!("source.topic: topic `{}-source` does not exist; create it", rig.name);
    assert!(error.starts_with(&expected), "{error}");
    assert_eq!(rig.admin.topic(&rig.job.control_topic()).await?, None, "nothing was made");

    // As soon as it is there, the job starts.
    rig.create(&rig.job.source.topic, 2, &[]).await?;
    let coordinator = rig.start_with(rig.without_partitions()?).await?;
    assert_eq!(coordinator.status().await?.partitions.len(), 2);
    coordinator.stop().await
}

pub async fn a_source_that_was_created_anew_is_refused(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    coordinator.status().await?;
    coordinator.stop().await?;
    let source = &rig.job.source.topic;
    rig.admin.delete(source).await?;
    while rig.admin.topic(source).await?.is_some() {
        tokio::task::yield_now().await;
    }
    let error = rig.start().await?.failed().await?;
    assert!(matches!(error, Error::SourceDeleted { .. }), "{error}");
    rig.create(source, PARTITIONS, &[]).await?;
    let error = rig.start().await?.failed().await?;
    assert!(matches!(error, Error::SourceRecreated { .. }), "{error}");
    assert!(error.to_string().contains(&format!("topic `{source}` was deleted and created anew")), "{error}");
    Ok(())
}

pub async fn a_topic_with_settings_that_lose_data_is_refused(rig: Rig) -> Result<()> {
    let kept = [("retention.ms", "-1"), ("retention.bytes", "-1"), ("cleanup.policy", "delete")];
    let wrong = [
        (rig.job.control_topic(), 1, "cleanup.policy", "delete", "compact"),
        (rig.job.changelog_topic(), SHARDS, "cleanup.policy", "compact", "delete"),
        (rig.job.changelog_topic(), SHARDS, "retention.ms", "86400000", "-1"),
    ];
    for (topic, partitions, key, found, wanted) in wrong {
        let mut settings = kept.to_vec();
        settings.retain(|(other, _)| *other != key);
        settings.push((key, found));
        rig.create(&topic, partitions, &settings).await?;
        let error = rig.start().await?.failed().await?;
        let expected = format!("topic `{topic}`: `{key}` is `{found}`, must be `{wanted}`");
        assert!(error.to_string().starts_with(&expected), "{error}");
        rig.admin.delete(&topic).await?;
        while rig.admin.topic(&topic).await?.is_some() {
            tokio::task::yield_now().await;
        }
    }
    let coordinator = rig.start().await?;
    coordinator.status().await?;
    coordinator.stop().await
}

pub async fn a_changelog_without_its_record_is_refused(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    coordinator.status().await?;
    coordinator.stop().await?;
    let control = rig.job.control_topic();
    rig.admin.delete(&control).await?;
    while rig.admin.topic(&control).await?.is_some() {
        tokio::task::yield_now().await;
    }
    let error = rig.start().await?.failed().await?;
    assert!(matches!(error, Error::ChangelogForeign { partition: 0, .. }), "{error}");
    assert_eq!(
        rig.committed(&rig.job.changelog_topic(), 0).await?.first().map(|first| first.0),
        Some(Offset(0))
    );
    Ok(())
}

pub async fn a_record_without_its_changelog_is_refused(rig: Rig) -> Result<()> {
    let coordinator = rig.start().await?;
    coordinator.status().await?;
    coordinator.stop().await?;
    let changelog = rig.job.changelog_topic();
    rig.admin.delete(&changelog).await?;
    while rig.admin.topic(&changelog).await?.is_some() {
        tokio::task::yield_now().await;
    }
    let error = rig.start().await?.failed().await?;
    assert!(matches!(error, Error::ChangelogLost { .. }), "{error}");
    assert_eq!(rig.admin.topic(&changelog).await?, None, "it is not made anew behind the user's back");
    Ok(())
}

/// Services start in any order: a cluster that does not answer is waited for.
#[test]
fn a_cluster_that_does_not_answer_is_waited_for() -> Result<()> {
    crate::rig::on("127.0.0.1:1", |rig| async move {
        let coordinator = rig.start().await?;
        while !coordinator.gauges.readiness.why_not().is_some_and(|reason| reason.contains("`127.0.0.1:1`")) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        coordinator.stop().await
    })
}

/// Apache Kafka makes a topic that a client asks for, unless the broker or the client says no.
#[test]
fn a_cluster_that_makes_topics_by_itself_is_not_tempted() -> Result<()> {
    let runtime = tokio::runtime::Runtime::new()?;
    let config = tidegate_devbroker::Config { auto_create_topics: true, ..Default::default() };
    let broker = runtime.block_on(tidegate_devbroker::DevBroker::start(config))?;
    crate::rig::on(&broker.address().to_string(), |rig| async move {
        let error = rig.start_with(rig.without_partitions()?).await?.failed().await?;
        assert!(matches!(error, Error::SourceMissing { .. }), "{error}");
        let coordinator = rig.start().await?;
        assert_eq!(coordinator.status().await?.partitions.len(), 3);
        coordinator.stop().await
    })
}
