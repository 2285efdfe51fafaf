//! Topics: made once, verified, trimmed.

use std::time::Duration;

use anyhow::Result;
use tidegate_core::time::Offset;
use tidegate_kafka::{Admin, Created, Error, KafkaConfig, NewTopic, PartitionEnds, TopicRole};
use tidegate_tests::clients::{PATIENCE, unique};

use crate::support::{P0, P1, config, new_topic, produce, run};

pub(crate) fn a_topic_is_made_once(bootstrap: &str) -> Result<()> {
    run(async {
        let admin = Admin::open(&config(bootstrap))?;
        admin.reachable(PATIENCE).await?;
        let topic = new_topic("once", 3, &[("retention.ms", "12345")]);
        assert_eq!(admin.topic(&topic.name).await?, None);
        assert_eq!(admin.create(&topic).await?, Created::Created);
        let again = NewTopic { partitions: 5, ..topic.clone() };
        assert_eq!(admin.create(&again).await?, Created::Exists);
        let found = admin.topic(&topic.name).await?.expect("it was made");
        assert_eq!((found.name, found.partitions), (topic.name.clone(), 3));
        assert_eq!(admin.configs(&topic.name).await?.get("retention.ms").map(String::as_str), Some("12345"));

        let refused = admin.create(&new_topic("refused", 1, &[("no.such.key", "1")])).await;
        assert!(matches!(refused, Err(Error::Client { .. })), "{refused:?}");
        let missing = admin.configs(&unique("missing")).await;
        assert!(matches!(missing, Err(Error::UnknownTopic { .. })), "{missing:?}");
        let missing = admin.ends(&unique("missing")).await;
        assert!(matches!(missing, Err(Error::UnknownTopic { .. })), "{missing:?}");
        Ok(())
    })
}

/// As coordinators that start together do.
pub(crate) fn a_topic_that_two_make_at_once_is_there_for_both(bootstrap: &str) -> Result<()> {
    run(async {
        let [one, other] = [Admin::open(&config(bootstrap))?, Admin::open(&config(bootstrap))?];
        one.reachable(PATIENCE).await?;
        other.reachable(PATIENCE).await?;
        for _ in 0..6 {
            let topic = NewTopic::of_role(unique("both"), 20, TopicRole::Control);
            let make = async |admin: &Admin| {
                let created = admin.create(&topic).await?;
                admin.verify(&topic.name, TopicRole::Control).await?;
                anyhow::Ok(created)
            };
            let (first, second) = tokio::join!(make(&one), make(&other));
            let made = [first?, second?].into_iter().filter(|made| *made == Created::Created).count();
            assert_eq!(made, 1);
        }
        Ok(())
    })
}

pub(crate) fn a_topic_made_anew_has_another_id(bootstrap: &str) -> Result<()> {
    run(async {
        let admin = Admin::open(&config(bootstrap))?;
        let topic = new_topic("anew", 1, &[]);
        admin.create(&topic).await?;
        let first = admin.topic(&topic.name).await?.and_then(|found| found.id);
        assert!(first.is_some());
        assert_eq!(admin.topic(&topic.name).await?.and_then(|found| found.id), first);
        admin.delete(&topic.name).await?;
        admin.delete(&topic.name).await?;
        // The broker deletes in its own time.
        let deadline = std::time::Instant::now() + PATIENCE;
        while admin.topic(&topic.name).await?.is_some() {
            assert!(std::time::Instant::now() < deadline, "still there");
        }
        assert_eq!(admin.create(&topic).await?, Created::Created);
        let second = admin.topic(&topic.name).await?.and_then(|found| found.id);
        assert!(second.is_some() && second != first, "{first:?} {second:?}");
        Ok(())
    })
}

pub(crate) fn settings_that_lose_data_are_named(bootstrap: &str) -> Result<()> {
    run(async {
        let admin = Admin::open(&config(bootstrap))?;
        for role in [TopicRole::Changelog, TopicRole::Control] {
            let topic = NewTopic::of_role(unique("role"), 1, role);
            admin.create(&topic).await?;
            admin.verify(&topic.name, role).await?;
        }
        let bad = [
            (TopicRole::Changelog, "cleanup.policy", "compact", "delete"),
            (TopicRole::Changelog, "retention.ms", "86400000", "-1"),
            (TopicRole::Changelog, "retention.bytes", "1000000", "-1"),
            (TopicRole::Control, "cleanup.policy", "delete", "compact"),
        ];
        for (role, wrong, value, right) in bad {
            let mut topic = NewTopic::of_role(unique("bad"), 1, role);
            topic.configs.insert(wrong.to_owned(), value.to_owned());
            admin.create(&topic).await?;
            match admin.verify(&topic.name, role).await {
                Err(Error::TopicConfig { topic: named, key, found, wanted }) => {
                    assert_eq!((named, key, found.as_str(), wanted), (topic.name, wrong, value, right));
                }
                other => panic!("unexpected: {other:?}"),
            }
        }
        let missing = admin.verify(&unique("missing"), TopicRole::Control).await;
        assert!(matches!(missing, Err(Error::UnknownTopic { .. })), "{missing:?}");
        Ok(())
    })
}

pub(crate) fn records_are_deleted_up_to_an_offset(bootstrap: &str) -> Result<()> {
    run(async {
        let admin = Admin::open(&config(bootstrap))?;
        let topic = new_topic("trim", 2, &[]);
        admin.create(&topic).await?;
        produce(bootstrap, &topic.name, P1, ["a", "b", "c"])?;
        assert_eq!(admin.delete_records(&topic.name, P1, Offset(2)).await?, Offset(2));
        let ends = |partition, log_start, end| PartitionEnds {
            partition,
            log_start: Offset(log_start),
            last_stable: Offset(end),
            high_watermark: Offset(end),
        };
        assert_eq!(admin.ends(&topic.name).await?, [ends(P0, 0, 0), ends(P1, 2, 3)]);
        // Once more, and below what is gone: no harm.
        assert_eq!(admin.delete_records(&topic.name, P1, Offset(1)).await?, Offset(2));
        let beyond = admin.delete_records(&topic.name, P1, Offset(9)).await;
        assert!(matches!(beyond, Err(Error::OffsetOutOfRange { .. })), "{beyond:?}");
        Ok(())
    })
}

pub(crate) fn a_broker_that_is_not_there_is_named_with_the_reason() -> Result<()> {
    run(async {
        let admin = Admin::open(&KafkaConfig::new("127.0.0.1:9", "log-test"))?;
        match admin.reachable(Duration::from_millis(500)).await {
            Err(error @ Error::Unreachable { .. }) => {
                assert!(error.is_retriable());
                let text = error.to_string();
                assert!(text.contains("127.0.0.1:9") && text.contains("refused"), "{text}");
            }
            other => panic!("unexpected: {other:?}"),
        }
        Ok(())
    })
}
