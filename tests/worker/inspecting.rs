//! Questions about a shard and the keys in it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tidegate_devbroker::{ApiKey, Fault};
use tidegate_proto::v1;
use tidegate_proto::v1::worker_client::WorkerClient;
use tidegate_tests::DevKafka;
use tonic::{Code, Status};

use crate::coordinator::Stream;
use crate::rig::Rig;

async fn ask(stream: &Stream, shard: u32, key: Option<&str>) -> Result<v1::InspectResponse, Status> {
    let connected = WorkerClient::connect(format!("http://{}", stream.hello.address)).await;
    let mut client = connected.map_err(|error| Status::unknown(error.to_string()))?;
    let key = key.map(|key| key.as_bytes().to_vec().into());
    Ok(client.inspect(v1::InspectRequest { shard, key, windows: 0, dead_letter: None }).await?.into_inner())
}

fn windows(answer: &v1::InspectResponse) -> Vec<(i64, u64, String)> {
    answer.windows.iter().map(|w| (w.start_ms, w.records, w.values.join(" "))).collect()
}

pub async fn a_key_is_told_its_open_windows_as_of_the_last_commit(mut rig: Rig) -> Result<()> {
    let (worker, mut coordinator) = rig.worker("w").await?;
    let refused = ask(&coordinator, 1, None).await.err().context("nobody's shard is told of")?;
    ensure!(refused.code() == Code::NotFound && refused.message().contains("shard 1"), "{refused:?}");

    coordinator.assign(1, 1).await?;
    coordinator.announce(1, 1, 9).await?;
    let mut ingest = rig.ingest(&coordinator).await?;
    ingest.want(1).await?;
    let mut session = ingest.open(1, 0).await?;
    ingest.feed(&mut session, 4, &[(1, "a", 5), (2, "a", 7), (12, "a", -1), (3, "b", 1)]).await?;
    ingest.durable(1, 4).await?;
    let answer = ask(&coordinator, 1, Some("a")).await?;
    ensure!(windows(&answer) == [(0, 2, "2 12".to_owned()), (10, 1, "1 -1".to_owned())], "{answer:?}");
    ensure!(answer.aggregates == ["count", "sum"] && answer.windows_total == 2, "{answer:?}");
    ensure!((answer.worker.as_str(), answer.committed) == ("w", true), "{answer:?}");
    // The announcement and the frame come on different streams.
    let answer = loop {
        let answer = ask(&coordinator, 1, None).await?;
        if answer.announced_ms.is_some() {
            break answer;
        }
    };
    ensure!((answer.watermark_ms, answer.announced_ms) == (Some(4), Some(9)), "{answer:?}");
    let [input] = &answer.inputs[..] else { anyhow::bail!("{answer:?}") };
    ensure!((input.next, input.in_band_ms, input.applied) == (4, Some(4), 4), "{answer:?}");
    ensure!(input.holds && input.counts, "partition 0 is at 4, W at 9");
    let nobody = ask(&coordinator, 1, Some("nobody")).await?;
    ensure!(nobody.windows.is_empty() && nobody.windows_total == 0, "{nobody:?}");
    worker.stop().await
}

#[test]
fn while_commits_stall_the_answer_is_what_is_there_and_says_so() -> Result<()> {
    let broker = DevKafka::start()?;
    crate::rig::on(broker.bootstrap(), async |mut rig: Rig| {
        let (worker, mut coordinator) = rig.worker("w").await?;
        coordinator.assign(1, 1).await?;
        let mut ingest = rig.ingest(&coordinator).await?;
        ingest.want(1).await?;
        broker.faults().always(ApiKey::EndTxn, Fault::Delay(Duration::from_secs(4)));
        let mut session = ingest.open(1, 0).await?;
        ingest.feed(&mut session, 4, &[(1, "a", 5)]).await?;
        // The frame comes on another stream.
        let answer = loop {
            let answer = ask(&coordinator, 1, Some("a")).await?;
            if answer.windows_total == 1 {
                break answer;
            }
        };
        ensure!(!answer.committed && windows(&answer) == [(0, 1, "1 5".to_owned())], "{answer:?}");
        ensure!(ingest.durable.is_empty(), "no commit is through");
        broker.faults().clear_all();
        ingest.durable(1, 1).await?;
        let answer = ask(&coordinator, 1, Some("a")).await?;
        ensure!(answer.committed && answer.windows_total == 1, "{answer:?}");
        worker.stop().await
    })
}
