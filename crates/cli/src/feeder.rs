//! Produces generated clicks: at a pace as they would happen, or all at once as a backlog.

use std::time::Duration;

use anyhow::{Context, Result};
use clap::Args;
use tidegate_core::time::{EventTime, Partition};
use tidegate_kafka::{Access, Admin, KafkaConfig, Producer};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::{
    clicks::{Click, Clicks, ClicksSpec},
    topics,
};

/// Clicks a second of the live stream.
const RATE: u64 = 2_000;
/// A backlog spans at most this much event time, so that a jump of the clock is a jump beyond now.
const BACKLOG_MS: u64 = 300_000;

/// How often a topic that is not there yet is looked for.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Produces clicks to a topic.
#[derive(Args, Debug)]
pub(crate) struct ClicksArgs {
    /// Kafka brokers, separated by commas
    #[arg(long, value_name = "BROKERS", default_value = "127.0.0.1:9092")]
    kafka: String,
    #[command(flatten)]
    access: Access,
    /// Where to; waits until the topic is there
    #[arg(long, value_name = "TOPIC", default_value = "clicks")]
    topic: String,
}

/// Runs `tidegate clicks` until a signal.
///
/// # Errors
/// When the brokers' addresses cannot be used.
pub(crate) async fn run(args: ClicksArgs) -> Result<()> {
    let kafka = args.access.config(&args.kafka, "tidegate-clicks")?;
    let stopped = CancellationToken::new();
    let signals = stopped.clone();
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    let signalled = async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        signals.cancel();
    };
    let feeding = async {
        let admin = Admin::open(&kafka)?;
        let partitions = loop {
            match admin.topic(&args.topic).await {
                Ok(Some(topic)) => break topic.partitions,
                Ok(None) => {}
                Err(error) if !error.is_retriable() => return Err(error.into()),
                Err(error) => eprintln!("{} does not answer, trying again: {error}", args.kafka),
            }
            tokio::select! {
                () = stopped.cancelled() => return Ok(()),
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        };
        println!("producing clicks to topic {} ({partitions} partitions)", args.topic);
        start(kafka.clone(), args.topic.clone(), ClicksSpec::demo(partitions), stopped.clone())?
            .await
            .context("the feeder ended badly")
    };
    let mut feeding = std::pin::pin!(feeding);
    tokio::select! {
        fed = &mut feeding => fed,
        () = signalled => feeding.await,
    }
}

/// Produces clicks as they happen until `stop`, on a thread of its own.
///
/// # Errors
/// When the producer cannot be made.
pub(crate) fn start(
    kafka: KafkaConfig,
    topic: String,
    spec: ClicksSpec,
    stop: CancellationToken,
) -> Result<JoinHandle<()>> {
    let mut producer = Producer::open(&kafka)?;
    Ok(tokio::task::spawn_blocking(move || {
        let mut clicks = Clicks::new(spec);
        let mut due = 0;
        let started = topics::unix_millis();
        while !stop.is_cancelled() {
            let now = topics::unix_millis();
            let target = u64::try_from(now - started).unwrap_or(0) * RATE / 1_000;
            while due < target {
                due += 1;
                if let Err(error) = send(&mut producer, &topic, &clicks.next(now), now) {
                    tracing::warn!(%error, "a generated record could not be sent");
                }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        if let Err(error) = producer.flush(Duration::from_secs(5)) {
            tracing::debug!(%error, "the last generated records may not have been sent");
        }
    }))
}

/// Produces `events` clicks of the last minutes; gives their number.
///
/// # Errors
/// When a record cannot be delivered.
pub(crate) fn produce(kafka: &KafkaConfig, topic: &str, spec: ClicksSpec, events: u64) -> Result<u64> {
    let mut producer = Producer::open(kafka)?;
    let mut clicks = Clicks::new(spec);
    let now = topics::unix_millis();
    let span = events.min(BACKLOG_MS);
    for made in 0..events {
        let age = span - span * made / events.max(1);
        let then = now - i64::try_from(age)?;
        send(&mut producer, topic, &clicks.next(then), then)?;
    }
    producer.flush(Duration::from_secs(120))?;
    Ok(events)
}

fn send(producer: &mut Producer, topic: &str, click: &Click, timestamp: i64) -> Result<()> {
    let value = Some(click.value.as_bytes());
    Ok(producer.send(topic, Partition(click.partition), None, value, &[], Some(EventTime(timestamp)))?)
}
